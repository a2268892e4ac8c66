//! The door over a real store and a real peer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use certs::{SealPurpose, Sealer, SealingSecret, SystemClock};
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::PeerName;
use policy::time::UnixMillis;
use serde_json::{Value, json as value};
use tempfile::TempDir;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::connection::Deadlines;
use super::super::fixture::{Act, BOTH, Log, OwnRows, Pki, QUICK, cursors, json, reaches, start};
use super::super::reach::ReachRules;
use super::super::{OutboundParts, SessionToken};
use super::*;
use crate::audit::{AuditFilter, AuditLog, AuditOutcome, AuditRow, AuditText, AuditWriter};
use crate::store::{
    Act as StoreAct, Actor, CredentialState, NewOutboundPeer, SqliteOptions, SqliteStore, Store,
};

mod offline;
mod proxy;
mod query;
mod side;

use side::{Side, refusal, side};

const TASKS: &str = "/peers/work/api/federation/v1/list/tasks";
const AMIRA: Doorway = Doorway::Unix { uid: Some(1000) };

const ROWS: &str =
    r#"{"items":[{"_source":"local","id":"1"}],"_partial":false,"_truncated":false}"#;

#[tokio::test]
async fn a_session_gets_the_rows_of_its_users_peer() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let later = UnixMillis(side.outbound.clock.unix_millis() + 60_000);
    let user = UserId::parse("amira").unwrap();
    let (token, _) = side
        .outbound
        .create_session(Actor::Sidecar("test"), user, later)
        .await
        .unwrap();
    let bearer = format!("Bearer {}", token.expose());
    let headers = [
        ("authorization", bearer.as_str()),
        ("host", "localhost"),
        ("x-evil", "1"),
        ("cookie", "a=b"),
        ("x-request-id", "mine-1"),
    ];
    let (status, headers, body) = side.ask(Doorway::Loopback, TASKS, &headers).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body,
        value!({"items":[{"_source":"work","id":"1"}],"_partial":false,"_truncated":false})
    );
    assert_eq!(headers.get("x-request-id").unwrap(), "mine-1");
    assert_eq!(headers.get("cache-control").unwrap(), "no-store");
    let seen = log.requests.lock()[0].clone();
    assert_eq!(seen.header("x-request-id"), Some("mine-1"));
    for absent in ["authorization", "x-evil", "cookie"] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    let records = side.records().await;
    let record = &records[0].record;
    assert_eq!(
        (records.len(), record.outcome, record.rows_returned),
        (1, AuditOutcome::Allowed, 1)
    );
    assert_eq!(record.request_id.as_str(), "mine-1");
    assert_eq!(record.verb.as_ref().map(AuditText::as_str), Some("list"));
    assert!(record.query_hash.is_some() && record.cert_serial.is_some() && record.bytes_out > 0);
}

#[tokio::test]
async fn nobody_else_gets_anything() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let wrong = format!("Bearer {}", SessionToken::draw().unwrap().expose());
    for (doorway, headers) in [
        (Doorway::Unix { uid: None }, vec![]),
        (Doorway::Unix { uid: Some(4242) }, vec![]),
        // A wrong token is not made good by a mapped uid.
        (AMIRA, vec![("authorization", wrong.as_str())]),
        (Doorway::Loopback, vec![("host", "localhost")]),
        (
            Doorway::Loopback,
            vec![("host", "localhost"), ("authorization", wrong.as_str())],
        ),
    ] {
        let (status, headers, _) = side.ask(doorway, TASKS, &headers).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(headers.get("www-authenticate").unwrap(), "Bearer");
    }
    let (status, _, body) = side
        .ask(Doorway::Loopback, TASKS, &[("host", "evil.example")])
        .await;
    assert_eq!(
        (status, &body["error"]["details"]["reason"]),
        (StatusCode::FORBIDDEN, &value!("foreign_origin"))
    );
    let strip = |mut body: Value| {
        body["error"]["requestId"] = Value::Null;
        body
    };
    // Another user's peer and a peer that does not exist are one answer.
    let (status, _, others) = side
        .ask(Doorway::Unix { uid: Some(1001) }, TASKS, &[])
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, _, unknown) = side
        .ask(AMIRA, "/peers/nope/api/federation/v1/list/tasks", &[])
        .await;
    assert_eq!(strip(others), strip(unknown));
    assert!(log.requests.lock().is_empty());
    assert_eq!(log.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_the_routes_of_the_protocol_lead_on() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    for (path, wanted) in [
        ("/peers/work/api/federation/v1/search/tasks", 404),
        ("/peers/work/api/federation/v1/renew", 404),
        ("/peers/work/api/federation/v2/list/tasks", 404),
        ("/peers/work/api/federation/v1/list/tasks?limit=1", 400),
        ("/peers/work/api/federation/v1/get/tasks/..", 400),
    ] {
        assert_eq!(
            side.ask(AMIRA, path, &[]).await.0.as_u16(),
            wanted,
            "{path}"
        );
    }
    let big = Request::post(TASKS)
        .header("content-type", "application/json")
        .body(Body::from(vec![b' '; MAX_BODY + 1]));
    assert_eq!(
        answer(&side.outbound, AMIRA, big.unwrap()).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let form = Request::post(TASKS)
        .header("content-type", "text/plain")
        .body(Body::from("{}"));
    assert_eq!(
        answer(&side.outbound, AMIRA, form.unwrap()).await.status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    assert!(log.requests.lock().is_empty());
}

#[tokio::test]
async fn a_revoked_grant_is_answered_here_from_then_on() {
    let (side, log) = side(|_| refusal(403, "forbidden", Some("grant_revoked"))).await;
    for _ in 0..3 {
        let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(
            body["error"]["details"],
            value!({"reason": "grant_revoked", "peer": "work"})
        );
    }
    assert_eq!(log.requests.lock().len(), 1, "the network was asked once");
    assert_eq!(side.credential_state().await, CredentialState::Revoked);
    side.outbound.load().await.unwrap();
    assert_eq!(
        side.ask(AMIRA, TASKS, &[]).await.0,
        StatusCode::FORBIDDEN,
        "and after a restart too"
    );
    assert_eq!(log.requests.lock().len(), 1);
    let records = side.records().await;
    assert!(
        records
            .iter()
            .all(|row| row.record.outcome == AuditOutcome::Denied)
    );
    let stages: Vec<_> = records
        .iter()
        .map(|row| row.record.deny_stage.clone().unwrap().as_str().to_owned())
        .collect();
    assert_eq!(stages, ["peer", "local", "local", "local"]);
}

#[tokio::test]
async fn a_revoked_certificate_at_the_handshake_counts_as_revoked() {
    let pki = Pki::new();
    let server = certs::testing::Mint::server(&["127.0.0.1"]).sign_with(&pki.ca);
    let (address, log) = start(
        pki.server_config(&server, pki.client.revoked(), BOTH),
        |_| json(200, ROWS),
    )
    .await;
    let side = Side::with_peer(&pki, address).await;
    let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
    assert_eq!(
        (status, &body["error"]["details"]["reason"]),
        (StatusCode::FORBIDDEN, &value!("grant_revoked"))
    );
    assert_eq!(side.credential_state().await, CredentialState::Revoked);
    assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::FORBIDDEN);
    assert!(log.requests.lock().is_empty());
}

#[tokio::test]
async fn a_suspension_is_asked_again_and_lifted() {
    let script = |number| {
        if number == 0 {
            refusal(403, "forbidden", Some("peer_suspended"))
        } else {
            json(200, ROWS)
        }
    };
    let (side, _log) = side(script).await;
    assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(side.credential_state().await, CredentialState::Suspended);
    assert_eq!(side.ask(AMIRA, TASKS, &[]).await.0, StatusCode::OK);
    assert_eq!(side.credential_state().await, CredentialState::Active);
}

#[tokio::test]
async fn refusals_without_a_named_reason_change_nothing() {
    let script = |number| match number {
        0 => refusal(403, "forbidden", None),
        1 => refusal(403, "scope_violation", Some("grant_revoked")),
        2 => refusal(404, "not_found", Some("grant_revoked")),
        _ => {
            let Act::Answer(mut limited) = refusal(429, "rate_limited", None) else {
                return Act::Stall;
            };
            limited
                .headers_mut()
                .insert("retry-after", http::HeaderValue::from_static("7"));
            Act::Answer(limited)
        }
    };
    let (side, _log) = side(script).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let (status, headers, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(body["error"]["message"], value!("no"));
        statuses.push((status.as_u16(), headers.get("retry-after").cloned()));
    }
    let after = http::HeaderValue::from_static("7");
    assert_eq!(
        statuses,
        [(403, None), (403, None), (404, None), (429, Some(after))]
    );
    assert_eq!(side.credential_state().await, CredentialState::Active);
}

#[tokio::test]
async fn what_is_not_the_protocol_is_a_bad_gateway() {
    let html = || {
        let builder = Response::builder()
            .status(200)
            .header("content-type", "text/html");
        Act::Answer(builder.body(Body::from("<html>")).unwrap())
    };
    let script = move |number| match number {
        0 => html(),
        1 => json(200, r#"{"items":[{"id":"1"},"#),
        2 => json(200, r#"{"items":[1]}"#),
        3 => json(302, "{}"),
        4 => json(403, "{}"),
        _ => json(204, ""),
    };
    let (side, _log) = side(script).await;
    for number in 0..6 {
        // Each is a failure of the peer: without this the sixth would not go out.
        side.outbound
            .reset_breaker(&PeerName::parse("work").unwrap());
        let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{number}");
        assert_eq!(
            body["error"]["details"]["reason"],
            value!("malformed_answer"),
            "{number}"
        );
    }
    assert!(
        side.records()
            .await
            .iter()
            .all(|row| row.record.outcome == AuditOutcome::Error)
    );
}

#[tokio::test]
async fn a_long_answer_that_turns_bad_is_cut_off() {
    let script = |_| {
        let row = format!(r#"{{"id":"1","text":"{}"}}"#, "x".repeat(1000));
        let good = std::iter::repeat_n(format!("{row},"), 400);
        let pieces = std::iter::once(r#"{"items":["#.to_owned())
            .chain(good)
            .chain(["7]}".to_owned()]);
        json(
            200,
            Body::from_stream(stream::iter(
                pieces.map(Ok::<_, std::io::Error>).collect::<Vec<_>>(),
            )),
        )
    };
    let (side, _log) = side(script).await;
    let request = Request::post(TASKS)
        .header("content-type", "application/json")
        .body(Body::from("{}"));
    let response = answer(&side.outbound, AMIRA, request.unwrap()).await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "more than is held back was good"
    );
    assert!(to_bytes(response.into_body(), 1 << 24).await.is_err());
    let records = side.records().await;
    assert_eq!(
        (records.len(), records[0].record.outcome),
        (1, AuditOutcome::Error)
    );
}

#[tokio::test]
async fn a_caller_who_leaves_is_recorded_as_aborted() {
    let (side, _log) = side(|_| {
        let row = format!(r#"{{"id":"1","t":"{}"}},"#, "x".repeat(1000));
        let rows = std::iter::repeat_n(row, 9_000).map(Ok::<_, std::io::Error>);
        json(
            200,
            Body::from_stream(stream::iter(
                std::iter::once(Ok(r#"{"items":["#.to_owned())).chain(rows),
            )),
        )
    })
    .await;
    let request = Request::post(TASKS)
        .header("content-type", "application/json")
        .body(Body::from("{}"));
    drop(answer(&side.outbound, AMIRA, request.unwrap()).await);
    let records = side.records().await;
    assert_eq!(
        (records.len(), records[0].record.outcome),
        (1, AuditOutcome::Aborted)
    );
}

#[tokio::test]
async fn an_unreachable_peer_is_offline_by_name() {
    let pki = Pki::new();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let side = Side::with_peer(&pki, gone).await;
    let (status, _, body) = side.ask(AMIRA, TASKS, &[]).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body["error"]["message"],
        value!("federation offline for work")
    );
    assert_eq!(
        body["error"]["details"],
        value!({"reason": "unreachable", "peer": "work", "notices": [
            {"peer": "work", "code": "federation_offline", "message": "federation offline for work"}
        ]})
    );
    assert_eq!(side.credential_state().await, CredentialState::Active);
    let peer = &side.store.list_peers().await.unwrap()[0];
    assert!(
        peer.last_failure
            .as_deref()
            .unwrap()
            .contains("no connection")
            && peer.last_success_at.is_none()
    );
}
