//! Log lines on standard error, as text or as JSON objects.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process; a second call changes nothing.
///
/// # Errors
/// When `level` is not a level or filter directive.
pub fn start(form: LogForm, level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("`log.level` is not a level or filter: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // Already started (several sidecars in one process): the first one's form stands.
    let _ = match form {
        LogForm::Text => lines.finish().try_init(),
        LogForm::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    Ok(())
}
