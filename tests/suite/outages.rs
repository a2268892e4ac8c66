//! A server that replicas rely on is gone while they are asked: what is answered meanwhile, how fast, and what is left of it afterwards.
//!
//! Clients ask at a steady rate all the time. On PostgreSQL only: a sidecar on SQLite relies on no server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "outages/clients.rs"]
mod clients;
#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "replicas/side.rs"]
mod side;
mod support;
#[path = "outages/valkey.rs"]
mod valkey;

use std::collections::BTreeMap;
use std::time::Duration;

use clients::{Asked, Clients, known, now};
use proxy::admin::AuditQuery;
use proxy::audit::QUERY_LIMIT_MAX;
use side::Side;
use support::acts::member;
use support::reader::PATIENCE;
use support::skipped;
use tests::{Holder, World};

/// How long a replica serves without having heard of the store.
const FENCE: Duration = Duration::from_millis(1_000);
const LEASE: u64 = 200;
/// Clients of the grant that stays.
const KEEPS: usize = 3;
/// Why nothing is shown in a world of its own.
const ON_SQLITE: &str = "the store is SQLite; it runs with MOSAIC_TEST_STORE=postgres";
/// Between the moment that a test knows and the one that a process goes by.
const SLACK: Duration = Duration::from_millis(1_000);

async fn world() -> World {
    let fence = FENCE.as_millis();
    World::builder()
        .lease(&format!("duration_ms = {LEASE}"))
        .settings(&format!(
            "[replicas]\nfence_ms = {fence}\nname = \"first\"\n"
        ))
        .start()
        .await
}

/// How often each request of a grant is in the log.
async fn rows(world: &World, holder: &Holder) -> BTreeMap<String, u32> {
    let query = AuditQuery {
        grant: Some(holder.grant.to_string()),
        direction: Some("inbound".to_owned()),
        limit: Some(QUERY_LIMIT_MAX),
        ..AuditQuery::default()
    };
    let page = world.control().query_audit(query).await.unwrap();
    assert!(page.len() < usize::try_from(QUERY_LIMIT_MAX).unwrap());
    let mut found = BTreeMap::new();
    for id in page.iter().filter_map(|row| row["request_id"].as_str()) {
        *found.entry(id.to_owned()).or_default() += 1;
    }
    found
}

/// Waits until each of these has exactly one row.
async fn one_row_each(world: &World, holder: &Holder, asked: &[Asked]) {
    let began = now();
    loop {
        let rows = rows(world, holder).await;
        let several: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
        assert!(several.is_empty(), "{several:?}");
        let missing = asked.iter().filter(|asked| !rows.contains_key(&asked.id));
        let missing: Vec<&Asked> = missing.collect();
        if missing.is_empty() {
            return;
        }
        let few = &missing[..missing.len().min(3)];
        assert!(now() - began < PATIENCE, "{}: {few:?}", missing.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_a_replica_serves_until_the_fence_and_comes_back_with_what_was_taken_away()
 {
    if !tests::database::is_postgres() {
        return skipped("an outage of the database", ON_SQLITE);
    }
    let outage = Duration::from_secs(u64::from(support::rounds(5, 60)));
    let world = world().await;
    let second = Side::start(&world, "second", &[]).await;
    let (kept, gone) = (member(&world, "kept").await, member(&world, "gone").await);
    let link = second.link.as_ref().unwrap();
    for holder in [&kept, &gone] {
        known(&world, holder, &[second.federation]).await;
    }
    let (keeps, goes) = (
        Clients::begin(&world, &kept, &[second.federation], KEEPS),
        Clients::begin(&world, &gone, &[second.federation], 1),
    );
    for clients in [&keeps, &goes] {
        clients
            .until("it answers", |asked| asked.status == 200)
            .await;
    }

    link.cut();
    let cut = now();
    keeps
        .until("it is refused", |asked| asked.status == 503)
        .await;
    // Another replica takes it away meanwhile.
    world.revoke(gone.grant).await;
    let revoked = now();
    tokio::time::sleep(outage / 2).await;
    link.close();
    tokio::time::sleep(outage / 2).await;
    link.heal();
    let healed = now();
    keeps
        .until("it answers again", |asked| {
            asked.at > healed && asked.status == 200
        })
        .await;
    let back = now() - healed;
    goes.until("it is refused for good", |asked| {
        asked.at > healed && asked.status == 403
    })
    .await;
    let (keeps, goes) = (keeps.end().await, goes.end().await);

    let served = |asked: &&Asked| asked.at > cut && asked.at < healed && asked.status == 200;
    let last = keeps
        .iter()
        .filter(served)
        .map(|asked| asked.at - cut)
        .max();
    // What was under way and what came until then was served.
    assert!(last.is_some_and(|last| last <= FENCE + SLACK), "{last:?}");
    let before = keeps.iter().filter(|asked| asked.at < cut);
    assert!(
        before.clone().all(|asked| asked.status == 200),
        "{before:?}"
    );
    let (mut fenced, mut cut_off) = (0, Vec::new());
    for asked in &keeps {
        match (asked.status, asked.reason.as_str()) {
            (200, _) => {}
            (503, "replica_fenced") => fenced += 1,
            // Under way at the bound: an answer is not ended behind it.
            (0, _) => cut_off.push(asked.clone()),
            _ => panic!("{asked:?}"),
        }
    }
    let at_the_bound = |asked: &Asked| asked.at > cut && asked.at - cut <= FENCE + SLACK;
    assert!(
        cut_off.len() <= KEEPS && cut_off.iter().all(at_the_bound),
        "{cut_off:?}"
    );
    // Nothing is answered under the grant once the act has returned, on this replica either.
    let stale = goes
        .iter()
        .find(|asked| asked.at > revoked && asked.status == 200);
    assert!(stale.is_none(), "{stale:?}");
    let slowest = keeps.iter().map(|asked| asked.took).max().unwrap();
    println!(
        "{} answers, {fenced} of them refused, {} cut off at the bound; the last of the outage after {last:?}, back {back:?} after it, the slowest took {slowest:?}",
        keeps.len(),
        cut_off.len(),
    );
    assert!(slowest < FENCE + 3 * SLACK, "{slowest:?}");
    for (holder, asked) in [(&kept, keeps), (&gone, goes)] {
        let told = asked.into_iter().filter(|asked| !asked.id.is_empty());
        one_row_each(&world, holder, &told.collect::<Vec<_>>()).await;
    }
    assert!(second.stop().await);
    world.stop().await;
}
