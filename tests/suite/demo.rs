//! The demo, as `./run demo` starts it: it ends well, the README's transcript is true, and nothing stays behind,
//! whichever way it ends.
//!
//! `UPDATE_README=1` writes the transcript of this run into the README.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const BEGIN: &str =
    "<!-- transcript: `UPDATE_README=1 ./run test --test demo` rewrites it -->\n\n```text\n";
const END: &str = "```\n\n<!-- end of the transcript -->";

/// Where the programs are: as `./run test` says, else beside this test.
fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("MOSAIC_TEST_BIN_DIR").map_or_else(
        || {
            let this = std::env::current_exe().unwrap();
            this.parent().unwrap().parent().unwrap().to_owned()
        },
        PathBuf::from,
    );
    let program = directory.join(name);
    assert!(
        program.exists(),
        "{} is not built: ./run test builds it first",
        program.display()
    );
    program
}

/// A demo whose files are below `directory`.
fn demo(directory: &TempDir, gateway: &Path, arguments: &[&str]) -> Command {
    let mut demo = Command::new(program("mosaic-federation"));
    demo.arg("demo")
        .arg("--gateway-binary")
        .arg(gateway)
        .args(arguments)
        .env("TMPDIR", directory.path())
        // What the person who starts it has set for other sidecars must not matter.
        .env("MOSAIC_SESSION_TOKEN", "of another sidecar")
        .env("MOSAIC_FEDERATION_DATA_DIR", "/nowhere");
    demo
}

fn run(directory: &TempDir, gateway: &Path) -> Output {
    demo(directory, gateway, &[]).output().unwrap()
}

/// Fails when there is a file in the directory, or a process in it.
fn assert_nothing_stays(directory: &TempDir) {
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let inside = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|process| {
            std::fs::read_link(process.path().join("cwd"))
                .is_ok_and(|place| place.starts_with(directory.path()))
        });
    let inside: Vec<_> = inside.map(|process| process.path()).collect();
    assert!(inside.is_empty(), "{inside:?}");
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

#[test]
fn it_shows_what_the_readme_says() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&directory, &program("reference-gateway"));
    let shown = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{shown}");
    assert_eq!(errors, "");
    assert_nothing_stays(&directory);

    let text = std::fs::read_to_string(readme()).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the README has the transcript");
    let (written, after) = rest.split_once(END).expect("the transcript ends");
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(readme(), format!("{before}{BEGIN}{shown}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(
        masked(written),
        masked(&shown),
        "the README's transcript is not what the demo shows; UPDATE_README=1 rewrites it"
    );
}

/// Starts a demo that stays, waits for a line with `text`, and sends `signal`.
fn interrupted(directory: &TempDir, text: &str, signal: &str) -> (Child, String) {
    let mut child = demo(directory, &program("reference-gateway"), &["--keep"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains(text));
    assert!(found, "it ended without `{text}`");
    let sent = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut rest = String::new();
    for line in lines.map_while(Result::ok) {
        writeln!(rest, "{line}").unwrap();
    }
    (child, rest)
}

#[test]
fn one_that_stays_ends_well_when_it_is_told_to_end() {
    for signal in ["INT", "TERM", "HUP"] {
        let directory = tempfile::tempdir().unwrap();
        let (child, _) = interrupted(&directory, "until Ctrl-C", signal);
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{signal}: {errors}");
        assert_nothing_stays(&directory);
    }
}

#[test]
fn one_that_is_interrupted_leaves_nothing() {
    for text in ["Two sides run", "gateway token set"] {
        let directory = tempfile::tempdir().unwrap();
        let (child, rest) = interrupted(&directory, text, "TERM");
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_nothing_stays(&directory);
        // On a machine that is fast enough it had come to its end, and stayed.
        if !rest.contains("until Ctrl-C") {
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert!(errors.contains("interrupted by SIGTERM"), "{errors}");
        }
    }
}

#[test]
fn one_that_fails_says_where_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&directory, Path::new("/bin/false"));
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("work/gateway did not become ready"),
        "{errors}"
    );
    assert_nothing_stays(&directory);
}

/// Without what differs from run to run: addresses, ids, tokens, dates, cursors, counters, and the padding of
/// tables.
fn masked(transcript: &str) -> String {
    let mut out = String::new();
    for line in transcript.lines() {
        let mut words: Vec<String> = line.split_whitespace().map(masked_word).collect();
        let counts = [
            "revision",
            "waited_ms",
            "connections_closed",
            "connections_reset",
        ];
        if let [name, number] = words.as_mut_slice()
            && counts.contains(&name.as_str())
        {
            "N".clone_into(number);
        }
        writeln!(out, "{}", words.join(" ")).unwrap();
    }
    out
}

fn masked_word(word: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    let mut out = String::new();
    let mut part = String::new();
    for c in word.chars().chain([' ']) {
        if is_part(c) {
            part.push(c);
        } else {
            out.push_str(masked_part(&part));
            part.clear();
            out.push(c);
        }
    }
    out.trim_end().to_owned()
}

fn masked_part(part: &str) -> &str {
    let is_uuid = part.len() == 36 && part.matches('-').count() == 4;
    let is_constant = part.contains("-f0ed-") || part.starts_with("0a11ce00-");
    let is_date = part.len() == 24 && part.contains('T') && part.ends_with('Z');
    match part {
        _ if part.starts_with("127.0.0.1:") => "ADDRESS",
        _ if is_uuid && !is_constant => "ID",
        _ if is_date => "DATE",
        _ if part.len() == 64 && part.chars().all(|c| c.is_ascii_hexdigit()) => "HEX",
        _ if part.len() > 64 => "CURSOR",
        _ => part,
    }
}

#[test]
fn masking_hides_what_differs_and_nothing_else() {
    let one = masked("id 01a2022b-ba93-7d22-ab09-961e1c50b593; at 2026-11-22T07:47:29.979Z");
    assert_eq!(one, "id ID; at DATE\n");
    let url = format!("https://127.0.0.1:4/e/{0}#sha256={0}", "ab".repeat(32));
    assert_eq!(masked(&url), "https://ADDRESS/e/HEX#sha256=HEX\n");
    assert_eq!(masked("revision     11\n"), "revision N\n");
    for kept in [
        "00000003-f0ed-4000-8000-000000000861",
        "5 28",
        "[exit status 3]",
    ] {
        assert_eq!(masked(kept), format!("{kept}\n"));
    }
}
