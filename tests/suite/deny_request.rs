//! Every way of asking wrongly: routes, bodies, cursors, framing, headers (specification, section 3).
//!
//! Invariant: the one who asks here holds a good grant, so a refusal is about the request alone. What
//! HTTP/2 cannot even say is tried in HTTP/1.1 only, and the other way round.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use policy::deny::DenyCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::expect::check_headers;
use tests::grants::BASE;
use tests::world::POLICY;
use tests::{Denial, Holder, Http2, RawConnection, Wire, World, tls};
use tokio::io::AsyncReadExt;

const fn bad(reason: DenyCode) -> Denial {
    Denial::new(400, "invalid_request", reason)
}

/// Asks on both protocols, each on a connection of its own, and expects this refusal.
async fn refused(world: &World, holder: &Holder, path: &str, body: &str, denial: Denial) {
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        let answer = client.post(path, body).await.unwrap();
        denial.check(world, &answer).await;
    }
}

async fn body_refused(body: &str, denial: Denial) {
    bodies_refused(&[body], denial).await;
}

async fn bodies_refused(bodies: &[&str], denial: Denial) {
    let world = World::start().await;
    let holder = world.amira().await;
    for body in bodies {
        refused(&world, &holder, &format!("{BASE}/list/tasks"), body, denial).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

async fn raw(world: &World, holder: &Holder) -> RawConnection {
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    RawConnection::open(world.federation(), config)
        .await
        .unwrap()
}

// Routes and methods.

#[tokio::test(flavor = "multi_thread")]
async fn unknown_route() {
    let world = World::start().await;
    let holder = world.amira().await;
    let denial = Denial::new(404, "invalid_request", DenyCode::UnknownRoute);
    for path in [
        "/",
        "/nothing",
        "/api/federation/v2/list/tasks",
        "/api/federation/v1",
        "/api/federation/v1/",
        "/api/federation/v1/list",
        "/api/federation/v1/list/",
        "/api/federation/v1/list/tasks/",
        "/api/federation/v1/list/tasks/1",
        "/api/federation/v1//list/tasks",
        "/api/federation/v1/list//tasks",
        "/api/federation/v1/list/ta%73ks",
        "/api/federation/v1/list/%2e%2e/tasks",
        "/api/federation/v1/get/tasks",
        "/api/federation/v1/capabilities/",
        "/API/federation/v1/list/tasks",
        "/api/federation/crl",
        "/api/federation/enrollment/0000",
        "/metrics",
    ] {
        refused(&world, &holder, path, "{}", denial).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_verb() {
    let world = World::start().await;
    let holder = world.amira().await;
    let denial = Denial::new(404, "invalid_request", DenyCode::UnknownRoute);
    for verb in ["search", "renew", "delete", "LIST", "List", "list "] {
        let path = format!("{BASE}/{}/tasks", verb.replace(' ', "%20"));
        refused(&world, &holder, &path, "{}", denial).await;
    }
    refused(&world, &holder, &format!("{BASE}/renews"), "{}", denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_method() {
    let world = World::start().await;
    let holder = world.amira().await;
    let denial = Denial::new(405, "invalid_request", DenyCode::MethodNotAllowed);
    for (method, path) in [
        ("GET", "/list/tasks"),
        ("PUT", "/list/tasks"),
        ("PATCH", "/list/tasks"),
        ("DELETE", "/list/tasks"),
        ("OPTIONS", "/list/tasks"),
        ("TRACE", "/list/tasks"),
        ("PROPFIND", "/list/tasks"),
        ("GET", "/get/tasks/1"),
        ("DELETE", "/get/tasks/1"),
        ("DELETE", "/capabilities"),
    ] {
        let mut connection = raw(&world, &holder).await;
        let head = format!("{method} {BASE}{path} HTTP/1.1\r\nHost: b\r\n\r\n");
        connection.send(head).await.unwrap();
        let answer = connection.response().await.unwrap();
        denial.check(&world, &answer).await;
        assert!(answer.header("allow").unwrap().contains("POST"));

        let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
        let mut connection = Http2::open(world.federation(), config).await.unwrap();
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("https://b{BASE}{path}"))
            .body(Full::new(Bytes::new()))
            .unwrap();
        let answer = connection.request(request).await.unwrap();
        denial.check(&world, &answer).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_in_place_of_get() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut connection = raw(&world, &holder).await;
    let head = format!("HEAD {BASE}/capabilities HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    connection.send(head).await.unwrap();
    let (bytes, _) = connection.end().await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "a body after HEAD: {text}");
    world.stop().await;
}

/// An answer before the body has come must not be lost to a reset when the body comes after all.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_before_the_body_has_come() {
    let world = World::start().await;
    let holder = world.amira().await;
    let stranger = world
        .mint(holder.grant.uuid(), holder.subject)
        .sign_with(&world.ca);
    let refusals = [
        (
            &holder.minted,
            "/nothing",
            Denial::new(404, "invalid_request", DenyCode::UnknownRoute),
        ),
        (
            &stranger,
            "/list/tasks",
            Denial::new(403, "forbidden", DenyCode::CertificateUnregistered),
        ),
    ];
    for (minted, path, denial) in refusals {
        let config = tls::client(Some(minted), world.root(), &["http/1.1"]);
        let mut connection = RawConnection::open(world.federation(), config)
            .await
            .unwrap();
        let body = "x".repeat(40_000);
        let head = format!(
            "POST {BASE}{path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head).await.unwrap();
        // It is in the log before the first byte of the body is sent.
        let answer = connection.response().await.unwrap();
        denial.check(&world, &answer).await;
        for part in body.as_bytes().chunks(1000) {
            connection.send(part).await.unwrap();
        }
        if denial.status == 403 {
            let (more, _) = connection.end().await;
            assert!(more.is_empty());
        } else {
            // The connection is kept, and what comes behind the body is the next request.
            let path = format!("{BASE}/list/tasks");
            connection.post(&path, "{}").await.unwrap();
            assert_eq!(connection.response().await.unwrap().status, 200);
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_string() {
    let world = World::start().await;
    let holder = world.amira().await;
    for query in ["?limit=1", "?", "?subjectUserId=e2"] {
        let path = format!("{BASE}/list/tasks{query}");
        refused(&world, &holder, &path, "{}", bad(DenyCode::UnknownKey)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_id() {
    let world = World::start().await;
    let holder = world.amira().await;
    let long = "a".repeat(257);
    for id in [
        "%00",
        "a%0Ab",
        "%ff",
        "..",
        ".",
        "%2e%2e",
        "",
        long.as_str(),
    ] {
        let path = format!("{BASE}/get/tasks/{id}");
        refused(&world, &holder, &path, "{}", bad(DenyCode::InvalidId)).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

// Bodies.

#[tokio::test(flavor = "multi_thread")]
async fn malformed_body() {
    let nested = "[".repeat(10_000);
    let deep = format!(r#"{{"params":{}}}"#, "[".repeat(10_000));
    let bodies = [
        "{",
        "[]",
        "null",
        "1",
        "\"list\"",
        "{} {}",
        "{}x",
        "{'verb':'list'}",
        "{\"verb\":\"list\",}",
        "{\"verb\":\"list\",\"verb\":\"list\"}",
        "{\"params\":{},\"params\":{\"limit\":1}}",
        "{\"verb\":1}",
        "{\"params\":[]}",
        "{\"params\":\"limit\"}",
        "\u{feff}{}",
        nested.as_str(),
        deep.as_str(),
    ];
    bodies_refused(&bodies, bad(DenyCode::MalformedBody)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn body_that_is_not_utf_8() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut connection = raw(&world, &holder).await;
    let mut request = format!(
        "POST {BASE}/list/tasks HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(b"{\"cursor\":\"\xff\xfe\"}");
    connection.send(request).await.unwrap();
    let answer = connection.response().await.unwrap();
    bad(DenyCode::MalformedBody).check(&world, &answer).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_key() {
    let bodies = [
        r#"{"limit":5}"#,
        r#"{"Verb":"list"}"#,
        r#"{"user":"e2"}"#,
        r#"{"_source":"local"}"#,
        r#"{"params":{"offset":1}}"#,
        r#"{"params":{"Limit":1}}"#,
        r#"{"params":{"include_teams":["research"]}}"#,
    ];
    bodies_refused(&bodies, bad(DenyCode::UnknownKey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_where_the_verb_takes_none() {
    let world = World::start().await;
    let holder = world.amira().await;
    for path in ["/capabilities", "/get/tasks/1"] {
        for body in [
            r#"{"params":{"limit":1}}"#,
            r#"{"params":{"filter":{"status":"open"}}}"#,
            r#"{"cursor":"abc"}"#,
        ] {
            let path = format!("{BASE}{path}");
            refused(&world, &holder, &path, body, bad(DenyCode::UnknownKey)).await;
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subject_user_id_in_the_body() {
    let bodies = [
        r#"{"subjectUserId":"e2"}"#,
        r#"{"subjectUserId":null}"#,
        r#"{"params":{"subjectUserId":"e2"}}"#,
        r#"{"subjectUserId":"0a11ce00-0000-4000-8000-0000000000e1"}"#,
        r#"{"\u0073ubjectUserId":"e2"}"#,
    ];
    bodies_refused(&bodies, bad(DenyCode::IdentityInBody)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grant_id_in_the_body() {
    let bodies = [r#"{"grantId":"x"}"#, r#"{"params":{"grantId":"x"}}"#];
    bodies_refused(&bodies, bad(DenyCode::IdentityInBody)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verb_that_disagrees_with_the_path() {
    let bodies = [r#"{"verb":"get"}"#, r#"{"verb":"LIST"}"#, r#"{"verb":""}"#];
    bodies_refused(&bodies, bad(DenyCode::VerbMismatch)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_that_disagrees_with_the_path() {
    let bodies = [r#"{"resource":"notes"}"#, r#"{"resource":"credentials"}"#];
    bodies_refused(&bodies, bad(DenyCode::ResourceMismatch)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_limit() {
    let limits = [
        "0",
        "10001",
        "-1",
        "1.5",
        "\"5\"",
        "null",
        "true",
        "1e9",
        "99999999999999999999",
    ];
    let bodies = limits.map(|limit| format!(r#"{{"params":{{"limit":{limit}}}}}"#));
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    bodies_refused(&bodies, bad(DenyCode::InvalidLimit)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_filter() {
    let filters = [
        r#"{"owner":"e2"}"#,
        r#"{"subjectUserId":"e2"}"#,
        r#"{"status":1}"#,
        r#"{"status":["open"]}"#,
        r#"{"status":{"ne":"open"}}"#,
        r#"{"status":""}"#,
        r#"{"status":"a\u0000b"}"#,
        r#"["status"]"#,
        r#""status""#,
    ];
    let bodies = filters.map(|filter| format!(r#"{{"params":{{"filter":{filter}}}}}"#));
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    bodies_refused(&bodies, bad(DenyCode::InvalidFilter)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_says_what_the_path_says() {
    let world = World::start().await;
    let holder = world.amira().await;
    let body =
        json!({"verb": "list", "resource": "tasks", "params": {"limit": 10_000}, "cursor": null});
    for wire in Wire::BOTH {
        let answer = world
            .ask_on(wire, &holder.minted, "/list/tasks", &body)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        check_headers(&answer);
        assert!(answer.header("x-mosaic-revision").is_some());
    }
    world.stop().await;
}

// Media type and size.

async fn typed(world: &World, holder: &Holder, media: Option<&str>) -> [tests::Response; 2] {
    let field = media.map_or(String::new(), |media| format!("Content-Type: {media}\r\n"));
    let mut connection = raw(world, holder).await;
    let request = format!(
        "POST {BASE}/list/tasks HTTP/1.1\r\nHost: b\r\n{field}Content-Length: 2\r\n\r\n{{}}"
    );
    connection.send(request).await.unwrap();
    let first = connection.response().await.unwrap();
    let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
    let mut connection = Http2::open(world.federation(), config).await.unwrap();
    let mut request = Request::post(format!("https://b{BASE}/list/tasks"));
    if let Some(media) = media {
        request = request.header("content-type", media);
    }
    let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    [first, connection.request(request).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_type() {
    let world = World::start().await;
    let holder = world.amira().await;
    let denial = Denial::new(415, "invalid_request", DenyCode::UnsupportedMediaType);
    for media in [
        None,
        Some("text/plain"),
        Some("application/jsonx"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; application/json"),
    ] {
        for answer in typed(&world, &holder, media).await {
            denial.check(&world, &answer).await;
        }
    }
    for media in ["application/json; charset=utf-8", "Application/JSON"] {
        for answer in typed(&world, &holder, Some(media)).await {
            assert_eq!(answer.status, 200, "{media}");
        }
    }
    world.stop().await;
}

const TOO_LARGE: Denial = Denial::new(413, "invalid_request", DenyCode::BodyTooLarge);

#[tokio::test(flavor = "multi_thread")]
async fn body_over_64_kib() {
    let world = World::start().await;
    let holder = world.amira().await;
    let path = format!("{BASE}/list/tasks");
    let fits = format!("{{{}}}", " ".repeat(64 * 1024 - 2));
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        let answer = client.post(&path, &fits).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for size in [64 * 1024 + 1, 1024 * 1024] {
        let over = format!("{{{}}}", " ".repeat(size - 2));
        refused(&world, &holder, &path, &over, TOO_LARGE).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn body_over_64_kib_without_a_length() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut connection = raw(&world, &holder).await;
    let head = format!(
        "POST {BASE}/list/tasks HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let mut request = head.into_bytes();
    for _ in 0..17 {
        request.extend_from_slice(b"1000\r\n");
        request.extend_from_slice(&[b' '; 0x1000]);
        request.extend_from_slice(b"\r\n");
    }
    connection.send(request).await.unwrap();
    let answer = connection.response().await.unwrap();
    TOO_LARGE.check(&world, &answer).await;
    world.stop().await;
}

// Cursors.

/// The cursor of a first page of `resource`, and the whole list in pages of one row.
async fn first_cursor(world: &World, holder: &Holder, resource: &str, params: Value) -> String {
    let body = json!({ "params": params });
    let page = world
        .ask(&holder.minted, &format!("/list/{resource}"), &body)
        .await;
    page.cursor().expect("more than one page")
}

fn with_cursor(cursor: &str, params: Value) -> String {
    json!({"cursor": cursor, "params": params}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_that_is_none() {
    let bodies = [
        r#"{"cursor":""}"#,
        r#"{"cursor":5}"#,
        r#"{"cursor":{}}"#,
        r#"{"cursor":"AAAA"}"#,
        r#"{"cursor":"not a cursor"}"#,
        r#"{"cursor":"eyJjcmVhdGVkQXQiOiIyMDI2In0="}"#,
    ];
    bodies_refused(&bodies, bad(DenyCode::InvalidCursor)).await;
    let long = format!(r#"{{"cursor":"{}"}}"#, "A".repeat(2000));
    body_refused(&long, bad(DenyCode::InvalidCursor)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_tampered_with() {
    let world = World::start().await;
    let holder = world.amira().await;
    let cursor = first_cursor(&world, &holder, "tasks", json!({"limit": 2})).await;
    let path = format!("{BASE}/list/tasks");
    let denial = bad(DenyCode::InvalidCursor);
    let mut client = world.client(Wire::H1, &holder.minted).await;
    for at in 0..cursor.len() {
        let mut bytes = cursor.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).unwrap();
        let body = with_cursor(&forged, json!({"limit": 2}));
        let answer = client.post(&path, &body).await.unwrap();
        denial.check_response(&answer);
    }
    for forged in [
        cursor[..cursor.len() - 1].to_owned(),
        format!("{cursor}A"),
        format!("{cursor}="),
        format!(" {cursor}"),
        cursor.repeat(2),
    ] {
        let body = with_cursor(&forged, json!({"limit": 2}));
        refused(&world, &holder, &path, &body, denial).await;
    }
    let body = with_cursor(&cursor, json!({"limit": 2}));
    assert_eq!(client.post(&path, &body).await.unwrap().status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_another_grant() {
    let world = World::start().await;
    let first = world.amira().await;
    let scope =
        json!({"resources": ["tasks"], "filters": {"tasks": {"include_teams": ["platform"]}}});
    let second = world.holder(plan::AMIRA, scope.clone()).await;
    let other_user = world.holder(plan::BEN, scope).await;
    let cursor = first_cursor(&world, &first, "tasks", json!({"limit": 2})).await;
    let body = with_cursor(&cursor, json!({"limit": 2}));
    for holder in [second, other_user] {
        let path = format!("{BASE}/list/tasks");
        refused(&world, &holder, &path, &body, bad(DenyCode::InvalidCursor)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_another_serving_side() {
    let (one, other) = (World::start().await, World::start().await);
    let holder = one.amira().await;
    let stranger = other.amira().await;
    let cursor = first_cursor(&one, &holder, "tasks", json!({"limit": 2})).await;
    let body = with_cursor(&cursor, json!({"limit": 2}));
    let path = format!("{BASE}/list/tasks");
    refused(
        &other,
        &stranger,
        &path,
        &body,
        bad(DenyCode::InvalidCursor),
    )
    .await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_another_resource() {
    let world = World::start().await;
    let holder = world.amira().await;
    let cursor = first_cursor(&world, &holder, "tasks", json!({"limit": 1})).await;
    let body = with_cursor(&cursor, json!({"limit": 1}));
    for resource in ["notes", "memory"] {
        let path = format!("{BASE}/list/{resource}");
        refused(&world, &holder, &path, &body, bad(DenyCode::InvalidCursor)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_of_another_filter() {
    let world = World::start().await;
    let holder = world.amira().await;
    let open = json!({"limit": 1, "filter": {"status": "open"}});
    let cursor = first_cursor(&world, &holder, "tasks", open.clone()).await;
    let path = format!("{BASE}/list/tasks");
    for params in [
        json!({"limit": 1}),
        json!({"limit": 1, "filter": {}}),
        json!({"limit": 1, "filter": {"status": "completed"}}),
        json!({"limit": 1, "filter": {"status": "open", "projectId": "x"}}),
    ] {
        let body = with_cursor(&cursor, params);
        refused(&world, &holder, &path, &body, bad(DenyCode::InvalidCursor)).await;
    }
    // Another limit is the same question.
    let mut wider = open;
    wider["limit"] = json!(2);
    let next = world
        .ask(
            &holder.minted,
            "/list/tasks",
            &json!({"cursor": cursor, "params": wider}),
        )
        .await;
    assert_eq!(next.status, 200, "{}", next.text());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_from_before_a_change_of_the_rules() {
    let world = World::start().await;
    let holder = world.amira().await;
    let path = format!("{BASE}/list/tasks");
    let cursor = first_cursor(&world, &holder, "tasks", json!({"limit": 2})).await;
    let body = with_cursor(&cursor, json!({"limit": 2}));
    // A reload that does not touch this grant leaves its cursors good.
    let untouched = format!("{POLICY}\n[peers.other]\nresources = [\"notes\"]\n");
    world.reload_policy(&untouched).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(client.post(&path, &body).await.unwrap().status, 200);
    world
        .reload_policy(&POLICY.replace("\"meta.cost\"", "\"meta.cost\", \"priority\""))
        .await;
    refused(&world, &holder, &path, &body, bad(DenyCode::InvalidCursor)).await;
    world.stop().await;
}

// Framing: the head of HTTP/1.1 as it was received.

/// A second question behind an ambiguous one: must never be answered.
const SMUGGLED: &str = "POST /api/federation/v1/list/tasks HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Sends the bytes and a smuggled second request; expects one refusal, and the connection closed.
async fn framing(world: &World, holder: &Holder, request: &[u8], denial: Denial) {
    let mut connection = raw(world, holder).await;
    let bytes = [request, SMUGGLED.as_bytes()].concat();
    connection.send(bytes).await.unwrap();
    let answer = connection.response().await.unwrap();
    denial.check(world, &answer).await;
    let (more, _) = connection.end().await;
    assert!(more.is_empty(), "{}", String::from_utf8_lossy(&more));
}

/// A list request with these header lines besides host and type, and this body.
fn list_with(fields: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {BASE}/list/tasks HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n{fields}\r\n{body}"
    )
    .into_bytes()
}

async fn ambiguous(requests: &[Vec<u8>]) {
    let world = World::start().await;
    let holder = world.amira().await;
    for request in requests {
        framing(&world, &holder, request, bad(DenyCode::AmbiguousFraming)).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_length_with_transfer_encoding() {
    ambiguous(&[
        list_with(
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
        ),
        list_with(
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "2\r\n{}\r\n0\r\n\r\n",
        ),
        list_with(
            "Content-Length: 0\r\ntransfer-encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_equal_content_lengths() {
    ambiguous(&[
        list_with("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        list_with("Content-Length: 2, 2\r\n", "{}"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_unequal_content_lengths() {
    ambiguous(&[
        list_with("Content-Length: 2\r\nContent-Length: 20\r\n", "{}"),
        list_with("Content-Length: 20\r\nContent-Length: 2\r\n", "{}"),
        list_with("Content-Length: 2, 20\r\n", "{}"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_length_that_is_no_number() {
    let values = ["+2", "-2", "0x2", "2 2", "two", "", "18446744073709551618"];
    let requests = values.map(|value| list_with(&format!("Content-Length: {value}\r\n"), "{}"));
    ambiguous(&requests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folded_header() {
    ambiguous(&[
        list_with("X-A: 1\r\n 2\r\nContent-Length: 2\r\n", "{}"),
        list_with("X-A: 1\r\n\t2\r\nContent-Length: 2\r\n", "{}"),
        list_with(
            "X-A: 1\r\n Content-Length: 20\r\nContent-Length: 2\r\n",
            "{}",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bare_line_feeds() {
    let all = String::from_utf8(list_with("Content-Length: 2\r\n", "{}"))
        .unwrap()
        .replace("\r\n", "\n");
    ambiguous(&[
        all.into_bytes(),
        list_with("X-A: 1\nX-B: 2\r\nContent-Length: 2\r\n", "{}"),
        list_with("Content-Length: 2\n", "{}"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_the_head() {
    ambiguous(&[
        list_with("X-A: 1\rX-B: 2\r\nContent-Length: 2\r\n", "{}"),
        list_with("X-A: 1\0\r\nContent-Length: 2\r\n", "{}"),
        list_with("Content-Length : 2\r\n", "{}"),
        list_with("X A: 1\r\nContent-Length: 2\r\n", "{}"),
        list_with(": 1\r\nContent-Length: 2\r\n", "{}"),
        list_with("no colon\r\nContent-Length: 2\r\n", "{}"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_transfer_encodings() {
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    ambiguous(&[
        list_with("Transfer-Encoding: gzip\r\n", chunked),
        list_with("Transfer-Encoding: gzip, chunked\r\n", chunked),
        list_with("Transfer-Encoding: chunked, identity\r\n", chunked),
        list_with("Transfer-Encoding: xchunked\r\n", chunked),
        list_with("Transfer-Encoding: \x0bchunked\r\n", chunked),
        list_with(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            chunked,
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    ambiguous(&[
        list_with(chunked, "x\r\n{}\r\n0\r\n\r\n"),
        list_with(chunked, "-2\r\n{}\r\n0\r\n\r\n"),
        list_with(chunked, "FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n"),
        list_with(chunked, "2\r\n{}XX0\r\n\r\n"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transfer_encoding_on_get_capabilities() {
    let get = |fields: &str, body: &str| {
        format!("GET {BASE}/capabilities HTTP/1.1\r\nHost: b\r\n{fields}\r\n{body}").into_bytes()
    };
    ambiguous(&[
        get("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        get("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        get(
            "Content-Type: application/json\r\nContent-Length: 2\r\n",
            "{}",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade() {
    let world = World::start().await;
    let holder = world.amira().await;
    let denial = bad(DenyCode::UpgradeRefused);
    for fields in [
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n",
        "upgrade: TLS/1.3\r\nContent-Length: 2\r\n",
    ] {
        framing(&world, &holder, &list_with(fields, "{}"), denial).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect() {
    let world = World::start().await;
    let holder = world.amira().await;
    for target in ["127.0.0.1:22", "b:443", "/api/federation/v1/capabilities"] {
        let mut connection = raw(&world, &holder).await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: b\r\n\r\n{SMUGGLED}");
        connection.send(head).await.unwrap();
        // The HTTP library may answer this one by itself, without our envelope.
        let answer = connection.response().await.unwrap();
        assert!([400, 405].contains(&answer.status), "{}", answer.status);
        let (more, _) = connection.end().await;
        assert!(more.is_empty(), "{}", String::from_utf8_lossy(&more));
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_over_http2() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
    let mut connection = Http2::open(world.federation(), config).await.unwrap();
    let request = Request::connect("127.0.0.1:22")
        .body(Full::new(Bytes::new()))
        .unwrap();
    if let Ok(answer) = connection.request(request).await {
        let denial = Denial::new(405, "invalid_request", DenyCode::ConnectRefused);
        denial.check(&world, &answer).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

/// Fields that HTTP/2 forbids (RFC 9113, section 8.2.2), in frames that no client library makes.
#[tokio::test(flavor = "multi_thread")]
async fn connection_specific_fields_over_http2() {
    let world = World::start().await;
    let holder = world.amira().await;
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("Host", "b"),
        ("content-length", "5"),
    ] {
        let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
        let mut connection = RawConnection::open(world.federation(), config)
            .await
            .unwrap();
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "b"),
            (":path", "/api/federation/v1/list/tasks"),
            ("content-type", "application/json"),
            (name, value),
        ];
        connection
            .send(http2_request(&fields, b"{}"))
            .await
            .unwrap();
        let ending = http2_ending(&mut connection).await;
        assert!(ending != Some(OK), "{name} was accepted");
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

/// First byte of a header block that begins with the indexed field `:status: 200` (RFC 7541).
const OK: u8 = 0x88;

/// Connection preface, settings, one request on stream 1, all fields literal and unindexed.
fn http2_request(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &block),
        frame(0, 1, 1, body),
    ]
    .concat()
}

/// Reads frames until the request has ended: the first byte of its response's header block, or
/// `None` when the stream was reset or the connection ended.
async fn http2_ending(connection: &mut RawConnection) -> Option<u8> {
    loop {
        let mut head = [0; 9];
        connection.stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        connection.stream.read_exact(&mut payload).await.ok()?;
        match head[3] {
            1 => return payload.first().copied(),
            3 | 7 => return None,
            _ => {}
        }
    }
}

// Headers that claim an identity.

const SPOOFED: [(&str, &str); 18] = [
    ("X-Forwarded-Client-Cert", "Hash=0;Subject=\"CN=ben\""),
    ("X-Subject-User-Id", "e2"),
    ("x_subject_user_id", "e2"),
    ("X-Grant-Id", "00000000-0000-4000-8000-000000000000"),
    ("x_grant_id", "00000000-0000-4000-8000-000000000000"),
    ("X-Mosaic-Assertion", "eyJhbGciOiJub25lIn0.e30."),
    ("X-Mosaic-Subject", "e2"),
    ("X-SSL-Client-Verify", "SUCCESS"),
    ("Ssl-Client-S-Dn", "CN=ben"),
    ("Authorization", "Bearer token-e2"),
    ("Proxy-Authorization", "Bearer token-e2"),
    ("Cookie", "session=e2"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-User", "e2"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;by=b"),
    ("X-Original-URL", "/api/federation/v1/list/credentials"),
    ("X-HTTP-Method-Override", "DELETE"),
];

#[tokio::test(flavor = "multi_thread")]
async fn spoofed_identity_headers() {
    for preset in ["internal-v1", "mosaic"] {
        let world = World::builder().preset(preset).start().await;
        let holder = world.amira().await;
        let plain = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        let mut connection = raw(&world, &holder).await;
        let spoofed: String = SPOOFED
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        connection
            .send(list_with(&format!("{spoofed}Content-Length: 2\r\n"), "{}"))
            .await
            .unwrap();
        let first = connection.response().await.unwrap();
        let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
        let mut connection = Http2::open(world.federation(), config).await.unwrap();
        let mut request = tests::http2::post(&format!("{BASE}/list/tasks"), "{}");
        for (name, value) in SPOOFED {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let second = connection.request(request).await.unwrap();
        for answer in [first, second] {
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body, plain.body);
            let row = tests::audit::audit_row(world.control(), answer.request_id()).await;
            assert_eq!(row["grant_id"], holder.grant.to_string());
            assert_eq!(row["subject_user_id"], holder.subject.to_string());
        }
        let expected: BTreeSet<&str> = [
            "accept",
            "accept-encoding",
            "authorization",
            "host",
            "x-request-id",
        ]
        .into();
        for seen in world.gateway.requests().await {
            assert_eq!(seen["method"], "GET");
            assert_eq!(seen["user"], plan::AMIRA);
            let names: Vec<&str> = seen["headerNames"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            let unique: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(names.len(), unique.len(), "repeated: {names:?}");
            assert_eq!(unique, expected);
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_id_of_the_peer_is_kept_only_when_it_is_safe() {
    let world = World::start().await;
    let holder = world.amira().await;
    for (given, kept) in [
        ("peer-1", Some("peer-1")),
        ("a b", None),
        ("a\u{9b}31m", None),
        ("<script>", None),
    ] {
        let mut connection = raw(&world, &holder).await;
        let fields = format!("X-Request-Id: {given}\r\nContent-Length: 2\r\n");
        connection.send(list_with(&fields, "{}")).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_ne!(answer.request_id(), given);
        let row = tests::audit::audit_row(world.control(), answer.request_id()).await;
        assert_eq!(row["peer_request_id"].as_str(), kept);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_without_end() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut connection = raw(&world, &holder).await;
    let many = format!("X-A: {}\r\n", "a".repeat(1000)).repeat(2000);
    // The server may stop reading and close while this is still being sent.
    let _sent = connection.send(list_with(&many, "{}")).await;
    if let Ok(answer) = connection.response().await {
        assert!((400..500).contains(&answer.status), "{}", answer.status);
    }
    assert!(world.gateway.requests().await.is_empty());
    let again = world.ask(&holder.minted, "/capabilities", &json!({})).await;
    assert_eq!(again.status, 200);
    world.stop().await;
}
