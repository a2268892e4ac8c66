//! `status`: the running sidecar at a glance.

use std::io::IsTerminal;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value};

use super::Context;
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;

/// What a terminal takes for: cursor home, and clear from there.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Shows the status once, or again with each `every` until the process is told to stop. While watching, a sidecar
/// that is away is shown as such and looked for again; with `--json` each status is one line.
pub(super) async fn run(
    context: &Context<'_>,
    every: Option<Duration>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let admin = context.admin()?;
    let ask = || admin.ask("reading the status", Method::GET, "/admin/v1/status", None);
    let Some(every) = every else {
        let status = ask().await?;
        if console.json {
            console.document(&status)?;
        } else {
            show(&status, console)?;
        }
        return Ok(Exit::Done);
    };
    loop {
        let status = ask().await;
        if !console.json && std::io::stdout().is_terminal() {
            write!(console.out(), "{CLEAR}")?;
        }
        match status {
            Ok(status) if console.json => console.json_line(&status)?,
            Ok(status) => {
                show(&status, console)?;
                console.line("")?;
            }
            Err(failure) if failure.exit == Exit::Unavailable => {
                console.note(&format!("{}: {}", failure.what, failure.why))?;
            }
            Err(failure) => return Err(failure),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            stop = tokio::signal::ctrl_c() => {
                stop?;
                return Ok(Exit::Done);
            }
        }
    }
}

fn show(status: &Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    let fields = [
        ("version", "/version"),
        ("tier", "/tier_note"),
        ("revision", "/revision"),
        ("NOT SERVING", "/fenced"),
        ("confined to its files", "/hardening/files"),
        (
            "last canary, ms to revoke",
            "/revocation_canary/last/latency_ms",
        ),
        ("CANARY FAILED AT", "/revocation_canary/failure/step"),
        ("since it", "/revocation_canary/failure/why"),
        ("policy files", "/policy/files"),
        ("policy hash", "/policy/hash"),
        ("policy since", "/policy/applied_at"),
        ("candidate beside it", "/policy/shadow"),
        ("POLICY NOT LOADED", "/policy/last_failure/at"),
        ("because", "/policy/last_failure/message"),
        ("server certificate until", "/server_certificate/not_after"),
        (
            "SERVER CERTIFICATE NOT REPLACED",
            "/server_certificate/failure/message",
        ),
        ("AUDIT LOG IN TROUBLE", "/audit/trouble"),
        ("AUDIT ROWS NOT ARCHIVED", "/audit/archive_trouble"),
        ("revocation list", "/revocation/published/number"),
        ("names", "/revocation/published/entries"),
        ("good until", "/revocation/published/next_update"),
        (
            "REVOCATION LIST NOT MADE ANEW",
            "/revocation/publish_failure/message",
        ),
        ("revocations to be told", "/revocation/untold"),
        ("NOT TOLD", "/revocation/untold_failure"),
    ];
    console.members(&fields, status)?;
    let list = |key: &str| {
        status
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let replicas = list("replicas");
    if replicas.len() > 1 {
        section(
            console,
            &[
                ("REPLICA", "/name"),
                ("STATE", "/state"),
                ("REVISION", "/applied"),
                ("SILENT FOR, MS", "/silent_ms"),
                ("THIS ONE", "/this"),
            ],
            &replicas,
        )?;
    }
    section(
        console,
        &[("LISTENER", "/name"), ("ADDRESS", "/address")],
        &list("listeners"),
    )?;
    let places = status
        .pointer("/revocation/places")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    section(
        console,
        &[
            ("REVOCATION LISTS OF", "/place"),
            ("STATE", "/state"),
            ("FOREIGN", "/foreign"),
            ("READ", "/read_at"),
            ("FAILURE", "/failure"),
        ],
        &places,
    )?;
    let outbound = [
        ("PEER WE ASK", "/name"),
        ("STATE", "/state"),
        ("GRANT", "/credential/grant"),
        ("GRANT STATE", "/credential/state"),
        ("USER", "/credential/user"),
        ("CERTIFICATE EXPIRES", "/credential/not_after"),
        ("DAYS", "/credential/days_left"),
        ("RENEWS", "/credential/renews_at"),
        ("NOT RENEWED", "/credential/renewal_failure"),
        ("BREAKER", "/reach/breaker"),
        ("OPEN UNTIL", "/reach/open_until"),
        ("RATE LEFT", "/reach/rate_left"),
        ("CACHED", "/cache/entries"),
        ("HITS %", "/cache/hit_rate_percent"),
        ("LEASE, MS", "/cache/lease_left_ms"),
        ("RECORD SHOWN", "/witness/record"),
        ("LAST SUCCESS", "/last_success_at"),
        ("LAST FAILURE", "/last_failure_at"),
        ("CAUSE", "/last_failure"),
    ];
    let peers = with_cache(list("outbound"), status);
    section(console, &outbound, &per_credential(peers))?;
    for peer in list("outbound") {
        let alarm = [
            ("RECORD IN DOUBT", "/witness/alarm"),
            ("of", "/name"),
            ("since", "/witness/alarm_at"),
        ];
        if peer.pointer("/witness/alarm").is_some_and(Value::is_string) {
            console.line("")?;
            console.members(&alarm, &peer)?;
        }
    }
    let inbound = [
        ("GRANT WE SERVE", "/grant"),
        ("STATE", "/state"),
        ("PEER", "/peer"),
        ("PEER STATE", "/peer_state"),
        ("USER", "/user"),
        ("CERTIFICATE EXPIRES", "/certificate_expires_at"),
        ("DAYS", "/days_left"),
        ("PER MINUTE", "/rate_limit/per_minute"),
        ("NOW", "/rate_remaining"),
        ("ROWS TODAY", "/rows_remaining"),
    ];
    section(console, &inbound, &list("inbound"))
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

/// The peers, each with what the cache does for it as the member `cache`.
fn with_cache(peers: Vec<Value>, status: &Value) -> Vec<Value> {
    let cache = status.pointer("/cache/peers").and_then(Value::as_array);
    let of = |name: Option<&Value>| {
        let mut cached = cache.into_iter().flatten();
        cached.find(|one| one.get("peer") == name).cloned()
    };
    peers
        .into_iter()
        .map(|mut peer| {
            let cached = of(peer.get("name"));
            if let (Some(cached), Some(members)) = (cached, peer.as_object_mut()) {
                members.insert("cache".to_owned(), cached);
            }
            peer
        })
        .collect()
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
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    #[test]
    fn each_peer_is_shown_with_its_own_lease_rate_and_cache() {
        let status = json!({
            "outbound": [
                {"name": "club", "reach": {"breaker": "closed", "rate_left": 7}, "credentials": []},
                {"name": "work", "reach": {"breaker": "open"}, "credentials": []},
            ],
            "cache": {"entries": 3, "peers": [
                {"peer": "work", "entries": 0, "hit_rate_percent": null, "lease_left_ms": 0},
                {"peer": "club", "entries": 3, "hit_rate_percent": 66, "lease_left_ms": 1490},
            ]},
        });
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        show(&status, &mut Console::new(false, &mut out, &mut notes)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = |start: &str| {
            let mut lines = text.lines().map(|line| line.split("  "));
            let cells = lines
                .find(|cells| cells.clone().next() == Some(start))
                .unwrap();
            let cells = cells.map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        let at = |name: &str| {
            line("PEER WE ASK")
                .iter()
                .position(|cell| cell == name)
                .unwrap()
        };
        for (column, club, work) in [
            ("BREAKER", "closed", "open"),
            ("RATE LEFT", "7", "-"),
            ("CACHED", "3", "0"),
            ("HITS %", "66", "-"),
            ("LEASE, MS", "1490", "0"),
        ] {
            let cell = |row: &str| line(row)[at(column)].clone();
            assert_eq!(
                (cell("club"), cell("work")),
                (club.into(), work.into()),
                "{column}: {text}"
            );
        }
    }

    #[test]
    fn trouble_of_the_audit_log_is_shown_and_no_trouble_is_not() {
        let shown = |audit: Value| {
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let status = json!({ "audit": audit });
            show(&status, &mut Console::new(false, &mut out, &mut notes)).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = shown(json!({"trouble": "the database is away", "archive_trouble": "no room"}));
        for (name, value) in [
            ("AUDIT LOG IN TROUBLE", "the database is away"),
            ("AUDIT ROWS NOT ARCHIVED", "no room"),
        ] {
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with(name)).unwrap();
            assert!(line.ends_with(value), "{text}");
        }
        let text = shown(json!({"trouble": null, "archive_trouble": null}));
        assert!(!text.contains("AUDIT"), "{text}");
    }

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
