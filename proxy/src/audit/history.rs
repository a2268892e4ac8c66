//! The history of a grant: its records in a hash chain of their own, which its peer can follow without learning of anybody else.
//!
//! Invariant: the hash of a place covers what the peer may know of the record there ([`canonical`]) and, through the hash
//! before it, of every earlier record of the grant; nothing of other grants, and nothing of this one that the peer is not to know,
//! is in it. It is not keyed: whoever has an export of the history can compute it, so the peer can hold an export against the
//! hashes it was shown.
//!
//! The history of a grant is one line for as long as the grant exists: `gseq` counts its records from 1, through all processes
//! that wrote them; the chain of a place is that of the process that wrote the record down, and is in the hash. Records
//! take their place where they are linked into the chain of the process, in the same transaction, so a request has its place
//! once it is over.
//!
//! `header.rs` is a place as an answer carries it, `publish.rs` what answers carry at the moment, `export.rs` a history as a file,
//! `reconcile.rs` the comparison of such a file with what the asking side has recorded itself.

pub mod export;
pub mod header;
mod publish;
pub mod reconcile;

use aws_lc_rs::digest::{SHA256, digest};
use policy::id::GrantId;
use uuid::Uuid;

use super::canonical;
use super::place::HistoryHead;
use super::record::{AuditRecord, Direction};

pub use header::{CheckpointHeader, HeaderSignature};
pub use publish::{HistoryCell, HistoryPublisher};

/// What a hash is over, besides the values.
const CONTEXT: &[u8] = b"mosaic-federation grant history v1\0";

impl HistoryHead {
    /// The place behind this one, of a record that `chain` writes down for `grant`; `buffer` is overwritten.
    #[must_use]
    pub fn next(
        &self,
        grant: GrantId,
        chain: Uuid,
        record: &AuditRecord,
        buffer: &mut Vec<u8>,
    ) -> Self {
        let gseq = self.gseq.saturating_add(1);
        buffer.clear();
        buffer.extend_from_slice(CONTEXT);
        buffer.extend_from_slice(grant.as_bytes());
        buffer.extend_from_slice(chain.as_bytes());
        buffer.extend_from_slice(&gseq.to_le_bytes());
        buffer.extend_from_slice(&self.ghash);
        canonical::encode_told(record, buffer);
        let mut ghash = [0; 32];
        for (to, from) in ghash.iter_mut().zip(digest(&SHA256, buffer).as_ref()) {
            *to = *from;
        }
        Self { chain, gseq, ghash }
    }
}

/// The grant whose history a record belongs to: requests of peers have one, acts and questions of this side have none.
#[must_use]
pub fn grant_of(record: &AuditRecord) -> Option<GrantId> {
    record
        .grant
        .filter(|_| record.direction == Direction::Inbound)
}

#[cfg(test)]
mod tests;
