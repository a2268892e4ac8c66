//! A peer's answer, read as a stream and written anew with every row tagged as that peer's.
//!
//! Invariant: a peer's answer is untrusted input. What comes out is our own envelope around rows that were each
//! checked and rewritten; nothing of the peer's envelope is copied but `nextCursor`, `_partial` and `_truncated`,
//! by type. A malformed, truncated or oversized answer is a fault, never a shorter answer that looks whole.
//! Memory is bounded by the largest row, not by the answer.
//!
//! The rewriting of one row is in `rewrite.rs`; what becomes of a fault is decided by `relay.rs`.

use super::extent::{Extent, TooDeep};
use super::hit::rewrite_hit;
use super::rewrite::{RowFault, rewrite_object};

/// Bounds on an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// The whole answer, bytes.
    pub total: u64,
    /// One row, bytes.
    pub row: usize,
    /// Rows.
    pub rows: u64,
    /// Nesting of a row.
    pub depth: usize,
    /// Everything that is not a row, each member, bytes.
    pub member: usize,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self {
            total: 64 * 1024 * 1024,
            // The serving side withholds rows over 1 MiB.
            row: 2 * 1024 * 1024,
            // The largest limit of the wire protocol.
            rows: 10_000,
            depth: 64,
            member: 64 * 1024,
        }
    }
}

/// What is wrong with an answer. No variant quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// Not the JSON that this verb is answered with.
    #[error("it is not the JSON that this verb is answered with")]
    Malformed,
    /// It ended too early.
    #[error("it ended too early")]
    Truncated,
    /// The whole, a row or another member is too large.
    #[error("it is larger than is accepted")]
    TooLarge,
    /// It has more rows than any question may ask for.
    #[error("it has more rows than any question may ask for")]
    TooManyRows,
    /// It is nested too deep.
    #[error("it is nested too deep")]
    TooDeep,
}

impl From<RowFault> for AnswerFault {
    fn from(_: RowFault) -> Self {
        Self::Malformed
    }
}

impl From<TooDeep> for AnswerFault {
    fn from(_: TooDeep) -> Self {
        Self::TooDeep
    }
}

/// The form of an answer, by verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"items":[row...],...}`.
    Items,
    /// `{"item":row}`.
    Item,
    /// `{"items":[{"resource","item":row,"score"}...],...}`.
    Hits,
    /// One object without rows (capabilities).
    Plain,
}

/// Where in the answer the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Member { first: bool },
    Colon(Member),
    Value(Member),
    AfterMember,
    Rows,
    Row { first: bool },
    AfterRow,
    End,
}

/// The members that are known; everything else is checked and left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Items,
    Item,
    NextCursor,
    Partial,
    Truncated,
    Other,
}

/// Reads an answer in pieces and writes it anew.
pub struct Retagger {
    shape: Shape,
    source: String,
    limits: AnswerLimits,
    at: At,
    /// What was read and is not yet consumed.
    pending: Vec<u8>,
    extent: Extent,
    read: u64,
    rows: u64,
    /// Where in the output the source of each row ends.
    marks: Vec<usize>,
    seen: Vec<Member>,
    next_cursor: Option<String>,
    partial: bool,
    truncated: bool,
}

impl Retagger {
    /// A reader of an answer of that shape, from the peer with the local name `source`.
    #[must_use]
    pub fn new(shape: Shape, source: &str, limits: AnswerLimits) -> Self {
        Self {
            shape,
            source: source.to_owned(),
            limits,
            at: At::Start,
            pending: Vec::new(),
            extent: Extent::default(),
            read: 0,
            rows: 0,
            marks: Vec::new(),
            seen: Vec::new(),
            next_cursor: None,
            partial: false,
            truncated: false,
        }
    }

    /// Rows written so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Where the source of each row ends, counted in all of the output so far: where more may be said of the row.
    #[must_use]
    pub fn marks(&self) -> &[usize] {
        &self.marks
    }

    /// Reads the next piece and appends to `out` what is certain by then.
    ///
    /// # Errors
    /// [`AnswerFault`]; the answer is then over.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        self.read = self
            .read
            .saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if self.read > self.limits.total {
            return Err(AnswerFault::TooLarge);
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(piece);
        let mut consumed = 0_usize;
        while let Some(rest) = pending.get(consumed..) {
            let Some(used) = self.step(rest, out)? else {
                break;
            };
            consumed = consumed.saturating_add(used);
        }
        pending.drain(..consumed.min(pending.len()));
        self.pending = pending;
        Ok(())
    }

    /// Says that the answer has ended, and appends the rest.
    ///
    /// # Errors
    /// [`AnswerFault::Truncated`] when it ended too early, [`AnswerFault::Malformed`] when it lacks its rows.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        if self.at != At::End {
            return Err(AnswerFault::Truncated);
        }
        match self.shape {
            Shape::Plain => {}
            Shape::Item if self.seen.contains(&Member::Item) => out.push(b'}'),
            Shape::Items | Shape::Hits if self.seen.contains(&Member::Items) => {
                if let Some(cursor) = &self.next_cursor {
                    out.extend_from_slice(b",\"nextCursor\":");
                    serde_json::to_writer(&mut *out, cursor).map_err(|_| AnswerFault::Malformed)?;
                }
                let flags = format!(
                    ",\"_partial\":{},\"_truncated\":{}}}",
                    self.partial, self.truncated
                );
                out.extend_from_slice(flags.as_bytes());
            }
            Shape::Item | Shape::Items | Shape::Hits => return Err(AnswerFault::Malformed),
        }
        Ok(())
    }

    /// Consumes one unit at the start of `bytes`: its length, or `None` when more input is needed.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, AnswerFault> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let spaces = bytes.iter().take_while(|byte| blank(byte)).count();
        if spaces > 0 && !self.extent.is_begun() {
            return Ok(Some(spaces));
        }
        let Some(first) = bytes.first().copied() else {
            return Ok(None);
        };
        match (self.at, first) {
            (At::Start, b'{') if self.shape == Shape::Plain => self.plain(bytes, out),
            (At::Start, b'{') => self.mark(At::Member { first: true }),
            (At::Member { first: true } | At::AfterMember, b'}') => self.mark(At::End),
            (At::Member { .. }, b'"') => self.name(bytes),
            (At::Colon(member), b':') => match member {
                Member::Items if matches!(self.shape, Shape::Items | Shape::Hits) => {
                    self.mark(At::Rows)
                }
                member => self.mark(At::Value(member)),
            },
            (At::Value(Member::Item), _) if self.shape == Shape::Item => self.item(bytes, out),
            (At::Value(member), _) => self.other(member, bytes),
            (At::AfterMember, b',') => self.mark(At::Member { first: false }),
            (At::Rows, b'[') => {
                out.extend_from_slice(b"{\"items\":[");
                self.mark(At::Row { first: true })
            }
            (At::Row { first: true } | At::AfterRow, b']') => {
                out.push(b']');
                self.mark(At::AfterMember)
            }
            (At::Row { first }, _) => self.row(first, bytes, out),
            (At::AfterRow, b',') => self.mark(At::Row { first: false }),
            (
                At::Start
                | At::Member { .. }
                | At::Colon(_)
                | At::AfterMember
                | At::Rows
                | At::AfterRow
                | At::End,
                _,
            ) => Err(AnswerFault::Malformed),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "the common shape of every step")]
    fn mark(&mut self, next: At) -> Result<Option<usize>, AnswerFault> {
        self.at = next;
        Ok(Some(1))
    }

    /// The complete value at the start of `bytes`, if it is there and within `limit`.
    fn complete<'a>(
        &mut self,
        bytes: &'a [u8],
        limit: usize,
    ) -> Result<Option<&'a [u8]>, AnswerFault> {
        // One level for the envelope of a plain answer, one for the row itself.
        let found = self.extent.advance(bytes, self.limits.depth)?;
        if found.unwrap_or(bytes.len()) > limit {
            return Err(AnswerFault::TooLarge);
        }
        if found.is_some() {
            self.extent = Extent::default();
        }
        Ok(found.and_then(|len| bytes.get(..len)))
    }

    fn name(&mut self, bytes: &[u8]) -> Result<Option<usize>, AnswerFault> {
        let Some(text) = self.complete(bytes, self.limits.member)? else {
            return Ok(None);
        };
        let name: String = serde_json::from_slice(text).map_err(|_| AnswerFault::Malformed)?;
        let member = match name.as_str() {
            "items" => Member::Items,
            "item" => Member::Item,
            "nextCursor" => Member::NextCursor,
            "_partial" => Member::Partial,
            "_truncated" => Member::Truncated,
            _ => Member::Other,
        };
        if member != Member::Other && self.seen.contains(&member) {
            return Err(AnswerFault::Malformed);
        }
        self.seen.push(member);
        if self.seen.len() > 64 {
            return Err(AnswerFault::Malformed);
        }
        self.at = At::Colon(member);
        Ok(Some(text.len()))
    }

    fn row(
        &mut self,
        first: bool,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, AnswerFault> {
        let Some(row) = self.complete(bytes, self.limits.row)? else {
            return Ok(None);
        };
        self.rows = self.rows.saturating_add(1);
        if self.rows > self.limits.rows {
            return Err(AnswerFault::TooManyRows);
        }
        if !first {
            out.push(b',');
        }
        let at = out.len();
        match self.shape {
            // A search is never kept, so nothing is ever marked in it.
            Shape::Hits => rewrite_hit(row, &self.source, out)?,
            _ => {
                rewrite_object(row, Some(&self.source), out)?;
                self.mark_source(at);
            }
        }
        self.at = At::AfterRow;
        Ok(Some(row.len()))
    }

    fn item(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, AnswerFault> {
        let Some(row) = self.complete(bytes, self.limits.row)? else {
            return Ok(None);
        };
        out.extend_from_slice(b"{\"item\":");
        let at = out.len();
        rewrite_object(row, Some(&self.source), out)?;
        self.mark_source(at);
        self.rows = 1;
        self.at = At::AfterMember;
        Ok(Some(row.len()))
    }

    /// Notes where the source of the row at `at` ends.
    fn mark_source(&mut self, at: usize) {
        // `{"_source":` and the name with its quotes; a name of ours needs no escapes.
        let length = self.source.len().saturating_add(13);
        self.marks.push(at.saturating_add(length));
    }

    fn plain(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, AnswerFault> {
        let Some(object) = self.complete(bytes, self.limits.member)? else {
            return Ok(None);
        };
        rewrite_object(object, None, out)?;
        self.at = At::End;
        Ok(Some(object.len()))
    }

    fn other(&mut self, member: Member, bytes: &[u8]) -> Result<Option<usize>, AnswerFault> {
        let Some(value) = self.complete(bytes, self.limits.member)? else {
            return Ok(None);
        };
        let flag = || serde_json::from_slice(value).map_err(|_| AnswerFault::Malformed);
        match member {
            Member::Partial => self.partial = flag()?,
            Member::Truncated => self.truncated = flag()?,
            Member::NextCursor => {
                self.next_cursor =
                    serde_json::from_slice(value).map_err(|_| AnswerFault::Malformed)?;
            }
            Member::Items | Member::Item | Member::Other => {
                serde_json::from_slice::<serde::de::IgnoredAny>(value)
                    .map_err(|_| AnswerFault::Malformed)?;
            }
        }
        self.at = At::AfterMember;
        Ok(Some(value.len()))
    }
}

#[cfg(test)]
mod tests;
