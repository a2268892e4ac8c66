//! `user`: what peers may see as one of our users.

use http::Method;
use serde_json::{Value, json};

use super::arguments::UserCommand;
use super::failure::CliFailure;
use super::grant::print_applied;
use super::output::Console;
use super::{Context, segment};
use crate::exit::Exit;

pub(super) async fn run(
    context: &Context<'_>,
    command: UserCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let UserCommand::Forget { user, reason } = command;
    let admin = context.admin()?;
    let target = format!("/admin/v1/users/{}/forget", segment(&user));
    let body = json!({ "reason": reason });
    let what = format!("forgetting user {user}");
    let forgotten = admin.ask(&what, Method::POST, &target, Some(&body)).await?;
    if !console.json {
        let grants = forgotten.get("grants").and_then(Value::as_array);
        let grants = grants.map_or(&[][..], Vec::as_slice);
        for grant in grants {
            console.line(grant.as_str().unwrap_or_default())?;
        }
        console.note(&format!("{} grant(s) revoked", grants.len()))?;
    }
    print_applied(console, &forgotten)?;
    Ok(Exit::Done)
}
