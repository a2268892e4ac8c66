//! Reading the journal for the writer, behind those who write it.
//!
//! Invariant: records come in the order of their numbers, each once per cursor; what was taken is not counted into any more.
//! Only a short look at the bookkeeping is under the lock, never the reading.

use std::sync::atomic::Ordering;

use super::super::canonical;
use super::super::record::AuditRecord;
use super::Journal;
use super::frame::{self, FrameKind, Step};
use super::segment::HEAD;

/// Bytes read at one time; longer than any frame.
const CHUNK: u64 = 1024 * 1024;

/// Where the writer has got to.
#[derive(Debug, Default)]
pub(in super::super) struct Cursor {
    /// The next frame.
    number: u64,
    /// The segment it is in, by the number of that one's first frame.
    segment: u64,
    /// Offset within the segment.
    offset: u64,
    buffer: Vec<u8>,
}

/// What the writer took.
#[derive(Debug, Default)]
pub(in super::super) struct Taken {
    /// Records of exchanges and acts that are over, in order.
    pub(in super::super) records: Vec<AuditRecord>,
    /// The last frame taken; 0 when there was none.
    pub(in super::super) upto: u64,
    /// More was there than is taken at one time.
    pub(in super::super) more: bool,
}

/// What there is to read.
struct Range {
    at: u64,
    length: u64,
    /// Number behind the last frame of the segment as it is now.
    next: u64,
    /// Where that frame ends, from the beginning of the segment.
    end: u64,
}

impl Journal {
    /// Takes what was written since, of at most about [`CHUNK`] bytes. Empty: the writer is woken by the next write.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in super::super) fn take(&self, cursor: &mut Cursor) -> std::io::Result<Taken> {
        let mut taken = Taken::default();
        let Some(range) = self.range(cursor) else {
            return Ok(taken);
        };
        let length = usize::try_from(range.length).unwrap_or(0);
        cursor.buffer.resize(length, 0);
        self.file.read_exact_at(&mut cursor.buffer, range.at)?;
        let mut rest = cursor.buffer.as_slice();
        while cursor.number < range.next {
            let size = match frame::read(rest, cursor.number) {
                Step::Frame {
                    kind,
                    payload,
                    size,
                } => {
                    if kind == FrameKind::Outcome {
                        self.decoded(payload, &mut taken);
                    }
                    size
                }
                Step::Damaged { size } => {
                    self.damaged(1);
                    size
                }
                Step::End => break,
            };
            taken.upto = cursor.number;
            cursor.number = cursor.number.saturating_add(1);
            cursor.offset = cursor
                .offset
                .saturating_add(u64::try_from(size).unwrap_or(0));
            rest = rest.get(size..).unwrap_or_default();
        }
        if taken.upto == 0 {
            // What was written does not read back: where the next frame begins is not known.
            self.damaged(range.next.saturating_sub(cursor.number));
            taken.upto = range.next.saturating_sub(1);
            cursor.number = range.next;
            cursor.offset = range.end;
        }
        taken.more = cursor.number < range.next;
        Ok(taken)
    }

    fn decoded(&self, payload: &[u8], taken: &mut Taken) {
        match canonical::decode(payload) {
            Ok(record) => taken.records.push(record),
            Err(error) => {
                tracing::error!(%error, "a record of the audit journal cannot be read");
                self.damaged(1);
            }
        }
    }

    fn damaged(&self, frames: u64) {
        tracing::error!(frames, path = %self.path.display(), "the audit journal is damaged");
        self.counts.damaged.fetch_add(frames, Ordering::Relaxed);
    }

    /// What there is to read at the cursor, which moves on to the next segment where one is at its end.
    fn range(&self, cursor: &mut Cursor) -> Option<Range> {
        let mut state = self.state.lock();
        cursor.number = cursor.number.max(1);
        if cursor.number >= state.next {
            state.drained = true;
            return None;
        }
        let segment = *state.segments.holding(cursor.number)?;
        if cursor.segment != segment.first {
            cursor.segment = segment.first;
            cursor.offset = u64::try_from(HEAD).unwrap_or(0);
        }
        state.counted.close();
        let left = segment.filled.saturating_sub(cursor.offset);
        Some(Range {
            at: state
                .segments
                .base(segment.slot)
                .saturating_add(cursor.offset),
            length: left.min(CHUNK),
            next: segment.next,
            end: segment.filled,
        })
    }

    /// Waits until there is something to take.
    pub(in super::super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The database has every record up to this frame: their space may be used again.
    pub(in super::super) fn applied(&self, upto: u64) {
        let mut state = self.state.lock();
        state.applied = state.applied.max(upto);
        self.counts.applied.store(state.applied, Ordering::Relaxed);
        while let Some(oldest) = state.segments.oldest_applied(state.applied).copied() {
            let open = state.open.in_segment(oldest.first);
            if !open.is_empty() {
                if !self.is_filling() {
                    break;
                }
                // Exchanges that go on for long do not hold the space of those that ended.
                for index in open {
                    let Some(payload) = state.open.payload(index) else {
                        continue;
                    };
                    let Ok(place) = self.append(&mut state, FrameKind::Intent, &payload) else {
                        return;
                    };
                    state.open.moved(index, place);
                }
            }
            state.segments.release_oldest();
            self.used.store(state.segments.used(), Ordering::Relaxed);
        }
    }

    /// Whether the database has everything that was written, and nothing is owed.
    #[must_use]
    pub(in super::super) fn is_written_down(&self) -> bool {
        let state = self.state.lock();
        state.owed.is_empty() && state.applied.saturating_add(1) >= state.next
    }
}
