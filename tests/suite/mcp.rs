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

use std::io::{BufRead, BufReader, Write};
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

/// A word that tasks of the plan hold.
const WORD: &str = "AC";

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
        ["search", {"source": "federated:work", "query": WORD, "resources": ["tasks"], "limit": 4}],
        ["list", {"source": "federated:nobody", "resource": "tasks"}],
        ["list", {"resource": "tasks", "subjectUserId": "x"}],
        ["search", {"source": "federated:work", "query": "\"open"}],
        ["delete", {"resource": "tasks"}],
    ]);
    let search = json!({"source": "federated:work", "verb": "search",
        "params": {"query": WORD, "resources": ["tasks"], "limit": 4}});
    let hits = query(&home, &token, search).await;
    assert!(!hits["items"].as_array().unwrap().is_empty(), "{hits}");
    let told = call(python.clone(), &socket, &token, calls).await;
    let tools: Vec<&str> = told["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            assert_eq!(tool["annotations"]["readOnlyHint"], true);
            assert_eq!(tool["annotations"]["destructiveHint"], false);
            assert_eq!(tool["inputSchema"]["additionalProperties"], false);
            tool["name"].as_str().unwrap()
        })
        .collect();
    assert_eq!(tools, ["list", "get", "search", "capabilities"]);
    assert_eq!(told["server"]["name"], "mosaic-federation");
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
    assert_eq!(results[4]["structuredContent"], hits, "{}", results[4]);
    let said = results[4]["content"][0]["text"].as_str().unwrap();
    assert_eq!(
        said,
        format!(
            "Rows: {} from work.",
            hits["items"].as_array().unwrap().len()
        )
    );
    for (number, says) in [
        (5, "no such peer"),
        (6, "has no argument `subjectUserId`"),
        (7, "a quote that is not closed"),
    ] {
        let result = &results[number];
        assert_eq!(result["isError"], true, "{result}");
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(says), "{text}");
    }
    let unknown = results[8].to_string();
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

/// What an agent of a whole site sees: its own rows and a peer's, from memory the second time; and when the peer is away,
/// the rest, with a notice that comes once.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_sources_freshness_and_notices() {
    let Some(python) = python() else {
        support::skipped(
            "an_agent_sees_sources_freshness_and_notices",
            "no client of the protocol in target/venv; `./run test` installs it",
        );
        return;
    };
    // Leases so long that the client's second question still has one.
    let (desk, work) = tokio::join!(
        World::builder().asks().start(),
        World::builder().lease("duration_ms = 10000").start()
    );
    desk.let_in(plan::AMIRA).await;
    let scope = support::onboard::whole_scope(plan::AMIRA);
    desk.befriend(plan::AMIRA, "work", &work, plan::AMIRA, scope)
        .await;
    let token = desk.session(plan::AMIRA).await;
    let socket = desk.config.session.socket.clone();
    let list = json!(["list", {"resource": "tasks", "limit": 6}]);
    let told = call(python.clone(), &socket, &token, json!([list, list])).await;
    let sources = |number: usize| {
        let answer = &told["results"][number]["structuredContent"];
        assert_eq!(answer["_partial"], false, "{answer}");
        let rows = answer["items"].as_array().unwrap();
        let of = |source: &str| rows.iter().filter(|row| row["_source"] == source).count();
        let cached = rows.iter().filter(|row| row["_cached"] == true).count();
        (of("local"), of("work"), cached)
    };
    let said = |number: usize| told["results"][number]["content"][0]["text"].clone();
    let (local, remote, cached) = sources(0);
    assert!(local > 0 && remote > 0 && cached == 0, "{}", said(0));
    assert_eq!(
        said(0),
        json!(format!("Rows: {local} from local, {remote} from work."))
    );
    assert_eq!(sources(1), (local, remote, remote));
    let words = format!("Rows: {local} from local, {remote} from work ({remote} from memory).");
    assert_eq!(said(1), json!(words));

    work.stop().await;
    let ask = |resource: &str| json!(["list", {"resource": resource}]);
    let calls = json!([ask("notes"), ask("projects"), ["search", {"query": WORD}]]);
    let told = call(python, &socket, &token, calls).await;
    let notice = "Notice for the user: federation offline for work";
    for (number, is_told) in [(0, true), (1, false), (2, false)] {
        let result = &told["results"][number];
        assert_eq!(result["isError"], false, "{result}");
        let answer = &result["structuredContent"];
        assert_eq!(answer["_partial"], true, "{answer}");
        assert_eq!(answer["_failures"][0]["source"], "work", "{answer}");
        assert!(!answer["items"].as_array().unwrap().is_empty(), "{answer}");
        assert_eq!(answer["_notices"].is_array(), is_told, "{answer}");
        let said: Vec<&str> = result["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["text"].as_str().unwrap())
            .collect();
        assert_eq!(said.contains(&notice), is_told, "{said:?}");
        assert!(
            said.contains(&"Nothing from work: federation offline for work."),
            "{said:?}"
        );
    }
    desk.stop().await;
}

/// The process by itself: what it gives up, what it writes, and where it ends.
#[test]
fn only_the_protocol_is_on_standard_output_and_a_long_line_ends_it() {
    let mut server = Command::new(program())
        .args(["mcp", "--socket", "/nowhere/session.sock"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = server.stdin.take().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut ask = |input: &mut std::process::ChildStdin, message: Value| {
        writeln!(input, "{message}").unwrap();
        let line = lines.next().unwrap().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&answer["jsonrpc"], &answer["id"]),
            (&json!("2.0"), &message["id"])
        );
        answer
    };
    let client = json!({"protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client});
    assert!(ask(&mut input, hello)["result"].is_object());
    // It has given up core dumps, and with Landlock every privilege that a program could give.
    let of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", server.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..]
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("limits", "Max core file size")[..2], ["0", "0"]);
    if std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|lsm| lsm.contains("landlock"))
    {
        assert_eq!(of("status", "NoNewPrivs:"), ["1"]);
    }
    writeln!(
        input,
        "{}",
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
    )
    .unwrap();
    writeln!(
        input,
        "{}",
        json!({"jsonrpc": "2.0", "method": "notifications/of-another-time"})
    )
    .unwrap();
    let call = json!({"name": "list", "arguments": {"resource": "tasks"}});
    let call = json!({"jsonrpc": "2.0", "id": "two", "method": "tools/call", "params": call});
    assert_eq!(ask(&mut input, call)["result"]["isError"], true);
    // It ends in the middle, so that the rest cannot be written.
    let _ended = input.write_all(&vec![b'x'; 4 << 20]);
    drop(input);
    assert!(lines.next().is_none(), "nothing is answered to it");
    let output = server.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("a line of more than 1048576 bytes"), "{told}");
}
