//! This process as one of the replicas of a store: it says that it is there, hears of changes, and serves nothing when it does not.
//!
//! Invariant: what [`ServeFence`] lets be answered at an instant was decided on a state that includes every change whose act had
//! returned by then. A heartbeat moves the fence only when its revision is in force here with every gate closed, and only as far
//! as its sending plus `fence`; an act returns only when every other replica is done ([`waiting`]). A process that the
//! database knows to be alone needs neither: it leaves that state before it lets another one in.
//!
//! `docs/decisions/0023-replicas.md` says why, `tests/suite/lease_model.rs` is the protocol as a model.

mod high_water;
mod jobs;
pub mod waiting;

pub use high_water::{HighWater, Mark, MarkError, Rollback};
pub use jobs::Job;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use certs::clock::Clock;
use jobs::Turn;
use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;
use waiting::Waiting;

use crate::directory::{ApplyError, Directory, Touched, Unsettled};
use crate::store::{Heartbeat, ReplicaTable, Store, StoreError};
use crate::telemetry::Metrics;
use crate::transport::ServeFence;

/// How often a process that is alone looks whether it still is, and how often one that is not lets itself be told of changes.
const LOOK: Duration = Duration::from_millis(100);
/// How long a process waits until one that is alone has let it in.
const LET_IN: Duration = Duration::from_secs(10);
/// How often replicas are looked at that an act waits for.
const ASK: Duration = Duration::from_millis(15);
/// For how long an act that adds something waits for other replicas, at most.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);
/// For how long replicas that are gone are remembered, milliseconds.
const REMEMBERED_MS: i64 = 600_000;
/// Until what could not be taken over is tried again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(2);
/// Between two tries to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What this process says of itself.
#[derive(Debug, Clone)]
pub struct ReplicaTerms {
    /// Its name, for people.
    pub name: String,
    /// How long it serves without a heartbeat.
    pub fence: Duration,
    /// The longest lease it gives.
    pub lease: Duration,
    /// How long an act waits.
    pub wait: Duration,
}

/// Why a process did not become a replica.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process that has the store for itself does not let another one in.
    #[error(
        "another process has this store for itself and has not let this one in for {} s: it may be stopped or hang; end it and start again",
        LET_IN.as_secs()
    )]
    NotLetIn,
}

/// Why a heartbeat was of no use.
#[derive(Debug, thiserror::Error)]
enum BeatError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no answer in time")]
    Silent,
    #[error("what it told of could not be put in force: {0}")]
    Apply(#[from] ApplyError),
    #[error(
        "the revision of the store went back from {seen} to {found}: an older state was restored under a running process"
    )]
    WentBack { seen: u64, found: u64 },
}

/// Follows what other replicas change beside the view.
#[async_trait]
pub trait Follow: Send + Sync {
    /// Takes what is in the store now; whether all of it. What was not is the follower's to report, and is tried again.
    async fn follow(&self) -> bool;
}

/// A process that is registered, and serves nothing yet.
pub struct Member {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    fence: Arc<ServeFence>,
    terms: ReplicaTerms,
    id: Uuid,
    /// Nobody else has the store.
    alone: AtomicBool,
    others: bool,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Member {
    /// Registers this process, before it loads anything: from then on acts wait for it. `fence` is closed.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        fence: Arc<ServeFence>,
        terms: ReplicaTerms,
    ) -> Result<Self, JoinError> {
        let id = Uuid::new_v4();
        let mut member = Self {
            store,
            clock,
            metrics,
            fence,
            terms,
            id,
            alone: AtomicBool::new(false),
            others: false,
        };
        member.store.heartbeat(&member.row(0, 0)).await?;
        if member.store.keep_alone().await? {
            member.alone.store(true, Ordering::Release);
            return Ok(member);
        }
        let mut left = LET_IN;
        while !member.store.share().await? {
            // Said again and again: who is alone looks for rows that are fresh.
            member.store.heartbeat(&member.row(0, 0)).await?;
            left = left.checked_sub(LOOK).ok_or(JoinError::NotLetIn)?;
            tokio::time::sleep(LOOK).await;
        }
        let table = member.store.replicas().await?;
        member.others = member.sees_others(&table);
        Ok(member)
    }

    /// Whether other replicas were there.
    #[must_use]
    pub const fn others(&self) -> bool {
        self.others
    }

    fn sees_others(&self, table: &ReplicaTable) -> bool {
        table
            .replicas
            .iter()
            .any(|one| one.id != self.id && waiting::may_serve(one, table.now))
    }

    fn row(&self, applied: u64, leases_left_ms: u64) -> Heartbeat {
        Heartbeat {
            id: self.id,
            name: self.terms.name.clone(),
            applied,
            lease_ms: millis(self.terms.lease),
            fence_ms: millis(self.terms.fence),
            leases_left_ms,
        }
    }
}

/// This process among the replicas.
pub struct Replicas {
    member: Member,
    directory: Arc<Directory>,
    follower: OnceLock<Arc<dyn Follow>>,
    /// The newest revision that was heard of.
    seen: AtomicU64,
    /// The newest one that is in force and was heard of.
    noticed: AtomicU64,
    /// When the last good heartbeat was sent, nanoseconds since boot.
    heard: AtomicU64,
    /// The store is older than it was: nothing is served until the process is started again.
    went_back: AtomicBool,
    told: Notify,
    /// Another replica may have changed something.
    changed: Notify,
    /// What is known of jobs.
    jobs: Mutex<HashMap<&'static str, Turn>>,
}

impl Replicas {
    /// Begins to serve what `directory` has loaded since the process was registered.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn begin(member: Member, directory: Arc<Directory>) -> Result<Arc<Self>, String> {
        let replicas = Arc::new(Self {
            member,
            directory,
            follower: OnceLock::new(),
            seen: AtomicU64::new(0),
            noticed: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            went_back: AtomicBool::new(false),
            told: Notify::new(),
            changed: Notify::new(),
            jobs: Mutex::default(),
        });
        replicas.beat().await.map_err(|error| error.to_string())?;
        Ok(replicas)
    }

    /// Who follows what others change. Once.
    pub fn follow(&self, follower: Arc<dyn Follow>) {
        // A second one would be a defect of the composition root; the first one stays.
        let _ = self.follower.set(follower);
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.member.id
    }

    /// Whether no other process has the store.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.member.alone.load(Ordering::Acquire)
    }

    /// Whether the revision of the store went back under this process.
    #[must_use]
    pub fn went_back(&self) -> bool {
        self.went_back.load(Ordering::Acquire)
    }

    /// How long ago the store was heard of; `None` of a process that is alone.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        let now = self.member.clock.boot_nanos();
        let age = now.saturating_sub(self.heard.load(Ordering::Acquire));
        (!self.is_alone()).then(|| Duration::from_nanos(age))
    }

    /// Hears of the store at once, and not only when it is time.
    pub fn hear_now(&self) {
        self.told.notify_one();
    }

    /// All replicas, as the store knows them.
    ///
    /// # Errors
    /// The store's.
    pub async fn table(&self) -> Result<ReplicaTable, StoreError> {
        self.member.store.replicas().await
    }

    /// One heartbeat. Only one at a time.
    async fn beat(&self) -> Result<(), BeatError> {
        let member = &self.member;
        if self.went_back() {
            let seen = self.seen.load(Ordering::Acquire);
            return Err(BeatError::WentBack { seen, found: 0 });
        }
        if self.directory.is_behind() {
            // Nothing is served; a row that is fresh would have acts wait for it.
            self.directory.refresh().await?;
        }
        let sent = member.clock.boot_nanos();
        // In this order: the leases that a revision ended are known once it is in force.
        let applied = self.directory.in_force();
        let row = member.row(applied, self.directory.leases_left_ms());
        let patience = member.terms.fence / 2;
        let heard = tokio::time::timeout(patience, member.store.heartbeat(&row)).await;
        let found = heard.map_err(|_| BeatError::Silent)??;
        let seen = self.seen.fetch_max(found, Ordering::AcqRel);
        if found < seen.max(applied) {
            self.went_back.store(true, Ordering::Release);
            member.fence.set(0);
            return Err(BeatError::WentBack {
                seen: seen.max(applied),
                found,
            });
        }
        if found > applied {
            self.directory.apply(found, Touched::All).await?;
            // What is in force is said at once: somebody waits for it.
            self.told.notify_one();
        }
        // Also when an act of this process has brought the change along.
        if self.noticed.fetch_max(found, Ordering::AcqRel) < found {
            self.changed.notify_one();
        }
        self.heard.store(sent, Ordering::Release);
        member.fence.set(if self.is_alone() {
            u64::MAX
        } else {
            let fence = u64::try_from(member.terms.fence.as_nanos()).unwrap_or(u64::MAX);
            sent.saturating_add(fence)
        });
        Ok(())
    }

    /// Says that it is there, and follows, until dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.beats(), self.listens(), self.watches(), self.follows());
    }

    async fn beats(&self) {
        let every = self.member.terms.fence / 4;
        let mut failing = false;
        loop {
            if self.is_alone() {
                self.while_alone().await;
            }
            match self.beat().await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the store is heard of again");
                }
                Ok(()) => self.when_others_are_gone().await,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the store was not heard of");
                    }
                    failing = true;
                }
            }
            let _ = tokio::time::timeout(every, self.told.notified()).await;
        }
    }

    /// Returns once another process wants to be let in, and nobody is alone any more.
    async fn while_alone(&self) {
        let member = &self.member;
        loop {
            tokio::time::sleep(LOOK).await;
            let table = match member.store.replicas().await {
                Ok(table) => table,
                Err(error) => {
                    tracing::debug!(%error, "the replicas of the store could not be read");
                    continue;
                }
            };
            if !member.sees_others(&table) {
                continue;
            }
            // The fence is on before the other one is let in.
            member.alone.store(false, Ordering::Release);
            if let Err(error) = self.beat().await {
                tracing::warn!(%error, "another process is not let in yet");
                member.alone.store(true, Ordering::Release);
                continue;
            }
            match member.store.share().await {
                Ok(true) => {
                    tracing::info!("another process serves from this store too");
                    return;
                }
                Ok(false) | Err(_) => tracing::error!("the lock on the store could not be shared"),
            }
        }
    }

    /// Forgets who is gone; and is alone again where the database can say so.
    async fn when_others_are_gone(&self) {
        let member = &self.member;
        let Ok(table) = self.table().await else {
            return;
        };
        if table.replicas.len() > 1
            && let Err(error) = member.store.forget_replicas(REMEMBERED_MS).await
        {
            tracing::debug!(%error, "replicas that are gone could not be forgotten");
        }
        if member.sees_others(&table) {
            return;
        }
        match member.store.keep_alone().await {
            Ok(true) => {
                member.alone.store(true, Ordering::Release);
                member.fence.set(u64::MAX);
                tracing::info!("no other process serves from this store any more");
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "whether others have the store is not known"),
        }
    }

    async fn listens(&self) {
        loop {
            if self.is_alone() {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            tokio::select! {
                error = self.member.store.listen(&self.told) => {
                    tracing::debug!(%error, "commits are not told of; the heartbeats find them");
                    tokio::time::sleep(LISTEN_AGAIN).await;
                }
                () = self.until_alone() => {}
            }
        }
    }

    /// What is not of the promise is taken over behind it: no act waits for that.
    async fn follows(&self) {
        let mut whole = true;
        loop {
            let changed = self.changed.notified();
            if whole {
                changed.await;
            } else {
                let _ = tokio::time::timeout(FOLLOW_AGAIN, changed).await;
            }
            if let Some(follower) = self.follower.get() {
                whole = follower.follow().await;
            }
        }
    }

    async fn until_alone(&self) {
        while !self.is_alone() {
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Says when the fence falls and when it is lifted, and cuts what is under way when it falls.
    async fn watches(&self) {
        let every = (self.member.terms.fence / 20).max(Duration::from_millis(10));
        let mut fenced = false;
        loop {
            tokio::time::sleep(every).await;
            let now = self.member.clock.boot_nanos();
            let falls = !self.member.fence.holds(now);
            if falls && !fenced {
                let connections = self.directory.cut_answers();
                self.member.metrics.replicas().fenced(self.went_back());
                if self.went_back() {
                    tracing::error!(
                        connections,
                        "the store went back to an older state: this replica serves nothing until it is started again"
                    );
                } else {
                    tracing::error!(
                        connections,
                        "the store was not heard of for too long: this replica serves nothing"
                    );
                }
            }
            if fenced && !falls {
                tracing::info!("this replica serves again");
            }
            fenced = falls;
        }
    }

    /// Waits until a change of `revision` is done at every other replica. How long it took, milliseconds.
    ///
    /// # Errors
    /// [`Unsettled`] when that takes longer than an act waits.
    pub async fn settle(&self, revision: u64) -> Result<u64, Unsettled> {
        let began = self.member.clock.boot_nanos();
        let mut left = self.member.terms.wait;
        let mut waiting = Waiting::new(self.member.id, revision);
        loop {
            // Whoever is let in from now on loads what was committed before.
            if self.is_alone() {
                break;
            }
            let waiting_for = match self.table().await {
                Ok(table) => waiting.pending(&table),
                Err(error) => vec![format!("the store, to say who has followed: {error}")],
            };
            if waiting_for.is_empty() {
                break;
            }
            let Some(rest) = left.checked_sub(ASK) else {
                return Err(Unsettled { waiting_for });
            };
            left = rest;
            tokio::time::sleep(ASK).await;
        }
        let waited = self.member.clock.boot_nanos().saturating_sub(began);
        Ok(waited / 1_000_000)
    }

    /// Gives other replicas the time to put a change of `revision` in force that adds something: until then they refuse what
    /// it added. At most 5 s; whoever takes longer follows behind it, so this never fails.
    pub async fn until_followed(&self, revision: u64) {
        let followed = async {
            while !self.is_alone() {
                let table = self.table().await;
                if table
                    .is_ok_and(|table| waiting::behind(&table, self.member.id, revision).is_empty())
                {
                    break;
                }
                tokio::time::sleep(ASK).await;
            }
        };
        if tokio::time::timeout(FOLLOWED_WITHIN, followed)
            .await
            .is_err()
        {
            tracing::info!(
                revision,
                "not every replica has followed yet: what was added may be refused there for a moment"
            );
        }
    }

    /// Says that this process serves no more. Whatever it answered before keeps its lease.
    pub async fn leave(&self) {
        self.member.fence.set(0);
        let leaving = self.member.store.leave_replicas(self.member.id);
        match tokio::time::timeout(self.member.terms.fence, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "others will wait for this replica once"),
            Err(_) => tracing::warn!("others will wait for this replica once"),
        }
    }
}

/// How a process is called that the settings give no name.
#[must_use]
pub fn default_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}
