//! Laws of removing peers.

use policy::grant::GrantStatus;
use policy::peer::PeerState;

use super::super::*;
use super::fixture::*;
use super::outbound::new_peer;

pub(super) async fn removing_an_inbound_peer_revokes_what_it_had_and_frees_its_name(
    store: &dyn Store,
) {
    active_grant(store, 1, 1).await;
    changed(store.create_grant(&act(10), new_grant(2)).await);
    changed(store.create_token(&act(11), new_token(2, 2, 0)).await);
    changed(store.create_grant(&act(12), new_grant(3)).await);
    changed(
        store
            .revoke_grant(&act_at(13, 1), grant_id(3), Some("before"))
            .await,
    );
    let home = store.grant(grant_id(1)).await.unwrap().grant.peer;
    let removed = store
        .remove_peer(&act_at(14, 2), home, Some("left"))
        .await
        .unwrap();
    assert_eq!(removed.value.state, PeerState::Revoked);
    for (n, reason) in [(1, "left"), (2, "left"), (3, "before")] {
        let record = store.grant(grant_id(n)).await.unwrap();
        assert_eq!(record.grant.status, GrantStatus::Revoked);
        assert_eq!(record.reason.as_deref(), Some(reason));
    }
    let certificates = store.list_certificates(grant_id(1)).await.unwrap();
    assert_eq!(certificates[0].entry.state, CertificateState::Revoked);
    let claim = store.claim_token(&act(15), &digest(2)).await.unwrap().value;
    assert_eq!(claim, TokenClaim::Withdrawn);
    let rows = acts(store).await;
    let of_this: Vec<_> = rows
        .iter()
        .filter(|row| row.0 == removed.revision)
        .collect();
    assert_eq!(of_this.len(), 3, "{of_this:?}");
    assert_eq!(of_this[0].1, "peer.remove");

    assert!(
        !store
            .remove_peer(&act(16), home, None)
            .await
            .unwrap()
            .changed
    );
    let suspended = store.suspend_peer(&act(17), home).await;
    assert!(
        matches!(suspended, Err(StoreError::Conflict { .. })),
        "{suspended:?}"
    );
    let found = store
        .find_peer(PeerDirection::Inbound, &name("home"))
        .await
        .unwrap();
    assert_eq!(found, None);
    let anew = changed(store.create_grant(&act(18), new_grant(4)).await);
    assert_ne!(anew.grant.peer, home);
    assert_eq!(store.list_peers().await.unwrap().len(), 2);
}

pub(super) async fn removing_an_outbound_peer_forgets_its_keys(store: &dyn Store) {
    changed(store.add_outbound_peer(&act(1), new_peer(1)).await);
    changed(store.remove_peer(&act(2), new_peer(1).id, None).await);
    let credentials = store.list_outbound_credentials().await.unwrap();
    assert_eq!(credentials[0].state, CredentialState::Revoked);
    assert!(credentials[0].sealed_key.is_empty());
    let ben = NewOutboundPeer {
        local_user: user("ben"),
        ..new_peer(2)
    };
    let added = changed(store.add_outbound_peer(&act(3), ben).await);
    assert_eq!(added, OutboundAdded::Created(new_peer(2).id));
    assert_eq!(store.store_id().await.unwrap(), uuid(0));
}
