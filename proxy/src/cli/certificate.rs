//! `cert`: certificates, ours and those we issued.

use http::Method;
use serde_json::{Value, json};

use super::arguments::CertCommand;
use super::failure::CliFailure;
use super::grant::{print_applied, print_items};
use super::output::Console;
use super::{Context, segment};
use crate::exit::Exit;

const COLUMNS: [(&str, &str); 10] = [
    ("ROLE", "/role"),
    ("SERIAL", "/serial"),
    ("PEER", "/peer"),
    ("GRANT", "/grant"),
    ("STATE", "/state"),
    ("EXPIRES", "/not_after"),
    ("DAYS", "/days_left"),
    ("RETIRES", "/retires_at"),
    ("RENEWS", "/renews_at"),
    ("NOT RENEWED", "/failure"),
];

pub(super) async fn run(
    context: &Context<'_>,
    command: CertCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    match command {
        CertCommand::List => {
            let target = "/admin/v1/certificates";
            let rows = admin
                .ask("listing certificates", Method::GET, target, None)
                .await?;
            print_items(console, &COLUMNS, &rows)?;
        }
        CertCommand::Renew { peer } => {
            let body = json!({ "peer": peer });
            let target = "/admin/v1/certificates/renew";
            let renewed = admin
                .ask("renewing certificates", Method::POST, target, Some(&body))
                .await?;
            let columns = [
                ("PEER", "/peer"),
                ("RENEWED", "/renewed"),
                ("EXPIRES", "/not_after"),
            ];
            print_items(console, &columns, &renewed)?;
            let failures = failures(&renewed);
            for failure in &failures {
                // In the JSON they are already.
                if !console.json {
                    console.note(failure)?;
                }
            }
            if !failures.is_empty() {
                return Ok(Exit::Failed);
            }
        }
        CertCommand::Revoke { serial, reason } => {
            let target = format!("/admin/v1/certificates/{}/revoke", segment(&serial));
            let what = format!("revoking certificate {serial}");
            let body = json!({ "reason": reason });
            let revoked = admin.ask(&what, Method::POST, &target, Some(&body)).await?;
            print_applied(console, &revoked)?;
            if let (false, Some(hint)) = (console.json, revoked.get("hint").and_then(Value::as_str))
            {
                console.note(hint)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Why each that was not renewed was not.
fn failures(answer: &Value) -> Vec<String> {
    let items = answer.get("items").and_then(Value::as_array);
    let of = |one: &Value, name: &str| one.get(name).and_then(Value::as_str).map(str::to_owned);
    items
        .into_iter()
        .flatten()
        .filter(|one| one.get("renewed").and_then(Value::as_bool) != Some(true))
        .map(|one| {
            let (peer, why) = (of(one, "peer"), of(one, "failure"));
            format!("{}: {}", peer.unwrap_or_default(), why.unwrap_or_default())
        })
        .collect()
}
