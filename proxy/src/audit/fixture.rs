//! What tests of the audit log build on: a journal in a directory of their own, records, a log in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certs::Clock;
use certs::clock::SystemClock;
use parking_lot::Mutex;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::journal::{JOURNAL_BYTES_MIN, JournalSettings};
use super::*;

/// A writer on a small journal in a directory, on the current runtime.
pub(crate) fn writer_in(dir: &Path, log: Arc<dyn AuditLog>) -> (AuditSink, AuditWriter) {
    let settings = WriterSettings {
        gather: Duration::from_millis(10),
        ..WriterSettings::default()
    };
    let journal = Journal::create(&small(dir), Uuid::now_v7(), Uuid::nil(), clock()).unwrap();
    AuditWriter::start(log, journal, clock(), settings, None).unwrap()
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// A journal of one megabyte.
pub(crate) fn small(dir: &Path) -> JournalSettings {
    JournalSettings {
        bytes: JOURNAL_BYTES_MIN,
        ..JournalSettings::new(dir.join("audit"))
    }
}

/// A UUIDv7 from a small number.
pub(crate) fn id(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x018b_cfe5_6800_7000, 0x8000_0000_0000_0000 | n)
}

/// The n-th record of a request.
pub(crate) fn record(n: u64) -> AuditRecord {
    let request = AuditText::short(&id(n).to_string());
    let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
    let mut record = AuditRecord::new(id(n), UnixMillis(0), inbound, allowed, request);
    record.verb = Some(AuditText::fixed("list"));
    record.rows_returned = n;
    record
}

/// A log in memory that fails as often as it is told.
#[derive(Default)]
pub(crate) struct MemoryLog {
    pub(crate) failing: Mutex<u32>,
    /// Records whose id was there already.
    pub(crate) repeated: Mutex<u64>,
    records: Mutex<Vec<AuditRecord>>,
    known: Mutex<std::collections::HashSet<Uuid>>,
    marks: Mutex<std::collections::HashMap<Uuid, u64>>,
}

impl MemoryLog {
    pub(crate) fn written(&self) -> Vec<AuditRecord> {
        self.records.lock().clone()
    }

    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.records.lock().iter().map(|record| record.id).collect()
    }
}

#[async_trait]
impl AuditLog for MemoryLog {
    async fn append_audit(
        &self,
        records: &[AuditRecord],
        mark: Option<JournalMark>,
    ) -> Result<Vec<(GrantId, HistoryHead)>, AuditLogError> {
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            return Err(AuditLogError::Unavailable {
                why: "locked".to_owned(),
            });
        }
        if let Some(mark) = mark {
            let mut marks = self.marks.lock();
            let noted = marks.entry(mark.journal).or_default();
            if *noted >= mark.applied {
                return Ok(Vec::new());
            }
            *noted = mark.applied;
        }
        let mut written = self.records.lock();
        for record in records {
            // As a store does: an id that is there already is left as it is.
            if self.known.lock().insert(record.id) {
                written.push(record.clone());
            } else {
                *self.repeated.lock() += 1;
            }
        }
        Ok(Vec::new())
    }

    async fn history_head(&self, _: GrantId) -> Result<Option<HistoryHead>, AuditLogError> {
        Ok(None)
    }

    async fn journal_applied(&self, journal: Uuid) -> Result<u64, AuditLogError> {
        Ok(self.marks.lock().get(&journal).copied().unwrap_or(0))
    }

    async fn chain_heads(&self) -> Result<Vec<Head>, AuditLogError> {
        Ok(Vec::new())
    }

    async fn query_audit(&self, _: &AuditFilter) -> Result<Vec<AuditRow>, AuditLogError> {
        Ok(Vec::new())
    }

    async fn read_audit(&self, _: i64, _: u32) -> Result<Vec<AuditRow>, AuditLogError> {
        Ok(Vec::new())
    }

    async fn cold_files(&self) -> Result<Vec<ColdFile>, AuditLogError> {
        Ok(Vec::new())
    }

    async fn next_cold_file(&self, _: i64) -> Result<Option<ColdFile>, AuditLogError> {
        Ok(None)
    }

    async fn due_for_archive(
        &self,
        _: UnixMillis,
        _: UnixMillis,
        _: u64,
    ) -> Result<Option<i64>, AuditLogError> {
        Ok(None)
    }
}
