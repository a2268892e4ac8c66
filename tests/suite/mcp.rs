//! The session door through a real client of the Model Context Protocol, as an agent has it.
//!
//! Invariant: the client is the registry's own, in an environment that `./run test` makes; where there is none, the test
//! says that it was skipped. What the door answers is asked for directly in the same run and compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reference_gateway::plan;
use serde_json::{Value, json};
use support::onboard::onboard;
use support::process::program;
use tests::home::door;
use tests::world::operator;
use tests::{Home, World};

/// The Python that `./run test` makes, when it has the client.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let has_client = Command::new(&python)
        .args(["-c", "import mcp"])
        .stderr(Stdio::null())
        .status();
    has_client
        .is_ok_and(|status| status.success())
        .then_some(python)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mcp/client.py")
}

/// What the client was told, tool by tool.
async fn call(python: PathBuf, socket: &Path, token: &str, calls: Value) -> Value {
    let order = json!({
        "command": [program(), "mcp", "--socket", socket],
        "env": {"MOSAIC_SESSION_TOKEN": token},
        "calls": calls,
    });
    let run = move || {
        let mut client = Command::new(python)
            .arg(script())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(order.to_string().as_bytes()).unwrap();
        drop(input);
        let output = client.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        assert!(
            told.contains("serving the Model Context Protocol"),
            "{told}"
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// The door's own answer to a query.
async fn query(home: &Home, token: &str, body: Value) -> Value {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let socket = &home.config.session.socket;
    let answer = door(socket, "/v1/query", &headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_the_rows_of_the_door_and_clear_errors() {
    let Some(python) = python() else {
        support::skipped(
            "an_agent_gets_the_rows_of_the_door_and_clear_errors",
            "no client of the protocol in target/venv; `./run test` installs it",
        );
        return;
    };
    let world = World::start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let token = home.session("amira").await;
    let socket = home.config.session.socket.clone();
    let list = json!({"source": "federated:work", "verb": "list", "resource": "tasks", "params": {"limit": 5}});
    let rows = query(&home, &token, list).await;
    assert_eq!(rows["items"].as_array().unwrap().len(), 5);
    let (id, cursor) = (&rows["items"][0]["id"], &rows["nextCursor"]);
    let calls = json!([
        ["list", {"source": "federated:work", "resource": "tasks", "limit": 5}],
        ["list", {"source": "federated:work", "resource": "tasks", "limit": 5, "cursor": cursor}],
        ["get", {"source": "federated:work", "resource": "tasks", "id": id}],
        ["capabilities", {"source": "federated:work"}],
        ["list", {"source": "federated:nobody", "resource": "tasks"}],
        ["list", {"resource": "tasks", "subjectUserId": "x"}],
        ["delete", {"resource": "tasks"}],
    ]);
    let told = call(python.clone(), &socket, &token, calls).await;
    let tools: Vec<&str> = told["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            assert_eq!(tool["annotations"]["readOnlyHint"], true);
            tool["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(tools, ["list", "get", "capabilities"]);
    let results = &told["results"];
    assert_eq!(
        results[0]["structuredContent"]["items"], rows["items"],
        "{}",
        results[0]
    );
    let next = results[1]["structuredContent"]["items"].as_array().unwrap();
    assert!(!next.is_empty() && !next.contains(&rows["items"][0]));
    assert_eq!(results[2]["structuredContent"]["item"], rows["items"][0]);
    assert!(
        results[3]["structuredContent"]["resources"].is_array(),
        "{}",
        results[3]
    );
    for (number, says) in [(4, "no such peer"), (5, "has no argument `subjectUserId`")] {
        let result = &results[number];
        assert_eq!(result["isError"], true, "{result}");
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(says), "{text}");
    }
    let unknown = results[6].to_string();
    assert!(unknown.contains("there is no tool `delete`"), "{unknown}");

    // The peer goes away: the user is told once, and what was refused says why.
    world.stop().await;
    let ask = json!(["list", {"source": "federated:work", "resource": "notes"}]);
    let told = call(python.clone(), &socket, &token, json!([ask, ask])).await;
    let text = |number: usize| told["results"][number].to_string();
    assert!(
        text(0).contains("federation offline for work"),
        "{}",
        text(0)
    );
    assert!(text(0).contains("federation_offline"), "{}", text(0));
    assert!(!text(1).contains("federation_offline"), "{}", text(1));
    home.control()
        .reset_peer(&operator(), "work")
        .await
        .unwrap();

    // Nobody's token, and nobody at the door.
    let told = call(python.clone(), &socket, "0", json!([["capabilities", {}]])).await;
    let refused = told["results"][0].to_string();
    assert!(
        refused.contains("a live session token is needed"),
        "{refused}"
    );
    home.stop().await;
    let told = call(python, &socket, &token, json!([["capabilities", {}]])).await;
    let refused = told["results"][0].to_string();
    assert!(refused.contains("does not open"), "{refused}");
}
