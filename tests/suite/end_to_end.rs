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

use certs::SystemClock;
use policy::id::{SubjectId, UserId};
use proxy::admin::{AuditQuery, Control};
use reference_gateway::plan;
use serde_json::{Value, json};
use support::onboard::{RESOURCES, keys, onboard, truth};
use support::truth::Key;
use tests::audit::{AUDIT_WITHIN, audit_row, audit_rows};
use tests::{Home, Response, World, WorldBuilder};

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
