//! The lease book: until when peers may still serve answers of each grant from their caches.
//!
//! Invariant: a lease is booked under the lock of the connection's gate, after the grant's effective revision was
//! found to be the live one and before the first byte of the answer; so once every gate of a grant has been
//! closed for an old revision, no lease of that revision is booked any more, and its end is known. Ends are counted
//! in nanoseconds since boot, suspended time included, from the receipt of the request. The book keeps one end per
//! grant and revision, whatever the number of answers, and none that has come: what it takes is a matter of the grants that are
//! used, not of those there are.
//!
//! How long a lease is, is decided in `inbound/lease.rs`; `docs/leases.md` is the protocol with its proof.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use policy::id::{GrantId, PeerId};
use policy::revision::EffectiveRevision;

/// For how long a peer that announces no leases may serve an answer from its cache (the specification, section 8).
pub const UNLEASED_CACHE: Duration = Duration::from_secs(30);

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Parts of the book, so that answers of different grants seldom wait for one another.
const PARTS: usize = 64;
/// Below this, a part is not looked through for what has ended.
const FEW: usize = 16;

/// Until when answers of a grant under one effective revision may be served from caches; the later one counts.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    /// When the last lease ends.
    leased: u64,
    /// Until when a peer that announces no leases may serve what it was answered.
    unleased: u64,
}

impl Ends {
    fn last(self) -> u64 {
        self.leased.max(self.unleased)
    }

    fn and(self, other: Self) -> Self {
        Self {
            leased: self.leased.max(other.leased),
            unleased: self.unleased.max(other.unleased),
        }
    }
}

#[derive(Debug, Default)]
struct Part {
    ends: HashMap<(GrantId, EffectiveRevision), Ends>,
    /// With so many it is looked through.
    full: usize,
}

/// The leases of every grant under each effective revision.
#[derive(Debug)]
pub struct LeaseBook {
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
}

impl Default for LeaseBook {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl LeaseBook {
    /// Books a lease that was asked for at `received` and ends at `end`. Only to be called as the module says.
    pub fn book(&self, grant: GrantId, revision: EffectiveRevision, received: u64, end: u64) {
        let ends = Ends {
            leased: end,
            unleased: 0,
        };
        self.note((grant, revision), ends, received);
    }

    /// Notes that a peer without leases was answered what it had asked for at `received`.
    pub fn note_unleased(&self, grant: GrantId, revision: EffectiveRevision, received: u64) {
        let ends = Ends {
            leased: 0,
            unleased: received.saturating_add(nanos(UNLEASED_CACHE)),
        };
        self.note((grant, revision), ends, received);
    }

    fn note(&self, key: (GrantId, EffectiveRevision), ends: Ends, now: u64) {
        let Some(part) = self.part(key.0) else {
            return;
        };
        let mut part = part.lock();
        if part.ends.len() >= part.full.max(FEW) {
            part.ends.retain(|_, ends| ends.last() > now);
            part.full = part.ends.len().saturating_mul(2);
            let room = part.full.max(FEW);
            part.ends.shrink_to(room);
        }
        let known = part.ends.entry(key).or_default();
        *known = known.and(ends);
    }

    /// Takes out what was booked of a revision whose gates are closed.
    fn take(&self, grant: GrantId, revision: EffectiveRevision) -> Ends {
        let part = self.part(grant);
        part.and_then(|part| part.lock().ends.remove(&(grant, revision)))
            .unwrap_or_default()
    }

    /// Always there.
    fn part(&self, grant: GrantId) -> Option<&Mutex<Part>> {
        let hash = self.hasher.hash_one(grant) % PARTS as u64;
        self.parts.get(usize::try_from(hash).unwrap_or_default())
    }
}

/// Which grants an act touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// One.
    Grant(GrantId),
    /// All of a peer.
    Peer(PeerId),
    /// Any.
    All,
}

/// What a revision that is over has left behind.
#[derive(Debug, Clone, Copy)]
struct Left {
    peer: PeerId,
    ends: Ends,
}

/// What is still waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Until when, nanoseconds since boot.
    pub until: u64,
    /// What, for people.
    pub what: Vec<String>,
}

/// The leases of revisions that are over.
#[derive(Debug)]
pub(super) struct RetiredLeases {
    left: Mutex<HashMap<GrantId, Left>>,
    /// Until when leases may be out that an earlier process has given.
    forgotten_until: u64,
}

impl RetiredLeases {
    /// Of a process that starts at `now`, after one whose longest lease was at most `longest`.
    pub(super) fn since(now: u64, longest: Duration) -> Self {
        Self {
            left: Mutex::new(HashMap::new()),
            forgotten_until: now.saturating_add(nanos(longest)),
        }
    }

    /// Notes that a revision is over; its gates are closed. What has ended by `now` is forgotten.
    pub(super) fn retire(
        &self,
        (grant, revision): (GrantId, EffectiveRevision),
        peer: PeerId,
        book: &LeaseBook,
        now: u64,
    ) {
        let ends = book.take(grant, revision);
        let mut left = self.left.lock();
        left.retain(|_, left| left.ends.last() > now);
        if ends.last() > now {
            let entry = left.entry(grant).or_insert(Left { peer, ends });
            entry.ends = entry.ends.and(ends);
        }
    }

    /// The leases that a change of `touched` has to wait for at `now`; `None` when all have ended.
    pub(super) fn pending(&self, touched: Touched, now: u64) -> Option<Pending> {
        let mut until = 0;
        let mut what = Vec::new();
        if self.forgotten_until > now {
            until = self.forgotten_until;
            let millis = millis_until(until, now);
            what.push(format!(
                "leases from before the start of this process ({millis} ms)"
            ));
        }
        for (grant, left) in self.left.lock().iter() {
            let end = left.ends.leased;
            if end > now && touched.is(*grant, left.peer) {
                until = until.max(end);
                let millis = millis_until(end, now);
                what.push(format!("leases of grant {grant} ({millis} ms)"));
            }
        }
        what.sort();
        (until > now).then_some(Pending { until, what })
    }

    /// For how long after `now` any lease of a revision that is over may be out, milliseconds.
    pub(super) fn left_ms(&self, now: u64) -> u64 {
        let left = self.left.lock();
        let last = left
            .values()
            .map(|left| left.ends.leased)
            .max()
            .unwrap_or(0);
        millis_until(last, now)
    }

    /// Whether leases of an earlier process may be out at `now`.
    pub(super) const fn remembers_earlier(&self, now: u64) -> bool {
        self.forgotten_until > now
    }

    /// Whether a peer without leases may at `now` still serve what it was answered under a touched grant.
    pub(super) fn is_unleased(&self, touched: Touched, now: u64) -> bool {
        let left = self.left.lock();
        left.iter()
            .any(|(grant, left)| left.ends.unleased > now && touched.is(*grant, left.peer))
    }
}

impl Touched {
    /// Whether a grant of a peer is among them.
    pub(super) fn is(self, grant: GrantId, peer: PeerId) -> bool {
        match self {
            Self::Grant(one) => one == grant,
            Self::Peer(one) => one == peer,
            Self::All => true,
        }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds from `now` until `until`, rounded up.
pub(super) const fn millis_until(until: u64, now: u64) -> u64 {
    until.saturating_sub(now).div_ceil(NANOS_PER_MILLI)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use policy::revision::RevisionKey;
    use uuid::Uuid;

    use super::*;

    const LONGEST: Duration = Duration::from_nanos(100);

    fn revision(edit: u64) -> EffectiveRevision {
        let grant = GrantId::from(Uuid::from_u128(1));
        let key = RevisionKey::new(&[7; 32]);
        EffectiveRevision::of(&key, grant, edit, &[0; 32])
    }

    impl LeaseBook {
        fn len(&self) -> usize {
            self.parts.iter().map(|part| part.lock().ends.len()).sum()
        }
    }

    fn ids(n: u128) -> (GrantId, PeerId) {
        (
            GrantId::from(Uuid::from_u128(n)),
            PeerId::new(Uuid::from_u128(n + 1_000)),
        )
    }

    #[test]
    fn nothing_is_revoked_before_the_leases_of_an_earlier_process_have_ended() {
        let retired = RetiredLeases::since(50, LONGEST);
        let (grant, _) = ids(1);
        let pending = retired.pending(Touched::Grant(grant), 149).unwrap();
        assert_eq!(pending.until, 150);
        assert_eq!(retired.pending(Touched::Grant(grant), 150), None);
    }

    #[test]
    fn the_latest_end_of_every_old_revision_counts() {
        let retired = RetiredLeases::since(0, Duration::ZERO);
        let (grant, peer) = ids(1);
        let (book, first, second) = (LeaseBook::default(), revision(1), revision(2));
        book.book(grant, first, 0, 500);
        book.book(grant, first, 0, 400);
        book.book(grant, second, 0, 450);
        retired.retire((grant, first), peer, &book, 100);
        retired.retire((grant, second), peer, &book, 200);
        let until = |touched| retired.pending(touched, 200).map(|pending| pending.until);
        assert_eq!(until(Touched::Grant(grant)), Some(500));
        assert_eq!(until(Touched::Peer(peer)), Some(500));
        assert_eq!(until(Touched::All), Some(500));
        let (other_grant, other_peer) = ids(2);
        assert_eq!(until(Touched::Grant(other_grant)), None);
        assert_eq!(until(Touched::Peer(other_peer)), None);
        assert_eq!(retired.pending(Touched::All, 500), None);
    }

    #[test]
    fn what_has_ended_takes_no_room() {
        let (retired, book) = (
            RetiredLeases::since(0, Duration::ZERO),
            LeaseBook::default(),
        );
        for n in 0..1_000_u64 {
            let (grant, peer) = ids(u128::from(n));
            book.book(grant, revision(n), n, n + 10);
            retired.retire((grant, revision(n)), peer, &book, n);
        }
        assert!(retired.left.lock().len() <= 10);
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn the_book_has_what_is_out_and_little_else() {
        let book = LeaseBook::default();
        for n in 0..100_000_u64 {
            book.book(ids(u128::from(n)).0, revision(0), n, n + 1_000);
        }
        let kept = book.len();
        assert!((1_000..8_000).contains(&kept), "{kept}");
        // What is out is there, whatever was forgotten beside it.
        for n in 99_001..100_000 {
            let ends = book.take(ids(u128::from(n)).0, revision(0));
            assert_eq!(ends.leased, n + 1_000, "{n}");
        }
    }

    #[test]
    fn a_peer_without_leases_is_told_of_for_thirty_seconds() {
        let retired = RetiredLeases::since(0, Duration::ZERO);
        let (grant, peer) = ids(1);
        let book = LeaseBook::default();
        book.note_unleased(grant, revision(1), 5);
        retired.retire((grant, revision(1)), peer, &book, 6);
        assert_eq!(
            retired.pending(Touched::All, 6),
            None,
            "it holds nothing up"
        );
        let end = 5 + nanos(UNLEASED_CACHE);
        assert!(retired.is_unleased(Touched::Grant(grant), end - 1));
        assert!(!retired.is_unleased(Touched::Grant(grant), end));
        assert!(!retired.is_unleased(Touched::Grant(ids(2).0), 6));
    }
}
