//! The hash chain over the log: making it, and verifying it.
//!
//! Invariant: a row's hash is HMAC-SHA256, under a key sealed in the store, of chain id (16 bytes), sequence number (8 bytes,
//! little-endian), the hash of the row before (32 bytes) and the canonical bytes of the record
//! (`canonical.rs`). So a row cannot be changed, removed, moved or renumbered without the key.
//!
//! # Reading a chain
//!
//! Every process that writes begins a chain of its own: an id, and rows with `seq` 1, 2, 3, .... Rows stand in the log in
//! order of `position`; within one chain that is the order of `seq`. Two chains may interleave while two processes hand over.
//! Row 1 of a chain is the admin act `audit.begin`; its `prev_hash` is the hash of the newest row of the chain before, which
//! its detail names (`predecessor`, `predecessor_seq`), or zeros for the first chain of a store.
//! The order of rows is that in which they were written down, which is about that in which exchanges ended.
//! Admin acts are linked in the transaction of the change itself; records of requests when the writer takes them out of the journal.
//! Rows from before there were chains have no link; they may only stand in front of the first row with one.
//!
//! To verify: make a [`Verifier`], tell it the [`Head`]s that are known from elsewhere ([`Verifier::expect`]: checkpoints, the
//! store's own note of its heads, what peers witnessed) and, where older rows were moved away, the
//! heads at which they end ([`Verifier::resume`]); push every row; [`finish`](Verifier::finish).
//!
//! What the hash cannot show is that the newest rows are missing: that is what expected heads are for. Where rows are kept is the store's.

mod verify;

use aws_lc_rs::hmac;
use uuid::Uuid;

use super::canonical;
use super::record::AuditRecord;

pub use verify::{Fault, Finding, Report, Verifier, verify};

/// A hash of the chain.
pub type ChainHash = [u8; 32];

/// What stands for the row before the first one of the first chain.
pub const NO_HASH: ChainHash = [0; 32];

/// The action of the first row of every chain.
pub const BEGIN_ACTION: &str = "audit.begin";
/// Detail of the first row: the chain before.
pub const PREDECESSOR: &str = "predecessor";
/// Detail of the first row: the newest row of the chain before.
pub const PREDECESSOR_SEQ: &str = "predecessor_seq";

/// Length of the key, bytes.
pub const CHAIN_KEY_LEN: usize = 32;

/// The end of a chain, or any place in it: the hash covers everything up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which chain.
    pub chain: Uuid,
    /// The row; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: ChainHash,
}

/// A row's place in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Which chain.
    pub chain: Uuid,
    /// Counts from 1 without a gap.
    pub seq: u64,
    /// Hash of the row before.
    pub prev_hash: ChainHash,
    /// Hash of this row.
    pub hash: ChainHash,
}

impl Link {
    /// This place.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head {
            chain: self.chain,
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// The key of the chains of one store.
pub struct ChainKey(hmac::Key);

impl ChainKey {
    /// A key from its bytes.
    #[must_use]
    pub fn new(bytes: &[u8; CHAIN_KEY_LEN]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The hash of a record at a place; `buffer` is overwritten.
    #[must_use]
    pub fn hash(
        &self,
        chain: Uuid,
        seq: u64,
        prev_hash: &ChainHash,
        record: &AuditRecord,
        buffer: &mut Vec<u8>,
    ) -> ChainHash {
        buffer.clear();
        buffer.extend_from_slice(chain.as_bytes());
        buffer.extend_from_slice(&seq.to_le_bytes());
        buffer.extend_from_slice(prev_hash);
        canonical::encode(record, buffer);
        let tag = hmac::sign(&self.0, buffer);
        let mut hash = NO_HASH;
        // HMAC-SHA256 has 32 bytes.
        for (to, from) in hash.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        hash
    }

    /// Puts a record behind `head`, which moves on to it.
    #[must_use]
    pub fn link(&self, head: &mut Head, record: &AuditRecord, buffer: &mut Vec<u8>) -> Link {
        let seq = head.seq.saturating_add(1);
        let link = Link {
            chain: head.chain,
            seq,
            prev_hash: head.hash,
            hash: self.hash(head.chain, seq, &head.hash, record, buffer),
        };
        *head = link.head();
        link
    }
}

impl std::fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainKey(..)")
    }
}

#[cfg(test)]
mod tests;
