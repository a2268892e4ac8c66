//! Laws of the sealing secret and its change.

use certs::seal::KeyId;

use super::super::{
    NextSecret, ResealedRow, SealedKind, SealedSecret, SecretPurpose, Store, StoreError,
    SubjectToken,
};
use super::fixture::{START, act, user};

const PRESENT: KeyId = [1; 8];
const NEXT: KeyId = [2; 8];
const OTHER: KeyId = [3; 8];

/// What looks like a value sealed with that secret.
fn sealed(key_id: KeyId, byte: u8) -> Vec<u8> {
    [&b"MFS\x01"[..], &key_id, &[byte; 28]].concat()
}

fn token(name: &str, key_id: KeyId) -> SubjectToken {
    SubjectToken {
        user: user(name),
        sealed: sealed(key_id, 7),
    }
}

fn secret(key_id: KeyId) -> SealedSecret {
    SealedSecret {
        purpose: SecretPurpose::CursorKey,
        id: "cursor".to_owned(),
        generation: 1,
        sealed: sealed(key_id, 8),
    }
}

fn next() -> NextSecret {
    NextSecret {
        key_id: NEXT,
        former: vec![9; 60],
        begun_at: START,
    }
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Conflict { .. })),
        "{result:?}"
    );
}

pub(super) async fn a_store_has_one_secret_from_its_first_start(store: &dyn Store) {
    assert_eq!(store.sealing().await.unwrap(), None);
    // Rows from before it was noted decide which it is.
    let _ = store
        .put_secret_if_absent(&act(1), secret(PRESENT))
        .await
        .unwrap();
    is_conflict(store.adopt_sealing(&OTHER).await);
    assert_eq!(store.sealing().await.unwrap(), None);
    let revision = store.revision().await.unwrap();
    store.adopt_sealing(&PRESENT).await.unwrap();
    store.adopt_sealing(&PRESENT).await.unwrap();
    is_conflict(store.adopt_sealing(&OTHER).await);
    assert_eq!(store.revision().await.unwrap(), revision);
    let state = store.sealing().await.unwrap().unwrap();
    assert_eq!((state.key_id, state.next), (PRESENT, None));
}

pub(super) async fn a_change_of_the_secret_ends_when_no_row_is_left(store: &dyn Store) {
    let _ = store
        .put_secret_if_absent(&act(1), secret(PRESENT))
        .await
        .unwrap();
    store.adopt_sealing(&PRESENT).await.unwrap();
    for (n, name) in [(2, "a"), (3, "b")] {
        let _ = store
            .put_subject_token(&act(n), token(name, PRESENT))
            .await
            .unwrap();
    }
    is_conflict(store.finish_reseal(&act(4)).await);
    is_conflict(store.begin_reseal(&act(4), &OTHER, next()).await);
    let begun = store.begin_reseal(&act(5), &PRESENT, next()).await.unwrap();
    assert!(begun.changed);
    is_conflict(store.begin_reseal(&act(6), &PRESENT, next()).await);
    let state = store.sealing().await.unwrap().unwrap();
    assert_eq!((state.key_id, state.next), (PRESENT, Some(next())));

    let rows = store.rows_sealed_otherwise(&NEXT, 2).await.unwrap();
    assert_eq!(rows.len(), 2);
    // One of them changes before it is put back.
    let changed = rows
        .iter()
        .find(|row| row.kind == SealedKind::SubjectToken)
        .unwrap();
    let newer = SubjectToken {
        user: user(&changed.id),
        sealed: sealed(NEXT, 99),
    };
    let _ = store
        .put_subject_token(&act(7), newer.clone())
        .await
        .unwrap();
    let resealed: Vec<ResealedRow> = rows
        .iter()
        .map(|row| ResealedRow {
            row: row.clone(),
            sealed: sealed(NEXT, 10),
        })
        .collect();
    let put = store.put_resealed(&act(8), &resealed).await.unwrap();
    assert_eq!((put.changed, put.value), (true, 1));
    let kept = store
        .find_subject_token(&newer.user)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept.sealed, newer.sealed);
    let again = store.put_resealed(&act(9), &resealed).await.unwrap();
    assert_eq!((again.changed, again.value), (false, 0));

    is_conflict(store.finish_reseal(&act(10)).await);
    let rest = store.rows_sealed_otherwise(&NEXT, 10).await.unwrap();
    assert_eq!(rest.len(), 1);
    let resealed = rest.into_iter().map(|row| ResealedRow {
        row,
        sealed: sealed(NEXT, 11),
    });
    let _ = store
        .put_resealed(&act(11), &resealed.collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(store.finish_reseal(&act(12)).await.unwrap().changed);
    let state = store.sealing().await.unwrap().unwrap();
    assert_eq!((state.key_id, state.next), (NEXT, None));
    let counts = store.sealed_counts().await.unwrap();
    assert!(counts.iter().all(|count| count.key_id == NEXT));
    assert_eq!(counts.iter().map(|count| count.rows).sum::<u64>(), 3);
}

pub(super) async fn a_row_of_another_secret_is_not_taken(store: &dyn Store) {
    store.adopt_sealing(&PRESENT).await.unwrap();
    is_conflict(store.put_secret_if_absent(&act(1), secret(OTHER)).await);
    is_conflict(store.put_subject_token(&act(2), token("a", NEXT)).await);
    let _ = store.begin_reseal(&act(3), &PRESENT, next()).await.unwrap();
    // Now either.
    let _ = store
        .put_subject_token(&act(4), token("a", NEXT))
        .await
        .unwrap();
    let _ = store
        .put_subject_token(&act(5), token("b", PRESENT))
        .await
        .unwrap();
    is_conflict(store.put_subject_token(&act(6), token("b", OTHER)).await);
    let _ = store
        .put_subject_token(&act(7), token("b", NEXT))
        .await
        .unwrap();
    let _ = store.finish_reseal(&act(8)).await.unwrap();
    is_conflict(store.put_subject_token(&act(9), token("b", PRESENT)).await);
}
