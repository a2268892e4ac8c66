//! What a sidecar keeps when it is stopped, and when it is killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "restart/self_attack.rs"]
mod self_attack;
mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certs::SystemClock;
use reference_gateway::plan;
use serde_json::json;
use support::enlist::enlist;
use support::log::Log;
use support::onboard::{keys, onboard, truth, users, whole_scope};
use support::process::Process;
use support::stream::{Connection, Shape};
use tests::audit::audit_row;
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
    world.keep_address();
    let world = world.restart().await;
    let home = Home::start_in(dir, Arc::new(SystemClock)).await;
    // The one change is that each process of the new run has begun its chain of audit rows.
    world.refresh().await;
    let (revision, policy, grants) = known;
    let begun = u64::try_from(world.replicas().count()).unwrap();
    assert_eq!(status(&world), (revision + begun, policy, grants));
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

/// Exchanges before the kill.
const ENOUGH: usize = 200;
/// Longest wait for them.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_no_record() {
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
    let finished: Arc<Mutex<Vec<String>>> = Arc::default();
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
                    finished.lock().await.push(id);
                }
            })
        })
        .collect();
    let enough = async {
        while finished.lock().await.len() < ENOUGH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.unwrap();
    process.kill();
    for task in tasks {
        task.await.unwrap();
    }
    // What the database had not yet is in the journal, which the next start brings in before it listens.
    process.start_again();
    let log = Log::open(&process).await;
    let mut recorded: HashMap<String, u32> = HashMap::new();
    for row in log.behind(0).await {
        *recorded
            .entry(row.record.request_id.as_str().to_owned())
            .or_default() += 1;
    }
    let finished = finished.lock().await;
    for id in finished.iter() {
        assert_eq!(recorded.get(id), Some(&1), "{id}");
    }
    let mut connection = Connection::open(process.federation, &config, Shape::of(Wire::H1))
        .await
        .unwrap();
    let answer = connection.list("tasks", &json!({})).await.unwrap();
    assert_eq!(answer.head.status, 200);
}

/// A gateway of one's own, described by policy.
const MAPPED: &str = r#"
schema = 1
[ceiling]
resources = ["tasks"]
[mapping.facts.lists]
teams = { path = "/t", id = "id" }
projects = { path = "/p", id = "id", team = "team" }
missions = { path = "/m", id = "id", project = "project", owner = "owner" }
[mapping.tasks]
list = "/tasks"
fields = { id = "id", created_at = "made", owner = "owner" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_store_starts_with_a_mapping_that_only_the_files_have() {
    let world = World::builder()
        .preset("mapped")
        .policy(MAPPED)
        .start()
        .await;
    assert_eq!(world.control().directory.fenced(), None);
    let view = world.control().directory.view();
    assert_eq!(view.policy.files, ["policy.toml"]);
    let hash = view.policy.hash.clone();
    let world = world.restart().await;
    assert_eq!(world.control().directory.view().policy.hash, hash);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_policy_for_another_preset_starts_on_the_files() {
    let mut world = World::start().await;
    world.write_policy(MAPPED);
    let [internal, mapped] = ["preset = \"internal-v1\"", "preset = \"mapped\""];
    world.change_settings(internal, mapped);
    let mut world = world.restart().await;
    let bundle = world.control().store.load(world.control().now()).await;
    let texts = bundle.unwrap().policy.unwrap().files;
    assert_eq!(texts[0].text, MAPPED, "it was published");
    // And back.
    world.write_policy(tests::world::POLICY);
    world.change_settings(mapped, internal);
    let world = world.restart().await;
    assert_eq!(world.control().directory.fenced(), None);
    world.stop().await;
}
