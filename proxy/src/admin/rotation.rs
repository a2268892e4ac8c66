//! `ca rotate`: the root of the embedded authority exchanged for another one, with peers that follow in their own time.
//!
//! 1. *plan*: the next root is made and stored. Nobody trusts it.
//! 2. *apply*: both roots are trusted. Peers hear of a new generation with their next answer, renew, and are given both roots and a
//!    certificate of the next one; with their next question they acknowledge. Our listeners keep the certificate of the old
//!    root: peers that have not followed must still be able to come.
//! 3. *finish*: refused while a peer has not acknowledged or holds a certificate of the old root. Our listeners go over to the
//!    next root; the old one and its key are forgotten, and a connection that was made under it ends with its next request.
//!
//! Invariant: what is in force follows what is stored, never the other way round: a step is one commit, and a process that ends
//! behind it starts in the state after it. A generation of trust stands for one set of roots.

use std::sync::Arc;

use ::policy::grant::GrantStatus;
use ::policy::id::GrantId;
use ::policy::peer::{PeerName, PeerState};
use ::policy::time::UnixMillis;
use aws_lc_rs::rand::SystemRandom;
use certs::ca::{CaError, CaMaterial, CaRoots, RotatingCa};
use certs::clock::unix_time;
use certs::identity::fingerprint;
use certs::trust::certificate_to_pem;
use certs::{
    CertificateAuthority, EmbeddedCa, RevokedSet, SealPurpose, TrustAnchors, TrustPublisher,
    verify_chain,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::canary;
use super::check::CheckView;
use super::{AdminCode, AdminFailure, Control};
use crate::store::{
    Actor, CertificateState, PeerRecord, SealedSecret, SecretPurpose, StoreError, TrustPhase,
    TrustState,
};

/// The id of the secret with the embedded root, in every generation.
pub const CA_SECRET: &str = "embedded";
/// The name in the root.
const CA_NAME: &str = "mosaic-federation embedded CA";
const MILLIS_PER_SECOND: i64 = 1_000;

/// A new root with its key, as one secret. `now` in Unix seconds.
///
/// # Errors
/// [`CaError`].
pub fn new_authority(now: i64) -> Result<Zeroizing<Vec<u8>>, CaError> {
    let CaMaterial { root, key } = EmbeddedCa::generate(CA_NAME, now, &SystemRandom::new())?;
    CaMaterial::encode(&root, &key)
}

/// What a rotation changes while the process runs.
pub struct Rotation {
    embedded: Arc<RotatingCa>,
    /// Who signs for peers: the embedded authority or a step-ca.
    peers: Arc<dyn CertificateAuthority>,
    publisher: TrustPublisher,
    /// One step at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Rotation {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        embedded: Arc<RotatingCa>,
        peers: Arc<dyn CertificateAuthority>,
        publisher: TrustPublisher,
    ) -> Self {
        Self {
            embedded,
            peers,
            publisher,
            turn: tokio::sync::Mutex::new(()),
        }
    }
}

/// How a rotation is to be ended.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishRotation {
    /// Leave behind who has not followed.
    #[serde(default)]
    pub force: bool,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootView {
    /// SHA-256 of the certificate (DER), lower-case hex.
    pub sha256: String,
    /// When it ends.
    pub not_after: Option<UnixMillis>,
    /// The certificate, PEM.
    pub pem: String,
}

/// The holder of a grant, and whether it has followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Follower {
    /// The peer.
    pub peer: PeerName,
    /// The grant.
    pub grant: GrantId,
    /// The newest generation of trust that it has acknowledged.
    pub acknowledged: Option<u64>,
    /// Serial numbers of certificates of the old root that still open the grant.
    pub of_old_root: Vec<String>,
    /// When the last of those ends by itself.
    pub until: Option<UnixMillis>,
    /// What is still waited for; `None` when it has followed.
    pub waits_for: Option<String>,
}

/// A rotation, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotationView {
    /// `steady`, `planned` or `applied`.
    pub phase: &'static str,
    /// Since when, unless steady.
    pub since: Option<UnixMillis>,
    /// The generation of trust that peers are told.
    pub generation: u64,
    /// The root in force.
    pub root: RootView,
    /// The one that is to follow.
    pub next_root: Option<RootView>,
    /// Holders of grants that are in force; while a rotation is applied.
    pub followers: Vec<Follower>,
    /// How many of them have not followed.
    pub waiting: usize,
    /// What to do next.
    pub next_step: Option<&'static str>,
}

impl Control {
    /// `ca rotate status`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn rotation(&self) -> Result<RotationView, AdminFailure> {
        let state = self.store.trust().await?;
        let root = self.open_root(state.ca_generation).await?;
        let next = match state.phase {
            TrustPhase::Steady => None,
            _ => Some(self.open_root(state.next_ca_generation()).await?),
        };
        let followers = match state.phase {
            TrustPhase::Applied => self.followers(&state, &root).await?,
            _ => Vec::new(),
        };
        let waiting = followers
            .iter()
            .filter(|one| one.waits_for.is_some())
            .count();
        Ok(RotationView {
            phase: state.phase.as_str(),
            since: state.since,
            generation: state.generation,
            root: view(root.root()),
            next_root: next.map(|next| view(next.root())),
            waiting,
            next_step: match state.phase {
                TrustPhase::Steady => None,
                TrustPhase::Planned => Some("`ca rotate apply` puts the next root beside this one"),
                TrustPhase::Applied if waiting > 0 => Some(
                    "peers follow with their next contact; `ca rotate finish` when nobody is waited for",
                ),
                TrustPhase::Applied => Some("`ca rotate finish` ends the rotation"),
            },
            followers,
        })
    }

    /// `ca rotate plan`: makes the next root. Repeating it makes no other one.
    ///
    /// # Errors
    /// While a rotation is applied.
    pub async fn plan_rotation(&self, actor: &Actor) -> Result<RotationView, AdminFailure> {
        let _one = self.rotation.turn.lock().await;
        let state = self.store.trust().await?;
        if state.phase == TrustPhase::Planned {
            return self.rotation().await;
        }
        let broken = |why: String| AdminFailure::new(AdminCode::Unavailable, why);
        let plain = new_authority(self.clock.unix_seconds())
            .map_err(|error| broken(format!("no root could be made: {error}")))?;
        let sealed = self
            .sealer
            .seal(SealPurpose::CaKey, CA_SECRET, &plain)
            .map_err(|error| broken(error.to_string()))?;
        let root = SealedSecret {
            purpose: SecretPurpose::CaKey,
            id: CA_SECRET.to_owned(),
            generation: state.next_ca_generation(),
            sealed,
        };
        let committed = self.store.plan_rotation(&self.act(actor), root).await;
        let committed = committed.map_err(refused)?;
        self.refreshed(committed.revision).await?;
        self.rotation().await
    }

    /// `ca rotate apply`: trusts both roots. Repeating it puts in force what a step before could not.
    ///
    /// # Errors
    /// When none is planned; when the roots could not be put in force here.
    pub async fn apply_rotation(&self, actor: &Actor) -> Result<RotationView, AdminFailure> {
        let _one = self.rotation.turn.lock().await;
        let mut state = self.store.trust().await?;
        if state.phase != TrustPhase::Applied {
            let committed = self.store.apply_rotation(&self.act(actor)).await;
            let committed = committed.map_err(refused)?;
            state = committed.value;
            self.refreshed(committed.revision).await?;
        }
        let root = self.open_root(state.ca_generation).await?;
        let next = self.open_root(state.next_ca_generation()).await?;
        Box::pin(self.trust_both(CaRoots::both(root, next), state.generation)).await?;
        tracing::info!(
            generation = state.generation,
            "the next root is trusted beside the one in force"
        );
        self.rotation().await
    }

    /// `ca rotate finish`: trusts the next root alone.
    ///
    /// # Errors
    /// When none is applied; while somebody has not followed, unless forced.
    pub async fn finish_rotation(
        &self,
        actor: &Actor,
        request: FinishRotation,
    ) -> Result<RotationView, AdminFailure> {
        let _one = self.rotation.turn.lock().await;
        let state = self.store.trust().await?;
        if state.phase == TrustPhase::Steady && self.trusted_generation() != state.generation {
            // It was committed before, and not put in force.
            let root = self.open_root(state.ca_generation).await?;
            Box::pin(self.trust_alone(CaRoots::one(root), state.generation)).await?;
            self.refreshed(self.store.revision().await?).await?;
            return Box::pin(self.rotation()).await;
        }
        if state.phase != TrustPhase::Applied {
            let what = "no rotation is applied".to_owned();
            return Err(refused(StoreError::Conflict { what }));
        }
        let root = self.open_root(state.ca_generation).await?;
        let next = self.open_root(state.next_ca_generation()).await?;
        let followers = self.followers(&state, &root).await?;
        let behind: Vec<Follower> = followers
            .into_iter()
            .filter(|one| one.waits_for.is_some())
            .collect();
        if !behind.is_empty() && !request.force {
            return Err(not_followed(&behind));
        }
        // Our listeners go first: should that fail, nothing has changed.
        let roots = CaRoots::one(Arc::clone(&next));
        self.rotation.embedded.put(roots.clone(), Some(&*root));
        if let Err(why) = self.reissue().await {
            let before = CaRoots::both(root, next);
            self.rotation.embedded.put(before, None);
            return Err(AdminFailure::new(
                AdminCode::Unavailable,
                format!("no server certificate of the next root: {why}"),
            )
            .hint("both roots stay in force; repair the cause and repeat the command"));
        }
        let left: Vec<GrantId> = behind.iter().map(|one| one.grant).collect();
        let committed = self.store.finish_rotation(&self.act(actor), &left).await;
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                let before = CaRoots::both(root, next);
                self.rotation.embedded.put(before, None);
                // Until then our listeners show the next root, which both kinds of peers may not know.
                let _ = self.reissue().await;
                return Err(refused(error));
            }
        };
        let generation = committed.value.generation;
        // The old root first: what cannot be read afterwards must not keep it trusted.
        Box::pin(self.trust_alone(roots, generation)).await?;
        self.refreshed(committed.revision).await?;
        for one in &behind {
            tracing::warn!(peer = %one.peer, grant = %one.grant, "left behind by the rotation of the root: it must enroll again");
        }
        tracing::info!(generation, "the old root is gone");
        self.rotation().await
    }

    /// The check of `doctor`.
    pub(super) async fn check_rotation(&self) -> Result<Option<CheckView>, AdminFailure> {
        let state = self.store.trust().await?;
        let Some(since) = state.since else {
            return Ok(None);
        };
        let found = format!("{} since {}", state.phase.as_str(), since.rfc3339());
        let remedy = "`ca rotate status` says who has not followed and what comes next";
        Ok(Some(CheckView::warn("root rotation", found, remedy)))
    }

    /// Puts both roots in force. Peers are given the roots before they are told of the generation: one that knows the
    /// generation does not ask again.
    async fn trust_both(&self, roots: CaRoots, generation: u64) -> Result<(), AdminFailure> {
        let before = self.rotation.embedded.roots();
        self.rotation.embedded.put(roots, None);
        if let Err(why) = self.reissue().await {
            self.rotation.embedded.put(before, None);
            return Err(late(why));
        }
        self.publish_trust(generation)
    }

    /// Puts one root in force: what is not trusted any more ends first.
    async fn trust_alone(&self, roots: CaRoots, generation: u64) -> Result<(), AdminFailure> {
        self.rotation.embedded.put(roots, None);
        self.publish_trust(generation)?;
        self.reissue().await.map_err(late)
    }

    /// Puts in force what another replica has stored.
    pub(super) async fn follow_rotation(&self) -> Result<(), AdminFailure> {
        let _one = self.rotation.turn.lock().await;
        let state = self.store.trust().await?;
        if self.trusted_generation() == state.generation {
            return Ok(());
        }
        let root = self.open_root(state.ca_generation).await?;
        if state.phase == TrustPhase::Applied {
            let next = self.open_root(state.next_ca_generation()).await?;
            Box::pin(self.trust_both(CaRoots::both(root, next), state.generation)).await
        } else {
            Box::pin(self.trust_alone(CaRoots::one(root), state.generation)).await
        }
    }

    fn trusted_generation(&self) -> u64 {
        self.rotation.publisher.subscribe().load().generation()
    }

    fn publish_trust(&self, generation: u64) -> Result<(), AdminFailure> {
        let Rotation {
            peers, publisher, ..
        } = &self.rotation;
        let anchors = TrustAnchors::new(generation, peers.anchors())
            .map_err(|error| late(error.to_string()))?;
        if self.trusted_generation() != generation {
            publisher
                .publish(anchors)
                .map_err(|error| late(error.to_string()))?;
        }
        Ok(())
    }

    async fn reissue(&self) -> Result<(), String> {
        match &self.server_certificate {
            Some(server) => server.reissue().await,
            None => Ok(()),
        }
    }

    async fn refreshed(&self, revision: u64) -> Result<(), AdminFailure> {
        let refreshed = self.directory.refresh().await;
        let failed = |error| AdminFailure::committed(revision, &error);
        refreshed.map(drop).map_err(failed)
    }

    async fn open_root(&self, generation: u32) -> Result<Arc<EmbeddedCa>, AdminFailure> {
        let broken = |why: String| {
            let what = format!("the root of generation {generation} cannot be opened: {why}");
            AdminFailure::new(AdminCode::Unavailable, what)
        };
        let secrets = self.store.load_secrets(SecretPurpose::CaKey).await?;
        let secret = secrets
            .into_iter()
            .find(|secret| secret.id == CA_SECRET && secret.generation == generation)
            .ok_or_else(|| broken("the store does not have it".to_owned()))?;
        let plain = self
            .sealer
            .unseal(SealPurpose::CaKey, CA_SECRET, &secret.sealed)
            .map_err(|error| broken(error.to_string()))?;
        let CaMaterial { root, key } =
            CaMaterial::decode(&plain).map_err(|error| broken(error.to_string()))?;
        EmbeddedCa::load(root, &key)
            .map(Arc::new)
            .map_err(|error| broken(error.to_string()))
    }

    /// Everybody who holds a certificate that opens a grant now. Who has none left must enroll again in any case.
    async fn followers(
        &self,
        state: &TrustState,
        old: &EmbeddedCa,
    ) -> Result<Vec<Follower>, AdminFailure> {
        let now = self.now();
        let old = TrustAnchors::new(0, vec![old.root().clone()])
            .map_err(|error| AdminFailure::new(AdminCode::Unavailable, error.to_string()))?;
        let image = self.store.load(now).await?;
        let acknowledged = self.store.trust_acknowledgements().await?;
        let mut followers = Vec::new();
        for record in &image.grants {
            let grant = &record.grant;
            let peer = image.peers.iter().find(|peer| peer.id == grant.peer);
            // The canary's certificate is over in seconds, and nobody but this process holds it.
            let follows = |peer: &&PeerRecord| {
                peer.state != PeerState::Revoked && peer.name.as_str() != canary::PEER
            };
            let Some(peer) = peer.filter(follows) else {
                continue;
            };
            if grant.status_at(now) != GrantStatus::Active {
                continue;
            }
            let leaves = self.store.list_certificates(grant.id).await?;
            let mut good = leaves
                .iter()
                .filter(|leaf| {
                    leaf.entry.state_at(now) == CertificateState::Active
                        && now <= leaf.entry.not_after
                })
                .peekable();
            if good.peek().is_none() {
                continue;
            }
            let of_old: Vec<_> = good.filter(|leaf| is_under(&leaf.der, &old, now)).collect();
            let said = acknowledged.iter().find(|one| one.grant == grant.id);
            let has = said.map(|one| one.generation);
            let follows = has.is_some_and(|generation| generation >= state.generation);
            let waits_for = match (follows, of_old.is_empty()) {
                (true, true) => None,
                (false, _) => Some(format!(
                    "acknowledgement of generation {}",
                    state.generation
                )),
                (true, false) => Some("the end of certificates of the old root".to_owned()),
            };
            followers.push(Follower {
                peer: peer.name.clone(),
                grant: grant.id,
                acknowledged: has,
                until: of_old
                    .iter()
                    .map(|leaf| leaf.entry.retires_at.unwrap_or(leaf.entry.not_after))
                    .max(),
                of_old_root: of_old
                    .iter()
                    .map(|leaf| leaf.entry.serial.clone())
                    .collect(),
                waits_for,
            });
        }
        Ok(followers)
    }
}

/// Whether a certificate of a peer was signed by that root.
fn is_under(der: &[u8], root: &TrustAnchors, now: UnixMillis) -> bool {
    let leaf = CertificateDer::from(der.to_vec());
    let at = unix_time(now.0.div_euclid(MILLIS_PER_SECOND));
    verify_chain(&[leaf], root, &RevokedSet::default(), at).is_ok()
}

fn view(root: &CertificateDer<'static>) -> RootView {
    let anchors = TrustAnchors::new(0, vec![root.clone()]).ok();
    let end = anchors.and_then(|anchors| anchors.earliest_not_after());
    RootView {
        sha256: hex::encode(fingerprint(root)),
        not_after: end.map(|end| UnixMillis(end.saturating_mul(MILLIS_PER_SECOND))),
        pem: certificate_to_pem(root),
    }
}

fn refused(error: StoreError) -> AdminFailure {
    let failure = AdminFailure::from(error);
    if failure.code == AdminCode::Conflict {
        failure.hint("`ca rotate status` shows how far it is: plan, apply, finish")
    } else {
        failure
    }
}

fn late(why: String) -> AdminFailure {
    AdminFailure::new(
        AdminCode::NotYetEffective,
        format!("the step is committed, but could not be put in force here: {why}"),
    )
    .hint("repair the cause and repeat the command, or start the process again")
}

fn not_followed(behind: &[Follower]) -> AdminFailure {
    let name = |one: &Follower| {
        let waits_for = one.waits_for.as_deref().unwrap_or_default();
        format!("{} (grant {}): {waits_for}", one.peer, one.grant)
    };
    let names: Vec<String> = behind.iter().map(name).collect();
    AdminFailure::new(
        AdminCode::Conflict,
        format!(
            "{} grant(s) have not followed to the next root: {}",
            behind.len(),
            names.join("; ")
        ),
    )
    .hint("wait for their next contact; `--force` leaves them behind, and they must enroll again")
    .detail("waiting_for", names)
}
