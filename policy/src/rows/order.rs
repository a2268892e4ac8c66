//! The key of a row: when it was made, and its id. Rows are in descending order of it.
//!
//! Invariant: a key exists only for a row whose id is usable in a cursor and whose instant parses; nothing else of
//! the row is needed to go on after it. Elsewhere on purpose: comparing and sealing cursors (the proxy).

use crate::id::MAX_TEXT_ID;
use crate::time::parse_rfc3339_nanos;

use super::mark::{Kind, Mark};
use super::text;

/// Longest instant accepted, in bytes; a gateway is asked with it again.
const LONGEST_INSTANT: usize = 64;

/// Longest integer accepted as an id, in bytes; what 64 bits can hold fits.
const LONGEST_INTEGER: usize = 20;

/// The key of the row examined last. Order rows by `created_at_nanos`, then by the bytes of `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowKey<'a> {
    /// The instant as the gateway wrote it, unescaped; at most 64 bytes. For asking it again.
    pub created_at_raw: &'a str,
    /// The same instant in nanoseconds since the Unix epoch.
    pub created_at_nanos: i64,
    /// The id, unescaped; 1 to 256 bytes. Integers are given as their digits.
    pub id: &'a str,
}

/// Where a key lies in its row.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyMarks {
    pub(super) id: Mark,
    pub(super) created_at: Mark,
    pub(super) nanos: i64,
}

/// Checks the two values of a key; `None` when either is unsound.
#[inline]
pub(super) fn key_marks(row: &[u8], id: Mark, created_at: Mark) -> Option<KeyMarks> {
    let bytes = created_at.bytes(row);
    let nanos = match created_at.kind {
        Kind::Plain => instant(bytes)?,
        Kind::Escaped => instant(text::decode(bytes, true)?.as_bytes())?,
        Kind::Null | Kind::Integer | Kind::Other => return None,
    };
    let bytes = id.bytes(row);
    let sound = match id.kind {
        Kind::Plain => is_sound_id(bytes),
        Kind::Escaped => {
            let id = text::decode(bytes, true)?;
            is_sound_id(id.as_bytes()) && id.bytes().all(|byte| byte >= b' ')
        }
        // Minus zero is another spelling of zero, and two spellings are two ids.
        Kind::Integer => bytes.len() <= LONGEST_INTEGER && bytes != b"-0",
        Kind::Null | Kind::Other => false,
    };
    sound.then_some(KeyMarks {
        id,
        created_at,
        nanos,
    })
}

#[inline]
fn instant(text: &[u8]) -> Option<i64> {
    if text.len() > LONGEST_INSTANT {
        return None;
    }
    parse_rfc3339_nanos(text).ok()
}

#[inline]
const fn is_sound_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MAX_TEXT_ID
}

/// Whether a parsed instant is already written as `2026-01-02T03:04:05.678Z`.
#[inline]
pub(super) fn is_canonical(row: &[u8], instant: Mark) -> bool {
    let plain = instant.kind == Kind::Plain;
    let instant = instant.bytes(row);
    plain
        && instant.len() == 24
        && instant.get(19) == Some(&b'.')
        && instant.get(10) == Some(&b'T')
        && instant.last() == Some(&b'Z')
}

/// The key examined last, wherever its bytes are by now.
#[derive(Debug, Default)]
pub(super) enum LastKey {
    /// No row had a key so far.
    #[default]
    None,
    /// Still in the reader's buffer.
    Lying {
        row: (usize, usize),
        marks: KeyMarks,
    },
    /// Kept, because the buffer has moved on or the bytes had escapes.
    Kept {
        created_at: String,
        nanos: i64,
        id: String,
    },
}

impl LastKey {
    /// The instant alone.
    pub(super) const fn nanos(&self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Lying { marks, .. } => Some(marks.nanos),
            Self::Kept { nanos, .. } => Some(*nanos),
        }
    }

    /// The key of a row at `start..end` of the buffer.
    #[inline]
    pub(super) fn of(buffer: &[u8], start: usize, end: usize, marks: KeyMarks) -> Self {
        let lying = Self::Lying {
            row: (start, end),
            marks,
        };
        if marks.id.kind == Kind::Escaped || marks.created_at.kind == Kind::Escaped {
            return lying.kept(buffer);
        }
        lying
    }

    /// Takes the key out of the buffer.
    pub(super) fn kept(self, buffer: &[u8]) -> Self {
        let Self::Lying { row, marks } = self else {
            return self;
        };
        let row = buffer.get(row.0..row.1).unwrap_or_default();
        let text = |mark: Mark| text::decode(mark.bytes(row), mark.kind == Kind::Escaped);
        match (text(marks.created_at), text(marks.id)) {
            (Some(created_at), Some(id)) => Self::Kept {
                created_at: created_at.into_owned(),
                nanos: marks.nanos,
                id: id.into_owned(),
            },
            // Not reached: a key is made from checked text only.
            _ => Self::None,
        }
    }

    pub(super) fn read<'a>(&'a self, buffer: &'a [u8]) -> Option<RowKey<'a>> {
        match self {
            Self::None => None,
            Self::Lying { row, marks } => {
                let row = buffer.get(row.0..row.1)?;
                Some(RowKey {
                    created_at_raw: std::str::from_utf8(marks.created_at.bytes(row)).ok()?,
                    created_at_nanos: marks.nanos,
                    id: std::str::from_utf8(marks.id.bytes(row)).ok()?,
                })
            }
            Self::Kept {
                created_at,
                nanos,
                id,
            } => Some(RowKey {
                created_at_raw: created_at,
                created_at_nanos: *nanos,
                id,
            }),
        }
    }
}
