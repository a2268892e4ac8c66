//! Two sidecars and two gateways, from the grant to the row: what an employee at home sees of work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use policy::id::{SubjectId, UserId};
use policy::time::UnixMillis;
use proxy::admin::{AuditQuery, Control};
use proxy::audit::{AuditFilter, AuditLog};
use proxy::store::{SqliteOptions, SqliteStore};
use reference_gateway::plan;
use reference_gateway::record::User;
use serde_json::{Value, json};
use support::enlist::enlist;
use support::process::Process;
use support::stream::{Connection, Shape};
use support::truth::{Key, Reach, Rows};
use tests::audit::{AUDIT_WITHIN, audit_row, audit_rows};
use tests::{Home, Response, Wire, World, WorldBuilder};
use tokio::sync::Mutex;

const RESOURCES: [&str; 5] = ["tasks", "notes", "memory", "projects", "missions"];

fn users() -> BTreeMap<String, User> {
    let users = plan::plan().users.into_iter();
    users.map(|user| (user.id.clone(), user)).collect()
}

fn teams_of(user: &str) -> BTreeSet<String> {
    let memberships = plan::plan().memberships.into_iter();
    memberships
        .filter(|membership| membership.user_id == user)
        .map(|membership| membership.team_id)
        .collect()
}

/// Everything that is native to a user.
fn whole_scope(user: &str) -> Value {
    let filter = json!({"include_teams": teams_of(user)});
    let filters = BTreeMap::from(RESOURCES.map(|name| (name, filter.clone())));
    json!({"resources": RESOURCES, "filters": filters, "max_rows_per_query": 1_000})
}

/// What the scope above shows of a resource, newest first.
fn truth(resource: &str, user: &str) -> Vec<Key> {
    let reach = Reach {
        teams: teams_of(user),
        personal: true,
    };
    Rows::of(plan::plan().rows).granted(resource, &users()[user], &reach)
}

fn keys(answer: &Response) -> Vec<Key> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = answer.items();
    rows.iter()
        .map(|row| (text(row, "createdAt"), text(row, "id")))
        .collect()
}

/// A grant at work for `user`, held by a home of the same local name, under `peer` at work.
async fn onboard(world: &World, home: &Home, peer: &str, user: &str, local: &str) -> String {
    if world.config.gateway.auth == proxy::config::GatewayAuth::SubjectToken {
        world.let_in(user).await;
    }
    let grant = world.pending_for(peer, user, whole_scope(user)).await;
    let url = world.enrollment_url(grant.id).await;
    let added = home.add_peer(&url, local, "work").await.unwrap();
    assert_eq!(added.grant, grant.id);
    assert_eq!(added.notice, None, "the path is proved at once");
    assert!(added.capabilities.is_some());
    grant.id.to_string()
}

/// Both sides' record of one exchange.
async fn check_records(world: &World, home: &Home, answer: &Response, grant: &str, resource: &str) {
    let outbound = audit_row(home.control(), answer.request_id()).await;
    assert_eq!(outbound["direction"], "outbound", "{outbound}");
    assert_eq!(outbound["outcome"], "allowed", "{outbound}");
    assert_eq!(outbound["grant_id"], grant, "{outbound}");
    assert_eq!(outbound["resource"], resource, "{outbound}");
    let own = outbound["request_id"].as_str().unwrap();
    let inbound = audit_rows(world.control(), own, 1).await.remove(0);
    assert_eq!(inbound["direction"], "inbound", "{inbound}");
    assert_eq!(inbound["outcome"], "allowed", "{inbound}");
    assert_eq!(inbound["grant_id"], grant, "{inbound}");
    assert_eq!(inbound["query_hash"], outbound["query_hash"]);
    assert_eq!(inbound["peer_request_id"], outbound["request_id"]);
    assert_eq!(inbound["rows_returned"], outbound["rows_returned"]);
    assert_eq!(inbound["rows_withheld"], 0, "{inbound}");
}

async fn every_resource(builder: WorldBuilder) {
    let world = builder.start().await;
    let home = Home::start().await;
    let grant = onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let answer = home
        .ask(&session, "work", "/capabilities", &json!({}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let named: BTreeSet<String> = answer.json()["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, BTreeSet::from(RESOURCES.map(str::to_owned)));
    for resource in RESOURCES {
        let list = format!("/list/{resource}");
        let answer = home.ask(&session, "work", &list, &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = truth(resource, plan::AMIRA);
        assert!(!expected.is_empty(), "{resource}");
        assert_eq!(keys(&answer), expected, "{resource}");
        let rows = answer.items();
        assert!(
            rows.iter().all(|row| row["_source"] == "work"),
            "{resource}"
        );
        check_records(&world, &home, &answer, &grant, resource).await;
        let get = format!("/get/{resource}/{}", expected[0].1);
        let answer = home.ask(&session, "work", &get, &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["item"], rows[0], "{resource}");
        let foreign = truth(resource, plan::CHLOE)
            .into_iter()
            .find(|key| !expected.contains(key))
            .unwrap();
        let get = format!("/get/{resource}/{}", foreign.1);
        let answer = home.ask(&session, "work", &get, &json!({})).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    }
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_comes_through_the_door_with_internal_v1() {
    every_resource(World::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_comes_through_the_door_with_mosaic() {
    every_resource(World::builder().preset("mosaic")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_comes_through_the_door_with_a_service_token() {
    every_resource(World::builder().service_token()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_token_asks_as_the_subject_of_the_grant() {
    let world = World::builder().service_token().start().await;
    let home = Home::start().await;
    let grant = onboard(&world, &home, "home", plan::BEN, "ben").await;
    world.gateway.forget_requests().await;
    let session = home.session("ben").await;
    let answer = home.ask(&session, "work", "/list/tasks", &json!({})).await;
    assert_eq!(keys(&answer), truth("tasks", plan::BEN));
    let requests = world.gateway.requests().await;
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request["user"], plan::BEN, "{request}");
        assert_eq!(request["grantId"], grant, "{request}");
        assert_eq!(request["method"], "GET", "{request}");
    }
    home.stop().await;
    world.stop().await;
}

/// One employee at home, asking over and over.
async fn employee(
    world: Arc<World>,
    user: &'static str,
    name: &'static str,
) -> (String, HashSet<Key>) {
    let home = Home::start().await;
    let grant = onboard(&world, &home, name, user, name).await;
    let session = home.session(name).await;
    let mut seen = HashSet::new();
    for round in 0..support::rounds(6, 200) {
        for resource in RESOURCES {
            let limit = 3 + round;
            let mut cursor = Value::Null;
            let mut rows = Vec::new();
            loop {
                let mut question = json!({"params": {"limit": limit}});
                if !cursor.is_null() {
                    question["cursor"] = cursor;
                }
                let list = format!("/list/{resource}");
                let answer = home.ask(&session, "work", &list, &question).await;
                rows.extend(keys(&answer));
                cursor = answer.json()["nextCursor"].clone();
                if cursor.is_null() {
                    break;
                }
            }
            assert_eq!(rows, truth(resource, user), "{name}: {resource}");
            seen.extend(rows);
        }
    }
    home.stop().await;
    (grant, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_employees_with_three_homes_do_not_leak_into_each_other() {
    let world = Arc::new(World::start().await);
    let people = [
        (plan::AMIRA, "amira"),
        (plan::BEN, "ben"),
        (plan::CHLOE, "chloe"),
    ];
    let tasks = people.map(|(user, name)| tokio::spawn(employee(Arc::clone(&world), user, name)));
    let mut grants = BTreeMap::new();
    for (task, (user, name)) in tasks.into_iter().zip(people) {
        let (grant, seen) = task.await.unwrap();
        let allowed: HashSet<Key> = RESOURCES
            .iter()
            .flat_map(|name| truth(name, user))
            .collect();
        assert_eq!(seen, allowed, "{name}");
        grants.insert(grant, (user, name));
    }
    let expected = usize::try_from(support::rounds(6, 200)).unwrap() * RESOURCES.len() * 3;
    let rows = inbound(world.control(), expected).await;
    let peers: BTreeMap<String, String> = world
        .control()
        .store
        .list_peers()
        .await
        .unwrap()
        .into_iter()
        .map(|peer| (peer.id.to_string(), peer.name.to_string()))
        .collect();
    for row in rows {
        let (user, name) = grants[row["grant_id"].as_str().unwrap()];
        assert_eq!(peers[row["peer_id"].as_str().unwrap()], name, "{row}");
        let user = UserId::parse(user).unwrap();
        assert_eq!(
            row["subject_user_id"],
            SubjectId::of_user(&user).to_string(),
            "{row}"
        );
        assert_eq!(row["rows_withheld"], 0, "{row}");
    }
    Arc::into_inner(world).unwrap().stop().await;
}

/// At least `least` inbound rows of the audit log, all of them.
async fn inbound(control: &Control, least: usize) -> Vec<Value> {
    let look = async {
        loop {
            let query = AuditQuery {
                direction: Some("inbound".to_owned()),
                limit: Some(10_000),
                ..AuditQuery::default()
            };
            let rows = control.query_audit(query).await.unwrap();
            if rows.len() >= least {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(AUDIT_WITHIN, look)
        .await
        .expect("audit rows in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_down_is_503_and_so_is_a_peer() {
    let mut world = World::start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let ask = async || home.ask(&session, "work", "/list/tasks", &json!({})).await;
    assert_eq!(ask().await.status, 200);
    world.stop_gateway().await;
    let answer = ask().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "unavailable")
    );
    assert_ne!(
        answer.json()["error"]["message"],
        "federation offline for work"
    );
    world.stop().await;
    for _ in 0..2 {
        let answer = ask().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "unavailable")
        );
        assert_eq!(
            answer.json()["error"]["message"],
            "federation offline for work"
        );
        assert_eq!(answer.json()["error"]["details"]["peer"], "work");
    }
    let detail = home.control().show_peer("work", None).await.unwrap();
    assert!(detail.peer.last_failure.is_some());
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_shows_at_the_very_next_request() {
    let world = World::start().await;
    let home = Home::start().await;
    let grant = onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let ask = async || home.ask(&session, "work", "/list/tasks", &json!({})).await;
    assert_eq!(ask().await.status, 200);
    world.revoke(grant.parse().unwrap()).await;
    for _ in 0..3 {
        let answer = ask().await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
        assert_eq!(answer.reason().as_deref(), Some("grant_revoked"));
    }
    let detail = home.control().show_peer("work", None).await.unwrap();
    assert_eq!(detail.peer.credentials[0].state, "revoked");
    // What is known to be over is not asked for again, also after a restart.
    let dir = home.stop().await;
    world.stop().await;
    let home = Home::start_in(dir, Arc::new(SystemClock)).await;
    let answer = home.ask(&session, "work", "/list/tasks", &json!({})).await;
    assert_eq!(answer.reason().as_deref(), Some("grant_revoked"));
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_of_one_user_does_not_exist_for_another() {
    let world = World::start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let (hers, his) = (home.session("amira").await, home.session("bob").await);
    let ask =
        async |session: &str, peer: &str| home.ask(session, peer, "/list/tasks", &json!({})).await;
    assert_eq!(ask(&hers, "work").await.status, 200);
    let other = ask(&his, "work").await;
    let nothing = ask(&his, "nowhere").await;
    assert_eq!((other.status, nothing.status), (404, 404));
    assert_eq!(
        other.json()["error"]["message"],
        nothing.json()["error"]["message"]
    );
    for bad in ["", "x", &"0".repeat(64)] {
        assert_eq!(ask(bad, "work").await.status, 401);
    }
    let asked = inbound(world.control(), 2).await;
    assert_eq!(
        asked.len(),
        2,
        "the proof of the path and one question: {asked:?}"
    );
    home.stop().await;
    world.stop().await;
}

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
