//! The limiter of one process: buckets in memory.
//!
//! Invariant: a bucket is drawn from under the lock of its shard, which is held for one look-up and
//! no await. A bucket that is full is forgotten, since a new one stands the same; so memory follows
//! the grants that asked lately, not those there are.

use std::collections::HashMap;
use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use futures_util::future::Either;
use parking_lot::Mutex;

use super::gcra::{Bucket, Standing};
use super::{BucketKey, Deciding, Drawn, Limited, Limiter};

/// Locks that keys are spread over.
const SHARDS: usize = 32;

type Shard = Mutex<HashMap<BucketKey, Bucket>>;

/// Buckets of this process, by grant.
pub struct LocalLimiter {
    clock: Arc<dyn Clock>,
    spread: RandomState,
    shards: Box<[Shard]>,
}

impl LocalLimiter {
    /// A limiter without any bucket.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            spread: RandomState::new(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    /// Forgets every bucket that is full and gives their memory back.
    pub fn sweep(&self) {
        let now = self.clock.boot_nanos();
        for shard in &self.shards {
            let mut buckets = shard.lock();
            buckets.retain(|_, bucket| !bucket.is_full(now));
            // Room for as many again, so that a shard in use does not shrink and grow in turn.
            let room = buckets.len().saturating_mul(2);
            buckets.shrink_to(room);
        }
    }

    /// Buckets there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().capacity())
            .sum()
    }

    fn shard(&self, key: &BucketKey) -> Option<&Shard> {
        let place = self.spread.hash_one(key) % SHARDS as u64;
        self.shards.get(usize::try_from(place).unwrap_or_default())
    }

    fn draw_from(&self, limit: Limited, now: u64) -> (Result<(), Duration>, Standing) {
        let Limited { key, quota } = limit;
        let mut apart = Bucket::default();
        let Some(mut buckets) = self.shard(&key).map(Mutex::lock) else {
            return (apart.draw(quota, now), apart.standing(quota, now));
        };
        if buckets.len() == buckets.capacity() && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = buckets.entry(key).or_default();
        (bucket.draw(quota, now), bucket.standing(quota, now))
    }

    fn stands(&self, limit: Limited, now: u64) -> Standing {
        let bucket = self
            .shard(&limit.key)
            .and_then(|shard| shard.lock().get(&limit.key).copied());
        bucket.unwrap_or_default().standing(limit.quota, now)
    }

    fn draw_now(&self, limits: &[Limited]) -> Drawn {
        let now = self.clock.boot_nanos();
        let mut drawn = Drawn {
            from: None,
            standing: Standing::default(),
            retry_in: Duration::MAX,
        };
        for (place, limit) in limits.iter().enumerate() {
            let (result, standing) = self.draw_from(*limit, now);
            drawn.standing = standing;
            match result {
                Ok(()) => {
                    drawn.from = Some(place);
                    drawn.retry_in = Duration::ZERO;
                    break;
                }
                Err(wait) => drawn.retry_in = drawn.retry_in.min(wait),
            }
        }
        if let Some(last) = limits.last().filter(|_| {
            drawn
                .from
                .is_some_and(|place| place.saturating_add(1) < limits.len())
        }) {
            drawn.standing = self.stands(*last, now);
        }
        drawn
    }
}

impl Limiter for LocalLimiter {
    fn draw<'a>(&'a self, limits: &'a [Limited]) -> Deciding<'a, Drawn> {
        Either::Left(ready(self.draw_now(limits)))
    }

    fn look(&self, limit: Limited) -> Deciding<'_, Standing> {
        Either::Left(ready(self.stands(limit, self.clock.boot_nanos())))
    }

    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
