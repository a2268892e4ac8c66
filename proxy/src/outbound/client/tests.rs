//! The client against real TLS listeners that are honest, broken, foreign or slow.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use bytes::Bytes;
use certs::RevokedSet;
use certs::testing::{Mint, TestCa};
use http::{Method, StatusCode};
use rustls::AlertDescription;
use tokio::net::TcpListener;

use super::super::fault::AskError;
use super::super::fixture::{Act, BOTH, H1, Pki, QUICK, json, start};
use super::*;

fn question() -> Question {
    Question {
        method: Method::POST,
        path: "/api/federation/v1/list/tasks".to_owned(),
        body: Bytes::from_static(b"{}"),
        request_id: "request-1".to_owned(),
        trace: TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        attempt: 1,
        repeatable: true,
    }
}

#[tokio::test]
async fn a_question_is_written_from_scratch_and_connections_are_kept() {
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let (address, log) = start(pki.ordinary(alpn), |_| json(200, "{\"a\":1}")).await;
        let client = pki.client_of(address, QUICK);
        for _ in 0..3 {
            let reply = client.ask(&question()).await.unwrap();
            assert_eq!((reply.head.status, reply.attempt), (StatusCode::OK, 1));
            assert_eq!(
                reply.body.collect(100).await.unwrap().as_deref(),
                Some(&b"{\"a\":1}"[..])
            );
            // An HTTP/1.1 connection is given back once it is free, which the next turn of the runtime sees.
            while client.pool.kept.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(log.connections.load(Ordering::SeqCst), 1, "{alpn:?}");
        let requests = log.requests.lock().clone();
        let seen = requests.first().unwrap();
        assert_eq!(seen.header("x-request-id"), Some("request-1"));
        assert_eq!(seen.header("x-mosaic-attempt"), Some("1"));
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert!(seen.header("traceparent").is_some() && seen.header("authorization").is_none());
        assert_eq!(
            (seen.head.uri.path(), seen.body.as_slice()),
            ("/api/federation/v1/list/tasks", &b"{}"[..])
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_the_peer_is_never_asked() {
    let pki = Pki::new();
    let foreign = TestCa::root("somebody else");
    for server in [
        Mint::server(&["127.0.0.1"]).sign_with(&foreign),
        Mint::server(&["other.example"]).sign_with(&pki.ca),
        Mint::server(&["127.0.0.1"]).expired().sign_with(&pki.ca),
        Mint::server(&["127.0.0.1"])
            .not_yet_valid()
            .sign_with(&pki.ca),
        Mint::server(&["127.0.0.1"]).self_signed(),
    ] {
        let config = pki.server_config(&server, RevokedSet::default(), BOTH);
        let (address, log) = start(config, |_| json(200, "{}")).await;
        let asked = pki.client_of(address, QUICK).ask(&question()).await;
        assert_eq!(asked.map(drop), Err(AskError::Untrusted));
        assert!(log.requests.lock().is_empty());
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_heard_through_either_protocol() {
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let server = Mint::server(&["127.0.0.1"]).sign_with(&pki.ca);
        let (address, log) = start(
            pki.server_config(&server, pki.client.revoked(), alpn),
            |_| json(200, "{}"),
        )
        .await;
        // The alert races with the request on each connection: every time it must be heard.
        for _ in 0..10 {
            let asked = pki.client_of(address, QUICK).ask(&question()).await;
            assert_eq!(
                asked.map(drop),
                Err(AskError::Died(Some(AlertDescription::CertificateRevoked)))
            );
        }
        assert!(log.requests.lock().is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_dies_before_the_answer_is_replaced_once() {
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let script = |number| {
            if number == 0 {
                Act::Hang
            } else {
                json(200, "{}")
            }
        };
        let (address, log) = start(pki.ordinary(alpn), script).await;
        let reply = pki
            .client_of(address, QUICK)
            .ask(&question())
            .await
            .unwrap();
        assert_eq!((reply.head.status, reply.attempt), (StatusCode::OK, 2));
        let requests = log.requests.lock().clone();
        let sent: Vec<_> = requests
            .iter()
            .map(|seen| (seen.header("x-request-id"), seen.header("x-mosaic-attempt")))
            .collect();
        assert_eq!(
            sent,
            [
                (Some("request-1"), Some("1")),
                (Some("request-1"), Some("2"))
            ],
            "{alpn:?}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_a_third_time_nor_twice_when_that_is_forbidden() {
    let pki = Pki::new();
    for (repeatable, times) in [(true, 2), (false, 1)] {
        let (address, log) = start(pki.ordinary(H1), |_| Act::Hang).await;
        let asked = pki
            .client_of(address, QUICK)
            .ask(&Question {
                repeatable,
                ..question()
            })
            .await;
        assert_eq!(asked.map(drop), Err(AskError::Died(None)));
        assert_eq!(log.requests.lock().len(), times);
    }
}

#[tokio::test]
async fn each_step_has_its_deadline() {
    let pki = Pki::new();
    let (address, _log) = start(pki.ordinary(BOTH), |_| Act::Stall).await;
    let asked = pki.client_of(address, QUICK).ask(&question()).await;
    assert_eq!(asked.map(drop), Err(AskError::FirstByteTimeout));
    let short = Deadlines {
        total: QUICK.first_byte / 2,
        ..QUICK
    };
    let asked = pki.client_of(address, short).ask(&question()).await;
    assert_eq!(asked.map(drop), Err(AskError::TotalTimeout));
    // A listener that never accepts: the kernel completes TCP, nobody the handshake.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = pki
        .client_of(silent.local_addr().unwrap(), QUICK)
        .ask(&question())
        .await;
    assert_eq!(asked.map(drop), Err(AskError::TlsTimeout));
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let asked = pki.client_of(gone, QUICK).ask(&question()).await;
    assert_eq!(
        asked.map(drop),
        Err(AskError::Unreachable(std::io::ErrorKind::ConnectionRefused))
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_an_end() {
    use axum::body::Body;
    use futures_util::stream;
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let script = |_| {
            let pieces = [
                Ok(Bytes::from_static(b"{\"items\":[")),
                Err(std::io::Error::other("cut")),
            ];
            json(200, Body::from_stream(stream::iter(pieces)))
        };
        let (address, _log) = start(pki.ordinary(alpn), script).await;
        let mut ended = Err(AskError::Broken);
        if let Ok(reply) = pki.client_of(address, QUICK).ask(&question()).await {
            ended = reply.body.collect(1000).await;
        }
        assert_eq!(ended, Err(AskError::Broken), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_connection_opened_in_advance_is_the_one_that_is_used() {
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let (address, log) = start(pki.ordinary(alpn), |_| json(200, "{}")).await;
        let client = pki.client_of(address, QUICK);
        for _ in 0..3 {
            client.warm_up().await.unwrap();
        }
        let reply = client.ask(&question()).await.unwrap();
        assert_eq!(
            reply.body.collect(100).await.unwrap().as_deref(),
            Some(&b"{}"[..])
        );
        assert_eq!(log.connections.load(Ordering::SeqCst), 1, "{alpn:?}");
        assert_eq!(log.requests.lock().len(), 1);
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let warmed = Pki::new().client_of(address, QUICK).warm_up().await;
    assert!(matches!(warmed, Err(AskError::Unreachable(_))));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_not_used_again() {
    for alpn in [BOTH, H1] {
        let pki = Pki::new();
        let (address, log) = start(pki.ordinary(alpn), |number| match number {
            0 => Act::Stall,
            _ => json(200, "{}"),
        })
        .await;
        let client = pki.client_of(address, QUICK);
        let asked = client.ask(&question()).await;
        assert_eq!(asked.map(drop), Err(AskError::FirstByteTimeout));
        // It may lead nowhere by now: what is asked next must not wait on it as well.
        let reply = client.ask(&question()).await.unwrap();
        assert_eq!(reply.head.status, StatusCode::OK);
        assert_eq!(log.connections.load(Ordering::SeqCst), 2, "{alpn:?}");
    }
}
