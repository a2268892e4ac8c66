//! Reading the clock.
//!
//! Invariant: this is the only file of the project that asks the operating system for the time.
//! Everything else takes the time, or a [`Clock`], as an argument; on purpose nothing here sleeps,
//! schedules or formats.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

const MILLIS_PER_SEC: i64 = 1_000;
const NANOS_PER_MILLI: i64 = 1_000_000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A source of wall-clock and suspend-counting time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time in milliseconds since the Unix epoch. May jump when the clock is set.
    fn unix_millis(&self) -> i64;

    /// Nanoseconds since boot, counting suspended time (`CLOCK_BOOTTIME`). Never goes backwards.
    fn boot_nanos(&self) -> u64;

    /// Wall-clock time in whole seconds since the Unix epoch, rounded down.
    fn unix_seconds(&self) -> i64 {
        self.unix_millis().div_euclid(MILLIS_PER_SEC)
    }
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_millis(&self) -> i64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
        tv_sec
            .saturating_mul(MILLIS_PER_SEC)
            .saturating_add(tv_nsec / NANOS_PER_MILLI)
    }

    fn boot_nanos(&self) -> u64 {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
        // The kernel never reports a negative time since boot; zero is the fail-safe reading.
        let seconds = u64::try_from(tv_sec).unwrap_or(0);
        let nanos = u64::try_from(tv_nsec).unwrap_or(0);
        seconds.saturating_mul(NANOS_PER_SEC).saturating_add(nanos)
    }
}

/// Unix seconds as the type the TLS and path-validation libraries take.
/// A time before 1970 becomes 1970, at which no certificate of this product is valid.
#[must_use]
pub fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Unix seconds of a [`UnixTime`]; saturates at [`i64::MAX`].
#[must_use]
pub fn unix_seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Lets rustls read its `now` from a [`Clock`], so that tests can move it.
#[derive(Debug, Clone)]
pub struct TlsClock(Arc<dyn Clock>);

impl TlsClock {
    /// Wraps `clock` for `ServerConfig` and `ClientConfig` builders.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.unix_seconds()))
    }
}

/// A clock that moves only when told to, for tests.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug, Default)]
pub struct ManualClock {
    unix_millis: std::sync::atomic::AtomicI64,
    boot_nanos: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that reads `unix_millis` and a boot time of zero.
    #[must_use]
    pub fn at_millis(unix_millis: i64) -> Self {
        Self {
            unix_millis: unix_millis.into(),
            boot_nanos: 0.into(),
        }
    }

    /// Moves both clocks forward by `by`, as real time does.
    pub fn advance(&self, by: Duration) {
        use std::sync::atomic::Ordering::SeqCst;
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.unix_millis.fetch_add(millis, SeqCst);
        self.boot_nanos.fetch_add(nanos, SeqCst);
    }

    /// Sets the wall clock alone, as an operator or NTP does; boot time stays.
    pub fn set_unix_millis(&self, unix_millis: i64) {
        self.unix_millis
            .store(unix_millis, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn unix_millis(&self) -> i64 {
        self.unix_millis.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn boot_nanos(&self) -> u64 {
        self.boot_nanos.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_backwards_and_wall_time_is_after_2020() {
        let clock = SystemClock;
        let first = clock.boot_nanos();
        assert!(first > 0);
        assert!(clock.boot_nanos() >= first);
        assert!(clock.unix_seconds() > 1_577_836_800);
    }

    #[test]
    fn seconds_round_down_before_the_epoch_too() {
        assert_eq!(ManualClock::at_millis(1_999).unix_seconds(), 1);
        assert_eq!(ManualClock::at_millis(-1).unix_seconds(), -1);
        assert_eq!(unix_time(-1).as_secs(), 0);
    }

    #[test]
    fn setting_the_wall_clock_leaves_boot_time_alone() {
        let clock = ManualClock::at_millis(0);
        clock.advance(Duration::from_millis(5));
        clock.set_unix_millis(-7);
        assert_eq!(clock.unix_millis(), -7);
        assert_eq!(clock.boot_nanos(), 5_000_000);
    }
}
