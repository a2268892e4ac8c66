//! Policy files that change while the sidecar runs: put in force without being asked, as one set, or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::process::Process;
use tests::world::POLICY;
use tests::{Client, Holder, Wire, World};

/// Only the watch tells: the poll comes tomorrow.
const WATCH: &str = "watch = true\npoll_s = 86400";
/// Only the poll tells.
const POLL: &str = "watch = false\npoll_s = 1";
/// How often something is looked for, and how long apart: a minute in all.
const LOOKS: u32 = 3_000;
const APART: Duration = Duration::from_millis(20);

/// The policy of the tests without tasks.
fn without_tasks() -> String {
    POLICY.replace("\"tasks\", ", "")
}

/// Writes a file as careful programs do: beside it, then in its place.
fn replace(file: &Path, text: &str) {
    let beside = file.with_extension("tmp");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, file).unwrap();
}

/// Waits until a question about tasks is answered (or refused).
async fn until_tasks_are(world: &World, holder: &Holder, status: u16) {
    for _ in 0..LOOKS {
        let answer = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
        if answer.status == status {
            return;
        }
        tokio::time::sleep(APART).await;
    }
    panic!("no {status} within a minute");
}

/// Waits until `status` says (or does not say) that the files could not be loaded.
async fn until_failure_is(world: &World, told: bool) -> Option<String> {
    for _ in 0..LOOKS {
        let status = world.control().status().await.unwrap();
        if status.policy.last_failure.is_some() == told {
            return status.policy.last_failure.map(|failure| failure.message);
        }
        tokio::time::sleep(APART).await;
    }
    panic!("the failure did not become told = {told} within a minute");
}

/// The status of a question about tasks to a process.
async fn tasks(process: &Process, holder: &Holder) -> u16 {
    let root = process.ca.root_der();
    let mut client = Client::open(Wire::H1, process.federation, &holder.minted, root)
        .await
        .unwrap();
    let path = "/api/federation/v1/list/tasks";
    client.post(path, "{}").await.unwrap().status
}

async fn start(lines: &str) -> (World, Holder) {
    let world = World::builder().policy_lines(lines).start().await;
    let holder = world.amira().await;
    until_tasks_are(&world, &holder, 200).await;
    (world, holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_in_force_without_a_command() {
    for lines in [WATCH, POLL] {
        let (world, holder) = start(lines).await;
        let file = world.config.policy.dir.join("policy.toml");
        replace(&file, &without_tasks());
        until_tasks_are(&world, &holder, 403).await;
        // In place, too.
        std::fs::write(&file, POLICY).unwrap();
        until_tasks_are(&world, &holder, 200).await;
        // A further file counts, and so does its end.
        let more = world.config.policy.dir.join("20-more.toml");
        replace(
            &more,
            "schema = 1\n[redaction]\nfields.tasks = [\"title\"]\n",
        );
        until_files_are(&world, 2).await;
        std::fs::remove_file(&more).unwrap();
        until_files_are(&world, 1).await;
        world.stop().await;
    }
}

async fn until_files_are(world: &World, count: usize) {
    for _ in 0..LOOKS {
        let status = world.control().status().await.unwrap();
        if status.policy.files.len() == count {
            return;
        }
        tokio::time::sleep(APART).await;
    }
    panic!("not {count} files within a minute");
}

/// The way Kubernetes updates a mounted ConfigMap: files are links into `..data`, which is a link that is swapped.
#[tokio::test(flavor = "multi_thread")]
async fn a_swapped_configmap_is_in_force() {
    let (world, holder) = start(WATCH).await;
    let dir = &world.config.policy.dir;
    let generation = |name: &str, text: &str| {
        std::fs::create_dir(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join("policy.toml"), text).unwrap();
    };
    generation("..2026_01", POLICY);
    generation("..2026_02", &without_tasks());
    symlink("..2026_01", dir.join("..data")).unwrap();
    std::fs::remove_file(dir.join("policy.toml")).unwrap();
    symlink("..data/policy.toml", dir.join("policy.toml")).unwrap();
    until_tasks_are(&world, &holder, 200).await;
    symlink("..2026_02", dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    until_tasks_are(&world, &holder, 403).await;
    world.stop().await;
}

/// A file that is being written, or is wrong, changes nothing and is told; once it is right it counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_set_leaves_the_last_good_one_in_force_and_is_told() {
    let (world, holder) = start(WATCH).await;
    let before = world.control().status().await.unwrap().policy.hash;
    let file = world.config.policy.dir.join("policy.toml");
    let half = without_tasks();
    std::fs::write(&file, &half[..half.len() / 2]).unwrap();
    let why = until_failure_is(&world, true).await.unwrap();
    assert!(why.contains("policy.toml"), "{why}");
    until_tasks_are(&world, &holder, 200).await;
    assert_eq!(world.control().status().await.unwrap().policy.hash, before);
    let ops = world.sidecar.addresses().ops.unwrap();
    let metrics = support::enlist::http_get(ops, "/metrics").await;
    assert!(metrics.contains("mosaic_federation_policy_reload_failures_total 1\n"));
    std::fs::write(&file, &half).unwrap();
    until_failure_is(&world, false).await;
    until_tasks_are(&world, &holder, 403).await;
    world.stop().await;
}

/// The directory goes and another comes in its place: nothing is denied meanwhile that was allowed, and the new one is followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_replaced_is_followed() {
    let (world, holder) = start(WATCH).await;
    let dir = world.config.policy.dir.clone();
    let away = dir.with_extension("away");
    std::fs::rename(&dir, &away).unwrap();
    until_failure_is(&world, true).await;
    until_tasks_are(&world, &holder, 200).await;
    let coming = dir.with_extension("coming");
    std::fs::create_dir(&coming).unwrap();
    std::fs::write(coming.join("policy.toml"), without_tasks()).unwrap();
    std::fs::rename(&coming, &dir).unwrap();
    until_tasks_are(&world, &holder, 403).await;
    until_failure_is(&world, false).await;
    replace(&dir.join("policy.toml"), POLICY);
    until_tasks_are(&world, &holder, 200).await;
    world.stop().await;
}

/// Files with other endings, and hidden ones, are nobody's policy.
#[tokio::test(flavor = "multi_thread")]
async fn what_editors_leave_behind_is_not_read() {
    let (world, _) = start(WATCH).await;
    let dir = &world.config.policy.dir;
    for name in [".policy.toml.swp", "policy.toml~", "4913", ".20.toml"] {
        std::fs::write(dir.join(name), "not a policy").unwrap();
    }
    replace(&dir.join("20-more.toml"), "schema = 1\n");
    until_files_are(&world, 2).await;
    assert!(
        world
            .control()
            .status()
            .await
            .unwrap()
            .policy
            .last_failure
            .is_none()
    );
    world.stop().await;
}

/// A process that is confined to its files reads a directory that was put in the place of its own, and SIGHUP is a reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_policy_again() {
    let world = World::start().await;
    let holder = world.amira().await;
    let process = Process::take_over(world, "info").await;
    let dir = process.dir.path().join("policy.d");
    std::fs::rename(&dir, process.dir.path().join("away")).unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("policy.toml"), without_tasks()).unwrap();
    assert_eq!(tasks(&process, &holder).await, 200);
    let sent = Command::new("kill")
        .args(["-HUP", &process.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    for _ in 0..LOOKS {
        if tasks(&process, &holder).await == 403 {
            return;
        }
        tokio::time::sleep(APART).await;
    }
    panic!("no reload within a minute: {}", process.log.lock().unwrap());
}
