//! The policy is reloaded over and over while peers ask: nobody whom a reload does not touch notices, and nobody sees half of one.
//!
//! Invariant: what counts as a failure is said in `support/asking.rs`. Which rules an answer was made by is seen in its number of rows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use certs::{Clock as _, SystemClock};
use reference_gateway::plan;
use support::acts::amira;
use support::asking::{Ledger, peer};
use support::enlist::{credentials, enlist};
use support::onboard::whole_scope;
use tests::world::POLICY;
use tests::{Response, Wire, World};

/// Rows that the touched peer may see under one policy and under the other.
const ROWS: [usize; 2] = [3, 7];

/// For more rows than either.
const QUESTION: &str = r#"{"params":{"limit":20}}"#;

fn policy(rows: usize) -> String {
    format!("{POLICY}\n[peers.touched]\nmax_rows_per_query = {rows}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_half_of_a_reload_and_others_see_none() {
    let reloads = support::rounds(40, 1_000);
    let world = World::builder()
        .policy(&policy(ROWS[0]))
        .lease("duration_ms = 200")
        .start()
        .await;
    let scope = || whole_scope(plan::AMIRA);
    let touched = enlist(&world, "touched", &amira(), scope()).await;
    let other = enlist(&world, "other", &amira(), scope()).await;
    let (ledger, cut) = (Arc::new(Ledger::default()), Arc::new(Ledger::default()));
    // By the revision of an answer: how many rows there were under it.
    let shapes: Arc<Mutex<BTreeMap<String, BTreeSet<usize>>>> = Arc::default();
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let revision = |answer: &Response| answer.header("x-mosaic-revision").unwrap().to_owned();
    let address = world.federation();
    let mut asking = Vec::new();
    for wire in Wire::BOTH.into_iter().cycle().take(6) {
        let (config, kept) = (credentials(&world, &other), Arc::clone(&seen));
        let look = move |answer: &Response| {
            kept.lock().unwrap().insert(revision(answer));
        };
        let to = Arc::clone(&ledger);
        let asked = peer(address, config, (wire, QUESTION), to, look);
        asking.push(tokio::spawn(asked));
    }
    for wire in Wire::BOTH {
        let (config, kept) = (credentials(&world, &touched), Arc::clone(&shapes));
        let look = move |answer: &Response| {
            let rows = answer.items().len();
            kept.lock()
                .unwrap()
                .entry(revision(answer))
                .or_default()
                .insert(rows);
        };
        let to = Arc::clone(&cut);
        let asked = peer(address, config, (wire, QUESTION), to, look);
        asking.push(tokio::spawn(asked));
    }
    ledger.more(50).await;
    let began = SystemClock.boot_nanos();
    for round in 1..=reloads {
        world
            .reload_policy(&policy(ROWS[usize::from(round % 2 == 1)]))
            .await;
        // One that is planned anew for each of many reloads is refused in the end.
        ledger.more(5).await;
    }
    let took = SystemClock.boot_nanos() - began;
    ledger.more(50).await;
    for one in [&ledger, &cut] {
        one.stop.store(true, Ordering::SeqCst);
    }
    for task in asking {
        task.await.unwrap();
    }
    assert_eq!(*ledger.failures.lock().unwrap(), Vec::<String>::new());
    assert_eq!(
        seen.lock().unwrap().len(),
        1,
        "nothing changed for the other grant"
    );
    let shapes = shapes.lock().unwrap().clone();
    // The same rules have the same revision.
    let rows: BTreeSet<usize> = shapes.values().flatten().copied().collect();
    assert!(shapes.values().all(|rows| rows.len() == 1), "{shapes:?}");
    assert_eq!(rows, BTreeSet::from(ROWS), "{shapes:?}");
    let answers = ledger.answers.load(Ordering::SeqCst);
    println!(
        "{reloads} reloads in {} ms, {answers} answers to the other grant, none failed; {} to the touched one, {} cut off",
        took / 1_000_000,
        cut.answers.load(Ordering::SeqCst),
        cut.failures.lock().unwrap().len()
    );
    world.stop().await;
}
