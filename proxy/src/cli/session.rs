//! `session`: tokens for local sessions.

use http::Method;
use serde_json::{Value, json};

use super::Context;
use super::arguments::SessionCommand;
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;

pub(super) async fn run(
    context: &Context<'_>,
    command: SessionCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let SessionCommand::Create { user, ttl } = command;
    let body = json!({"user": user, "ttl_s": ttl});
    let what = format!("making a session for {user}");
    let session = context
        .admin()?
        .ask(&what, Method::POST, "/admin/v1/sessions", Some(&body))
        .await?;
    if console.json {
        console.document(&session)?;
        return Ok(Exit::Done);
    }
    let text = |key: &str| session.get(key).and_then(Value::as_str);
    console.line(text("token").unwrap_or_default())?;
    let socket = text("socket").unwrap_or_default();
    let doors = text("url").map_or_else(|| socket.to_owned(), |url| format!("{socket} and {url}"));
    let until = text("expires_at").unwrap_or_default();
    console.note(&format!("shown once; good until {until} on {doors}"))?;
    console.note("for the command line: export MOSAIC_SESSION_TOKEN=...")?;
    Ok(Exit::Done)
}
