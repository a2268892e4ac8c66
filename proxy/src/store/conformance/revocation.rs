//! Laws of revocation lists.

use certs::crl::RevocationReason;

use super::super::*;
use super::fixture::*;

fn list(number: u64) -> PublishedList {
    PublishedList {
        number,
        made_at: after(i64::try_from(number).unwrap()),
        content: digest(number),
        der: vec![0x30, 0],
    }
}

fn leaf(number: u64, grant: u64) -> EnrolledCertificate {
    enrollment(number, grant, after(YEAR)).certificate
}

pub(super) async fn the_number_of_our_list_goes_up_by_one(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    assert_eq!(store.published_list().await.unwrap(), None);
    assert!(!store.publish_list(&list(2)).await.unwrap());
    assert!(store.publish_list(&list(1)).await.unwrap());
    // Two processes that make the next one: the second has to look again.
    assert!(store.publish_list(&list(2)).await.unwrap());
    assert!(!store.publish_list(&list(2)).await.unwrap());
    assert!(!store.publish_list(&list(1)).await.unwrap());
    assert!(!store.publish_list(&list(4)).await.unwrap());
    assert_eq!(store.published_list().await.unwrap(), Some(list(2)));
    assert_eq!(store.revision().await.unwrap(), before, "an observation");
}

pub(super) async fn each_revocation_has_its_reason_and_is_listed_until_its_end(store: &dyn Store) {
    use RevocationReason as R;
    for n in 1..=4 {
        active_grant(store, n, n * 1_000).await;
    }
    changed(store.revoke_grant(&act(1), grant_id(1), None).await);
    let enrolled = store.list_certificates(grant_id(2)).await.unwrap();
    let second = enrolled[0].entry.clone();
    changed(
        store
            .revoke_certificate(&act(2), &second.serial, R::Unspecified)
            .await,
    );
    changed(store.replace_token(&act(3), new_token(90, 3, 0)).await);
    let third = store.list_certificates(grant_id(4)).await.unwrap()[0]
        .entry
        .clone();
    let listed = [ListedLeaf {
        fingerprint: third.fingerprint,
        reason: R::KeyCompromise,
    }];
    let edit = async || store.grant(grant_id(4)).await.unwrap().grant.edit;
    let before = edit().await;
    assert_eq!(
        changed(store.revoke_listed(&act(4), &listed).await),
        [grant_id(4)]
    );
    assert_eq!(edit().await, before + 1);
    let again = store.revoke_listed(&act(5), &listed).await.unwrap();
    assert!(!again.changed && again.value.is_empty());
    let unknown = [ListedLeaf {
        fingerprint: digest(12_345),
        reason: R::KeyCompromise,
    }];
    assert!(
        !store
            .revoke_listed(&act(6), &unknown)
            .await
            .unwrap()
            .changed
    );

    let revoked = store.revoked_leaves(START).await.unwrap();
    let mut reasons: Vec<u8> = revoked.iter().map(|leaf| leaf.reason.code()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [0, 1, 4, 9]);
    assert!(store.revoked_leaves(after(YEAR)).await.unwrap().is_empty());
    let standing = store.standing_of(&third.serial).await.unwrap();
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].state, CertificateState::Revoked);
    assert_eq!(
        standing[0].revoked.map(|(_, why)| why),
        Some(R::KeyCompromise)
    );
    assert!(store.standing_of("ff").await.unwrap().is_empty());
}

pub(super) async fn certificates_of_listeners_stand_until_their_end(store: &dyn Store) {
    let issued = |number: u64, end: i64| ServerCertificateRecord {
        fingerprint: digest(number),
        serial: format!("{number:02x}"),
        der: number.to_be_bytes().to_vec(),
        not_after: after(end),
    };
    let before = store.revision().await.unwrap();
    let note = async |one: &ServerCertificateRecord, at: i64| {
        store
            .record_server_certificate(one, after(at))
            .await
            .unwrap();
    };
    let (first, second) = (issued(1, 100), issued(2, 200));
    note(&first, 0).await;
    note(&first, 0).await;
    note(&second, 100).await;
    for one in [&first, &second] {
        let standing = store.standing_of(&one.serial).await.unwrap();
        let good = SerialStanding {
            der: one.der.clone(),
            state: CertificateState::Active,
            revoked: None,
        };
        assert_eq!(standing, [good]);
    }
    note(&second, 101).await;
    assert!(store.standing_of(&first.serial).await.unwrap().is_empty());
    assert_eq!(store.standing_of(&second.serial).await.unwrap().len(), 1);
    assert_eq!(store.revision().await.unwrap(), before, "an observation");
}

pub(super) async fn a_revocation_is_untold_until_its_authority_had_it(store: &dyn Store) {
    active_grant(store, 1, 1_000).await;
    assert_eq!(store.count_untold(START).await.unwrap(), 0);
    changed(store.revoke_grant(&act(1), grant_id(1), None).await);
    let untold = async || store.untold_revocations(after(10), 8).await.unwrap();
    let one = untold().await.pop().unwrap();
    assert_eq!(
        (one.tries, one.tried_at, one.failure.clone()),
        (0, None, None)
    );
    let at = |millis: i64, failure| store.record_told(&one.fingerprint, after(millis), failure);
    at(20, Some("it is down")).await.unwrap();
    at(30, Some("still\ndown")).await.unwrap();
    let tried = untold().await.pop().unwrap();
    assert_eq!((tried.tries, tried.tried_at), (2, Some(after(30))));
    assert!(tried.failure.unwrap().starts_with("still"));
    assert_eq!(store.count_untold(after(10)).await.unwrap(), 1);
    assert_eq!(
        store.count_untold(after(YEAR)).await.unwrap(),
        0,
        "it has ended"
    );
    at(40, None).await.unwrap();
    assert!(untold().await.is_empty());
    at(50, Some("late")).await.unwrap();
    assert!(untold().await.is_empty(), "told is told");
}

pub(super) async fn what_was_issued_in_vain_is_registered_as_revoked(store: &dyn Store) {
    active_grant(store, 1, 1_000).await;
    changed(store.revoke_grant(&act(1), grant_id(1), None).await);
    let vain = leaf(77, 1);
    changed(store.register_revoked(&act(2), grant_id(1), &vain).await);
    assert!(
        !store
            .register_revoked(&act(3), grant_id(1), &vain)
            .await
            .unwrap()
            .changed
    );
    let revoked = store.revoked_leaves(START).await.unwrap();
    let found = revoked
        .iter()
        .find(|one| one.serial == vain.serial)
        .unwrap();
    assert_eq!(found.reason, RevocationReason::CessationOfOperation);
    assert_eq!(store.count_untold(START).await.unwrap(), 2);
}

pub(super) async fn lists_of_a_place_are_kept_whole(store: &dyn Store) {
    let kept = |source: &str, n: u64| KeptList {
        source: source.to_owned(),
        sha256: digest(n),
        der: vec![u8::try_from(n).unwrap()],
        issuer: vec![1],
    };
    store
        .keep_lists("a", &[kept("a", 1), kept("a", 2)])
        .await
        .unwrap();
    store.keep_lists("b", &[kept("b", 1)]).await.unwrap();
    assert_eq!(store.kept_lists().await.unwrap().len(), 3);
    store.keep_lists("a", &[kept("a", 3)]).await.unwrap();
    assert_eq!(
        store.kept_lists().await.unwrap(),
        [kept("a", 3), kept("b", 1)]
    );
    store.keep_lists("a", &[]).await.unwrap();
    assert_eq!(store.kept_lists().await.unwrap(), [kept("b", 1)]);
}
