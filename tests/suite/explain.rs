//! Why a request was answered as it was, and what another policy would make of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use serde_json::{Value, json};
use tests::audit::audit_row;
use tests::command::{Ran, command};
use tests::{Holder, World};

/// The policy of the world without notes, with fewer rows and without the team's tasks.
const NARROWER: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "memory", "projects", "missions"]
max_rows_per_query = 3
teams = ["nobody"]
"#;

async fn run(world: &World, arguments: &[&str]) -> Ran {
    command(&world.config.admin.socket, arguments).await
}

/// A directory with one policy file.
fn candidate(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("policy.toml"), text).unwrap();
    dir
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// Amira's grant with a request of each kind behind it.
async fn used(world: &World) -> Holder {
    let amira = world.amira().await;
    for (question, status) in [
        ("/list/tasks", 200),
        ("/list/notes", 200),
        ("/list/projects", 403),
        ("/list/nothing", 403),
        ("/capabilities", 200),
    ] {
        let answer = world.ask(&amira.minted, question, &json!({})).await;
        assert_eq!(answer.status, status, "{question}: {}", answer.text());
        audit_row(world.control(), answer.request_id()).await;
    }
    amira
}

fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_lists_the_decisions_that_a_candidate_would_change() {
    let world = World::start().await;
    used(&world).await;
    let same = candidate(tests::world::POLICY);
    let arguments = [
        "policy",
        "replay",
        "--since",
        "1h",
        "--exit-code",
        "--candidate",
    ];
    let ran = run(&world, &[&arguments[..], &[path(same.path())]].concat()).await;
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{}", ran.errors);
    assert!(
        ran.errors
            .contains("5 record(s) looked at: 0 would be decided otherwise"),
        "{}",
        ran.errors
    );
    assert!(
        ran.errors.contains("what the gateway answered is not kept"),
        "{}",
        ran.errors
    );

    let narrower = candidate(NARROWER);
    let arguments = [&arguments[..], &[path(narrower.path()), "--json"]].concat();
    let ran = run(&world, &arguments).await;
    assert_eq!(ran.exit, 1, "{}", ran.errors);
    let found = document(&ran);
    assert_eq!(
        (found["examined"].as_u64(), found["same"].as_u64()),
        (Some(5), Some(3)),
        "{found}"
    );
    let changed = found["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 2, "{found}");
    assert_eq!(changed[0]["resource"], "tasks");
    let changes = changed[0]["changes"].to_string();
    assert!(
        changes.contains("tasks: no longer of teams platform"),
        "{changes}"
    );
    assert!(changes.contains("-> 3"), "{changes}");
    assert_eq!(changed[1]["resource"], "notes");
    assert_eq!(
        changed[1]["changes"],
        json!(["let through -> refused, ceiling"])
    );
    // Nothing was published.
    let status = run(
        &world,
        &[
            "policy",
            "explain",
            "--grant",
            changed[0]["grant"].as_str().unwrap(),
            "--verb",
            "list",
            "--resource",
            "notes",
            "--static",
        ],
    )
    .await;
    assert!(status.out.contains("allowed: at most"), "{}", status.out);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_says_what_it_cannot_decide_again() {
    let world = World::start().await;
    let amira = used(&world).await;
    world.revoke(amira.grant).await;
    let narrower = candidate(NARROWER);
    let ran = run(
        &world,
        &[
            "policy",
            "replay",
            "--json",
            "--candidate",
            path(narrower.path()),
        ],
    )
    .await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let found = document(&ran);
    assert_eq!(found["changed"], json!([]));
    assert_eq!(
        found["not_replayed"]["the grant is not in force any more"], 5,
        "{found}"
    );
    let broken = candidate("schema = 1\n[ceilling]\n");
    let ran = run(
        &world,
        &["policy", "replay", "--candidate", path(broken.path())],
    )
    .await;
    assert_eq!(ran.exit, 1);
    assert!(ran.errors.contains("policy.toml:2:"), "{}", ran.errors);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_names_the_grants_that_would_reach_something_else() {
    let world = World::start().await;
    let amira = world.amira().await;
    let narrower = candidate(NARROWER);
    let ran = run(
        &world,
        &[
            "policy",
            "diff",
            "--exit-code",
            "--candidate",
            path(narrower.path()),
        ],
    )
    .await;
    assert_eq!(ran.exit, 1, "{}", ran.errors);
    let grant = amira.grant.to_string();
    for change in [
        "notes: no longer in reach",
        "tasks: no longer of teams platform",
        "rows of an answer: 100 -> 3",
        "tasks: rule to remove gone: internalNote meta.cost",
    ] {
        let line = ran.out.lines().find(|line| line.contains(change));
        let line = line.unwrap_or_else(|| panic!("{change}: {}", ran.out));
        assert!(line.contains(&grant) && line.contains("home"), "{line}");
    }
    let same = candidate(tests::world::POLICY);
    let ran = run(
        &world,
        &[
            "policy",
            "diff",
            "--exit-code",
            "--candidate",
            path(same.path()),
        ],
    )
    .await;
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{}", ran.errors);
    world.stop().await;
}
