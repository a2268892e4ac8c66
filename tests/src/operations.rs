//! What operators do to a serving side, in one word each.
//!
//! Invariant: they are the operations of the admin API, called as methods; a failure is a panic.

use policy::id::GrantId;
use proxy::admin::{CreateToken, EditGrant, RemovePeer, RevokeGrant, TokenView};
use proxy::directory::Applied;
use serde_json::Value;

use crate::world::{World, operator};

impl World {
    /// `grant revoke`.
    pub async fn revoke(&self, grant: GrantId) -> Applied {
        self.control()
            .revoke_grant(&operator(), &grant.to_string(), RevokeGrant::default())
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// `grant edit`.
    pub async fn edit(&self, grant: GrantId, scope: Value) -> Applied {
        self.control()
            .edit_grant(&operator(), &grant.to_string(), EditGrant { scope })
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
            .applied
    }

    /// `grant token`: the enrollment URL of a pending grant.
    pub async fn enrollment_url(&self, grant: GrantId) -> String {
        self.token(grant, false).await.url
    }

    /// `grant token --replace`.
    pub async fn replace_token(&self, grant: GrantId) -> TokenView {
        self.token(grant, true).await
    }

    async fn token(&self, grant: GrantId, replace: bool) -> TokenView {
        let request = CreateToken {
            ttl_s: None,
            replace,
        };
        self.control()
            .create_token(&operator(), &grant.to_string(), request)
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// `peer suspend`, of an inbound peer.
    pub async fn suspend(&self, peer: &str) -> Applied {
        self.control()
            .suspend_peer(&operator(), peer, Some("inbound"))
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// `peer remove`, of an inbound peer.
    pub async fn remove(&self, peer: &str) -> Applied {
        self.control()
            .remove_peer(&operator(), peer, Some("inbound"), RemovePeer::default())
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// `peer resume`, of an inbound peer.
    pub async fn resume(&self, peer: &str) -> Applied {
        self.control()
            .resume_peer(&operator(), peer, Some("inbound"))
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
    }
}
