//! The lease book: until when peers may still serve answers of each grant from their caches.
//!
//! Invariant: a lease is booked under the lock of the connection's gate, after the grant's effective revision was
//! found to be the live one and before the first byte of the answer; so once every gate of a grant has been
//! closed for an old revision, no lease of that revision is booked any more, and its end is known. Ends are counted
//! in nanoseconds since boot, suspended time included, from the receipt of the request. The book keeps one end per
//! grant and revision, whatever the number of answers.
//!
//! How long a lease is, is decided in `inbound/lease.rs`; `docs/leases.md` is the protocol with its proof.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use policy::id::{GrantId, PeerId};
use policy::revision::EffectiveRevision;
use policy::shards::Shards;
use policy::snapshot::Snapshot;

/// For how long a peer that announces no leases may serve an answer from its cache (the specification, section 8).
pub const UNLEASED_CACHE: Duration = Duration::from_secs(30);

const NANOS_PER_MILLI: u64 = 1_000_000;

/// The leases of one grant under one effective revision.
#[derive(Debug)]
pub struct LeaseCell {
    revision: EffectiveRevision,
    /// When the last lease ends.
    end: AtomicU64,
    /// Until when a peer that announces no leases may serve what it was answered.
    unleased: AtomicU64,
}

impl LeaseCell {
    fn new(revision: EffectiveRevision) -> Self {
        Self {
            revision,
            end: AtomicU64::new(0),
            unleased: AtomicU64::new(0),
        }
    }

    /// Books a lease that ends at `end`. Only to be called as the module says.
    pub fn book(&self, end: u64) {
        self.end.fetch_max(end, Ordering::AcqRel);
    }

    /// Notes that a peer without leases was answered at `now`.
    pub fn note_unleased(&self, now: u64) {
        let end = now.saturating_add(nanos(UNLEASED_CACHE));
        self.unleased.fetch_max(end, Ordering::AcqRel);
    }
}

/// The cells of all grants of one snapshot.
pub(super) type LeaseCells = Shards<GrantId, Arc<LeaseCell>>;

/// The cells for `snapshot`: those of `before` go on where the effective revision is the same.
pub(super) fn cells_for(snapshot: &Snapshot, before: &LeaseCells) -> LeaseCells {
    let mut cells: LeaseCells = snapshot
        .grants()
        .map(|entry| {
            let id = entry.grant.id;
            (id, cell_for(id, entry.effective_revision, before))
        })
        .collect();
    cells.shrink();
    cells
}

/// The cell of one grant: that of `before` goes on where the effective revision is the same.
pub(super) fn cell_for(
    id: GrantId,
    revision: EffectiveRevision,
    before: &LeaseCells,
) -> Arc<LeaseCell> {
    match before.get(&id) {
        Some(cell) if cell.revision == revision => Arc::clone(cell),
        _ => Arc::new(LeaseCell::new(revision)),
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
    end: u64,
    unleased: u64,
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

    /// Notes that the revision of `cell` is over; its gates are closed. What has ended by `now` is forgotten.
    pub(super) fn retire(&self, grant: GrantId, peer: PeerId, cell: &LeaseCell, now: u64) {
        let (end, unleased) = (
            cell.end.load(Ordering::Acquire),
            cell.unleased.load(Ordering::Acquire),
        );
        let mut left = self.left.lock();
        left.retain(|_, left| left.end.max(left.unleased) > now);
        if end.max(unleased) > now {
            let entry = left.entry(grant).or_insert(Left {
                peer,
                end,
                unleased,
            });
            entry.end = entry.end.max(end);
            entry.unleased = entry.unleased.max(unleased);
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
            if left.end > now && touched.is(*grant, left.peer) {
                until = until.max(left.end);
                let millis = millis_until(left.end, now);
                what.push(format!("leases of grant {grant} ({millis} ms)"));
            }
        }
        what.sort();
        (until > now).then_some(Pending { until, what })
    }

    /// For how long after `now` any lease of a revision that is over may be out, milliseconds.
    pub(super) fn left_ms(&self, now: u64) -> u64 {
        let left = self.left.lock();
        let last = left.values().map(|left| left.end).max().unwrap_or(0);
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
            .any(|(grant, left)| left.unleased > now && touched.is(*grant, left.peer))
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

    fn cell(edit: u64) -> LeaseCell {
        let grant = GrantId::from(Uuid::from_u128(1));
        let key = RevisionKey::new(&[7; 32]);
        LeaseCell::new(EffectiveRevision::of(&key, grant, edit, &[0; 32]))
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
        let (first, second) = (cell(1), cell(2));
        first.book(500);
        first.book(400);
        second.book(450);
        retired.retire(grant, peer, &first, 100);
        retired.retire(grant, peer, &second, 200);
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
        let retired = RetiredLeases::since(0, Duration::ZERO);
        for n in 0..1_000_u64 {
            let (grant, peer) = ids(u128::from(n));
            let cell = cell(n);
            cell.book(n + 10);
            retired.retire(grant, peer, &cell, n);
        }
        assert!(retired.left.lock().len() <= 10);
    }

    #[test]
    fn a_peer_without_leases_is_told_of_for_thirty_seconds() {
        let retired = RetiredLeases::since(0, Duration::ZERO);
        let (grant, peer) = ids(1);
        let cell = cell(1);
        cell.note_unleased(5);
        retired.retire(grant, peer, &cell, 6);
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
