//! Laws of replicas and of the jobs that one of them does.

use uuid::Uuid;

use super::super::{Heartbeat, ReplicaRecord, Store};
use super::fixture::{active_grant, uuid};

fn beat(n: u64, applied: u64) -> Heartbeat {
    Heartbeat {
        id: uuid(n),
        name: format!("host:{n}"),
        applied,
        lease_ms: 2_000,
        fence_ms: 1_500,
        leases_left_ms: 0,
    }
}

async fn record(store: &dyn Store, id: Uuid) -> Option<ReplicaRecord> {
    let table = store.replicas().await.unwrap();
    table.replicas.into_iter().find(|one| one.id == id)
}

pub(super) async fn a_heartbeat_keeps_one_row_and_reads_the_revision(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    assert_eq!(store.heartbeat(&beat(1, 0)).await.unwrap(), before);
    let first = record(store, uuid(1)).await.unwrap();
    assert_eq!(
        (first.applied, first.lease_ms, first.fence_ms),
        (0, 2_000, 1_500)
    );
    assert_eq!(first.started_at, first.heartbeat_at);
    assert_eq!((first.name.as_str(), first.left_at), ("host:1", None));

    active_grant(store, 1, 1).await;
    let now = store.revision().await.unwrap();
    assert!(now > before);
    assert_eq!(store.heartbeat(&beat(1, now)).await.unwrap(), now);
    assert_eq!(store.heartbeat(&beat(2, 0)).await.unwrap(), now);
    let second = record(store, uuid(1)).await.unwrap();
    assert_eq!((second.applied, second.started_at), (now, first.started_at));
    assert!(second.heartbeat_at >= first.heartbeat_at);
    let table = store.replicas().await.unwrap();
    assert_eq!(table.replicas.len(), 2);
    assert!(
        table
            .replicas
            .iter()
            .all(|one| one.heartbeat_at <= table.now)
    );
    assert_eq!(store.revision().await.unwrap(), now, "it is no act");
}

pub(super) async fn leases_of_older_revisions_are_never_shortened(store: &dyn Store) {
    let long = Heartbeat {
        leases_left_ms: 60_000,
        ..beat(1, 3)
    };
    store.heartbeat(&long).await.unwrap();
    let until = record(store, uuid(1)).await.unwrap().leases_until;
    store.heartbeat(&beat(1, 4)).await.unwrap();
    let after = record(store, uuid(1)).await.unwrap();
    assert_eq!((after.applied, after.leases_until), (4, until));
    assert!(until > after.heartbeat_at + 50_000);
}

pub(super) async fn one_that_left_is_kept_until_its_leases_have_ended(store: &dyn Store) {
    store.heartbeat(&beat(1, 0)).await.unwrap();
    store.heartbeat(&beat(2, 0)).await.unwrap();
    store.leave_replicas(uuid(1)).await.unwrap();
    let left = record(store, uuid(1)).await.unwrap();
    assert!(left.left_at.is_some_and(|at| at >= left.heartbeat_at));
    assert_eq!(store.forget_replicas(0).await.unwrap(), 0, "too early");
    // As if both had been silent for longer than fence and lease last.
    assert_eq!(store.forget_replicas(-60_000).await.unwrap(), 2);
    assert_eq!(store.replicas().await.unwrap().replicas, []);
    // A heartbeat after that is a new beginning.
    store.heartbeat(&beat(1, 0)).await.unwrap();
    assert_eq!(record(store, uuid(1)).await.unwrap().left_at, None);
}

pub(super) async fn a_job_has_one_runner_until_it_leaves_or_ends(store: &dyn Store) {
    for n in [1, 2] {
        store.heartbeat(&beat(n, 0)).await.unwrap();
    }
    let take = async |n, ms| store.take_job("archive", uuid(n), ms).await.unwrap();
    assert!(take(1, 600_000).await);
    assert!(take(1, 600_000).await, "it goes on");
    assert!(!take(2, 600_000).await);
    assert!(store.take_job("expiry", uuid(2), 600_000).await.unwrap());
    assert!(!take(1, 0).await, "given up");
    assert!(take(2, 600_000).await);
    store.leave_replicas(uuid(2)).await.unwrap();
    assert!(take(1, 1).await, "left");
    while !take(2, 600_000).await {}
}
