//! How much may be asked: rates of grants, requests of a peer at once, and what a source address may try (specification,
//! section 7), over real sockets.
//!
//! Invariant: where waiting matters the sidecar's clock moves only when told to, so no test depends on the speed of the
//! machine; the one that measures says by how much it may be off. The laws of a bucket are with the bucket
//! (`proxy/src/limit/gcra.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use certs::testing::Mint;
use policy::deny::DenyCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::enroll::{request, ticket};
use tests::{Client, Denial, Holder, RawConnection, Response, Wire, World, WorldBuilder, tls};
use tokio::io::AsyncReadExt;

const LIST: &str = "/api/federation/v1/list/tasks";
const CAPABILITIES: &str = "/api/federation/v1/capabilities";
const RATE: Denial = Denial::new(429, "rate_limited", DenyCode::RateExceeded);

/// A policy in which every grant has this rate.
fn policy(per_minute: u32, burst: u32) -> String {
    format!(
        "schema = 1\n[ceiling]\nresources = [\"tasks\", \"notes\"]\n\
         rate_limit = {{ per_minute = {per_minute}, burst = {burst} }}\n"
    )
}

/// A world whose limits of grants go by the clock of the test; `None` when there can be none here, which is said.
async fn by_hand(policy: &str) -> Option<World> {
    if let Some(why) = tests::valkey::missing() {
        support::skipped("rates of grants by the clock of a test", &why);
        return None;
    }
    let builder = World::builder().policy(policy);
    Some(builder.manual_limits().start().await)
}

async fn world(per_minute: u32, burst: u32) -> Option<World> {
    by_hand(&policy(per_minute, burst)).await
}

async fn holder(world: &World) -> Holder {
    world
        .holder(plan::AMIRA, json!({"resources": ["tasks"]}))
        .await
}

/// Moves the clock, and gives a new connection: the sidecar resets one in the middle of whose last write the time jumped.
async fn later(world: &World, holder: &Holder, millis: u64) -> Client {
    world.pass(Duration::from_millis(millis)).await;
    world.client(Wire::H1, &holder.minted).await
}

async fn ask(client: &mut Client) -> Response {
    client.post(LIST, "{}").await.unwrap()
}

fn retry_after(response: &Response) -> u64 {
    let text = response.header("retry-after").expect("Retry-After");
    let seconds = text.parse().expect("whole seconds");
    assert!(seconds > 0);
    seconds
}

fn rate_fields(response: &Response) -> (&str, &str) {
    (
        response
            .header("ratelimit-policy")
            .expect("RateLimit-Policy"),
        response.header("ratelimit").expect("RateLimit"),
    )
}

// Rates of grants.

/// What a request says besides its question is heeded only once the request is let in: else whoever is over the limit could
/// keep the one writer of the store busy.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_a_request_over_the_limit_is_not_written_down() {
    let Some(world) = world(60, 1).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(ask(&mut client).await.status, 200);
    let says = [("x-mosaic-trust-generation", "1")];
    let known = async || {
        let store = &world.control().store;
        store.trust_acknowledgements().await.unwrap().len()
    };
    for _ in 0..3 {
        let mut another = world.client(Wire::H1, &holder.minted).await;
        let refused = another.post_with(LIST, &says, "{}").await.unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
    }
    assert_eq!(known().await, 0);
    let mut client = later(&world, &holder, 1_000).await;
    let answer = client.post_with(LIST, &says, "{}").await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(known().await, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_exceeded() {
    for wire in Wire::BOTH {
        let Some(world) = world(60, 3).await else {
            return;
        };
        let holder = holder(&world).await;
        let mut client = world.client(wire, &holder.minted).await;
        for left in [2, 1, 0] {
            let answer = ask(&mut client).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let (policy, limit) = rate_fields(&answer);
            assert_eq!(policy, "\"grant\";q=3;w=3");
            assert_eq!(limit, format!("\"grant\";r={left};t={}", 3 - left));
            assert_eq!(answer.header("retry-after"), None);
        }
        // On the same connection, which stays.
        for _ in 0..3 {
            let refused = ask(&mut client).await;
            let row = RATE.check(&world, &refused).await;
            assert_eq!(row["verb"], "list");
            assert_eq!(row["resource"], "tasks");
            assert_eq!(row["grant_id"], holder.grant.to_string());
            assert_eq!(retry_after(&refused), 1);
            assert_eq!(rate_fields(&refused).1, "\"grant\";r=0;t=3");
        }
        let mut client = later(&world, &holder, 999).await;
        assert_eq!(ask(&mut client).await.status, 429);
        let mut client = later(&world, &holder, 1).await;
        assert_eq!(ask(&mut client).await.status, 200);
        assert_eq!(ask(&mut client).await.status, 429);
        world.stop().await;
    }
}

/// Whatever came before, the time in Retry-After is enough, and less than a second more than needed.
#[tokio::test(flavor = "multi_thread")]
async fn the_wait_told_is_enough_and_not_too_long() {
    for (per_minute, burst) in [(7, 2), (60, 1), (45, 5), (600, 3)] {
        let Some(world) = world(per_minute, burst).await else {
            return;
        };
        let holder = holder(&world).await;
        let mut client = world.client(Wire::H1, &holder.minted).await;
        for round in 0..12 {
            let mut refused = ask(&mut client).await;
            while refused.status == 200 {
                refused = ask(&mut client).await;
            }
            RATE.check_response(&refused);
            let told = retry_after(&refused) * 1000;
            // Up to a second before that it is still refused, when more than a second was told.
            if told > 1000 {
                client = later(&world, &holder, told - 1000).await;
                assert_eq!(ask(&mut client).await.status, 429, "{per_minute} {burst}");
            }
            client = later(&world, &holder, told.min(1000)).await;
            assert_eq!(ask(&mut client).await.status, 200, "{per_minute} {burst}");
            client = later(&world, &holder, 137 * round).await;
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_counts_but_not_a_429() {
    let Some(world) = world(1, 6).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    let asked = [
        (LIST, "{}", 200),
        (LIST, "{\"nope\": 1}", 400),
        ("/api/federation/v1/list/memory", "{}", 403),
        ("/api/federation/v1/get/tasks/none", "{}", 404),
        (LIST, "not json", 400),
        ("/nothing", "{}", 404),
    ];
    for (left, (path, body, status)) in (0..6).rev().zip(asked) {
        let answer = client.post(path, body).await.unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(
            rate_fields(&answer)
                .1
                .starts_with(&format!("\"grant\";r={left};"))
        );
    }
    // The body of the last one was not read, so its connection is over.
    let mut client = world.client(Wire::H1, &holder.minted).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut client).await.status, 429);
    }
    let mut client = later(&world, &holder, 60_000).await;
    assert_eq!(ask(&mut client).await.status, 200);
    assert_eq!(ask(&mut client).await.status, 429);
    world.stop().await;
}

/// The order is identity, rate, shape of the request: without room nothing of a request is judged.
#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_before_the_shape_and_behind_the_identity() {
    let Some(world) = world(1, 1).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(ask(&mut client).await.status, 200);
    for (path, body) in [
        ("/nothing", "{}"),
        (LIST, "not json"),
        ("/api/federation/v1/list/memory", "{}"),
        ("/api/federation/v1/get/tasks/none", "{}"),
    ] {
        let refused = client.post(path, body).await.unwrap();
        RATE.check(&world, &refused).await;
    }
    // A request that can be read in two ways is refused for the rate too, and ends the connection.
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let mut raw = RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    let head = format!(
        "POST {LIST} HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    raw.send(head).await.unwrap();
    RATE.check(&world, &raw.response().await.unwrap()).await;
    let (left, _) = raw.end().await;
    assert!(left.is_empty(), "the connection ended");
    // Who may not ask at all is told so.
    let stranger = world
        .mint(uuid::Uuid::new_v4(), holder.subject)
        .sign_with(&world.ca);
    let answer = world.ask(&stranger, "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("ratelimit"), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_grants_of_one_peer_do_not_share() {
    let Some(world) = world(1, 2).await else {
        return;
    };
    let one = holder(&world).await;
    let other = world
        .holder(plan::BEN, json!({"resources": ["tasks"]}))
        .await;
    let mut first = world.client(Wire::H2, &one.minted).await;
    let mut second = world.client(Wire::H2, &other.minted).await;
    for status in [200, 200, 429, 429] {
        assert_eq!(ask(&mut first).await.status, status);
    }
    for status in [200, 200, 429] {
        assert_eq!(ask(&mut second).await.status, status);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_grant_share() {
    let Some(world) = world(1, 3).await else {
        return;
    };
    let holder = holder(&world).await;
    for status in [200, 200, 200, 429] {
        let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        assert_eq!(answer.status, status);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_lowers_and_never_raises() {
    let Some(world) = world(60, 4).await else {
        return;
    };
    let table = [
        (plan::AMIRA, json!({"burst": 2}), "\"grant\";q=2;w=2"),
        (plan::BEN, json!({"per_minute": 30}), "\"grant\";q=4;w=8"),
        (
            plan::CHLOE,
            json!({"per_minute": 6000, "burst": 4000}),
            "\"grant\";q=4;w=4",
        ),
    ];
    for (user, rate, told) in table {
        let scope = json!({"resources": ["tasks"], "rate_limit": rate});
        let holder = world.holder(user, scope).await;
        let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        assert_eq!(rate_fields(&answer).0, told);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_rule_the_rate_is_the_default() {
    let policy = "schema = 1\n[ceiling]\nresources = [\"tasks\"]\n";
    let Some(world) = by_hand(policy).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    let answer = client.post(CAPABILITIES, "{}").await.unwrap();
    let told = json!({"per_minute": 120, "burst": 30});
    assert_eq!(answer.json()["rate_limit"], told);
    for left in (0..30).rev() {
        let answer = ask(&mut client).await;
        assert_eq!(answer.status, 200);
        let (policy, limit) = rate_fields(&answer);
        assert_eq!(policy, "\"grant\";q=30;w=15");
        assert!(
            limit.starts_with(&format!("\"grant\";r={left};")),
            "{limit}"
        );
    }
    assert_eq!(retry_after(&ask(&mut client).await), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_a_lease_has_room_of_its_own() {
    let Some(world) = world(1, 1).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    let lease = u64::try_from(world.config.lease.duration.as_millis()).unwrap();
    assert_eq!(ask(&mut client).await.status, 200);
    assert_eq!(ask(&mut client).await.status, 429);
    for _ in 0..3 {
        // Two for each lease, then the grant's own, of which nothing is left.
        for status in [200, 200, 429] {
            let answer = client.post(CAPABILITIES, "{}").await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!(rate_fields(&answer).0, "\"grant\";q=1;w=60");
        }
        // A lease of the harness is shorter than the default.
        client = later(&world, &holder, lease).await;
    }
    client = later(&world, &holder, 60_000 - 3 * lease).await;
    assert_eq!(
        ask(&mut client).await.status,
        200,
        "it took nothing of the other"
    );
    // With room in both, the lease's is taken first.
    client = later(&world, &holder, 60_000).await;
    let answer = client.post(CAPABILITIES, "{}").await.unwrap();
    assert_eq!(rate_fields(&answer).1, "\"grant\";r=1;t=0");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_rate_of_connections_that_stand() {
    let Some(world) = world(1, 1).await else {
        return;
    };
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(ask(&mut client).await.status, 200);
    // Leases from before the start are over, so that the reload need not wait.
    let mut client = later(&world, &holder, 1_000).await;
    assert_eq!(retry_after(&ask(&mut client).await), 59);
    world.reload_policy(&policy(60, 1)).await;
    // What was owed before is at most one empty bucket of the new size; the connection stayed.
    assert_eq!(retry_after(&ask(&mut client).await), 1);
    let mut client = later(&world, &holder, 1_000).await;
    assert_eq!(ask(&mut client).await.status, 200);
    world.stop().await;
}

// Requests of a peer at once.

async fn until_asked(world: &World, users: usize) {
    let look = async {
        while world.gateway.requests().await.len() < users {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .expect("the gateway is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_exceeded() {
    // Each process counts what it has under way itself.
    let world = World::builder()
        .alone()
        .settings("[limits]\npeer_concurrency = 2\n")
        .gateway("read_timeout_ms = 5000")
        .start()
        .await;
    let scope = || json!({"resources": ["tasks"]});
    let amira = world.holder(plan::AMIRA, scope()).await;
    let ben = world.holder(plan::BEN, scope()).await;
    let other = world.holder_of("elsewhere", plan::CHLOE, scope()).await;
    world
        .gateway
        .behave(&json!({"over_share": ["facts_hang"]}))
        .await;
    let mut waiting = Vec::new();
    for (asked, holder) in [&amira, &ben].into_iter().enumerate() {
        let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
        let mut raw = RawConnection::open(world.federation(), config)
            .await
            .unwrap();
        raw.post(LIST, "{}").await.unwrap();
        until_asked(&world, asked + 1).await;
        waiting.push(raw);
    }
    let denial = Denial::new(429, "rate_limited", DenyCode::ConcurrencyExceeded);
    for wire in Wire::BOTH {
        let refused = world
            .ask_on(wire, &amira.minted, "/list/tasks", &json!({}))
            .await;
        denial.check(&world, &refused).await;
        assert_eq!(retry_after(&refused), 1);
    }
    // Another peer is not touched: its question reaches the gateway.
    let config = tls::client(Some(&other.minted), world.root(), &["http/1.1"]);
    let mut raw = RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    raw.post(LIST, "{}").await.unwrap();
    until_asked(&world, 3).await;
    // Callers that hang up give their place back.
    drop(waiting);
    world.gateway.behave_honestly().await;
    let again = async {
        loop {
            let answer = world.ask(&amira.minted, "/capabilities", &json!({})).await;
            if answer.status == 200 {
                return;
            }
            denial.check_response(&answer);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("the places are free again");
    world.stop().await;
}

// Source addresses.

const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Whether a connection from here with a good certificate is served.
async fn served(world: &World, holder: &Holder) -> bool {
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let Ok(mut raw) = RawConnection::open(world.federation(), config).await else {
        return false;
    };
    raw.post(CAPABILITIES, "{}").await.unwrap();
    assert_eq!(raw.response().await.unwrap().status, 200);
    true
}

async fn served_from(world: &World, source: IpAddr, holder: &Holder) -> bool {
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let Ok(stream) = tls::connect_from(source, world.federation(), config).await else {
        return false;
    };
    let mut raw = RawConnection::over(stream);
    raw.post(CAPABILITIES, "{}").await.unwrap();
    assert_eq!(raw.response().await.unwrap().status, 200);
    true
}

async fn limited(lines: &str) -> (World, Holder) {
    // Each process looks after the addresses that it is reached from; behind a balancer they are those of the balancer.
    let builder: WorldBuilder = World::builder().settings(&format!("[limits]\n{lines}"));
    let world = builder.alone().manual_clock().start().await;
    let holder = holder(&world).await;
    (world, holder)
}

/// Waits until a handshake has ended so: the alert arrives before it is counted.
async fn until_counted(world: &World, result: &str) {
    let line = format!("mosaic_federation_handshakes_total{{result=\"{result}\"}} 1\n");
    let look = async {
        while !String::from_utf8_lossy(&world.sidecar.metrics.render().unwrap()).contains(&line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look)
        .await
        .unwrap_or_else(|_| panic!("{line}"));
}

/// A counter of refused connections.
fn refused(world: &World, labels: &str) -> u64 {
    let text = String::from_utf8(world.sidecar.metrics.render().unwrap()).unwrap();
    let name = format!("mosaic_federation_connections_refused_total{{{labels}}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_one_address_are_limited() {
    let (world, holder) = limited("handshakes_per_minute = 60\nhandshake_burst = 3\n").await;
    for _ in 0..3 {
        assert!(served(&world, &holder).await);
    }
    for _ in 0..3 {
        // Closed without a byte of TLS.
        let mut socket = tokio::net::TcpStream::connect(world.federation())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let read = socket.read_to_end(&mut bytes).await;
        assert!(read.is_err() || bytes.is_empty(), "{bytes:?}");
        assert!(!served(&world, &holder).await);
    }
    let labels = "limit=\"handshakes\",listener=\"federation\"";
    assert_eq!(refused(&world, labels), 6);
    assert!(
        served_from(&world, ELSEWHERE, &holder).await,
        "another address is let in"
    );
    world.clock().advance(Duration::from_secs(1));
    assert!(served(&world, &holder).await);
    assert!(!served(&world, &holder).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_authentications_of_one_address_are_limited() {
    let settings = "failed_authentications_per_minute = 6\nfailed_authentication_burst = 4\n";
    let (world, holder) = limited(settings).await;
    // Two at the handshake: without a certificate, and with one of another authority.
    let bare = tls::client(None, world.root(), &["http/1.1"]);
    tls::refusal(world.federation(), bare).await;
    let foreign = certs::testing::TestCa::root("elsewhere");
    let minted = Mint::client(holder.grant.uuid(), holder.subject).sign_with(&foreign);
    let config = tls::client(Some(&minted), world.root(), &["http/1.1"]);
    tls::refusal(world.federation(), config).await;
    for result in ["no_certificate", "unknown_issuer"] {
        until_counted(&world, result).await;
    }
    // Two behind it: a grant that does not exist.
    for _ in 0..2 {
        assert!(
            served(&world, &holder).await,
            "what succeeds does not count"
        );
        let unknown = Mint::client(uuid::Uuid::new_v4(), holder.subject).sign_with(&world.ca);
        let answer = world.ask(&unknown, "/list/tasks", &json!({})).await;
        assert_eq!(answer.status, 403);
    }
    for _ in 0..3 {
        assert!(!served(&world, &holder).await);
    }
    let labels = "limit=\"failed_authentications\",listener=\"federation\"";
    assert_eq!(refused(&world, labels), 3);
    assert!(
        served_from(&world, ELSEWHERE, &holder).await,
        "another address is let in"
    );
    world.clock().advance(Duration::from_secs(10));
    assert!(served(&world, &holder).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_tokens_from_one_address_are_limited() {
    let settings = "failed_authentications_per_minute = 6\nfailed_authentication_burst = 3\n";
    let (world, _) = limited(settings).await;
    let (_, ticket) = ticket(&world).await;
    let (_, csr) = request();
    let config = || {
        let clock = std::sync::Arc::new(certs::SystemClock);
        certs::tls::pinned_client_config(ticket.pin, clock).unwrap()
    };
    let mut guessing = RawConnection::open(world.enrollment(), config())
        .await
        .unwrap();
    let body = json!({ "csrPem": csr }).to_string();
    let path = |token: &str| format!("/api/federation/enrollment/{token}");
    for _ in 0..3 {
        guessing.post(&path(&"0".repeat(64)), &body).await.unwrap();
        assert_eq!(guessing.response().await.unwrap().status, 404);
    }
    // On the same connection, and with a token that is good.
    guessing.post(&path(&ticket.token), &body).await.unwrap();
    let answer = guessing.response().await.unwrap();
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.code(), "rate_limited");
    assert_eq!(answer.reason().as_deref(), Some("failed_authentications"));
    assert_eq!(retry_after(&answer), 10);
    let refused = RawConnection::open(world.enrollment(), config()).await;
    assert!(refused.is_err());
    // From elsewhere the token is as good as before.
    let stream = tls::connect_from(ELSEWHERE, world.enrollment(), config())
        .await
        .unwrap();
    let mut elsewhere = RawConnection::over(stream);
    elsewhere.post(&path(&ticket.token), &body).await.unwrap();
    assert_eq!(elsewhere.response().await.unwrap().status, 200);
    world.clock().advance(Duration::from_secs(10));
    assert!(
        RawConnection::open(world.enrollment(), config())
            .await
            .is_ok()
    );
    world.stop().await;
}

// AC-6, by the system's clock.

/// What a run at four times the allowed rate came to.
#[derive(Debug, Default)]
struct Run {
    accepted: u32,
    refused: u32,
    /// What a token bucket lets through of the very questions that were sent, each taken halfway between its sending and
    /// its answer. A machine too busy to send them as planned does not distort it.
    due: u32,
}

async fn flood(client: &mut Client, interval: Duration, burst: u32, span: Duration) -> Run {
    let mut run = Run::default();
    let mut ticks = tokio::time::interval(interval / 4);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (start, size) = (Instant::now(), f64::from(burst));
    let (mut tokens, mut filled) = (size, Duration::ZERO);
    while start.elapsed() < span {
        ticks.tick().await;
        let sent = start.elapsed();
        let answer = ask(client).await;
        let at = (sent + start.elapsed()) / 2;
        tokens = size.min(tokens + (at - filled).as_secs_f64() / interval.as_secs_f64());
        filled = at;
        if tokens >= 1.0 {
            tokens -= 1.0;
            run.due += 1;
        }
        match answer.status {
            200 => run.accepted += 1,
            429 => {
                RATE.check_response(&answer);
                // One more is due within half a second, so that one second is all that may be told.
                assert_eq!(retry_after(&answer), 1);
                run.refused += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    run
}

/// In a shortened form unless the full counts are asked for: 60 s of the default rate.
#[tokio::test(flavor = "multi_thread")]
async fn at_four_times_the_rate_what_is_accepted_is_what_is_allowed() {
    let (per_minute, burst, span) = if support::is_soak() {
        (120, 30, Duration::from_secs(60))
    } else {
        (1200, 30, Duration::from_secs(15))
    };
    let policy = policy(per_minute, burst);
    let world = World::builder().policy(&policy).start().await;
    let holder = holder(&world).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    let interval = Duration::from_secs(60) / per_minute;
    let run = flood(&mut client, interval, burst, span).await;
    let (accepted, due) = (f64::from(run.accepted), f64::from(run.due));
    assert!((accepted - due).abs() <= 0.02 * due + 1.0, "{run:?}");
    assert!(run.refused > run.accepted / 2, "that was no flood: {run:?}");
    // And each who waits as told is let in.
    for _ in 0..3 {
        let mut refused = ask(&mut client).await;
        while refused.status == 200 {
            refused = ask(&mut client).await;
        }
        tokio::time::sleep(Duration::from_secs(retry_after(&refused))).await;
        assert_eq!(ask(&mut client).await.status, 200);
    }
    let row: Value =
        tests::audit::audit_row(world.control(), ask(&mut client).await.request_id()).await;
    assert_eq!(row["grant_id"], holder.grant.to_string());
    world.stop().await;
}
