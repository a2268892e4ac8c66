//! Many grants: each is answered, a change of one is applied by itself, and there are no more series of metrics than with few.
//!
//! Invariant: the store is filled in bulk while nobody uses it, with what the program itself would have written. How long things take
//! with 100,000 is measured by `./run bench --phases scale`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::id::{SubjectId, UserId};
use proxy::admin::RevokeGrant;
use serde_json::json;
use support::enlist::http_get;
use tests::database::Database;
use tests::database::Value::Text;
use tests::grants::BASE;
use tests::world::operator;
use tests::{Wire, World};
use uuid::Uuid;

const GRANTS: usize = 2_000;
const PEERS: usize = 200;

/// The series of metrics that the replicas have, together.
async fn metrics(world: &World) -> usize {
    let mut series = BTreeSet::new();
    for replica in world.replicas() {
        let text = http_get(replica.addresses().ops.unwrap(), "/metrics").await;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.rsplit_once(' '));
        series.extend(names.map(|(name, _)| name.to_owned()));
    }
    series.len()
}

/// Puts grants of many peers beside what is there; the ids of the grants.
async fn fill(world: &World) -> Vec<Uuid> {
    let mut store = Database::open(&world.config).await;
    store.execute("BEGIN", &[]).await;
    let peers: Vec<Uuid> = (0..PEERS).map(|_| Uuid::new_v4()).collect();
    for (number, peer) in peers.iter().enumerate() {
        let (peer, name) = (peer.to_string(), format!("filled-{number}"));
        let sql = "INSERT INTO peers (id, name, direction, state, created_at) VALUES ($1, $2, 'inbound', 'active', 1)";
        store.execute(sql, &[Text(&peer), Text(&name)]).await;
    }
    let mut grants = Vec::with_capacity(GRANTS);
    for number in 0..GRANTS {
        let (grant, user) = (Uuid::new_v4(), format!("filled-{number}"));
        let subject = SubjectId::of_user(&UserId::parse(&user).unwrap());
        let scope = json!({"resources": ["tasks"], "max_rows_per_query": 100, "excluded_resources": [],
            "filters": {"tasks": {"include_teams": [format!("team-{number}")], "include_personal": true}}});
        let row = [
            grant.to_string(),
            peers[number % PEERS].to_string(),
            user,
            subject.to_string(),
            scope.to_string(),
        ];
        let sql = "INSERT INTO grants (id, peer_id, user_id, subject_id, scope, status, edit, created_at) VALUES ($1, $2, $3, $4, $5, 'pending', 0, 1)";
        let values = row.each_ref().map(|value| Text(value.as_str()));
        store.execute(sql, &values).await;
        grants.push(grant);
    }
    store.execute("COMMIT", &[]).await;
    store.close().await;
    grants
}

async fn revoke(world: &World, grant: Uuid) {
    let (id, why) = (grant.to_string(), RevokeGrant { reason: None });
    let control = world.control();
    control.revoke_grant(&operator(), &id, why).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_make_no_series_and_a_change_of_one_leaves_the_others_alone() {
    let world = World::start().await;
    let holder = world.amira().await;
    let nothing = json!({});
    let answer = world.ask(&holder.minted, "/list/tasks", &nothing).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let few = metrics(&world).await;
    let grants = fill(&world).await;
    let world = world.restart().await;
    let answer = world.ask(&holder.minted, "/list/tasks", &nothing).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let many = metrics(&world).await;
    assert!(many <= few, "{many} series of metrics after {few}");
    assert_eq!(
        world.control().list_grants().await.unwrap().len(),
        GRANTS + 1
    );

    // A certificate for one of them, its end, and the end of another: each is in force when the act returns.
    let before = world.control().directory.view();
    let entry = |id: Uuid| Arc::clone(before.snapshot.grant(id.into()).unwrap());
    let (used, ended) = (grants[7], grants[9]);
    let minted = world
        .mint(used, entry(used).grant.subject.uuid())
        .sign_with(&world.ca);
    world.register(used.into(), &minted).await;
    let listed = world.ask(&minted, "/capabilities", &nothing).await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    assert_eq!(listed.json()["resources"], json!(["tasks"]));
    revoke(&world, used).await;
    // Its certificate is refused at the handshake, which in TLS 1.3 shows at the first read.
    let mut late = world.client(Wire::H1, &minted).await;
    let path = format!("{BASE}/capabilities");
    assert!(late.post(&path, "{}").await.is_err());
    revoke(&world, ended).await;
    let after = world.control().directory.view();
    // Only what was touched was made anew: everything else is the very same.
    for id in &grants {
        let (was, is) = (
            before.snapshot.grant((*id).into()),
            after.snapshot.grant((*id).into()),
        );
        match is {
            Some(is) => assert_eq!(
                Arc::ptr_eq(was.unwrap(), is),
                ![used, ended].contains(id),
                "{id}"
            ),
            None => assert_eq!(*id, ended, "without a certificate"),
        }
    }
    let answer = world.ask(&holder.minted, "/list/tasks", &nothing).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}
