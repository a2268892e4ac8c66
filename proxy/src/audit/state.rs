//! The state of the audit log, for readiness, `status`, `doctor` and metrics.
//!
//! Invariant: reading it changes nothing and waits for nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::archive::ArchiveCounts;
use super::checkpoint::CheckpointVerifier;
use super::journal::Journal;
use super::writer::WriterCounts;
use crate::telemetry::AuditFigures;

/// Tries that the database may fail before somebody should look.
const PATIENCE: u64 = 3;

/// The audit log of this process.
#[derive(Debug, Clone)]
pub struct AuditState {
    /// The journal.
    pub journal: Arc<Journal>,
    /// The writer.
    pub writer: Arc<WriterCounts>,
    /// The archive.
    pub archive: Arc<ArchiveCounts>,
    /// The public half of the key of checkpoints.
    pub checkpoint_key: CheckpointVerifier,
}

/// What `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditView {
    /// The chain of this process, which is also the name of its journal.
    pub chain: String,
    /// Records that the database does not have yet.
    pub waiting: u64,
    /// Used part of the journal, percent.
    pub journal_used_percent: u64,
    /// Size of the journal, bytes.
    pub journal_bytes: u64,
    /// What is wrong, if something is.
    pub trouble: Option<String>,
    /// Why old rows could not be moved into the archive, if they could not.
    pub archive_trouble: Option<String>,
    /// Ed25519 key of the checkpoints, hex: keep a copy elsewhere to check them with.
    pub checkpoint_key: String,
}

impl AuditState {
    /// Why requests are refused, or are answered unrecorded, at the moment.
    #[must_use]
    pub fn outage(&self) -> Option<String> {
        if let Some(why) = self.journal.failure() {
            return Some(format!("the journal is failing: {why}"));
        }
        self.journal.is_full().then(|| {
            format!(
                "the journal is full: {} records wait for the database",
                self.journal.depth()
            )
        })
    }

    /// What somebody should look at: an outage, or what becomes one.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let percent = self.percent();
        self.outage().or_else(|| {
            if self.writer.failing() > PATIENCE {
                Some(format!(
                    "the database has failed {} times in a row to take records; the journal is {percent} % full",
                    self.writer.failing()
                ))
            } else if self.journal.is_filling() {
                Some(format!("the journal is {percent} % full: the database does not keep up"))
            } else {
                None
            }
        })
    }

    fn percent(&self) -> u64 {
        self.journal
            .occupied()
            .saturating_mul(100)
            .checked_div(self.journal.capacity())
            .unwrap_or(0)
    }

    /// For `status`.
    #[must_use]
    pub fn view(&self) -> AuditView {
        AuditView {
            chain: self.journal.id().to_string(),
            waiting: self.journal.depth(),
            journal_used_percent: self.percent(),
            journal_bytes: self.journal.capacity(),
            trouble: self.trouble(),
            archive_trouble: self.archive.failing(),
            checkpoint_key: self.checkpoint_key.to_hex(),
        }
    }

    /// For the metrics.
    #[must_use]
    pub fn figures(&self) -> AuditFigures {
        let counts = self.journal.counts();
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        AuditFigures {
            depth: self.journal.depth(),
            used_bytes: self.journal.occupied(),
            size_bytes: self.journal.capacity(),
            written: self.writer.written(),
            last_written: self.writer.last_written(),
            write_failures: self.writer.failures(),
            journal_failures: read(&counts.write_failures),
            sync_failures: read(&counts.sync_failures),
            refused: read(&counts.refused),
            dropped: read(&counts.dropped),
            coalesced: read(&counts.coalesced),
            damaged: read(&counts.damaged),
            archived: self.archive.rows(),
            archive_failures: self.archive.failures(),
            archive_success: self.archive.last_success(),
        }
    }
}
