//! How the gateway misbehaves, and the one place that state lives.
//!
//! Invariant: the default is honest. No mode ever changes what the gateway says about team
//! membership. The effect of each mode is in `deliver.rs` (bodies) and `visibility.rs` (rows).

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One way of misbehaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answer every user's rows, whatever the token; `team` and `personal` are ignored.
    Rows,
    /// Ignore `limit`.
    Limit,
    /// Add secret-looking members to every row and mix credential rows in.
    Secrets,
    /// Cut the body in the middle of its last row, but end the HTTP message cleanly.
    Truncate,
    /// Put malformed JSON inside a row.
    Garbage,
    /// Make the first row 2 MiB long.
    Oversize,
    /// Send the body a few bytes at a time.
    Slow,
    /// Answer 500.
    Status500,
    /// Never answer.
    Hang,
    /// Answer 500 to the questions about the caller's teams.
    FactsStatus500,
    /// Never answer the questions about the caller's teams.
    FactsHang,
    /// Answer the questions about the caller's teams with malformed JSON.
    FactsGarbage,
}

/// The name is not that of a mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown over-share mode `{0}`: use rows, limit, secrets, truncate, garbage, oversize, slow, \
     status500, hang, facts_status500, facts_hang or facts_garbage"
)]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "rows" => Self::Rows,
            "limit" => Self::Limit,
            "secrets" => Self::Secrets,
            "truncate" => Self::Truncate,
            "garbage" => Self::Garbage,
            "oversize" => Self::Oversize,
            "slow" => Self::Slow,
            "status500" => Self::Status500,
            "hang" => Self::Hang,
            "facts_status500" => Self::FactsStatus500,
            "facts_hang" => Self::FactsHang,
            "facts_garbage" => Self::FactsGarbage,
            _ => return Err(UnknownMode(name.to_owned())),
        })
    }
}

/// Everything that can be switched while the gateway runs. `PUT /_control` replaces all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// The modes in force.
    pub over_share: BTreeSet<Mode>,
    /// When above 0, the list of tasks is this many MiB of generated rows of the caller.
    pub big_mb: u32,
    /// Size of one such row in KiB, 1 to 1,024.
    pub big_row_kib: u32,
    /// Bytes per piece in mode `slow`, at least 1.
    pub slow_bytes: u32,
    /// Milliseconds between two pieces in mode `slow`.
    pub slow_pause_ms: u32,
    /// When not empty, every row holds it as its `apiKey`, and is found by it.
    pub hidden: String,
    /// Collections, by table, whose lists are answered 500.
    pub failing: BTreeSet<String>,
    /// User ids answered 403, besides those banned in the data.
    pub banned: BTreeSet<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            over_share: BTreeSet::new(),
            big_mb: 0,
            big_row_kib: 4,
            slow_bytes: 16,
            slow_pause_ms: 50,
            hidden: String::new(),
            failing: BTreeSet::new(),
            banned: BTreeSet::new(),
        }
    }
}

/// A setting is outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is outside {range}")]
pub struct OutOfRange {
    name: &'static str,
    range: &'static str,
}

impl Behaviour {
    /// Whether a mode is in force.
    #[must_use]
    pub fn is(&self, mode: Mode) -> bool {
        self.over_share.contains(&mode)
    }

    /// Check the ranges.
    ///
    /// # Errors
    /// [`OutOfRange`] naming the first setting that is outside its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let problem = |name, range| Err(OutOfRange { name, range });
        if self.big_mb > 4_096 {
            return problem("big_mb", "0..=4096");
        }
        if !(1..=1_024).contains(&self.big_row_kib) {
            return problem("big_row_kib", "1..=1024");
        }
        if self.slow_bytes == 0 {
            return problem("slow_bytes", "1..");
        }
        Ok(())
    }
}
