//! The table of peers that can be asked: for each local name whose it is, its credential and its client.
//!
//! Invariant: a name leads only its own user anywhere; for every other user it does not exist, by whatever form it is
//! written: local name, common name, host or host:port. Names are compared, never resolved. A client is carried
//! over from one table to the next only when credential, trust bundle and endpoint are all the same. A credential
//! that cannot be used keeps its place, so that asking fails with a reason instead of "no such peer".

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use certs::identity::fingerprint;
use certs::rotation::PeerClock;
use certs::rotation::peer_clock::Said;
use certs::{Clock, Credential, PrivateKey, SealPurpose, Sealer, TrustAnchors};
use http::HeaderMap;
use parking_lot::Mutex;
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;
use uuid::Uuid;

use super::client::PeerClient;
use super::connection::Deadlines;
use super::endpoint::{Endpoint, UrlError};
use super::lease::LeaseHolder;
use super::reach::PeerReach;
use super::reaches::Reaches;
use super::renewal::plan::RenewalPlan;
use crate::audit::checkpoint::CheckpointVerifier;
use crate::message::headers::{time_of, trust_generation};
use crate::store::{CredentialState, OutboundCredential, PeerDirection, PeerRecord, RenewalTries};

/// Milliseconds between two records of the same kind of contact with one peer.
const CONTACT_EVERY_MILLIS: i64 = 1_000;
/// For how long it is remembered whether a peer declares the order of its rows.
const ORDER_KEPT_MILLIS: i64 = 600_000;

/// Why a stored credential cannot be used. No variant holds a secret.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CredentialFault {
    /// The peer's row lacks what an outbound peer has.
    #[error("the peer's row has no endpoint or trust bundle; add the peer again")]
    Incomplete,
    /// The endpoint does not parse.
    #[error("the endpoint cannot be used: {0}")]
    Endpoint(#[from] UrlError),
    /// The key does not unseal.
    #[error("the key cannot be unsealed: {0}")]
    Sealed(#[from] certs::SealError),
    /// Chain and key do not make a credential.
    #[error("the certificate and key cannot be used: {0}")]
    Credential(#[from] certs::CredentialError),
    /// The key does not parse.
    #[error("the key cannot be used: {0}")]
    Key(#[from] certs::KeyError),
    /// The trust bundle does not parse.
    #[error("the trust bundle cannot be used: {0}")]
    Trust(#[from] certs::TrustError),
    /// No TLS configuration.
    #[error(transparent)]
    Tls(#[from] certs::tls::TlsConfigError),
}

/// A client with the serial of its credential.
#[derive(Debug, Clone)]
pub struct ReadyClient {
    /// The client.
    pub client: Arc<PeerClient>,
    /// Serial of the certificate, lower-case hex.
    pub serial: String,
}

/// One peer as one local user may ask it.
#[derive(Debug)]
pub struct PeerRoute {
    /// The peer.
    pub peer: PeerId,
    /// Its local name.
    pub name: PeerName,
    /// The name it gave itself at enrollment.
    pub common_name: Option<String>,
    /// Where it is asked, when that parses.
    pub endpoint: Option<Endpoint>,
    /// Its state here.
    pub peer_state: PeerState,
    /// The local user whose credential it is.
    pub user: UserId,
    /// The credential.
    pub credential: Uuid,
    /// The grant on the peer.
    pub grant: GrantId,
    /// The subject on the peer.
    pub subject: SubjectId,
    /// End of the certificate's validity.
    pub not_after: UnixMillis,
    /// The key with which it signs how far its history of the grant has got.
    pub checkpoint_key: Option<CheckpointVerifier>,
    /// What is known of reaching it.
    pub reach: Arc<PeerReach>,
    /// The client, or why there is none.
    pub client: Result<ReadyClient, CredentialFault>,
    /// When its credential is renewed.
    pub(super) plan: RenewalPlan,
    /// Held while it is renewed.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// What has been tried to renew it.
    tries: Mutex<RenewalTries>,
    /// The clock of the peer.
    their_clock: Arc<Mutex<PeerClock>>,
    /// The generation of the trust roots that are kept of it.
    trust_generation: u64,
    /// The generation that it says to have.
    heard_trust: Arc<HeardTrust>,
    /// The leases of what it has answered.
    pub(super) lease: Arc<LeaseHolder>,
    /// The state of the grant as last heard.
    state: Mutex<CredentialState>,
    /// The kind and time of the last contact that was recorded.
    contact: Mutex<Option<(bool, i64)>>,
    /// Whether it declares the order of its rows, and when that was heard (milliseconds since the Unix epoch).
    order: Mutex<Option<(bool, i64)>>,
    basis: [u8; 32],
}

/// What a peer says of the generation of its trust roots.
#[derive(Debug, Default)]
struct HeardTrust {
    /// As last heard; 0 before that.
    generation: AtomicU64,
    /// The one for which the credential was renewed last: a peer that says one and gives another is not asked for ever.
    renewed_for: AtomicU64,
}

impl PeerRoute {
    /// Whether the peer has other trust roots than are kept of it: they come with a renewal.
    pub(super) fn is_trust_behind(&self) -> bool {
        let heard = self.heard_trust.generation.load(Ordering::Relaxed);
        heard != 0
            && heard != self.trust_generation
            && heard != self.heard_trust.renewed_for.load(Ordering::Relaxed)
    }

    /// Notes that the credential was renewed, with whatever roots came.
    pub(super) fn note_renewed(&self) {
        let heard = self.heard_trust.generation.load(Ordering::Relaxed);
        self.heard_trust.renewed_for.store(heard, Ordering::Relaxed);
    }

    /// Whether a query to all peers asks this one: the operator has not ended or suspended it, and its grant is not
    /// known to be over.
    #[must_use]
    pub fn is_active(&self) -> bool {
        let peer = !matches!(self.peer_state, PeerState::Suspended | PeerState::Revoked);
        peer && matches!(
            self.state(),
            CredentialState::Active | CredentialState::Suspended
        )
    }

    /// Whether it goes by `name` besides its local name: its common name, its host, or host:port.
    fn is_called(&self, name: &str) -> bool {
        let same = |own: &str| own.eq_ignore_ascii_case(name);
        self.common_name.as_deref().is_some_and(same)
            || self.endpoint.as_ref().is_some_and(|endpoint| {
                same(endpoint.host()) || same(&endpoint.authority()) || same(&endpoint.bracketed())
            })
    }

    /// Hash over everything that its client is made of.
    #[must_use]
    pub(super) const fn basis(&self) -> &[u8; 32] {
        &self.basis
    }

    /// Until when answers from memory may be served without asking, nanoseconds since boot.
    #[must_use]
    pub fn leased_until(&self) -> Option<u64> {
        self.lease.until()
    }

    /// The peer's clock, as far as it is known.
    #[must_use]
    pub fn their_clock(&self) -> PeerClock {
        *self.their_clock.lock()
    }

    /// What the peer's clock shows now, milliseconds since the Unix epoch: it is what ends certificates.
    #[must_use]
    pub fn their_now(&self, clock: &dyn Clock) -> i64 {
        self.their_clock()
            .now(clock.unix_millis(), clock.boot_nanos())
    }

    /// Notes the time and the generation of trust roots that an answer carries.
    pub(super) fn hear(&self, headers: &HeaderMap, sent: u64, received: u64) {
        if let Some(generation) = trust_generation(headers) {
            let heard = &self.heard_trust.generation;
            heard.store(generation, Ordering::Relaxed);
        }
        if let Some((millis, resolution)) = time_of(headers) {
            self.their_clock.lock().hear(Said {
                millis,
                resolution,
                sent,
                received,
            });
        }
    }

    /// What has been tried to renew the credential.
    #[must_use]
    pub fn tries(&self) -> RenewalTries {
        self.tries.lock().clone()
    }

    /// Notes what has been tried.
    pub(super) fn set_tries(&self, tries: RenewalTries) {
        *self.tries.lock() = tries;
    }

    /// The state of the grant as last heard.
    #[must_use]
    pub fn state(&self) -> CredentialState {
        *self.state.lock()
    }

    /// Whether the grant is known to be over, by the peer's word.
    pub(super) fn is_over(&self) -> bool {
        !matches!(
            self.state(),
            CredentialState::Active | CredentialState::Suspended
        )
    }

    /// Notes what was heard, until the next load.
    pub(super) fn set_state(&self, state: CredentialState) {
        *self.state.lock() = state;
    }

    /// Whether it declares that its rows are newest first, if that was heard within the last ten minutes.
    pub(super) fn declares_order(&self, now: UnixMillis) -> Option<bool> {
        let (ordered, at) = (*self.order.lock())?;
        (now.0.saturating_sub(at).saturating_abs() < ORDER_KEPT_MILLIS).then_some(ordered)
    }

    /// Notes whether it declares the order of its rows.
    pub(super) fn note_order(&self, ordered: bool, now: UnixMillis) {
        *self.order.lock() = Some((ordered, now.0));
    }

    /// Whether a contact at `now` is to be recorded: the first, one of another kind than the last, or one a
    /// second after it.
    pub(super) fn is_contact_due(&self, success: bool, now: UnixMillis) -> bool {
        let mut last = self.contact.lock();
        let due = last.is_none_or(|(kind, at)| {
            kind != success || now.0.saturating_sub(at).saturating_abs() >= CONTACT_EVERY_MILLIS
        });
        if due {
            *last = Some((success, now.0));
        }
        due
    }
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// No peer of this user goes by it.
    Absent,
    /// Several do.
    Ambiguous,
}

/// All routes, by local name.
#[derive(Debug, Default)]
pub struct RouteTable(HashMap<PeerName, Arc<PeerRoute>>);

/// What a table is built with.
pub(super) struct RouteBasis<'a> {
    pub(super) sealer: &'a Sealer,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) deadlines: Deadlines,
    pub(super) reaches: &'a Reaches,
}

impl RouteTable {
    /// Builds the table from the store's rows; `credentials` of one peer newest first. Faults are logged and kept.
    pub(super) fn build(
        peers: Vec<PeerRecord>,
        credentials: &[OutboundCredential],
        before: &Self,
        basis: &RouteBasis<'_>,
    ) -> Self {
        let mut outbound: Vec<PeerRecord> = peers
            .into_iter()
            .filter(|peer| peer.direction == PeerDirection::Outbound)
            .collect();
        // A peer that was ended leaves its name to another: the later one of a name counts.
        outbound.sort_by_key(|peer| peer.state != PeerState::Revoked);
        let routes = outbound.into_iter().filter_map(|peer| {
            let mut own = credentials
                .iter()
                .filter(|credential| credential.peer == peer.id);
            let newest = own.clone().next()?;
            let credential = own
                .find(|credential| credential.state != CredentialState::Superseded)
                .unwrap_or(newest);
            let earlier = before.0.get(&peer.name).map(AsRef::as_ref);
            let route = build_route(&peer, credential, earlier, basis);
            Some((peer.name, Arc::new(route)))
        });
        Self(routes.collect())
    }

    /// The route of `name` among those of `user`: the local name first; else the one peer whose common name, host or
    /// host:port it is.
    ///
    /// # Errors
    /// [`NoRoute`].
    pub fn find(&self, user: &UserId, name: &str) -> Result<Arc<PeerRoute>, NoRoute> {
        let own = PeerName::parse(name)
            .ok()
            .and_then(|name| self.0.get(&name))
            .filter(|route| route.user == *user);
        if let Some(route) = own {
            return Ok(Arc::clone(route));
        }
        let mut called = self.of(user).filter(|route| route.is_called(name));
        match (called.next(), called.next()) {
            (Some(route), None) => Ok(Arc::clone(route)),
            (Some(_), Some(_)) => Err(NoRoute::Ambiguous),
            (None, _) => Err(NoRoute::Absent),
        }
    }

    /// The routes of `user`, in no order.
    pub fn of<'a>(&'a self, user: &'a UserId) -> impl Iterator<Item = &'a Arc<PeerRoute>> {
        self.routes().filter(|route| route.user == *user)
    }

    /// Every route, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<PeerRoute>> {
        self.0.values()
    }
}

fn build_route(
    peer: &PeerRecord,
    credential: &OutboundCredential,
    earlier: Option<&PeerRoute>,
    basis: &RouteBasis<'_>,
) -> PeerRoute {
    let hash = basis_of(peer, credential);
    let endpoint = peer
        .endpoint_url
        .as_deref()
        .and_then(|url| Endpoint::parse(url).ok());
    let same = earlier.filter(|earlier| earlier.basis == hash && earlier.client.is_ok());
    let client = match same {
        Some(earlier) => earlier.client.clone(),
        None => ready_client(peer, credential, basis),
    };
    if let Err(fault) = &client {
        tracing::error!(peer = %peer.name, %fault, "the credential of a peer cannot be used");
    }
    let reach = basis.reaches.of(&peer.name);
    let own = earlier.filter(|earlier| earlier.peer == peer.id);
    if same.is_none() {
        // Another credential or endpoint: what was known of the old one says nothing.
        reach.reset();
    }
    PeerRoute {
        peer: peer.id,
        name: peer.name.clone(),
        common_name: peer.common_name.clone(),
        endpoint,
        peer_state: peer.state,
        user: credential.local_user.clone(),
        credential: credential.id,
        grant: credential.grant,
        subject: credential.subject,
        not_after: credential.not_after,
        checkpoint_key: peer.checkpoint_key.map(CheckpointVerifier::from_bytes),
        reach,
        client,
        plan: RenewalPlan::of(credential),
        turn: own.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.turn)),
        tries: Mutex::new(credential.tries.clone()),
        their_clock: own.map_or_else(
            || Arc::new(Mutex::new(PeerClock::with_skew(credential.skew_ms))),
            |earlier| Arc::clone(&earlier.their_clock),
        ),
        trust_generation: peer.trust_generation,
        heard_trust: own.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.heard_trust)),
        lease: same.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.lease)),
        state: Mutex::new(credential.state),
        contact: Mutex::new(same.and_then(|earlier| *earlier.contact.lock())),
        order: Mutex::new(same.and_then(|earlier| *earlier.order.lock())),
        basis: hash,
    }
}

/// One hash over everything a client is made of: it is a new client exactly when this is new.
fn basis_of(peer: &PeerRecord, credential: &OutboundCredential) -> [u8; 32] {
    let mut text = peer.trust_generation.to_be_bytes().to_vec();
    let parts = [
        credential.id.as_bytes().as_slice(),
        credential.chain_pem.as_bytes(),
        peer.endpoint_url.as_deref().unwrap_or_default().as_bytes(),
        peer.trust_bundle_pem
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    ];
    for part in parts {
        text.extend_from_slice(&part.len().to_be_bytes());
        text.extend_from_slice(part);
    }
    fingerprint(&text)
}

fn ready_client(
    peer: &PeerRecord,
    credential: &OutboundCredential,
    basis: &RouteBasis<'_>,
) -> Result<ReadyClient, CredentialFault> {
    let (Some(endpoint), Some(bundle)) = (&peer.endpoint_url, &peer.trust_bundle_pem) else {
        return Err(CredentialFault::Incomplete);
    };
    let row = credential.id.as_hyphenated().to_string();
    let key = basis
        .sealer
        .unseal(SealPurpose::CredentialKey, &row, &credential.sealed_key)?;
    let key = PrivateKey::from_pkcs8(key)?;
    let usable = Credential::from_pem(credential.chain_pem.as_bytes(), key.to_pem().as_bytes())?;
    let trust = (bundle.as_str(), peer.trust_generation);
    client_of(&usable, trust, Endpoint::parse(endpoint)?, basis)
}

/// A client from its parts, as enrollment has them before there are rows; the trust bundle with its generation.
pub(super) fn client_of(
    credential: &Credential,
    (trust_bundle_pem, trust_generation): (&str, u64),
    endpoint: Endpoint,
    basis: &RouteBasis<'_>,
) -> Result<ReadyClient, CredentialFault> {
    let anchors = Arc::new(TrustAnchors::from_pem(0, trust_bundle_pem.as_bytes())?);
    let config = certs::tls::peer_client_config(credential, anchors, Arc::clone(basis.clock))?;
    let client = PeerClient::new(endpoint, config, basis.deadlines, Arc::clone(basis.clock));
    Ok(ReadyClient {
        client: Arc::new(client.acknowledging(trust_generation)),
        serial: credential.serial().as_str().to_owned(),
    })
}

#[cfg(test)]
mod tests;
