//! Pauses: whether a write began too long after the check that let it pass.
//!
//! Invariant: between a check and its write the process can be stopped for any time, and nothing can be done about
//! that beforehand; so the clock is read again after the write, and one that was late ends in a reset and a count
//! (the specification, section 8). The time of the check is read before the check.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use certs::Clock;

use super::fence::ServeFence;

/// How long after its check a write of the serving side may begin, nanoseconds.
pub const SERVING_PAUSE: u64 = 400_000_000;

/// Reads the clock around writes, and counts the late ones.
#[derive(Debug)]
pub struct PauseWatch {
    clock: Arc<dyn Clock>,
    fence: Arc<ServeFence>,
    exceeded: AtomicU64,
}

impl PauseWatch {
    /// With nothing counted.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::fenced(clock, ServeFence::open())
    }

    /// With nothing counted; answers end with `fence`.
    #[must_use]
    pub fn fenced(clock: Arc<dyn Clock>, fence: Arc<ServeFence>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            fence,
            exceeded: AtomicU64::new(0),
        })
    }

    /// Nanoseconds since boot: to be read before a check.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.clock.boot_nanos()
    }

    /// Whether a part of an answer may be written at `now`.
    #[must_use]
    pub fn may_answer(&self, now: u64) -> bool {
        self.fence.holds(now)
    }

    /// Whether more than `bound` nanoseconds have passed since `checked`; if so, it is counted.
    pub fn is_exceeded(&self, checked: u64, bound: u64) -> bool {
        let late = self.now().saturating_sub(checked) > bound;
        if late {
            self.exceeded.fetch_add(1, Ordering::Relaxed);
        }
        late
    }

    /// How many writes were late so far.
    #[must_use]
    pub fn exceeded(&self) -> u64 {
        self.exceeded.load(Ordering::Relaxed)
    }
}
