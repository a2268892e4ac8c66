//! Answers of peers, kept in memory for half a minute.
//!
//! Invariant: the memory that entries take, with all that belongs to them, is never more than the bound; what is
//! dropped is overwritten. An entry is found only by whoever may ask the same question of the same peer under the
//! same credential, for the revision it was answered under, and only within its time. Whether it may be *served* is
//! the lease's business (`lease.rs`): nothing here knows one.
//!
//! Written by hand rather than with a caching library: those evict and drop when they get round to it, and here the
//! bound and the overwriting are promises.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use policy::id::{GrantId, PeerId};
use policy::resource::Resource;
use policy::revision::EffectiveRevision;
use policy::verb::Verb;
use zeroize::Zeroizing;

/// For how long an answer is good at most, counted from the sending of its question (the specification, section 9.5).
pub(super) const TTL: Duration = Duration::from_secs(30);
/// The largest answer that is kept, bytes.
pub(super) const MAX_ENTRY: usize = 256 * 1024;
/// What an entry takes besides its body, bytes: key, places in both maps, the allocations' own overhead.
const OVERHEAD: usize = 512;

/// What tells one question from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QuestionKey {
    /// The peer, as known here.
    pub(super) peer: PeerId,
    /// Hash over the credential and everything else that its client is made of.
    pub(super) credential: [u8; 32],
    /// The grant on the peer.
    pub(super) grant: GrantId,
    /// List or get.
    pub(super) verb: Verb,
    /// Of what.
    pub(super) resource: Resource,
    /// Hash of the canonical question.
    pub(super) query: [u8; 32],
}

/// An answer as it is served from memory.
#[derive(Debug, Clone)]
pub(super) struct KeptAnswer {
    /// The body, marked as cached.
    pub(super) body: Bytes,
    /// Its rows.
    pub(super) rows: u64,
    /// The revision it was answered under.
    pub(super) revision: EffectiveRevision,
    /// When its question was sent, nanoseconds since boot.
    pub(super) sent: u64,
}

impl KeptAnswer {
    /// An answer to keep; `body` is overwritten once nobody holds it any more.
    pub(super) fn new(body: Vec<u8>, rows: u64, revision: EffectiveRevision, sent: u64) -> Self {
        Self {
            body: Bytes::from_owner(Zeroizing::new(body)),
            rows,
            revision,
            sent,
        }
    }

    fn size(&self) -> usize {
        self.body.len().saturating_add(OVERHEAD)
    }

    fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.sent) < u64::try_from(TTL.as_nanos()).unwrap_or(u64::MAX)
    }
}

struct Entry {
    answer: KeptAnswer,
    used: u64,
}

#[derive(Default)]
struct Shelf {
    entries: HashMap<QuestionKey, Entry>,
    /// Keys by when they were last used, the longest ago first.
    order: BTreeMap<u64, QuestionKey>,
    next: u64,
    bytes: usize,
}

/// Figures of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheFigures {
    /// Answers kept.
    pub entries: u64,
    /// Memory they take, bytes.
    pub bytes: u64,
    /// The bound on it; 0 when the cache is off.
    pub max_bytes: u64,
    /// Questions answered from memory since the start.
    pub hits: u64,
    /// Questions that could have been and were not.
    pub misses: u64,
}

/// What the cache does for one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PeerFigures {
    /// Answers kept.
    pub entries: u64,
    /// Questions answered from memory since the start.
    pub hits: u64,
    /// Questions that could have been and were not.
    pub misses: u64,
}

/// Answers of all peers.
pub(super) struct AnswerCache {
    max_bytes: usize,
    shelf: Mutex<Shelf>,
    /// Hits and misses of each peer.
    counts: Mutex<HashMap<PeerId, (u64, u64)>>,
}

impl AnswerCache {
    /// An empty one that takes at most `max_bytes`; 0 keeps nothing.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            shelf: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// Whether anything is kept at all.
    pub(super) const fn is_on(&self) -> bool {
        self.max_bytes > 0
    }

    /// The answer to a question under `revision`, if it is here and fresh at `now`; any other answer to it is dropped.
    pub(super) fn find(
        &self,
        key: &QuestionKey,
        revision: EffectiveRevision,
        now: u64,
    ) -> Option<KeptAnswer> {
        let mut shelf = self.shelf.lock();
        let entry = shelf.entries.get(key)?;
        if entry.answer.revision != revision || !entry.answer.is_fresh(now) {
            shelf.remove(key);
            return None;
        }
        shelf.touch(key)
    }

    /// Keeps an answer, in place of an earlier one to the same question; others make room.
    pub(super) fn keep(&self, key: QuestionKey, answer: KeptAnswer) {
        if answer.body.len() > MAX_ENTRY || answer.size() > self.max_bytes {
            return;
        }
        let mut shelf = self.shelf.lock();
        shelf.remove(&key);
        while shelf.bytes.saturating_add(answer.size()) > self.max_bytes {
            let Some((_, oldest)) = shelf.order.first_key_value() else {
                return;
            };
            let oldest = *oldest;
            shelf.remove(&oldest);
        }
        shelf.insert(key, answer);
    }

    /// Drops every answer that is not `wanted`.
    pub(super) fn retain(&self, wanted: impl Fn(&QuestionKey, &KeptAnswer) -> bool) {
        let mut shelf = self.shelf.lock();
        let unwanted: Vec<QuestionKey> = shelf
            .entries
            .iter()
            .filter(|(key, entry)| !wanted(key, &entry.answer))
            .map(|(key, _)| *key)
            .collect();
        for key in unwanted {
            shelf.remove(&key);
        }
    }

    /// Drops every answer of a peer.
    pub(super) fn flush(&self, peer: PeerId) {
        self.retain(|key, _| key.peer != peer);
    }

    /// Drops what is no longer fresh at `now`. To be called now and then.
    pub(super) fn sweep(&self, now: u64) {
        self.retain(|_, answer| answer.is_fresh(now));
    }

    /// Counts a question to a peer that was, or was not, answered from memory.
    pub(super) fn count(&self, peer: PeerId, hit: bool) {
        let mut counts = self.counts.lock();
        let (hits, misses) = counts.entry(peer).or_default();
        let counter = if hit { hits } else { misses };
        *counter = counter.saturating_add(1);
    }

    /// The figures as they are now.
    pub(super) fn figures(&self) -> CacheFigures {
        let (mut hits, mut misses) = (0_u64, 0_u64);
        for (hit, missed) in self.counts.lock().values() {
            hits = hits.saturating_add(*hit);
            misses = misses.saturating_add(*missed);
        }
        let shelf = self.shelf.lock();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        CacheFigures {
            entries: count(shelf.entries.len()),
            bytes: count(shelf.bytes),
            max_bytes: count(self.max_bytes),
            hits,
            misses,
        }
    }

    /// The figures of one peer.
    pub(super) fn figures_of(&self, peer: PeerId) -> PeerFigures {
        let (hits, misses) = self.counts.lock().get(&peer).copied().unwrap_or_default();
        let shelf = self.shelf.lock();
        let own = shelf.entries.keys().filter(|key| key.peer == peer).count();
        PeerFigures {
            entries: u64::try_from(own).unwrap_or(u64::MAX),
            hits,
            misses,
        }
    }
}

impl Shelf {
    fn insert(&mut self, key: QuestionKey, answer: KeptAnswer) {
        self.bytes = self.bytes.saturating_add(answer.size());
        let used = self.draw();
        self.order.insert(used, key);
        self.entries.insert(key, Entry { answer, used });
    }

    fn remove(&mut self, key: &QuestionKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes = self.bytes.saturating_sub(entry.answer.size());
        }
    }

    /// Makes an entry the most recently used one.
    fn touch(&mut self, key: &QuestionKey) -> Option<KeptAnswer> {
        let used = self.draw();
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.order.insert(used, *key);
        entry.used = used;
        Some(entry.answer.clone())
    }

    const fn draw(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

#[cfg(test)]
mod tests;
