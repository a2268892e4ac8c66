//! Laws of tokens and enrollment.

use futures_util::future::join_all;
use policy::grant::GrantStatus;
use policy::peer::PeerState;

use super::super::*;
use super::fixture::*;

pub(super) async fn of_many_claims_one_wins(store: &dyn Store) {
    changed(store.create_grant(&act(1), new_grant(1)).await);
    changed(store.create_token(&act(2), new_token(1, 1, 0)).await);
    let attempts: Vec<Act> = (0..64).map(|n| act(100 + n)).collect();
    let token = digest(1);
    let claims = join_all(attempts.iter().map(|act| store.claim_token(act, &token))).await;
    let claims: Vec<_> = claims.into_iter().map(Result::unwrap).collect();
    let (won, lost): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| claim.changed);
    assert_eq!((won.len(), lost.len()), (1, 63));
    let TokenClaim::Claimed(claim) = &won[0].value else {
        panic!("{won:?}");
    };
    assert_eq!(claim.grant.id, grant_id(1));
    assert_eq!(claim.peer_name, name("home"));
    assert!(lost.iter().all(|claim| claim.value == TokenClaim::Used));
    assert_eq!(store.revision().await.unwrap(), 3);
}

pub(super) async fn a_claim_says_why_it_was_refused(store: &dyn Store) {
    let claim = async |act: Act, n: u64| store.claim_token(&act, &digest(n)).await.unwrap().value;
    assert_eq!(claim(act(1), 1).await, TokenClaim::Unknown);
    changed(store.create_grant(&act(2), new_grant(1)).await);
    changed(store.create_token(&act(3), new_token(1, 1, 0)).await);
    assert_eq!(claim(act_at(4, 900_000), 1).await, TokenClaim::Expired);
    assert!(matches!(
        claim(act_at(5, 899_999), 1).await,
        TokenClaim::Claimed(_)
    ));
    assert_eq!(claim(act_at(6, 900_000), 1).await, TokenClaim::Used);
}

pub(super) async fn a_new_token_withdraws_the_old_one(store: &dyn Store) {
    changed(store.create_grant(&act(1), new_grant(1)).await);
    changed(store.create_token(&act(2), new_token(1, 1, 0)).await);
    changed(store.create_token(&act(3), new_token(2, 1, 0)).await);
    let old = store.claim_token(&act(4), &digest(1)).await.unwrap().value;
    assert_eq!(old, TokenClaim::Withdrawn);
    changed(store.claim_token(&act(5), &digest(2)).await);
    // A claimed token does not stand in the way of the next: the answer may have been lost.
    changed(store.create_token(&act(6), new_token(3, 1, 0)).await);
    let collision = store.create_token(&act(7), new_token(2, 1, 0)).await;
    assert!(
        matches!(collision, Err(StoreError::Conflict { .. })),
        "{collision:?}"
    );
    changed(store.claim_token(&act(8), &digest(3)).await);
}

pub(super) async fn lives_longer_than_allowed_are_refused(store: &dyn Store) {
    changed(store.create_grant(&act(1), new_grant(1)).await);
    let with_life = |millis: i64| NewToken {
        expires_at: after(millis),
        ..new_token(1, 1, 0)
    };
    for millis in [-1, 0, 900_001, i64::MAX - START.0] {
        let refused = store.create_token(&act(2), with_life(millis)).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid { .. })),
            "{millis}: {refused:?}"
        );
    }
    for prefix in ["", "1234567", "123456789", "ABCDEF01", "12 45678"] {
        let token = NewToken {
            prefix: prefix.to_owned(),
            ..new_token(1, 1, 0)
        };
        let refused = store.create_token(&act(3), token).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid { .. })),
            "{prefix}: {refused:?}"
        );
    }
    changed(store.create_token(&act(4), with_life(1)).await);
}

pub(super) async fn replacement_revokes_and_reopens(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let refused = store.create_token(&act(6), new_token(2, 1, 0)).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "an active grant needs --replace"
    );
    let before = store.grant(grant_id(1)).await.unwrap().grant;
    let replaced = changed(store.replace_token(&act(7), new_token(2, 1, 0)).await);
    assert_eq!(replaced.revoked_certificates, 1);
    let pending = store.grant(grant_id(1)).await.unwrap().grant;
    assert_eq!(
        (pending.status, pending.edit),
        (GrantStatus::Pending, before.edit + 1)
    );

    changed(store.claim_token(&act(8), &digest(2)).await);
    changed(store.record_issue_intent(&act(9), intent(2, 1)).await);
    let done = enrollment(2, 1, after(YEAR));
    let record = changed(store.complete_enrollment(&act_at(10, 3), done).await);
    assert_eq!(record.grant.status, GrantStatus::Active);
    assert_eq!(record.activated_at, Some(after(3)));
    let states: Vec<_> = store.list_certificates(grant_id(1)).await.unwrap();
    let states: Vec<_> = states.iter().map(|one| one.entry.state).collect();
    assert_eq!(
        states,
        [CertificateState::Active, CertificateState::Revoked]
    );
}

pub(super) async fn an_enrollment_cannot_finish_after_the_grant_moved_on(store: &dyn Store) {
    let finish = async |n: u64, act: Act| {
        let result = store
            .complete_enrollment(&act, enrollment(n, n, after(YEAR)))
            .await;
        assert!(
            matches!(result, Err(StoreError::Conflict { .. })),
            "{n}: {result:?}"
        );
        assert!(
            store
                .list_certificates(grant_id(n))
                .await
                .unwrap()
                .is_empty()
        );
    };
    for n in 1..=3 {
        let mut grant = new_grant(n);
        grant.peer_name = name(&format!("peer{n}"));
        grant.expires_at = Some(after(1000));
        changed(store.create_grant(&act(n * 10), grant).await);
        changed(
            store
                .create_token(&act(n * 10 + 1), new_token(n, n, 0))
                .await,
        );
        changed(store.claim_token(&act(n * 10 + 2), &digest(n)).await);
        changed(
            store
                .record_issue_intent(&act(n * 10 + 3), intent(n, n))
                .await,
        );
    }
    changed(store.revoke_grant(&act(50), grant_id(1), None).await);
    finish(1, act(51)).await;
    let peer = store.grant(grant_id(2)).await.unwrap().grant.peer;
    changed(store.suspend_peer(&act(52), peer).await);
    finish(2, act(53)).await;
    assert_eq!(store.peer(peer).await.unwrap().state, PeerState::Suspended);
    finish(3, act_at(54, 1000)).await;
}

pub(super) async fn an_intent_closes_once(store: &dyn Store) {
    for n in 1..=2 {
        changed(store.create_grant(&act(n * 10), new_grant(n)).await);
        changed(
            store
                .record_issue_intent(&act(n * 10 + 1), intent(n, n))
                .await,
        );
    }
    let of_another = Enrollment {
        grant: grant_id(2),
        ..enrollment(1, 1, after(YEAR))
    };
    let refused = store.complete_enrollment(&act(30), of_another).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    changed(
        store
            .fail_issue_intent(&act(31), uuid(30_001), "timeout")
            .await,
    );
    let again = store
        .fail_issue_intent(&act(32), uuid(30_001), "timeout")
        .await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
    let late = store
        .complete_enrollment(&act(33), enrollment(1, 1, after(YEAR)))
        .await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let twice = store.record_issue_intent(&act(34), intent(1, 1)).await;
    assert!(
        matches!(twice, Err(StoreError::Conflict { .. })),
        "{twice:?}"
    );
    assert_eq!(
        store.grant(grant_id(1)).await.unwrap().grant.status,
        GrantStatus::Pending
    );
}
