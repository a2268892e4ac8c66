//! `query`: asking a peer through the session door, as an agent session would.
//!
//! Invariant: rows are shown and kept nowhere.

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::Context;
use super::arguments::{Asker, QueryCommand, QueryList};
use super::door::Door;
use super::failure::CliFailure;
use super::output::{Console, cell};
use crate::exit::Exit;

/// Members of a row that tell people what it is, best first.
const TITLES: [&str; 8] = [
    "title", "name", "summary", "content", "notes", "text", "key", "status",
];

/// Life of the session that `--user` makes, seconds.
const OWN_SESSION_S: u32 = 900;

pub(super) async fn run(
    context: &Context<'_>,
    command: QueryCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        QueryCommand::List(list) => query_list(context, list, console).await?,
        QueryCommand::Get {
            resource,
            id,
            asker,
        } => {
            let what = format!("asking {} for a row", asker.peer);
            let target = target(&asker.peer, &["get", &resource, &id]);
            let answer = door(context, &asker)
                .await?
                .ask(&what, Method::POST, &target, Some(&json!({})))
                .await?;
            match answer.get("item").filter(|_| !console.json) {
                Some(item) => console.document(item)?,
                None => console.document(&answer)?,
            }
        }
        QueryCommand::Capabilities { asker } => {
            let what = format!("asking {} for its capabilities", asker.peer);
            let target = target(&asker.peer, &["capabilities"]);
            let answer = door(context, &asker)
                .await?
                .ask(&what, Method::GET, &target, None)
                .await?;
            if console.json {
                console.document(&answer)?;
            } else {
                let fields = [
                    ("resources", "/resources"),
                    ("excluded", "/excluded_resources"),
                    ("verbs", "/supported_verbs"),
                    ("rows per answer", "/max_rows_per_query"),
                    ("filters", "/filters"),
                ];
                console.members(&fields, &answer)?;
            }
        }
    }
    Ok(Exit::Done)
}

async fn door(context: &Context<'_>, asker: &Asker) -> Result<Door, CliFailure> {
    let socket = context.config()?.session.socket.clone();
    let token = match &asker.user {
        None => asker.token.clone(),
        Some(user) => {
            let body = json!({"user": user, "ttl_s": OWN_SESSION_S});
            let made = context
                .admin()?
                .ask(
                    "making a session",
                    Method::POST,
                    "/admin/v1/sessions",
                    Some(&body),
                )
                .await?;
            made.get("token").and_then(Value::as_str).map(str::to_owned)
        }
    };
    Ok(Door::session(socket, token))
}

async fn query_list(
    context: &Context<'_>,
    list: QueryList,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let what = format!("asking {} for {}", list.asker.peer, list.resource);
    let target = target(&list.asker.peer, &["list", &list.resource]);
    let door = door(context, &list.asker).await?;
    let mut cursor = list.cursor.clone();
    let mut whole: Option<Value> = None;
    loop {
        let body = question(&list, cursor.as_deref());
        let page = door.ask(&what, Method::POST, &target, Some(&body)).await?;
        let next = page
            .get("nextCursor")
            .and_then(Value::as_str)
            .map(str::to_owned);
        whole = Some(match whole {
            None => page,
            Some(before) => joined(before, page),
        });
        match next {
            Some(next) if list.all && cursor.as_deref() != Some(&next) => cursor = Some(next),
            _ => break,
        }
    }
    let answer = whole.unwrap_or_default();
    if console.json {
        return Ok(console.document(&answer)?);
    }
    let rows = answer
        .get("items")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let header = ["ID", "CREATED", "TITLE", "SOURCE"]
        .map(str::to_owned)
        .to_vec();
    console.grid(header, rows.iter().map(row_cells).collect())?;
    if let Some(next) = answer.get("nextCursor").and_then(Value::as_str) {
        console.note(&format!("there is more: --cursor {next}"))?;
    }
    if answer.get("_truncated") == Some(&Value::Bool(true)) {
        console.note("the answer was cut: more may exist than it shows")?;
    }
    if answer.get("_partial") == Some(&Value::Bool(true)) {
        console.note("the answer is partial: a source failed")?;
    }
    Ok(())
}

fn question(list: &QueryList, cursor: Option<&str>) -> Value {
    let mut params = Map::new();
    if let Some(limit) = list.limit {
        params.insert("limit".to_owned(), limit.into());
    }
    if !list.filters.is_empty() {
        let filter = list
            .filters
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()));
        params.insert("filter".to_owned(), Value::Object(filter.collect()));
    }
    let mut body = json!({ "params": params });
    if let (Some(cursor), Some(body)) = (cursor, body.as_object_mut()) {
        body.insert("cursor".to_owned(), cursor.into());
    }
    body
}

/// The pages as one answer: rows of both, the later page's cursor, the flags of either.
fn joined(before: Value, page: Value) -> Value {
    let (Value::Object(mut before), Value::Object(mut page)) = (before, page) else {
        return Value::Null;
    };
    let mut items = Vec::new();
    for from in [&mut before, &mut page] {
        if let Some(Value::Array(rows)) = from.remove("items") {
            items.extend(rows);
        }
    }
    for flag in ["_partial", "_truncated"] {
        if before.get(flag) == Some(&Value::Bool(true)) {
            page.insert(flag.to_owned(), true.into());
        }
    }
    page.insert("items".to_owned(), Value::Array(items));
    Value::Object(page)
}

fn row_cells(row: &Value) -> Vec<String> {
    let title = TITLES
        .iter()
        .find_map(|name| row.get(name).filter(|value| value.is_string()));
    vec![
        cell(row.get("id")),
        cell(row.get("createdAt")),
        cell(title),
        cell(row.get("_source")),
    ]
}

fn target(peer: &str, segments: &[&str]) -> String {
    let mut target = format!("/peers/{}/api/federation/v1", segment(peer));
    for part in segments {
        target.push('/');
        target.push_str(&segment(part));
    }
    target
}

/// One segment of a path; names and most ids stay as they are.
fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if text.bytes().all(plain) && !matches!(text, "." | "..") {
        text.to_owned()
    } else {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_joined_without_losing_a_warning() {
        let first = json!({"items": [1], "nextCursor": "c", "_truncated": true, "_partial": false});
        let second = json!({"items": [2, 3], "_truncated": false, "_partial": true});
        let whole = joined(first, second);
        assert_eq!(
            whole,
            json!({"items": [1, 2, 3], "_truncated": true, "_partial": true})
        );
    }

    #[test]
    fn ids_cannot_leave_their_segment() {
        assert_eq!(
            target("work", &["get", "api_keys", "../x?y"]),
            "/peers/work/api/federation/v1/get/api_keys/%2E%2E%2Fx%3Fy"
        );
    }
}
