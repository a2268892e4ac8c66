//! What a peer's clock shows, estimated from the times that its answers carry.
//!
//! Invariant: an estimate is kept on the clock that counts suspended time, so that setting our own wall clock does
//! not move it; a better estimate is never given up for a worse one while it is still the better. Before anything
//! was heard, the difference known from before counts; without one, our own wall clock.

/// By how much two clocks may drift apart, as a part of the time that passes: one in this many.
const DRIFT: u64 = 2_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// The time in an answer, and when it can have been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Milliseconds since the Unix epoch.
    pub millis: i64,
    /// How coarse it is: it was said at `millis` or up to this much later, milliseconds.
    pub resolution: i64,
    /// When the question was sent, nanoseconds since boot.
    pub sent: u64,
    /// When the answer had arrived, nanoseconds since boot.
    pub received: u64,
}

/// What was heard: their time at an instant of ours, and how wrong it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    millis: i64,
    at: u64,
    error_millis: u64,
}

/// An estimate of a peer's wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerClock {
    heard: Option<Heard>,
    skew: i64,
}

impl PeerClock {
    /// Of a peer whose clock was `skew` milliseconds ahead of ours when it was last known.
    #[must_use]
    pub const fn with_skew(skew: i64) -> Self {
        Self { heard: None, skew }
    }

    /// Notes the time that an answer carries.
    pub fn hear(&mut self, said: Said) {
        let flight = said.received.saturating_sub(said.sent) / NANOS_PER_MILLI;
        let coarse = u64::try_from(said.resolution).unwrap_or(0);
        let news = Heard {
            millis: said.millis.saturating_add(said.resolution.max(0) / 2),
            at: said
                .sent
                .saturating_add(said.received.saturating_sub(said.sent) / 2),
            error_millis: flight.saturating_add(coarse) / 2,
        };
        let better = self.heard.is_none_or(|known| {
            let age = news.at.saturating_sub(known.at) / NANOS_PER_MILLI;
            news.error_millis <= known.error_millis.saturating_add(age / DRIFT)
        });
        if better {
            self.heard = Some(news);
        }
    }

    /// What the peer's clock shows now, milliseconds since the Unix epoch; `wall` is our own wall clock in the same
    /// unit, `boot` nanoseconds since boot.
    #[must_use]
    pub fn now(&self, wall: i64, boot: u64) -> i64 {
        match self.heard {
            Some(heard) => {
                let since = boot.saturating_sub(heard.at) / NANOS_PER_MILLI;
                heard
                    .millis
                    .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
            }
            None => wall.saturating_add(self.skew),
        }
    }

    /// How far the peer's clock is ahead of ours, milliseconds.
    #[must_use]
    pub fn skew(&self, wall: i64, boot: u64) -> i64 {
        self.now(wall, boot).saturating_sub(wall)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn said(millis: i64, sent: u64, received: u64) -> Said {
        Said {
            millis,
            resolution: 1_000,
            sent,
            received,
        }
    }

    #[test]
    fn before_anything_was_heard_the_known_difference_counts() {
        assert_eq!(PeerClock::default().now(500, 7), 500);
        assert_eq!(PeerClock::with_skew(-120_000).now(500_000, 7), 380_000);
    }

    #[test]
    fn setting_our_own_clock_does_not_move_the_peers() {
        let mut clock = PeerClock::default();
        clock.hear(said(60_000, 10 * SECOND, 10 * SECOND));
        assert_eq!(clock.now(0, 15 * SECOND), 65_500);
        assert_eq!(clock.now(9_999_999, 15 * SECOND), 65_500);
        assert_eq!(clock.skew(5_500, 15 * SECOND), 60_000);
    }

    #[test]
    fn a_slow_answer_does_not_spoil_what_a_fast_one_said() {
        let mut clock = PeerClock::default();
        clock.hear(said(60_000, 10 * SECOND, 10 * SECOND));
        clock.hear(said(60_000, 11 * SECOND, 41 * SECOND));
        assert_eq!(clock.now(0, 10 * SECOND), 60_500);
        // Long afterwards it is better than what the fast one has become.
        let later = 10 * SECOND + 100_000 * SECOND;
        clock.hear(said(1_000, later, later + 30 * SECOND));
        assert_eq!(clock.now(0, later + 15 * SECOND), 1_500);
    }

    proptest! {
        /// Whatever the way there and back takes, the estimate is off by at most half of it and of the resolution.
        #[test]
        fn the_error_is_bounded_by_the_way(
            skew in -10_000_000_i64..10_000_000,
            start in 0_u64..1_000_000,
            there in 0_u64..5_000,
            back in 0_u64..5_000,
            coarse in 0_i64..1_000,
        ) {
            let wall = 1_700_000_000_000_i64;
            let written = start + there;
            let theirs = wall + i64::try_from(written).unwrap_or_default() + skew;
            let mut clock = PeerClock::default();
            let resolution = coarse + 1;
            clock.hear(Said {
                millis: theirs - theirs.rem_euclid(resolution),
                resolution,
                sent: start * NANOS_PER_MILLI,
                received: (written + back) * NANOS_PER_MILLI,
            });
            let now = written + back;
            let truth = wall + i64::try_from(now).unwrap_or_default() + skew;
            let off = (clock.now(0, now * NANOS_PER_MILLI) - truth).unsigned_abs();
            prop_assert!(off <= (there + back + resolution.unsigned_abs()) / 2 + 2, "{off}");
        }

        #[test]
        fn no_figures_make_it_panic(
            millis: i64, resolution: i64, sent: u64, received: u64, wall: i64, boot: u64,
        ) {
            let mut clock = PeerClock::with_skew(millis);
            let _ = clock.skew(wall, boot);
            clock.hear(Said { millis, resolution, sent, received });
            let _ = clock.skew(wall, boot);
        }
    }
}
