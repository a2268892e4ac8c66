//! `status`: the running sidecar at a glance.

use http::Method;
use serde_json::{Map, Value};

use super::Context;
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;

pub(super) async fn run(
    context: &Context<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let status = context
        .admin()?
        .ask("reading the status", Method::GET, "/admin/v1/status", None)
        .await?;
    if console.json {
        console.document(&status)?;
        return Ok(Exit::Done);
    }
    let fields = [
        ("version", "/version"),
        ("tier", "/tier_note"),
        ("revision", "/revision"),
        ("NOT SERVING", "/fenced"),
        ("policy files", "/policy/files"),
        ("policy hash", "/policy/hash"),
        ("policy since", "/policy/applied_at"),
        ("POLICY NOT LOADED", "/policy/last_failure/at"),
        ("because", "/policy/last_failure/message"),
    ];
    console.members(&fields, &status)?;
    let list = |key: &str| {
        status
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    section(
        console,
        &[("LISTENER", "/name"), ("ADDRESS", "/address")],
        &list("listeners"),
    )?;
    let outbound = [
        ("PEER WE ASK", "/name"),
        ("STATE", "/state"),
        ("GRANT", "/credential/grant"),
        ("GRANT STATE", "/credential/state"),
        ("USER", "/credential/user"),
        ("CERTIFICATE EXPIRES", "/credential/not_after"),
        ("DAYS", "/credential/days_left"),
        ("LAST SUCCESS", "/last_success_at"),
        ("LAST FAILURE", "/last_failure_at"),
        ("CAUSE", "/last_failure"),
    ];
    section(console, &outbound, &per_credential(list("outbound")))?;
    let inbound = [
        ("GRANT WE SERVE", "/grant"),
        ("STATE", "/state"),
        ("PEER", "/peer"),
        ("PEER STATE", "/peer_state"),
        ("USER", "/user"),
        ("CERTIFICATE EXPIRES", "/certificate_expires_at"),
        ("DAYS", "/days_left"),
    ];
    section(console, &inbound, &list("inbound"))?;
    Ok(Exit::Done)
}

fn section(
    console: &mut Console<'_>,
    columns: &[(&str, &str)],
    rows: &[Value],
) -> Result<(), CliFailure> {
    if rows.is_empty() {
        return Ok(());
    }
    console.line("")?;
    Ok(console.table(columns, rows)?)
}

/// A row for each credential that still counts; a peer without one keeps a row of its own.
fn per_credential(peers: Vec<Value>) -> Vec<Value> {
    let mut rows = Vec::new();
    for peer in peers {
        let Value::Object(peer) = peer else { continue };
        let credentials = peer
            .get("credentials")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let current: Vec<Value> = credentials
            .into_iter()
            .filter(|one| one.get("state").and_then(Value::as_str) != Some("superseded"))
            .collect();
        let row = |credential: Option<Value>| {
            let mut row: Map<String, Value> = peer.clone();
            row.insert("credential".to_owned(), credential.unwrap_or_default());
            Value::Object(row)
        };
        if current.is_empty() {
            rows.push(row(None));
        }
        rows.extend(current.into_iter().map(|credential| row(Some(credential))));
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn superseded_credentials_are_not_shown() {
        let peers = vec![
            json!({"name": "a", "credentials": [{"state": "active"}, {"state": "superseded"}]}),
            json!({"name": "b", "credentials": []}),
        ];
        let rows = per_credential(peers);
        let states: Vec<_> = rows
            .iter()
            .map(|row| row.pointer("/credential/state").cloned())
            .collect();
        assert_eq!(states, [Some(json!("active")), None]);
    }
}
