//! The messages of the Model Context Protocol (JSON-RPC 2.0, one a line), as far as a server with tools needs them.
//!
//! Invariant: every request has exactly one response with its id, and nothing else is ever answered: not a
//! notification, nor a response. What a tool does is in `mcp.rs`. Pure.

use serde_json::{Value, json};

/// Versions of the protocol that are spoken, newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Incoming {
    /// To be answered.
    Request {
        /// Its id, to be repeated.
        id: Value,
        /// What is asked.
        method: String,
        /// `null` when absent.
        params: Value,
    },
    /// Not to be answered.
    Notification,
    /// Not a message; the response that says so.
    Invalid(Value),
}

/// Why a request has no result (JSON-RPC 2.0, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    /// Not JSON.
    Parse = -32700,
    /// JSON, and no message.
    InvalidRequest = -32600,
    /// No such method.
    MethodNotFound = -32601,
    /// Wrong parameters.
    InvalidParams = -32602,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Incoming {
    let Ok(message) = serde_json::from_slice::<Value>(line) else {
        let why = "the line is not JSON";
        return Incoming::Invalid(error(&Value::Null, ErrorCode::Parse, why));
    };
    let id = message.get("id").cloned();
    let method = message.get("method").and_then(Value::as_str);
    let is_versioned = message.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    match (id, method) {
        (Some(id), Some(method)) if is_versioned && (id.is_string() || id.is_number()) => {
            Incoming::Request {
                id,
                method: method.to_owned(),
                params: message.get("params").cloned().unwrap_or_default(),
            }
        }
        (None, Some(_)) if is_versioned => Incoming::Notification,
        // A response: nothing was asked of the client, so it is about nothing.
        (Some(_), None) if message.get("result").is_some() || message.get("error").is_some() => {
            Incoming::Notification
        }
        _ => {
            let why = "the line is not a message of JSON-RPC 2.0";
            Incoming::Invalid(error(&Value::Null, ErrorCode::InvalidRequest, why))
        }
    }
}

/// A response with a result.
pub(super) fn result(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// A response without one.
pub(super) fn error(id: &Value, code: ErrorCode, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code as i32, "message": message}})
}

/// The result of `initialize`: the client's version when it is spoken here, else the newest.
pub(super) fn initialize(params: &Value, instructions: &str) -> Value {
    let asked = params.get("protocolVersion").and_then(Value::as_str);
    let version = asked
        .filter(|asked| VERSIONS.contains(asked))
        .unwrap_or(VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "mosaic-federation", "version": env!("CARGO_PKG_VERSION")},
        "instructions": instructions,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn requests_are_told_from_what_is_not_answered() {
        for id in [json!(1), json!("a")] {
            let line = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
            let wanted = Incoming::Request {
                id,
                method: "ping".to_owned(),
                params: Value::Null,
            };
            assert_eq!(parse(line.as_bytes()), wanted);
        }
        for quiet in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
        ] {
            assert_eq!(parse(quiet.as_bytes()), Incoming::Notification, "{quiet}");
        }
    }

    #[test]
    fn what_is_no_message_is_answered_without_an_id() {
        for (line, code) in [
            ("{", -32700),
            ("[]", -32600),
            ("{}", -32600),
            (r#"{"id":1,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
        ] {
            let Incoming::Invalid(response) = parse(line.as_bytes()) else {
                unreachable!("{line} is no message")
            };
            assert_eq!(response["error"]["code"], code, "{line}");
            assert_eq!(response["id"], Value::Null);
        }
    }

    #[test]
    fn the_clients_version_is_taken_when_it_is_known() {
        let version = |asked: Value| {
            let params = json!({ "protocolVersion": asked });
            initialize(&params, "")["protocolVersion"].clone()
        };
        assert_eq!(version(json!("2025-06-18")), "2025-06-18");
        assert_eq!(version(json!("2099-01-01")), VERSIONS[0]);
        assert_eq!(version(Value::Null), VERSIONS[0]);
    }
}
