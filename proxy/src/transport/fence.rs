//! Until when this process may answer: a replica that has not heard of the store for too long answers nothing.
//!
//! Invariant: whoever answers at an instant has found that instant before the end; the end only moves on by a heartbeat that came
//! back, and is counted from when that was sent. Instants are nanoseconds since boot, suspended time included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The end, shared by all who answer.
#[derive(Debug)]
pub struct ServeFence(AtomicU64);

impl ServeFence {
    /// Never ends: of a process that nobody shares its store with.
    #[must_use]
    pub fn open() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(u64::MAX)))
    }

    /// Has ended: nothing was heard yet.
    #[must_use]
    pub fn closed() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0)))
    }

    /// Whether something may be answered at `now`.
    #[must_use]
    pub fn holds(&self, now: u64) -> bool {
        now < self.until()
    }

    /// The same, of a clock that is read only where it matters.
    #[must_use]
    pub fn holds_at(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.until();
        until == u64::MAX || now() < until
    }

    /// The end.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves it.
    pub fn set(&self, until: u64) {
        self.0.store(until, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_answered_from_the_end_on() {
        let fence = ServeFence::closed();
        assert!(!fence.holds(0));
        fence.set(10);
        assert!(fence.holds(9));
        assert!(!fence.holds(10));
        assert!(!fence.holds_at(|| 10));
        assert!(ServeFence::open().holds_at(|| panic!("no need to know")));
    }
}
