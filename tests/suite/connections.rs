//! What connections of the federation listener are like, and what ends them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certs::testing::foreign_client_config;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, NamedGroup, RootCertStore};
use serde_json::json;
use tests::tickets::{Tickets, collect_tickets, remembering};
use tests::{Holder, Home, Http2, RawConnection, Wire, World, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const LIST: &str = "/api/federation/v1/list/tasks";

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_answered_on_both_protocols() {
    let world = World::start().await;
    let holder = world.amira().await;
    for wire in Wire::BOTH {
        let answer = world
            .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.items().is_empty());
        let row = tests::audit::audit_row(world.control(), answer.request_id()).await;
        assert_eq!(row["outcome"], "allowed");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asking_side_is_answered_through_its_door() {
    let world = World::start().await;
    world.let_in(reference_gateway::plan::AMIRA).await;
    let grant = world
        .pending(
            reference_gateway::plan::AMIRA,
            json!({"resources": ["tasks"]}),
        )
        .await;
    let url = world.enrollment_url(grant.id).await;
    let home = Home::start().await;
    home.add_peer(&url, "amira", "work").await.unwrap();
    let token = home.session("amira").await;
    let answer = home.ask(&token, "work", "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.items().is_empty());
    home.stop().await;
    world.stop().await;
}

// TLS.

/// Connects, and gives what the handshake settled on.
async fn shaken(world: &World, config: impl Into<Arc<ClientConfig>>) -> TlsStream<TcpStream> {
    tls::connect(world.federation(), config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn post_quantum_key_exchange() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
    let stream = shaken(&world, config.clone()).await;
    let group = stream.get_ref().1.negotiated_key_exchange_group();
    assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    // A client that knows only the classical ones is served all the same.
    for only in [kx_group::X25519, kx_group::SECP256R1] {
        config = with_groups(&holder, &world, vec![only]);
        let stream = shaken(&world, config).await;
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        assert_eq!(group.unwrap().name(), only.name());
    }
    let other = with_groups(&holder, &world, vec![kx_group::SECP384R1]);
    let error = tls::connect(world.federation(), other).await.unwrap_err();
    assert_eq!(tls::alert(&error), Some(AlertDescription::HandshakeFailure));
    world.stop().await;
}

fn with_groups(
    holder: &Holder,
    world: &World,
    groups: Vec<&'static dyn SupportedKxGroup>,
) -> ClientConfig {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = groups;
    let mut roots = RootCertStore::empty();
    roots.add(world.root().clone()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
            holder.minted.certified_key(),
        )))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_is_refused_on_both_listeners() {
    let world = World::start().await;
    let holder = world.amira().await;
    for address in [world.federation(), world.enrollment()] {
        let config = foreign_client_config(Some(&holder.minted), world.root(), &[&TLS12]);
        let alert = tls::refusal(address, config).await;
        assert_eq!(alert, AlertDescription::ProtocolVersion);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_other_than_http_are_refused() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.0", "spdy/3"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::NoApplicationProtocol);
    // h2 is preferred; who offers nothing speaks HTTP/1.1.
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1", "h2"]);
    let stream = shaken(&world, config).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let config = tls::client(Some(&holder.minted), world.root(), &[]);
    let mut silent = RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    silent.post(LIST, "{}").await.unwrap();
    assert_eq!(silent.response().await.unwrap().status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_not_answered() {
    let world = World::start().await;
    for address in [world.federation(), world.enrollment()] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket
            .write_all(b"GET /api/federation/v1/capabilities HTTP/1.1\r\nHost: b\r\n\r\n")
            .await
            .unwrap();
        let mut bytes = Vec::new();
        // A reset is as good an end as a close.
        let _end = socket.read_to_end(&mut bytes).await;
        assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_takes_too_long_is_ended() {
    let world = World::builder()
        .federation("handshake_timeout_ms = 200")
        .start()
        .await;
    let mut socket = TcpStream::connect(world.federation()).await.unwrap();
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(ended.is_ok(), "a silent connection is kept");
    assert!(bytes.is_empty());
    world.stop().await;
}

/// A POST with these headers besides, and a body that is there.
fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_body_was_read_keeps_the_connection() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let mut connection = RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    let json = "Content-Type: application/json\r\n";
    let long = format!(
        "{{\"params\":{{\"limit\":1}},\"x\":\"{}\"}}",
        "y".repeat(60_000)
    );
    let base = "/api/federation/v1";
    for (request, status, reason) in [
        (post("/elsewhere", json, &long), 404, "unknown_route"),
        (
            post(&format!("{base}/fetch/tasks"), json, &long),
            404,
            "unknown_route",
        ),
        (
            post(LIST, "Content-Type: text/plain\r\n", &long),
            415,
            "unsupported_media_type",
        ),
        (
            post(&format!("{LIST}?x=1"), json, &long),
            400,
            "unknown_key",
        ),
    ] {
        connection.send(request).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.reason().as_deref(), Some(reason));
        assert_ne!(answer.header("connection"), Some("close"), "{reason}");
        // What follows on the connection is a request, and not the rest of the body.
        connection.post(LIST, "{}").await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!(answer.status, 200, "{reason}: {}", answer.text());
    }
    // A body that may never come, or whose end is not known beforehand, is not waited for.
    for (request, status) in [
        (post("/elsewhere", "Expect: 100-continue\r\n", ""), 404),
        (
            "POST /elsewhere HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
                .to_owned(),
            404,
        ),
        (
            "POST /elsewhere HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
                .to_owned(),
            400,
        ),
    ] {
        let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
        let mut connection = RawConnection::open(world.federation(), config)
            .await
            .unwrap();
        // The length that is expected for is the client's own affair.
        let request = request.replace("Content-Length: 0", "Content-Length: 9");
        connection.send(request).await.unwrap();
        let answer = connection.response().await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        let (left, _) = connection.end().await;
        assert!(left.is_empty());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_shorter_than_many_round_trips_is_pointed_out() {
    for (lease, warns) in [("duration_ms = 60", true), ("duration_ms = 1000", false)] {
        let world = World::builder().lease(lease).start().await;
        let checks = world.control().checks().await.unwrap();
        let found = checks.iter().find(|check| check.name == "leases");
        assert_eq!(found.is_some(), warns, "{checks:?}");
        assert!(found.is_none_or(|check| check.found.contains("lease_lost")));
        world.stop().await;
    }
}

// Resumption.

#[tokio::test(flavor = "multi_thread")]
async fn no_session_ticket_is_ever_sent() {
    let world = World::start().await;
    let holder = world.amira().await;
    let tickets = Tickets::new();
    let config = remembering(&world, Some(&holder.minted), &tickets);
    for _ in 0..3 {
        let mut connection = RawConnection::open(world.federation(), Arc::clone(&config))
            .await
            .unwrap();
        connection.post(LIST, "{}").await.unwrap();
        assert_eq!(connection.response().await.unwrap().status, 200);
        let kind = connection.stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
    assert_eq!(tickets.given.load(Ordering::SeqCst), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_ticket_leads_to_a_full_handshake() {
    let world = World::start().await;
    let holder = world.amira().await;
    let tickets = Tickets::new();
    let config = remembering(&world, Some(&holder.minted), &tickets);
    collect_tickets(&world, &config).await;
    let before = tickets.offered.load(Ordering::SeqCst);
    let mut connection = RawConnection::open(world.federation(), Arc::clone(&config))
        .await
        .unwrap();
    assert_eq!(tickets.offered.load(Ordering::SeqCst), before + 1);
    connection.post(LIST, "{}").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    let session = connection.stream.get_ref().1;
    assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
    assert!(!session.is_early_data_accepted());
    world.stop().await;
}

/// The hole that resumption opens elsewhere: the client certificate is not looked at again.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_does_not_get_a_revoked_holder_back_in() {
    let world = World::start().await;
    let holder = world.amira().await;
    let tickets = Tickets::new();
    let config = remembering(&world, Some(&holder.minted), &tickets);
    let mut connection = RawConnection::open(world.federation(), Arc::clone(&config))
        .await
        .unwrap();
    connection.post(LIST, "{}").await.unwrap();
    assert_eq!(connection.response().await.unwrap().status, 200);
    collect_tickets(&world, &config).await;
    world.revoke(holder.grant).await;
    let offered = tickets.offered.load(Ordering::SeqCst);
    let alert = tls::refusal(world.federation(), Arc::clone(&config)).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    assert_eq!(tickets.offered.load(Ordering::SeqCst), offered + 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_does_not_replace_a_certificate() {
    let world = World::start().await;
    let tickets = Tickets::new();
    let config = remembering(&world, None, &tickets);
    collect_tickets(&world, &config).await;
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateRequired);
    world.stop().await;
}

// Lives of connections.

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_answers_many_questions() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut ids = BTreeSet::new();
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        let first = client.post(LIST, "{}").await.unwrap();
        for turn in 0..20 {
            let answer = client
                .post(LIST, "{}")
                .await
                .unwrap_or_else(|error| panic!("{wire:?}, turn {turn}: {error}"));
            tests::expect::check_headers(&answer);
            assert_eq!(answer.body, first.body);
            assert_eq!(
                answer.header("x-mosaic-revision"),
                first.header("x-mosaic-revision")
            );
            assert!(ids.insert(answer.request_id().to_owned()), "an id twice");
            // A refusal of the request is not the end of the connection.
            let refused = client
                .post(LIST, r#"{"params":{"limit":0}}"#)
                .await
                .unwrap();
            assert_eq!(refused.status, 400);
        }
    }
    world.stop().await;
}

/// In HTTP/1.1 a body that nobody reads stands between this request and the next: the connection
/// ends, and the answer says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_body_ends_no_other_stream() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut client = world.client(Wire::H2, &holder.minted).await;
    assert_eq!(client.post("/nothing", "{}").await.unwrap().status, 404);
    assert_eq!(client.post(LIST, "{}").await.unwrap().status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_are_answered_side_by_side() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = tls::client(Some(&holder.minted), world.root(), &["h2"]);
    let connection = Http2::open(world.federation(), config).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..32 {
        let mut sender = connection.sender.clone();
        asked.push(tokio::spawn(async move {
            sender.ready().await.unwrap();
            let request = tests::http2::post(LIST, "{}");
            sender.send_request(request).await.unwrap().status()
        }));
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_ends_idle_connections() {
    let world = World::start().await;
    let bystander = world
        .holder(
            reference_gateway::plan::BEN,
            json!({"resources": ["tasks"]}),
        )
        .await;
    for wire in Wire::BOTH {
        let mut other = world.client(wire, &bystander.minted).await;
        assert_eq!(other.post(LIST, "{}").await.unwrap().status, 200);
        let holder = world.amira().await;
        let mut client = world.client(wire, &holder.minted).await;
        assert_eq!(client.post(LIST, "{}").await.unwrap().status, 200);
        world.revoke(holder.grant).await;
        client.closed().await;
        assert_eq!(other.post(LIST, "{}").await.unwrap().status, 200);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_idle_connections() {
    let world = World::start().await;
    let holder = world.amira().await;
    let mut clients = Vec::new();
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        assert_eq!(client.post(LIST, "{}").await.unwrap().status, 200);
        clients.push(client);
    }
    world.stop().await;
    for client in clients {
        client.closed().await;
    }
}
