//! The tools: what each takes, and the question to the session door that it becomes.
//!
//! Invariant: every tool reads only, and its schema names every argument there is: an unknown one is refused, not
//! overlooked. What a question may hold is judged by the door.

use policy::resource::Resource;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

/// Why a call is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No such tool.
    Tool,
    /// An argument is missing or not known.
    Argument(String),
}

/// One tool.
struct Kind {
    /// Its name, which is the verb.
    verb: &'static str,
    title: &'static str,
    description: &'static str,
    /// Arguments that must be there.
    required: &'static [&'static str],
    /// Arguments that go into `params` of the question; the others stand beside it.
    params: &'static [&'static str],
    /// Arguments that stand beside `params`.
    beside: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        verb: "list",
        title: "List rows",
        description: "Rows of one resource, newest first, of the user's own gateway and of peers who share with them.",
        required: &["resource"],
        params: &["limit", "filter"],
        beside: &["source", "resource", "cursor"],
    },
    Kind {
        verb: "get",
        title: "Get one row",
        description: "One row by its id. A row that may not be seen is answered as one that does not exist.",
        required: &["resource", "id"],
        params: &[],
        beside: &["source", "resource", "id"],
    },
    Kind {
        verb: "search",
        title: "Search rows",
        description: "Rows that hold words, best first, of the user's own gateway and of peers who share with them.",
        required: &["query"],
        params: &["query", "resources", "limit"],
        beside: &["source"],
    },
    Kind {
        verb: "capabilities",
        title: "What may be asked",
        description: "What each source lets the user ask: resources, verbs, rows per answer.",
        required: &[],
        params: &[],
        beside: &["source"],
    },
];

/// Every tool, as the protocol describes one.
pub(super) fn all() -> Vec<Tool> {
    let tool = |kind: &Kind| {
        // What peers hold changes without us: the world is open.
        let annotations = ToolAnnotations::new()
            .read_only(true)
            .destructive(false)
            .idempotent(true)
            .open_world(true);
        Tool::new(kind.verb, kind.description, schema(kind))
            .with_title(kind.title)
            .with_annotations(annotations)
    };
    KINDS.iter().map(tool).collect()
}

fn schema(kind: &Kind) -> JsonObject {
    let named = kind.beside.iter().chain(kind.params);
    let properties: Map<String, Value> = named
        .map(|name| ((*name).to_owned(), property(name)))
        .collect();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(kind.required));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

fn property(name: &str) -> Value {
    match name {
        "source" => json!({"type": "string", "default": "all",
            "description": "`all`, `local`, or `federated:<peer>`"}),
        "resource" => {
            let served = Resource::ALL.into_iter().filter(|one| !one.is_sensitive());
            let names: Vec<&str> = served.map(Resource::as_str).collect();
            json!({"type": "string", "description": format!("One of {}", names.join(", "))})
        }
        "query" => json!({"type": "string", "minLength": 1,
            "description": "Words, \"phrases\" and beginnings of words*; a row must hold one of them at least"}),
        "resources" => json!({"type": "array", "items": {"type": "string"}, "minItems": 1,
            "description": "Only in these resources; absent: in all that may be asked"}),
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 10_000,
            "description": "Rows at most"}),
        "filter" => json!({"type": "object", "additionalProperties": {"type": "string"},
            "description": "Only rows with these values, for instance {\"status\": \"open\"}"}),
        "cursor" => json!({"type": "string",
            "description": "`nextCursor` of an earlier answer to the same question"}),
        "id" => json!({"type": "string", "description": "The `id` of a row"}),
        _ => json!({}),
    }
}

/// The question a call becomes.
///
/// # Errors
/// [`Wrong`].
pub(super) fn question(name: &str, arguments: Map<String, Value>) -> Result<Value, Wrong> {
    let kind = KINDS
        .iter()
        .find(|kind| kind.verb == name)
        .ok_or(Wrong::Tool)?;
    for required in kind.required {
        if arguments.get(*required).is_none_or(Value::is_null) {
            return Err(Wrong::Argument(format!(
                "`{name}` needs the argument `{required}`"
            )));
        }
    }
    let mut body = Map::new();
    let mut params = Map::new();
    body.insert("source".to_owned(), json!("all"));
    body.insert("verb".to_owned(), json!(kind.verb));
    for (key, value) in arguments {
        // Some clients write what is absent as null.
        if value.is_null() {
            continue;
        }
        if kind.beside.contains(&key.as_str()) {
            body.insert(key, value);
        } else if kind.params.contains(&key.as_str()) {
            params.insert(key, value);
        } else {
            return Err(Wrong::Argument(format!(
                "`{name}` has no argument `{}`",
                key.escape_debug()
            )));
        }
    }
    if !params.is_empty() {
        body.insert("params".to_owned(), Value::Object(params));
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn asked(name: &str, arguments: Value) -> Result<Value, Wrong> {
        let Value::Object(arguments) = arguments else {
            unreachable!("arguments are an object")
        };
        question(name, arguments)
    }

    #[test]
    fn calls_become_questions() {
        assert_eq!(
            asked(
                "list",
                json!({"resource": "tasks", "limit": 5, "cursor": null})
            )
            .unwrap(),
            json!({"source": "all", "verb": "list", "resource": "tasks", "params": {"limit": 5}})
        );
        assert_eq!(
            asked(
                "get",
                json!({"source": "federated:work", "resource": "tasks", "id": "1"})
            )
            .unwrap(),
            json!({"source": "federated:work", "verb": "get", "resource": "tasks", "id": "1"})
        );
        assert_eq!(
            asked(
                "search",
                json!({"query": "a b*", "resources": ["tasks"], "limit": 3})
            )
            .unwrap(),
            json!({"source": "all", "verb": "search",
                "params": {"query": "a b*", "resources": ["tasks"], "limit": 3}})
        );
        assert_eq!(
            asked("capabilities", json!({})).unwrap(),
            json!({"source": "all", "verb": "capabilities"})
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (name, arguments, says) in [
            ("list", json!({}), "needs the argument `resource`"),
            (
                "get",
                json!({"resource": "tasks", "id": null}),
                "needs the argument `id`",
            ),
            (
                "list",
                json!({"resource": "tasks", "user": "x"}),
                "no argument `user`",
            ),
            (
                "search",
                json!({"resources": ["tasks"]}),
                "needs the argument `query`",
            ),
            (
                "search",
                json!({"query": "a", "cursor": "x"}),
                "no argument `cursor`",
            ),
            ("capabilities", json!({"limit": 1}), "no argument `limit`"),
        ] {
            let Err(Wrong::Argument(why)) = asked(name, arguments) else {
                unreachable!("{name} must be refused")
            };
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(asked("renew", json!({})), Err(Wrong::Tool));
    }

    #[test]
    fn every_tool_only_reads_and_has_a_closed_schema() {
        for tool in all() {
            let tool = serde_json::to_value(tool).unwrap();
            assert_eq!(tool["annotations"]["readOnlyHint"], true, "{tool}");
            assert_eq!(tool["inputSchema"]["additionalProperties"], false);
            let properties = tool["inputSchema"]["properties"].as_object().unwrap();
            assert!(
                properties
                    .values()
                    .all(|one| one["description"].is_string())
            );
        }
    }
}
