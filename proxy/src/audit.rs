//! Audit: one record for every federated request and every admin act.
//!
//! Invariant: a request whose record cannot be queued is refused, so nothing is answered that is not recorded;
//! no record ever holds a body. Records of admin acts do not pass the queue: the store writes them in the
//! transaction of the change itself.
//!
//! `record.rs` and `detail.rs` are the record, `query.rs` reading back, `writer.rs` the queue and its task. The guard that makes sure
//! every request submits exactly one record is with the inbound path on purpose.

mod detail;
mod query;
mod record;
mod text;
mod writer;

use async_trait::async_trait;

pub use detail::AuditDetail;
pub use query::{AuditFilter, AuditRow, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};
pub use record::{AuditOutcome, AuditRecord, Direction};
pub use text::{AuditText, LONG_TEXT, SHORT_TEXT};
pub use writer::{
    AuditFull, AuditGauges, AuditSink, AuditSlot, AuditWriter, DrainError, QUEUE_DEFAULT,
    WriterSettings,
};

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
    /// The row to continue after does not exist.
    #[error("there is no audit record {id} to continue after; start again without it")]
    UnknownPosition {
        /// The id asked for.
        id: uuid::Uuid,
    },
}

/// Where records end up, and where they are read from.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes the records, in order, in one transaction. A record whose id is already there is left as it is,
    /// so a batch may be tried again after a failure of unknown effect.
    async fn append_audit(&self, records: &[AuditRecord]) -> Result<(), AuditLogError>;

    /// The rows that match, in the order they were written: with `after`, the first `limit` behind it, else
    /// the last `limit`.
    async fn query_audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, AuditLogError>;
}
