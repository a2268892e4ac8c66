//! Why a request was answered as it was, and what another policy would make of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use tests::audit::audit_row;
use tests::command::{Ran, command};
use tests::{Holder, Wire, World};

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
        "requests a minute: 1000000 -> 120",
        "requests at once: 100000 -> 30",
    ] {
        let line = ran.out.lines().find(|line| line.contains(change));
        let line = line.unwrap_or_else(|| panic!("{change}: {}", ran.out));
        assert!(line.contains(&grant) && line.contains("home"), "{line}");
    }
    let conflict =
        tests::world::POLICY.replace("max_rows", "suspend_on_renewal_conflict = true\nmax_rows");
    let stricter = candidate(&conflict);
    let ran = run(&world, &["policy", "diff", path(stricter.path())]).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    assert!(
        ran.out
            .contains("a renewal conflict: now suspends its peer"),
        "{}",
        ran.out
    );
    // Limits alone are a change too.
    let budget = tests::world::POLICY.replace("max_rows", "rows_per_day = 50\nmax_rows");
    let fewer = candidate(&budget);
    let arguments = ["policy", "diff", "--exit-code", "--candidate"];
    let ran = run(&world, &[&arguments[..], &[path(fewer.path())]].concat()).await;
    assert_eq!(ran.exit, 1, "{}", ran.errors);
    let told: Vec<&str> = ran.out.lines().skip(1).collect();
    assert_eq!(told.len(), 1, "{}", ran.out);
    assert!(
        told[0].contains("different rows a day: any number -> 50"),
        "{}",
        ran.out
    );
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

/// An answer, or a refusal without the id that each has of its own.
fn without_id(mut answer: Value) -> Value {
    if let Some(error) = answer["error"].as_object_mut() {
        error.remove("requestId");
    }
    answer
}

/// The lines of the table that hold all of these.
fn lines<'a>(ran: &'a Ran, holding: &[&str]) -> Vec<&'a str> {
    let all = ran.out.lines();
    all.filter(|line| holding.iter().all(|text| line.contains(text)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_tells_what_a_candidate_would_decide_and_changes_no_answer() {
    // A candidate runs in the process that was told to.
    let world = World::builder().alone().start().await;
    let amira = world.amira().await;
    let search = json!({"params": {"query": "the"}});
    let ask = |path: &'static str, body: Value| {
        let (world, amira) = (&world, &amira);
        async move { world.ask(&amira.minted, path, &body).await }
    };
    let questions = [
        ("/list/tasks", json!({})),
        ("/list/notes", json!({})),
        ("/list/projects", json!({})),
        ("/list/memory", json!({})),
        ("/search", search),
        ("/capabilities", json!({})),
    ];
    let mut before = Vec::new();
    for (path, body) in &questions {
        before.push(ask(path, body.clone()).await);
    }
    let ran = run(&world, &["policy", "shadow"]).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    assert!(ran.errors.contains("no candidate runs"), "{}", ran.errors);

    let broken = candidate("schema = 1\n[ceilling]\n");
    let ran = run(&world, &["policy", "shadow", path(broken.path())]).await;
    assert_eq!(ran.exit, 1);
    assert!(ran.errors.contains("policy.toml:2:"), "{}", ran.errors);

    let narrower = candidate(NARROWER);
    let ran = run(&world, &["policy", "shadow", path(narrower.path())]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (0, ""), "{}", ran.errors);
    world.gateway.forget_requests().await;
    for ((path, body), before) in questions.iter().zip(&before) {
        let answer = ask(path, body.clone()).await;
        assert_eq!(answer.status, before.status, "{path}");
        assert_eq!(
            without_id(answer.json()),
            without_id(before.json()),
            "{path}"
        );
    }
    // Facts are fetched again when they are old, rows once for each question.
    for resource in ["tasks", "notes"] {
        let asked = world.gateway.requests().await;
        let of = |request: &&Value| {
            let path = request["path"].as_str().unwrap();
            path.split('?')
                .next()
                .unwrap()
                .ends_with(&format!("/{resource}"))
        };
        assert_eq!(asked.iter().filter(of).count(), 2, "{resource}: {asked:?}");
    }
    let ran = run(&world, &["policy", "shadow", "--exit-code"]).await;
    assert_eq!(ran.exit, 1, "{}", ran.errors);
    let grant = amira.grant.to_string();
    for told in [
        &["list", "notes", "let through", "refused, ceiling"][..],
        &[
            "list",
            "tasks",
            "teams platform",
            "no team",
            "at most 100 rows",
            "at most 3 rows",
            "removes nothing by name",
        ],
        &["list", "memory", "at most 100 rows", "at most 3 rows"],
        &["search", "notes", "let through", "refused, ceiling"],
        &["capabilities", "at most 100 rows", "at most 3 rows"],
    ] {
        let found = lines(&ran, told);
        assert_eq!(found.len(), 1, "{told:?}: {}", ran.out);
        assert!(
            found[0].contains(&grant) && found[0].contains("home"),
            "{}",
            found[0]
        );
    }
    // What is refused by both, for one reason, is no difference.
    assert_eq!(lines(&ran, &["list", "projects"]), Vec::<&str>::new());
    let ops = world.sidecar.addresses().ops.unwrap();
    let metrics = support::enlist::http_get(ops, "/metrics").await;
    for series in [
        "policy_shadow_running 1",
        "policy_shadow_decisions_total{result=\"refused\"} 2",
        "policy_shadow_decisions_total{result=\"allowed\"} 0",
    ] {
        assert!(
            metrics.contains(&format!("mosaic_federation_{series}\n")),
            "{series}: {metrics}"
        );
    }
    let status = run(&world, &["status"]).await;
    assert!(status.out.contains("candidate beside it"), "{}", status.out);

    let ran = run(&world, &["policy", "shadow", "--off", "--json"]).await;
    let found = document(&ran);
    assert_eq!(found["running"], false);
    assert_eq!(found["unlisted"], 0);
    assert!(found["differing"].as_u64() > Some(0), "{found}");
    let answer = ask("/list/notes", json!({})).await;
    assert_eq!(answer.status, 200);
    let ran = run(&world, &["policy", "shadow", "--json"]).await;
    let found = document(&ran);
    assert_eq!(
        (&found["running"], &found["decisions"]),
        (&json!(false), &json!(0))
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_follows_the_grants_that_are_in_force() {
    // A candidate runs in the process that was told to.
    let world = World::builder().alone().start().await;
    let amira = world.amira().await;
    let narrower = candidate(NARROWER);
    let ran = run(&world, &["policy", "shadow", path(narrower.path())]).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let nothing = json!({});
    let list = || world.ask(&amira.minted, "/list/notes", &nothing);
    assert_eq!(list().await.status, 200);
    // The policy in force becomes the candidate: both refuse, which is no difference.
    narrow(&world).await;
    assert_eq!(list().await.status, 403);
    let ran = run(&world, &["policy", "shadow", "--json"]).await;
    let found = document(&ran);
    assert_eq!(
        (&found["decisions"], &found["differing"]),
        (&json!(2), &json!(1)),
        "{found}"
    );
    assert_eq!(found["differences"][0]["change"], "refused");
    world.stop().await;
}

/// A policy that reaches less than the one a request was decided under.
async fn narrow(world: &World) {
    world.reload_policy(NARROWER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_what_was_decided_then_and_not_what_would_be_now() {
    let world = World::start().await;
    let amira = world.amira().await;
    let body = json!({"params": {"limit": 2}});
    let answer = world.ask(&amira.minted, "/list/tasks", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.request_id().to_owned();
    audit_row(world.control(), &id).await;
    let before = run(&world, &["audit", "explain", &id]).await;
    assert_eq!(before.exit, 0, "{}", before.errors);
    narrow(&world).await;
    let after = run(&world, &["audit", "explain", &id]).await;
    assert_eq!(after.out, before.out);
    for told in [
        "1. identity: grant ",
        "(active) of peer home (active) for user ",
        "2. verb: list -> known",
        "4. ceiling: peer home: tasks, any team, personal rows yes, 10000 rows -> in reach",
        "teams platform; personal rows yes",
        "7. redaction: tasks -> names that say secret are removed, and internalNote meta.cost",
        "8. row cap: scope and policy allow 100 -> allowed: at most 2 rows",
        "ended allowed with status 200: 2 row(s)",
    ] {
        assert!(after.out.contains(told), "{told}: {}", after.out);
    }
    assert!(
        after
            .errors
            .contains("their effective revision is the recorded one"),
        "{}",
        after.errors
    );
    let grant = amira.grant.to_string();
    let now = run(
        &world,
        &[
            "policy",
            "explain",
            "--grant",
            &grant,
            "--verb",
            "list",
            "--resource",
            "tasks",
        ],
    )
    .await;
    assert!(now.out.contains("scope and policy allow 3"), "{}", now.out);
    let found = document(&run(&world, &["audit", "explain", &id, "--json"]).await);
    assert_eq!(found["items"][0]["verified"], true, "{found}");
    assert_eq!(
        found["items"][0]["record"]["decision"]["answers"][0]["rows"], 2,
        "{found}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_refusals_and_what_it_cannot_tell() {
    let world = World::start().await;
    let amira = world.amira().await;
    let mut client = world.client(Wire::H1, &amira.minted).await;
    let list = format!("{}/list/projects", tests::grants::BASE);
    let refused = client.post(&list, "{}").await.unwrap();
    assert_eq!(refused.status, 403);
    audit_row(world.control(), refused.request_id()).await;
    let ran = run(&world, &["audit", "explain", refused.request_id()]).await;
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    assert!(ran.out.contains("3. resource: projects; scope: tasks notes memory; excluded: (none) -> denied, resource_not_granted"), "{}", ran.out);
    assert!(
        ran.errors.contains("docs/reasons/resource_not_granted.md"),
        "{}",
        ran.errors
    );

    world.revoke(amira.grant).await;
    let list = format!("{}/list/tasks", tests::grants::BASE);
    if let Ok(ended) = client.post(&list, "{}").await {
        assert_eq!(ended.status, 403);
        audit_row(world.control(), ended.request_id()).await;
        let ran = run(&world, &["audit", "explain", ended.request_id()]).await;
        assert!(ran.out.contains("-> denied, grant_revoked"), "{}", ran.out);
    }
    let ran = run(
        &world,
        &["audit", "explain", "0190d1c2-7d5e-7f3a-8a55-1f0c3a9b2d10"],
    )
    .await;
    assert_eq!(ran.exit, 3, "{}", ran.errors);
    world.stop().await;
}

/// Changes the database behind the back of the sidecar.
async fn tamper(world: &World, statement: &'static str) {
    let mut database = world.database().await;
    assert!(database.execute(statement, &[]).await > 0, "{statement}");
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_first_row_that_was_changed_or_removed() {
    // Of the chains of several processes another row can be the first that does not fit.
    let world = World::builder().alone().start().await;
    used(&world).await;
    let ran = run(&world, &["audit", "verify"]).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.out.starts_with("whole: "), "{}", ran.out);
    let last = run(
        &world,
        &["audit", "query", "--json", "--code", "resource_not_granted"],
    )
    .await;
    let row = document(&last)["items"][0].clone();
    assert_eq!(row["resource"], "projects", "{row}");
    tamper(&world, "UPDATE federation_audit_log SET outcome = 'allowed' WHERE deny_code = 'resource_not_granted'").await;
    let ran = run(&world, &["audit", "verify"]).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    let id = row["id"].as_str().unwrap();
    assert!(
        ran.out.contains(id) && ran.out.contains("was changed after it was written"),
        "{}",
        ran.out
    );
    tamper(&world, "UPDATE federation_audit_log SET outcome = 'denied' WHERE deny_code = 'resource_not_granted'").await;
    assert_eq!(run(&world, &["audit", "verify"]).await.exit, 0);
    tamper(
        &world,
        "DELETE FROM federation_audit_log WHERE deny_code = 'resource_not_granted'",
    )
    .await;
    let ran = run(&world, &["audit", "verify", "--json"]).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    let finding = document(&ran)["finding"].clone();
    assert_eq!(
        finding["seq"].as_u64(),
        row["seq"].as_u64().map(|seq| seq + 1),
        "{finding}"
    );
    assert!(
        finding["fault"]
            .as_str()
            .unwrap()
            .contains("are missing in front of this row"),
        "{finding}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_verified_without_the_database() {
    let world = World::start().await;
    used(&world).await;
    let status = document(&run(&world, &["status", "--json"]).await);
    let key = status["audit"]["checkpoint_key"]
        .as_str()
        .unwrap()
        .to_owned();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.jsonl");
    let ran = run(&world, &["audit", "export", "--to", path(&file)]).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let secret = world.config.data_dir.join("sealing.key");
    let kept = dir.path().join("secret");
    std::fs::copy(&secret, &kept).unwrap();
    world.stop().await;

    // Nobody answers any more: what follows has the file alone.
    let gone = dir.path().join("no.sock");
    let verify = async |more: &[&str]| {
        let arguments = [&["audit", "verify", path(&file)][..], more].concat();
        command(&gone, &arguments).await
    };
    for more in [
        &[][..],
        &["--key", &key],
        &["--key", &key, "--secret-file", path(&kept)],
    ] {
        let ran = verify(more).await;
        assert_eq!(ran.exit, 0, "{more:?}: {ran:?}");
        assert!(ran.out.starts_with("whole: "), "{}", ran.out);
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let forged = text.replacen("\"resource\":\"projects\"", "\"resource\":\"missions\"", 1);
    assert_ne!(forged, text);
    std::fs::write(&file, forged).unwrap();
    let ran = verify(&["--key", &key]).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(
        ran.out.contains("shows another row than the one it holds"),
        "{}",
        ran.out
    );
    let cut: Vec<&str> = text.lines().collect();
    std::fs::write(&file, cut[..cut.len() - 2].join("\n")).unwrap();
    let ran = verify(&["--key", &key]).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(ran.out.contains("cut off"), "{}", ran.out);
    std::fs::write(&file, &text).unwrap();
    let other = "0".repeat(64);
    assert_eq!(verify(&["--key", &other]).await.exit, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn query_narrows_by_each_filter() {
    let world = World::start().await;
    let amira = used(&world).await;
    let grant = amira.grant.to_string();
    let count = async |more: &[&str]| {
        let arguments = [&["audit", "query", "--json"][..], more].concat();
        let ran = run(&world, &arguments).await;
        assert_eq!(ran.exit, 0, "{more:?}: {}", ran.errors);
        document(&ran)["items"].as_array().unwrap().len()
    };
    assert_eq!(count(&["--direction", "inbound"]).await, 5);
    assert_eq!(
        count(&[
            "--direction",
            "inbound",
            "--grant",
            &grant,
            "--peer",
            "home"
        ])
        .await,
        5
    );
    assert_eq!(count(&["--outcome", "denied"]).await, 2);
    assert_eq!(count(&["--code", "unknown_resource"]).await, 1);
    assert_eq!(count(&["--verb", "list", "--resource", "tasks"]).await, 1);
    assert_eq!(count(&["--direction", "inbound", "--since", "1h"]).await, 5);
    assert_eq!(count(&["--until", "1h"]).await, 0);
    // The same on the calendar.
    let now = world.control().now();
    let hour_ago = now.saturating_add(-3_600_000).to_string();
    let next = now.saturating_add(60_000).to_string();
    assert_eq!(
        count(&[
            "--direction",
            "inbound",
            "--since",
            &hour_ago,
            "--until",
            &next
        ])
        .await,
        5
    );
    assert_eq!(count(&["--until", &hour_ago]).await, 0);
    assert_eq!(count(&["--since", &next]).await, 0);
    let ran = run(&world, &["audit", "query", "--since", "yesterday"]).await;
    assert_eq!(ran.exit, 2, "{ran:?}");
    assert!(ran.errors.contains("2026-01-02T03:04:05Z"), "{ran:?}");
    assert!(count(&["--direction", "admin"]).await > 0);
    let ran = run(&world, &["audit", "query", "--direction", "sideways"]).await;
    assert_eq!(ran.exit, 1);
    assert!(
        ran.errors.contains("inbound, outbound or admin"),
        "{}",
        ran.errors
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_follows_the_log() {
    let world = World::start().await;
    let amira = world.amira().await;
    let socket = world.config.admin.socket.clone();
    // Ends when the row of a request that is not made yet has been printed.
    let following = tokio::spawn(async move {
        let arguments = ["audit", "tail", "-f", "-n", "1", "--json"];
        tests::command::until(&socket, &arguments, "unknown_resource").await
    });
    let answer = world.ask(&amira.minted, "/list/nothing", &json!({})).await;
    assert_eq!(answer.status, 403);
    let ran = following.await.unwrap();
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    let lines: Vec<Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let row = lines.last().unwrap();
    assert_eq!(row["request_id"], answer.request_id(), "{row}");
    world.stop().await;
}
