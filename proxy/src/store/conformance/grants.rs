//! Laws of grants, peers, policy and the image.

use policy::grant::GrantStatus;
use policy::id::{GrantId, PeerId, SubjectId};
use policy::peer::PeerState;
use policy::scope::Scope;

use super::super::*;
use super::fixture::*;
use super::outbound::{new_peer, new_session};

fn publication(n: u64, touched: Vec<GrantId>) -> PolicyPublication {
    PolicyPublication {
        files: vec![PolicyFile {
            name: "base.toml".to_owned(),
            text: format!("schema = 1 # {n}"),
        }],
        sha256: digest(60_000 + n),
        touched,
    }
}

fn secret() -> SealedSecret {
    SealedSecret {
        purpose: SecretPurpose::RevisionKey,
        id: "store".to_owned(),
        generation: 1,
        sealed: vec![1, 2, 3],
    }
}

/// A scope wider than that of the grants here.
fn wide() -> Scope {
    Scope::parse(&serde_json::json!({"resources": ["tasks", "notes"]}), &[]).unwrap()
}

fn subject_token() -> SubjectToken {
    SubjectToken {
        user: user("amira"),
        sealed: vec![4, 5, 6],
    }
}

pub(super) async fn every_mutation_raises_the_revision_by_one_and_is_audited(store: &dyn Store) {
    assert_eq!(store.revision().await.unwrap(), 0);
    changed(store.put_secret_if_absent(&act(1), secret()).await);
    active_grant(store, 1, 2).await;
    let home = store.grant(grant_id(1)).await.unwrap().grant.peer;
    changed(store.suspend_peer(&act(7), home).await);
    changed(store.resume_peer(&act(8), home).await);
    changed(store.replace_token(&act(9), new_token(2, 1, 0)).await);
    changed(store.record_issue_intent(&act(10), intent(2, 1)).await);
    changed(
        store
            .fail_issue_intent(&act(11), uuid(30_002), "no answer")
            .await,
    );
    changed(
        store
            .publish_policy(&act(12), publication(1, vec![grant_id(1)]))
            .await,
    );
    changed(
        store
            .revoke_grant(&act(13), grant_id(1), Some("left"))
            .await,
    );
    changed(store.add_outbound_peer(&act(14), new_peer(1)).await);
    let change = CredentialChange {
        credential: new_peer(1).credential_id,
        state: CredentialState::Suspended,
        reason: "peer_suspended".to_owned(),
    };
    changed(store.change_credential(&act(15), change).await);
    changed(store.create_session(&act(16), new_session(1, YEAR)).await);
    changed(store.end_session(&act(17), uuid(50_001)).await);
    changed(store.put_subject_token(&act(18), subject_token()).await);
    let expiring = NewGrant {
        expires_at: Some(after(1)),
        ..new_grant(2)
    };
    changed(store.create_grant(&act(19), expiring).await);
    changed(store.expire_grants(&act_at(20, 1)).await);
    changed(store.create_grant(&act(21), new_grant(3)).await);
    changed(store.edit_grant(&act(22), grant_id(3), wide()).await);

    let expected = [
        "secret.create",
        "grant.create",
        "token.create",
        "token.claim",
        "certificate.intent",
        "grant.activate",
        "peer.suspend",
        "peer.resume",
        "token.replace",
        "certificate.intent",
        "certificate.failed",
        "policy.publish",
        "grant.revoke",
        "peer.add",
        "credential.change",
        "session.create",
        "session.end",
        "gateway.token",
        "grant.create",
        "grant.expire",
        "grant.create",
        "grant.edit",
    ];
    let expected: Vec<_> = (1u64..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(acts(store).await, expected);
    assert_eq!(store.revision().await.unwrap(), 22);
    for row in log(store).await {
        assert_eq!(row.record.actor.unwrap().as_str(), "uid:1000");
    }
}

pub(super) async fn grants_that_are_over_leave_nothing_behind(store: &dyn Store) {
    changed(store.put_secret_if_absent(&act(1), secret()).await);
    active_grant(store, 1, 2).await;
    active_grant(store, 2, 10).await;
    let peer = store.grant(grant_id(1)).await.unwrap().grant.peer;
    let certificates = store.list_certificates(grant_id(1)).await.unwrap();
    let end = certificates[0].entry.not_after;
    let nothing = store.forget_grants(&act(20), peer, end).await.unwrap();
    assert!(!nothing.changed, "both are in force");
    changed(store.revoke_grant(&act(21), grant_id(1), None).await);
    let too_soon = UnixMillis(end.0 - 1);
    let nothing = store.forget_grants(&act(22), peer, too_soon).await.unwrap();
    assert!(!nothing.changed, "its certificate could still come up");
    assert_eq!(changed(store.forget_grants(&act(23), peer, end).await), 1);
    assert!(store.grant(grant_id(1)).await.is_err());
    assert!(
        store
            .list_certificates(grant_id(1))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        store.grant(grant_id(2)).await.is_ok(),
        "the other one stays"
    );
    let image = store.load(START).await.unwrap();
    assert_eq!(image.grants.len(), 1);
    let acts = acts(store).await;
    assert_eq!(acts.last().unwrap().1, "grant.forget");
    assert!(
        acts.iter().any(|(_, act)| act == "grant.revoke"),
        "the log keeps all of it"
    );
}

pub(super) async fn what_changes_nothing_writes_nothing(store: &dyn Store) {
    changed(store.put_secret_if_absent(&act(1), secret()).await);
    active_grant(store, 1, 2).await;
    changed(
        store
            .publish_policy(&act(7), publication(1, Vec::new()))
            .await,
    );
    changed(store.create_session(&act(8), new_session(1, YEAR)).await);
    changed(store.end_session(&act(9), uuid(50_001)).await);
    changed(store.revoke_grant(&act(10), grant_id(1), None).await);
    let (revision, rows) = (store.revision().await.unwrap(), log(store).await);
    let home = rows.iter().find_map(|row| row.record.peer).unwrap();

    fn unchanged<T>(committed: Result<Committed<T>, StoreError>, revision: u64) {
        let committed = committed.unwrap();
        assert_eq!((committed.changed, committed.revision), (false, revision));
    }
    unchanged(
        store.put_secret_if_absent(&act(20), secret()).await,
        revision,
    );
    unchanged(
        store
            .publish_policy(&act(21), publication(1, vec![grant_id(1)]))
            .await,
        revision,
    );
    unchanged(store.end_session(&act(22), uuid(50_001)).await, revision);
    unchanged(
        store.revoke_grant(&act(23), grant_id(1), None).await,
        revision,
    );
    unchanged(store.expire_grants(&act_at(24, YEAR)).await, revision);
    unchanged(store.resume_peer(&act(25), home).await, revision);
    unchanged(store.claim_token(&act(26), &digest(1)).await, revision);

    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(log(store).await, rows);
}

pub(super) async fn create_refuses_taken_ids_and_dead_grants(store: &dyn Store) {
    let record = changed(store.create_grant(&act(1), new_grant(1)).await);
    assert_eq!(record.grant.status, GrantStatus::Pending);
    assert_eq!(record.grant.subject, SubjectId::of_user(&user("amira")));
    assert_eq!(store.grant(grant_id(1)).await.unwrap(), record);
    let again = store.create_grant(&act(2), new_grant(1)).await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );

    // A second grant of the same name joins the same peer.
    let second = changed(store.create_grant(&act(3), new_grant(2)).await);
    assert_eq!(second.grant.peer, record.grant.peer);
    assert_eq!(store.list_peers().await.unwrap().len(), 1);

    let ended = NewGrant {
        expires_at: Some(START),
        ..new_grant(3)
    };
    let dead = store.create_grant(&act(4), ended).await;
    assert!(matches!(dead, Err(StoreError::Invalid { .. })), "{dead:?}");
    assert_eq!(store.revision().await.unwrap(), 2);
    assert_eq!(store.list_grants().await.unwrap(), [record, second]);
}

pub(super) async fn revocation_is_final_and_takes_certificates_and_token_along(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let before = store.grant(grant_id(1)).await.unwrap();
    let record = changed(
        store
            .revoke_grant(&act_at(6, 5), grant_id(1), Some("left\n"))
            .await,
    );
    assert_eq!(record.grant.status, GrantStatus::Revoked);
    assert_eq!(record.grant.edit, before.grant.edit + 1);
    assert_eq!(record.revoked_at, Some(after(5)));
    assert_eq!(record.reason.as_deref(), Some("left\\u{a}"));
    for certificate in store.list_certificates(grant_id(1)).await.unwrap() {
        assert_eq!(certificate.entry.state, CertificateState::Revoked);
        assert_eq!(certificate.revoked_at, Some(after(5)));
    }
    let token = store.replace_token(&act(7), new_token(2, 1, 0)).await;
    assert!(
        matches!(token, Err(StoreError::Conflict { .. })),
        "{token:?}"
    );

    changed(store.create_grant(&act(8), new_grant(2)).await);
    changed(store.create_token(&act(9), new_token(3, 2, 0)).await);
    changed(store.revoke_grant(&act(10), grant_id(2), None).await);
    let claim = store.claim_token(&act(11), &digest(3)).await.unwrap().value;
    assert_eq!(claim, TokenClaim::Withdrawn);
}

pub(super) async fn forgetting_a_user_revokes_all_of_theirs_at_once(store: &dyn Store) {
    for n in 1..=3 {
        active_grant(store, n, n * 10).await;
    }
    let ben = NewGrant {
        user: user("ben"),
        ..new_grant(4)
    };
    changed(store.create_grant(&act(50), ben).await);
    changed(store.revoke_grant(&act(51), grant_id(3), None).await);
    let before = store.revision().await.unwrap();
    let amira = user("amira");
    let ended = changed(store.forget_user(&act(52), &amira, Some("left")).await);
    assert_eq!(ended, [grant_id(1), grant_id(2)]);
    assert_eq!(store.revision().await.unwrap(), before + 1);
    for n in 1..=2 {
        let record = store.grant(grant_id(n)).await.unwrap();
        assert_eq!(record.grant.status, GrantStatus::Revoked);
        assert_eq!(record.reason.as_deref(), Some("left"));
        let certificates = store.list_certificates(grant_id(n)).await.unwrap();
        let state = certificates[0].entry.state;
        assert_eq!(state, CertificateState::Revoked);
    }
    let other = store.grant(grant_id(4)).await.unwrap().grant.status;
    assert_eq!(other, GrantStatus::Pending);
    let again = store.forget_user(&act(53), &amira, None).await.unwrap();
    assert_eq!((again.changed, again.value), (false, Vec::new()));
}

pub(super) async fn suspension_touches_every_unfinished_grant_and_ends_where_it_began(
    store: &dyn Store,
) {
    changed(store.create_grant(&act(1), new_grant(1)).await);
    let home = store.grant(grant_id(1)).await.unwrap().grant.peer;
    changed(store.suspend_peer(&act(2), home).await);
    assert!(!store.suspend_peer(&act(3), home).await.unwrap().changed);
    changed(store.create_token(&act(4), new_token(1, 1, 0)).await);
    let claim = store.claim_token(&act(5), &digest(1)).await.unwrap().value;
    assert_eq!(
        claim,
        TokenClaim::NotPending,
        "a suspended peer gains no credential"
    );
    let resumed = changed(store.resume_peer(&act(6), home).await);
    assert_eq!(resumed.state, PeerState::Pending, "it never enrolled");

    enroll(store, 1, 9, 10).await;
    active_grant(store, 2, 20).await;
    changed(store.create_grant(&act(30), new_grant(3)).await);
    changed(store.revoke_grant(&act(31), grant_id(3), None).await);
    let edits = |grants: Vec<GrantRecord>| -> Vec<u64> {
        grants.iter().map(|record| record.grant.edit).collect()
    };
    let before = edits(store.list_grants().await.unwrap());
    changed(store.suspend_peer(&act(32), home).await);
    let resumed = changed(store.resume_peer(&act(33), home).await);
    assert_eq!(resumed.state, PeerState::Active);
    let now = edits(store.list_grants().await.unwrap());
    assert_eq!(now, [before[0] + 2, before[1] + 2, before[2]]);
}

pub(super) async fn expiry_uses_the_earlier_end_and_never_comes_early(store: &dyn Store) {
    let by_scope =
        serde_json::json!({"resources": ["tasks"], "expires_at": after(100).to_string()});
    let mut grant = new_grant(1);
    grant.scope = Scope::parse(&by_scope, &[]).unwrap();
    grant.expires_at = Some(after(200));
    changed(store.create_grant(&act(1), grant).await);
    changed(store.create_token(&act(2), new_token(1, 1, 0)).await);
    assert!(!store.expire_grants(&act_at(3, 99)).await.unwrap().changed);
    let late = store
        .claim_token(&act_at(4, 100), &digest(1))
        .await
        .unwrap();
    assert_eq!(
        late.value,
        TokenClaim::NotPending,
        "its end counts before it is written down"
    );
    let expired = changed(store.expire_grants(&act_at(5, 100)).await);
    assert_eq!(expired, [grant_id(1)]);
    let record = store.grant(grant_id(1)).await.unwrap();
    assert_eq!(
        (record.grant.status, record.grant.edit),
        (GrantStatus::Expired, 1)
    );
    assert!(!store.expire_grants(&act_at(6, 300)).await.unwrap().changed);

    for n in 2..5 {
        let soon = NewGrant {
            expires_at: Some(after(500)),
            ..new_grant(n)
        };
        changed(store.create_grant(&act_at(n + 10, 400), soon).await);
    }
    let several = store.expire_grants(&act_at(20, 500)).await.unwrap();
    assert_eq!(several.value.len(), 3);
    let rows = log(store).await;
    let of_this = |row: &&crate::audit::AuditRow| row.record.revision == Some(several.revision);
    assert_eq!(
        rows.iter().filter(of_this).count(),
        3,
        "one row for each, one revision"
    );
}

pub(super) async fn an_edit_replaces_the_scope_of_an_unfinished_grant(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let before = store.grant(grant_id(1)).await.unwrap();
    assert!(
        !store
            .edit_grant(&act(10), grant_id(1), before.grant.scope.clone())
            .await
            .unwrap()
            .changed
    );
    let record = changed(store.edit_grant(&act(11), grant_id(1), wide()).await);
    assert_eq!(record.grant.scope, wide());
    assert_eq!(record.grant.edit, before.grant.edit + 1);
    assert_eq!(record.grant.status, GrantStatus::Active);
    assert_eq!(store.grant(grant_id(1)).await.unwrap(), record);
    let row = log(store).await.pop().unwrap();
    let detail = row.record.detail.unwrap();
    assert!(
        detail
            .value("before")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("tasks")
    );
    assert!(
        detail
            .value("after")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("notes")
    );

    // The end that the new scope brings counts as the old one did.
    let scope = |millis| {
        let text = after(millis).to_string();
        let ends = serde_json::json!({"resources": ["tasks"], "expires_at": text});
        Scope::parse(&ends, &[]).unwrap()
    };
    let dead = store.edit_grant(&act(12), grant_id(1), scope(0)).await;
    assert!(matches!(dead, Err(StoreError::Invalid { .. })), "{dead:?}");
    changed(store.edit_grant(&act(13), grant_id(1), scope(50)).await);
    let late = store.edit_grant(&act_at(14, 50), grant_id(1), wide()).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let expired = changed(store.expire_grants(&act_at(15, 50)).await);
    assert_eq!(expired, [grant_id(1)]);

    changed(store.create_grant(&act(16), new_grant(2)).await);
    changed(store.revoke_grant(&act(17), grant_id(2), None).await);
    let revoked = store.edit_grant(&act(18), grant_id(2), wide()).await;
    assert!(
        matches!(revoked, Err(StoreError::Conflict { .. })),
        "{revoked:?}"
    );
}

pub(super) async fn the_longest_lease_is_kept_without_a_revision(store: &dyn Store) {
    use std::time::Duration;
    assert_eq!(store.longest_lease().await.unwrap(), Duration::ZERO);
    let longest = Duration::from_micros(1_999_001);
    store.record_longest_lease(longest).await.unwrap();
    assert_eq!(
        store.longest_lease().await.unwrap(),
        Duration::from_millis(2_000)
    );
    assert_eq!(store.revision().await.unwrap(), 0);
}

pub(super) async fn unknown_ids_are_not_found(store: &dyn Store) {
    let missing = [
        store.grant(grant_id(9)).await.map(drop),
        store
            .revoke_grant(&act(1), grant_id(9), None)
            .await
            .map(drop),
        store
            .create_token(&act(2), new_token(1, 9, 0))
            .await
            .map(drop),
        store
            .replace_token(&act(3), new_token(1, 9, 0))
            .await
            .map(drop),
        store
            .record_issue_intent(&act(4), intent(1, 9))
            .await
            .map(drop),
        store
            .fail_issue_intent(&act(5), uuid(9), "x")
            .await
            .map(drop),
        store
            .complete_enrollment(&act(6), enrollment(1, 9, after(YEAR)))
            .await
            .map(drop),
        store.peer(PeerId::new(uuid(9))).await.map(drop),
        store
            .suspend_peer(&act(7), PeerId::new(uuid(9)))
            .await
            .map(drop),
        store
            .resume_peer(&act(8), PeerId::new(uuid(9)))
            .await
            .map(drop),
        store
            .record_contact(PeerId::new(uuid(9)), START, Contact::Success)
            .await,
        store.end_session(&act(9), uuid(9)).await.map(drop),
        store
            .edit_grant(&act(10), grant_id(9), wide())
            .await
            .map(drop),
    ];
    for (place, result) in missing.into_iter().enumerate() {
        assert!(
            matches!(result, Err(StoreError::NotFound { .. })),
            "{place}: {result:?}"
        );
    }
    assert_eq!(store.revision().await.unwrap(), 0);
    assert!(log(store).await.is_empty());
}

pub(super) async fn policy_is_published_as_a_whole_or_not_at_all(store: &dyn Store) {
    assert_eq!(store.load(START).await.unwrap().policy, None);
    changed(store.create_grant(&act(1), new_grant(1)).await);
    changed(store.create_grant(&act(2), new_grant(2)).await);
    let wrong = publication(1, vec![grant_id(1), grant_id(9)]);
    let refused = store.publish_policy(&act(3), wrong).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );
    let image = store.load(START).await.unwrap();
    assert_eq!((image.revision, image.policy), (2, None));
    assert_eq!(image.grants[0].grant.edit, 0);

    changed(
        store
            .publish_policy(&act(4), publication(1, vec![grant_id(1), grant_id(1)]))
            .await,
    );
    changed(
        store
            .publish_policy(&act_at(5, 7), publication(2, Vec::new()))
            .await,
    );
    let image = store.load(START).await.unwrap();
    let policy = image.policy.unwrap();
    assert_eq!(
        (policy.sha256, policy.applied_at),
        (digest(60_002), after(7))
    );
    assert_eq!(policy.files, publication(2, Vec::new()).files);
    for (revision, sha256) in [
        (2, None),
        (3, Some(publication(1, Vec::new()).sha256)),
        (4, Some(policy.sha256)),
        (u64::MAX, Some(policy.sha256)),
    ] {
        let then = store.policy_at(revision).await.unwrap();
        assert_eq!(then.map(|bundle| bundle.sha256), sha256, "{revision}");
    }
    let edits: Vec<_> = image
        .grants
        .iter()
        .map(|record| record.grant.edit)
        .collect();
    assert_eq!(edits, [1, 0]);
}

pub(super) async fn the_image_leaves_out_only_what_ended_long_ago(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    active_grant(store, 2, 10).await;
    changed(store.create_grant(&act(20), new_grant(3)).await);
    changed(store.revoke_grant(&act(21), grant_id(1), None).await);
    changed(store.revoke_grant(&act(22), grant_id(3), None).await);
    let ids = |image: &StoreImage| -> Vec<GrantId> {
        image.grants.iter().map(|record| record.grant.id).collect()
    };
    let image = store.load(after(YEAR + 1)).await.unwrap();
    assert_eq!(image.revision, store.revision().await.unwrap());
    assert_eq!(image.certificates.len(), 2, "expired, but not for long");
    assert_eq!(
        ids(&image),
        [grant_id(1), grant_id(2)],
        "the third has no certificate to present"
    );
    let much_later = after(YEAR + EXPIRED_CERTIFICATE_KEPT_MILLIS);
    let image = store.load(much_later).await.unwrap();
    assert!(image.certificates.is_empty());
    assert_eq!(
        ids(&image),
        [grant_id(2)],
        "an active grant stays without any certificate"
    );
}

pub(super) async fn changes_are_those_of_single_grants_or_not_told(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    active_grant(store, 2, 10).await;
    let start = store.revision().await.unwrap();
    let since = |revision| async move { store.load_changes(revision, START).await.unwrap() };
    let nothing = since(start).await.unwrap();
    assert_eq!((nothing.revision, nothing.grants.len()), (start, 0));
    // Each is as a whole image has it.
    changed(store.create_grant(&act(20), new_grant(3)).await);
    changed(store.revoke_grant(&act(21), grant_id(1), None).await);
    let image = store.load(START).await.unwrap();
    let found = since(start).await.unwrap();
    assert_eq!(found.revision, image.revision);
    let ids: Vec<GrantId> = found.grants.iter().map(|image| image.id).collect();
    assert_eq!(ids, [grant_id(1), grant_id(3)]);
    for one in found.grants {
        let (record, peer) = one.grant.unwrap();
        let whole = image.grants.iter().find(|whole| whole.grant.id == one.id);
        assert_eq!(format!("{:?}", Some(&record)), format!("{whole:?}"));
        let whole = image.peers.iter().find(|whole| whole.id == peer.id);
        assert_eq!(format!("{:?}", Some(&peer)), format!("{whole:?}"));
        let of_it = |leaf: &&CertificateEntry| leaf.grant == one.id;
        let leaves: Vec<_> = image.certificates.iter().filter(of_it).cloned().collect();
        assert_eq!(one.certificates, leaves);
    }
    // One that a whole image leaves out.
    let before = store.revision().await.unwrap();
    changed(store.revoke_grant(&act(22), grant_id(3), None).await);
    let found = since(before).await.unwrap();
    assert!(found.grants[0].id == grant_id(3) && found.grants[0].grant.is_none());
    // A policy may change any of them, and what is behind or ahead of the log is not told.
    changed(
        store
            .publish_policy(&act(23), publication(1, Vec::new()))
            .await,
    );
    assert!(since(before).await.is_none());
    let now = store.revision().await.unwrap();
    assert!(since(now).await.is_some());
    assert!(since(now + 1).await.is_none());
}
