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

use std::sync::Arc;

use policy::id::{SubjectId, UserId};
use proxy::admin::RevokeGrant;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use support::enlist::http_get;
use tests::grants::BASE;
use tests::world::operator;
use tests::{Wire, World};
use uuid::Uuid;

const GRANTS: usize = 2_000;
const PEERS: usize = 200;

fn series(metrics: &str) -> usize {
    let of = |line: &&str| !line.is_empty() && !line.starts_with('#');
    metrics.lines().filter(of).count()
}

async fn metrics(world: &World) -> usize {
    let ops = world.sidecar.addresses().ops.unwrap();
    series(&http_get(ops, "/metrics").await)
}

/// Puts grants of many peers beside what is there; the ids of the grants.
async fn fill(world: &World) -> Vec<Uuid> {
    let file = world.config.data_dir.join("federation.db");
    let options = SqliteConnectOptions::new().filename(file);
    let mut store = options.connect().await.unwrap();
    let mut all = store.begin().await.unwrap();
    let peers: Vec<Uuid> = (0..PEERS).map(|_| Uuid::new_v4()).collect();
    for (number, peer) in peers.iter().enumerate() {
        sqlx::query("INSERT INTO peers (id, name, direction, state, created_at) VALUES (?, ?, 'inbound', 'active', 1)")
            .bind(peer.to_string())
            .bind(format!("filled-{number}"))
            .execute(&mut *all)
            .await
            .unwrap();
    }
    let mut grants = Vec::with_capacity(GRANTS);
    for number in 0..GRANTS {
        let (grant, user) = (Uuid::new_v4(), format!("filled-{number}"));
        let subject = SubjectId::of_user(&UserId::parse(&user).unwrap());
        let scope = json!({"resources": ["tasks"], "max_rows_per_query": 100, "excluded_resources": [],
            "filters": {"tasks": {"include_teams": [format!("team-{number}")], "include_personal": true}}});
        sqlx::query("INSERT INTO grants (id, peer_id, user_id, subject_id, scope, status, edit, created_at) VALUES (?, ?, ?, ?, ?, 'pending', 0, 1)")
            .bind(grant.to_string())
            .bind(peers[number % PEERS].to_string())
            .bind(user)
            .bind(subject.to_string())
            .bind(scope.to_string())
            .execute(&mut *all)
            .await
            .unwrap();
        grants.push(grant);
    }
    all.commit().await.unwrap();
    store.close().await.unwrap();
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
