//! The segments of the journal file: which hold what, where the next frame goes, which may be used again.
//!
//! Invariant: frames are numbered without a gap across segments; a segment is used again only when every frame in it
//! is in the database and no exchange that began in it is open. Pure bookkeeping: nothing here reads or writes.

use std::collections::VecDeque;

use uuid::Uuid;

/// Bytes of a segment's head.
pub(super) const HEAD: usize = 64;
/// Segments a journal is divided into.
pub(super) const SEGMENTS: u64 = 16;

const MAGIC: &[u8; 8] = b"MFAUDIT1";

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) journal: Uuid,
    pub(super) store: Uuid,
    /// Number of its first frame.
    pub(super) first: u64,
    pub(super) size: u64,
}

impl SegmentHead {
    pub(super) fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let parts: [&[u8]; 5] = [
            MAGIC,
            self.journal.as_bytes(),
            self.store.as_bytes(),
            &self.first.to_le_bytes(),
            &self.size.to_le_bytes(),
        ];
        let covered = parts.concat();
        let checksum = crc32fast::hash(&covered).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(covered.iter().chain(&checksum)) {
            *to = *from;
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (covered, rest) = bytes.split_at_checked(56)?;
        let checksum = u32::from_le_bytes(*rest.first_chunk()?);
        if crc32fast::hash(covered) != checksum {
            return None;
        }
        let (magic, rest) = covered.split_first_chunk::<8>()?;
        let (journal, rest) = rest.split_first_chunk::<16>()?;
        let (store, rest) = rest.split_first_chunk::<16>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        (magic == MAGIC).then_some(Self {
            journal: Uuid::from_bytes(*journal),
            store: Uuid::from_bytes(*store),
            first: u64::from_le_bytes(*first),
            size: u64::from_le_bytes(*rest.first_chunk()?),
        })
    }
}

/// A segment in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    /// Which part of the file.
    pub(super) slot: u64,
    /// Number of its first frame.
    pub(super) first: u64,
    /// Number behind its last frame.
    pub(super) next: u64,
    /// Bytes in use.
    pub(super) filled: u64,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset in the file.
    pub(super) offset: u64,
    /// The segment, by the number of its first frame.
    pub(super) segment: u64,
}

/// The segments in use, oldest first, and the free ones.
#[derive(Debug)]
pub(super) struct Segments {
    size: u64,
    live: VecDeque<Live>,
    free: VecDeque<u64>,
}

impl Segments {
    /// All free, each of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            live: VecDeque::new(),
            free: (0..SEGMENTS).collect(),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.size.saturating_mul(SEGMENTS)
    }

    /// Bytes that cannot be written to: whole segments but the newest, of which only what is filled.
    pub(super) fn used(&self) -> u64 {
        let older = u64::try_from(self.live.len().saturating_sub(1)).unwrap_or(u64::MAX);
        let newest = self.live.back().map_or(0, |segment| segment.filled);
        older.saturating_mul(self.size).saturating_add(newest)
    }

    /// The segment with frame `number`, or the one that will have it.
    pub(super) fn holding(&self, number: u64) -> Option<&Live> {
        self.live
            .iter()
            .rev()
            .find(|segment| segment.first <= number)
    }

    /// Offset of the segment in the file.
    pub(super) fn base(&self, slot: u64) -> u64 {
        slot.saturating_mul(self.size)
    }

    /// Where a frame of `size` bytes fits in the newest segment.
    pub(super) fn place(&self, size: u64) -> Option<Place> {
        let newest = self.live.back()?;
        let fits = newest.filled.saturating_add(size) <= self.size;
        fits.then(|| Place {
            offset: self.base(newest.slot).saturating_add(newest.filled),
            segment: newest.first,
        })
    }

    /// A frame of `size` bytes was written to its place.
    pub(super) fn wrote(&mut self, size: u64) {
        if let Some(newest) = self.live.back_mut() {
            newest.filled = newest.filled.saturating_add(size);
            newest.next = newest.next.saturating_add(1);
        }
    }

    /// The slot of the next segment, if one is free.
    pub(super) fn next_slot(&self) -> Option<u64> {
        self.free.front().copied()
    }

    /// The head of the next segment was written: frames go there from now on.
    pub(super) fn open(&mut self, first: u64) {
        if let Some(slot) = self.free.pop_front() {
            self.live.push_back(Live {
                slot,
                first,
                next: first,
                filled: u64::try_from(HEAD).unwrap_or(u64::MAX),
            });
        }
    }

    /// The oldest segment, when everything in it is written down (numbers up to `applied`) and it is not the newest.
    pub(super) fn oldest_applied(&self, applied: u64) -> Option<&Live> {
        let oldest = self.live.front()?;
        (self.live.len() > 1 && oldest.next <= applied.saturating_add(1)).then_some(oldest)
    }

    /// Gives the oldest segment back.
    pub(super) fn release_oldest(&mut self) {
        if let Some(segment) = self.live.pop_front() {
            self.free.push_back(segment.slot);
        }
    }
}
