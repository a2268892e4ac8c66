//! The lease of one answer: how long, and where it is booked.
//!
//! Invariant: a lease never outlives the grant or the certificate, and its end is counted from the receipt of the
//! request, which is after the peer has sent it: the peer, who counts from its own sending, stops first. It is booked
//! whether or not the answer then arrives.
//!
//! Until when leases of old revisions are out, and waiting for that, is in `directory/leases.rs`.

use std::time::Duration;

use http::HeaderValue;
use policy::id::GrantId;
use policy::revision::EffectiveRevision;
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;

use crate::directory::LeaseBook;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// The lease that an answer will carry.
#[derive(Debug, Clone, Copy)]
pub struct AnswerLease<'a> {
    book: &'a LeaseBook,
    grant: GrantId,
    revision: EffectiveRevision,
    /// Receipt of the request, nanoseconds since boot.
    received: u64,
    /// `None` for a peer that keeps no leases.
    millis: Option<u64>,
}

/// What bounds a lease besides the settings.
#[derive(Debug, Clone, Copy)]
pub struct LeaseBounds {
    /// Receipt of the request.
    pub received: UnixMillis,
    /// End of the grant.
    pub grant_ends: Option<UnixMillis>,
    /// End of the certificate, Unix seconds.
    pub certificate_not_after: i64,
}

impl LeaseBounds {
    /// The length of a lease: `longest`, the time to the end of the grant, or that to the end of the certificate,
    /// whichever is least, in whole milliseconds.
    #[must_use]
    pub fn millis(&self, longest: Duration) -> u64 {
        let until = |end: i64| u64::try_from(end.saturating_sub(self.received.0)).unwrap_or(0);
        let certificate = until(self.certificate_not_after.saturating_mul(1_000));
        let grant = self.grant_ends.map_or(u64::MAX, |end| until(end.0));
        u64::try_from(longest.as_millis())
            .unwrap_or(u64::MAX)
            .min(certificate)
            .min(grant)
    }
}

impl<'a> AnswerLease<'a> {
    /// A lease to be booked in `book` for an answer under `entry`; `received` in nanoseconds since boot, `millis` its length,
    /// `None` for a peer that keeps no leases.
    #[must_use]
    pub const fn new(
        book: &'a LeaseBook,
        entry: &GrantEntry,
        received: u64,
        millis: Option<u64>,
    ) -> Self {
        Self {
            book,
            grant: entry.grant.id,
            revision: entry.effective_revision,
            received,
            millis,
        }
    }

    /// Books it. To be called under the lock of the connection's gate, when the answer begins.
    pub fn book(&self) {
        let (grant, revision, received) = (self.grant, self.revision, self.received);
        match self.millis {
            Some(millis) => {
                let length = millis.saturating_mul(NANOS_PER_MILLI);
                let end = received.saturating_add(length);
                self.book.book(grant, revision, received, end);
            }
            None => self.book.note_unleased(grant, revision, received),
        }
    }

    /// The value of its header.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        self.millis.map(HeaderValue::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);

    fn bounds(grant: Option<i64>, certificate: i64) -> LeaseBounds {
        LeaseBounds {
            received: UnixMillis(10_000),
            grant_ends: grant.map(UnixMillis),
            certificate_not_after: certificate,
        }
    }

    #[test]
    fn a_lease_is_the_least_of_its_three_bounds() {
        assert_eq!(bounds(None, 60).millis(LONGEST), 2_000);
        assert_eq!(bounds(Some(90_000), 60).millis(LONGEST), 2_000);
        assert_eq!(bounds(Some(10_700), 60).millis(LONGEST), 700);
        assert_eq!(bounds(Some(10_700), 11).millis(LONGEST), 700);
        assert_eq!(bounds(Some(11_700), 11).millis(LONGEST), 1_000);
    }

    #[test]
    fn what_has_ended_has_no_lease() {
        assert_eq!(bounds(Some(10_000), 60).millis(LONGEST), 0);
        assert_eq!(bounds(Some(9_000), 60).millis(LONGEST), 0);
        assert_eq!(bounds(None, 10).millis(LONGEST), 0);
    }
}
