//! A token buys one certificate, once, in time, from the side that printed it; and nothing secret
//! is left lying about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "enrollment/import.rs"]
mod import;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use certs::testing::Minted;
use policy::id::GrantId;
use policy::time::UnixMillis;
use proxy::admin::AdminCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::enroll::{Ticket, redeem, request, ticket};
use support::process::Process;
use support::stream::{Connection, Shape};
use tests::database::{Database, Value as Bound};
use tests::grants::BASE;
use tests::{Client, Home, Response, Wire, World};

fn scope() -> Value {
    json!({"resources": ["tasks"]})
}

async fn redeemed(world: &World, ticket: &Ticket) -> Response {
    let (_, csr) = request();
    redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
        .await
        .unwrap()
}

/// How many certificates a grant has, and how many of them are in force.
async fn certificates(world: &World, grant: GrantId) -> (usize, usize) {
    let detail = world
        .control()
        .show_grant(&grant.to_string())
        .await
        .unwrap();
    let active = detail
        .certificates
        .iter()
        .filter(|one| one.state == "active");
    (detail.certificates.len(), active.count())
}

fn check(response: &Response, status: u16, reason: Option<&str>) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.reason().as_deref(), reason, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(!response.request_id().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once() {
    let world = World::start().await;
    let (grant, ticket) = ticket(&world).await;
    let first = redeemed(&world, &ticket).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let answer = first.json();
    let mut members: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "certChainPem",
            "certPem",
            "checkpointKey",
            "commonName",
            "endpointUrl",
            "grantId",
            "subjectUserId",
            "trustBundlePem",
            "trustGeneration"
        ]
    );
    assert_eq!(answer["grantId"], grant.to_string());
    for _ in 0..2 {
        check(&redeemed(&world, &ticket).await, 410, Some("token_used"));
    }
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_gone() {
    let world = World::builder().manual_clock().start().await;
    let (grant, late) = ticket(&world).await;
    world.clock().advance(Duration::from_secs(900));
    check(&redeemed(&world, &late).await, 410, Some("token_expired"));
    assert_eq!(certificates(&world, grant).await, (0, 0));
    let (grant, in_time) = ticket(&world).await;
    world.clock().advance(Duration::from_secs(899));
    assert_eq!(redeemed(&world, &in_time).await.status, 200);
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_token_is_not_found_whatever_its_form() {
    let world = World::start().await;
    let (grant, known) = ticket(&world).await;
    let other = known.token.chars().rev().collect::<String>();
    for token in [
        other.as_str(),
        &known.token[..63],
        &known.token.to_uppercase(),
        "x",
        "%00",
        &"0".repeat(64),
    ] {
        let (_, csr) = request();
        let response = redeem(world.enrollment(), known.pin, token, &csr)
            .await
            .unwrap();
        // A token of digits only is its own upper case.
        if token != known.token {
            check(&response, 404, None);
        }
    }
    assert_eq!(certificates(&world, grant).await, (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_does_not_spend_the_token() {
    let world = World::start().await;
    let (grant, ticket) = ticket(&world).await;
    let (_, good) = request();
    // A request whose signature does not hold: one character of its base64 changed.
    let at = good.len() - 60;
    let swapped = if &good[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{swapped}{}", &good[..at], &good[at + 1..]);
    let weak = {
        let key = openssl::rsa::Rsa::generate(1024).unwrap();
        let key = openssl::pkey::PKey::from_rsa(key).unwrap();
        let mut builder = openssl::x509::X509ReqBuilder::new().unwrap();
        builder.set_pubkey(&key).unwrap();
        builder
            .sign(&key, openssl::hash::MessageDigest::sha256())
            .unwrap();
        String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
    };
    for bad in ["", "not PEM", &forged, &weak, &format!("{good}{good}")] {
        let response = redeem(world.enrollment(), ticket.pin, &ticket.token, bad)
            .await
            .unwrap();
        check(&response, 400, Some("csr_refused"));
    }
    let response = redeem(world.enrollment(), ticket.pin, &ticket.token, &good)
        .await
        .unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_another_root_is_refused_before_the_token_is_sent() {
    let world = World::start().await;
    let grant = world.pending(plan::AMIRA, scope()).await;
    let url = world.enrollment_url(grant.id).await;
    let (rest, pin) = url.split_once("#sha256=").unwrap();
    let wrong: String = pin.chars().rev().collect();
    let home = Home::start().await;
    let failure = home
        .add_peer(&format!("{rest}#sha256={wrong}"), "amira", "work")
        .await
        .unwrap_err();
    assert_eq!(failure.code, AdminCode::Forbidden, "{failure:?}");
    assert!(home.control().list_peers().await.unwrap().is_empty());
    // Without a pin there is nothing to trust.
    let failure = home.add_peer(rest, "amira", "work").await.unwrap_err();
    assert_eq!(failure.code, AdminCode::InvalidRequest, "{failure:?}");
    assert_eq!(certificates(&world, grant.id).await, (0, 0));
    home.add_peer(&url, "amira", "work").await.unwrap();
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_parallel_redemptions_one_gets_a_certificate() {
    let world = World::start().await;
    for _ in 0..support::rounds(2, 50) {
        let (grant, ticket) = ticket(&world).await;
        let listener = world.enrollment();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let ticket = ticket.clone();
                tokio::spawn(async move {
                    let (_, csr) = request();
                    redeem(listener, ticket.pin, &ticket.token, &csr)
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            let response = task.await.unwrap();
            if response.status == 200 {
                won += 1;
            } else {
                check(&response, 410, Some("token_used"));
            }
        }
        assert_eq!(won, 1);
        assert_eq!(certificates(&world, grant).await, (1, 1));
    }
    world.stop().await;
}

/// What the store knows of a grant: its status, whether its token is spent, its certificates (leaf and state).
async fn kept(process: &Process, grant: GrantId) -> (String, bool, Vec<(Vec<u8>, String)>) {
    let config = process.config();
    // Nothing is changed by it but what it counts.
    let spent = "UPDATE enrollment_tokens SET used_at = used_at WHERE grant_id = $1 AND used_at IS NOT NULL";
    let mut database = Database::open(&config).await;
    let spent = database
        .execute(spent, &[Bound::Text(&grant.to_string())])
        .await
        > 0;
    database.close().await;
    let now = UnixMillis(certs::Clock::unix_millis(&certs::SystemClock));
    let store = proxy::tier::open_store(&config, now).await.unwrap();
    let status = store.grant(grant).await.unwrap().grant.status;
    let certificates = store.list_certificates(grant).await.unwrap();
    let certificates = certificates
        .into_iter()
        .map(|one| (one.der, one.entry.state.as_str().to_owned()));
    (status.as_str().to_owned(), spent, certificates.collect())
}

/// Killed at any moment of an enrollment, everything is there or nothing: a grant in force with the one certificate that
/// was answered, if any was; or a grant that still waits, without a certificate, whose token is spent or as good as new.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_everything_or_nothing() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let count = support::rounds(20, 400);
    let mut tickets = Vec::new();
    for _ in 0..count {
        tickets.push(ticket(&world).await);
    }
    let root = world.root().clone();
    let mut process = Process::take_over(world, "info").await;
    let mut seen = BTreeMap::new();
    for (round, (grant, ticket)) in (0_u64..).zip(&tickets) {
        let (key, csr) = request();
        let asked = {
            let (listener, ticket, csr) = (process.enrollment, ticket.clone(), csr.clone());
            tokio::spawn(async move { redeem(listener, ticket.pin, &ticket.token, &csr).await })
        };
        // Spread over what an enrollment takes, with both ends.
        std::thread::sleep(Duration::from_micros(round * 1_300 % 26_000));
        process.kill();
        let early = asked.await.unwrap().ok();
        let (status, spent, certificates) = kept(&process, *grant).await;
        let what = format!("round {round}: {status}, spent {spent}, {early:?}");
        match status.as_str() {
            "active" => assert!(spent && certificates.len() == 1, "{what}"),
            "pending" => assert!(certificates.is_empty() && early.is_none(), "{what}"),
            _ => panic!("{what}"),
        }
        *seen.entry((status.clone(), spent)).or_insert(0) += 1;
        process.start_again();
        // A certificate that was given out is the one that is kept, and opens the grant.
        if let Some(early) = early {
            assert_eq!(early.status, 200, "{what}");
            let chain = early.json()["certChainPem"].as_str().unwrap().to_owned();
            let credential =
                certs::Credential::from_pem(chain.as_bytes(), key.to_pem().as_bytes()).unwrap();
            assert_eq!(credential.chain()[0].as_ref(), certificates[0].0, "{what}");
            assert_eq!(certificates[0].1, "active", "{what}");
            let minted = Minted::of(credential.chain().to_vec(), key);
            let mut client = Client::open(Wire::H1, process.federation, &minted, &root)
                .await
                .unwrap();
            let answer = client.post(&format!("{BASE}/list/tasks"), "{}").await;
            assert_eq!(answer.unwrap().status, 200, "{what}");
        }
        // The token works if it was not spent, and never twice.
        let (_, other) = request();
        let again = redeem(process.enrollment, ticket.pin, &ticket.token, &other)
            .await
            .unwrap();
        assert_eq!(again.status, if spent { 410 } else { 200 }, "{what}");
        let (status, spent_now, certificates) = kept(&process, *grant).await;
        assert!(spent_now, "{what}");
        let expected = usize::from(status == "active");
        assert_eq!(certificates.len(), expected, "{what}: now {status}");
    }
    println!("grants and tokens after kills: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_and_a_revoked_grant_withdraw_the_old_one() {
    let world = World::start().await;
    let (grant, old) = ticket(&world).await;
    let new = Ticket::of(&world.enrollment_url(grant).await);
    check(&redeemed(&world, &old).await, 410, Some("token_withdrawn"));
    world.revoke(grant).await;
    let response = redeemed(&world, &new).await;
    assert_eq!(response.status, 410, "{}", response.text());
    assert_eq!(certificates(&world, grant).await, (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_token_revokes_the_certificate_before_it() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let (grant, first) = ticket(&world).await;
    let enroll = async |ticket: &Ticket| {
        let (key, csr) = request();
        let answer = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let chain = answer.json()["certChainPem"].as_str().unwrap().to_owned();
        let credential =
            certs::Credential::from_pem(chain.as_bytes(), key.to_pem().as_bytes()).unwrap();
        let clock = std::sync::Arc::new(certs::SystemClock);
        certs::tls::peer_client_config(&credential, world.ca.anchors(1).into(), clock).unwrap()
    };
    let ask = async |config| -> Option<u16> {
        let shape = Shape::of(Wire::H1);
        let mut connection = Connection::open(world.federation(), &config, shape)
            .await
            .ok()?;
        let answer = connection.list("tasks", &json!({})).await.ok()?;
        Some(answer.head.status)
    };
    let old = enroll(&first).await;
    assert_eq!(ask(old.clone()).await, Some(200));
    let replaced = world.replace_token(grant).await;
    assert_eq!(replaced.revoked_certificates, 1);
    assert_eq!(ask(old.clone()).await, None, "refused at the handshake");
    let new = enroll(&Ticket::of(&replaced.url)).await;
    assert_eq!(ask(new).await, Some(200));
    assert_eq!(ask(old).await, None);
    assert_eq!(certificates(&world, grant).await, (2, 1));
    world.stop().await;
}
