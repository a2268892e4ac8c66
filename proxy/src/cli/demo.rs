//! `demo`: finding the programs it takes; what it shows is in the module of that name.

use std::path::PathBuf;

use super::EntryPoints;
use super::failure::CliFailure;
use super::output::Console;
use crate::demo::DemoOptions;
use crate::exit::Exit;

/// The gateway that the repository builds.
const GATEWAY: &str = "reference-gateway";

/// The demo has settings of its own: others would be accepted and have no effect.
pub(super) fn refuse_settings(are_given: bool) -> Result<(), CliFailure> {
    if !are_given {
        return Ok(());
    }
    let why = "--config, --set, --admin-socket and --json have no effect on it";
    let failure = CliFailure::new(Exit::Usage, "usage", "the demo takes no settings", why);
    Err(failure.remedy("leave them out"))
}

pub(super) fn run(
    gateway_binary: Option<PathBuf>,
    keep: bool,
    points: &EntryPoints<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let failed = |why: String| {
        CliFailure::new(
            Exit::Failed,
            "demo",
            "the demo did not end as it should",
            why,
        )
    };
    let program = std::env::current_exe()
        .map_err(|error| failed(format!("this program cannot be found: {error}")))?;
    let gateway = gateway_binary.unwrap_or_else(|| program.with_file_name(GATEWAY));
    // Whole: commands are run in directories of their own.
    let gateway_binary = gateway.canonicalize().map_err(|error| {
        let why = format!("no gateway at {}: {error}", gateway.display());
        failed(why).remedy(format!(
            "`./run demo` builds and names it; --gateway-binary names another {GATEWAY}"
        ))
    })?;
    let options = DemoOptions {
        program,
        gateway_binary,
        keep,
    };
    (points.demo)(options, console.out()).map_err(failed)?;
    Ok(Exit::Done)
}
