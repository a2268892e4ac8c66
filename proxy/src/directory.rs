//! What every request looks up: the snapshot of grants and rules, and the registered leaves, swapped
//! as one.
//!
//! Invariant: [`Directory::refresh`] returns only when the change it applies holds in this process:
//! the new view is in place, the revoked set is published to the handshake, and every connection
//! with an answer under an older effective revision is cut (specification, section 8). One element
//! that does not hold together keeps the last good view and is an error. What peers may still serve from
//! their caches is waited for by [`Directory::settle`], outside of the lock on changes.
//!
//! Committing a change is the store's; where policy texts come from is `policy_files`.

mod applied;
mod candidate;
mod leaf;
mod leases;
mod part;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use certs::clock::Clock;
use certs::{RevokedPublisher, RevokedSet};
use parking_lot::Mutex;
use policy::deny::DenyCode;
use policy::grant::{Grant, GrantStatus};
use policy::id::GrantId;
use policy::mapping::Mapping;
use policy::peer::{Peer, PeerState};
use policy::revision::{EffectiveRevision, RevisionKey};
use policy::rules::RuleSet;
use policy::snapshot::{GrantEntry, Snapshot};
use policy::time::UnixMillis;
use tokio::sync::watch;

use crate::policy_files::{self, PolicyProblem};
use crate::store::{
    Act, CertificateState, PeerDirection, PeerRecord, PolicyBundle, PolicyFile, PolicyPublication,
    Store, StoreError, StoreImage,
};
use crate::telemetry::Metrics;
use crate::transport::{CutCount, GateRegistry, ServeFence};
use applied::{Applications, Cut};
use leaf::{Leaves, leaves_of};
use leases::RetiredLeases;

pub use candidate::CandidatePolicy;
pub use leaf::Leaf;
pub use leases::{LeaseBook, Pending, Touched, UNLEASED_CACHE};

/// What an operator is told when a touched grant was used by a peer without leases.
const UNLEASED_NOTICE: &str = "peer may serve cached answers for up to 30 s";

/// Everything a request looks up, frozen. A copy with one grant changed shares the rest.
#[derive(Clone)]
pub struct View {
    /// Grants and rules.
    pub snapshot: Snapshot,
    /// The policy in force.
    pub policy: Arc<PolicyInForce>,
    leaves: Leaves,
}

/// The policy in force, for status and records.
#[derive(Debug, Clone)]
pub struct PolicyInForce {
    /// Names of its files.
    pub files: Vec<String>,
    /// Hash over names and texts, lower-case hex; empty before any policy was published.
    pub hash: String,
    /// When it was published.
    pub applied_at: Option<UnixMillis>,
}

impl View {
    /// The registered leaf of a grant with this fingerprint.
    #[must_use]
    pub fn leaf(&self, grant: GrantId, fingerprint: &[u8; 32]) -> Option<&Leaf> {
        self.leaves
            .get(&grant)?
            .iter()
            .find(|leaf| leaf.fingerprint == *fingerprint)
    }

    /// The registered leaves of a grant.
    #[must_use]
    pub fn leaves(&self, grant: GrantId) -> &[Leaf] {
        self.leaves.get(&grant).map_or(&[], |leaves| &**leaves)
    }

    /// Every registered leaf.
    pub fn every_leaf(&self) -> impl Iterator<Item = &Leaf> {
        self.leaves.values().flat_map(|leaves| leaves.iter())
    }

    /// The effective revision under which a grant may be answered now, `None` when it may not.
    #[must_use]
    pub fn live_revision(&self, grant: GrantId) -> Option<EffectiveRevision> {
        self.snapshot.grant(grant).and_then(|entry| live(entry))
    }
}

fn live(entry: &GrantEntry) -> Option<EffectiveRevision> {
    let servable = entry.grant.status == GrantStatus::Active
        && matches!(entry.peer.state, PeerState::Active | PeerState::Degraded);
    servable.then_some(entry.effective_revision)
}

/// What applying a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Revision of the store that is in force.
    pub revision: u64,
    /// How long leases on earlier answers were waited for, milliseconds.
    pub waited_ms: u64,
    /// Connections of changed grants that were between answers.
    pub connections_closed: u64,
    /// Connections that were reset in the middle of an answer.
    pub connections_reset: u64,
    /// What is outside of the promise, in words, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

impl Applied {
    const fn of(revision: u64, cut: CutCount) -> Self {
        Self {
            revision,
            waited_ms: 0,
            connections_closed: cut.closed,
            connections_reset: cut.reset,
            notice: None,
        }
    }
}

/// Leases that had not ended when the wait for them did. The change they wait for is committed and in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// What is waited for, for people.
    pub waiting_for: Vec<String>,
}

/// How long leases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTerms {
    /// The longest that this process gives.
    pub duration: Duration,
    /// How long [`Directory::settle`] waits.
    pub wait: Duration,
}

/// Why a change could not be applied. The last good view stays in force, except that a change that
/// was committed fences the process: see the text.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds does not make a snapshot.
    #[error("the store's content does not hold together: {0}")]
    Snapshot(String),
    /// The policy files have problems; nothing was published.
    #[error("the policy was not loaded: {} problem(s), the last good set stays in force", .0.len())]
    Policy(Vec<PolicyProblem>),
}

/// The keys and parts a directory is opened with.
pub struct DirectoryParts {
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Key of effective revisions.
    pub revision_key: RevisionKey,
    /// The mapping of the preset; `None` when the policy brings its own.
    pub preset: Option<Arc<Mapping>>,
    /// Where policy files are; `None` when this process serves nobody and has none.
    pub policy_dir: Option<PathBuf>,
    /// How long leases on answers are, and how long they are waited for.
    pub lease: LeaseTerms,
    /// Until when this process may answer.
    pub fence: Arc<ServeFence>,
    /// Whether other replicas are registered: what is in force is then the policy of the store, not the files here.
    pub others: bool,
    /// The revoked set the handshake reads.
    pub revoked: RevokedPublisher,
    /// Counted events.
    pub metrics: Arc<Metrics>,
}

/// Holds the view in force and applies changes to it.
pub struct Directory {
    parts: DirectoryParts,
    current: ArcSwap<View>,
    gates: Arc<GateRegistry>,
    leases: LeaseBook,
    retired: RetiredLeases,
    /// What applying changes has cut.
    applications: Mutex<Applications>,
    /// The longest lease that the store knows to be possible.
    longest: Mutex<Duration>,
    /// One change is applied at a time.
    changing: tokio::sync::Mutex<()>,
    /// One reload of the policy at a time, from reading to applying. Other changes are applied meanwhile: reading, checking
    /// and publishing files takes longer than a change may be held up.
    reloading: tokio::sync::Mutex<()>,
    /// Why the view in force is behind the store, if it is: then nothing is served.
    fenced: ArcSwap<Option<String>>,
    /// Tells of each view that comes into force, by its revision.
    told: watch::Sender<u64>,
}

impl Directory {
    /// Opens the directory: publishes the policy files if they differ from the store's bundle, then
    /// loads.
    ///
    /// # Errors
    /// [`ApplyError`]; the process must not start.
    pub async fn open(parts: DirectoryParts, act: &Act) -> Result<Arc<Self>, ApplyError> {
        let longest = longest_lease(&parts).await?;
        let image = parts.store.load(now(&parts)).await?;
        let stored =
            stored_rules(&image).and_then(|rules| Ok((mapping_for(&parts, &rules)?, rules)));
        let (revision, has_policy) = (image.revision, image.policy.is_some());
        let (view, is_stored) = match (stored, &parts.policy_dir) {
            (Ok((_, rules)), _) => (build(&parts, image, rules)?, true),
            // The store has no policy yet, or one for other settings: what the files say is published below.
            (Err(error), Some(dir)) if !parts.others || image.policy.is_none() => {
                tracing::info!(%error, "the stored policy cannot be used; the policy files are");
                let files = policy_files::load(dir).map_err(ApplyError::Policy)?;
                let rules = Arc::new(policy_files::parse(&files).map_err(ApplyError::Policy)?);
                let image = StoreImage {
                    policy: None,
                    ..image
                };
                (build(&parts, image, rules)?, false)
            }
            (Err(error), _) => return Err(error),
        };
        let directory = Arc::new(Self {
            current: ArcSwap::from_pointee(view),
            gates: GateRegistry::new(),
            leases: LeaseBook::default(),
            retired: RetiredLeases::since(parts.clock.boot_nanos(), longest),
            applications: Mutex::default(),
            longest: Mutex::new(longest),
            changing: tokio::sync::Mutex::new(()),
            reloading: tokio::sync::Mutex::new(()),
            fenced: ArcSwap::from_pointee(None),
            told: watch::Sender::new(revision),
            parts,
        });
        match &directory.parts.policy_dir {
            Some(dir) if directory.parts.others && has_policy => {
                directory.compare_files(dir);
                let _applied = directory.refresh().await?;
            }
            Some(_) if !(is_stored && directory.has_its_files()) => {
                let _applied = directory.reload_policy(act).await?;
            }
            _ => {}
        }
        Ok(directory)
    }

    /// Whether the policy in force is that of the files, as it is at most starts: what was just read need not be read again.
    fn has_its_files(&self) -> bool {
        let Some(dir) = &self.parts.policy_dir else {
            return false;
        };
        let view = self.view();
        let same = policy_files::load(dir)
            .is_ok_and(|files| hex::encode(policy_files::hash_of(&files)) == view.policy.hash);
        if same {
            let loaded = now(&self.parts).0.div_euclid(1000);
            self.parts.metrics.policy_loaded(loaded);
            self.put_revoked(&view);
            self.parts.metrics.store_revision(view.snapshot.revision());
        }
        same
    }

    /// Says so when the files here are not the policy in force: another replica has published that, and files that merely lie
    /// here do not take its place.
    fn compare_files(&self, dir: &Path) {
        let in_force = self.view().policy.hash.clone();
        match policy_files::load(dir) {
            Ok(files) if hex::encode(policy_files::hash_of(&files)) == in_force => {}
            Ok(_) => tracing::warn!(
                dir = %dir.display(),
                in_force,
                "the policy files here differ from the policy in force, which another replica has published; `policy reload` puts the files here in force everywhere"
            ),
            Err(problems) => tracing::warn!(
                dir = %dir.display(),
                problems = problems.len(),
                "the policy files here cannot be read; the policy that another replica has published is in force"
            ),
        }
    }

    /// Whether the policy in force at the start was the store's, whatever the files here say.
    #[must_use]
    pub const fn follows_others(&self) -> bool {
        self.parts.others
    }

    /// The newest revision that is in force with every gate closed for what it ended.
    #[must_use]
    pub fn in_force(&self) -> u64 {
        *self.told.borrow()
    }

    /// For how long leases of revisions that are over may still be out, milliseconds.
    #[must_use]
    pub fn leases_left_ms(&self) -> u64 {
        let now = self.parts.clock.boot_nanos();
        self.retired.left_ms(now)
    }

    /// Cuts every answer under way; how many connections.
    pub fn cut_answers(&self) -> u64 {
        let reset = self.gates.cut_answers();
        self.parts.metrics.cut(CutCount { closed: 0, reset });
        reset
    }

    /// The view in force.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.current.load_full()
    }

    /// Where leases on answers are booked.
    #[must_use]
    pub const fn leases(&self) -> &LeaseBook {
        &self.leases
    }

    /// The register of open connections.
    #[must_use]
    pub const fn gates(&self) -> &Arc<GateRegistry> {
        &self.gates
    }

    /// Tells of each view that comes into force, by its revision.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Why nothing may be served, if so: a change was committed that this process could not apply, or it has not heard of the
    /// store for too long.
    #[must_use]
    pub fn fenced(&self) -> Option<String> {
        let behind = self.fenced.load().as_ref().clone();
        behind.or_else(|| {
            (!self.hears()).then(|| "the store was not heard of for too long".to_owned())
        })
    }

    /// True while nothing may be served.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.is_behind() || !self.hears()
    }

    /// True while a change was committed that this process could not apply.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.fenced.load().is_some()
    }

    /// As what nothing may be served, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<DenyCode> {
        if self.is_behind() {
            Some(DenyCode::Fenced)
        } else if self.hears() {
            None
        } else {
            Some(DenyCode::ReplicaFenced)
        }
    }

    fn hears(&self) -> bool {
        self.parts.fence.holds_at(|| self.parts.clock.boot_nanos())
    }

    /// The effective revision under which a grant may be answered at this moment.
    #[must_use]
    pub fn live_revision(&self, grant: GrantId) -> Option<EffectiveRevision> {
        if self.is_fenced() {
            return None;
        }
        self.current.load().live_revision(grant)
    }

    /// Applies the commit of `revision`, which touches these grants, unless another change that was applied meanwhile
    /// has brought it along: many acts at once need not each read the whole store, one after another. The counts are of
    /// the touched grants alone.
    ///
    /// # Errors
    /// As for [`refresh`](Self::refresh).
    pub async fn apply(&self, revision: u64, touched: Touched) -> Result<Applied, ApplyError> {
        let _one = self.changing.lock().await;
        let in_force = self.view().snapshot.revision();
        let applied = if in_force < revision || self.is_behind() {
            self.refresh_locked().await?
        } else {
            Applied::of(in_force, CutCount::default())
        };
        let cut = self.applications.lock().of(revision, touched);
        Ok(Applied::of(applied.revision, cut))
    }

    /// Applies what the store holds now, whatever has changed.
    ///
    /// # Errors
    /// [`ApplyError`]; the process then serves nothing until a later call succeeds, since the
    /// change is committed and must not be answered past.
    pub async fn refresh(&self) -> Result<Applied, ApplyError> {
        let _one = self.changing.lock().await;
        self.refresh_locked().await
    }

    async fn refresh_locked(&self) -> Result<Applied, ApplyError> {
        if let Some(applied) = self.refresh_in_part().await {
            return Ok(applied);
        }
        match self.load_view().await {
            Ok(view) => {
                let applied = self.swap(view);
                self.fenced.store(Arc::new(None));
                Ok(applied)
            }
            Err(error) => {
                tracing::error!(%error, "a committed change could not be applied: serving nothing until it can");
                self.fenced.store(Arc::new(Some(error.to_string())));
                for entry in self.view().snapshot.grants() {
                    let cut = self.gates.change(entry.grant.id, None);
                    self.parts.metrics.cut(cut);
                }
                Err(error)
            }
        }
    }

    async fn load_view(&self) -> Result<View, ApplyError> {
        let image = self.parts.store.load(now(&self.parts)).await?;
        let rules = stored_rules(&image)?;
        build(&self.parts, image, rules)
    }

    /// Waits until no peer may serve an answer of an old revision of the touched grants from its cache: a change
    /// that takes something away holds only then. How long it took, milliseconds.
    ///
    /// # Errors
    /// [`Unsettled`] when that takes longer than the configured wait; asking again goes on waiting.
    pub async fn settle(&self, touched: Touched) -> Result<u64, Unsettled> {
        let began = self.parts.clock.boot_nanos();
        // What other changes end meanwhile is theirs to wait for.
        let Some(pending) = self.retired.pending(touched, began) else {
            self.parts.metrics.lease_waited(Duration::ZERO);
            return Ok(0);
        };
        let mut left = self.parts.lease.wait;
        loop {
            let now = self.parts.clock.boot_nanos();
            if now >= pending.until {
                let waited = now.saturating_sub(began);
                self.parts
                    .metrics
                    .lease_waited(Duration::from_nanos(waited));
                return Ok(leases::millis_until(now, began));
            }
            if left.is_zero() {
                return Err(Unsettled {
                    waiting_for: pending.what,
                });
            }
            let nap = Duration::from_nanos(pending.until.saturating_sub(now)).min(left);
            tokio::time::sleep(nap).await;
            left = left.saturating_sub(nap);
        }
    }

    /// What an operator has to know about a change of the touched grants, if anything.
    #[must_use]
    pub fn notice(&self, touched: Touched) -> Option<&'static str> {
        let now = self.parts.clock.boot_nanos();
        self.retired
            .is_unleased(touched, now)
            .then_some(UNLEASED_NOTICE)
    }

    /// Lets the store know once longer leases of earlier processes have ended. To be called now and then.
    ///
    /// # Errors
    /// The store's; the longer bound then stays.
    pub async fn forget_earlier_leases(&self) -> Result<(), StoreError> {
        let ours = self.parts.lease.duration;
        let now = self.parts.clock.boot_nanos();
        if *self.longest.lock() <= ours || self.retired.remembers_earlier(now) {
            return Ok(());
        }
        self.parts.store.record_longest_lease(ours).await?;
        *self.longest.lock() = ours;
        Ok(())
    }

    /// Reads the policy directory, checks all of it, publishes it through the store and applies it.
    ///
    /// # Errors
    /// [`ApplyError::Policy`] with every problem; then nothing changed.
    pub async fn reload_policy(&self, act: &Act) -> Result<Applied, ApplyError> {
        let _one = self.reloading.lock().await;
        let reloaded = self.reload_policy_locked(act).await;
        match &reloaded {
            Ok(_) => self
                .parts
                .metrics
                .policy_loaded(now(&self.parts).0.div_euclid(1000)),
            Err(_) => self.parts.metrics.policy_failed(),
        }
        reloaded
    }

    async fn reload_policy_locked(&self, act: &Act) -> Result<Applied, ApplyError> {
        let Some(dir) = &self.parts.policy_dir else {
            return Err(ApplyError::Snapshot(
                "this process has no policy: it serves nobody (`roles.serve` is off), and when it started there was no policy directory".to_owned(),
            ));
        };
        let files = policy_files::load(dir).map_err(ApplyError::Policy)?;
        let rules = Arc::new(policy_files::parse(&files).map_err(ApplyError::Policy)?);
        let image = self.parts.store.load(now(&self.parts)).await?;
        let sha256 = policy_files::hash_of(&files);
        if image
            .policy
            .as_ref()
            .is_some_and(|bundle| bundle.sha256 == sha256)
        {
            return self.refresh().await;
        }
        let bundle = PolicyBundle {
            files,
            sha256,
            applied_at: act.now,
        };
        let image = StoreImage {
            policy: Some(bundle.clone()),
            ..image
        };
        let candidate = build(&self.parts, image, rules)?;
        // Where a change was applied since the image was read, the grant counts as touched, which is more than need be.
        let before = self.view();
        let touched = candidate
            .snapshot
            .grants()
            .filter(|entry| {
                let id = entry.grant.id;
                before.snapshot.grant(id).map(|old| old.effective_revision)
                    != Some(entry.effective_revision)
            })
            .map(|entry| entry.grant.id)
            .collect();
        let publication = PolicyPublication {
            files: bundle.files,
            sha256,
            touched,
        };
        let committed = self.parts.store.publish_policy(act, publication).await?;
        self.apply(committed.revision, Touched::All).await
    }

    /// What would be in force with other policy files. Nothing is published.
    ///
    /// # Errors
    /// [`ApplyError`] as for a reload.
    pub async fn candidate(&self, files: Vec<PolicyFile>) -> Result<Snapshot, ApplyError> {
        let rules = Arc::new(policy_files::parse(&files).map_err(ApplyError::Policy)?);
        let image = self.parts.store.load(now(&self.parts)).await?;
        build(&self.parts, image, rules).map(|view| view.snapshot)
    }

    /// A grant as it would be under these policy files, with each mapping that the gateway may have been asked by.
    /// Files that this program does not take as policy give none.
    #[must_use]
    pub fn as_of(&self, peer: &Peer, grant: &Grant, files: &[PolicyFile]) -> Vec<GrantEntry> {
        let Ok(rules) = policy_files::parse(files) else {
            return Vec::new();
        };
        let rules = Arc::new(rules);
        let presets = [Mapping::internal_v1(), Mapping::mosaic()].map(Arc::new);
        let mappings = rules.mapping().cloned().into_iter().chain(presets);
        mappings
            .filter_map(|mapping| {
                let snapshot = Snapshot::build(
                    0,
                    [peer.clone()],
                    [grant.clone()],
                    Arc::clone(&rules),
                    mapping,
                    &self.parts.revision_key,
                );
                let snapshot = snapshot.ok()?;
                snapshot.grant(grant.id).map(|entry| (**entry).clone())
            })
            .collect()
    }

    /// Puts a view in force and closes the gates of every grant it changes.
    fn swap(&self, view: View) -> Applied {
        let revision = view.snapshot.revision();
        let before = self.current.swap(Arc::new(view));
        let after = self.view();
        // The view is in place before any gate closes: an answer that begins in between sees it.
        self.put_revoked(&after);
        let (mut cut, mut cuts) = (CutCount::default(), Vec::new());
        for entry in before.snapshot.grants() {
            if let Some(ended) = self.end(entry, &after) {
                cut = cut.plus(ended.count);
                cuts.push(ended);
            }
        }
        self.in_force_now(revision, cut, cuts)
    }

    /// Publishes what is revoked to the handshake.
    fn put_revoked(&self, view: &View) {
        let revoked = view
            .every_leaf()
            .filter(|leaf| leaf.state == CertificateState::Revoked)
            .filter_map(|leaf| Some((leaf.fingerprint, leaf.decoded_serial()?)));
        let revoked = RevokedSet::new(revoked);
        if self.parts.revoked.publish(revoked).is_err() {
            tracing::error!("the revoked set was refused by its readers");
        }
    }

    /// Closes the gates of a grant that may not be answered any more as it was `before`; what that cut.
    fn end(&self, entry: &GrantEntry, after: &View) -> Option<Cut> {
        let id = entry.grant.id;
        let live_now = after.live_revision(id);
        if live(entry) == live_now {
            return None;
        }
        let (peer, count) = (entry.peer.id, self.gates.change(id, live_now));
        // Every gate is closed: no further lease is booked for what is over.
        if let Some(revision) = live(entry) {
            let now = self.parts.clock.boot_nanos();
            let over = (id, revision);
            self.retired.retire(over, entry.peer.id, &self.leases, now);
        }
        Some(Cut {
            grant: id,
            peer,
            count,
        })
    }

    fn in_force_now(&self, revision: u64, cut: CutCount, cuts: Vec<Cut>) -> Applied {
        self.parts.metrics.cut(cut);
        self.parts.metrics.store_revision(revision);
        self.applications.lock().note(revision, cuts);
        self.told.send_replace(revision);
        Applied::of(revision, cut)
    }
}

fn now(parts: &DirectoryParts) -> UnixMillis {
    UnixMillis(parts.clock.unix_millis())
}

/// The longest lease that may be out or will be given, which the store is told before any is given.
async fn longest_lease(parts: &DirectoryParts) -> Result<Duration, StoreError> {
    let earlier = parts.store.longest_lease().await?;
    let longest = earlier.max(parts.lease.duration);
    if earlier < longest {
        parts.store.record_longest_lease(longest).await?;
    }
    Ok(longest)
}

fn stored_rules(image: &StoreImage) -> Result<Arc<RuleSet>, ApplyError> {
    match &image.policy {
        None => Ok(Arc::new(RuleSet::deny_all())),
        Some(bundle) => {
            let rules = policy_files::parse(&bundle.files).map_err(ApplyError::Policy)?;
            Ok(Arc::new(rules))
        }
    }
}

/// A peer as decisions see it.
fn decided_by(peer: &PeerRecord) -> Peer {
    Peer {
        id: peer.id,
        name: peer.name.clone(),
        state: peer.state,
    }
}

/// How the gateway is asked under these rules.
fn mapping_for(parts: &DirectoryParts, rules: &RuleSet) -> Result<Arc<Mapping>, ApplyError> {
    match (&parts.preset, rules.mapping()) {
        (Some(preset), None) => Ok(Arc::clone(preset)),
        (None, Some(mapping)) => Ok(Arc::clone(mapping)),
        (Some(_), Some(_)) => Err(ApplyError::Snapshot(
            "the policy has a [mapping] but `gateway.preset` is not \"mapped\": remove one of them"
                .to_owned(),
        )),
        (None, None) => Err(ApplyError::Snapshot(
            "`gateway.preset` is \"mapped\" but the policy has no [mapping]".to_owned(),
        )),
    }
}

/// A view of what the store holds, under these rules. The image is used up: with many grants two of them would not be small.
fn build(
    parts: &DirectoryParts,
    image: StoreImage,
    rules: Arc<RuleSet>,
) -> Result<View, ApplyError> {
    let mapping = mapping_for(parts, &rules)?;
    let bundle = image.policy.as_ref();
    let peers = image
        .peers
        .iter()
        .filter(|peer| peer.direction == PeerDirection::Inbound)
        .map(decided_by);
    let grants = image.grants.into_iter().map(|record| record.grant);
    let snapshot = Snapshot::build(
        image.revision,
        peers,
        grants,
        rules,
        mapping,
        &parts.revision_key,
    )
    .map_err(|problems| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ApplyError::Snapshot(texts.join("; "))
    })?;
    let leaves = leaves_of(image.certificates);
    let policy = PolicyInForce {
        files: bundle
            .map(|bundle| bundle.files.iter().map(|file| file.name.clone()).collect())
            .unwrap_or_default(),
        hash: bundle
            .map(|bundle| hex::encode(bundle.sha256))
            .unwrap_or_default(),
        applied_at: bundle.map(|bundle| bundle.applied_at),
    };
    Ok(View {
        snapshot,
        policy: Arc::new(policy),
        leaves,
    })
}
