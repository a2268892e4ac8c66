//! How old a revocation list may be: pure.
//!
//! A list is fresh until its nextUpdate. Then it is late: it still counts, loudly, for the grace. After that it is too old
//! to say that a certificate is not revoked.

use super::RevocationList;

/// The grace unless told otherwise, seconds: a day.
pub const GRACE: i64 = 24 * 60 * 60;

/// The state of a list, or of an issuer with several. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// There is none.
    Missing,
    /// Late for longer than the grace.
    TooOld {
        /// Its nextUpdate.
        since: i64,
    },
    /// Past its nextUpdate, within the grace.
    Late {
        /// Its nextUpdate.
        since: i64,
    },
    /// Good.
    Fresh {
        /// Its nextUpdate.
        until: i64,
    },
}

impl Freshness {
    /// Of a list whose next one is due at `next_update`.
    #[must_use]
    pub fn of(next_update: i64, grace: i64, now: i64) -> Self {
        if now <= next_update {
            Self::Fresh { until: next_update }
        } else if now <= next_update.saturating_add(grace) {
            Self::Late { since: next_update }
        } else {
            Self::TooOld { since: next_update }
        }
    }

    /// Of one list.
    #[must_use]
    pub fn of_list(list: &RevocationList, grace: i64, now: i64) -> Self {
        Self::of(list.next_update(), grace, now)
    }

    /// Whether certificates that are not listed are good.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Fresh { .. } | Self::Late { .. })
    }

    /// The name in status, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::TooOld { .. } => "too_old",
            Self::Late { .. } => "late",
            Self::Fresh { .. } => "fresh",
        }
    }
}
