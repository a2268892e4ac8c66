//! The load generator: mTLS over HTTP/1.1 to a loopback address, every answer checked.
//!
//! Invariant: a request counts only if its answer is complete, has a 2xx status and holds the rows it
//! should; everything else is counted apart, so that a fast wrong server cannot win. One thread, so that
//! the proxy under test has a core of its own on a machine with two.
//!
//! Elsewhere on purpose: starting and metering the servers, repetition, medians and ratios (`bench.py`).

mod arguments;
mod client;
mod modes;
mod response;
mod rows;
mod tally;
mod tls;

use std::io::Write;
use std::process::ExitCode;

use arguments::Arguments;
use clap::Parser;

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(clean) if clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs one load and prints its report. True when every request counted.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let plan = arguments.plan()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tally = runtime.block_on(modes::run(plan))?;
    let report = tally.report();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{report}")?;
    out.flush()?;
    // Idle connections still open are cut by the end of the process.
    runtime.shutdown_background();
    Ok(tally.is_clean())
}
