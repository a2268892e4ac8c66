//! `query`: asking the own gateway and peers through the session door, as an agent session would.
//!
//! Invariant: rows are shown and kept nowhere.

use http::Method;
use serde_json::{Map, Value, json};

use super::Context;
use super::arguments::{Asker, QueryCommand, QueryList, QuerySearch};
use super::door::Door;
use super::failure::CliFailure;
use super::output::{Console, cell};
use crate::exit::Exit;

/// Members of a row that tell people what it is, best first.
const TITLES: [&str; 8] = [
    "title", "name", "summary", "content", "notes", "text", "key", "status",
];

/// Path of the door's query form.
const QUERY: &str = "/v1/query";
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
            let what = format!("asking {} for a row", whom(&asker));
            let body =
                json!({"source": source(&asker), "verb": "get", "resource": resource, "id": id});
            let answer = ask(context, &asker, &what, &body).await?;
            match answer.get("item").filter(|_| !console.json) {
                Some(item) => console.document(item)?,
                None => console.document(&answer)?,
            }
            notes(&answer, console)?;
        }
        QueryCommand::Search(search) => query_search(context, search, console).await?,
        QueryCommand::Capabilities { asker } => {
            let what = format!("asking {} for its capabilities", whom(&asker));
            let body = json!({"source": source(&asker), "verb": "capabilities"});
            let answer = ask(context, &asker, &what, &body).await?;
            if console.json {
                console.document(&answer)?;
                return Ok(Exit::Done);
            }
            let of_each = answer.get("items").and_then(Value::as_array);
            let fields = [
                ("source", "/_source"),
                ("resources", "/resources"),
                ("excluded", "/excluded_resources"),
                ("verbs", "/supported_verbs"),
                ("rows per answer", "/max_rows_per_query"),
                ("filters", "/filters"),
            ];
            for one in of_each.map_or(std::slice::from_ref(&answer), Vec::as_slice) {
                console.members(&fields, one)?;
            }
            notes(&answer, console)?;
        }
    }
    Ok(Exit::Done)
}

/// Who is asked, as the door takes it.
fn source(asker: &Asker) -> String {
    match &asker.peer {
        Some(peer) => format!("federated:{peer}"),
        None => asker.source.clone(),
    }
}

/// Who is asked, in a sentence.
fn whom(asker: &Asker) -> &str {
    match (&asker.peer, asker.source.as_str()) {
        (Some(peer), _) => peer,
        (None, "all") => "every source",
        (None, "local") => "the own gateway",
        (None, source) => source.strip_prefix("federated:").unwrap_or(source),
    }
}

async fn ask(
    context: &Context<'_>,
    asker: &Asker,
    what: &str,
    body: &Value,
) -> Result<Value, CliFailure> {
    let door = door(context, asker).await?;
    door.ask(what, Method::POST, QUERY, Some(body)).await
}

/// What an answer says about itself.
fn notes(answer: &Value, console: &mut Console<'_>) -> Result<(), CliFailure> {
    let flag = |name: &str| answer.get(name) == Some(&Value::Bool(true));
    if flag("_truncated") {
        console.note("the answer was cut: more may exist than it shows")?;
    }
    if flag("_partial") {
        console.note("the answer is partial: a source failed")?;
    }
    let list = |key: &str| answer.get(key).and_then(Value::as_array);
    let failures = list("_failures").into_iter().flatten();
    let text = |of: &Value, key: &str| cell(of.get(key));
    for failure in failures.clone() {
        console.note(&format!(
            "{}: {}",
            text(failure, "source"),
            text(failure, "message")
        ))?;
    }
    // A failure has the same words as a rule.
    for notice in list("_notices").into_iter().flatten() {
        let message = text(notice, "message");
        if !failures
            .clone()
            .any(|failure| text(failure, "message") == message)
        {
            console.note(&message)?;
        }
    }
    Ok(())
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
    let what = format!("asking {} for {}", whom(&list.asker), list.resource);
    let door = door(context, &list.asker).await?;
    let mut cursor = list.cursor.clone();
    let mut whole: Option<Value> = None;
    loop {
        let body = question(&list, cursor.as_deref());
        let page = door.ask(&what, Method::POST, QUERY, Some(&body)).await?;
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
    let rows = items(&answer);
    let header = ["ID", "CREATED", "TITLE", "SOURCE"]
        .map(str::to_owned)
        .to_vec();
    console.grid(header, rows.iter().map(row_cells).collect())?;
    if let Some(next) = answer.get("nextCursor").and_then(Value::as_str) {
        console.note(&format!("there is more: --cursor {next}"))?;
    }
    notes(&answer, console)
}

async fn query_search(
    context: &Context<'_>,
    search: QuerySearch,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let what = format!("searching {}", whom(&search.asker));
    let body = search_question(&search);
    let answer = ask(context, &search.asker, &what, &body).await?;
    if console.json {
        return Ok(console.document(&answer)?);
    }
    let header = ["SCORE", "RESOURCE", "ID", "CREATED", "TITLE", "SOURCE"]
        .map(str::to_owned)
        .to_vec();
    console.grid(header, items(&answer).iter().map(hit_cells).collect())?;
    notes(&answer, console)
}

fn search_question(search: &QuerySearch) -> Value {
    let mut params = Map::new();
    params.insert("query".to_owned(), search.query.as_str().into());
    if !search.resources.is_empty() {
        params.insert("resources".to_owned(), json!(search.resources));
    }
    if let Some(limit) = search.limit {
        params.insert("limit".to_owned(), limit.into());
    }
    json!({"source": source(&search.asker), "verb": "search", "params": params})
}

fn hit_cells(hit: &Value) -> Vec<String> {
    let mut cells = vec![cell(hit.get("score")), cell(hit.get("resource"))];
    cells.extend(row_cells(hit.get("item").unwrap_or(&Value::Null)));
    cells
}

fn items(answer: &Value) -> &[Value] {
    answer
        .get("items")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
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
    let mut body = json!({
        "source": source(&list.asker),
        "verb": "list",
        "resource": list.resource,
        "params": params,
    });
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
    if let (Some(Value::Array(earlier)), None) = (before.remove("_failures"), page.get("_failures"))
    {
        page.insert("_failures".to_owned(), Value::Array(earlier));
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
        from(row),
    ]
}

/// Where a row came from, and whether from memory.
fn from(row: &Value) -> String {
    let source = cell(row.get("_source"));
    match row.get("_cached") {
        Some(Value::Bool(true)) => format!("{source} (cached)"),
        _ => source,
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
    fn a_search_says_what_was_written_and_nothing_else() {
        let search = |resources: &[&str], limit| QuerySearch {
            query: "\"rate limit\" revoc*".to_owned(),
            asker: Asker {
                source: "all".to_owned(),
                peer: Some("work".to_owned()),
                token: None,
                user: None,
            },
            resources: resources.iter().map(|name| (*name).to_owned()).collect(),
            limit,
        };
        assert_eq!(
            search_question(&search(&[], None)),
            json!({"source": "federated:work", "verb": "search", "params": {"query": "\"rate limit\" revoc*"}})
        );
        assert_eq!(
            search_question(&search(&["tasks", "notes"], Some(5))),
            json!({"source": "federated:work", "verb": "search", "params": {"query": "\"rate limit\" revoc*", "resources": ["tasks", "notes"], "limit": 5}})
        );
        assert_eq!(
            hit_cells(
                &json!({"resource": "tasks", "score": 1.5, "item": {"id": "1", "title": "t"}})
            ),
            ["1.5", "tasks", "1", "-", "t", "-"]
        );
        let row = json!({"id": "1", "_source": "work", "_cached": true});
        assert_eq!(row_cells(&row), ["1", "-", "-", "work (cached)"]);
    }
}
