//! `mcp`: the session door as a server of the Model Context Protocol, on standard input and output.
//!
//! Invariant: the tools only read, and do nothing that a request to the session door could not; whose rows they show is
//! the session's. Standard output holds messages of the protocol and nothing else, standard error no row.
//!
//! The messages are in `mcp/protocol.rs`; what a tool takes and what it asks, in `mcp/tools.rs`.

mod protocol;
mod tools;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Context;
use super::arguments::McpDoor;
use super::door::Door;
use super::failure::CliFailure;
use super::output::Console;
use crate::exit::Exit;
use protocol::{ErrorCode, Incoming};

/// Longest line of a client, bytes: a question of the door is at most 64 KiB.
const MAX_LINE: u64 = 1024 * 1024;
/// Responses that wait for the client to read them.
const WAITING: usize = 16;

const INSTRUCTIONS: &str = "Read-only access to the user's own gateway and to those of people who share with them. \
`source` says whom to ask: `all` (the default), `local`, or `federated:<peer>`. Every row says where it comes from in \
`_source`, and `_cached: true` marks one from memory. `_partial` and `_failures` say that a source is missing from the \
answer, `_truncated` that more may exist than is shown; go on with `nextCursor` while it is there. Tell the user what \
`_notices` say.";

/// Serves until standard input ends.
pub(super) async fn run(
    context: &Context<'_>,
    at: McpDoor,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let door = match (at.url, at.socket) {
        (Some(address), _) => Door::session_at(address, at.token),
        (None, Some(socket)) => Door::session(socket, at.token),
        (None, None) => Door::session(context.config()?.session.socket.clone(), at.token),
    };
    console.note("serving the Model Context Protocol on standard input and output")?;
    serve(Arc::new(door)).await.map_err(|error| {
        let what = "the client could not be served";
        CliFailure::new(Exit::Failed, "mcp", what, error.to_string())
            .remedy("start this from a client of the protocol; docs/agents.md shows how")
    })?;
    Ok(Exit::Done)
}

/// Reads requests and writes responses, each as soon as it is there.
async fn serve(door: Arc<Door>) -> io::Result<()> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let mut input = BufReader::new(File::from_std(input.into()));
    let (responses, waiting) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    tasks.spawn(write(File::from_std(output.into()), waiting));
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if !line.ends_with(b"\n") && line.len() as u64 >= MAX_LINE {
            return Err(io::Error::other("the client sent a line that is too long"));
        }
        match protocol::parse(&line) {
            Incoming::Notification => {}
            // The writer is gone only with standard output, and then nobody reads this.
            Incoming::Invalid(response) => drop(responses.send(response).await),
            Incoming::Request { id, method, params } => {
                let (door, responses) = (Arc::clone(&door), responses.clone());
                tasks.spawn(async move {
                    let response = respond(&door, &id, &method, params).await;
                    drop(responses.send(response).await);
                    Ok(())
                });
            }
        }
        while let Some(ended) = tasks.try_join_next() {
            ended.map_err(io::Error::other)??;
        }
    }
    drop(responses);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn write(mut output: File, mut waiting: mpsc::Receiver<Value>) -> io::Result<()> {
    while let Some(response) = waiting.recv().await {
        let mut line = response.to_string();
        line.push('\n');
        output.write_all(line.as_bytes()).await?;
        output.flush().await?;
    }
    Ok(())
}

/// The response to one request.
async fn respond(door: &Door, id: &Value, method: &str, params: Value) -> Value {
    match method {
        "initialize" => protocol::result(id, protocol::initialize(&params, INSTRUCTIONS)),
        "ping" => protocol::result(id, json!({})),
        "tools/list" => protocol::result(id, json!({"tools": tools::all()})),
        "tools/call" => match call(door, params).await {
            Ok(result) => protocol::result(id, result),
            Err(why) => protocol::error(id, ErrorCode::InvalidParams, &why),
        },
        _ => protocol::error(id, ErrorCode::MethodNotFound, "there is no such method"),
    }
}

/// Calls a tool: its result, which may say that it failed.
///
/// # Errors
/// When there is no such tool.
async fn call(door: &Door, mut params: Value) -> Result<Value, String> {
    let name = params
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let name = name.to_owned();
    let arguments = match params.get_mut("arguments").map(Value::take) {
        Some(Value::Object(arguments)) => arguments,
        None | Some(Value::Null) => serde_json::Map::new(),
        Some(_) => return Err("`arguments` must be an object".to_owned()),
    };
    let question = match tools::question(&name, arguments) {
        Ok(question) => question,
        Err(tools::Wrong::Tool) => {
            return Err(format!("there is no tool `{}`", name.escape_debug()));
        }
        Err(tools::Wrong::Argument(why)) => return Ok(failure(&why, None)),
    };
    let asked = door
        .answer("asking", Method::POST, "/v1/query", Some(&question))
        .await;
    Ok(match asked {
        Ok((StatusCode::OK, answer)) => success(&answer),
        Ok((status, envelope)) => refusal(status, &envelope),
        Err(failed) => {
            let mut why = format!("{}: {}", failed.what, failed.why);
            if let Some(remedy) = failed.remedy {
                why.push_str("; ");
                why.push_str(&remedy);
            }
            failure(&why, None)
        }
    })
}

fn text(words: &str) -> Value {
    json!({"type": "text", "text": words})
}

/// The answer as it is, and before it in words what a reader must not overlook.
fn success(answer: &Value) -> Value {
    let mut content: Vec<Value> = remarks(answer).iter().map(|words| text(words)).collect();
    content.push(text(&answer.to_string()));
    json!({"content": content, "structuredContent": answer, "isError": false})
}

/// What the door refused, in its own words.
fn refusal(status: StatusCode, envelope: &Value) -> Value {
    let failed = CliFailure::envelope("the question was refused", status.as_u16(), envelope);
    failure(&failed.why, Some(envelope))
}

fn failure(why: &str, envelope: Option<&Value>) -> Value {
    let mut content = vec![text(why)];
    content.extend(
        envelope
            .map(remarks)
            .iter()
            .flatten()
            .map(|words| text(words)),
    );
    let mut result = json!({"content": content, "isError": true});
    if let (Some(envelope), Some(members)) = (envelope, result.as_object_mut()) {
        members.insert("structuredContent".to_owned(), envelope.clone());
    }
    result
}

fn remarks(answer: &Value) -> Vec<String> {
    let notices = answer
        .get("_notices")
        .or_else(|| answer.pointer("/error/details/notices"));
    let notices = notices
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|notice| notice.get("message")?.as_str())
        .map(|message| format!("Notice for the user: {message}"));
    let flags = [
        ("_partial", "A source is missing from this answer."),
        ("_truncated", "More may exist than this answer shows."),
    ];
    let flags = flags
        .into_iter()
        .filter(|(flag, _)| answer.get(flag) == Some(&Value::Bool(true)))
        .map(|(_, words)| words.to_owned());
    notices.chain(flags).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn an_answer_comes_whole_with_its_remarks_first() {
        let answer = json!({"items": [{"_source": "work", "id": "1", "_cached": true}],
            "_partial": true, "_truncated": false,
            "_notices": [{"peer": "home", "code": "federation_offline",
                "message": "federation offline for home"}]});
        let result = success(&answer);
        assert_eq!(result["structuredContent"], answer);
        assert_eq!(result["isError"], false);
        let texts: Vec<&str> = result["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["text"].as_str().unwrap())
            .collect();
        assert_eq!(texts[0], "Notice for the user: federation offline for home");
        assert_eq!(texts[1], "A source is missing from this answer.");
        let rows: Value = serde_json::from_str(texts[2]).unwrap();
        assert_eq!((texts.len(), rows), (3, answer));
    }

    #[test]
    fn a_refusal_is_an_error_that_can_be_read() {
        let envelope = json!({"error": {"code": "unavailable",
            "message": "federation offline for work", "details": {"reason": "breaker_open",
            "notices": [{"message": "federation offline for work"}]}}});
        let result = refusal(StatusCode::SERVICE_UNAVAILABLE, &envelope);
        assert_eq!(result["isError"], true);
        assert_eq!(result["structuredContent"], envelope);
        let text = |number: usize| {
            result["content"][number]["text"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(text(0), "federation offline for work (breaker_open)");
        assert_eq!(text(1), "Notice for the user: federation offline for work");
    }

    #[tokio::test]
    async fn every_request_is_answered_under_its_id() {
        let door = Door::session("/nowhere/session.sock".into(), None);
        let ask = async |method: &str, params: Value| {
            let response = respond(&door, &json!(7), method, params).await;
            assert_eq!(response["id"], 7, "{response}");
            response
        };
        assert_eq!(ask("ping", Value::Null).await["result"], json!({}));
        let tools = ask("tools/list", Value::Null).await;
        assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 3);
        let unknown = ask("resources/list", Value::Null).await;
        assert_eq!(unknown["error"]["code"], -32601);
        let unknown = ask("tools/call", json!({"name": "delete"})).await;
        assert_eq!(unknown["error"]["code"], -32602);
        let closed = ask("tools/call", json!({"name": "capabilities"})).await;
        assert_eq!(closed["result"]["isError"], true, "{closed}");
    }
}
