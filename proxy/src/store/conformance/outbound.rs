//! Laws of outbound peers, contacts, sessions and sealed values.

use policy::id::{GrantId, PeerId, SubjectId};

use super::super::*;
use super::fixture::*;
use crate::audit::HistoryHead;
use crate::audit::history::HeaderSignature;

/// The outbound peer `work` with credential number `n` of grant 1.
pub(super) fn new_peer(n: u64) -> NewOutboundPeer {
    NewOutboundPeer {
        only_new: false,
        id: PeerId::new(uuid(70_000 + n)),
        name: name("work"),
        endpoint_url: format!("https://work{n}.example:8443"),
        common_name: "work.example".to_owned(),
        trust_bundle_pem: "bundle".to_owned(),
        trust_generation: 1,
        checkpoint_key: None,
        credential_id: uuid(71_000 + n),
        local_user: user("amira"),
        grant: GrantId::new(uuid(72_000)),
        subject: SubjectId::of_user(&user("amira")),
        chain_pem: "chain".to_owned(),
        sealed_key: vec![9; 60],
        not_after: after(YEAR),
        began_at: after(0),
        skew_ms: 0,
    }
}

/// A session of `amira` with token number `n`, ending `expires` milliseconds after the start.
pub(super) fn new_session(n: u64, expires: i64) -> NewSession {
    NewSession {
        id: uuid(50_000 + n),
        token_sha256: digest(n),
        local_user: user("amira"),
        expires_at: after(expires),
    }
}

pub(super) async fn a_peer_name_belongs_to_one_user_and_grant(store: &dyn Store) {
    let first = new_peer(1).id;
    let added = changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    assert_eq!(added, OutboundAdded::Created(first));
    let only_new = NewOutboundPeer {
        only_new: true,
        ..new_peer(2)
    };
    let taken = store.add_outbound_peer(&act(40), only_new).await;
    assert!(
        matches!(taken, Err(StoreError::Conflict { .. })),
        "{taken:?}"
    );
    let other_user = NewOutboundPeer {
        local_user: user("ben"),
        ..new_peer(2)
    };
    let other_grant = NewOutboundPeer {
        grant: GrantId::new(uuid(72_001)),
        ..new_peer(2)
    };
    for other in [other_user, other_grant] {
        let refused = store.add_outbound_peer(&act(2), other).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    // The name is free in the other direction.
    let mut inbound = new_grant(1);
    inbound.peer_name = name("work");
    changed(store.create_grant(&act(3), inbound).await);

    let again = changed(store.add_outbound_peer(&act_at(4, 1), new_peer(2)).await);
    assert_eq!(again, OutboundAdded::Reenrolled(first));
    let peer = store
        .find_peer(PeerDirection::Outbound, &name("work"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(peer.id, first);
    assert_eq!(
        peer.endpoint_url.as_deref(),
        Some("https://work2.example:8443")
    );
    let credentials = store.list_outbound_credentials().await.unwrap();
    let states: Vec<_> = credentials.iter().map(|one| (one.id, one.state)).collect();
    let expected = [
        (uuid(71_002), CredentialState::Active),
        (uuid(71_001), CredentialState::Superseded),
    ];
    assert_eq!(states, expected);
    assert_eq!(credentials[0].sealed_key, vec![9; 60]);
}

pub(super) async fn a_revoked_credential_stays_revoked(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    let to = |state| CredentialChange {
        credential: uuid(71_001),
        state,
        reason: "grant_revoked".to_owned(),
    };
    changed(
        store
            .change_credential(&act(2), to(CredentialState::Suspended))
            .await,
    );
    changed(
        store
            .change_credential(&act(3), to(CredentialState::Active))
            .await,
    );
    changed(
        store
            .change_credential(&act(4), to(CredentialState::Revoked))
            .await,
    );
    let same = store
        .change_credential(&act(5), to(CredentialState::Revoked))
        .await
        .unwrap();
    assert!(!same.changed);
    for state in [
        CredentialState::Active,
        CredentialState::Suspended,
        CredentialState::Expired,
    ] {
        let refused = store.change_credential(&act(6), to(state)).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{state}: {refused:?}"
        );
    }
}

pub(super) async fn contacts_are_kept_without_a_revision(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    let id = new_peer(1).id;
    let (revision, rows) = (store.revision().await.unwrap(), log(store).await.len());
    let failure = |cause: &str| Contact::Failure(cause.to_owned());
    store
        .record_contact(id, after(10), Contact::Success)
        .await
        .unwrap();
    store
        .record_contact(id, after(20), failure("refused\u{1b}[0m"))
        .await
        .unwrap();
    store
        .record_contact(id, after(5), Contact::Success)
        .await
        .unwrap();
    store
        .record_contact(id, after(15), failure("older"))
        .await
        .unwrap();
    let peer = store.peer(id).await.unwrap();
    assert_eq!(peer.last_success_at, Some(after(10)), "never back in time");
    assert_eq!(peer.last_failure_at, Some(after(20)));
    assert_eq!(peer.last_failure.as_deref(), Some("refused\\u{1b}[0m"));
    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(log(store).await.len(), rows);
}

pub(super) async fn sessions_that_are_over_are_forgotten_in_time(store: &dyn Store) {
    for (n, expires) in [(1, 100), (2, 200), (3, 300), (4, 400)] {
        changed(store.create_session(&act(n), new_session(n, expires)).await);
    }
    // The fourth is ended early.
    changed(store.end_session(&act_at(9, 50), uuid(50_004)).await);
    let revision = store.revision().await.unwrap();
    let forget = async |at, most| store.forget_sessions(after(at), most).await.unwrap();
    let left = async || {
        let mut ids: Vec<_> = store.list_sessions().await.unwrap();
        ids.sort_by_key(|one| one.id);
        ids.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(forget(50, 10).await, 0);
    assert_eq!(forget(51, 10).await, 1);
    assert_eq!(left().await, [uuid(50_001), uuid(50_002), uuid(50_003)]);
    assert_eq!(forget(250, 1).await, 1);
    assert_eq!(forget(250, 10).await, 1);
    assert_eq!(left().await, [uuid(50_003)]);
    // One that is live is never forgotten, and nothing of it is a change.
    assert_eq!(forget(299, 10).await, 0);
    assert_eq!(store.revision().await.unwrap(), revision);
}

pub(super) async fn sessions_are_found_only_while_live(store: &dyn Store) {
    let dead = store.create_session(&act(1), new_session(1, 0)).await;
    assert!(matches!(dead, Err(StoreError::Invalid { .. })), "{dead:?}");
    let first = changed(store.create_session(&act(2), new_session(1, 100)).await);
    changed(
        store
            .create_session(&act_at(3, 1), new_session(2, 100))
            .await,
    );
    let find = async |n: u64, at: i64| store.find_session(&digest(n), after(at)).await.unwrap();
    assert_eq!(find(1, 99).await, Some(first));
    assert_eq!(find(1, 100).await, None);
    assert_eq!(find(3, 0).await, None);
    let ended = changed(store.end_session(&act_at(4, 50), uuid(50_001)).await);
    assert_eq!(ended.ended_at, Some(after(50)));
    assert_eq!(find(1, 51).await, None);
    assert!(find(2, 51).await.is_some());
    let all: Vec<_> = store.list_sessions().await.unwrap();
    assert_eq!(
        all.iter().map(|one| one.id).collect::<Vec<_>>(),
        [uuid(50_002), uuid(50_001)]
    );
    let stolen = store.create_session(&act(5), new_session(2, 100)).await;
    assert!(
        matches!(stolen, Err(StoreError::Conflict { .. })),
        "{stolen:?}"
    );
}

pub(super) async fn secrets_keep_the_first_and_subject_tokens_the_last(store: &dyn Store) {
    let secret = |generation: u32, byte: u8| SealedSecret {
        purpose: SecretPurpose::CursorKey,
        id: "list".to_owned(),
        generation,
        sealed: vec![byte; 4],
    };
    changed(store.put_secret_if_absent(&act(1), secret(1, 1)).await);
    let second = store
        .put_secret_if_absent(&act(2), secret(1, 2))
        .await
        .unwrap();
    assert_eq!((second.changed, second.value), (false, secret(1, 1)));
    changed(store.put_secret_if_absent(&act(3), secret(2, 3)).await);
    let stored = store.load_secrets(SecretPurpose::CursorKey).await.unwrap();
    assert_eq!(stored, [secret(2, 3), secret(1, 1)]);
    assert!(
        store
            .load_secrets(SecretPurpose::CaKey)
            .await
            .unwrap()
            .is_empty()
    );

    let token = |byte: u8| SubjectToken {
        user: user("amira"),
        sealed: vec![byte; 4],
    };
    changed(store.put_subject_token(&act(4), token(1)).await);
    changed(store.put_subject_token(&act_at(5, 9), token(2)).await);
    assert_eq!(
        store.find_subject_token(&user("amira")).await.unwrap(),
        Some(token(2))
    );
    assert_eq!(store.find_subject_token(&user("ben")).await.unwrap(), None);
    assert_eq!(
        store.list_subject_tokens().await.unwrap(),
        [(user("amira"), after(9))]
    );
}

pub(super) async fn of_what_peers_showed_the_newest_is_kept(store: &dyn Store) {
    let shown = |chain: u64, gseq: u64, at: i64, signed: Option<u64>| WitnessedCheckpoint {
        grant: grant_id(1),
        head: HistoryHead {
            chain: uuid(chain),
            gseq,
            ghash: [u8::try_from(gseq % 200).unwrap(); 32],
        },
        heard_at: after(at),
        signed: signed.map(|gseq| SignedWitness {
            gseq,
            ghash: [u8::try_from(gseq % 200).unwrap(); 32],
            signature: HeaderSignature {
                at: after(at),
                signature: [u8::try_from(gseq % 200).unwrap(); 64],
            },
        }),
    };
    let revision = store.revision().await.unwrap();
    let record = async |heard: &[WitnessedCheckpoint]| {
        store.record_witnessed(heard).await.unwrap();
        store.witnessed_checkpoints().await.unwrap()
    };
    assert_eq!(
        record(&[shown(1, 5, 10, None)]).await,
        [shown(1, 5, 10, None)]
    );
    // A signature comes later, of that place or an earlier one; then the newest place, without one.
    assert_eq!(
        record(&[shown(1, 5, 20, Some(4))]).await[0].signed,
        shown(1, 5, 20, Some(4)).signed
    );
    let kept = record(&[shown(1, 9, 30, None), shown(1, 7, 40, Some(3))]).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].head, kept[0].heard_at),
        (shown(1, 9, 0, None).head, after(30))
    );
    assert_eq!(kept[0].signed, shown(1, 5, 20, Some(4)).signed);
    let kept = record(&[shown(1, 9, 50, Some(9))]).await;
    assert_eq!(kept[0].signed, shown(1, 9, 50, Some(9)).signed);
    // Of many chains the newest are kept.
    let many: Vec<_> = (2..200_u64)
        .map(|n| shown(n, n, i64::try_from(100 + n).unwrap(), None))
        .collect();
    let kept = record(&many).await;
    assert_eq!(kept.len(), usize::try_from(WITNESSED_CHAINS).unwrap());
    assert_eq!(kept[0], many[197]);
    assert_eq!(store.revision().await.unwrap(), revision, "it is no change");
}
