//! `gateway`: the source of all rows.

use std::io::IsTerminal;
use std::path::Path;

use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::arguments::{GatewayCommand, GatewayTokenCommand};
use super::door::read_text;
use super::failure::CliFailure;
use super::output::Console;
use super::{Context, segment};
use crate::exit::Exit;

pub(super) async fn run(
    context: &Context<'_>,
    command: GatewayCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        GatewayCommand::Check => check(context, console).await,
        GatewayCommand::Token(GatewayTokenCommand::Set { user, token_file }) => {
            let path = token_file.as_deref().unwrap_or(Path::new("-"));
            if path == Path::new("-") && std::io::stdin().is_terminal() {
                console.note("paste the token, then end the input with Ctrl-D")?;
            }
            let text = Zeroizing::new(read_text("the token", path)?);
            let body = json!({"token": text.trim()});
            let target = format!("/admin/v1/gateway/tokens/{}", segment(&user));
            let what = format!("registering the gateway token of {user}");
            context
                .admin()?
                .ask(&what, Method::PUT, &target, Some(&body))
                .await?;
            if console.json {
                console.document(&json!({"user": user}))?;
            } else {
                console.note(&format!("registered for {user}; `gateway check` tries it"))?;
            }
            Ok(Exit::Done)
        }
    }
}

async fn check(context: &Context<'_>, console: &mut Console<'_>) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    let found = admin
        .ask(
            "checking the gateway",
            Method::POST,
            "/admin/v1/gateway/check",
            None,
        )
        .await?;
    let is = |pointer: &str, expected: bool| found.pointer(pointer) == Some(&Value::Bool(expected));
    let subjects = found
        .get("subjects")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let all_accepted = subjects
        .iter()
        .all(|one| one.get("accepted") == Some(&Value::Bool(true)));
    if console.json {
        console.document(&found)?;
    } else {
        let fields = [
            ("gateway", "/url"),
            ("preset", "/preset"),
            ("auth", "/auth"),
            ("reachable", "/reachable"),
            ("failure", "/failure"),
            ("users kept apart", "/subjects_kept_apart"),
        ];
        console.members(&fields, &found)?;
        if !subjects.is_empty() {
            console.line("")?;
            let columns = [
                ("USER", "/user"),
                ("ACCEPTED", "/accepted"),
                ("ANSWERED AS", "/answered_as"),
                ("FACTS", "/facts"),
                ("FAILURE", "/failure"),
            ];
            console.table(&columns, subjects)?;
        }
        if is("/reachable", true) && found.pointer("/subjects_kept_apart") == Some(&Value::Null) {
            console.note("whether users are kept apart cannot be told: it takes two users and the preset internal-v1")?;
        }
    }
    let good = is("/reachable", true) && !is("/subjects_kept_apart", false) && all_accepted;
    Ok(if good { Exit::Done } else { Exit::Failed })
}
