//! `keys`: the secret that everything else is sealed with.

use certs::{Sealer, SealingSecret};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Context;
use super::arguments::{KeysCommand, ResealCommand};
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;
use crate::sealing_secret;

/// What is sent to seal with another secret.
#[derive(Serialize)]
struct StartReseal<'a> {
    secret: &'a str,
}

const START: &str = "sealing with the next secret";

pub(super) async fn run(
    context: &Context<'_>,
    command: KeysCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let KeysCommand::Reseal(command) = command;
    let admin = context.admin()?;
    let found = match command {
        ResealCommand::Status => {
            let what = "reading how the store is sealed";
            admin.ask(what, Method::GET, "/admin/v1/keys", None).await?
        }
        ResealCommand::Start => {
            let source = &context.config()?.seal;
            let failed = |why: String| CliFailure::new(Exit::Failed, "sealing_secret", START, why);
            let secret = sealing_secret::read_next(source).map_err(failed)?;
            let secret = secret.ok_or_else(|| {
                failed(format!("there is no {}", source.next())).remedy(format!(
                    "put the next secret there, with: openssl rand -hex 32; the sidecar needs it there, too, when it is started again before the change ends ({source} stays as it is until then)"
                ))
            })?;
            let text = Zeroizing::new(secret.to_hex());
            let body = StartReseal {
                secret: text.as_str(),
            };
            let target = "/admin/v1/keys/reseal";
            let admin = admin.patient();
            admin
                .ask_secretly(START, Method::POST, target, &body)
                .await?
        }
        ResealCommand::Finish => {
            let configured = configured(context);
            if configured.is_none() {
                console.note("the secret of the settings cannot be read here: see that the next start is given the next one")?;
            }
            let body = json!({ "configured": configured });
            let target = "/admin/v1/keys/reseal/finish";
            let what = "ending the change of the sealing secret";
            admin.ask(what, Method::POST, target, Some(&body)).await?
        }
    };
    show(&found, console)
}

/// The public name of the secret that the settings give, where it can be read.
fn configured(context: &Context<'_>) -> Option<String> {
    let source = &context.config().ok()?.seal;
    let secret: SealingSecret = sealing_secret::read(source).ok()?;
    let sealer = Sealer::new(secret).ok()?;
    Some(hex::encode(sealer.key_id()))
}

fn show(found: &Value, console: &mut Console<'_>) -> Result<Exit, CliFailure> {
    if console.json {
        console.document(found)?;
        return Ok(Exit::Done);
    }
    let fields = [
        ("secret", "/key_id"),
        ("to follow", "/next_key_id"),
        ("begun", "/begun_at"),
        ("resealed", "/resealed"),
        ("left", "/left"),
    ];
    console.members(&fields, found)?;
    let rows = found.get("rows").and_then(Value::as_array);
    let rows = rows.map_or(&[][..], Vec::as_slice);
    if !rows.is_empty() {
        console.line("")?;
        let columns = [("KIND", "/kind"), ("SECRET", "/key_id"), ("ROWS", "/rows")];
        console.table(&columns, rows)?;
    }
    let under_way = found.get("next_key_id").is_some_and(Value::is_string);
    let is_left = found.get("left").and_then(Value::as_u64) != Some(0);
    if under_way && is_left {
        console.note("`keys reseal start` goes on")?;
    } else if under_way {
        console.note(
            "put the next secret in the place of the present one, then `keys reseal finish`",
        )?;
    }
    Ok(Exit::Done)
}
