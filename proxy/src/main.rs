//! The program `mosaic-federation`; under the name `mosaic` it takes `federation` as its first word.

use std::process::ExitCode;
use std::sync::Arc;

use certs::SystemClock;
use proxy::app;
use proxy::cli::{self, EntryPoints};
use proxy::demo;

/// Answers are many short-lived buffers of very different sizes; the system's allocator gives their
/// pages back and faults them in again for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Pingora would install another provider; post-quantum key exchange exists only in this one.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    let points = EntryPoints {
        serve: &|config, options| app::run(config, Arc::new(SystemClock), options),
        init_authority: &|config| app::init_authority(config, Arc::new(SystemClock)),
        demo: &|options, out| demo::run(&options, out),
    };
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    cli::run(
        std::env::args_os().collect(),
        environment,
        &points,
        &mut std::io::stdout(),
        // Not locked: log lines of other threads go there while a command runs.
        &mut std::io::stderr(),
    )
    .into()
}
