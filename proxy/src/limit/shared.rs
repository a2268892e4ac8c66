//! The limiter of several replicas: the buckets of grants in Valkey (or Redis), each decision one script there; on one server, on
//! the master that sentinels name, or spread over a cluster.
//!
//! Invariant: time is the server's, so that clocks of replicas do not matter; a decision waits for it only so long. While the
//! server is away each replica decides by itself with half of every quota, in buckets that every shared draw was drawn from as
//! well: no request fails for it, and up to four replicas together let through at most twice what they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use certs::clock::Clock;
use futures_util::future::Either;
use redis::Script;

use super::gcra::{Bucket, Standing};
use super::valkey::{Call, Link, ValkeyOptions};
use super::{BucketKey, Deciding, Drawn, Limited, Limiter, LocalLimiter, Purpose};
use crate::telemetry::Metrics;

/// After a failure nobody asks the server for so long, nanoseconds; then one request does.
const AWAY: u64 = 1_000_000_000;

/// Draws from the first bucket that has one to give, as [`Bucket::draw`] does, in microseconds of the server's clock. A bucket is the
/// instant at which it is full again, and gone once it is. What is owed beyond an empty one, under a quota that was changed since, is
/// forgiven for good: else the wait that is told would begin anew with each refusal. Arguments: interval and capacity of each
/// key. Answer: place of the bucket that gave, or 0; the least wait; the server's time; when the last bucket is full.
const DRAW: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local from, wait, full = 0, -1, now
for place = 1, #KEYS do
  local interval, capacity = tonumber(ARGV[2 * place - 1]), tonumber(ARGV[2 * place])
  local owed = tonumber(redis.call('GET', KEYS[place]) or now)
  full = math.min(math.max(owed, now), now + capacity)
  if from == 0 then
    local spent = full - now + interval
    if spent <= capacity then
      from, wait, full = place, 0, now + spent
      redis.call('SET', KEYS[place], string.format('%.0f', full), 'PX', math.floor(spent / 1000) + 1)
    else
      if full < owed then
        redis.call('SET', KEYS[place], string.format('%.0f', full), 'PX', math.floor(capacity / 1000) + 1)
      end
      if wait < 0 or spent - capacity < wait then
        wait = spent - capacity
      end
    end
  end
end
return {from, wait, now, full}
";

/// When a bucket is full, and the server's time.
const LOOK: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
return {tonumber(redis.call('GET', KEYS[1]) or now), now}
";

/// Why the server did not decide.
type Away = String;

/// Buckets that replicas share.
pub struct SharedLimiter {
    link: Arc<Link>,
    draw: Script,
    look: Script,
    own: Arc<LocalLimiter>,
    /// Until when the server is not asked, nanoseconds since boot; 0 while it answers.
    away_until: AtomicU64,
    told: AtomicBool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl SharedLimiter {
    /// Buckets on the servers of `options`; `own` decides while they are away. Connecting is left to the first decision.
    #[must_use]
    pub fn new(
        options: ValkeyOptions,
        own: Arc<LocalLimiter>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            link: Arc::new(Link::new(options)),
            draw: Script::new(DRAW),
            look: Script::new(LOOK),
            own,
            away_until: AtomicU64::new(0),
            told: AtomicBool::new(false),
            clock,
            metrics,
        }
    }

    /// Whether the server is to be asked now: while it is away, by one request a second.
    fn is_asked(&self) -> bool {
        let until = self.away_until.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        let now = self.clock.boot_nanos();
        now >= until
            && self
                .away_until
                .compare_exchange(
                    until,
                    now.saturating_add(AWAY),
                    Ordering::AcqRel,
                    Ordering::Acquire,
                )
                .is_ok()
    }

    fn answered(&self) {
        self.away_until.store(0, Ordering::Release);
        if self.told.swap(false, Ordering::AcqRel) {
            tracing::info!("the server of the shared limits answers again");
        }
    }

    fn failed(&self, why: &Away) {
        let until = self.clock.boot_nanos().saturating_add(AWAY);
        self.away_until.store(until, Ordering::Release);
        if !self.told.swap(true, Ordering::AcqRel) {
            tracing::warn!(%why, "the server of the shared limits does not answer; each process limits by itself, to half of each rate");
        }
    }

    async fn draw_there(&self, limits: &[Limited]) -> Result<Drawn, Away> {
        let last = limits.last().ok_or("nothing was asked")?;
        let quotas = limits.iter().map(|limit| limit.quota.in_micros());
        let call = Call {
            script: &self.draw,
            text: DRAW,
            keys: limits.iter().map(|limit| name(&limit.key)).collect(),
            arguments: quotas
                .flat_map(|quota| [quota.interval, quota.capacity])
                .collect(),
        };
        let (from, wait, now, full): (usize, u64, u64, u64) = self.link.run(&call).await?;
        Ok(Drawn {
            from: from.checked_sub(1),
            standing: standing(*last, full, now),
            retry_in: Duration::from_micros(wait),
        })
    }

    async fn look_there(&self, limit: Limited) -> Result<Standing, Away> {
        let call = Call {
            script: &self.look,
            text: LOOK,
            keys: vec![name(&limit.key)],
            arguments: Vec::new(),
        };
        let (full, now): (u64, u64) = self.link.run(&call).await?;
        Ok(standing(limit, full, now))
    }

    /// Draws from the buckets of this process.
    async fn draw_here(&self, limits: &[Limited]) -> Drawn {
        let halves: Vec<Limited> = limits.iter().copied().map(half).collect();
        self.own.draw(&halves).await
    }
}

/// The name of a bucket; those of one grant are on one server of a cluster.
fn name(key: &BucketKey) -> String {
    let purpose = match key.purpose {
        Purpose::Questions => "questions",
        Purpose::Revalidation => "revalidation",
        Purpose::Renewal => "renewal",
    };
    format!("mosaic-federation:{{{}}}:{purpose}", key.grant)
}

/// How a bucket stands that is full at `full` when it is `now`, both in microseconds.
fn standing(limit: Limited, full: u64, now: u64) -> Standing {
    const MICRO: u64 = 1_000;
    let bucket = Bucket::full_at(full.saturating_mul(MICRO));
    bucket.standing(limit.quota.in_micros().quota(), now.saturating_mul(MICRO))
}

fn half(limit: Limited) -> Limited {
    Limited {
        quota: limit.quota.half(),
        ..limit
    }
}

impl Limiter for SharedLimiter {
    fn draw<'a>(&'a self, limits: &'a [Limited]) -> Deciding<'a, Drawn> {
        Either::Right(Box::pin(async move {
            if self.is_asked() {
                match self.draw_there(limits).await {
                    Ok(drawn) => {
                        self.answered();
                        // So that these buckets are not full when they are needed.
                        if let Some(limit) = drawn.from.and_then(|place| limits.get(place)) {
                            self.draw_here(std::slice::from_ref(limit)).await;
                        }
                        return drawn;
                    }
                    Err(why) => self.failed(&why),
                }
            }
            self.metrics.limited_here();
            self.draw_here(limits).await
        }))
    }

    fn look(&self, limit: Limited) -> Deciding<'_, Standing> {
        Either::Right(Box::pin(async move {
            if self.is_asked() {
                match self.look_there(limit).await {
                    Ok(standing) => {
                        self.answered();
                        return standing;
                    }
                    Err(why) => self.failed(&why),
                }
            }
            self.own.look(half(limit)).await
        }))
    }

    fn keys(&self) -> usize {
        self.own.keys()
    }
}

#[cfg(test)]
mod tests;
