//! Handshakes and failed authentications by source address.
//!
//! Invariant: an address is counted for itself alone, an IPv6 address by its /64, so nobody can
//! have another one refused; memory is bounded, and when the bound is reached the address that owes
//! least is forgotten, never a new one refused.
//!
//! A refused connection is closed by the listener before any TLS: that is all it costs.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use parking_lot::Mutex;

use super::gcra::{Bucket, Quota};
use crate::telemetry::Metrics;

/// Locks that addresses are spread over.
const SHARDS: usize = 16;
/// Addresses kept in each; 65,536 in all.
const KEPT: usize = 4096;

/// Where connections come from, as far as it counts: an IPv4 address, or the /64 of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// What one source address may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceQuotas {
    /// Connections.
    pub handshakes: Quota,
    /// Failed authentications; with none left, no connection is accepted.
    pub failures: Quota,
}

/// Why a connection is closed at once; a closed set, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceRefusal {
    /// Too many connections.
    Handshakes,
    /// Too many failed authentications.
    Failures,
}

impl SourceRefusal {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Handshakes, Self::Failures];

    /// The label used in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Failures => "failed_authentications",
        }
    }
}

/// What a source has used up.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    handshakes: Bucket,
    failures: Bucket,
}

impl Used {
    fn is_nothing(&self, now: u64) -> bool {
        self.handshakes.is_full(now) && self.failures.is_full(now)
    }

    /// How long it takes to be forgiven.
    fn debt(&self, quotas: SourceQuotas, now: u64) -> Duration {
        let handshakes = self.handshakes.standing(quotas.handshakes, now).full_in;
        handshakes.max(self.failures.standing(quotas.failures, now).full_in)
    }
}

/// The sources of one listener.
pub struct SourceLimits {
    listener: &'static str,
    quotas: SourceQuotas,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    spread: RandomState,
    shards: [Mutex<HashMap<Source, Used>>; SHARDS],
}

impl SourceLimits {
    /// The limits of `listener`.
    #[must_use]
    pub fn new(
        listener: &'static str,
        quotas: SourceQuotas,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        for refusal in SourceRefusal::ALL {
            metrics.connections_refused(listener, refusal.as_str(), 0);
        }
        Arc::new(Self {
            listener,
            quotas,
            clock,
            metrics,
            spread: RandomState::new(),
            shards: Default::default(),
        })
    }

    /// Lets one connection from `address` go on to its handshake.
    ///
    /// # Errors
    /// [`SourceRefusal`], already counted: close it.
    pub fn admit(&self, address: IpAddr) -> Result<(), SourceRefusal> {
        let now = self.clock.boot_nanos();
        let quotas = self.quotas;
        let admitted = self.with(address, now, |used| {
            if used.failures.standing(quotas.failures, now).remaining == 0 {
                return Err(SourceRefusal::Failures);
            }
            used.handshakes
                .draw(quotas.handshakes, now)
                .map_err(|_| SourceRefusal::Handshakes)
        });
        if let Err(refusal) = admitted {
            self.metrics
                .connections_refused(self.listener, refusal.as_str(), 1);
        }
        admitted
    }

    /// Counts a failed authentication.
    pub fn failed(&self, address: IpAddr) {
        let now = self.clock.boot_nanos();
        let quota = self.quotas.failures;
        // With none left the connection was accepted before: there is nothing more to take.
        let _ = self.with(address, now, |used| used.failures.draw(quota, now));
    }

    /// How long until an address may fail to authenticate once more, when it may not now.
    #[must_use]
    pub fn barred_for(&self, address: IpAddr) -> Option<Duration> {
        let now = self.clock.boot_nanos();
        let source = Source::from(address);
        let used = self.shard(source).lock().get(&source).copied()?;
        let mut failures = used.failures;
        failures.draw(self.quotas.failures, now).err()
    }

    /// Forgets every source that owes nothing.
    pub fn sweep(&self) {
        let now = self.clock.boot_nanos();
        for shard in &self.shards {
            let mut sources = shard.lock();
            sources.retain(|_, used| !used.is_nothing(now));
            let room = sources.len().saturating_mul(2);
            sources.shrink_to(room);
        }
    }

    /// Sources kept.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, source: Source) -> &Mutex<HashMap<Source, Used>> {
        let [first, ..] = &self.shards;
        let place = self.spread.hash_one(source) % SHARDS as u64;
        self.shards
            .get(usize::try_from(place).unwrap_or_default())
            .unwrap_or(first)
    }

    fn with<T>(&self, address: IpAddr, now: u64, act: impl FnOnce(&mut Used) -> T) -> T {
        let source = Source::from(address);
        let mut sources = self.shard(source).lock();
        if sources.len() >= KEPT && !sources.contains_key(&source) {
            sources.retain(|_, used| !used.is_nothing(now));
            if sources.len() >= KEPT {
                let least = sources
                    .iter()
                    .min_by_key(|(_, used)| used.debt(self.quotas, now))
                    .map(|(source, _)| *source);
                if let Some(least) = least {
                    sources.remove(&least);
                }
            }
        }
        act(sources.entry(source).or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use certs::testing::ManualClock;
    use policy::rate::Rate;

    fn quota(per_minute: u32, burst: u32) -> Quota {
        Quota::of(Rate::new(per_minute, burst).unwrap())
    }

    fn limits(handshakes: Quota, failures: Quota) -> (Arc<SourceLimits>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at_millis(0));
        let quotas = SourceQuotas {
            handshakes,
            failures,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let limits = SourceLimits::new("federation", quotas, Arc::clone(&clock) as _, metrics);
        (limits, clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn handshakes_of_one_address_do_not_count_for_another() {
        let (limits, clock) = limits(quota(60, 3), quota(60, 3));
        let one = address("192.0.2.1");
        assert!((0..3).all(|_| limits.admit(one).is_ok()));
        assert_eq!(limits.admit(one), Err(SourceRefusal::Handshakes));
        assert_eq!(limits.admit(address("192.0.2.2")), Ok(()));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limits.admit(one), Ok(()));
        assert_eq!(limits.admit(one), Err(SourceRefusal::Handshakes));
    }

    #[test]
    fn failures_close_the_door_to_their_own_address_only() {
        let (limits, clock) = limits(quota(6000, 100), quota(6, 2));
        let one = address("192.0.2.1");
        limits.failed(one);
        assert_eq!(limits.admit(one), Ok(()));
        assert_eq!(limits.barred_for(one), None);
        limits.failed(one);
        limits.failed(one);
        assert_eq!(limits.admit(one), Err(SourceRefusal::Failures));
        assert_eq!(limits.barred_for(one), Some(Duration::from_secs(10)));
        assert_eq!(limits.admit(address("192.0.2.2")), Ok(()));
        clock.advance(Duration::from_secs(10));
        assert_eq!(limits.admit(one), Ok(()));
    }

    #[test]
    fn an_address_of_version_6_is_its_network_and_a_mapped_one_is_version_4() {
        let (limits, _) = limits(quota(60, 1), quota(60, 1));
        assert_eq!(limits.admit(address("2001:db8:0:1::1")), Ok(()));
        assert!(limits.admit(address("2001:db8:0:1:ffff::9")).is_err());
        assert_eq!(limits.admit(address("2001:db8:0:2::1")), Ok(()));
        assert_eq!(limits.admit(address("::ffff:192.0.2.1")), Ok(()));
        assert!(limits.admit(address("192.0.2.1")).is_err());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_offender_is_kept() {
        let (limits, clock) = limits(quota(60, 4), quota(60, 4));
        let worst = address("192.0.2.1");
        while limits.admit(worst).is_ok() {}
        for number in 0..(SHARDS * KEPT * 2) {
            let [.., a, b, c, d] = number.to_be_bytes();
            let network = [0x20, 1, 0xd, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 1];
            assert_eq!(
                limits.admit(IpAddr::from(network)),
                Ok(()),
                "a new one is never refused"
            );
        }
        assert!(limits.keys() <= SHARDS * KEPT);
        assert!(limits.keys() > SHARDS * KEPT / 2);
        assert_eq!(limits.admit(worst), Err(SourceRefusal::Handshakes));
        clock.advance(Duration::from_secs(60));
        limits.sweep();
        assert_eq!(limits.keys(), 0);
    }
}
