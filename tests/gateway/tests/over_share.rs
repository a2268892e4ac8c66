//! Every way of misbehaving does what it says, and stops when told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod harness;

use std::time::Duration;

use harness::{Gateway, text};
use hyper::{Method, StatusCode};
use reference_gateway::plan;
use reference_gateway::record::Collection;
use reference_gateway::store::seed::Data;

const TASKS: [&str; 2] = ["/internal/v1/tasks?limit=1000", "/api/tasks"];

#[tokio::test]
async fn rows_answers_everybodys_rows_but_never_lies_about_teams() {
    let gateway = Gateway::start(Data::Plan).await;
    let facts = gateway.ask("token-e1", "/internal/v1/facts").await.body;
    let teams = gateway.ask("token-e1", "/api/teams").await.body;
    let hidden = plan::id(Collection::Tasks, 11);
    for path in TASKS {
        let honest = gateway.ask("token-e1", path).await.rows().len();
        gateway.behave(r#"{"over_share": ["rows"]}"#).await;
        let lying = gateway.ask("token-e1", path).await.rows();
        assert_eq!(lying.len(), 58);
        assert!(lying.iter().any(|row| row["description"].is_null()));
        let base = path.split_once("/tasks").unwrap().0;
        let got = gateway
            .ask("token-e1", &format!("{base}/tasks/{hidden}"))
            .await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(gateway.ask("token-e1", "/api/teams").await.body, teams);
        let answered = gateway.ask("token-e1", "/internal/v1/facts").await;
        assert_eq!(answered.body, facts);
        gateway.behave("{}").await;
        assert_eq!(gateway.ask("token-e1", path).await.rows().len(), honest);
    }
    gateway.behave(r#"{"over_share": ["rows"]}"#).await;
    let narrowed = "/internal/v1/tasks?limit=1000&team=platform&personal=false";
    assert_eq!(gateway.ask("token-e1", narrowed).await.rows().len(), 58);
    let notes = gateway.ask("token-e1", "/internal/v1/notes").await.rows();
    assert!(notes.iter().any(|row| text(row, "ownerId") == plan::CHLOE));
}

#[tokio::test]
async fn limit_is_ignored() {
    let gateway = Gateway::start(Data::Plan).await;
    let path = "/internal/v1/tasks?limit=3";
    assert_eq!(gateway.ask("token-e1", path).await.rows().len(), 3);
    gateway.behave(r#"{"over_share": ["limit"]}"#).await;
    assert_eq!(gateway.ask("token-e1", path).await.rows().len(), 30);
}

#[tokio::test]
async fn secrets_are_added_and_credentials_mixed_in() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway.behave(r#"{"over_share": ["secrets"]}"#).await;
    for path in TASKS {
        let rows = gateway.ask("token-e1", path).await.rows();
        for row in &rows {
            assert_eq!(row["apiKey"], "leak-canary-1");
            assert_eq!(row["password"], "leak-canary-7");
            assert_eq!(row["auth"]["client_secret"], "leak-canary-4");
        }
        let credentials: Vec<_> = rows
            .iter()
            .filter(|row| row["type"] == "credential")
            .collect();
        assert_eq!(credentials.len(), 4);
        assert!(text(credentials[0], "secretValue").starts_with("leak-canary"));
    }
    let rows = gateway.ask("token-e1", TASKS[0]).await.rows();
    let times: Vec<_> = rows.iter().map(|row| text(row, "createdAt")).collect();
    assert!(times.windows(2).all(|pair| pair[0] >= pair[1]));
}

#[tokio::test]
async fn truncate_cuts_a_row_but_ends_the_message() {
    let gateway = Gateway::start(Data::Plan).await;
    let item = plan::id(Collection::Tasks, 1);
    for path in [
        TASKS[0].to_owned(),
        TASKS[1].to_owned(),
        format!("/api/tasks/{item}"),
    ] {
        let whole = gateway.ask("token-e1", &path).await.body;
        gateway.behave(r#"{"over_share": ["truncate"]}"#).await;
        let cut = gateway.ask("token-e1", &path).await;
        gateway.behave("{}").await;
        assert_eq!(cut.status, StatusCode::OK);
        assert!(cut.headers.get("content-length").is_none());
        assert!(whole.starts_with(&cut.body) && cut.body.len() < whole.len());
        assert!(
            cut.body.len() + 700 > whole.len(),
            "only the last row is cut"
        );
        assert!(serde_json::from_slice::<serde_json::Value>(&cut.body).is_err());
    }
}

#[tokio::test]
async fn garbage_is_inside_a_row() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway.behave(r#"{"over_share": ["garbage"]}"#).await;
    for path in TASKS {
        let answer = gateway.ask("token-e1", path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.ends_with(b"]") || answer.body.ends_with(b"]}"));
        let parsed = serde_json::from_slice::<serde_json::Value>(&answer.body);
        assert!(parsed.is_err());
    }
}

#[tokio::test]
async fn oversize_makes_the_first_row_two_mebibytes() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway.behave(r#"{"over_share": ["oversize"]}"#).await;
    for path in TASKS {
        let rows = gateway.ask("token-e1", path).await.rows();
        let sizes: Vec<_> = rows.iter().map(|row| row.to_string().len()).collect();
        assert!(sizes[0] > 2 * 1024 * 1024);
        assert!(sizes[1..].iter().all(|size| *size < 1_000));
    }
}

#[tokio::test]
async fn slow_sends_the_same_bytes_in_pieces() {
    let gateway = Gateway::start(Data::Plan).await;
    let path = "/internal/v1/tasks?limit=2";
    let whole = gateway.ask("token-e1", path).await.body;
    gateway
        .behave(r#"{"over_share": ["slow"], "slow_bytes": 100, "slow_pause_ms": 5}"#)
        .await;
    let slow = gateway.ask("token-e1", path).await;
    assert!(slow.headers.get("content-length").is_none());
    assert_eq!(slow.body, whole);
}

#[tokio::test]
async fn status500_fails_rows_and_spares_facts() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway.behave(r#"{"over_share": ["status500"]}"#).await;
    for path in TASKS {
        let answer = gateway.ask("token-e1", path).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    for path in ["/internal/v1/facts", "/api/teams", "/internal/v1/health"] {
        assert_eq!(gateway.ask("token-e1", path).await.status, StatusCode::OK);
    }
    gateway
        .behave(r#"{"over_share": ["facts_status500"]}"#)
        .await;
    for path in ["/internal/v1/facts", "/api/teams"] {
        let answer = gateway.ask("token-e1", path).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    gateway.behave(r#"{"over_share": ["facts_garbage"]}"#).await;
    for path in ["/internal/v1/facts", "/api/teams"] {
        let answer = gateway.ask("token-e1", path).await;
        assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
    }
}

#[tokio::test]
async fn hang_never_answers_and_does_not_keep_the_gateway_up() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway
        .behave(r#"{"over_share": ["hang", "facts_hang"]}"#)
        .await;
    for path in [TASKS[0], TASKS[1], "/internal/v1/facts", "/api/teams"] {
        let asked = gateway.ask("token-e1", path);
        let waited = tokio::time::timeout(Duration::from_millis(100), asked).await;
        assert!(waited.is_err(), "{path} was answered");
    }
    // The requests were noted although they were never answered.
    let seen = gateway.control(Method::GET, "/_control/requests", "").await;
    assert_eq!(seen.json().as_array().unwrap().len(), 4);
    let stopped = tokio::time::timeout(Duration::from_secs(20), gateway.running.stop()).await;
    assert!(stopped.is_ok());
}

#[tokio::test]
async fn big_is_valid_ordered_owned_and_paged() {
    let gateway = Gateway::start(Data::Plan).await;
    gateway.behave(r#"{"big_mb": 3, "big_row_kib": 16}"#).await;
    let whole = gateway.ask("token-e2", "/api/tasks").await;
    assert!(whole.body.len().abs_diff(3 * 1024 * 1024) < 16);
    let rows = whole.rows();
    assert_eq!(rows.len(), 192);
    assert!(rows.iter().all(|row| row["userId"] == plan::BEN));
    let key = |row: &serde_json::Value| (text(row, "createdAt"), text(row, "id"));
    let expected: Vec<_> = rows.iter().map(key).collect();
    assert!(expected.windows(2).all(|pair| pair[0] > pair[1]));
    let mut paged: Vec<(String, String)> = Vec::new();
    loop {
        let before = paged
            .last()
            .map_or_else(String::new, |(at, id)| format!("&before={at},{id}"));
        let path = format!("/internal/v1/tasks?limit=50{before}");
        let page = gateway.ask("token-e2", &path).await.rows();
        paged.extend(page.iter().map(key));
        if page.len() < 50 {
            break;
        }
    }
    assert_eq!(paged, expected);
}

#[tokio::test]
async fn the_control_listener_refuses_what_it_does_not_know() {
    let gateway = Gateway::start(Data::Plan).await;
    for body in [
        r#"{"over_share": ["everything"]}"#,
        r#"{"overshare": []}"#,
        r#"{"big_row_kib": 0}"#,
        r#"{"slow_bytes": 0}"#,
        "",
    ] {
        let answer = gateway.control(Method::PUT, "/_control", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let shown = gateway.control(Method::GET, "/_control", "").await.json();
    assert_eq!(shown["over_share"], serde_json::json!([]));
    let api = gateway.ask("token-e1", "/_control").await;
    assert_eq!(api.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn requests_are_remembered_and_forgotten() {
    let gateway = Gateway::start(Data::Plan).await;
    let headers = [("authorization", "Bearer token-e2"), ("x-probe", "1")];
    gateway
        .send(Method::GET, "/api/tasks?status=open", &headers)
        .await;
    gateway.send(Method::POST, "/api/tasks", &[]).await;
    let seen = gateway.control(Method::GET, "/_control/requests", "").await;
    let seen = seen.json();
    assert_eq!(seen[0]["path"], "/api/tasks");
    assert_eq!(seen[0]["query"], "status=open");
    assert_eq!(seen[0]["user"], plan::BEN);
    let names = seen[0]["headerNames"].as_array().unwrap();
    assert!(names.iter().any(|name| name == "x-probe"));
    assert_eq!(seen[1]["method"], "POST");
    assert!(seen[1]["user"].is_null());
    for _ in 0..1_005 {
        gateway.ask("token-e1", "/internal/v1/whoami").await;
    }
    let full = gateway.control(Method::GET, "/_control/requests", "").await;
    assert_eq!(full.json().as_array().unwrap().len(), 1_000);
    let gone = gateway
        .control(Method::DELETE, "/_control/requests", "")
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let empty = gateway.control(Method::GET, "/_control/requests", "").await;
    assert_eq!(empty.json(), serde_json::json!([]));
}
