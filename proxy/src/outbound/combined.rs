//! The answer of several sources: its envelope, what each gave, and those that failed.
//!
//! Invariant: what a peer wrote stands in it only as it came out of `answer.rs` and `failure.rs`, bounded and tagged.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::failure::DoorFailure;
use crate::message::target::Route;

/// The row of a get, or capabilities with their source.
pub(super) fn item_of(route: &Route, name: &str, answer: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        item: &'a RawValue,
    }
    if let Route::Get { .. } = route {
        let item: Item<'_> = serde_json::from_slice(answer).ok()?;
        return Some(item.item.get().as_bytes().to_vec());
    }
    let mut members: Map<String, Value> = serde_json::from_slice(answer).ok()?;
    members.insert("_source".to_owned(), json!(name));
    serde_json::to_vec(&members).ok()
}

/// Whether asking again cannot help: the source said no, and not for lack of time or room.
pub(super) fn is_final(failure: &DoorFailure) -> bool {
    let status = failure.status();
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}

/// A failed source as it stands in an answer.
pub(super) fn outline(source: &str, failure: &DoorFailure) -> Value {
    let mut outline = json!({
        "source": source,
        "code": failure.code(),
        "message": failure.message(source),
    });
    if let (Some(reason), Some(members)) = (failure.reason(), outline.as_object_mut()) {
        members.insert("reason".to_owned(), json!(reason));
    }
    outline
}

/// A source that has more, for whose position a cursor has no room.
pub(super) fn crowded(source: &str) -> Value {
    let asked = match source {
        "local" => "local".to_owned(),
        peer => format!("federated:{peer}"),
    };
    json!({
        "source": source,
        "code": "unavailable",
        "reason": "cursor_full",
        "message": format!("the cursor has no room for more of {source}: ask `{asked}` for the rest"),
    })
}

/// The members of an answer beside its rows.
pub(super) fn finish(
    tail: &mut Map<String, Value>,
    partial: bool,
    truncated: bool,
    failures: Vec<Value>,
) {
    tail.insert("_partial".to_owned(), json!(partial));
    tail.insert("_truncated".to_owned(), json!(truncated));
    if !failures.is_empty() {
        tail.insert("_failures".to_owned(), Value::Array(failures));
    }
}

/// `{"items":[...]` and the members of `tail`, of which there is at least one.
pub(super) fn envelope(items: &[u8], tail: &Map<String, Value>) -> Bytes {
    let tail = Value::Object(tail.clone()).to_string();
    let members = tail.strip_prefix('{').unwrap_or_default();
    Bytes::from([b"{\"items\":[", items, b"],", members.as_bytes()].concat())
}
