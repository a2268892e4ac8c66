//! One row in a body given whole: what `get` asks for.
//!
//! Invariant: the output changes only when the whole body was sound and its row passed. Elsewhere on purpose: reading
//! the body (`reader.rs`), and what the answer says when there is no row to give.

use std::sync::Arc;

use super::envelope::{RowError, RowsAt};
use super::filter::RowFilter;
use super::reader::{RowReader, Step, Tally};

/// What became of the one row of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemVerdict {
    /// It passed and was appended to the output.
    Passed,
    /// It was withheld.
    Withheld,
    /// It may pass but is not what was asked for.
    Unmatched,
    /// The body says null where the row should be.
    Absent,
}

/// Filters a body that holds one row, given whole, and appends the row to `out` if it passes.
///
/// # Errors
/// [`RowError`] when the body is unsound; `out` is then as it was.
pub fn filter_one(
    filter: &Arc<RowFilter>,
    rows: RowsAt,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(ItemVerdict, Tally), RowError> {
    let mut reader = RowReader::new(Arc::clone(filter), rows);
    reader.push(body);
    reader.close();
    let begin = out.len();
    let mut verdict = ItemVerdict::Absent;
    loop {
        match reader.step(out) {
            Ok(Step::Row) => verdict = ItemVerdict::Passed,
            Ok(Step::Withheld) => verdict = ItemVerdict::Withheld,
            Ok(Step::Unmatched) => verdict = ItemVerdict::Unmatched,
            Ok(Step::End) => return Ok((verdict, reader.tally())),
            Ok(Step::NeedInput) => {}
            Err(error) => {
                out.truncate(begin);
                return Err(error);
            }
        }
    }
}
