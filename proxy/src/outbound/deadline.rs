//! The moment by which a question must be answered.
//!
//! Invariant: it is fixed when the question is put and never moves, whatever is waited for or tried on the way.

use std::time::Duration;

use certs::Clock;

/// The moment by which a question must be answered, on the clock that counts suspended time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    at_nanos: u64,
}

impl Deadline {
    /// `within` from now.
    pub(super) fn within(clock: &dyn Clock, within: Duration) -> Self {
        let within = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        Self {
            at_nanos: clock.boot_nanos().saturating_add(within),
        }
    }

    /// The moment, nanoseconds.
    pub(super) const fn at_nanos(self) -> u64 {
        self.at_nanos
    }

    /// The time that is left.
    pub(super) fn left(self, clock: &dyn Clock) -> Duration {
        Duration::from_nanos(self.at_nanos.saturating_sub(clock.boot_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_runs_down_to_nothing() {
        let clock = certs::testing::ManualClock::at_millis(1_000);
        let deadline = Deadline::within(&clock, Duration::from_secs(2));
        assert_eq!(deadline.left(&clock), Duration::from_secs(2));
        clock.advance(Duration::from_secs(1));
        assert_eq!(deadline.left(&clock), Duration::from_secs(1));
        clock.advance(Duration::from_secs(5));
        assert_eq!(deadline.left(&clock), Duration::ZERO);
    }
}
