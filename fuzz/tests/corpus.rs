//! Every fuzz target over its corpus and over mutations of it, the same ones in every run.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fuzz::mutate::{Numbers, mutate};
use fuzz::{TARGETS, Target};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = corpora().join(target.name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// Mutations of each target: `MOSAIC_SOAK` multiplies them.
fn mutations() -> usize {
    let soak = std::env::var_os("MOSAIC_SOAK").is_some();
    if soak { 2_000_000 } else { 20_000 }
}

fn attack(name: &str) {
    let target = fuzz::target(name).unwrap();
    let seeds = corpus(&target);
    assert!(seeds.len() >= 3, "`{name}` has too small a corpus");
    for seed in &seeds {
        (target.attack)(seed);
    }
    let mut numbers = Numbers(1);
    for _ in 0..mutations() {
        let seed = &seeds[numbers.below(seeds.len())];
        let other = &seeds[numbers.below(seeds.len())];
        let input = mutate(seed, other, &mut numbers);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.attack)(&input))) {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            panic!("`{name}`: {text:?} on {}", input.escape_ascii());
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { attack(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name),)*];
    };
}

targets! { rows body heads cursor certificate checkpoint journal policy }

#[test]
fn every_target_is_tested_and_has_a_corpus() {
    let named: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(named, TESTED);
    let mut dirs: Vec<String> = std::fs::read_dir(corpora())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    dirs.sort();
    let mut names: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    assert_eq!(dirs, names);
}
