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

pub(super) async fn the_history_of_a_grant_is_one_line_through_chains(store: &dyn Store) {
    let of = |n: u64, grant: u64| {
        let mut record = request(n);
        record.grant = Some(grant_id(grant));
        record
    };
    assert_eq!(store.history_head(grant_id(1)).await.unwrap(), None);
    // Before there is a chain there is no place.
    store.append_audit(&[of(90, 1)], None).await.unwrap();
    let mut noted = Vec::new();
    for n in 1..4 {
        begin(store, n).await;
        let batch = [
            of(10 * n, 1),
            of(10 * n + 1, 2),
            request(10 * n + 2),
            of(10 * n + 3, 1),
        ];
        let mark = JournalMark {
            journal: uuid(70 + n),
            applied: 4,
        };
        let mut heads = store.append_audit(&batch, Some(mark)).await.unwrap();
        heads.sort_by_key(|(grant, _)| *grant);
        // Tried again it changes nothing.
        assert_eq!(store.append_audit(&batch, Some(mark)).await.unwrap(), []);
        assert_eq!(heads.len(), 2);
        noted = heads;
    }
    let found = report(store).await;
    assert_eq!(found.finding, None);
    for (grant, head) in &noted {
        assert_eq!(store.history_head(*grant).await.unwrap(), Some(*head));
        assert_eq!(head.chain, uuid(803));
    }
    let rows = store.read_audit(0, 100).await.unwrap();
    let places = |grant| {
        let rows = rows
            .iter()
            .filter(|row| row.record.grant == Some(grant_id(grant)));
        rows.map(|row| row.history.map(|place| place.gseq))
            .collect::<Vec<_>>()
    };
    let expected = [None, Some(1), Some(2), Some(3), Some(4), Some(5), Some(6)];
    assert_eq!(places(1), expected);
    assert_eq!(places(2), expected[1..4]);
    assert_eq!(noted[0].1.gseq, 6);
}
