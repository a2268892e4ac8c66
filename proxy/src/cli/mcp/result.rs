//! What a tool answers: the door's answer whole, and before it in words what a reader must not overlook.
//!
//! Invariant: nothing of an answer is changed or left out, and nothing is said that it does not hold. Pure.

use std::collections::BTreeMap;

use http::StatusCode;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::Value;

use super::super::failure::CliFailure;

/// The answer as it is.
pub(super) fn success(answer: Value) -> CallToolResult {
    let mut content = words(remarks(&answer));
    content.push(ContentBlock::text(answer.to_string()));
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(answer);
    result
}

/// What the door refused, in its own words.
pub(super) fn refusal(status: StatusCode, envelope: Value) -> CallToolResult {
    let failed = CliFailure::envelope("the question was refused", status.as_u16(), &envelope);
    let mut said = vec![failed.why];
    said.extend(notices(&envelope));
    let mut result = CallToolResult::error(words(said));
    result.structured_content = Some(envelope);
    result
}

/// A failure that the agent may read.
pub(super) fn failure(why: String) -> CallToolResult {
    CallToolResult::error(words(vec![why]))
}

/// The door could not be asked.
pub(super) fn closed(failed: CliFailure) -> CallToolResult {
    let mut why = format!("{}: {}", failed.what, failed.why);
    if let Some(remedy) = failed.remedy {
        why.push_str("; ");
        why.push_str(&remedy);
    }
    failure(why)
}

fn words(said: Vec<String>) -> Vec<ContentBlock> {
    said.into_iter().map(ContentBlock::text).collect()
}

fn array<'a>(answer: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let found = answer.pointer(pointer).and_then(Value::as_array);
    found.into_iter().flatten()
}

fn notices(answer: &Value) -> impl Iterator<Item = String> {
    array(answer, "/_notices")
        .chain(array(answer, "/error/details/notices"))
        .filter_map(|notice| notice.get("message")?.as_str())
        .map(|message| format!("Notice for the user: {message}"))
}

fn remarks(answer: &Value) -> Vec<String> {
    let is_set = |flag: &str| answer.get(flag) == Some(&Value::Bool(true));
    let mut said: Vec<String> = notices(answer).collect();
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut is_named = false;
    for failure in array(answer, "/_failures") {
        if let (Some(source), Some(message)) = (text(failure, "source"), text(failure, "message")) {
            said.push(format!("Nothing from {source}: {message}."));
            is_named = true;
        }
    }
    if is_set("_partial") && !is_named {
        said.push("A source is missing from this answer.".to_owned());
    }
    if is_set("_truncated") {
        said.push("More may exist than this answer shows.".to_owned());
    }
    said.extend(from_where(answer));
    said
}

/// How many rows there are from each source, and of these from memory.
fn from_where(answer: &Value) -> Option<String> {
    let mut sources: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for row in array(answer, "/items") {
        // A hit of a search holds its row.
        let row = row.get("item").unwrap_or(row);
        let source = row.get("_source").and_then(Value::as_str)?;
        let (rows, cached) = sources.entry(source).or_default();
        *rows += 1;
        *cached += usize::from(row.get("_cached") == Some(&Value::Bool(true)));
    }
    let counts: Vec<String> = sources
        .into_iter()
        .map(|(source, (rows, cached))| match cached {
            0 => format!("{rows} from {source}"),
            _ => format!("{rows} from {source} ({cached} from memory)"),
        })
        .collect();
    (!counts.is_empty()).then(|| format!("Rows: {}.", counts.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use serde_json::json;

    use super::*;

    fn texts(result: &CallToolResult) -> Vec<String> {
        let content = serde_json::to_value(&result.content).unwrap();
        array(&content, "")
            .map(|block| block["text"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn an_answer_comes_whole_with_its_remarks_first() {
        let answer = json!({"items": [
                {"_source": "work", "id": "1", "_cached": true}, {"_source": "local", "id": "2"},
                {"_source": "work", "id": "3"}],
            "_partial": true, "_truncated": true,
            "_failures": [{"source": "home", "code": "unavailable", "message": "federation offline for home"}],
            "_notices": [{"peer": "home", "code": "federation_offline",
                "message": "federation offline for home"}]});
        let result = success(answer.clone());
        assert_eq!(result.is_error, Some(false));
        let said = texts(&result);
        assert_eq!(
            said[..4],
            [
                "Notice for the user: federation offline for home",
                "Nothing from home: federation offline for home.",
                "More may exist than this answer shows.",
                "Rows: 1 from local, 2 from work (1 from memory).",
            ]
        );
        assert_eq!(
            serde_json::from_str::<Value>(&said[4]).unwrap(),
            answer,
            "{said:?}"
        );
        assert_eq!((said.len(), result.structured_content), (5, Some(answer)));
    }

    #[test]
    fn hits_are_counted_by_the_row_they_hold() {
        let hits = json!({"items": [{"resource": "tasks", "score": 2.0, "item": {"_source": "work", "id": "1"}}]});
        assert_eq!(texts(&success(hits))[0], "Rows: 1 from work.");
        let none = json!({"items": [], "_partial": false, "_truncated": false});
        assert_eq!(texts(&success(none)).len(), 1);
        let one = json!({"item": {"_source": "work", "id": "1"}});
        assert_eq!(texts(&success(one)).len(), 1);
    }

    #[test]
    fn a_refusal_is_an_error_that_can_be_read() {
        let envelope = json!({"error": {"code": "unavailable",
            "message": "federation offline for work", "details": {"reason": "breaker_open",
            "notices": [{"message": "federation offline for work"}]}}});
        let result = refusal(StatusCode::SERVICE_UNAVAILABLE, envelope.clone());
        assert_eq!(
            texts(&result),
            [
                "federation offline for work (breaker_open)",
                "Notice for the user: federation offline for work"
            ]
        );
        assert_eq!(result.is_error, Some(true));
        assert_eq!(result.structured_content, Some(envelope));
    }
}
