//! The task that brings records from the journal into the database.
//!
//! Invariant: records are written in the order of the journal, each batch in one transaction together with the note of how far
//! the database has got; so ending at any point loses and repeats nothing. When the database fails, the same batch is tried again for
//! ever; the journal fills, and requests are refused. Nothing here is on the path of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use certs::Clock;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::history::HistoryPublisher;
use super::journal::{Cursor, Journal, Taken};
use super::sink::AuditSink;
use super::{AuditLog, AuditLogError, JournalMark};

/// How the writer gathers and retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterSettings {
    /// How long the first record of a batch waits for company.
    pub gather: Duration,
    /// First pause after a failure; doubled for each further one.
    pub retry_first: Duration,
    /// Longest pause between tries.
    pub retry_longest: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(50),
            retry_first: Duration::from_millis(10),
            retry_longest: Duration::from_secs(1),
        }
    }
}

/// Numbers of the writer, for telemetry. Each is exact; together they are not one instant.
#[derive(Debug, Default)]
pub struct WriterCounts {
    written: AtomicU64,
    failures: AtomicU64,
    failing: AtomicU64,
    last_written: AtomicI64,
}

impl WriterCounts {
    /// Records written since the start.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Failed tries since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Failed tries since the last that succeeded.
    #[must_use]
    pub fn failing(&self) -> u64 {
        self.failing.load(Ordering::Relaxed)
    }

    /// When a batch was last written, milliseconds since the epoch; 0 before the first.
    #[must_use]
    pub fn last_written(&self) -> i64 {
        self.last_written.load(Ordering::Relaxed)
    }
}

/// The end came before the database had everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{left} audit records were not written into the database before the deadline: they are in the journal, and the next start writes them; check the disk and the database file"
)]
pub struct DrainError {
    /// How many.
    pub left: u64,
}

/// The writer task and the thread of its journal.
#[derive(Debug)]
pub struct AuditWriter {
    journal: Arc<Journal>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    syncing: Option<std::thread::JoinHandle<()>>,
    counts: Arc<WriterCounts>,
}

impl AuditWriter {
    /// Starts the task on the current runtime, and the thread that syncs the journal. What is written is told to `histories`.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        log: Arc<dyn AuditLog>,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        settings: WriterSettings,
        histories: Option<Arc<HistoryPublisher>>,
    ) -> std::io::Result<(AuditSink, Self)> {
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(WriterCounts::default());
        let syncing = journal.start_syncing()?;
        let emptying = Emptying {
            log,
            journal: Arc::clone(&journal),
            stopped,
            settings,
            clock,
            counts: Arc::clone(&counts),
            histories,
        };
        let writer = Self {
            journal: Arc::clone(&journal),
            stop,
            task: Some(tokio::spawn(emptying.run())),
            syncing: Some(syncing),
            counts,
        };
        Ok((AuditSink::new(journal), writer))
    }

    /// The numbers of the writer.
    #[must_use]
    pub fn counts(&self) -> Arc<WriterCounts> {
        Arc::clone(&self.counts)
    }

    /// Takes no further exchange, waits for those under way, and writes everything into the database, for at most `deadline`.
    /// When all is written the journal's file is removed.
    ///
    /// # Errors
    /// [`DrainError`]: the rest is in the journal.
    pub async fn drain(mut self, deadline: Duration) -> Result<(), DrainError> {
        self.stop.send_replace(true);
        let Some(mut task) = self.task.take() else {
            return Ok(());
        };
        let ended = tokio::time::timeout(deadline, &mut task).await.is_ok();
        if !ended {
            task.abort();
            let _ = task.await;
        }
        self.end_syncing().await;
        if self.journal.is_written_down() && ended {
            let path = self.journal.path();
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, path = %path.display(), "an empty audit journal could not be removed");
            }
            return Ok(());
        }
        Err(DrainError {
            left: self.journal.depth(),
        })
    }

    async fn end_syncing(&mut self) {
        self.journal.stop();
        if let Some(thread) = self.syncing.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.journal.stop();
    }
}

struct Emptying {
    log: Arc<dyn AuditLog>,
    journal: Arc<Journal>,
    stopped: watch::Receiver<bool>,
    settings: WriterSettings,
    clock: Arc<dyn Clock>,
    counts: Arc<WriterCounts>,
    histories: Option<Arc<HistoryPublisher>>,
}

/// Between two looks whether the last exchange has ended.
const STOP_POLL: Duration = Duration::from_millis(5);

impl Emptying {
    async fn run(mut self) {
        let mut cursor = Cursor::default();
        loop {
            let stopping = self.is_stopping();
            let taken = self.take(&mut cursor).await;
            if taken.upto > 0 {
                let more = taken.more;
                self.write(taken).await;
                // A transaction for each few rows would cost more than the rows: those that came meanwhile wait for company too.
                if !more && !stopping {
                    self.gather().await;
                }
            } else if !stopping {
                self.filled().await;
            } else if self.journal.open_exchanges() == 0 && self.journal.is_written_down() {
                return;
            } else {
                tokio::time::sleep(STOP_POLL).await;
            }
        }
    }

    /// An error means that the writer handle is gone: the same as being stopped.
    fn is_stopping(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    /// Waits for a record, and a little longer for company.
    async fn filled(&mut self) {
        let stop = self.stopped.wait_for(|stop| *stop);
        tokio::select! {
            _ = stop => return,
            () = self.journal.filled() => {}
        }
        self.gather().await;
    }

    async fn gather(&mut self) {
        let stop = self.stopped.wait_for(|stop| *stop);
        let _ = tokio::time::timeout(self.settings.gather, stop).await;
    }

    async fn take(&self, cursor: &mut Cursor) -> Taken {
        let mut pause = self.settings.retry_first;
        loop {
            match self.journal.take(cursor) {
                Ok(taken) => return taken,
                Err(error) => {
                    tracing::error!(%error, "the audit journal cannot be read; trying again");
                    self.count_failure();
                }
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(self.settings.retry_longest);
        }
    }

    async fn write(&self, taken: Taken) {
        let mark = JournalMark {
            journal: self.journal.id(),
            applied: taken.upto,
        };
        let mut pause = self.settings.retry_first;
        while !taken.records.is_empty() {
            match self.log.append_audit(&taken.records, Some(mark)).await {
                Ok(heads) => {
                    if let Some(histories) = &self.histories {
                        histories.note(&heads);
                    }
                    break;
                }
                Err(error) => self.note_failure(&error, taken.records.len()),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(self.settings.retry_longest);
        }
        self.journal.applied(taken.upto);
        let count = u64::try_from(taken.records.len()).unwrap_or(u64::MAX);
        self.counts.written.fetch_add(count, Ordering::Relaxed);
        self.counts.failing.store(0, Ordering::Relaxed);
        let now = self.clock.unix_millis();
        self.counts.last_written.store(now, Ordering::Relaxed);
    }

    fn count_failure(&self) -> u64 {
        self.counts.failing.fetch_add(1, Ordering::Relaxed);
        self.counts.failures.fetch_add(1, Ordering::Relaxed)
    }

    fn note_failure(&self, error: &AuditLogError, records: usize) {
        let failures = self.count_failure();
        tracing::error!(
            error = %error,
            records,
            failures = failures.saturating_add(1),
            "audit records could not be written; trying again"
        );
    }
}

#[cfg(test)]
mod tests;
