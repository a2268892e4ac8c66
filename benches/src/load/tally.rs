//! What a load counted, and the JSON object it becomes.
//!
//! Invariant: `requests` counts only whole answers with a 2xx status and all their rows; what is not one of
//! them is in exactly one of `non_2xx`, `wrong_rows`, `errors`. Pure; the times come from `modes.rs`.

use std::time::Duration;

use serde_json::{Value, json};

/// Counts and times of one connection or of a whole load.
#[derive(Debug, Default)]
pub struct Tally {
    /// Time of each request that counts, nanoseconds.
    pub requests: Vec<u64>,
    /// Time of each connection with its handshake, nanoseconds (handshake mode only).
    pub handshakes: Vec<u64>,
    /// Whole answers with another status.
    pub non_2xx: u64,
    /// Whole answers with a 2xx status and the wrong rows.
    pub wrong_rows: u64,
    /// Connections and exchanges that failed.
    pub errors: u64,
    /// Connections that the server closed after an answer, as it may.
    pub reconnects: u64,
    /// Idle connections still open at the end (idle mode only).
    pub alive: Option<u64>,
    /// The first failure, in words.
    pub first_failure: Option<String>,
    /// Rows that each counted answer held.
    pub rows: Option<usize>,
    /// Length of the measured part.
    pub elapsed: Duration,
}

impl Tally {
    /// Notes a failure in words; only the first one is kept.
    pub fn note(&mut self, failure: impl FnOnce() -> String) {
        self.first_failure.get_or_insert_with(failure);
    }

    /// Adds what another connection counted.
    pub fn add(&mut self, other: Self) {
        self.requests.extend(other.requests);
        self.handshakes.extend(other.handshakes);
        self.non_2xx += other.non_2xx;
        self.wrong_rows += other.wrong_rows;
        self.errors += other.errors;
        self.reconnects += other.reconnects;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// True when something was asked and everything counted.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.requests.is_empty() && self.non_2xx + self.wrong_rows + self.errors == 0
    }

    /// The report: one JSON object, times in milliseconds unless named otherwise.
    #[must_use]
    pub fn report(&self) -> Value {
        let seconds = self.elapsed.as_secs_f64();
        let count = u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        let rps = if seconds > 0.0 {
            f64::from(count) / seconds
        } else {
            0.0
        };
        let times = sorted(&self.requests);
        let handshakes = sorted(&self.handshakes);
        json!({
            "requests": self.requests.len(),
            "seconds": seconds,
            "rps": rps,
            "p50_ms": percentile(&times, 50),
            "p99_ms": percentile(&times, 99),
            "handshake_p50_ms": percentile(&handshakes, 50),
            "handshake_p99_ms": percentile(&handshakes, 99),
            "full_handshakes": self.handshakes.len(),
            "rows": self.rows,
            "non_2xx": self.non_2xx,
            "wrong_rows": self.wrong_rows,
            "errors": self.errors,
            "reconnects": self.reconnects,
            "alive": self.alive,
            "first_failure": self.first_failure,
        })
    }
}

fn sorted(times: &[u64]) -> Vec<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

/// Nearest-rank percentile of sorted nanoseconds, in milliseconds; `None` of nothing.
fn percentile(sorted: &[u64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let nanos = sorted.get(rank - 1)?;
    Some(Duration::from_nanos(*nanos).as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let milli = 1_000_000;
        let times: Vec<u64> = (1..=200).map(|n| n * milli).collect();
        let near = |found: Option<f64>, value: f64| (found.unwrap() - value).abs() < 1e-9;
        assert!(near(percentile(&times, 50), 100.0));
        assert!(near(percentile(&times, 99), 198.0));
        assert!(near(percentile(&[7 * milli], 99), 7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn nothing_asked_is_not_clean() {
        let mut tally = Tally::default();
        assert!(!tally.is_clean());
        tally.requests.push(1);
        assert!(tally.is_clean());
        for spoil in [
            |t: &mut Tally| t.errors += 1,
            |t: &mut Tally| t.non_2xx += 1,
            |t: &mut Tally| t.wrong_rows += 1,
        ] {
            let mut spoilt = Tally {
                requests: vec![1],
                ..Tally::default()
            };
            spoil(&mut spoilt);
            assert!(!spoilt.is_clean());
        }
    }

    #[test]
    fn adding_keeps_everything_and_the_first_failure() {
        let mut sum = Tally {
            requests: vec![1],
            errors: 1,
            ..Tally::default()
        };
        sum.note(|| "first".to_owned());
        let mut other = Tally {
            requests: vec![2, 3],
            wrong_rows: 2,
            ..Tally::default()
        };
        other.note(|| "second".to_owned());
        sum.add(other);
        assert_eq!((sum.requests.len(), sum.errors, sum.wrong_rows), (3, 1, 2));
        assert_eq!(sum.first_failure.as_deref(), Some("first"));
    }
}
