//! Peers: add one to ask, list, show, suspend, resume, remove.
//!
//! Invariant: a name means one peer per direction; where both directions have it, the operator says which.

use std::sync::Arc;

use policy::id::{GrantId, SubjectId};
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::grants::parse_peer;
use super::views::{ReachView, WitnessView};
use super::{AdminCode, AdminFailure, Control, GrantView, PeerView};
use crate::directory::{Applied, Touched};
use crate::outbound::{self, AddPeerError, Outbound};
use crate::store::{Actor, Committed, OutboundCredential, PeerDirection, PeerRecord};

/// A peer to ask.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddPeer {
    /// The enrollment URL from the other side's `grant token`.
    pub url: String,
    /// The local user the credential acts for.
    pub user: String,
    /// The local name.
    pub name: String,
    /// Where the peer is asked, when that is not on the enrollment host.
    pub endpoint: Option<String>,
    /// SHA-256 of the enrollment listener's root, for a URL without a fragment.
    pub fingerprint: Option<String>,
    /// That root itself, PEM.
    pub trust_root_pem: Option<String>,
}

/// Why a peer is removed.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovePeer {
    /// Kept with each of its grants.
    pub reason: Option<String>,
}

/// A peer with the grants we gave it.
#[derive(Debug, Serialize)]
pub struct PeerDetail {
    /// The peer.
    #[serde(flatten)]
    pub peer: PeerView,
    /// The grants it holds with us (inbound only).
    pub grants: Vec<GrantView>,
}

/// A peer that was added.
#[derive(Debug, Serialize)]
pub struct AddedView {
    /// Its local name.
    pub name: PeerName,
    /// The grant on the peer.
    pub grant: GrantId,
    /// The subject on the peer.
    pub subject: SubjectId,
    /// Where it is asked.
    pub endpoint_url: String,
    /// End of the certificate.
    pub certificate_expires_at: String,
    /// Whether an earlier credential of the same grant was replaced.
    pub reenrolled: bool,
    /// What the peer says that the grant allows; `null` when it has not answered yet.
    pub capabilities: Option<serde_json::Value>,
    /// What is still to be done, for a peer that has not answered yet.
    pub notice: Option<String>,
}

impl Control {
    /// `peer add`.
    ///
    /// # Errors
    /// Whatever keeps the peer from being enrolled and stored.
    pub async fn add_peer(
        &self,
        actor: &Actor,
        request: AddPeer,
    ) -> Result<AddedView, AdminFailure> {
        let outbound = self.asking()?;
        let order = outbound::AddPeer {
            actor: actor.clone(),
            url: request.url,
            user: request.user,
            name: request.name,
            endpoint: request.endpoint,
            fingerprint: request.fingerprint,
            trust_root: request.trust_root_pem,
        };
        let added = outbound.add_peer(order).await?;
        self.directory
            .refresh()
            .await
            .map_err(|error| AdminFailure::new(AdminCode::NotYetEffective, error.to_string()))?;
        Ok(AddedView {
            name: added.name,
            grant: added.grant_id,
            subject: added.subject_user_id,
            endpoint_url: added.endpoint_url,
            certificate_expires_at: added.certificate_not_after,
            reenrolled: added.reenrolled,
            capabilities: added.capabilities,
            notice: added.unproven,
        })
    }

    pub(super) fn asking(&self) -> Result<&Arc<Outbound>, AdminFailure> {
        self.outbound.as_ref().ok_or_else(|| {
            AdminFailure::new(AdminCode::Conflict, "this process does not ask peers")
                .hint("set roles.ask = true and restart")
        })
    }

    /// What a change of a peer means here: for what it may ask, and for asking it.
    async fn apply_to_peer(
        &self,
        committed: Committed<PeerRecord>,
    ) -> Result<Applied, AdminFailure> {
        let touched = Touched::Peer(committed.value.id);
        let (peer, applied) = self.apply(committed, touched).await?;
        if peer.direction == PeerDirection::Inbound {
            return self.settled(applied, touched).await;
        }
        if let Some(outbound) = &self.outbound {
            outbound.load().await?;
        }
        Ok(applied)
    }

    /// `peer list`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_peers(&self) -> Result<Vec<PeerView>, AdminFailure> {
        let credentials = self.store.list_outbound_credentials().await?;
        let now = self.now();
        let peers = self.store.list_peers().await?;
        Ok(peers
            .iter()
            .map(|peer| self.peer_view(peer, &credentials, now))
            .collect())
    }

    /// `peer show`.
    ///
    /// # Errors
    /// When there is no such peer, or two.
    pub async fn show_peer(
        &self,
        name: &str,
        direction: Option<&str>,
    ) -> Result<PeerDetail, AdminFailure> {
        let record = self.find_peer(name, direction).await?;
        let credentials = self.store.list_outbound_credentials().await?;
        let grants = match record.direction {
            PeerDirection::Inbound => self.list_grants().await?,
            PeerDirection::Outbound => Vec::new(),
        };
        Ok(PeerDetail {
            peer: self.peer_view(&record, &credentials, self.now()),
            grants: grants
                .into_iter()
                .filter(|grant| grant.peer == record.name)
                .collect(),
        })
    }

    /// `peer suspend`: returns when the peer is answered nothing any more. Idempotent.
    ///
    /// # Errors
    /// When there is no such peer, it is revoked, or the change could not be applied here.
    pub async fn suspend_peer(
        &self,
        actor: &Actor,
        name: &str,
        direction: Option<&str>,
    ) -> Result<Applied, AdminFailure> {
        let record = self.find_peer(name, direction).await?;
        let committed = self.store.suspend_peer(&self.act(actor), record.id).await?;
        self.apply_to_peer(committed).await
    }

    /// `peer resume`.
    ///
    /// # Errors
    /// As for suspending.
    pub async fn resume_peer(
        &self,
        actor: &Actor,
        name: &str,
        direction: Option<&str>,
    ) -> Result<Applied, AdminFailure> {
        let record = self.find_peer(name, direction).await?;
        let committed = self.store.resume_peer(&self.act(actor), record.id).await?;
        self.apply_to_peer(committed).await
    }

    /// `peer remove`: ends a peer for good, and leaves its name to another. Inbound, each of its grants is revoked, and it
    /// returns when nothing is answered under them any more; outbound, its credentials are ended and their keys forgotten.
    ///
    /// # Errors
    /// As for suspending.
    pub async fn remove_peer(
        &self,
        actor: &Actor,
        name: &str,
        direction: Option<&str>,
        request: RemovePeer,
    ) -> Result<Applied, AdminFailure> {
        let record = match self.find_peer(name, direction).await {
            // Repeating it waits on, as for any act that takes something away.
            Err(missing) if missing.code == AdminCode::NotFound => {
                self.removed(name, direction).await?.ok_or(missing)?
            }
            found => found?,
        };
        let (act, reason) = (self.act(actor), request.reason.as_deref());
        let committed = self.store.remove_peer(&act, record.id, reason).await?;
        let touched = Touched::Peer(committed.value.id);
        if record.direction == PeerDirection::Inbound {
            return Ok(self.effect(committed, touched).await?.1);
        }
        let (_, applied) = self.apply(committed, touched).await?;
        if let Some(outbound) = &self.outbound {
            outbound.load().await.map_err(|error| {
                let message = format!("the peer is removed, but may still be asked here: {error}");
                AdminFailure::new(AdminCode::NotYetEffective, message).hint("repeat the command")
            })?;
        }
        Ok(applied)
    }

    /// The peer of that name that was removed last.
    async fn removed(
        &self,
        name: &str,
        direction: Option<&str>,
    ) -> Result<Option<PeerRecord>, AdminFailure> {
        let name = parse_peer(name)?;
        let meant = |peer: &PeerRecord| {
            peer.name == name
                && peer.state == PeerState::Revoked
                && direction.is_none_or(|direction| direction == peer.direction.as_str())
        };
        let peers = self.store.list_peers().await?.into_iter().filter(meant);
        Ok(peers.max_by_key(|peer| peer.created_at))
    }

    /// `peer reset`: closes the breaker of a peer we ask, so that the next question goes out. Idempotent.
    ///
    /// # Errors
    /// When there is no such peer that we ask.
    pub async fn reset_peer(&self, actor: &Actor, name: &str) -> Result<PeerView, AdminFailure> {
        let outbound = self.asking()?;
        let direction = Some(PeerDirection::Outbound.as_str());
        let record = self.find_peer(name, direction).await?;
        if !outbound.reset_breaker(&record.name) {
            let message = format!("{} has no credential: it cannot be asked", record.name);
            return Err(AdminFailure::new(AdminCode::Conflict, message)
                .hint("enroll again with `peer add`"));
        }
        tracing::info!(peer = %record.name, ?actor, "an operator has reset the breaker");
        let credentials = self.store.list_outbound_credentials().await?;
        Ok(self.peer_view(&record, &credentials, self.now()))
    }

    /// A peer with what is known here of reaching it.
    pub(super) fn peer_view(
        &self,
        record: &PeerRecord,
        credentials: &[OutboundCredential],
        now: UnixMillis,
    ) -> PeerView {
        let view = PeerView::of(record, credentials, now);
        let asked = (record.direction == PeerDirection::Outbound)
            .then(|| self.outbound.as_ref()?.reach_of(&record.name))
            .flatten();
        let grant = credentials
            .iter()
            .find(|credential| credential.peer == record.id)
            .map(|credential| credential.grant);
        let witness = self.outbound.as_ref().zip(grant).map(|(outbound, grant)| {
            let verifies = record.checkpoint_key.is_some();
            WitnessView::of(grant, verifies, outbound.witness_of(grant))
        });
        PeerView {
            reach: asked.map(|state| ReachView::of(&state, now)),
            witness,
            ..view
        }
    }

    pub(super) async fn find_peer(
        &self,
        name: &str,
        direction: Option<&str>,
    ) -> Result<PeerRecord, AdminFailure> {
        let name: PeerName = parse_peer(name)?;
        let directions = match direction.map(PeerDirection::parse) {
            None => vec![PeerDirection::Inbound, PeerDirection::Outbound],
            Some(Some(one)) => vec![one],
            Some(None) => {
                return Err(AdminFailure::invalid(
                    "direction must be inbound or outbound",
                ));
            }
        };
        let mut found = Vec::new();
        for direction in directions {
            found.extend(self.store.find_peer(direction, &name).await?);
        }
        match (found.pop(), found.is_empty()) {
            (Some(peer), true) => Ok(peer),
            (Some(_), false) => {
                let message =
                    format!("two peers are called {name}: one asks us, one is asked by us");
                Err(AdminFailure::new(AdminCode::Conflict, message)
                    .hint("add --direction inbound or outbound"))
            }
            (None, _) => Err(AdminFailure::new(
                AdminCode::NotFound,
                format!("there is no peer called {name}"),
            )
            .hint("`peer list` shows the names")),
        }
    }
}

impl From<AddPeerError> for AdminFailure {
    fn from(error: AddPeerError) -> Self {
        use AddPeerError as E;
        let code = match &error {
            E::Url(_)
            | E::Endpoint(_)
            | E::Fingerprint(_)
            | E::TrustRoot(_)
            | E::NoTrust
            | E::AmbiguousTrust
            | E::Name(_)
            | E::User(_) => AdminCode::InvalidRequest,
            E::NameTaken(_) => AdminCode::Conflict,
            E::UnknownToken => AdminCode::NotFound,
            E::TokenSpent | E::Refused { .. } | E::Untrusted(_) | E::OtherHost(_) => {
                AdminCode::Forbidden
            }
            E::Key(_)
            | E::Unreachable { .. }
            | E::BadAnswer(_)
            | E::Seal(_)
            | E::Credential(_)
            | E::Store { .. }
            | E::Tls(_) => AdminCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
