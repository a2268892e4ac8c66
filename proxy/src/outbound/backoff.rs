//! Waiting as told: after a 429 a grant is not asked again before its time.
//!
//! Invariant: no request of a grant leaves before the instant the peer named, jitter only adds to it, and at most
//! one request at a time waits for that instant. Everybody else, and whoever's deadline is too near, is answered
//! 429 at once with the time that is left. Pure: time is an argument, nanoseconds.
//!
//! Sleeping, and the one place of the waiter, are in `reach.rs`.

use std::time::Duration;

/// Jitter is at most this part of the wait.
const JITTER_PART: u64 = 10;
/// The longest jitter.
const MAX_JITTER: u64 = 1_000_000_000;

/// What a request may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Go out.
    Go,
    /// Wait until then, and take a turn again. The caller now holds the waiter's place.
    Wait(u64),
    /// Be answered 429.
    Refuse(RetryAfter),
}

/// Whole seconds, at least one, after which it is worth asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(u64);

impl RetryAfter {
    fn rounded_up(nanos: u64) -> Self {
        Self(nanos.div_ceil(1_000_000_000).max(1))
    }

    /// The seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }
}

/// What is known of one grant's limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    not_before: Option<u64>,
    has_waiter: bool,
}

impl Backoff {
    /// The turn of a request that must be through by `deadline`; `is_waiter` when it holds the place already.
    /// `random` is any number, for the jitter.
    pub fn turn(&mut self, now: u64, deadline: u64, is_waiter: bool, random: u64) -> Turn {
        let Some(not_before) = self.not_before else {
            return Turn::Go;
        };
        if now >= not_before {
            self.not_before = None;
            return Turn::Go;
        }
        let left = not_before.saturating_sub(now);
        let until = not_before.saturating_add(jitter(left, random));
        if (self.has_waiter && !is_waiter) || until >= deadline {
            return Turn::Refuse(RetryAfter::rounded_up(left));
        }
        self.has_waiter = true;
        Turn::Wait(until)
    }

    /// The waiter has gone out, or has left.
    pub const fn free(&mut self) {
        self.has_waiter = false;
    }

    /// Whether somebody waits.
    #[must_use]
    pub const fn has_waiter(&self) -> bool {
        self.has_waiter
    }

    /// The peer has said at `now` how long to wait. A shorter wait than one that stands changes nothing.
    pub fn told(&mut self, now: u64, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_add(nanos);
        self.not_before = Some(self.not_before.map_or(until, |known| known.max(until)));
    }

    /// The time that is left, when it reaches beyond what must be through by `deadline`.
    #[must_use]
    pub fn beyond(&self, now: u64, deadline: u64) -> Option<RetryAfter> {
        let not_before = self.not_before?;
        let reaches = not_before > now && not_before >= deadline;
        reaches.then(|| RetryAfter::rounded_up(not_before.saturating_sub(now)))
    }

    /// How long the grant is still held back at `now`.
    #[must_use]
    pub fn left(&self, now: u64) -> Option<Duration> {
        let left = self.not_before?.checked_sub(now).filter(|left| *left > 0)?;
        Some(Duration::from_nanos(left))
    }
}

fn jitter(left: u64, random: u64) -> u64 {
    let most = (left / JITTER_PART).min(MAX_JITTER);
    random.checked_rem(most.saturating_add(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const FAR: u64 = u64::MAX;

    #[test]
    fn it_waits_when_the_deadline_permits_and_refuses_when_not() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.turn(0, FAR, false, 0), Turn::Go);
        backoff.told(0, Duration::from_secs(3));
        let refused = Turn::Refuse(RetryAfter(3));
        assert_eq!(backoff.turn(1, 3 * SECOND, false, 0), refused);
        assert_eq!(backoff.turn(1, FAR, false, 0), Turn::Wait(3 * SECOND));
        assert_eq!(
            backoff.turn(SECOND, FAR, false, 0),
            Turn::Refuse(RetryAfter(2))
        );
        // Woken too early, the waiter goes on waiting.
        assert_eq!(backoff.turn(SECOND, FAR, true, 0), Turn::Wait(3 * SECOND));
        assert_eq!(backoff.turn(3 * SECOND, FAR, true, 0), Turn::Go);
        backoff.free();
        assert_eq!(backoff.turn(3 * SECOND, FAR, false, 0), Turn::Go);
    }

    #[test]
    fn what_cannot_be_through_in_time_is_known_at_once() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.beyond(0, 0), None);
        backoff.told(0, Duration::from_secs(3));
        assert_eq!(backoff.beyond(1, 3 * SECOND), Some(RetryAfter(3)));
        assert_eq!(backoff.beyond(1, 3 * SECOND + 1), None);
        assert_eq!(backoff.beyond(3 * SECOND, 0), None, "it is over");
    }

    #[test]
    fn a_waiter_that_leaves_makes_room() {
        let mut backoff = Backoff::default();
        backoff.told(0, Duration::from_secs(3));
        assert!(matches!(backoff.turn(0, FAR, false, 7), Turn::Wait(_)));
        assert!(matches!(backoff.turn(0, FAR, false, 7), Turn::Refuse(_)));
        backoff.free();
        assert!(matches!(backoff.turn(0, FAR, false, 7), Turn::Wait(_)));
    }

    #[test]
    fn a_shorter_wait_does_not_cut_a_longer_one() {
        let mut backoff = Backoff::default();
        backoff.told(0, Duration::from_secs(9));
        backoff.told(SECOND, Duration::from_secs(1));
        assert_eq!(backoff.left(SECOND), Some(Duration::from_secs(8)));
        assert_eq!(backoff.left(9 * SECOND), None);
    }

    proptest! {
        /// Never early, never much later than told, never a second waiter, never a zero on the wire.
        #[test]
        fn laws_of_every_wait(
            told in prop::collection::vec((0..20 * SECOND, 0..40_u64), 1..8),
            asks in prop::collection::vec((0..60 * SECOND, any::<u64>(), any::<bool>()), 1..30),
        ) {
            let mut backoff = Backoff::default();
            let mut until = 0;
            for (at, seconds) in told {
                backoff.told(at, Duration::from_secs(seconds));
                until = until.max(at + seconds * SECOND);
            }
            let (mut waiting, mut over) = (false, false);
            for (now, random, patient) in asks {
                let deadline = if patient { FAR } else { now + SECOND };
                match backoff.turn(now, deadline, false, random) {
                    Turn::Go => {
                        prop_assert!(over || now >= until, "early");
                        over = true;
                    }
                    Turn::Wait(wake) => {
                        prop_assert!(!waiting, "two waiters");
                        prop_assert!(wake >= until && wake < deadline);
                        prop_assert!(wake - until <= (until - now) / 10);
                        waiting = true;
                    }
                    Turn::Refuse(after) => {
                        prop_assert!(after.seconds() >= 1);
                        prop_assert!(now + after.seconds() * SECOND >= until);
                    }
                }
            }
        }
    }
}
