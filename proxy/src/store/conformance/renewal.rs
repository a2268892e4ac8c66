//! Laws of renewal, on both sides.

use std::time::Duration;

use certs::crl::RevocationReason;
use policy::peer::PeerState;

use super::super::*;
use super::fixture::*;
use super::outbound::new_peer;

const HOUR: i64 = 3_600_000;
const OVERLAP: Duration = Duration::from_secs(3_600);

/// The request number `n` for grant 1, with the certificate of enrollment number `presented`.
fn request(n: u64, presented: u64) -> RenewalRequest {
    RenewalRequest {
        intent: uuid(80_000 + n),
        grant: grant_id(1),
        presented: enrollment(presented, 1, after(YEAR))
            .certificate
            .fingerprint,
        csr_sha256: digest(81_000 + n),
    }
}

/// What was issued for request `n`: the certificate of enrollment number `n`.
fn renewed(n: u64, presented: u64) -> RenewedCertificate {
    RenewedCertificate {
        request: request(n, presented),
        certificate: enrollment(n, 1, after(YEAR)).certificate,
        chain_pem: format!("chain {n}"),
    }
}

async fn renew(store: &dyn Store, n: u64, presented: u64) -> bool {
    let start = changed(
        store
            .begin_renewal(&act(200 + n), request(n, presented))
            .await,
    );
    assert_eq!(start, RenewalStart::Issue);
    changed(
        store
            .complete_renewal(&act(300 + n), renewed(n, presented))
            .await,
    )
}

async fn confirm(store: &dyn Store, n: u64, millis: i64) {
    let fingerprint = renewed(n, 0).certificate.fingerprint;
    let act = act_at(400 + n, millis);
    changed(
        store
            .confirm_certificate(&act, grant_id(1), &fingerprint, OVERLAP)
            .await,
    );
}

/// State of each certificate at `millis` by its number, oldest first, and whether it is confirmed.
async fn states(store: &dyn Store, millis: i64) -> Vec<(CertificateState, bool)> {
    let mut certificates = store.list_certificates(grant_id(1)).await.unwrap();
    certificates.sort_by(|a, b| a.entry.serial.cmp(&b.entry.serial));
    let state = |one: &CertificateRecord| {
        let entry = &one.entry;
        (entry.state_at(after(millis)), entry.confirmed_at.is_some())
    };
    certificates.iter().map(state).collect()
}

pub(super) async fn a_renewed_certificate_takes_over_with_its_first_use(store: &dyn Store) {
    use CertificateState::{Active, Superseded};
    active_grant(store, 1, 1).await;
    assert!(!renew(store, 2, 1).await);
    assert_eq!(states(store, YEAR).await, [(Active, true), (Active, false)]);
    confirm(store, 2, 10).await;
    let fingerprint = renewed(2, 1).certificate.fingerprint;
    let again = store
        .confirm_certificate(&act(500), grant_id(1), &fingerprint, OVERLAP)
        .await
        .unwrap();
    assert!(!again.changed);
    assert_eq!(states(store, 9 + HOUR).await, [(Active, true); 2]);
    let over = [(Superseded, true), (Active, true)];
    assert_eq!(states(store, 10 + HOUR).await, over);
    // The next one is in use before the overlap of the first has ended: at most two are good.
    renew(store, 3, 2).await;
    confirm(store, 3, 20).await;
    let now = [(Superseded, true), (Active, true), (Active, true)];
    assert_eq!(states(store, 20).await, now);
    assert_eq!(
        states(store, 20 + HOUR).await,
        [(Superseded, true), (Superseded, true), (Active, true)]
    );
}

pub(super) async fn a_known_request_gets_its_certificate_again(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    renew(store, 2, 1).await;
    let known = RenewalStart::Known(Box::new(KnownCertificate {
        der: vec![0x30, 0x00],
        chain_pem: "chain 2".to_owned(),
        not_after: after(YEAR),
    }));
    let (revision, rows) = (store.revision().await.unwrap(), log(store).await.len());
    for presented in [1, 2] {
        let again = store
            .begin_renewal(&act(600), request(2, presented))
            .await
            .unwrap();
        assert_eq!((again.changed, again.value), (false, known.clone()));
    }
    confirm(store, 2, 10).await;
    let again = store.begin_renewal(&act(601), request(2, 1)).await.unwrap();
    assert_eq!(again.value, known, "also when it is in use");
    assert_eq!(store.revision().await.unwrap(), revision + 1);
    assert_eq!(log(store).await.len(), rows + 1);
}

pub(super) async fn only_the_newest_confirmed_gets_another(store: &dyn Store) {
    use CertificateState::{Active, Revoked};
    active_grant(store, 1, 1).await;
    renew(store, 2, 1).await;
    assert!(renew(store, 3, 1).await, "the one never used is revoked");
    let now = [(Active, true), (Revoked, false), (Active, false)];
    assert_eq!(states(store, 0).await, now);
    let spent = store.begin_renewal(&act(700), request(2, 1)).await.unwrap();
    assert_eq!((spent.changed, spent.value), (false, RenewalStart::Spent));
    let fingerprint = renewed(2, 1).certificate.fingerprint;
    let dead = store
        .confirm_certificate(&act(701), grant_id(1), &fingerprint, OVERLAP)
        .await;
    assert!(matches!(dead, Err(StoreError::Conflict { .. })), "{dead:?}");
    // A request that was let in before the third one was in use cannot be finished behind it.
    let begun = store.begin_renewal(&act(702), request(4, 1)).await.unwrap();
    assert_eq!(begun.value, RenewalStart::Issue);
    confirm(store, 3, 10).await;
    let late = store.complete_renewal(&act(703), renewed(4, 1)).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    let outdated = store.begin_renewal(&act(704), request(5, 1)).await.unwrap();
    assert_eq!(
        (outdated.changed, outdated.value),
        (false, RenewalStart::Outdated)
    );
    // Revoking the newest does not bring back the one before.
    let serial = renewed(3, 1).certificate.serial;
    let revoked = changed(
        store
            .revoke_certificate(&act(705), &serial, RevocationReason::Unspecified)
            .await,
    );
    assert_eq!(revoked.left, 1);
    let outdated = store.begin_renewal(&act(706), request(6, 1)).await.unwrap();
    assert_eq!(outdated.value, RenewalStart::Outdated);
}

pub(super) async fn one_issued_in_vain_is_not_the_newest(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let vain = renewed(3, 1).certificate;
    let registered = store.register_revoked(&act(710), grant_id(1), &vain).await;
    changed(registered);
    assert!(!renew(store, 2, 1).await, "nothing else is revoked");
}

pub(super) async fn a_grant_that_is_over_gets_no_certificate(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    let home = store.grant(grant_id(1)).await.unwrap().grant.peer;
    let begin = async |n: u64| store.begin_renewal(&act(800 + n), request(n, 1)).await;
    assert!(begin(2).await.is_ok());
    changed(store.suspend_peer(&act(810), home).await);
    let refused = store.complete_renewal(&act(811), renewed(2, 1)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    changed(store.resume_peer(&act(812), home).await);
    changed(store.revoke_grant(&act(813), grant_id(1), None).await);
    assert!(matches!(begin(3).await, Err(StoreError::Conflict { .. })));
    let refused = store.complete_renewal(&act(814), renewed(2, 1)).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    assert_eq!(states(store, 0).await.len(), 1);
}

pub(super) async fn one_certificate_is_revoked_alone(store: &dyn Store) {
    active_grant(store, 1, 1).await;
    renew(store, 2, 1).await;
    let edit = async || store.grant(grant_id(1)).await.unwrap().grant.edit;
    let before = edit().await;
    let serial = renewed(2, 1).certificate.serial;
    let revoked = changed(
        store
            .revoke_certificate(&act(900), &serial, RevocationReason::Unspecified)
            .await,
    );
    assert_eq!(
        (revoked.left, revoked.entry.state),
        (1, CertificateState::Revoked)
    );
    assert_eq!(edit().await, before + 1);
    let again = store
        .revoke_certificate(&act(901), &serial, RevocationReason::Unspecified)
        .await
        .unwrap();
    assert!(!again.changed);
    assert_eq!(again.value, revoked);
    let unknown = store
        .revoke_certificate(&act(902), "ff", RevocationReason::Unspecified)
        .await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })));
    let serial = enrollment(1, 1, after(YEAR)).certificate.serial;
    assert_eq!(
        changed(
            store
                .revoke_certificate(&act(903), &serial, RevocationReason::Unspecified)
                .await
        )
        .left,
        0
    );
}

fn next() -> NewRenewal {
    NewRenewal {
        credential: uuid(71_001),
        id: uuid(73_000),
        sealed_key: vec![8; 60],
        csr_pem: "request".to_owned(),
    }
}

fn issued() -> IssuedRenewal {
    IssuedRenewal {
        chain_pem: "next chain".to_owned(),
        trust_bundle_pem: "next bundle".to_owned(),
        trust_generation: 7,
        not_after: after(2 * YEAR),
        began_at: after(77),
    }
}

pub(super) async fn the_next_credential_takes_the_place_of_the_old(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    let credential = uuid(71_001);
    let absent = store.finish_outbound_renewal(&act(2), credential, 5).await;
    assert!(matches!(absent, Err(StoreError::NotFound { .. })));
    changed(store.begin_outbound_renewal(&act(3), next()).await);
    let second = store.begin_outbound_renewal(&act(4), next()).await;
    assert!(matches!(second, Err(StoreError::Conflict { .. })));
    let pending = store.outbound_renewal(credential).await.unwrap().unwrap();
    assert_eq!((pending.new, pending.issued), (next(), None));
    let early = store.finish_outbound_renewal(&act(5), credential, 5).await;
    assert!(matches!(early, Err(StoreError::NotFound { .. })));
    changed(store.keep_renewed(&act(6), credential, issued()).await);
    let pending = store.outbound_renewal(credential).await.unwrap().unwrap();
    assert_eq!(pending.issued, Some(issued()));
    let id = changed(
        store
            .finish_outbound_renewal(&act_at(7, 9), credential, 5)
            .await,
    );
    assert_eq!(id, next().id);
    let all = store.list_outbound_credentials().await.unwrap();
    let (new, old) = (&all[0], &all[1]);
    assert_eq!((new.id, new.state), (next().id, CredentialState::Active));
    assert_eq!(new.sealed_key, next().sealed_key);
    assert_eq!((new.began_at, new.skew_ms), (Some(after(77)), 5));
    assert_eq!(
        (new.not_after, new.chain_pem.as_str()),
        (after(2 * YEAR), "next chain")
    );
    assert_eq!(old.state, CredentialState::Superseded);
    assert!(old.sealed_key.is_empty(), "its key is forgotten");
    let peer = store.peer(new_peer(1).id).await.unwrap();
    assert_eq!(peer.trust_bundle_pem.as_deref(), Some("next bundle"));
    assert_eq!(store.outbound_renewal(credential).await.unwrap(), None);
    let over = store.begin_outbound_renewal(&act(8), next()).await;
    assert!(matches!(over, Err(StoreError::Conflict { .. })));
}

pub(super) async fn a_renewal_ends_with_its_credential(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    let credential = uuid(71_001);
    changed(store.begin_outbound_renewal(&act(2), next()).await);
    changed(store.drop_outbound_renewal(&act(3), credential, "no").await);
    let again = store.drop_outbound_renewal(&act(4), credential, "no").await;
    assert!(!again.unwrap().changed);
    changed(store.begin_outbound_renewal(&act(5), next()).await);
    changed(store.keep_renewed(&act(6), credential, issued()).await);
    // Enrolled anew while the answer was out.
    changed(store.add_outbound_peer(&act_at(7, 1), new_peer(2)).await);
    let late = store.finish_outbound_renewal(&act(8), credential, 0).await;
    assert!(matches!(late, Err(StoreError::NotFound { .. })), "{late:?}");
    let renewal = NewRenewal {
        credential: uuid(71_002),
        ..next()
    };
    changed(store.begin_outbound_renewal(&act(9), renewal).await);
    changed(store.remove_peer(&act(10), new_peer(1).id, None).await);
    assert_eq!(store.outbound_renewal(uuid(71_002)).await.unwrap(), None);
}

pub(super) async fn tries_are_kept_and_a_failing_peer_is_degraded(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    let id = new_peer(1).id;
    let (revision, rows) = (store.revision().await.unwrap(), log(store).await.len());
    let tries = RenewalTries {
        failures: 3,
        tried_at: Some(after(5)),
        failure: Some("away".to_owned()),
    };
    store
        .record_renewal_tries(uuid(71_001), &tries)
        .await
        .unwrap();
    let all = store.list_outbound_credentials().await.unwrap();
    assert_eq!(all[0].tries, tries);
    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(log(store).await.len(), rows);
    let state = async || store.peer(id).await.unwrap().state;
    changed(store.mark_peer(&act(2), id, true, "away").await);
    assert_eq!(state().await, PeerState::Degraded);
    assert!(
        !store
            .mark_peer(&act(3), id, true, "away")
            .await
            .unwrap()
            .changed
    );
    changed(store.mark_peer(&act(4), id, false, "back").await);
    assert_eq!(state().await, PeerState::Active);
    changed(store.suspend_peer(&act(5), id).await);
    assert!(
        !store
            .mark_peer(&act(6), id, true, "away")
            .await
            .unwrap()
            .changed
    );
    assert_eq!(
        state().await,
        PeerState::Suspended,
        "an operator's word stands"
    );
    // One that asks us is not ours to judge.
    active_grant(store, 1, 10).await;
    let home = store.grant(grant_id(1)).await.unwrap().grant.peer;
    assert!(
        !store
            .mark_peer(&act(20), home, true, "away")
            .await
            .unwrap()
            .changed
    );
}
