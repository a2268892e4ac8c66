//! Requests of a peer under way in this process.
//!
//! Invariant: a slot is given back by dropping it, whatever becomes of its request, and a peer with
//! none under way takes no memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::id::PeerId;

/// Locks that peers are spread over.
const SHARDS: usize = 16;

/// Counts requests under way, by peer.
#[derive(Debug)]
pub struct InFlight {
    limit: u32,
    shards: [Mutex<HashMap<PeerId, u32>>; SHARDS],
}

/// One request under way.
#[derive(Debug)]
pub struct Slot {
    of: Arc<InFlight>,
    peer: PeerId,
}

impl InFlight {
    /// Lets each peer have `limit` requests under way.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            shards: Default::default(),
        })
    }

    /// A slot for one more request of `peer`, unless it has as many as it may.
    #[must_use]
    pub fn enter(self: &Arc<Self>, peer: PeerId) -> Option<Slot> {
        {
            let mut counts = self.shard(peer)?.lock();
            let count = counts.entry(peer).or_default();
            if *count >= self.limit {
                return None;
            }
            *count = count.saturating_add(1);
        }
        Some(Slot {
            of: Arc::clone(self),
            peer,
        })
    }

    /// Peers with requests under way.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, peer: PeerId) -> Option<&Mutex<HashMap<PeerId, u32>>> {
        // Ids are random or drawn by time: their last byte spreads well either way.
        let last = peer.as_bytes().last().copied().unwrap_or_default();
        self.shards.get(usize::from(last) % SHARDS)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(mut counts) = self.of.shard(self.peer).map(Mutex::lock) else {
            return;
        };
        if let Some(count) = counts.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
