//! What only a store on PostgreSQL can get wrong: several processes, months of the log, what a connection is set to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod log;
mod place;

use std::time::Duration;

use futures_util::future::join_all;
use policy::id::{GrantId, PeerId, UserId};
use policy::scope::Scope;
use policy::time::UnixMillis;
use sqlx::Connection;
use uuid::Uuid;
use zeroize::Zeroizing;

pub(in crate::store) use place::Place;

use super::PostgresStore;
use crate::config::{Password, PostgresHost};
use crate::store::conformance::cut_off;
use crate::store::{
    Act, Actor, KeptList, NewGrant, NewSession, NewToken, OpenError, RevocationStore, Store,
    StoreError, TokenClaim,
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn uuid(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x018b_cfe5_6800_7000, 0x8000_0000_0000_0000 | n << 20)
}

fn act(n: u64) -> Act {
    Act {
        id: uuid(1000 + n),
        actor: Actor::Sidecar("test"),
        now: NOW,
    }
}

fn grant(n: u64) -> NewGrant {
    NewGrant {
        id: GrantId::new(uuid(100 + n)),
        peer_name: "home".parse().unwrap(),
        peer_id: PeerId::new(uuid(200)),
        user: UserId::parse("amira").unwrap(),
        scope: Scope::parse(&serde_json::json!({"resources": ["tasks"]}), &[]).unwrap(),
        expires_at: None,
    }
}

fn place(test: &str) -> Option<Place> {
    Place::find(test, uuid(1), NOW)
}

#[tokio::test]
async fn the_schema_goes_forward_only() {
    let Some(place) = place("the_schema_goes_forward_only") else {
        return;
    };
    let first = PostgresStore::migrate(&place.options).await.unwrap();
    assert_eq!(first.from, None);
    let again = PostgresStore::migrate(&place.options).await.unwrap();
    assert_eq!((again.from, again.to), (Some(first.to), first.to));
    let mut hand = place.connect().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES ($1, 'later', true, ''::BYTEA, 0)",
    )
    .bind(first.to + 1)
    .execute(&mut hand)
    .await
    .unwrap();
    let refused = PostgresStore::open(&place.options).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerSchema { found, known, .. } if (found, known) == (first.to + 1, first.to)),
        "{refused}"
    );
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 1")
        .execute(&mut hand)
        .await
        .unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = ''::BYTEA")
        .execute(&mut hand)
        .await
        .unwrap();
    let refused = PostgresStore::open(&place.options).await.unwrap_err();
    assert!(matches!(refused, OpenError::Migration { .. }), "{refused}");
    place.remove().await;
}

#[tokio::test]
async fn what_was_committed_is_there_for_the_next_process() {
    let Some(place) = place("what_was_committed_is_there_for_the_next_process") else {
        return;
    };
    let store = place.open().await;
    let record = store.create_grant(&act(1), grant(1)).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.revision().await.unwrap(), record.revision);
    assert_eq!(store.grant(grant(1).id).await.unwrap(), record.value);
    assert_eq!(store.store_id().await.unwrap(), uuid(1));
    place.remove().await;
}

#[tokio::test]
async fn a_second_writer_is_busy_not_broken_and_readers_go_on() {
    let Some(mut place) = place("a_second_writer_is_busy_not_broken_and_readers_go_on") else {
        return;
    };
    let one = place.open().await;
    place.options.lock_timeout = Duration::from_millis(50);
    let two = place.open().await;
    let mut writer = one.write().await.unwrap();
    let (tx, _) = writer.begin().await.unwrap();
    assert_eq!(
        two.create_grant(&act(1), grant(1)).await.unwrap_err(),
        StoreError::Busy
    );
    assert_eq!(two.health().await, Err(StoreError::Busy));
    assert_eq!(two.revision().await.unwrap(), 0);
    tx.rollback().await.unwrap();
    drop(writer);
    two.health().await.unwrap();
    let committed = two.create_grant(&act(1), grant(1)).await.unwrap();
    assert_eq!((committed.revision, one.revision().await.unwrap()), (1, 1));
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claims_over_two_processes_one_wins() {
    let Some(place) = place("of_many_claims_over_two_processes_one_wins") else {
        return;
    };
    let stores = [place.open().await, place.open().await];
    let _ = stores[0].create_grant(&act(1), grant(1)).await.unwrap();
    let token = NewToken {
        grant: grant(1).id,
        sha256: [3; 32],
        prefix: "03030303".to_owned(),
        expires_at: UnixMillis(NOW.0 + 900_000),
    };
    let _ = stores[0].create_token(&act(2), token).await.unwrap();
    let claims = (0..64).map(|n| {
        let store = stores[n % 2].clone();
        let act = act(10 + u64::try_from(n).unwrap());
        tokio::spawn(async move { store.claim_token(&act, &[3; 32]).await.unwrap().value })
    });
    let claims: Vec<_> = join_all(claims)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let won = claims
        .iter()
        .filter(|claim| matches!(claim, TokenClaim::Claimed(_)));
    assert_eq!(won.count(), 1);
    let used = claims.iter().filter(|claim| **claim == TokenClaim::Used);
    assert_eq!(used.count(), 63);
    place.remove().await;
}

/// Whoever follows the log by position never meets a row behind one that it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_have_no_gap_and_positions_are_in_the_order_of_commits() {
    let Some(place) = place("revisions_have_no_gap_and_positions_are_in_the_order_of_commits")
    else {
        return;
    };
    const EACH: u64 = 60;
    let stores = [place.open().await, place.open().await, place.open().await];
    let writers = stores.iter().zip(0u64..).map(|(store, which)| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let number = which * 1000 + n;
                let session = NewSession {
                    id: uuid(5_000 + number),
                    token_sha256: hash(number),
                    local_user: UserId::parse("amira").unwrap(),
                    expires_at: UnixMillis(NOW.0 + 1),
                };
                let _ = store.create_session(&act(number), session).await.unwrap();
            }
        })
    });
    let follower = {
        let store = stores[0].clone();
        tokio::spawn(async move {
            use crate::audit::AuditLog;
            let (mut last, mut seen) = (0, Vec::new());
            while seen.len() < usize::try_from(EACH * 3).unwrap() {
                for row in store.read_audit(last, 1000).await.unwrap() {
                    last = row.position;
                    seen.push(row.record.revision.unwrap());
                }
                tokio::task::yield_now().await;
            }
            seen
        })
    };
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let seen = tokio::time::timeout(Duration::from_secs(30), follower)
        .await
        .expect("the follower missed rows")
        .unwrap();
    assert!(seen.into_iter().eq(1..=EACH * 3));
    place.remove().await;
}

fn hash(n: u64) -> [u8; 32] {
    let mut hash = [9; 32];
    hash[..8].copy_from_slice(&n.to_be_bytes());
    hash
}

#[tokio::test]
async fn connections_that_the_server_closed_are_replaced() {
    let Some(place) = place("connections_that_the_server_closed_are_replaced") else {
        return;
    };
    let store = place.open().await;
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    let mut hand = place.connect().await;
    let pids: Vec<i32> = {
        let mut writer = store.write().await.unwrap();
        let mut reader = store.read().await.unwrap();
        let mut pids = Vec::new();
        for conn in [&mut **writer, &mut *reader] {
            pids.push(
                sqlx::query_scalar("SELECT pg_backend_pid()")
                    .fetch_one(conn)
                    .await
                    .unwrap(),
            );
        }
        pids
    };
    for pid in pids {
        let ended: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1, 10000)")
            .bind(pid)
            .fetch_one(&mut hand)
            .await
            .unwrap();
        assert!(ended);
    }
    // At most one call finds out; nothing stays broken.
    let _ = store.create_grant(&act(2), grant(2)).await;
    let _ = store.revision().await;
    store.health().await.unwrap();
    let _ = store.create_grant(&act(3), grant(3)).await.unwrap();
    assert_eq!(
        store.list_grants().await.unwrap().len() as u64,
        store.revision().await.unwrap()
    );
    place.remove().await;
}

/// A call that is dropped while it waits leaves nothing open on the connection that somebody else gets then.
#[tokio::test]
async fn what_was_cut_off_leaves_no_transaction_open() {
    let Some(mut place) = place("what_was_cut_off_leaves_no_transaction_open") else {
        return;
    };
    place.options.max_connections = 2;
    let store = place.open().await;
    let mut hand = place.connect().await;
    for n in 0..40u64 {
        let times = usize::try_from(n % 10).unwrap();
        cut_off(store.load(NOW), times).await;
        cut_off(store.health(), times).await;
        // Read before and behind a change by somebody else, on the one connection there is.
        let before = store.revision().await.unwrap();
        sqlx::query("UPDATE meta SET revision = revision + 1")
            .execute(&mut hand)
            .await
            .unwrap();
        assert_eq!(store.revision().await.unwrap(), before + 1, "{times}");
    }
    store.health().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn readers_cannot_write_and_every_setting_is_in_force() {
    let Some(mut place) = place("readers_cannot_write_and_every_setting_is_in_force") else {
        return;
    };
    place.options.statement_timeout = Duration::from_millis(4_321);
    place.options.lock_timeout = Duration::from_millis(1_234);
    let store = place.open().await;
    let mut reader = store.read().await.unwrap();
    let refused = sqlx::query("UPDATE meta SET revision = 9")
        .execute(&mut *reader)
        .await;
    assert!(refused.is_err());
    drop(reader);
    let mut writer = store.write().await.unwrap();
    for (name, expected) in [
        ("statement_timeout", "4321ms"),
        ("lock_timeout", "1234ms"),
        ("idle_in_transaction_session_timeout", "1s"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("application_name", "mosaic-federation"),
        ("search_path", place.options.schema.as_str()),
    ] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&mut **writer)
            .await
            .unwrap();
        assert_eq!(value, expected, "{name}");
    }
    drop(writer);
    assert_eq!(store.revision().await.unwrap(), 0);
    place.remove().await;
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended() {
    let Some(mut place) = place("a_statement_that_takes_too_long_is_ended") else {
        return;
    };
    place.options.statement_timeout = Duration::from_millis(50);
    let store = place.open().await;
    let mut reader = store.read().await.unwrap();
    let ended = sqlx::query("SELECT pg_sleep(30)")
        .execute(&mut *reader)
        .await
        .map_err(super::driver)
        .unwrap_err();
    assert!(matches!(ended, StoreError::Unavailable { .. }), "{ended}");
    place.remove().await;
}

#[tokio::test]
async fn a_row_edited_by_hand_fails_the_whole_image() {
    let Some(place) = place("a_row_edited_by_hand_fails_the_whole_image") else {
        return;
    };
    let store = place.open().await;
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    let mut hand = place.connect().await;
    sqlx::query("UPDATE grants SET scope = '{\"resources\":[\"everything\"]}'")
        .execute(&mut hand)
        .await
        .unwrap();
    let refused = store.load(NOW).await.unwrap_err();
    let of_grants = matches!(
        refused,
        StoreError::Corrupt {
            table: "grants",
            ..
        }
    );
    assert!(of_grants, "{refused}");
    place.remove().await;
}

#[tokio::test]
async fn each_commit_tells_its_revision() {
    let Some(place) = place("each_commit_tells_its_revision") else {
        return;
    };
    let store = place.open().await;
    let hand = place.pool().await;
    let mut listener = sqlx::postgres::PgListener::connect_with(&hand)
        .await
        .unwrap();
    let channel = format!("mosaic_federation_{}", place.options.schema);
    listener.listen(&channel).await.unwrap();
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    // Changes nothing, and tells nothing.
    let _ = store.create_grant(&act(2), grant(1)).await.unwrap_err();
    let _ = store.create_grant(&act(3), grant(2)).await.unwrap();
    for expected in ["1", "2"] {
        let told = tokio::time::timeout(Duration::from_secs(10), listener.recv())
            .await
            .expect("nothing was told")
            .unwrap();
        assert_eq!(told.payload(), expected);
    }
    drop(listener);
    hand.close().await;
    place.remove().await;
}

#[tokio::test]
async fn a_text_that_has_no_place_is_refused_as_what_it_is() {
    let Some(place) = place("a_text_that_has_no_place_is_refused_as_what_it_is") else {
        return;
    };
    let store = place.open().await;
    let list = KeptList {
        source: "a\0b".to_owned(),
        sha256: [1; 32],
        der: vec![1],
        issuer: vec![2],
    };
    let refused = store.keep_lists("a\0b", &[list]).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    place.remove().await;
}

#[tokio::test]
async fn a_password_is_in_no_message() {
    let Some(mut place) = place("a_password_is_in_no_message") else {
        return;
    };
    let password = Password::new(Zeroizing::new("geheim".to_owned()));
    place.options.password = Some(password);
    let shown = format!("{:?}", place.options);
    let database = std::mem::replace(&mut place.options.database, "no_such_database".to_owned());
    let refused = PostgresStore::open(&place.options).await.unwrap_err();
    assert!(
        refused.to_string().contains("no_such_database"),
        "{refused}"
    );
    let facts = PostgresStore::facts(&place.options).await.unwrap_err();
    place.options.database = database;
    place.options.host = PostgresHost::Network("127.0.0.1".to_owned());
    let port = std::mem::replace(&mut place.options.port, 1);
    let unreachable = PostgresStore::open(&place.options).await.unwrap_err();
    place.options.port = port;
    for text in [
        shown,
        format!("{refused:?} {refused}"),
        format!("{facts:?}"),
        format!("{unreachable:?} {unreachable}"),
    ] {
        assert!(!text.contains("geheim"), "{text}");
    }
}

#[tokio::test]
async fn a_server_says_what_it_is() {
    let Some(place) = place("a_server_says_what_it_is") else {
        return;
    };
    let facts = PostgresStore::facts(&place.options).await.unwrap();
    assert!(facts.version_number >= 150_000, "{facts:?}");
    assert!(!facts.in_recovery);
    let mut hand = place.connect().await;
    hand.ping().await.unwrap();
    let schemas: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = $1")
        .bind(&place.options.schema)
        .fetch_one(&mut hand)
        .await
        .unwrap();
    assert_eq!(schemas, 0, "asking has made something");
}
