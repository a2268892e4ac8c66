//! The queue under a log that fails, stalls and comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use async_trait::async_trait;
use parking_lot::Mutex;
use policy::time::UnixMillis;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::super::{AuditFilter, AuditOutcome, AuditRow, AuditText, Direction};
use super::*;

/// A log in memory. Each attempt to write takes one permit; the first `failing` attempts fail.
struct FakeLog {
    attempts: Semaphore,
    failing: Mutex<u32>,
    batches: Mutex<Vec<Vec<Uuid>>>,
}

impl FakeLog {
    fn new(attempts: usize, failing: u32) -> Arc<Self> {
        Arc::new(Self {
            attempts: Semaphore::new(attempts),
            failing: Mutex::new(failing),
            batches: Mutex::default(),
        })
    }

    fn written(&self) -> Vec<Uuid> {
        self.batches.lock().concat()
    }
}

#[async_trait]
impl AuditLog for FakeLog {
    async fn append_audit(&self, records: &[AuditRecord]) -> Result<(), AuditLogError> {
        self.attempts.acquire().await.unwrap().forget();
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            let why = "locked".to_owned();
            return Err(AuditLogError::Unavailable { why });
        }
        let ids = records.iter().map(|record| record.id).collect();
        self.batches.lock().push(ids);
        Ok(())
    }

    async fn query_audit(&self, _: &AuditFilter) -> Result<Vec<AuditRow>, AuditLogError> {
        Ok(Vec::new())
    }
}

const LONG: Duration = Duration::from_secs(20);
const PLENTY: usize = 10_000;

fn settings() -> WriterSettings {
    WriterSettings {
        queue: 64,
        batch: 8,
        gather: Duration::from_millis(1),
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(2),
    }
}

fn id(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x018b_cfe5_6800_7000, 0x8000_0000_0000_0000 | n)
}

fn record(n: u64) -> AuditRecord {
    let request = AuditText::short(&n.to_string());
    let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
    AuditRecord::new(id(n), UnixMillis(0), inbound, allowed, request)
}

#[tokio::test]
async fn records_are_written_once_in_order_and_in_batches() {
    let log = FakeLog::new(PLENTY, 0);
    let (sink, writer) = AuditWriter::start(log.clone(), settings());
    for n in 0..60 {
        sink.submit(record(n)).unwrap();
    }
    writer.drain(LONG).await.unwrap();
    assert_eq!(log.written(), (0..60).map(id).collect::<Vec<_>>());
    let sizes: Vec<_> = log.batches.lock().iter().map(Vec::len).collect();
    assert!(sizes.iter().all(|size| *size <= 8), "{sizes:?}");
    assert!(sizes.len() < 60, "no batch was ever shared: {sizes:?}");
    assert_eq!((sink.gauges().depth(), sink.gauges().written()), (0, 60));
}

#[tokio::test]
async fn a_failing_log_delays_but_neither_loses_nor_reorders() {
    let log = FakeLog::new(PLENTY, 7);
    let (sink, writer) = AuditWriter::start(log.clone(), settings());
    for n in 0..40 {
        sink.submit(record(n)).unwrap();
    }
    writer.drain(LONG).await.unwrap();
    assert_eq!(log.written(), (0..40).map(id).collect::<Vec<_>>());
    assert_eq!(sink.gauges().failures(), 7);
}

#[tokio::test]
async fn a_full_queue_refuses_counts_and_recovers() {
    let log = FakeLog::new(0, 0);
    let (sink, writer) = AuditWriter::start(log.clone(), settings());
    let mut accepted = 0;
    while sink.submit(record(accepted)).is_ok() {
        accepted += 1;
        assert!(accepted <= 64 + 8, "more than the queue and a batch");
        // Lets the writer take its first batch, which then stalls.
        tokio::task::yield_now().await;
    }
    assert!(accepted >= 64);
    assert_eq!(sink.submit(record(999)), Err(AuditFull::QueueFull));
    assert!(matches!(sink.reserve(), Err(AuditFull::QueueFull)));
    let gauges = sink.gauges();
    assert_eq!((gauges.refused(), gauges.depth()), (3, accepted));

    log.attempts.add_permits(PLENTY);
    let slot = tokio::time::timeout(LONG, async {
        loop {
            match sink.reserve() {
                Ok(slot) => return slot,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    slot.await
        .expect("the queue never emptied")
        .submit(record(accepted));
    writer.drain(LONG).await.unwrap();
    assert_eq!(log.written(), (0..=accepted).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reserved_place_is_kept_through_fullness_and_drain() {
    let log = FakeLog::new(PLENTY, 0);
    let one = WriterSettings {
        queue: 1,
        ..settings()
    };
    let (sink, writer) = AuditWriter::start(log.clone(), one);
    let slot = sink.reserve().unwrap();
    assert_eq!(sink.submit(record(1)), Err(AuditFull::QueueFull));
    let draining = tokio::spawn(writer.drain(LONG));
    while !sink.queue.is_closed() {
        tokio::task::yield_now().await;
    }
    assert_eq!(sink.submit(record(2)), Err(AuditFull::Stopped));
    assert!(
        !draining.is_finished(),
        "the drain does not wait for the open slot"
    );
    slot.submit(record(3));
    draining.await.unwrap().unwrap();
    assert_eq!(log.written(), [id(3)]);
}

#[tokio::test]
async fn a_slot_dropped_unused_goes_back_to_the_queue() {
    let log = FakeLog::new(PLENTY, 0);
    let one = WriterSettings {
        queue: 1,
        ..settings()
    };
    let (sink, writer) = AuditWriter::start(log.clone(), one);
    drop(sink.reserve().unwrap());
    drop(sink.reserve().unwrap());
    assert_eq!(sink.gauges().depth(), 0);
    writer.drain(LONG).await.unwrap();
    assert!(log.written().is_empty());
}

#[tokio::test]
async fn what_a_drain_cannot_write_in_time_is_counted_as_lost() {
    let log = FakeLog::new(1, 0);
    let (sink, writer) = AuditWriter::start(log.clone(), settings());
    for n in 0..20 {
        sink.submit(record(n)).unwrap();
    }
    let lost = writer
        .drain(Duration::from_millis(50))
        .await
        .unwrap_err()
        .lost;
    let written = u64::try_from(log.written().len()).unwrap();
    assert!(written > 0);
    assert_eq!(lost + written, 20);
}

#[tokio::test]
async fn dropping_the_writer_handle_still_writes_what_was_accepted() {
    let log = FakeLog::new(PLENTY, 0);
    let (sink, writer) = AuditWriter::start(log.clone(), settings());
    sink.submit(record(1)).unwrap();
    let AuditWriter { stop, task, .. } = writer;
    drop(stop);
    tokio::time::timeout(LONG, task).await.unwrap().unwrap();
    assert_eq!(log.written(), [id(1)]);
    assert_eq!(sink.submit(record(2)), Err(AuditFull::Stopped));
}
