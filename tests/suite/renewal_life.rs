//! An hour in the life of a certificate of five minutes, under steady requests, with none failed (AC-5).
//!
//! The clock of both sides is the test's, and it is the requests that move it: a number of them makes a second. So the rate is
//! as steady as can be, whatever the machine gives: 200 requests in each second of the hour in a soak, which are 720,000,
//! and 4 otherwise, which are 14,400. How
//! fast the hour passes is the machine's; what happens in it is not. While a credential is renewed the clock stands, and
//! an answer is under way that began on the connection before: its gateway is slow until the renewal is over.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use certs::Clock;
use policy::time::UnixMillis;
use proxy::admin::AuditQuery;
use reference_gateway::plan;
use serde_json::json;
use support::onboard::{keys, onboard, truth};
use support::reader::PATIENCE;
use support::rounds;
use tests::{Home, World};

/// A step of the clock: below the shortest pause that cuts a write off.
const STEP: Duration = Duration::from_millis(250);
const STEPS_PER_SECOND: u64 = 4;
/// After so many steps the sidecars hear of their store, several times before they would serve nothing.
const HEARD: u64 = 40;
const HOUR: Duration = Duration::from_secs(3_600);
/// Sessions that ask one question after another.
const SESSIONS: usize = 2;
/// Deadlines are counted on the same clock.
const SETTINGS: &str = "[timeouts]\ntotal_ms = 600000\nfirst_byte_ms = 300000\n";

/// Requests in a second of the clock.
fn rate() -> u64 {
    rounds(4, 200).into()
}

async fn renews_at(home: &Home) -> UnixMillis {
    let peers = home.control().list_peers().await.unwrap();
    peers[0].credentials[0].renews_at.unwrap()
}

/// The serial number of the credential in use.
async fn newest(home: &Home) -> Option<String> {
    let peers = home.control().list_peers().await.unwrap();
    peers[0].credentials[0].serial.clone()
}

/// Renews while an answer is under way, if it is time to: what failed, and whether the answer outlived the renewal.
async fn renew_under_way(world: &World, home: &Arc<Home>, session: &str) -> (Vec<String>, bool) {
    let slow = json!({"over_share": ["slow"], "slow_bytes": 400, "slow_pause_ms": 20});
    world.gateway.forget_requests().await;
    world.gateway.behave(&slow).await;
    let (asking, token) = (Arc::clone(home), session.to_owned());
    let asked = tokio::spawn(async move {
        let body = json!({"params": {"limit": 1_000}});
        asking.ask(&token, "work", "/list/tasks", &body).await
    });
    let begun = async {
        loop {
            let requests = world.gateway.requests().await;
            let tasks = |request: &serde_json::Value| request["path"] == "/internal/v1/tasks";
            if requests.iter().any(tasks) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    let before = newest(home).await;
    let outbound = home.control().outbound.as_ref().unwrap();
    let renewed = outbound.renew_due().await;
    let failed = renewed
        .into_iter()
        .filter_map(|(_, result)| Some(format!("{:?}", result.err()?)))
        .collect();
    let outlived = !asked.is_finished() && newest(home).await != before;
    world.gateway.behave_honestly().await;
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(keys(&answer), truth("tasks", plan::AMIRA));
    (failed, outlived)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_five_minute_certificates_fails_no_request() {
    let world = World::builder()
        .manual_clock()
        .lease("duration_ms = 10000")
        .settings("[limits]\nclient_certificate_s = 300\n")
        .start()
        .await;
    let clock = world.shared_clock();
    let dir = tempfile::tempdir().unwrap();
    let home = Home::start_by_hand(dir, &clock, SETTINGS).await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let home = Arc::new(home);
    let (over, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new([const { AtomicU64::new(0) }; SESSIONS]),
    );
    let expected = Arc::new(["tasks", "notes"].map(|name| truth(name, plan::AMIRA)));
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let (home, session) = (Arc::clone(&home), session.clone());
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            let expected = Arc::clone(&expected);
            tokio::spawn(async move {
                let mut turn = number;
                while !over.load(Ordering::SeqCst) {
                    turn += 1;
                    let path = ["/list/tasks", "/list/notes"][turn % 2];
                    // Mostly a few rows, every now and then all of them.
                    let limit = if turn.is_multiple_of(16) { 1_000 } else { 3 };
                    let body = json!({"params": {"limit": limit}});
                    let answer = home.ask(&session, "work", path, &body).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let rows = &expected[turn % 2];
                    assert_eq!(keys(&answer), rows[..limit.min(rows.len())], "{path}");
                    asked[number].fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let began = clock.boot_nanos();
    let end = began + u64::try_from(HOUR.as_nanos()).unwrap();
    let (mut failed, mut outlived, mut step) = (Vec::new(), 0, 0_u64);
    let mut due = renews_at(&home).await;
    let counts = || asked.iter().map(|one| one.load(Ordering::SeqCst));
    let mut before: Vec<u64> = counts().collect();
    while clock.boot_nanos() < end && sessions.iter().all(|one| !one.is_finished()) {
        // The requests of this step have been answered, one of each session among them: no request sees the clock move twice, as
        // if the process had stood still.
        while (counts().sum::<u64>() * STEPS_PER_SECOND < (step + 1) * rate()
            || counts().zip(&before).any(|(now, before)| now == *before))
            && sessions.iter().all(|one| !one.is_finished())
        {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        before = counts().collect();
        clock.advance(STEP);
        if step.is_multiple_of(HEARD) {
            tests::world::hear(world.controls()).await;
            home.hear().await;
        }
        step += 1;
        if home.control().now() >= due {
            let (wrong, under_way) = renew_under_way(&world, &home, &session).await;
            failed.extend(wrong);
            outlived += usize::from(under_way);
            due = renews_at(&home).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    for session in sessions {
        session.await.unwrap();
    }
    assert!(failed.is_empty(), "{failed:?}");
    let asked: u64 = counts().sum();
    let query = AuditQuery {
        limit: Some(1_000),
        outcome: Some("denied".to_owned()),
        ..AuditQuery::default()
    };
    // Its own requests apart, the log of the asking side begins with the renewals.
    let credentials = home
        .control()
        .list_peers()
        .await
        .unwrap()
        .remove(0)
        .credentials;
    let serials: BTreeSet<_> = credentials.iter().map(|one| one.serial.clone()).collect();
    let renewals = serials.len() - 1;
    println!(
        "{renewals} renewals, {outlived} of them under an answer under way, {asked} requests in an hour of the clock, none failed"
    );
    assert!((17..=19).contains(&renewals), "{renewals}");
    assert!(outlived >= renewals - 2, "{outlived}");
    assert!(asked >= 3_600 * rate(), "{asked}");
    let denied = world.control().query_audit(query).await.unwrap();
    assert!(denied.is_empty(), "{denied:#?}");
    Arc::into_inner(home).unwrap().stop().await;
    world.stop().await;
}
