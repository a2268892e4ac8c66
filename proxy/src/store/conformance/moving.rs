//! A store that is moved from SQLite to PostgreSQL is the same store there.

use std::path::PathBuf;
use std::sync::Arc;

use policy::time::UnixMillis;

use super::super::postgres::tests::Place;
use super::super::{
    ChainBeginning, MoveError, NewSession, OpenError, PostgresStore, SealStore, SealedSecret,
    SecretPurpose, SqliteStore, Store,
};
use super::cut_off;
use super::fixture::*;
use crate::audit::chain::{ChainKey, Verifier};
use crate::audit::{AuditLog, AuditOutcome, AuditRecord, AuditText, Direction};

/// Something in most tables, with a chain.
async fn filled(home: &tempfile::TempDir, key: &Arc<ChainKey>) -> (PathBuf, SqliteStore) {
    let store = super::sqlite(home).await;
    let beginning = ChainBeginning {
        act: act(900),
        chain: uuid(800),
        key: Arc::clone(key),
        new_secrets: vec![SealedSecret {
            purpose: SecretPurpose::AuditKey,
            id: "chain".to_owned(),
            generation: 1,
            sealed: b"MSF1keyidkey and so on".to_vec(),
        }],
    };
    changed(store.begin_chain(&beginning).await);
    active_grant(&store, 1, 0).await;
    active_grant(&store, 2, 10).await;
    changed(
        store
            .revoke_grant(&act(20), grant_id(2), Some("left"))
            .await,
    );
    changed(store.create_grant(&act(21), new_grant(3)).await);
    let session = NewSession {
        id: uuid(1),
        token_sha256: digest(1),
        local_user: user("amira"),
        expires_at: after(YEAR),
    };
    changed(store.create_session(&act(22), session).await);
    store.adopt_sealing(b"keyidkey").await.unwrap();
    store
        .book_rows(grant_id(1), 19_000, 10, &[[1; 16], [2; 16]])
        .await
        .unwrap();
    // More than one batch, over two months, without a zero byte more than there is room for.
    let records: Vec<_> = (0..1_200u64)
        .map(|n| {
            let id = uuid(100_000 + n);
            let request = AuditText::short(&id.to_string());
            let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
            let mut record = AuditRecord::new(id, START, inbound, allowed, request);
            record.grant = Some(grant_id(1));
            record
        })
        .collect();
    for batch in records.chunks(300) {
        store.append_audit(batch, None).await.unwrap();
    }
    (home.path().join("store.db"), store)
}

/// What can be read of a store, in words.
async fn told(store: &dyn Store) -> String {
    let image = store.load(START).await.unwrap();
    let mut told = format!(
        "{} {:?} {:?} {:?}",
        image.revision, image.peers, image.grants, image.certificates
    );
    told += &format!("{:?}", store.store_id().await.unwrap());
    told += &format!("{:?}", store.list_sessions().await.unwrap());
    told += &format!("{:?}", store.sealing().await.unwrap());
    told += &format!("{:?}", store.sealed_counts().await.unwrap());
    told += &format!("{:?}", store.trust().await.unwrap());
    told += &format!("{:?}", store.rows_seen_by_grant(19_000).await.unwrap());
    told += &format!("{:?}", store.chain_heads().await.unwrap());
    let mut after = 0;
    loop {
        let rows = store.read_audit(after, 1_000).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = last.position;
        told += &format!("{rows:?}");
    }
    told
}

async fn verified(store: &dyn Store, key: &ChainKey) -> u64 {
    let mut verifier = Verifier::new(key);
    for head in store.chain_heads().await.unwrap() {
        verifier.expect(head);
    }
    let mut after = 0;
    loop {
        let rows = store.read_audit(after, 1_000).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = last.position;
        rows.iter().for_each(|row| verifier.push(row));
    }
    let report = verifier.finish();
    assert_eq!(report.finding, None);
    report.verified
}

fn place(test: &str) -> Option<Place> {
    // Another id than that of the file: the file's is the one that counts.
    Place::find(test, uuid(77), UnixMillis(5))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_moved_is_the_same_store() {
    let Some(place) = place("what_was_moved_is_the_same_store") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let key = Arc::new(ChainKey::new(&[5; 32]));
    let (file, store) = filled(&home, &key).await;
    let before = told(&store).await;
    let rows = verified(&store, &key).await;

    let refused = PostgresStore::move_from(&file, &place.options).await;
    assert!(
        matches!(refused, Err(MoveError::Source(_))),
        "a file in use was moved"
    );
    drop(store);
    let moved = PostgresStore::move_from(&file, &place.options)
        .await
        .unwrap();
    let log = moved
        .iter()
        .find(|one| one.table == "federation_audit_log")
        .unwrap();
    assert_eq!(log.rows, rows);

    let there = place.open().await;
    assert_eq!(told(&there).await, before);
    assert_eq!(verified(&there, &key).await, rows);
    // It goes on behind the last position and in a chain of its own.
    let beginning = ChainBeginning {
        act: act(901),
        chain: uuid(801),
        key: Arc::clone(&key),
        new_secrets: Vec::new(),
    };
    changed(there.begin_chain(&beginning).await);
    changed(there.create_grant(&act(23), new_grant(4)).await);
    assert_eq!(verified(&there, &key).await, rows + 2);
    // The file is as it was, and is not moved onto what is there.
    let again = super::sqlite(&home).await;
    assert_eq!(told(&again).await, before);
    drop(again);
    let refused = PostgresStore::move_from(&file, &place.options).await;
    assert!(
        matches!(refused, Err(MoveError::Target(_))),
        "a store was moved onto another"
    );
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_was_cut_off_goes_on() {
    let Some(place) = place("a_move_that_was_cut_off_goes_on") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let key = Arc::new(ChainKey::new(&[5; 32]));
    let (file, store) = filled(&home, &key).await;
    let before = told(&store).await;
    drop(store);
    let (mut times, mut cut, mut halves) = (40, 0, 0);
    loop {
        if cut_off(PostgresStore::move_from(&file, &place.options), times).await {
            break;
        }
        cut += 1;
        times += 160;
        let mut hand = place.connect().await;
        let marked: bool = sqlx::query_scalar("SELECT to_regclass('store_move') IS NOT NULL")
            .fetch_one(&mut hand)
            .await
            .unwrap();
        if marked {
            halves += 1;
            let refused = PostgresStore::open(&place.options).await.unwrap_err();
            assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
        }
        // The server notices that the connection is gone, and gives its lock back.
        until_free(&place).await;
    }
    assert!(cut > 2 && halves > 0, "{cut} {halves}: nothing was cut off");
    let there = match PostgresStore::open(&place.options).await {
        Ok(there) => there,
        // The last try may have ended in an error, as one that met a lock.
        Err(_) => {
            PostgresStore::move_from(&file, &place.options)
                .await
                .unwrap();
            place.open().await
        }
    };
    assert_eq!(told(&there).await, before);
    place.remove().await;
}

/// Waits until nobody holds a lock of a session in the database of the tests that is the schema's.
async fn until_free(place: &Place) {
    let mut hand = place.connect().await;
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_namespace n ON l.objid = n.oid \
                WHERE l.locktype = 'advisory' AND n.nspname = $1";
    let free = async {
        loop {
            let held: i64 = sqlx::query_scalar(held)
                .bind(&place.options.schema)
                .fetch_one(&mut hand)
                .await
                .unwrap();
            if held == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), free)
        .await
        .expect("the lock stays held");
}
