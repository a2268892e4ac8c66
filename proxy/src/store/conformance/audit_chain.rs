//! Laws of the chain that audit rows are linked into.

use std::sync::Arc;

use super::super::{ChainBeginning, SealedSecret, SecretPurpose, Store, StoreError};
use super::fixture::*;
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey, Report, verify};
use crate::audit::{AuditOutcome, AuditRecord, AuditText, Direction, Head, JournalMark};

fn key() -> Arc<ChainKey> {
    Arc::new(ChainKey::new(&[5; CHAIN_KEY_LEN]))
}

fn secret(n: u8) -> SealedSecret {
    SealedSecret {
        purpose: SecretPurpose::AuditKey,
        id: "chain".to_owned(),
        generation: 1,
        sealed: vec![n],
    }
}

fn beginning(n: u64, new_secrets: Vec<SealedSecret>) -> ChainBeginning {
    ChainBeginning {
        act: act(500 + n),
        chain: uuid(800 + n),
        key: key(),
        new_secrets,
    }
}

async fn begin(store: &dyn Store, n: u64) {
    let _ = store.begin_chain(&beginning(n, Vec::new())).await.unwrap();
}

fn request(n: u64) -> AuditRecord {
    let text = AuditText::short(&uuid(n).to_string());
    let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
    AuditRecord::new(uuid(n), after(0), inbound, allowed, text)
}

async fn report(store: &dyn Store) -> Report {
    let mut rows = Vec::new();
    loop {
        let last = rows
            .last()
            .map_or(0, |row: &crate::audit::AuditRow| row.position);
        let more = store.read_audit(last, 50).await.unwrap();
        if more.is_empty() {
            break;
        }
        rows.extend(more);
    }
    verify(&rows, &key(), &store.chain_heads().await.unwrap())
}

pub(super) async fn every_row_is_linked_and_verifies(store: &dyn Store) {
    begin(store, 1).await;
    let _ = store.create_grant(&act(1), new_grant(1)).await.unwrap();
    let requests: Vec<_> = (1..=100).map(request).collect();
    let mark = JournalMark {
        journal: uuid(70),
        applied: 100,
    };
    store.append_audit(&requests, Some(mark)).await.unwrap();
    store.append_audit(&requests, Some(mark)).await.unwrap();
    let _ = store
        .revoke_grant(&act(2), grant_id(1), None)
        .await
        .unwrap();
    let found = report(store).await;
    assert_eq!(found.finding, None);
    assert_eq!((found.verified, found.unlinked), (103, 0));
    assert_eq!(found.heads, store.chain_heads().await.unwrap());
}

pub(super) async fn a_chain_begins_where_the_one_before_ended(store: &dyn Store) {
    for n in 1..4 {
        begin(store, n).await;
        store.append_audit(&[request(n)], None).await.unwrap();
    }
    let found = report(store).await;
    assert_eq!(found.finding, None);
    assert_eq!(found.verified, 6);
    let heads = store.chain_heads().await.unwrap();
    let places: Vec<_> = heads
        .iter()
        .map(|head: &Head| (head.chain, head.seq))
        .collect();
    assert_eq!(places, [(uuid(801), 2), (uuid(802), 2), (uuid(803), 2)]);
    // Without a chain of its own a handle writes rows that nobody can vouch for.
    assert_eq!(store.revision().await.unwrap(), 3, "a beginning is an act");
}

pub(super) async fn keys_are_stored_with_the_chain_or_not_at_all(store: &dyn Store) {
    let first = beginning(1, vec![secret(1)]);
    let _ = store.begin_chain(&first).await.unwrap();
    let second = beginning(2, vec![secret(2)]);
    let refused = store.begin_chain(&second).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    assert_eq!(store.chain_heads().await.unwrap().len(), 1);
    let kept = store.load_secrets(SecretPurpose::AuditKey).await.unwrap();
    assert_eq!(kept, [secret(1)]);
    let found = report(store).await;
    // The beginning and the key's creation.
    assert_eq!((found.finding, found.verified), (None, 2));
}

pub(super) async fn a_failed_change_leaves_no_gap(store: &dyn Store) {
    begin(store, 1).await;
    let _ = store.create_grant(&act(1), new_grant(1)).await.unwrap();
    let again = store.create_grant(&act(2), new_grant(1)).await;
    assert!(again.is_err());
    let _ = store
        .revoke_grant(&act(3), grant_id(1), None)
        .await
        .unwrap();
    let found = report(store).await;
    assert_eq!((found.finding, found.verified), (None, 3));
}
