//! The generic cell rate algorithm, pure: one number a bucket, time as an argument.
//!
//! Invariant: of a bucket with room for `burst`, refilled by one each `interval`, no more than
//! `burst + elapsed / interval` draws succeed in any span of time, a draw that fails changes
//! nothing, and the wait it names is exact: a draw then succeeds, one nanosecond earlier it fails.
//! A full bucket is the same as none, so one that nobody drew from for long needs no memory.

use std::time::Duration;

use policy::rate::Rate;

const MINUTE: u64 = 60_000_000_000;
const NANOS_PER_MICRO: u64 = 1_000;

/// How much a bucket holds and how fast it fills again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Nanoseconds until one more may be drawn; never 0.
    interval: u64,
    burst: u32,
}

impl Quota {
    /// A quota for a rate. An interval that is no whole number of nanoseconds is rounded up.
    #[must_use]
    pub fn of(rate: Rate) -> Self {
        Self {
            interval: MINUTE.div_ceil(u64::from(rate.per_minute()).max(1)),
            burst: rate.burst(),
        }
    }

    /// `count` at once and `count` in each `window` in the long run; at least one a nanosecond-long
    /// interval.
    #[must_use]
    pub fn per_window(count: u32, window: Duration) -> Self {
        let count = count.max(1);
        Self {
            interval: nanos(window).div_ceil(u64::from(count)).max(1),
            burst: count,
        }
    }

    /// What a full bucket holds.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long an empty bucket takes to fill.
    #[must_use]
    pub fn window(self) -> Duration {
        Duration::from_nanos(self.capacity())
    }

    /// Half of it, at least one: what one of several decides by itself.
    #[must_use]
    pub fn half(self) -> Self {
        Self {
            interval: self.interval.saturating_mul(2),
            burst: (self.burst / 2).max(1),
        }
    }

    /// The same for a clock of microseconds; an interval that is no whole number of them is rounded up.
    #[must_use]
    pub const fn in_micros(self) -> MicroQuota {
        let interval = self.interval.div_ceil(NANOS_PER_MICRO);
        MicroQuota {
            interval,
            capacity: interval.saturating_mul(self.burst as u64),
            burst: self.burst,
        }
    }

    const fn capacity(self) -> u64 {
        self.interval.saturating_mul(self.burst as u64)
    }
}

/// A quota for a clock of microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroQuota {
    /// Microseconds until one more may be drawn; never 0.
    pub interval: u64,
    /// Microseconds until an empty bucket is full.
    pub capacity: u64,
    burst: u32,
}

impl MicroQuota {
    /// What it is in nanoseconds.
    #[must_use]
    pub const fn quota(self) -> Quota {
        Quota {
            interval: self.interval.saturating_mul(NANOS_PER_MICRO),
            burst: self.burst,
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How a bucket stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// What can be drawn at once.
    pub remaining: u32,
    /// How long until the bucket is full.
    pub full_in: Duration,
}

/// A bucket: the instant, in nanoseconds since boot, at which it is full again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// One that is full at that instant.
    #[must_use]
    pub const fn full_at(full_at: u64) -> Self {
        Self { full_at }
    }

    /// Draws one at `now`.
    ///
    /// # Errors
    /// How long until a draw succeeds, when the bucket is empty; then nothing has changed.
    pub fn draw(&mut self, quota: Quota, now: u64) -> Result<(), Duration> {
        // Under a quota that was lowered since, what is owed beyond an empty bucket is forgiven now.
        self.full_at = self.full_at.min(now.saturating_add(quota.capacity()));
        let spent = self.debt(quota, now).saturating_add(quota.interval);
        match spent.checked_sub(quota.capacity()) {
            None | Some(0) => {
                self.full_at = now.saturating_add(spent);
                Ok(())
            }
            Some(over) => Err(Duration::from_nanos(over)),
        }
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn standing(self, quota: Quota, now: u64) -> Standing {
        let debt = self.debt(quota, now);
        let room = quota.capacity().saturating_sub(debt);
        Standing {
            remaining: u32::try_from(room / quota.interval).unwrap_or(quota.burst),
            full_in: Duration::from_nanos(debt),
        }
    }

    /// Whether a new bucket would stand the same.
    #[must_use]
    pub const fn is_full(self, now: u64) -> bool {
        self.full_at <= now
    }

    /// How far it is from full. A quota that was changed cannot leave it further than empty.
    fn debt(self, quota: Quota, now: u64) -> u64 {
        self.full_at.saturating_sub(now).min(quota.capacity())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A token bucket by its textbook definition: an amount of tokens, in units of one nanosecond of
    /// refilling, that grows with time up to the size of the bucket.
    struct Tokens {
        level: u64,
        at: u64,
    }

    impl Tokens {
        fn draw(&mut self, quota: Quota, now: u64) -> bool {
            let size = quota.interval * u64::from(quota.burst);
            self.level = size.min(self.level + (now - self.at));
            self.at = now;
            let enough = self.level >= quota.interval;
            if enough {
                self.level -= quota.interval;
            }
            enough
        }
    }

    fn any_quota() -> impl Strategy<Value = Quota> {
        (1u64..5_000, 1u32..40).prop_map(|(interval, burst)| Quota { interval, burst })
    }

    /// Instants, some of them together, some far apart.
    fn instants() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![3 => Just(0), 3 => 0u64..2_000, 1 => 0u64..400_000];
        (0u64..1_000_000, vec(step, 1..200)).prop_map(|(start, steps)| {
            let mut now = start;
            steps
                .into_iter()
                .map(|step| {
                    now += step;
                    now
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn it_accepts_what_a_token_bucket_accepts(quota in any_quota(), instants in instants()) {
            let mut bucket = Bucket::default();
            let mut model = Tokens { level: quota.interval * u64::from(quota.burst), at: 0 };
            for now in instants {
                let accepted = bucket.draw(quota, now).is_ok();
                prop_assert_eq!(accepted, model.draw(quota, now));
                let standing = bucket.standing(quota, now);
                prop_assert_eq!(u64::from(standing.remaining), model.level / quota.interval);
                let missing = quota.interval * u64::from(quota.burst) - model.level;
                prop_assert_eq!(standing.full_in, Duration::from_nanos(missing));
            }
        }

        #[test]
        fn no_span_of_time_gets_more_than_its_due(quota in any_quota(), instants in instants()) {
            let mut bucket = Bucket::default();
            let accepted: Vec<u64> =
                instants.into_iter().filter(|now| bucket.draw(quota, *now).is_ok()).collect();
            for (first, from) in accepted.iter().enumerate() {
                for (last, to) in accepted.iter().enumerate().skip(first) {
                    let draws = u64::try_from(last - first + 1).unwrap();
                    prop_assert!(draws <= u64::from(quota.burst) + (to - from) / quota.interval);
                }
            }
        }

        #[test]
        fn a_refusal_changes_nothing_and_names_the_exact_wait(quota in any_quota(), instants in instants()) {
            let mut bucket = Bucket::default();
            for now in instants {
                let before = bucket;
                let Err(wait) = bucket.draw(quota, now) else { continue };
                prop_assert_eq!(bucket, before);
                prop_assert!(wait > Duration::ZERO);
                let then = now + nanos(wait);
                prop_assert!(before.clone().draw(quota, then - 1).is_err());
                prop_assert!(before.clone().draw(quota, then).is_ok());
            }
        }

        #[test]
        fn a_full_bucket_is_a_new_one(quota in any_quota(), instants in instants(), later in 0u64..400_000) {
            let mut bucket = Bucket::default();
            let mut now = 0;
            for at in instants {
                now = at;
                let _ = bucket.draw(quota, at);
            }
            now += later;
            if bucket.is_full(now) {
                prop_assert_eq!(bucket.standing(quota, now), Bucket::default().standing(quota, now));
                let (mut old, mut new) = (bucket, Bucket::default());
                for _ in 0..=quota.burst {
                    prop_assert_eq!(old.draw(quota, now), new.draw(quota, now));
                }
            }
        }

        #[test]
        fn a_changed_quota_never_means_more_than_one_empty_bucket(
            old in any_quota(), new in any_quota(), instants in instants(),
        ) {
            let mut bucket = Bucket::default();
            for now in instants {
                let _ = bucket.draw(old, now);
                let mut changed = bucket;
                if let Err(wait) = changed.draw(new, now) {
                    prop_assert!(wait <= Duration::from_nanos(new.interval));
                    prop_assert!(changed.draw(new, now + nanos(wait)).is_ok());
                }
            }
        }
    }

    #[test]
    fn the_default_rate() {
        let quota = Quota::of(Rate::DEFAULT);
        assert_eq!(quota.interval, 500_000_000);
        assert_eq!(quota.window(), Duration::from_secs(15));
        let mut bucket = Bucket::default();
        assert!((0..30).all(|_| bucket.draw(quota, 7).is_ok()));
        assert_eq!(bucket.draw(quota, 7), Err(Duration::from_millis(500)));
        let (remaining, full_in) = (0, Duration::from_secs(15));
        assert_eq!(bucket.standing(quota, 7), Standing { remaining, full_in });
    }

    #[test]
    fn the_largest_figures_do_not_overflow() {
        let slow = Quota::of(Rate::new(1, policy::rate::BURST_MAX).unwrap());
        let mut bucket = Bucket::default();
        let now = u64::MAX / 2;
        assert!(bucket.draw(slow, now).is_ok());
        assert_eq!(
            bucket.standing(slow, now).remaining,
            policy::rate::BURST_MAX - 1
        );
        let fast = Quota::of(Rate::new(policy::rate::PER_MINUTE_MAX, 1).unwrap());
        assert_eq!(fast.interval, 6_000);
        assert_eq!(Quota::per_window(2, Duration::ZERO).interval, 1);
    }
}
