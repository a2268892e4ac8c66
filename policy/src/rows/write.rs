//! Writing a row that passes: what the sidecar adds, and the members that stay.
//!
//! Invariant: the output is one JSON object that begins with `_source`, has `id` and `createdAt` exactly once, and
//! otherwise holds the bytes of the gateway with whole members left out. Elsewhere on purpose: which members go
//! (`scan.rs`), and the commas between rows (the caller).

use crate::time::UnixMillis;

use super::fields::Fields;
use super::mark::{Kind, Mark};
use super::order::{KeyMarks, is_canonical};
use super::scan::Scanner;

const SOURCE: &[u8] = br#"{"_source":"local""#;
const SOURCE_AND_MORE: &[u8] = br#"{"_source":"local","#;

/// Appends the row `row`, from which `found` and `key` were taken, to `out`.
#[inline]
pub(super) fn row(out: &mut Vec<u8>, fields: &Fields, row: &[u8], found: &Scanner, key: KeyMarks) {
    let as_it_is = found.cuts.is_empty()
        && key.id.kind != Kind::Integer
        && is_canonical(row, key.created_at)
        && !fields.renamed();
    if as_it_is {
        out.extend_from_slice(SOURCE_AND_MORE);
        out.extend_from_slice(row.get(found.first..).unwrap_or_default());
    } else {
        piecewise(out, fields, row, found, key);
    }
}

#[cold]
fn piecewise(out: &mut Vec<u8>, fields: &Fields, row: &[u8], found: &Scanner, key: KeyMarks) {
    out.extend_from_slice(SOURCE);
    let mut changes: Vec<Change> = found
        .cuts
        .iter()
        .map(|cut| Change {
            start: cut.start,
            end: cut.end,
            with: Text::Nothing,
        })
        .collect();
    if fields.id_renamed() {
        out.extend_from_slice(br#","id":"#);
        Text::Id(key.id).write(out, row, key);
    } else if key.id.kind == Kind::Integer {
        changes.push(Change::of(key.id, Text::Id(key.id)));
    }
    if fields.created_at_renamed() {
        out.extend_from_slice(br#","createdAt":"#);
        Text::Instant.write(out, row, key);
    } else if !is_canonical(row, key.created_at) {
        changes.push(Change::of(key.created_at, Text::Instant));
    }
    changes.sort_unstable_by_key(|change| change.start);
    if found.keeps_any {
        out.push(b',');
    }
    let mut from = found.first;
    for change in changes {
        out.extend_from_slice(row.get(from..change.start).unwrap_or_default());
        change.with.write(out, row, key);
        from = change.end;
    }
    out.extend_from_slice(row.get(from..).unwrap_or_default());
}

/// A stretch of the row and what is written instead.
struct Change {
    start: usize,
    end: usize,
    with: Text,
}

impl Change {
    fn of(value: Mark, with: Text) -> Self {
        Self {
            start: value.before(),
            end: value.after(),
            with,
        }
    }
}

#[derive(Clone, Copy)]
enum Text {
    Nothing,
    /// The id as a string, whatever it was.
    Id(Mark),
    /// The instant of creation, in UTC to the millisecond.
    Instant,
}

impl Text {
    fn write(self, out: &mut Vec<u8>, row: &[u8], key: KeyMarks) {
        let instant;
        let text: &[u8] = match self {
            Self::Nothing => return,
            // Already checked and, if need be, escaped by the gateway.
            Self::Id(mark) => mark.bytes(row),
            Self::Instant => {
                instant = UnixMillis::from_nanos(key.nanos).rfc3339();
                instant.as_bytes()
            }
        };
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
}
