//! Leases as the asking side keeps them: until when what a peer answered may be served here.
//!
//! Invariant: the time is counted from our own sending of the question, on the clock that counts suspended time, and
//! only three quarters of a lease are used. The serving side counts the whole lease from its receipt; so the last
//! quarter covers the way there, clocks whose rates differ by 10 %, and the pause between a check and its write.
//! A revision is only ever compared for equality.
//!
//! The protocol is in `docs/leases.md`. What is served under a lease is in `cache.rs` and `passage.rs`.

use http::HeaderMap;
use parking_lot::Mutex;
use policy::revision::EffectiveRevision;

use crate::message::headers::{LEASE, REVISION};

const NANOS_PER_MILLI: u64 = 1_000_000;
/// The longest lease there is (the specification, section 8), milliseconds; a longer one is taken as this.
const LONGEST_MILLIS: u64 = 10_000;

/// What a peer promises with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseTerm {
    /// The effective revision of the grant that it was answered under.
    pub(super) revision: EffectiveRevision,
    /// Nanoseconds, counted from our sending of the question.
    length: u64,
}

impl LeaseTerm {
    /// The lease of an answer; `None` when the peer gives none, or none that can be understood.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok();
        let millis = text(LEASE)?;
        let plain = (1..=9).contains(&millis.len()) && millis.bytes().all(|b| b.is_ascii_digit());
        let millis: u64 = millis.parse().ok().filter(|_| plain)?;
        Some(Self {
            revision: EffectiveRevision::parse(text(REVISION)?).ok()?,
            length: millis.min(LONGEST_MILLIS).saturating_mul(NANOS_PER_MILLI),
        })
    }

    /// The right to serve that follows for a question sent at `sent`.
    pub(super) const fn counted_from(&self, sent: u64) -> ServeRight {
        ServeRight {
            until: sent.saturating_add(self.length / 4 * 3),
            pause: self.length / 20 * 3,
        }
    }
}

/// The right to serve something for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServeRight {
    /// Until when, nanoseconds since boot, exclusive.
    pub(super) until: u64,
    /// How long after its check a write may begin, nanoseconds.
    pub(super) pause: u64,
}

impl ServeRight {
    /// Whether it holds at `now`.
    pub(super) const fn holds(&self, now: u64) -> bool {
        now < self.until
    }

    fn later(self, other: Self) -> Self {
        if other.until > self.until {
            other
        } else {
            self
        }
    }
}

/// The newest revision of a grant that was heard of, and the right to serve its answers.
#[derive(Debug, Clone, Copy)]
struct Held {
    revision: EffectiveRevision,
    /// When the question was sent that it was last heard with.
    sent: u64,
    right: ServeRight,
}

/// What hearing of a lease changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The revision is the one known, or older news than it.
    Same,
    /// It is another one: nothing of the revisions before may be served from memory any more.
    Changed,
}

/// The leases of one credential.
#[derive(Debug, Default)]
pub(super) struct LeaseHolder {
    held: Mutex<Option<Held>>,
    /// Held while a lease is renewed: one question renews it for all who wait.
    pub(super) renewing: tokio::sync::Mutex<()>,
}

impl LeaseHolder {
    /// Notes a lease that came with the answer to a question sent at `sent`.
    pub(super) fn hear(&self, term: &LeaseTerm, sent: u64) -> Heard {
        let right = term.counted_from(sent);
        let mut held = self.held.lock();
        match &mut *held {
            Some(known) if known.revision == term.revision => {
                known.right = known.right.later(right);
                known.sent = known.sent.max(sent);
                Heard::Same
            }
            // Which of two revisions is newer cannot be told but by when it was asked for.
            Some(known) if known.sent > sent => Heard::Same,
            _ => {
                let changed = held.is_some();
                *held = Some(Held {
                    revision: term.revision,
                    sent,
                    right,
                });
                if changed { Heard::Changed } else { Heard::Same }
            }
        }
    }

    /// The newest revision heard of.
    pub(super) fn revision(&self) -> Option<EffectiveRevision> {
        self.held.lock().as_ref().map(|held| held.revision)
    }

    /// The right to serve answers of `revision`; `None` when another one is the newest heard of.
    pub(super) fn right(&self, revision: EffectiveRevision) -> Option<ServeRight> {
        self.held
            .lock()
            .as_ref()
            .filter(|held| held.revision == revision)
            .map(|held| held.right)
    }

    /// Until when answers of the newest revision may be served.
    pub(super) fn until(&self) -> Option<u64> {
        self.held.lock().as_ref().map(|held| held.right.until)
    }

    /// Forgets everything: the grant is over, or not to be used.
    pub(super) fn forget(&self) {
        *self.held.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use policy::id::GrantId;
    use policy::revision::RevisionKey;
    use uuid::Uuid;

    use super::*;

    fn revision(edit: u64) -> EffectiveRevision {
        let key = RevisionKey::new(&[3; 32]);
        EffectiveRevision::of(&key, GrantId::from(Uuid::from_u128(1)), edit, &[0; 32])
    }

    fn headers(lease: &str, edit: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(LEASE, HeaderValue::from_str(lease).unwrap());
        let revision = revision(edit).to_string();
        headers.insert(REVISION, HeaderValue::from_str(&revision).unwrap());
        headers
    }

    fn term(millis: u64, edit: u64) -> LeaseTerm {
        LeaseTerm::of(&headers(&millis.to_string(), edit)).unwrap()
    }

    #[test]
    fn three_quarters_of_a_lease_are_used_counted_from_the_sending() {
        let right = term(2_000, 1).counted_from(7_000_000_000);
        assert_eq!(right.until, 7_000_000_000 + 1_500 * NANOS_PER_MILLI);
        assert_eq!(right.pause, 300 * NANOS_PER_MILLI);
        assert!(right.holds(right.until - 1));
        assert!(!right.holds(right.until));
        assert!(!term(0, 1).counted_from(7).holds(7));
    }

    #[test]
    fn what_is_no_lease_gives_none() {
        for odd in ["", "-1", "1.5", "0x10", " 5", "1234567890", "a"] {
            assert_eq!(LeaseTerm::of(&headers(odd, 1)), None, "{odd:?}");
        }
        let mut without = headers("5", 1);
        without.remove(REVISION);
        assert_eq!(LeaseTerm::of(&without), None);
        let mut without = headers("5", 1);
        without.remove(LEASE);
        assert_eq!(LeaseTerm::of(&without), None);
        assert_eq!(term(999_999_999, 1), term(10_000, 1), "bounded");
    }

    #[test]
    fn the_same_revision_renews_and_never_shortens() {
        let holder = LeaseHolder::default();
        assert_eq!(holder.hear(&term(2_000, 1), 1_000), Heard::Same);
        let first = holder.right(revision(1)).unwrap();
        assert_eq!(holder.hear(&term(1_000, 1), 500), Heard::Same);
        assert_eq!(holder.right(revision(1)), Some(first));
        assert_eq!(holder.hear(&term(2_000, 1), 9_000), Heard::Same);
        assert_eq!(
            holder.right(revision(1)).unwrap().until,
            first.until + 8_000
        );
    }

    #[test]
    fn another_revision_ends_the_one_before_unless_it_is_older_news() {
        let holder = LeaseHolder::default();
        holder.hear(&term(2_000, 1), 1_000);
        assert_eq!(holder.hear(&term(2_000, 2), 1_000), Heard::Changed);
        assert_eq!(holder.right(revision(1)), None);
        assert_eq!(holder.revision(), Some(revision(2)));
        assert_eq!(holder.hear(&term(2_000, 1), 999), Heard::Same);
        assert_eq!(holder.revision(), Some(revision(2)));
        holder.forget();
        assert_eq!(holder.right(revision(2)), None);
        assert_eq!(holder.revision(), None);
    }
}
