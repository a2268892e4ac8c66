//! Laws of the rotation of roots.

use super::super::{SealedSecret, SecretPurpose, Store, StoreError, TrustAcknowledged, TrustPhase};
use super::fixture::{START, act, active_grant, grant_id};

fn root(generation: u32) -> SealedSecret {
    SealedSecret {
        purpose: SecretPurpose::CaKey,
        id: "embedded".to_owned(),
        generation,
        sealed: vec![7; 60],
    }
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Conflict { .. })),
        "{result:?}"
    );
}

async fn roots(store: &dyn Store) -> Vec<u32> {
    let all = store.load_secrets(SecretPurpose::CaKey).await.unwrap();
    all.iter().map(|secret| secret.generation).collect()
}

pub(super) async fn a_rotation_goes_step_by_step(store: &dyn Store) {
    let _ = store.put_secret_if_absent(&act(1), root(1)).await.unwrap();
    let state = store.trust().await.unwrap();
    assert_eq!((state.generation, state.ca_generation), (1, 1));
    assert_eq!((state.phase, state.since), (TrustPhase::Steady, None));
    is_conflict(store.apply_rotation(&act(2)).await);
    is_conflict(store.finish_rotation(&act(3), &[]).await);
    let odd = store.plan_rotation(&act(4), root(3)).await;
    assert!(matches!(odd, Err(StoreError::Invalid { .. })), "{odd:?}");

    let planned = store.plan_rotation(&act(5), root(2)).await.unwrap().value;
    assert_eq!((planned.generation, planned.since), (1, Some(START)));
    is_conflict(store.plan_rotation(&act(6), root(2)).await);
    is_conflict(store.finish_rotation(&act(7), &[]).await);
    assert_eq!(roots(store).await, [2, 1]);

    let applied = store.apply_rotation(&act(8)).await.unwrap().value;
    assert_eq!((applied.generation, applied.ca_generation), (2, 1));
    is_conflict(store.apply_rotation(&act(9)).await);
    is_conflict(store.plan_rotation(&act(10), root(2)).await);

    let finished = store.finish_rotation(&act(11), &[]).await.unwrap().value;
    assert_eq!((finished.generation, finished.ca_generation), (3, 2));
    assert_eq!(finished.phase, TrustPhase::Steady);
    assert_eq!(store.trust().await.unwrap(), finished);
    assert_eq!(roots(store).await, [2], "the old key is gone");
    is_conflict(store.finish_rotation(&act(12), &[]).await);
}

pub(super) async fn acknowledgements_never_go_back(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let grant = grant_id(1);
    for (n, generation, changed) in [(1, 2, true), (2, 2, false), (3, 1, false), (4, 3, true)] {
        let done = store
            .acknowledge_trust(&act(900 + n), grant, generation)
            .await
            .unwrap();
        assert_eq!(done.changed, changed, "{n}");
    }
    let known = store.trust_acknowledgements().await.unwrap();
    let at = START;
    let generation = 3;
    assert_eq!(
        known,
        [TrustAcknowledged {
            grant,
            generation,
            at
        }]
    );
}
