//! `session`: tokens for local sessions.

use http::Method;
use serde_json::{Value, json};

use super::arguments::SessionCommand;
use super::failure::CliFailure;
use super::output::Console;
use super::{Context, segment};
use crate::exit::Exit;

pub(super) async fn run(
    context: &Context<'_>,
    command: SessionCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        SessionCommand::Create { user, ttl } => create(context, &user, ttl, console).await,
        SessionCommand::List { all } => list(context, all, console).await,
        SessionCommand::End { id } => end(context, &id, console).await,
    }
}

async fn list(
    context: &Context<'_>,
    all: bool,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let mut answer = context
        .admin()?
        .ask("listing sessions", Method::GET, "/admin/v1/sessions", None)
        .await?;
    let mut sessions = match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(sessions)) => sessions,
        _ => Vec::new(),
    };
    sessions.retain(|session| all || session.get("state").and_then(Value::as_str) == Some("live"));
    if console.json {
        console.document(&json!({ "items": sessions }))?;
        return Ok(Exit::Done);
    }
    let columns = [
        ("ID", "/id"),
        ("USER", "/user"),
        ("STATE", "/state"),
        ("CREATED", "/created_at"),
        ("EXPIRES", "/expires_at"),
    ];
    console.table(&columns, &sessions)?;
    Ok(Exit::Done)
}

async fn end(
    context: &Context<'_>,
    id: &str,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let path = format!("/admin/v1/sessions/{}/end", segment(id));
    let session = context
        .admin()?
        .ask("ending the session", Method::POST, &path, None)
        .await?;
    if console.json {
        console.document(&session)?;
    } else {
        let user = session.get("user").and_then(Value::as_str);
        console.note(&format!(
            "the session of {} is over; its token is refused from the next request on",
            user.unwrap_or_default()
        ))?;
    }
    Ok(Exit::Done)
}

async fn create(
    context: &Context<'_>,
    user: &str,
    ttl: u32,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
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
