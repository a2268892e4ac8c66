//! What a sidecar keeps when it is stopped, and when it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use certs::{Clock, SystemClock};
use policy::time::UnixMillis;
use proxy::audit::{AuditFilter, AuditLog};
use proxy::store::{SqliteOptions, SqliteStore};
use reference_gateway::plan;
use serde_json::json;
use support::enlist::enlist;
use support::onboard::{keys, onboard, truth, users, whole_scope};
use support::process::Process;
use support::stream::{Connection, Shape};
use tests::audit::{AUDIT_WITHIN, audit_row};
use tests::{Home, Wire, World};
use tokio::sync::Mutex;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_both_sides_keeps_everything() {
    let mut world = World::start().await;
    let holder = enlist(
        &world,
        "home",
        &users()[plan::AMIRA],
        whole_scope(plan::AMIRA),
    )
    .await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::BEN, "ben").await;
    let session = home.session("ben").await;
    let before = world
        .ask(
            &holder.minted,
            "/list/tasks",
            &json!({"params": {"limit": 5}}),
        )
        .await;
    let status = |world: &World| {
        let view = world.control().directory.view();
        (
            view.snapshot.revision(),
            view.policy.hash.clone(),
            view.snapshot.grants().count(),
        )
    };
    let known = status(&world);
    let dir = home.stop().await;
    let mut config = proxy::config::Config::clone(&world.config);
    config.federation.listen = world.federation();
    world.config = Arc::new(config);
    let world = world.restart().await;
    let home = Home::start_in(dir, Arc::new(SystemClock)).await;
    assert_eq!(status(&world), known);
    // A cursor and a revision of before still count.
    let cursor = before.cursor().unwrap();
    let question = json!({"params": {"limit": 5}, "cursor": cursor});
    let after = world.ask(&holder.minted, "/list/tasks", &question).await;
    assert_eq!(after.status, 200, "{}", after.text());
    assert_eq!(
        after.header("x-mosaic-revision"),
        before.header("x-mosaic-revision")
    );
    let expected = truth("tasks", plan::AMIRA);
    assert_eq!(keys(&before), expected[..5]);
    assert_eq!(keys(&after), expected[5..10]);
    let old = audit_row(world.control(), before.request_id()).await;
    assert_eq!(old["outcome"], "allowed");
    // Session, peer and credential are still known at home.
    let answer = home.ask(&session, "work", "/list/notes", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(keys(&answer), truth("notes", plan::BEN));
    let answer = home.ask("", "work", "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 401);
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_record_of_an_exchange_finished_a_second_before() {
    let world = World::start().await;
    let holder = enlist(
        &world,
        "home",
        &users()[plan::AMIRA],
        whole_scope(plan::AMIRA),
    )
    .await;
    let config = support::enlist::credentials(&world, &holder);
    let mut process = Process::take_over(world, "info").await;
    let finished: Arc<Mutex<Vec<(u64, String)>>> = Arc::default();
    let tasks: Vec<_> = Wire::BOTH
        .into_iter()
        .cycle()
        .take(4)
        .map(|wire| {
            let (config, finished) = (Arc::clone(&config), Arc::clone(&finished));
            let address = process.federation;
            tokio::spawn(async move {
                let shape = Shape::of(wire);
                let mut connection = Connection::open(address, &config, shape).await.unwrap();
                while let Ok(answer) = connection.list("tasks", &json!({})).await {
                    assert_eq!(answer.head.status, 200);
                    let id = answer.head.header("x-request-id").unwrap().to_owned();
                    finished.lock().await.push((SystemClock.boot_nanos(), id));
                }
            })
        })
        .collect();
    // Records are promised within a second, so the load must go on for longer than that.
    tokio::time::sleep(AUDIT_WITHIN * 2).await;
    process.kill();
    let killed = SystemClock.boot_nanos();
    for task in tasks {
        task.await.unwrap();
    }
    let path = process.data_dir().join("federation.db");
    let now = UnixMillis(SystemClock.unix_millis());
    let options = SqliteOptions::new(path, uuid::Uuid::new_v4(), now);
    let store = SqliteStore::open(&options).await.unwrap();
    let mut recorded = HashSet::new();
    let mut after = None;
    loop {
        let filter = AuditFilter {
            after,
            limit: 10_000,
            ..AuditFilter::default()
        };
        let rows = store.query_audit(&filter).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = Some(last.record.id);
        recorded.extend(
            rows.iter()
                .map(|row| row.record.request_id.as_str().to_owned()),
        );
    }
    let finished = finished.lock().await;
    assert!(finished.len() > 50, "{}", finished.len());
    let promised = u64::try_from(AUDIT_WITHIN.as_nanos()).unwrap();
    let (mut old, mut lost, mut youngest) = (0, 0, 0);
    for (at, id) in finished.iter() {
        let age = killed - at;
        let is_recorded = recorded.contains(id);
        assert!(
            is_recorded || age < promised,
            "{id}, {} ms before the kill",
            age / 1_000_000
        );
        old += u32::from(age >= promised);
        lost += u32::from(!is_recorded);
        youngest = if is_recorded {
            youngest
        } else {
            youngest.max(age)
        };
    }
    println!(
        "{} finished, {old} a second before the kill, {lost} not recorded, the oldest of them {} ms",
        finished.len(),
        youngest / 1_000_000
    );
    assert!(old > 0);
    drop(store);
    process.start_again();
    let mut connection = Connection::open(process.federation, &config, Shape::of(Wire::H1))
        .await
        .unwrap();
    let answer = connection.list("tasks", &json!({})).await.unwrap();
    assert_eq!(answer.head.status, 200);
}
