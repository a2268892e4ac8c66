//! What several of the long tests share beyond the harness.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod acts;
pub mod asking;
pub mod contents;
pub mod copied;
pub mod delay;
pub mod enlist;
pub mod enroll;
pub mod hole;
pub mod kernel;
pub mod line;
pub mod log;
pub mod onboard;
pub mod process;
pub mod reader;
pub mod relay;
pub mod search;
pub mod step;
pub mod stream;
pub mod truth;
pub mod upstream;

/// Whether the long counts are asked for.
pub fn is_soak() -> bool {
    std::env::var_os("MOSAIC_SOAK").is_some()
}

/// `short` in CI, `long` in a soak.
pub fn rounds(short: u32, long: u32) -> u32 {
    if is_soak() { long } else { short }
}

/// Says that what is named was not tested, on a line of its own that `./run test` counts. Printed past the harness, which
/// keeps what a test that passes has said to itself.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nSKIPPED {what}: {why}").unwrap();
}
