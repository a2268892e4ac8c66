//! What `status` shows: this process, its policy, the peers it asks and the grants it serves.
//!
//! Invariant: one reading of the store; counts nothing and changes nothing.

use std::collections::HashMap;

use policy::id::{GrantId, UserId};
use policy::peer::{PeerName, PeerState};
use policy::rate::{GrantLimits, Rate};
use policy::time::UnixMillis;
use serde::Serialize;

use super::{
    AdminFailure, Canary, CanaryView, Control, PeerView, PolicyFailure, ReplicaView,
    RevocationView, days_left,
};
use crate::audit::AuditView;
use crate::config::Tier;
use crate::directory::View;
use crate::hardening::Hardening;
use crate::inbound::budget::today;
use crate::inbound::self_attack::SelfAttackView;
use crate::outbound::{CacheFigures, Outbound, PeerFigures};
use crate::server_certificate::{ServerCertificate, ServerFailure};
use crate::store::{CertificateState, PeerDirection};

/// The tier and what there is to know about it.
pub(super) const fn tier(tier: &Tier) -> (&'static str, &'static str) {
    match tier {
        Tier::Embedded => (
            "embedded",
            "embedded: one SQLite file on one machine, for starting out and small sites",
        ),
        Tier::Federated(_) => (
            "federated",
            "federated: PostgreSQL, rates shared in Valkey, any number of processes",
        ),
    }
}

/// The state of a process.
#[derive(Debug, Serialize)]
pub struct StatusView {
    /// Version of the program.
    pub version: &'static str,
    /// Storage tier.
    pub tier: &'static str,
    /// What that means.
    pub tier_note: &'static str,
    /// The present, by this process's clock.
    pub now: UnixMillis,
    /// The store revision in force.
    pub revision: u64,
    /// Why nothing is served, if so.
    pub fenced: Option<String>,
    /// The processes that serve from this store, oldest first.
    pub replicas: Vec<ReplicaView>,
    /// Where it listens; absent ones are off.
    pub listeners: Vec<ListenerView>,
    /// The policy in force.
    pub policy: PolicyView,
    /// The audit log.
    pub audit: AuditView,
    /// What this process has given up.
    pub hardening: Hardening,
    /// The attack on the own listener at start; `None` when there was none.
    pub self_attack: Option<SelfAttackView>,
    /// The revocation canary; `None` when it is off.
    pub revocation_canary: Option<CanaryView>,
    /// The certificate of our listeners; `None` when this process serves nobody.
    pub server_certificate: Option<ServerCertificateView>,
    /// Revocation lists, ours and others'.
    pub revocation: RevocationView,
    /// The peers we ask.
    pub outbound: Vec<PeerView>,
    /// What is kept of their answers; `None` when this process asks nobody.
    pub cache: Option<CacheView>,
    /// The grants we serve.
    pub inbound: Vec<InboundView>,
}

/// The cache of peers' answers.
#[derive(Debug, Serialize)]
pub struct CacheView {
    /// All of it.
    #[serde(flatten)]
    pub figures: CacheFigures,
    /// Hits in a hundred questions that could have been answered from it; `None` before the first.
    pub hit_rate_percent: Option<u64>,
    /// By peer, by name.
    pub peers: Vec<PeerCacheView>,
}

/// What is kept of one peer's answers.
#[derive(Debug, Serialize)]
pub struct PeerCacheView {
    /// Its local name.
    pub peer: PeerName,
    /// What it does for this peer.
    #[serde(flatten)]
    pub figures: PeerFigures,
    /// As for all of it.
    pub hit_rate_percent: Option<u64>,
    /// For how long they may be served without asking, milliseconds; 0 when the peer has to be asked first.
    pub lease_left_ms: u64,
}

/// The certificate of our listeners.
#[derive(Debug, Serialize)]
pub struct ServerCertificateView {
    /// `embedded`, `step-ca` or `files`.
    pub source: &'static str,
    /// Serial number.
    pub serial: String,
    /// End of validity.
    pub not_after: UnixMillis,
    /// Whole days until then, negative when past.
    pub days_left: i64,
    /// Why a newer one is not in force.
    pub failure: Option<ServerFailure>,
}

impl ServerCertificateView {
    fn of(server: &ServerCertificate, now: UnixMillis) -> Self {
        let current = server.current();
        let credential = current.credential();
        let not_after = UnixMillis(credential.not_after().saturating_mul(1_000));
        Self {
            source: server.source(),
            serial: credential.serial().as_str().to_owned(),
            not_after,
            days_left: days_left(not_after, now),
            failure: server.failure(),
        }
    }
}

/// One listener.
#[derive(Debug, Serialize)]
pub struct ListenerView {
    /// Its name, as the section of the settings.
    pub name: &'static str,
    /// Address and port, or path of the socket.
    pub address: String,
}

/// The policy in force.
#[derive(Debug, Serialize)]
pub struct PolicyView {
    /// Its files.
    pub files: Vec<String>,
    /// Hash over them.
    pub hash: String,
    /// Since when.
    pub applied_at: Option<UnixMillis>,
    /// Why a later one was not loaded.
    pub last_failure: Option<PolicyFailure>,
    /// Hash of the candidate that decisions are compared with, if one runs beside it.
    pub shadow: Option<String>,
}

/// A grant we serve.
#[derive(Debug, Serialize)]
pub struct InboundView {
    /// The grant.
    pub grant: GrantId,
    /// Its state: `pending`, `active`, `revoked` or `expired`.
    pub state: policy::grant::GrantStatus,
    /// Its peer.
    pub peer: PeerName,
    /// The peer's state.
    pub peer_state: PeerState,
    /// The user whose data it opens.
    pub user: UserId,
    /// End of the newest active certificate.
    pub certificate_expires_at: Option<UnixMillis>,
    /// Whole days until then.
    pub days_left: Option<i64>,
    /// The peer's last contact that worked.
    pub last_success_at: Option<UnixMillis>,
    /// The last one that did not.
    pub last_failure_at: Option<UnixMillis>,
    /// Why not.
    pub last_failure: Option<String>,
    /// How often it may ask; absent when this process does not serve it.
    pub rate_limit: Option<Rate>,
    /// Requests it could make at once now.
    pub rate_remaining: Option<u32>,
    /// Different rows it may see in a UTC day, where policy bounds them.
    pub rows_per_day: Option<u32>,
    /// Those it may still see today.
    pub rows_remaining: Option<u32>,
}

fn cache(outbound: &Outbound, now: u64) -> CacheView {
    let figures = outbound.cache_figures();
    let mut peers: Vec<PeerCacheView> = outbound
        .routes()
        .routes()
        .map(|route| {
            let figures = outbound.cache_figures_of(route.peer);
            PeerCacheView {
                peer: route.name.clone(),
                figures,
                hit_rate_percent: percent(figures.hits, figures.misses),
                lease_left_ms: route
                    .leased_until()
                    .map_or(0, |until| until.saturating_sub(now) / 1_000_000),
            }
        })
        .collect();
    peers.sort_by(|a, b| a.peer.cmp(&b.peer));
    CacheView {
        figures,
        hit_rate_percent: percent(figures.hits, figures.misses),
        peers,
    }
}

/// Hits in a hundred questions.
fn percent(hits: u64, misses: u64) -> Option<u64> {
    let asked = hits.saturating_add(misses);
    hits.saturating_mul(100).checked_div(asked)
}

impl Control {
    /// `status`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self) -> Result<StatusView, AdminFailure> {
        let now = self.now();
        let view = self.directory.view();
        let image = self.store.load(now).await?;
        let peers = image.peers_by_id();
        let mut ends: HashMap<GrantId, UnixMillis> = HashMap::new();
        for leaf in &image.certificates {
            if leaf.state_at(now) == CertificateState::Active {
                let end = ends.entry(leaf.grant).or_insert(leaf.not_after);
                *end = leaf.not_after.max(*end);
            }
        }
        let credentials = self.store.list_outbound_credentials().await?;
        let outbound = image
            .peers
            .iter()
            .filter(|peer| peer.direction == PeerDirection::Outbound)
            .map(|peer| self.peer_view(peer, &credentials, now))
            .collect();
        let mut inbound: Vec<InboundView> = image
            .grants
            .iter()
            .filter_map(|record| {
                let grant = &record.grant;
                let peer = peers.get(&grant.peer)?;
                let expiry = ends.get(&grant.id).copied();
                Some(InboundView {
                    grant: grant.id,
                    state: grant.status_at(now),
                    peer: peer.name.clone(),
                    peer_state: peer.state,
                    user: grant.user.clone(),
                    certificate_expires_at: expiry,
                    days_left: expiry.map(|end| days_left(end, now)),
                    last_success_at: peer.last_success_at,
                    last_failure_at: peer.last_failure_at,
                    last_failure: peer.last_failure.clone(),
                    rate_limit: None,
                    rate_remaining: None,
                    rows_per_day: None,
                    rows_remaining: None,
                })
            })
            .collect();
        self.add_limits(&view, &mut inbound).await?;
        let revocation = self.revocation_view().await?;
        let (tier, tier_note) = tier(&self.config.tier);
        Ok(StatusView {
            version: env!("CARGO_PKG_VERSION"),
            tier,
            tier_note,
            now,
            revision: view.snapshot.revision(),
            fenced: self.directory.fenced(),
            replicas: self.replica_views().await?,
            listeners: self.listeners(),
            policy: PolicyView {
                files: view.policy.files.clone(),
                hash: view.policy.hash.clone(),
                applied_at: view.policy.applied_at,
                last_failure: self.policy_failure.lock().clone(),
                shadow: self.shadow.runs(),
            },
            audit: self.audit.view(),
            hardening: self.hardening,
            self_attack: self.self_attack.clone(),
            revocation_canary: self
                .canary
                .as_ref()
                .map(Canary::view)
                .filter(|view| view.every_s.is_some()),
            server_certificate: self
                .server_certificate
                .as_ref()
                .map(|server| ServerCertificateView::of(server, now)),
            revocation,
            outbound,
            cache: self
                .outbound
                .as_ref()
                .map(|outbound| cache(outbound, self.clock.boot_nanos())),
            inbound,
        })
    }

    /// Adds how the limits of the grants stand.
    async fn add_limits(
        &self,
        view: &View,
        grants: &mut [InboundView],
    ) -> Result<(), AdminFailure> {
        let seen: HashMap<GrantId, u32> = self
            .store
            .rows_seen_by_grant(today(&*self.clock))
            .await?
            .into_iter()
            .collect();
        for shown in grants {
            let Some(entry) = view.snapshot.grant(shown.grant) else {
                continue;
            };
            let GrantLimits { rate, rows_per_day } = entry.limits;
            shown.rate_limit = Some(rate);
            shown.rate_remaining = Some(self.limits.remaining(shown.grant, rate).await);
            shown.rows_per_day = rows_per_day;
            let used = seen.get(&shown.grant).copied().unwrap_or_default();
            shown.rows_remaining = rows_per_day.map(|most| most.saturating_sub(used));
        }
        Ok(())
    }

    fn listeners(&self) -> Vec<ListenerView> {
        let at = &self.addresses;
        let mut listeners: Vec<ListenerView> = [
            ("federation", at.federation),
            ("enrollment", at.enrollment),
            ("session", at.session),
            ("ops", at.ops),
        ]
        .into_iter()
        .filter_map(|(name, address)| {
            Some(ListenerView {
                name,
                address: address?.to_string(),
            })
        })
        .collect();
        if self.config.roles.ask {
            let socket = self.config.session.socket.display().to_string();
            listeners.push(ListenerView {
                name: "session",
                address: socket,
            });
        }
        let socket = self.config.admin.socket.display().to_string();
        listeners.push(ListenerView {
            name: "admin",
            address: socket,
        });
        listeners
    }
}
