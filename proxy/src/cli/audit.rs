//! `audit`: reading the log.

mod archive;
mod explain;
mod reconcile;
mod verify;

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::arguments::{AuditCommand, AuditLook};
use super::door::Door;
use super::failure::CliFailure;
use super::grant::print_items;
use super::output::{Console, cell};
use super::{Context, segment};
use crate::exit::Exit;

const COLUMNS: [(&str, &str); 10] = [
    ("AT", "/at"),
    ("DIRECTION", "/direction"),
    ("OUTCOME", "/outcome"),
    ("WHAT", "/what"),
    ("STATUS", "/http_status"),
    ("CODE", "/deny_code"),
    ("ROWS", "/rows_returned"),
    ("WITHHELD", "/rows_withheld"),
    ("GRANT", "/grant_id"),
    ("REQUEST", "/request_id"),
];

/// Between two looks for new rows; rows are visible within one second of the request.
const POLL: Duration = Duration::from_millis(500);
/// Rows taken at one look.
const BATCH: u32 = 1000;

pub(super) async fn run(
    context: &Context<'_>,
    command: AuditCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        AuditCommand::Query(look) => {
            let mut admin = context.admin()?;
            if look.historical {
                admin = admin.patient();
            }
            let mut rows = admin
                .ask("reading the audit log", Method::GET, &target(&look), None)
                .await?;
            if !console.json {
                rows.get_mut("items")
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                    .for_each(name_act);
            }
            print_items(console, &COLUMNS, &rows)?;
        }
        AuditCommand::Tail { follow, lines } => {
            tail(&context.admin()?, follow, lines, console).await?;
        }
        AuditCommand::Explain {
            request_id,
            historical,
        } => {
            explain::explain(context, &request_id, historical, console).await?;
        }
        AuditCommand::Archive(asked) => archive::archive(context, &asked, console).await?,
        AuditCommand::Verify(asked) => return verify::verify(context, &asked, console).await,
        AuditCommand::Export { to, grant } => {
            verify::export(context, to.as_deref(), grant.as_deref(), console).await?;
        }
        AuditCommand::Reconcile(asked) => {
            return reconcile::reconcile(context, &asked, console).await;
        }
    }
    Ok(Exit::Done)
}

fn target(look: &AuditLook) -> String {
    let mut target = format!("/admin/v1/audit?limit={}", look.limit);
    for (name, asked) in [("since", look.since), ("until", look.until)] {
        let Some(asked) = asked else { continue };
        let (name, value) = asked.member(name);
        let value = value.as_str().map_or_else(|| value.to_string(), segment);
        target.push_str(&format!("&{name}={value}"));
    }
    if look.historical {
        target.push_str("&historical=true");
    }
    for (name, value) in [
        ("grant", &look.grant),
        ("peer", &look.peer),
        ("outcome", &look.outcome),
        ("code", &look.code),
        ("direction", &look.direction),
        ("verb", &look.verb),
        ("resource", &look.resource),
        ("request_id", &look.request_id),
    ] {
        if let Some(value) = value {
            target.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    target
}

/// One line per row. Of an empty log the first row that comes is shown too.
async fn tail(
    admin: &Door,
    follow: bool,
    lines: u32,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let mut last: Option<String> = None;
    // Without rows to begin with, one is read all the same to know where the log ends.
    let mut target = format!("/admin/v1/audit?limit={}", lines.max(1));
    let mut shown = lines > 0;
    loop {
        let rows = admin
            .ask("reading the audit log", Method::GET, &target, None)
            .await?;
        for row in rows
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            last = row
                .get("id")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .or(last);
            if shown {
                print_row(row.clone(), console)?;
            }
        }
        if !follow {
            return Ok(());
        }
        shown = true;
        target = match &last {
            Some(last) => format!("/admin/v1/audit?limit={BATCH}&after={last}"),
            None => format!("/admin/v1/audit?limit={BATCH}"),
        };
        tokio::time::sleep(POLL).await;
    }
}

fn print_row(mut row: Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.json_line(&row)?);
    }
    name_act(&mut row);
    let cells = COLUMNS
        .iter()
        .map(|(_, pointer)| cell(row.pointer(pointer)));
    Ok(console.line(&cells.collect::<Vec<_>>().join("  "))?)
}

/// Requests are named by verb and resource, admin acts by their action.
fn name_act(row: &mut Value) {
    let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let what = text("action").or_else(|| {
        let words: Vec<String> = [text("verb"), text("resource")]
            .into_iter()
            .flatten()
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    });
    if let (Some(what), Some(row)) = (what, row.as_object_mut()) {
        row.insert("what".to_owned(), what.into());
    }
}
