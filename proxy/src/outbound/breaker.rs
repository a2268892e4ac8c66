//! The breaker of one peer: whether it is asked at all, after it has failed.
//!
//! Invariant: while it is open nothing passes. When its time is over, exactly one request passes as a probe, and
//! until that one is settled nothing else does. Results of requests that passed before the last change of phase
//! move nothing, so a straggler neither closes nor opens it. Pure: time is an argument, nanoseconds of a clock
//! that counts suspended time.
//!
//! An *outage* is what a session is told about: from a failure to the first answer to a question that was asked
//! after the last failure. A reset closes the breaker and leaves the outage standing, since nothing has answered.
//!
//! What counts as a failure is decided in `verdict.rs`; who is told of an outage, in `notice.rs`.

use std::time::Duration;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// This many failures in a row open it.
    pub failures: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// What doubling ends at.
    pub open_max: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            failures: 5,
            open: Duration::from_secs(15),
            open_max: Duration::from_secs(120),
        }
    }
}

/// How a request that passed has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The peer answered.
    Answered,
    /// It did not, or not in a usable form.
    Failed,
    /// Nothing was learned: the caller left, or the fault was ours.
    Nothing,
}

/// A request may go out. To be given back to [`Breaker::settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Pass {
    epoch: u64,
    began: u64,
}

/// A request may not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How long until a probe is let through; zero while one is under way.
    pub wait: Duration,
    /// The outage that is the cause.
    pub outage: u64,
}

/// What a result has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The outage the request was affected by, when it failed.
    pub outage: Option<u64>,
    /// The change of phase, if there was one.
    pub change: Option<Change>,
}

/// A change of phase worth telling an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened, for that long.
    Opened(Duration),
    /// It closed.
    Closed,
}

/// What `status` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Nothing passes for that long.
    Open(Duration),
    /// A probe is under way, or the next request is one.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: u64 },
    Probing,
}

/// Results of the last [`Recent::WINDOW`] requests, newest in the lowest bit; a set bit is a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Recent {
    bits: u32,
    seen: u32,
}

impl Recent {
    /// How many results are looked at (the specification, section 9.3).
    const WINDOW: u32 = 20;

    fn push(&mut self, failed: bool) {
        let mask = (1_u32 << Self::WINDOW) - 1;
        self.bits = ((self.bits << 1) | u32::from(failed)) & mask;
        self.seen = self.seen.saturating_add(1).min(Self::WINDOW);
    }

    /// Whether half of a whole window failed. Fewer results say nothing.
    const fn is_half_failed(self) -> bool {
        self.seen == Self::WINDOW && self.bits.count_ones() * 2 >= Self::WINDOW
    }
}

/// The breaker of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    rules: BreakerRules,
    phase: Phase,
    /// Raised with every change of phase.
    epoch: u64,
    in_a_row: u32,
    recent: Recent,
    /// How long it is open the next time.
    next_open: Duration,
    /// Outages so far; the last one is standing while `failed_at` is there.
    outages: u64,
    failed_at: Option<u64>,
    /// When a contact last closed it without an answer since.
    contacted_at: Option<u64>,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            phase: Phase::Closed,
            epoch: 0,
            in_a_row: 0,
            recent: Recent::default(),
            next_open: rules.open,
            outages: 0,
            failed_at: None,
            contacted_at: None,
        }
    }

    /// Whether a request may go out at `now`.
    ///
    /// # Errors
    /// [`Refused`] while it is open, or while a probe is under way.
    pub fn admit(&mut self, now: u64) -> Result<Pass, Refused> {
        self.look(now)?;
        if matches!(self.phase, Phase::Open { .. }) {
            self.enter(Phase::Probing);
        }
        Ok(Pass {
            epoch: self.epoch,
            began: now,
        })
    }

    /// Whether a request would be let out at `now`; changes nothing.
    ///
    /// # Errors
    /// As [`Breaker::admit`].
    pub const fn look(&self, now: u64) -> Result<(), Refused> {
        match self.phase {
            Phase::Open { until } if now < until => Err(self.refused(until.saturating_sub(now))),
            Phase::Probing => Err(self.refused(0)),
            Phase::Closed | Phase::Open { .. } => Ok(()),
        }
    }

    /// Takes a result into account.
    pub fn settle(&mut self, pass: Pass, verdict: Verdict, now: u64) -> Settled {
        let outage = self.observe(pass, verdict, now);
        let change = if pass.epoch == self.epoch {
            self.step(verdict, now)
        } else {
            None
        };
        Settled { outage, change }
    }

    /// The operator closes it: as if nothing had been asked yet, but for the outage.
    pub fn reset(&mut self) -> Option<Change> {
        self.contacted_at = None;
        self.close()
    }

    /// The peer has spoken to us: it lives, so it is asked again at once and with the shortest back-off. One
    /// failure opens it again, and the next contact counts only a whole `open` later, lest a peer that reaches us
    /// and is not reached make every request wait.
    pub fn contacted(&mut self, now: u64) -> Option<Change> {
        if self.phase == Phase::Closed {
            return None;
        }
        let since = |at: u64| Duration::from_nanos(now.saturating_sub(at));
        if self
            .contacted_at
            .is_some_and(|at| since(at) < self.rules.open)
        {
            return None;
        }
        self.contacted_at = Some(now);
        let change = self.close();
        self.in_a_row = self.rules.failures.saturating_sub(1);
        change
    }

    /// What it looks like at `now`.
    #[must_use]
    pub const fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { until } if now < until => {
                BreakerState::Open(Duration::from_nanos(until.saturating_sub(now)))
            }
            Phase::Open { .. } | Phase::Probing => BreakerState::HalfOpen,
        }
    }

    /// The outage that is standing.
    #[must_use]
    pub fn outage(&self) -> Option<u64> {
        self.failed_at.map(|_| self.outages)
    }

    const fn refused(&self, nanos: u64) -> Refused {
        Refused {
            wait: Duration::from_nanos(nanos),
            outage: self.outages,
        }
    }

    /// Begins, goes on with or ends an outage.
    fn observe(&mut self, pass: Pass, verdict: Verdict, now: u64) -> Option<u64> {
        match verdict {
            Verdict::Failed => {
                if self.failed_at.is_none() {
                    self.outages = self.outages.saturating_add(1);
                }
                self.failed_at = Some(now);
                Some(self.outages)
            }
            Verdict::Answered => {
                if self.failed_at.is_some_and(|at| pass.began > at) {
                    self.failed_at = None;
                    self.contacted_at = None;
                }
                None
            }
            Verdict::Nothing => None,
        }
    }

    fn step(&mut self, verdict: Verdict, now: u64) -> Option<Change> {
        match (self.phase, verdict) {
            (Phase::Closed, Verdict::Answered) => {
                self.in_a_row = 0;
                self.recent.push(false);
                None
            }
            (Phase::Closed, Verdict::Failed) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.recent.push(true);
                let trips = self.in_a_row >= self.rules.failures || self.recent.is_half_failed();
                trips.then(|| self.open(now))
            }
            (Phase::Probing, Verdict::Answered) => self.close(),
            (Phase::Probing, Verdict::Failed) => Some(self.open(now)),
            (Phase::Probing, Verdict::Nothing) => {
                // The next request is the probe.
                self.enter(Phase::Open { until: now });
                None
            }
            (Phase::Closed, Verdict::Nothing) | (Phase::Open { .. }, _) => None,
        }
    }

    fn open(&mut self, now: u64) -> Change {
        let length = self.next_open;
        self.next_open = length.saturating_mul(2).min(self.rules.open_max);
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        self.enter(Phase::Open {
            until: now.saturating_add(nanos),
        });
        Change::Opened(length)
    }

    fn close(&mut self) -> Option<Change> {
        self.in_a_row = 0;
        self.recent = Recent::default();
        self.next_open = self.rules.open;
        if self.phase == Phase::Closed {
            return None;
        }
        self.enter(Phase::Closed);
        Some(Change::Closed)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch = self.epoch.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
