//! Chunks in, one row at a time out.
//!
//! Invariant: what comes out does not depend on how the body was cut into chunks, and [`Step::End`] comes only after
//! the whole body was read and found sound. Elsewhere on purpose: what lies around the rows (`envelope.rs`), the
//! grammar (`scan.rs`, `walk.rs`), what a row is and whether it passes (`filter.rs`).

use std::sync::Arc;

use super::envelope::{Envelope, Progress, RowError, RowsAt};
use super::filter::{Learnt, RowFilter, Verdict};
use super::input::Input;
use super::order::{LastKey, RowKey};
use super::walk::{Walk, Walker};
use super::write;

/// Largest row that can pass, in bytes; larger ones are withheld (specification, section 6.3).
pub const MAX_ROW: usize = 1 << 20;

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A row passed and was appended to the output, without a comma.
    Row,
    /// A row was withheld: it may not pass, or nothing sound can be said about it.
    Withheld,
    /// A row may pass but was not asked for.
    Unmatched,
    /// All input is used up: push more, or close.
    NeedInput,
    /// The body was complete and sound.
    End,
}

/// Counts of one body so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows looked at: passed, withheld and unmatched together.
    pub examined: u64,
    /// Rows that passed.
    pub passed: u64,
    /// Rows withheld. Non-zero means that the gateway sent more than it was asked for.
    pub withheld: u64,
    /// Rows skipped because they were not asked for.
    pub unmatched: u64,
    /// Rows withheld because they are larger than [`MAX_ROW`]; also counted in `withheld`.
    pub oversized: u64,
    /// Members removed by redaction from rows that passed, at any depth.
    pub redacted_members: u64,
}

#[derive(Debug)]
enum Phase {
    /// Before, after, or beside the rows.
    Around,
    /// After `[`: a row or `]`.
    FirstRow,
    /// Before a row.
    Row,
    /// In a row that is not whole yet; `walked` bytes of it are read, and none are done with.
    InRow {
        walker: Walker,
        walked: usize,
    },
    /// In a row too large to pass, which is dropped as it comes; its key counts once it has ended.
    InOversized {
        walker: Walker,
        key: LastKey,
    },
    /// After a row in the array.
    AfterRow,
    Failed(RowError),
}

/// Reads one body. Push chunks, step until [`Step::NeedInput`], close when there are no more.
///
/// It is sound to stop at any step; what was not examined is then not validated.
#[derive(Debug)]
pub struct RowReader {
    filter: Arc<RowFilter>,
    envelope: Envelope,
    single: bool,
    learnt: Learnt,
    input: Input,
    closed: bool,
    phase: Phase,
    key: LastKey,
    tally: Tally,
}

impl RowReader {
    /// A reader for one body.
    #[must_use]
    pub fn new(filter: Arc<RowFilter>, rows: RowsAt) -> Self {
        let learnt = filter.spare.take();
        Self {
            filter,
            envelope: Envelope::new(rows.path),
            single: rows.single,
            learnt,
            input: Input::default(),
            closed: false,
            phase: Phase::Around,
            key: LastKey::None,
            tally: Tally::default(),
        }
    }

    /// Takes the next chunk of the body. Call it after [`Step::NeedInput`], else chunks pile up in memory.
    pub fn push(&mut self, chunk: &[u8]) {
        self.key = std::mem::take(&mut self.key).kept(self.input.all());
        self.input.push(chunk);
    }

    /// Says that the body has ended.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// The key of the row examined last that had one; `None` before the first.
    #[must_use]
    pub fn key(&self) -> Option<RowKey<'_>> {
        self.key.read(self.input.all())
    }

    /// The instant of the row examined last that had a key, in nanoseconds since the Unix epoch: what
    /// [`RowReader::key`] would say, without looking at its texts.
    #[must_use]
    pub const fn key_nanos(&self) -> Option<i64> {
        self.key.nanos()
    }

    /// The counts so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Goes on to the next row, or to the end of the input. A row that passes is appended to `out`.
    ///
    /// # Errors
    /// [`RowError`] when the body is unsound; every later step says the same.
    #[inline]
    pub fn step(&mut self, out: &mut Vec<u8>) -> Result<Step, RowError> {
        loop {
            match self.advance(out) {
                Ok(None) => {}
                Ok(Some(step)) => return Ok(step),
                Err(error) => {
                    self.phase = Phase::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// One move; `Some` when there is something to say.
    #[inline]
    fn advance(&mut self, out: &mut Vec<u8>) -> Result<Option<Step>, RowError> {
        match self.phase {
            Phase::AfterRow | Phase::Row | Phase::FirstRow => {}
            Phase::Around => return self.around(),
            Phase::InRow { .. } => return self.walk_row(out),
            Phase::InOversized { .. } => return self.walk_oversized(),
            Phase::Failed(error) => return Err(error),
        }
        let Some(byte) = self.input.peek() else {
            return self.starved();
        };
        match (&self.phase, byte) {
            (Phase::AfterRow, b',') => {
                self.input.take(1);
                self.phase = Phase::Row;
            }
            (Phase::AfterRow | Phase::FirstRow, b']') => {
                self.input.take(1);
                self.envelope.value_ended();
                self.phase = Phase::Around;
            }
            (Phase::AfterRow, _) => {
                return Err(RowError::Malformed {
                    offset: self.input.offset(0),
                });
            }
            (_, b'{') => return self.row(out),
            _ => self.walk_from_here(),
        }
        Ok(None)
    }

    fn around(&mut self) -> Result<Option<Step>, RowError> {
        match self.envelope.advance(&mut self.input)? {
            Progress::Moved => Ok(None),
            Progress::Starved => self.starved(),
            Progress::Sound if self.closed => Ok(Some(Step::End)),
            Progress::Sound => Ok(Some(Step::NeedInput)),
            Progress::AtRows => {
                match (self.single, self.input.peek()) {
                    (true, Some(b'n')) => self.envelope.pass_value(),
                    (true, _) => self.phase = Phase::Row,
                    (false, Some(b'[')) => {
                        self.input.take(1);
                        self.phase = Phase::FirstRow;
                    }
                    (false, _) => return Err(RowError::NotRows),
                }
                Ok(None)
            }
        }
    }

    const fn starved(&self) -> Result<Option<Step>, RowError> {
        if self.closed {
            Err(RowError::Truncated)
        } else {
            Ok(Some(Step::NeedInput))
        }
    }

    /// Containers open around a row.
    fn depth(&self) -> u8 {
        let array = u8::from(!self.single);
        self.envelope.depth().saturating_add(array)
    }

    fn walk_from_here(&mut self) {
        self.phase = Phase::InRow {
            walker: Walker::new(self.depth()),
            walked: 0,
        };
    }

    /// An object begins; most often it lies whole in the input.
    #[inline]
    fn row(&mut self, out: &mut Vec<u8>) -> Result<Option<Step>, RowError> {
        let depth = self.depth();
        let rest = self.input.rest();
        let window = rest.get(..MAX_ROW).unwrap_or(rest);
        match self.learnt.scanner.scan(&self.filter.fields, window, depth) {
            Some(length) => Ok(Some(self.judge(length, out))),
            None => {
                self.walk_from_here();
                Ok(None)
            }
        }
    }

    fn walk_row(&mut self, out: &mut Vec<u8>) -> Result<Option<Step>, RowError> {
        let Phase::InRow { walker, walked } = &mut self.phase else {
            return Ok(None);
        };
        let unread = self.input.rest().get(*walked..).unwrap_or_default();
        match walker.walk(unread) {
            Err(fault) => Err(RowError::of(fault, &self.input, *walked)),
            Ok(Walk::More) => {
                *walked += unread.len();
                if *walked <= MAX_ROW {
                    return self.starved();
                }
                let walker = std::mem::replace(walker, Walker::new(0));
                let key = self.key_of_oversized();
                self.input.take_all();
                self.phase = Phase::InOversized { walker, key };
                Ok(None)
            }
            Ok(Walk::Done(length)) => {
                let length = *walked + length;
                self.whole_row(length, out).map(Some)
            }
        }
    }

    /// A row of `length` bytes was walked to its end.
    fn whole_row(&mut self, length: usize, out: &mut Vec<u8>) -> Result<Step, RowError> {
        if length > MAX_ROW {
            let key = self.key_of_oversized();
            self.input.take(length);
            return Ok(self.oversized(key));
        }
        let depth = self.depth();
        let row = self.input.rest().get(..length).unwrap_or_default();
        if row.first() != Some(&b'{') {
            // Not an object, so there is nothing it could pass by.
            self.input.take(length);
            self.row_ended();
            return Ok(self.tally.withhold());
        }
        if self.learnt.scanner.scan(&self.filter.fields, row, depth) != Some(length) {
            // The two readings of JSON disagree: fail closed.
            return Err(RowError::Malformed {
                offset: self.input.offset(0),
            });
        }
        Ok(self.judge(length, out))
    }

    fn walk_oversized(&mut self) -> Result<Option<Step>, RowError> {
        let Phase::InOversized { walker, key } = &mut self.phase else {
            return Ok(None);
        };
        match walker.walk(self.input.rest()) {
            Err(fault) => Err(RowError::of(fault, &self.input, 0)),
            Ok(Walk::More) => {
                self.input.take_all();
                self.starved()
            }
            Ok(Walk::Done(length)) => {
                self.input.take(length);
                let key = std::mem::take(key);
                Ok(Some(self.oversized(key)))
            }
        }
    }

    /// A row too large to pass still has its place in the order, when its key is in its first [`MAX_ROW`] bytes.
    fn key_of_oversized(&mut self) -> LastKey {
        let depth = self.depth();
        let (all, at) = (self.input.all(), self.input.at());
        let part = all.get(at..at + MAX_ROW).unwrap_or_default();
        self.learnt.scanner.scan(&self.filter.fields, part, depth);
        match self.filter.key(part, &self.learnt.scanner) {
            Some(marks) => LastKey::of(all, at, at + MAX_ROW, marks).kept(all),
            None => LastKey::None,
        }
    }

    /// Judges the row of `length` bytes that was just scanned.
    #[inline]
    fn judge(&mut self, length: usize, out: &mut Vec<u8>) -> Step {
        let (all, at) = (self.input.all(), self.input.at());
        let row = all.get(at..at + length).unwrap_or_default();
        let (verdict, key) = self
            .filter
            .judge(row, &self.learnt.scanner, &mut self.learnt.places);
        let step = match (verdict, key) {
            (Verdict::Pass, Some(key)) => {
                write::row(out, &self.filter.fields, row, &self.learnt.scanner, key);
                self.tally.redacted_members += self.learnt.scanner.redacted;
                self.tally.examined += 1;
                self.tally.passed += 1;
                Step::Row
            }
            (Verdict::Skip, _) => {
                self.tally.examined += 1;
                self.tally.unmatched += 1;
                Step::Unmatched
            }
            _ => self.tally.withhold(),
        };
        if let Some(key) = key {
            self.key = LastKey::of(all, at, at + length, key);
        }
        self.input.take(length);
        self.row_ended();
        step
    }

    fn row_ended(&mut self) {
        if self.single {
            self.envelope.value_ended();
            self.phase = Phase::Around;
        } else {
            self.phase = Phase::AfterRow;
        }
    }

    fn oversized(&mut self, key: LastKey) -> Step {
        if !matches!(key, LastKey::None) {
            self.key = key;
        }
        self.row_ended();
        self.tally.oversized += 1;
        self.tally.withhold()
    }
}

impl Drop for RowReader {
    fn drop(&mut self) {
        self.filter
            .spare
            .leave(std::mem::replace(&mut self.learnt, Learnt::nothing()));
    }
}

impl Tally {
    const fn withhold(&mut self) -> Step {
        self.examined += 1;
        self.withheld += 1;
        Step::Withheld
    }
}

#[cfg(test)]
impl RowReader {
    /// Bytes of the body in memory.
    pub(super) fn held(&self) -> usize {
        self.input.all().len()
    }
}
