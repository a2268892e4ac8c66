//! Who has been told of which outage: a session hears of a peer that is away once, not with every answer.
//!
//! Invariant: of any number of concurrent answers that one outage affects, exactly one per session carries the
//! notice; the next outage is told anew. Memory is bounded: per peer one outage and at most `MAX_TOLD` sessions,
//! beyond which the one told longest ago is forgotten (and would be told again).
//!
//! When an outage begins and ends is in `breaker.rs`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;
use policy::peer::PeerName;
use serde::Serialize;

/// Most sessions that are remembered for one peer.
const MAX_TOLD: usize = 4_096;

/// What a session is told, once per outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// The peer's local name.
    pub peer: PeerName,
    /// `federation_offline`.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Notice {
    /// The peer is away.
    #[must_use]
    pub fn offline(peer: &PeerName) -> Self {
        Self {
            peer: peer.clone(),
            code: "federation_offline",
            message: format!("federation offline for {peer}"),
        }
    }
}

/// The sessions that know of the last outage of one peer.
#[derive(Debug)]
struct Told<S> {
    outage: u64,
    sessions: HashSet<S>,
    /// The same, oldest first.
    order: VecDeque<S>,
}

impl<S: Copy + Eq + Hash> Told<S> {
    fn of(outage: u64) -> Self {
        Self {
            outage,
            sessions: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    fn claim(&mut self, session: S, outage: u64) -> bool {
        if outage < self.outage {
            // An answer that was overtaken: its session is told of the outage that stands now.
            return false;
        }
        if outage > self.outage {
            *self = Self::of(outage);
        }
        if !self.sessions.insert(session) {
            return false;
        }
        self.order.push_back(session);
        if self.order.len() > MAX_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        true
    }
}

/// Who has been told what; `S` tells one session from another.
#[derive(Debug)]
pub struct NoticeBook<S>(Mutex<HashMap<PeerName, Told<S>>>);

impl<S> Default for NoticeBook<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Copy + Eq + Hash> NoticeBook<S> {
    /// The notice for this answer, if the session has not had it for that outage.
    #[must_use]
    pub fn claim(&self, session: S, peer: &PeerName, outage: u64) -> Option<Notice> {
        let mut told = self.0.lock();
        let of_peer = told.entry(peer.clone()).or_insert_with(|| Told::of(outage));
        of_peer
            .claim(session, outage)
            .then(|| Notice::offline(peer))
    }

    /// Forgets every peer that `is_known` does not want kept.
    pub fn retain(&self, is_known: impl Fn(&PeerName) -> bool) {
        self.0.lock().retain(|peer, _| is_known(peer));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn peer(name: &str) -> PeerName {
        PeerName::parse(name).unwrap()
    }

    #[test]
    fn it_is_told_once_per_session_peer_and_outage() {
        let (book, work) = (NoticeBook::default(), peer("work"));
        let notice = book.claim(1_u64, &work, 1).unwrap();
        assert_eq!(
            serde_json::to_value(&notice).unwrap(),
            serde_json::json!({"peer": "work", "code": "federation_offline",
                "message": "federation offline for work"})
        );
        assert_eq!(book.claim(1_u64, &work, 1), None);
        assert!(book.claim(2, &work, 1).is_some());
        assert!(book.claim(3, &work, 1).is_some());
        assert!(book.claim(1_u64, &peer("other"), 1).is_some());
        assert!(book.claim(1_u64, &work, 2).is_some(), "the next outage");
        assert_eq!(book.claim(2, &work, 1), None, "overtaken");
        assert!(book.claim(2, &work, 2).is_some());
    }

    #[test]
    fn of_many_threads_one_tells() {
        let (book, told) = (
            Arc::new(NoticeBook::default()),
            Arc::new(AtomicUsize::new(0)),
        );
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let (book, told) = (Arc::clone(&book), Arc::clone(&told));
                scope.spawn(move || {
                    for outage in 1..=100 {
                        if book.claim(1_u64, &peer("work"), outage).is_some() {
                            told.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(told.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn memory_is_bounded_and_unknown_peers_are_forgotten() {
        let (book, work) = (NoticeBook::default(), peer("work"));
        for number in 0..3 * MAX_TOLD {
            assert!(book.claim(number, &work, 1).is_some());
        }
        let told = book.0.lock().remove(&work).unwrap();
        assert_eq!(
            (told.sessions.len(), told.order.len()),
            (MAX_TOLD, MAX_TOLD)
        );
        assert!(book.claim(1, &work, 1).is_some());
        book.retain(|name| *name != work);
        assert!(book.0.lock().is_empty());
    }

    proptest! {
        /// Whatever the order of claims, a session gets one notice of each outage at most, and the first claim
        /// of the newest outage always gets it.
        #[test]
        fn never_twice_and_the_newest_is_never_missed(
            claims in prop::collection::vec((0..4_u64, 1..6_u64), 1..200)
        ) {
            let (book, work) = (NoticeBook::default(), peer("work"));
            let (mut seen, mut newest) = (HashSet::new(), 0);
            for (who, outage) in claims {
                newest = newest.max(outage);
                let told = book.claim(who, &work, outage).is_some();
                let first = !seen.contains(&(who, outage));
                prop_assert!(!told || first);
                if outage == newest {
                    prop_assert_eq!(told, first);
                }
                if told {
                    seen.insert((who, outage));
                }
            }
        }
    }
}
