//! What is known of reaching one peer: its breaker, its limit, how many requests are out.
//!
//! Invariant: a request goes out only with an [`Admission`], and every admission is settled exactly once, when it
//! is dropped at the latest. A refusal here touches no network. The state belongs to the peer's local name and
//! outlives routes and credentials; it lives in memory only.
//!
//! The rules themselves are pure and in `breaker.rs` and `backoff.rs`; all peers together are in `reaches.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::rand;
use certs::Clock;
use http::HeaderMap;
use parking_lot::Mutex;
use policy::peer::PeerName;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::backoff::{Backoff, RetryAfter, Turn};
use super::breaker::{Breaker, BreakerRules, BreakerState, Change, Pass, Refused as Open, Verdict};
use super::rate_left::RateLeft;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::HeldBack;

/// Bounds of asking one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachRules {
    /// When its breaker opens.
    pub breaker: BreakerRules,
    /// Requests that may be out at once; further ones wait for a place.
    pub places: usize,
}

impl Default for ReachRules {
    fn default() -> Self {
        Self {
            breaker: BreakerRules::default(),
            // What a serving side answers one peer at once (the specification, section 7).
            places: 32,
        }
    }
}

/// Which limit of the peer a request counts against: `capabilities` has one of its own there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Rows.
    Rows,
    /// Capabilities.
    Capabilities,
}

/// Why a request does not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// The breaker is open, or a probe is under way.
    Open(Open),
    /// The peer has said to wait for longer than the request may.
    Limited(RetryAfter),
    /// Every place was taken until the deadline.
    Busy,
}

impl Barrier {
    /// The machine-readable reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Open(_) => "breaker_open",
            Self::Limited(_) => "waiting_as_told",
            Self::Busy => "peer_busy",
        }
    }

    /// After how many seconds asking again is worth it.
    #[must_use]
    pub const fn retry_after_s(self) -> u64 {
        match self {
            Self::Open(open) => {
                let wait = open.wait;
                let started = if wait.subsec_nanos() > 0 { 1 } else { 0 };
                match wait.as_secs().saturating_add(started) {
                    0 => 1,
                    seconds => seconds,
                }
            }
            Self::Limited(after) => after.seconds(),
            Self::Busy => 1,
        }
    }

    /// The outage that is the cause, if one is.
    #[must_use]
    pub const fn outage(self) -> Option<u64> {
        match self {
            Self::Open(open) => Some(open.outage),
            Self::Limited(_) | Self::Busy => None,
        }
    }
}

/// What `status` shows of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachState {
    /// Its breaker.
    pub breaker: BreakerState,
    /// How long it has asked us to wait.
    pub limited: Option<Duration>,
    /// What it last said of its limit.
    pub rate: Option<RateLeft>,
    /// Requests that are out.
    pub in_flight: usize,
}

/// Reaching one peer.
pub struct PeerReach {
    name: PeerName,
    rules: ReachRules,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    breaker: Mutex<Breaker>,
    rows: Mutex<Backoff>,
    capabilities: Mutex<Backoff>,
    rate: Mutex<Option<RateLeft>>,
    places: Arc<Semaphore>,
    /// Wakes those who wait for a place when the breaker opens.
    opened: Notify,
    /// Wakes those who wait for another's question when the peer has said how long to wait.
    told: Notify,
    /// Whether any peer's breaker has opened since the start.
    troubled: Arc<AtomicBool>,
}

impl std::fmt::Debug for PeerReach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerReach")
            .field("name", &self.name)
            .field("breaker", &self.breaker.lock())
            .finish_non_exhaustive()
    }
}

impl PeerReach {
    /// A peer of which nothing is known. `troubled` is set once its breaker opens.
    pub(super) fn new(
        name: &PeerName,
        rules: ReachRules,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        troubled: Arc<AtomicBool>,
    ) -> Self {
        metrics.breaker(name.as_str(), false);
        Self {
            name: name.clone(),
            rules,
            clock,
            metrics,
            breaker: Mutex::new(Breaker::new(rules.breaker)),
            rows: Mutex::default(),
            capabilities: Mutex::default(),
            rate: Mutex::new(None),
            places: Arc::new(Semaphore::new(rules.places)),
            opened: Notify::new(),
            told: Notify::new(),
            troubled,
        }
    }

    /// Lets a request out, which must have its answer by `deadline` (nanoseconds of the boot clock). Waits for
    /// the instant the peer named and for a place, if that is soon enough.
    ///
    /// # Errors
    /// [`Barrier`]; the network was not touched.
    pub async fn admit(
        self: &Arc<Self>,
        quota: Quota,
        deadline: u64,
    ) -> Result<Admission, Barrier> {
        let admitted = self.pass(quota, deadline).await;
        if let Err(barrier) = &admitted {
            self.metrics.held_back(
                self.name.as_str(),
                match barrier {
                    Barrier::Open(_) => HeldBack::Open,
                    Barrier::Limited(_) => HeldBack::Limited,
                    Barrier::Busy => HeldBack::Busy,
                },
            );
        }
        admitted
    }

    async fn pass(self: &Arc<Self>, quota: Quota, deadline: u64) -> Result<Admission, Barrier> {
        self.is_open()?;
        self.wait_as_told(quota, deadline).await?;
        let place = self.place(deadline).await?;
        let pass = self.breaker.lock().admit(self.now());
        Ok(Admission {
            reach: Arc::clone(self),
            pass: pass.map_err(Barrier::Open)?,
            is_settled: false,
            _place: place,
        })
    }

    /// An open breaker answers before anything is waited for.
    fn is_open(&self) -> Result<(), Barrier> {
        self.breaker.lock().look(self.now()).map_err(Barrier::Open)
    }

    async fn wait_as_told(&self, quota: Quota, deadline: u64) -> Result<(), Barrier> {
        let limit = self.limit(quota);
        let mut waiter = Waiter {
            limit,
            is_held: false,
        };
        let random = random();
        loop {
            let now = self.now();
            let turn = limit.lock().turn(now, deadline, waiter.is_held, random);
            match turn {
                Turn::Go => return Ok(()),
                Turn::Refuse(after) => return Err(Barrier::Limited(after)),
                Turn::Wait(until) => {
                    if !waiter.is_held {
                        self.metrics.rate_limit_wait(self.name.as_str());
                    }
                    waiter.is_held = true;
                    tokio::time::sleep(Duration::from_nanos(until.saturating_sub(now))).await;
                }
            }
        }
    }

    async fn place(&self, deadline: u64) -> Result<OwnedSemaphorePermit, Barrier> {
        let opened = self.opened.notified();
        tokio::pin!(opened);
        // From here on no opening is missed.
        opened.as_mut().enable();
        let left = Duration::from_nanos(deadline.saturating_sub(self.now()));
        let place = Arc::clone(&self.places).acquire_owned();
        tokio::select! {
            biased;
            place = place => place.map_err(|_| Barrier::Busy),
            () = opened => {
                self.is_open()?;
                Err(Barrier::Busy)
            }
            () = tokio::time::sleep(left) => Err(Barrier::Busy),
        }
    }

    /// The peer has answered 429.
    pub fn told_to_wait(&self, quota: Quota, wait: Duration) {
        self.limit(quota).lock().told(self.now(), wait);
        self.told.notify_waiters();
    }

    /// Waits until the peer wants more patience than a request has that must be through by `deadline`: as long as
    /// somebody else's question may answer it, nothing else ends it early.
    pub async fn outlasted(&self, quota: Quota, deadline: u64) -> Barrier {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // From here on nothing that is told is missed.
            told.as_mut().enable();
            if let Some(after) = self.limit(quota).lock().beyond(self.now(), deadline) {
                self.metrics
                    .held_back(self.name.as_str(), HeldBack::Limited);
                return Barrier::Limited(after);
            }
            told.await;
        }
    }

    /// Whether the peer has asked for patience that is not over.
    #[must_use]
    pub fn is_limited(&self, quota: Quota) -> bool {
        self.limit(quota).lock().left(self.now()).is_some()
    }

    /// Notes what an answer says of the limit.
    pub fn note_rate(&self, headers: &HeaderMap) {
        if let Some(rate) = RateLeft::parse(headers) {
            *self.rate.lock() = Some(rate);
        }
    }

    /// Closes the breaker by an operator's word.
    pub fn reset(&self) {
        let change = self.breaker.lock().reset();
        self.note(change, "the breaker was reset by an operator");
    }

    /// Whether requests pass at the moment.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.breaker.lock().state(self.now()) == BreakerState::Closed
    }

    /// The outage that is standing.
    #[must_use]
    pub fn outage(&self) -> Option<u64> {
        self.breaker.lock().outage()
    }

    /// As it is now.
    #[must_use]
    pub fn state(&self) -> ReachState {
        let now = self.now();
        ReachState {
            breaker: self.breaker.lock().state(now),
            limited: self.rows.lock().left(now),
            rate: *self.rate.lock(),
            in_flight: self
                .rules
                .places
                .saturating_sub(self.places.available_permits()),
        }
    }

    /// The peer has spoken to us.
    pub(super) fn contacted(&self) {
        let change = self.breaker.lock().contacted(self.now());
        self.note(change, "the peer has asked us: it is asked again");
    }

    fn settle(&self, pass: Pass, verdict: Verdict) -> Option<u64> {
        let settled = self.breaker.lock().settle(pass, verdict, self.now());
        self.note(settled.change, "the peer answers again");
        settled.outage
    }

    fn note(&self, change: Option<Change>, closed_by: &'static str) {
        match change {
            None => return,
            Some(Change::Opened(open)) => {
                self.troubled.store(true, Ordering::Relaxed);
                self.opened.notify_waiters();
                tracing::warn!(
                    peer = %self.name, open_s = open.as_secs_f64(),
                    "federation offline: the breaker is open"
                );
            }
            Some(Change::Closed) => tracing::info!(peer = %self.name, "{closed_by}"),
        }
        let is_open = matches!(change, Some(Change::Opened(_)));
        self.metrics.breaker(self.name.as_str(), is_open);
    }

    fn limit(&self, quota: Quota) -> &Mutex<Backoff> {
        match quota {
            Quota::Rows => &self.rows,
            Quota::Capabilities => &self.capabilities,
        }
    }

    fn now(&self) -> u64 {
        self.clock.boot_nanos()
    }
}

/// The waiter's place, given up when dropped.
struct Waiter<'a> {
    limit: &'a Mutex<Backoff>,
    is_held: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.is_held {
            self.limit.lock().free();
        }
    }
}

/// A request that may go out, with its place. Dropped unsettled, nothing was learned from it.
pub struct Admission {
    reach: Arc<PeerReach>,
    pass: Pass,
    is_settled: bool,
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("reach", &self.reach)
            .field("is_settled", &self.is_settled)
            .finish_non_exhaustive()
    }
}

impl Admission {
    /// Says how it went: the outage it was affected by, when it failed. An answer that began well and then
    /// breaks off is settled twice.
    pub fn settle(&mut self, verdict: Verdict) -> Option<u64> {
        self.is_settled = true;
        self.reach.settle(self.pass, verdict)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_settled {
            self.reach.settle(self.pass, Verdict::Nothing);
        }
    }
}

/// Any number.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter, which is still never early.
    match rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
