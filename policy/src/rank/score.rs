//! How well a row fits a query: Okapi BM25 over what was counted.
//!
//! Invariant: a function of the counts and nothing else. Scores are compared as they are printed, so that the order of
//! an answer agrees with its figures on every machine. Elsewhere on purpose: counting (`matcher.rs`).

use std::fmt;

/// How soon more occurrences stop counting.
const K1: f64 = 1.2;
/// How much a longer row counts for less.
const B: f64 = 0.75;
/// What a score is counted in.
const PARTS: f64 = 1e6;

/// A score in millionths; prints as a decimal fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u64);

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What was counted over all rows that were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// Rows.
    pub(super) rows: u64,
    /// Their bytes, as sent.
    pub(super) bytes: u64,
    /// Rows with each term in them.
    pub(super) with: Vec<u64>,
}

impl Statistics {
    pub(super) fn new(terms: usize) -> Self {
        Self {
            rows: 0,
            bytes: 0,
            with: vec![0; terms],
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (with, more) in self.with.iter_mut().zip(&other.with) {
            *with = with.saturating_add(*more);
        }
    }

    /// The score of a row of `length` bytes in which the terms occur `counts` times.
    pub(super) fn score(&self, counts: &[u32], length: usize) -> Score {
        let rows = float(self.rows);
        let average = float(self.bytes) / rows.max(1.0);
        let length = float(u64::try_from(length).unwrap_or(u64::MAX));
        let relative = if average > 0.0 { length / average } else { 1.0 };
        let sum: f64 = counts
            .iter()
            .zip(&self.with)
            .filter(|(count, _)| **count > 0)
            .map(|(count, with)| {
                let (count, with) = (f64::from(*count), float(*with).min(rows));
                let rarity = (1.0 + (rows - with + 0.5) / (with + 0.5)).ln();
                rarity * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * relative))
            })
            .sum();
        Score(whole(sum * PARTS))
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts stay far below 2^53, up to which every integer is exact"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a score is not negative, and the cast saturates"
)]
fn whole(parts: f64) -> u64 {
    parts.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_score_worked_out_by_hand() {
        // 10 rows of 100 bytes, 2 with the term: ln(1 + 8.5 / 2.5) * 1 * 2.2 / (1 + 1.2) = ln 4.4.
        let statistics = Statistics {
            rows: 10,
            bytes: 1000,
            with: vec![2],
        };
        assert_eq!(statistics.score(&[1], 100).to_string(), "1.481605");
        // Twice as long: ... * 2.2 / (1 + 1.2 * 1.75) = 1.481605 * 2.2 / 3.1.
        assert_eq!(statistics.score(&[1], 200).to_string(), "1.051461");
        // Three times: ... * 6.6 / 4.2.
        assert_eq!(statistics.score(&[3], 100).to_string(), "2.328236");
        assert_eq!(statistics.score(&[0], 100).to_string(), "0.000000");
        assert_eq!(Statistics::new(1).score(&[1], 5).to_string(), "0.693147");
    }

    proptest! {
        #[test]
        fn more_occurrences_never_count_less(rows in 1u64..1000, with in 1u64..1000, count in 1u32..100, length in 1usize..5000) {
            let statistics = Statistics { rows, bytes: rows * 300, with: vec![with] };
            let score = |count, length| statistics.score(&[count], length);
            prop_assert!(score(count, length) <= score(count + 1, length));
            prop_assert!(score(count, length + 100) <= score(count, length));
            prop_assert!(score(count, length) > Score(0));
        }
    }
}
