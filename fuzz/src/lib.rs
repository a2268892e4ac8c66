//! Fuzz targets: one for each parser that reads bytes of somebody we do not trust, named after it.
//!
//! Invariant: a target never only "does not crash". Each compares what the parser says with something that must
//! hold whatever the bytes are, and panics when it does not. The same functions run under libFuzzer
//! (`./run fuzz NAME`) and, over corpus and mutations, in every test run (`tests/corpus.rs`).
//!
//! Corpora are in `corpus/NAME/`: small, chosen by hand, plus every input that ever found a defect.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod body;
mod certificate;
mod checkpoint;
mod cursor;
mod heads;
mod journal;
pub mod mutate;
mod policy_files;
mod rows;

/// One parser under attack.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Reads the bytes and panics when what must hold does not.
    pub attack: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "rows",
        about: "answers of the gateway, through the row filter",
        attack: rows::attack,
    },
    Target {
        name: "body",
        about: "JSON bodies of requests",
        attack: body::attack,
    },
    Target {
        name: "heads",
        about: "request targets and raw HTTP/1 heads",
        attack: heads::attack,
    },
    Target {
        name: "cursor",
        about: "list cursors",
        attack: cursor::attack,
    },
    Target {
        name: "certificate",
        about: "identity extensions of client certificates",
        attack: certificate::attack,
    },
    Target {
        name: "checkpoint",
        about: "what a peer says of its record, and exports of it",
        attack: checkpoint::attack,
    },
    Target {
        name: "journal",
        about: "records of the audit journal that a process left",
        attack: journal::attack,
    },
    Target {
        name: "policy",
        about: "policy files",
        attack: policy_files::attack,
    },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
