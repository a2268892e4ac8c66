//! When a credential is renewed, and when again after a failure.
//!
//! Invariant: nothing is ever due before `max(end - 7 days, begin + 2/3 of the life)` (the specification, section
//! 4.4); two tries are never closer than [`Life::floor`]; while there is room for one more try before the end, the
//! next one is before the end; and behind the end nothing is due any more.
//!
//! All times are milliseconds since the Unix epoch by the issuer's clock, which is the one that ends certificates.
//! How that clock is known is in `peer_clock.rs`.

/// How long before its end a long-lived credential is renewed, milliseconds.
pub const LEAD_MILLIS: i64 = 7 * 24 * 3_600_000;
/// Renewals are spread over this part of what is left of the life when they are due.
const SPREAD: i64 = 20;
/// The shortest and the longest [`Life::floor`], milliseconds.
const FLOOR: (i64, i64) = (1_000, 60_000);
/// The longest wait after a failure, milliseconds.
const LONGEST_WAIT: i64 = 3_600_000;

/// A share of a span, from nothing to nearly all of it: what keeps many from doing the same at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Jitter(u32);

impl Jitter {
    /// No jitter.
    pub const NONE: Self = Self(0);
    /// As much as there is.
    pub const MOST: Self = Self(u32::MAX);

    /// A share drawn by the caller: `drawn` of 2^32.
    #[must_use]
    pub const fn new(drawn: u32) -> Self {
        Self(drawn)
    }

    /// This share of a span of milliseconds; nothing of a negative one.
    fn of(self, span: i64) -> i64 {
        let share = i128::from(span.max(0)).saturating_mul(i128::from(self.0)) >> 32;
        i64::try_from(share).unwrap_or(i64::MAX)
    }
}

/// The life of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// From when its holder has had it.
    pub begins: i64,
    /// The last instant at which it is good.
    pub ends: i64,
}

/// What has been tried so far to renew a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Failures since the last success.
    pub failures: u32,
    /// When the last try began.
    pub last_at: Option<i64>,
}

/// What is to be done about a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Renew it at this instant; now, when that is past.
    At(i64),
    /// Nothing: its end has come, and only its issuer can help.
    Over,
}

impl Life {
    /// How long it is, milliseconds.
    #[must_use]
    pub fn length(&self) -> i64 {
        self.ends.saturating_sub(self.begins).max(0)
    }

    /// When it is due for renewal: `max(end - 7 days, begin + 2/3 of the life)`, put off by `jitter` of a twentieth
    /// of what is then left.
    #[must_use]
    pub fn due(&self, jitter: Jitter) -> i64 {
        let two_thirds = self
            .begins
            .saturating_add(self.length() / 3)
            .saturating_add(self.length() / 3);
        let due = two_thirds.max(self.ends.saturating_sub(LEAD_MILLIS));
        due.saturating_add(jitter.of(self.ends.saturating_sub(due) / SPREAD))
    }

    /// The shortest time between two tries, milliseconds: a sixtieth of the life, at least a second and at most a
    /// minute.
    #[must_use]
    pub fn floor(&self) -> i64 {
        (self.length() / 60).clamp(FLOOR.0, FLOOR.1)
    }

    /// How long to wait after a number of failures, milliseconds: from the floor on doubling, up to a twentieth of
    /// the life or an hour, and up to a quarter more by jitter.
    #[must_use]
    pub fn back_off(&self, failures: u32, jitter: Jitter) -> i64 {
        let floor = self.floor();
        let most = (self.length() / SPREAD).clamp(floor, LONGEST_WAIT);
        let doublings = failures.saturating_sub(1).min(32);
        let wait = floor.saturating_mul(1_i64 << doublings).min(most);
        wait.saturating_add(jitter.of(wait / 4))
    }

    /// What is to be done at `now`, when this has been tried.
    #[must_use]
    pub fn next(&self, tries: Tries, jitter: Jitter, now: i64) -> Next {
        if now > self.ends {
            return Next::Over;
        }
        let due = self.due(jitter);
        // A clock that was set back has not tried in the future.
        let Some(last) = tries.last_at.map(|last| last.min(now)) else {
            return Next::At(due);
        };
        let wait = match tries.failures {
            0 => self.floor(),
            failures => self.back_off(failures, jitter),
        };
        // The last try is not put off beyond the end.
        let planned = due
            .max(last.saturating_add(wait))
            .min(self.ends.saturating_sub(self.floor()));
        Next::At(planned.max(due).max(last.saturating_add(self.floor())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn life(length: i64) -> Life {
        Life {
            begins: 1_700_000_000_000,
            ends: 1_700_000_000_000 + length,
        }
    }

    #[test]
    fn long_lives_end_with_a_week_and_short_ones_with_a_third() {
        let due = |length| life(length).due(Jitter::NONE) - life(length).begins;
        assert_eq!(due(90 * DAY), 83 * DAY);
        assert_eq!(due(365 * DAY), 358 * DAY);
        assert_eq!(due(21 * DAY), 14 * DAY);
        assert_eq!(due(9 * DAY), 6 * DAY);
        assert_eq!(due(5 * MINUTE), 200_000);
    }

    /// An hour of five-minute certificates: from 17 to 18 renewals.
    #[test]
    fn jitter_leaves_five_minutes_their_number_of_renewals() {
        let most = life(5 * MINUTE).due(Jitter::MOST) - life(5 * MINUTE).begins;
        assert!((200_000..=205_000).contains(&most), "{most}");
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_bound() {
        let waits: Vec<_> = (1..=9)
            .map(|failures| life(90 * DAY).back_off(failures, Jitter::NONE) / MINUTE)
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(life(5 * MINUTE).floor(), 5_000);
        assert_eq!(life(5 * MINUTE).back_off(9, Jitter::NONE), 15_000);
        assert_eq!(life(5 * MINUTE).back_off(u32::MAX, Jitter::MOST), 18_749);
    }

    #[test]
    fn a_clock_set_back_does_not_hold_up_the_next_try() {
        let life = life(5 * MINUTE);
        let now = life.begins + 210_000;
        let tries = Tries {
            failures: 1,
            last_at: Some(now + DAY),
        };
        assert_eq!(
            life.next(tries, Jitter::NONE, now),
            Next::At(now + life.floor())
        );
    }

    fn lives() -> impl Strategy<Value = Life> {
        (0_i64..4_000_000_000_000, 5 * MINUTE..=366 * DAY).prop_map(|(begins, length)| Life {
            begins,
            ends: begins + length,
        })
    }

    proptest! {
        #[test]
        fn never_early_and_never_without_time_left(life in lives(), jitter: u32) {
            let (due, plain) = (life.due(Jitter::new(jitter)), life.due(Jitter::NONE));
            prop_assert!(due >= life.ends - LEAD_MILLIS);
            // Two thirds, to the millisecond that whole numbers have.
            prop_assert!(due - life.begins >= life.length() / 3 * 2);
            prop_assert!(due >= plain);
            // Of what was left, nineteen twentieths are.
            prop_assert!((life.ends - due) * 20 >= (life.ends - plain) * 19);
            prop_assert!(life.ends - due >= life.floor() * 10, "room for many tries");
        }

        #[test]
        fn tries_keep_their_distance_and_go_on_to_the_end(
            life in lives(),
            jitter: u32,
            took in 0_i64..120_000,
        ) {
            let jitter = Jitter::new(jitter);
            let mut tries = Tries::default();
            let mut now = life.begins;
            let mut last: Option<i64> = None;
            let mut count = 0;
            while let Next::At(at) = life.next(tries, jitter, now) {
                let tried = at.max(now);
                if tried > life.ends {
                    now = tried;
                    continue;
                }
                if let Some(last) = last {
                    prop_assert!(tried - last >= life.floor());
                    let patience = life.back_off(tries.failures, Jitter::MOST).max(took);
                    prop_assert!(tried - last <= patience, "it does not fall asleep");
                }
                last = Some(tried);
                tries = Tries { failures: tries.failures + 1, last_at: Some(tried) };
                now = tried + took;
                count += 1;
                prop_assert!(count < 100_000);
            }
            prop_assert!(count >= 3 || took > life.length() / 20, "{count}");
            let last = last.unwrap_or_default();
            let room = life.floor().max(took) * 2;
            prop_assert!(life.ends - last <= room, "it gave up {} ms early", life.ends - last);
        }

        /// A machine that slept tries at once when it wakes, or knows that it is too late.
        #[test]
        fn waking_up_is_acting(life in lives(), jitter: u32, slept in 0_i64..800 * DAY) {
            let now = life.begins + slept;
            match life.next(Tries::default(), Jitter::new(jitter), now) {
                Next::Over => prop_assert!(now > life.ends),
                Next::At(at) => {
                    prop_assert!(now <= life.ends);
                    prop_assert_eq!(at, life.due(Jitter::new(jitter)));
                }
            }
        }

        #[test]
        fn no_figures_make_it_panic(
            begins: i64,
            ends: i64,
            failures: u32,
            last: Option<i64>,
            jitter: u32,
            now: i64,
        ) {
            let tries = Tries { failures, last_at: last };
            let _ = Life { begins, ends }.next(tries, Jitter::new(jitter), now);
        }
    }
}
