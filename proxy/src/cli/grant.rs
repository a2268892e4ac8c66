//! `grant`: what peers may see of ours.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use super::arguments::{GrantCommand, GrantCreate};
use super::door::{Door, read_text};
use super::failure::CliFailure;
use super::output::Console;
use super::{Context, segment};
use crate::exit::Exit;

const COLUMNS: [(&str, &str); 6] = [
    ("GRANT", "/id"),
    ("STATUS", "/status"),
    ("PEER", "/peer"),
    ("USER", "/user"),
    ("RESOURCES", "/scope/resources"),
    ("EXPIRES", "/expires_at"),
];

pub(super) async fn run(
    context: &Context<'_>,
    command: GrantCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    match command {
        GrantCommand::Create(create) => create_grant(&admin, &create, console).await?,
        GrantCommand::List => {
            let grants = admin
                .ask("listing grants", Method::GET, "/admin/v1/grants", None)
                .await?;
            print_items(console, &COLUMNS, &grants)?;
        }
        GrantCommand::Show { id } => {
            let target = format!("/admin/v1/grants/{}", segment(&id));
            let grant = admin
                .ask(&format!("showing grant {id}"), Method::GET, &target, None)
                .await?;
            show(&grant, console)?;
        }
        GrantCommand::Edit { id, scope } => {
            let target = format!("/admin/v1/grants/{}", segment(&id));
            let body = json!({ "scope": read_scope(&scope)? });
            let what = format!("editing grant {id}");
            let edited = admin.ask(&what, Method::PUT, &target, Some(&body)).await?;
            if !console.json {
                show(&edited, console)?;
                console.line("")?;
            }
            print_applied(console, &edited)?;
        }
        GrantCommand::Revoke { id, reason } => {
            let target = format!("/admin/v1/grants/{}/revoke", segment(&id));
            let body = json!({ "reason": reason });
            let applied = admin
                .ask(
                    &format!("revoking grant {id}"),
                    Method::POST,
                    &target,
                    Some(&body),
                )
                .await?;
            print_applied(console, &applied)?;
        }
        GrantCommand::Token { id, ttl, replace } => {
            let target = format!("/admin/v1/grants/{}/token", segment(&id));
            let body = json!({"ttl_s": ttl, "replace": replace});
            let what = format!("making a token for grant {id}");
            let token = admin.ask(&what, Method::POST, &target, Some(&body)).await?;
            if console.json {
                console.document(&token)?;
            } else {
                console.line(token.get("url").and_then(Value::as_str).unwrap_or_default())?;
                let until = token
                    .get("expires_at")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                console.note(&format!("good once, until {until}; on the other side: mosaic-federation peer add URL --user USER --name NAME"))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// A scope from a file, as JSON; what it means is the sidecar's business.
fn read_scope(path: &Path) -> Result<Value, CliFailure> {
    let text = read_text("the scope", path)?;
    // The strict reader also refuses a member that is given twice.
    policy::strict_json::parse(&text).map_err(|error| {
        CliFailure::new(
            Exit::Usage,
            "invalid_scope",
            "the scope cannot be used",
            format!("it is not JSON: {error}"),
        )
        .remedy("write it as in {\"resources\": [\"tasks\"]}")
    })
}

async fn create_grant(
    admin: &Door,
    create: &GrantCreate,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let scope = read_scope(&create.scope)?;
    let body = json!({
        "user": create.user,
        "peer": create.peer,
        "scope": scope,
        "expires_at": create.expires,
        "expires_in_s": create.expires_in,
    });
    let grant = admin
        .ask(
            "creating a grant",
            Method::POST,
            "/admin/v1/grants",
            Some(&body),
        )
        .await?;
    if console.json {
        console.document(&grant)?;
    } else {
        let id = grant.get("id").and_then(Value::as_str).unwrap_or_default();
        console.line(id)?;
        console.note(&format!(
            "pending; next: mosaic-federation grant token {id}"
        ))?;
    }
    Ok(())
}

fn show(grant: &Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.document(grant)?);
    }
    let fields = [
        ("grant", "/id"),
        ("status", "/status"),
        ("peer", "/peer"),
        ("user", "/user"),
        ("subject", "/subject"),
        ("resources", "/scope/resources"),
        ("excluded", "/scope/excluded_resources"),
        ("filters", "/scope/filters"),
        ("rows per answer", "/scope/max_rows_per_query"),
        ("created", "/created_at"),
        ("activated", "/activated_at"),
        ("expires", "/expires_at"),
        ("revoked", "/revoked_at"),
        ("reason", "/reason"),
    ];
    console.members(&fields, grant)?;
    let certificates = grant
        .get("certificates")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if !certificates.is_empty() {
        console.line("")?;
        let columns = [
            ("CERTIFICATE", "/serial"),
            ("STATE", "/state"),
            ("EXPIRES", "/not_after"),
            ("DAYS", "/days_left"),
        ];
        console.table(&columns, certificates)?;
    }
    Ok(())
}

/// The `items` of an answer as a table, or the answer as JSON.
pub(super) fn print_items(
    console: &mut Console<'_>,
    columns: &[(&str, &str)],
    answer: &Value,
) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.document(answer)?);
    }
    let items = answer
        .get("items")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    console.table(columns, items)?;
    if items.is_empty() {
        console.note("there are none")?;
    }
    Ok(())
}

/// What applying a change came to.
pub(super) fn print_applied(console: &mut Console<'_>, applied: &Value) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.document(applied)?);
    }
    let fields = [
        ("revision", "/revision"),
        ("waited_ms", "/waited_ms"),
        ("connections_closed", "/connections_closed"),
        ("connections_reset", "/connections_reset"),
    ];
    console.members(&fields, applied)?;
    if let Some(notice) = applied.get("notice").and_then(Value::as_str) {
        console.note(notice)?;
    }
    Ok(())
}
