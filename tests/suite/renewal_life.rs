//! An hour in the life of a certificate of five minutes, under steady requests, with none failed.
//!
//! The clock of both sides is the test's and moves in small steps, many times faster than the day.
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
use proxy::admin::AuditQuery;
use reference_gateway::plan;
use serde_json::json;
use support::onboard::{keys, onboard, truth};
use tests::{Home, World};

/// A step of the clock: below the shortest pause that cuts a write off.
const STEP: Duration = Duration::from_millis(250);
const HOUR: Duration = Duration::from_secs(3_600);
/// Sessions that ask one question after another.
const SESSIONS: usize = 3;
/// Deadlines are counted on the same clock: a minute of it is less than a second here.
const SETTINGS: &str = "[timeouts]\ntotal_ms = 600000\nfirst_byte_ms = 300000\n";

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
    let home = Home::start_set(dir, Arc::clone(&clock) as Arc<dyn Clock>, SETTINGS).await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let home = Arc::new(home);
    let (over, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
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
                    let body = json!({"params": {"limit": 1_000}});
                    let answer = home.ask(&session, "work", path, &body).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(keys(&answer), expected[turn % 2], "{path}");
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let began = clock.boot_nanos();
    let end = began + u64::try_from(HOUR.as_nanos()).unwrap();
    let outbound = home.control().outbound.as_ref().unwrap();
    let mut failed = Vec::new();
    let mut step = 0_u32;
    while clock.boot_nanos() < end && sessions.iter().all(|one| !one.is_finished()) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        clock.advance(STEP);
        step += 1;
        if step.is_multiple_of(4) {
            let renewed = outbound.renew_due().await;
            failed.extend(renewed.into_iter().filter(|(_, result)| result.is_err()));
        }
    }
    over.store(true, Ordering::SeqCst);
    for session in sessions {
        session.await.unwrap();
    }
    assert_eq!(failed, []);
    let asked = asked.load(Ordering::SeqCst);
    let query = AuditQuery {
        limit: Some(1_000),
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
    println!("{renewals} renewals, {asked} requests in an hour of the clock, none failed");
    assert!((17..=19).contains(&renewals), "{renewals}");
    assert!(asked > 1_000, "{asked}");
    let rows = world.control().query_audit(query).await.unwrap();
    assert!(
        rows.iter().all(|row| row["outcome"] != "denied"),
        "{rows:#?}"
    );
    Arc::into_inner(home).unwrap().stop().await;
    world.stop().await;
}
