//! Audit: one record for every federated request and every admin act, in a journal first, then in the database, in a hash chain.
//!
//! Invariant: nothing is shown to a peer or a session that the journal does not know of; a request that cannot be journalled is
//! refused (or, with `audit.on_exhausted = "drop"`, counted). No record ever holds a body. Admin acts do
//! not pass the journal: the store writes and links them in the transaction of the change itself.
//!
//! `record.rs`, `detail.rs`, `text.rs` are the record, `canonical.rs` its bytes, `journal.rs` the path of every request, `sink.rs` the way into it,
//! `writer.rs` the task that empties it, `chain.rs` the hash chain, `checkpoint.rs` signed statements of its head, `history.rs` the records of one
//! grant as its peer may follow them, `archive.rs` where old rows go, `query.rs` reading back, `state.rs` how it is doing.
//! The guard that makes sure every request leaves exactly one record is with the inbound path on purpose.

pub mod archive;
pub mod canonical;
pub mod chain;
pub mod checkpoint;
mod detail;
pub mod export;
#[cfg(test)]
pub(crate) mod fixture;
pub mod history;
pub mod journal;
mod place;
mod query;
mod record;
mod sink;
mod span;
mod state;
mod text;
mod writer;

use async_trait::async_trait;
use policy::id::GrantId;
use policy::time::UnixMillis;
use uuid::{NoContext, Timestamp, Uuid};

use archive::{ColdError, ColdFile};
pub use chain::{Head, Link};
pub use detail::AuditDetail;
pub use journal::{AuditUnavailable, Journal, JournalSettings, OnExhausted};
pub use place::{HistoryHead, HistoryPlace};
pub use query::{AuditFilter, AuditRow, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};
pub use record::{AuditOutcome, AuditRecord, Direction};
pub use sink::{AuditSink, AuditSlot};
pub use state::{AuditState, AuditView};
pub use text::{AuditText, LONG_TEXT, SHORT_TEXT};
pub use writer::{AuditWriter, DrainError, WriterCounts, WriterSettings};

/// Why the log could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditLogError {
    /// The database cannot take or give rows at the moment; worth another try.
    #[error("the audit log is not available: {why}; check the disk and the database file")]
    Unavailable {
        /// The driver's message.
        why: String,
    },
    /// A stored row is not what this program writes.
    #[error("an audit row cannot be read: {why}; the log may have been edited by hand")]
    Corrupt {
        /// The column and the fault.
        why: String,
    },
    /// A file of the archive.
    #[error(transparent)]
    Cold(#[from] ColdError),
    /// The row to continue after does not exist.
    #[error("there is no audit record {id} to continue after; start again without it")]
    UnknownPosition {
        /// The id asked for.
        id: Uuid,
    },
}

/// How far a journal has been brought into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalMark {
    /// Which journal.
    pub journal: Uuid,
    /// Every record up to this frame is in the log.
    pub applied: u64,
}

impl JournalMark {
    /// The mark of a journal that has nothing more to give, ever.
    pub const CLOSED: u64 = u64::MAX >> 1;
}

/// Where records end up, and where they are read from.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes the records, in order, and links them into the chain of this process, in one transaction.
    /// With a mark, the transaction also notes it, and a call whose mark is not beyond the one noted does nothing:
    /// a batch may be tried again after a failure of unknown effect. Gives back how far the histories of grants have got
    /// that records were added to.
    async fn append_audit(
        &self,
        records: &[AuditRecord],
        mark: Option<JournalMark>,
    ) -> Result<Vec<(GrantId, HistoryHead)>, AuditLogError>;

    /// How far the history of a grant has got; `None` before its first record.
    async fn history_head(&self, grant: GrantId) -> Result<Option<HistoryHead>, AuditLogError>;

    /// The mark noted for a journal; 0 when there is none.
    async fn journal_applied(&self, journal: Uuid) -> Result<u64, AuditLogError>;

    /// The newest row of each chain, as the store notes it beside the rows, oldest chain first.
    async fn chain_heads(&self) -> Result<Vec<Head>, AuditLogError>;

    /// The rows that match, in the order they were written: with `after`, the first `limit` behind it, else
    /// the last `limit`, or with `oldest_first` the first.
    async fn query_audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, AuditLogError>;

    /// The first `limit` rows behind a position, in the order they were written: for verifying and exporting.
    async fn read_audit(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, AuditLogError>;

    /// The files that rows were moved into, in order. Their rows stand in front of those of the database.
    async fn cold_files(&self) -> Result<Vec<ColdFile>, AuditLogError>;

    /// The first file with rows behind a position.
    async fn next_cold_file(&self, after: i64) -> Result<Option<ColdFile>, AuditLogError>;

    /// Up to which position rows are to be moved: of the first `most` rows, those in front of the first one that is of `before` or later, as far as
    /// the last one that is older. A row from after `now` tells no time and goes with those around it, so a clock that
    /// was wrong holds nothing up. `None` when nothing is due.
    async fn due_for_archive(
        &self,
        before: UnixMillis,
        now: UnixMillis,
        most: u64,
    ) -> Result<Option<i64>, AuditLogError>;
}

/// A UUIDv7 of that time, for a record.
#[must_use]
pub fn record_id(at: UnixMillis) -> Uuid {
    let seconds = u64::try_from(at.0.div_euclid(1_000)).unwrap_or(0);
    let millis = u32::try_from(at.0.rem_euclid(1_000)).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(
        NoContext,
        seconds,
        millis.saturating_mul(1_000_000),
    ))
}
