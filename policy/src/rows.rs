//! Gateway answers as a stream of rows: only what the permit lets through, redacted, in the gateway's order.
//!
//! Invariant: a row leaves only if a [`RowFilter`], which only a permit can make, let it pass; every byte examined is
//! strict JSON (RFC 8259) in UTF-8; a body that is malformed or cut short never reads as a complete one. Memory is
//! bounded by the largest row and the largest chunk, whatever the size of the answer.
//! Elsewhere on purpose: asking the gateway, the commas and the envelope around rows, cursors, and what a non-zero
//! count of withheld rows sets off.
//!
//! | file | what |
//! |---|---|
//! | `reader.rs`, `item.rs`, `envelope.rs`, `input.rs` | chunks in, one row at a time out; what lies around the rows |
//! | `scan.rs`, `mark.rs`, `predict.rs`, `lanes.rs`, `text.rs` | one pass over a row that lies whole in memory |
//! | `walk.rs` | strict JSON, resumable at any byte: everything else, and the last word on what is malformed |
//! | `filter.rs`, `ownership.rs`, `order.rs` | what may pass, and by which key the rows are ordered |
//! | `fields.rs`, `redact.rs`, `words.rs` | which names matter, which members go, which names say secret |
//! | `write.rs` | the row that leaves |
//! | `memo.rs` | answers that come again in every row |

mod envelope;
mod fields;
pub mod filter;
mod input;
pub mod item;
mod lanes;
mod mark;
mod memo;
pub mod order;
mod ownership;
mod predict;
pub mod reader;
pub mod redact;
mod scan;
mod text;
mod walk;
pub mod words;
mod write;

#[cfg(test)]
mod tests;

pub use envelope::{RowError, RowsAt};
pub use filter::{FilterError, RowFilter, RowMatch};
pub use item::{ItemVerdict, filter_one};
pub use order::RowKey;
pub use reader::{MAX_ROW, RowReader, Step, Tally};
pub use redact::{Redaction, RedactionError};
