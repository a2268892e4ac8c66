//! The audit queue and the one task that empties it into the log.
//!
//! Invariant: a record that was accepted is written exactly once and in the order of acceptance, or is counted as
//! lost by [`AuditWriter::drain`]. The task never gives a record up while it runs: when the log fails it tries the
//! same batch again, the queue fills, and callers refuse requests. Nothing here waits on the request path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::record::AuditRecord;
use super::{AuditLog, AuditLogError};

/// Records the queue holds unless told otherwise.
pub const QUEUE_DEFAULT: usize = 65_536;

/// How the writer gathers and retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterSettings {
    /// Records the queue holds, at least 1.
    pub queue: usize,
    /// Records in one transaction, at least 1.
    pub batch: usize,
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
            queue: QUEUE_DEFAULT,
            batch: 512,
            gather: Duration::from_millis(50),
            retry_first: Duration::from_millis(10),
            retry_longest: Duration::from_secs(1),
        }
    }
}

/// Why a record was not accepted. The request it belongs to is to be refused with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditFull {
    /// The queue is full: the log is slower than the requests, or failing.
    #[error(
        "the audit queue is full: check the disk and the database; requests are refused until it empties"
    )]
    QueueFull,
    /// The writer has stopped.
    #[error("the audit writer has stopped; requests are refused")]
    Stopped,
}

/// Numbers of the queue and the writer, for telemetry. Each is exact; together they are not one instant.
#[derive(Debug, Default)]
pub struct AuditGauges {
    depth: AtomicU64,
    written: AtomicU64,
    failures: AtomicU64,
    refused: AtomicU64,
}

impl AuditGauges {
    /// Records accepted and not yet written.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }

    /// Records written since the start.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Failed attempts to write a batch since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Records not accepted since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Where requests leave their records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditSink {
    queue: mpsc::Sender<AuditRecord>,
    gauges: Arc<AuditGauges>,
}

impl AuditSink {
    /// Queues a record without waiting. Where the record is only complete after something was answered,
    /// [`reserve`](Self::reserve) first.
    ///
    /// # Errors
    /// [`AuditFull`]: the record is not kept, the refusal is counted, the request must not be answered.
    pub fn submit(&self, record: AuditRecord) -> Result<(), AuditFull> {
        // Counted before it can be taken out, so that the depth never goes below zero.
        self.gauges.depth.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(record).map_err(|error| {
            self.gauges.depth.fetch_sub(1, Ordering::Relaxed);
            self.gauges.refused.fetch_add(1, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => AuditFull::QueueFull,
                mpsc::error::TrySendError::Closed(_) => AuditFull::Stopped,
            }
        })
    }

    /// Sets a place in the queue aside before a request is worked on, so that its record cannot be refused once
    /// the answer is under way. Does not wait.
    ///
    /// # Errors
    /// [`AuditFull`], counted as a refusal: the request must not be answered.
    pub fn reserve(&self) -> Result<AuditSlot, AuditFull> {
        match self.queue.clone().try_reserve_owned() {
            Ok(permit) => Ok(AuditSlot {
                permit,
                gauges: Arc::clone(&self.gauges),
            }),
            Err(error) => {
                self.gauges.refused.fetch_add(1, Ordering::Relaxed);
                Err(match error {
                    mpsc::error::TrySendError::Full(_) => AuditFull::QueueFull,
                    mpsc::error::TrySendError::Closed(_) => AuditFull::Stopped,
                })
            }
        }
    }

    /// The numbers of this queue.
    #[must_use]
    pub fn gauges(&self) -> Arc<AuditGauges> {
        Arc::clone(&self.gauges)
    }
}

/// A place set aside for one record. Dropped unused, it goes back to the queue.
#[derive(Debug)]
#[must_use = "a slot that is dropped records nothing"]
pub struct AuditSlot {
    permit: mpsc::OwnedPermit<AuditRecord>,
    gauges: Arc<AuditGauges>,
}

impl AuditSlot {
    /// Queues the record. Cannot be refused; a draining writer waits for open slots until its deadline.
    pub fn submit(self, record: AuditRecord) {
        self.gauges.depth.fetch_add(1, Ordering::Relaxed);
        self.permit.send(record);
    }
}

/// What [`AuditWriter::drain`] could not write in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{lost} audit records were not written before the deadline; check the disk and the database file"
)]
pub struct DrainError {
    /// How many.
    pub lost: u64,
}

/// The writer task.
#[derive(Debug)]
pub struct AuditWriter {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    gauges: Arc<AuditGauges>,
}

impl AuditWriter {
    /// Starts the task on the current runtime. A queue or batch of 0 counts as 1.
    #[must_use]
    pub fn start(log: Arc<dyn AuditLog>, settings: WriterSettings) -> (AuditSink, Self) {
        let (queue, records) = mpsc::channel(settings.queue.max(1));
        let (stop, stopped) = watch::channel(false);
        let gauges = Arc::new(AuditGauges::default());
        let emptying = Emptying {
            log,
            records,
            stopped,
            settings,
            gauges: Arc::clone(&gauges),
        };
        let writer = Self {
            stop,
            task: tokio::spawn(emptying.run()),
            gauges: Arc::clone(&gauges),
        };
        (AuditSink { queue, gauges }, writer)
    }

    /// Whether the task is gone although nobody asked it to stop: nothing will be written any more.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops accepting records and writes those accepted, for at most `deadline`.
    ///
    /// # Errors
    /// [`DrainError`] with the number of records that are lost.
    pub async fn drain(mut self, deadline: Duration) -> Result<(), DrainError> {
        self.stop.send_replace(true);
        if tokio::time::timeout(deadline, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
        match self.gauges.depth() {
            0 => Ok(()),
            lost => Err(DrainError { lost }),
        }
    }
}

struct Emptying {
    log: Arc<dyn AuditLog>,
    records: mpsc::Receiver<AuditRecord>,
    stopped: watch::Receiver<bool>,
    settings: WriterSettings,
    gauges: Arc<AuditGauges>,
}

impl Emptying {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.settings.batch.max(1));
        loop {
            self.gather(&mut batch).await;
            if batch.is_empty() {
                return;
            }
            self.write(&batch).await;
            batch.clear();
        }
    }

    /// Fills the batch; leaves it empty only when the queue is closed and empty.
    async fn gather(&mut self, batch: &mut Vec<AuditRecord>) {
        let most = self.settings.batch.max(1);
        let mut stopped = self.stopped.clone();
        let mut deadline = None;
        while batch.len() < most {
            let room = most - batch.len();
            let gather_over = async {
                match deadline.as_mut() {
                    Some(sleep) => std::pin::Pin::as_mut(sleep).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // An error means that the writer handle is gone: the same as being stopped.
                _ = stopped.wait_for(|stop| *stop), if !self.records.is_closed() => self.records.close(),
                taken = self.records.recv_many(batch, room) => {
                    if taken == 0 || self.records.is_closed() && self.records.is_empty() {
                        return;
                    }
                    deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.settings.gather)));
                }
                () = gather_over => return,
            }
        }
    }

    async fn write(&self, batch: &[AuditRecord]) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let mut pause = self.settings.retry_first;
        while let Err(error) = self.log.append_audit(batch).await {
            self.note_failure(&error, count);
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(self.settings.retry_longest);
        }
        self.gauges.written.fetch_add(count, Ordering::Relaxed);
        self.gauges.depth.fetch_sub(count, Ordering::Relaxed);
    }

    fn note_failure(&self, error: &AuditLogError, count: u64) {
        let failures = self.gauges.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            error = %error,
            records = count,
            failures = failures.saturating_add(1),
            "audit records could not be written; trying again"
        );
    }
}

#[cfg(test)]
mod tests;
