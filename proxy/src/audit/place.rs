//! A place in the history of a grant, as a value.
//!
//! Invariant: its bytes have one form. How places follow each other is `history.rs`.

use uuid::Uuid;

/// Length of a place as bytes.
const HEAD_LEN: usize = 16 + 8 + 32;

/// The end of a history, or any place in it: the hash covers everything up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryHead {
    /// The chain of the process that wrote the record down.
    pub chain: Uuid,
    /// Counts the records of the grant from 1; 0 before the first.
    pub gseq: u64,
    /// The hash.
    pub ghash: [u8; 32],
}

/// The place of a row, whose chain is that of its [`Link`](super::Link).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPlace {
    /// Counts the records of the grant from 1.
    pub gseq: u64,
    /// The hash.
    pub ghash: [u8; 32],
}

impl HistoryHead {
    /// Before the first record of a grant.
    pub const NONE: Self = Self {
        chain: Uuid::nil(),
        gseq: 0,
        ghash: [0; 32],
    };

    /// Without the chain.
    #[must_use]
    pub const fn place(&self) -> HistoryPlace {
        HistoryPlace {
            gseq: self.gseq,
            ghash: self.ghash,
        }
    }

    /// Chain, number (little-endian) and hash, 56 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEAD_LEN] {
        let mut bytes = [0; HEAD_LEN];
        let parts = [
            self.chain.as_bytes().as_slice(),
            &self.gseq.to_le_bytes(),
            &self.ghash,
        ];
        for (to, from) in bytes.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_LEN] = bytes.try_into().ok()?;
        let (chain, rest) = bytes.split_at_checked(16)?;
        let (gseq, ghash) = rest.split_at_checked(8)?;
        Some(Self {
            chain: Uuid::from_slice(chain).ok()?,
            gseq: u64::from_le_bytes(gseq.try_into().ok()?),
            ghash: ghash.try_into().ok()?,
        })
    }
}
