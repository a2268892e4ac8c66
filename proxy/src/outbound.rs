//! The asking side: sessions of local users put questions to peers through one door.
//!
//! Invariant: a session reaches only the peers of its own user, through credentials that belong to that user. A
//! peer's answer is untrusted input and is never written anywhere. A grant that its owner has revoked is refused
//! here, without touching the network.
//!
//! `door.rs` takes a request in one of its forms (`form.rs`, `query.rs`), `session.rs` says whose it is (`session_book.rs`), `route.rs`
//! which credential. `recall.rs` answers from memory (`cache.rs`) under leases (`lease.rs`, `passage.rs`), or has `ask.rs`
//! put one question to one peer, step by step: `attempt.rs` lets it go out, or not, by what
//! `reach.rs` knows of the peer; `client.rs` asks, `relay.rs` and `answer.rs` read the reply, `state.rs` says what it
//! means for the grant; `notice.rs` tells a session of an outage. `local.rs` and `own.rs` ask the user's own gateway,
//! `renewal.rs` renews credentials in time. `fanout.rs` and `combined.rs` ask all sources at once (`page.rs`, `merge.rs`, `position.rs`, `ranked.rs`); `add_peer.rs` is
//! how a peer comes to be known; `witness.rs` remembers
//! what peers say of their records. Answering peers is in `inbound` and `enrollment` on purpose.

pub mod add_peer;
pub mod answer;
mod ask;
mod attempt;
pub mod backoff;
pub mod breaker;
mod cache;
pub mod client;
mod combined;
mod connection;
mod deadline;
pub mod door;
pub mod endpoint;
mod exchange;
mod extent;
pub mod failure;
mod fanout;
pub mod fault;
#[cfg(test)]
pub(crate) mod fixture;
mod flight;
mod form;
mod hit;
mod import;
mod issued;
mod lease;
pub mod listener;
pub mod local;
mod merge;
pub mod notice;
mod own;
mod page;
mod passage;
mod position;
mod query;
mod ranked;
pub mod rate_left;
pub mod reach;
pub mod reaches;
mod recall;
mod relay;
mod renewal;
pub mod rewrite;
pub mod route;
pub mod session;
mod session_book;
pub mod state;
mod ticket;
pub mod verdict;
mod witness;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::seal::PageSealer;
use certs::{Clock, Sealer};
use policy::id::{PeerId, UserId};
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;
use uuid::Uuid;

use crate::audit::AuditSink;
use crate::store::{
    Act, Actor, Contact, CredentialChange, CredentialState, NewSession, SessionRecord, Store,
    StoreError,
};
use crate::telemetry::spans::Spans;
use crate::telemetry::steps::Told;
use crate::transport::PauseWatch;
use cache::AnswerCache;
use exchange::time_ordered_id;
use flight::Flights;
use notice::NoticeBook;
use route::RouteBasis;
use witness::WitnessBook;

pub use add_peer::{AddPeer, AddPeerError, AddedPeer};
pub use breaker::{BreakerRules, BreakerState};
pub use cache::{CacheFigures, PeerFigures};
pub use connection::Deadlines;
pub use import::{ImportError, ImportTerms, ImportedPeer, UpstreamPeer};
pub use listener::{DoorLimits, DoorListener, serve};
pub use local::{LocalAnswer, LocalQuestion, LocalSource};
pub use own::OwnGateway;
pub use reach::{ReachRules, ReachState};
pub use reaches::Reaches;
pub use renewal::{RenewError, RenewalPlan, Renewed};
pub use route::{PeerRoute, RouteTable};
use session::SessionKey;
pub use session::{Doorway, SessionToken};
use session_book::SessionBook;
pub use witness::WitnessState;

/// What the asking side is made of.
pub struct OutboundParts {
    /// Peers, credentials, sessions.
    pub store: Arc<dyn Store>,
    /// Opens the credentials' keys.
    pub sealer: Arc<Sealer>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where each request leaves its record.
    pub audit: AuditSink,
    /// Where its span is made.
    pub spans: Spans,
    /// Deadlines of each request.
    pub deadlines: Deadlines,
    /// How long remote sources may take when all are asked.
    pub fanout_deadline: Duration,
    /// Users of the unix socket by uid of the process at the other end.
    pub session_users: BTreeMap<u32, UserId>,
    /// The users' own gateway.
    pub local: Arc<dyn LocalSource>,
    /// Seals cursors over several sources.
    pub cursors: PageSealer,
    /// What is known of reaching peers; shared with whoever hears from them.
    pub reaches: Arc<Reaches>,
    /// Most bytes of answers that are kept in memory; 0 keeps none.
    pub cache_bytes: usize,
    /// Is told of the steps of renewals.
    pub told: Told,
}

/// The asking side.
pub struct Outbound {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    clock: Arc<dyn Clock>,
    audit: AuditSink,
    spans: Spans,
    deadlines: Deadlines,
    fanout_deadline: Duration,
    session_users: BTreeMap<u32, UserId>,
    sessions: SessionBook,
    local: Arc<dyn LocalSource>,
    cursors: PageSealer,
    reaches: Arc<Reaches>,
    notices: NoticeBook<SessionKey>,
    cache: AnswerCache,
    flights: Flights,
    pauses: Arc<PauseWatch>,
    witness: WitnessBook,
    told: Told,
    table: ArcSwap<RouteTable>,
    /// Loads one at a time, so that an older reading never replaces a newer one.
    loading: tokio::sync::Mutex<()>,
}

/// Why no session was created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateSessionError {
    /// No token.
    #[error(transparent)]
    Draw(#[from] session::SessionDrawError),
    /// The store refused or failed.
    #[error("the session could not be stored: {0}")]
    Store(#[from] StoreError),
}

impl Outbound {
    /// Puts the parts together; no peer is known before [`Outbound::load`].
    #[must_use]
    pub fn new(parts: OutboundParts) -> Self {
        Self {
            store: parts.store,
            sealer: parts.sealer,
            pauses: PauseWatch::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            cache: AnswerCache::new(parts.cache_bytes),
            flights: Flights::default(),
            audit: parts.audit,
            spans: parts.spans,
            deadlines: parts.deadlines,
            fanout_deadline: parts.fanout_deadline,
            session_users: parts.session_users,
            sessions: SessionBook::default(),
            local: parts.local,
            cursors: parts.cursors.for_longest(query::MAX_CURSOR),
            witness: WitnessBook::new(Arc::clone(parts.reaches.metrics())),
            reaches: parts.reaches,
            told: parts.told,
            notices: NoticeBook::default(),
            table: ArcSwap::from_pointee(RouteTable::default()),
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// Reads peers and credentials from the store. To be called at start, and after every change of an outbound
    /// peer that was not made through this type (`peer suspend`, `peer resume`).
    ///
    /// A credential that cannot be used does not fail the load: asking that peer fails, and says so.
    ///
    /// # Errors
    /// The store's; the routes known before stay.
    pub async fn load(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.loading.lock().await;
        let peers = self.store.list_peers().await?;
        let credentials = self.store.list_outbound_credentials().await?;
        let before = self.table.load();
        let table = RouteTable::build(peers, &credentials, &before, &self.basis());
        let is_known = |name: &PeerName| table.routes().any(|route| route.name == *name);
        self.reaches.retain(is_known);
        self.notices.retain(is_known);
        self.table.store(Arc::new(table));
        self.drop_unroutable();
        self.load_witness().await
    }

    /// Forgets the answers of peers that are gone or not to be asked, and those that other credentials have got.
    fn drop_unroutable(&self) {
        let table = self.table.load();
        let live: HashMap<PeerId, [u8; 32]> = table
            .routes()
            .filter(|route| !matches!(route.peer_state, PeerState::Suspended | PeerState::Revoked))
            .map(|route| (route.peer, *route.basis()))
            .collect();
        self.cache
            .retain(|key, _| live.get(&key.peer) == Some(&key.credential));
    }

    /// Forgets answers that are too old. To be called now and then.
    pub fn sweep(&self) {
        self.cache.sweep(self.clock.boot_nanos());
    }

    /// Figures of the cache, for `status` and metrics.
    #[must_use]
    pub fn cache_figures(&self) -> CacheFigures {
        self.cache.figures()
    }

    /// Figures of the cache for one peer, for `status`.
    #[must_use]
    pub fn cache_figures_of(&self, peer: PeerId) -> PeerFigures {
        self.cache.figures_of(peer)
    }

    /// How many writes of the session door were late after their check.
    #[must_use]
    pub fn pauses_exceeded(&self) -> u64 {
        self.pauses.exceeded()
    }

    /// The routes as they are now, for `status`.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// What is known of reaching the peer of that name, for `status`.
    #[must_use]
    pub fn reach_of(&self, name: &PeerName) -> Option<ReachState> {
        let table = self.table.load();
        let mut routes = table.routes();
        routes
            .find(|route| route.name == *name)
            .map(|route| route.reach.state())
    }

    /// Closes the breaker of the peer of that name by an operator's word: the next request goes out. False when
    /// there is no such peer.
    pub fn reset_breaker(&self, name: &PeerName) -> bool {
        let table = self.table.load();
        let found = table.routes().find(|route| route.name == *name);
        if let Some(route) = found {
            route.reach.reset();
        }
        found.is_some()
    }

    /// Opens a connection to every peer of `user` (of everyone, without one) that may be asked and has none, so
    /// that the first question need not wait for a handshake. A peer whose breaker is not closed is left alone,
    /// and what goes wrong is left for that first question to find out.
    pub fn warm_up(&self, user: Option<&UserId>) {
        for route in self.table.load().routes() {
            let now = UnixMillis(route.their_now(self.clock.as_ref()));
            let is_meant = user.is_none_or(|user| route.user == *user)
                && route.reach.is_closed()
                && state::may_ask(route.peer_state, route.state(), route.not_after, now).is_ok();
            if let (true, Ok(ready)) = (is_meant, &route.client) {
                let (client, name) = (Arc::clone(&ready.client), route.name.clone());
                tokio::spawn(async move {
                    if let Err(error) = client.warm_up().await {
                        tracing::debug!(peer = %name, %error, "a connection could not be opened in advance");
                    }
                });
            }
        }
    }

    /// Creates a session of `user` that ends at `expires_at`; the token is not kept anywhere else.
    ///
    /// # Errors
    /// [`CreateSessionError`].
    pub async fn create_session(
        &self,
        actor: Actor,
        user: UserId,
        expires_at: UnixMillis,
    ) -> Result<(SessionToken, SessionRecord), CreateSessionError> {
        let token = SessionToken::draw()?;
        let session = NewSession {
            id: time_ordered_id(self.clock.as_ref()),
            token_sha256: token.sha256(),
            local_user: user,
            expires_at,
        };
        let user = session.local_user.clone();
        let created = self.store.create_session(&self.act(actor), session).await?;
        self.warm_up(Some(&user));
        Ok((token, created.value))
    }

    /// Ends a session: no request that begins after this is answered for it. Idempotent.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_session(&self, actor: Actor, id: Uuid) -> Result<SessionRecord, StoreError> {
        let ended = self.store.end_session(&self.act(actor), id).await;
        // Also after a failure: it may have been written all the same.
        self.sessions.forget();
        Ok(ended?.value)
    }

    fn basis(&self) -> RouteBasis<'_> {
        RouteBasis {
            sealer: &self.sealer,
            clock: &self.clock,
            deadlines: self.deadlines,
            reaches: &self.reaches,
        }
    }

    fn act(&self, actor: Actor) -> Act {
        Act {
            id: time_ordered_id(self.clock.as_ref()),
            actor,
            now: UnixMillis(self.clock.unix_millis()),
        }
    }

    /// Writes down what the serving side said about a grant, if it is news. In this process it counts at once,
    /// also when the store cannot be written: a revocation that was heard is never forgotten over that.
    async fn learn(&self, peer: &PeerRoute, learned: Option<CredentialState>, reason: &str) {
        let Some(learned) = learned.filter(|learned| state::is_news(peer.state(), *learned)) else {
            return;
        };
        // What is said of a credential that has a successor says nothing of the grant.
        if self
            .current(peer)
            .is_some_and(|now| now.credential != peer.credential)
        {
            return;
        }
        peer.set_state(learned);
        if learned != CredentialState::Active {
            peer.lease.forget();
            self.cache.flush(peer.peer);
        }
        if let (CredentialState::Revoked, Ok(ready)) = (learned, &peer.client) {
            ready.client.close_idle();
        }
        tracing::info!(peer = %peer.name, grant = %peer.grant, state = %learned, "the peer changed the state of a grant");
        let change = CredentialChange {
            credential: peer.credential,
            state: learned,
            reason: reason.to_owned(),
        };
        let act = self.act(Actor::Sidecar("session-door"));
        if let Err(error) = self.store.change_credential(&act, change).await {
            tracing::error!(peer = %peer.name, %error, "the state of a grant could not be stored");
        }
    }

    /// Records that a peer was reached or not, at most once a second unless the kind changes.
    async fn record_contact(&self, peer: &PeerRoute, contact: Contact) {
        let now = UnixMillis(self.clock.unix_millis());
        if !peer.is_contact_due(contact == Contact::Success, now) {
            return;
        }
        if let Contact::Failure(cause) = &contact {
            tracing::warn!(peer = %peer.name, cause, "federation offline");
        }
        if let Err(error) = self.store.record_contact(peer.peer, now, contact).await {
            tracing::warn!(peer = %peer.name, %error, "a contact could not be stored");
        }
    }
}
