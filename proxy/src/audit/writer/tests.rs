//! The writer under a log that fails and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::super::fixture::{MemoryLog, clock, id, record, small};
use super::super::{AuditOutcome, AuditRecord};
use super::*;

const LONG: Duration = Duration::from_secs(20);

fn quick() -> WriterSettings {
    WriterSettings {
        gather: Duration::from_millis(1),
        retry_first: Duration::from_millis(1),
        retry_longest: Duration::from_millis(2),
    }
}

struct Running {
    home: tempfile::TempDir,
    log: Arc<MemoryLog>,
    sink: AuditSink,
    writer: AuditWriter,
}

fn start() -> Running {
    let home = tempfile::tempdir().unwrap();
    let log = Arc::new(MemoryLog::default());
    let journal = Journal::create(&small(home.path()), id(1), id(2), clock()).unwrap();
    let shared: Arc<dyn AuditLog> = Arc::<MemoryLog>::clone(&log);
    let (sink, writer) = AuditWriter::start(shared, journal, clock(), quick(), None).unwrap();
    Running {
        home,
        log,
        sink,
        writer,
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn records_reach_the_log_in_order_and_once() {
    let running = start();
    for n in 0..500 {
        let mut slot = running.sink.reserve().unwrap();
        slot.intend(&record(n)).unwrap();
        slot.settle(&record(n));
    }
    until("the log has all", || running.log.ids().len() == 500).await;
    running.writer.drain(LONG).await.unwrap();
    assert_eq!(
        running.log.written(),
        (0..500).map(record).collect::<Vec<_>>()
    );
    let left = std::fs::read_dir(running.home.path().join("audit")).unwrap();
    assert_eq!(left.count(), 0, "an empty journal is removed");
}

#[tokio::test]
async fn a_failing_log_delays_but_neither_loses_nor_reorders() {
    let running = start();
    *running.log.failing.lock() = 7;
    for n in 0..50 {
        running.sink.reserve().unwrap().settle(&record(n));
        tokio::task::yield_now().await;
    }
    until("the log has all", || running.log.ids().len() == 50).await;
    let counts = running.writer.counts();
    assert_eq!(counts.failures(), 7);
    until("it is well again", || counts.failing() == 0).await;
    running.writer.drain(LONG).await.unwrap();
    assert_eq!(running.log.ids(), (0..50).map(id).collect::<Vec<_>>());
}

#[tokio::test]
async fn draining_waits_for_exchanges_under_way() {
    let running = start();
    let slot = running.sink.reserve().unwrap();
    let ending = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        slot.settle(&record(1));
    });
    running.writer.drain(LONG).await.unwrap();
    ending.await.unwrap();
    assert_eq!(running.log.ids(), [id(1)]);
    let refused = running.sink.reserve().map(drop);
    assert_eq!(refused, Err(super::super::AuditUnavailable::Stopped));
}

#[tokio::test]
async fn what_a_deadline_cuts_off_is_in_the_journal_for_the_next_start() {
    let running = start();
    *running.log.failing.lock() = u32::MAX;
    for n in 0..5 {
        running.sink.reserve().unwrap().settle(&record(n));
    }
    let mut open = running.sink.reserve().unwrap();
    open.intend(&record(5)).unwrap();
    let left = running.writer.drain(Duration::from_millis(50)).await;
    assert_eq!(left, Err(DrainError { left: 6 }));
    // The process is gone: its lock too.
    drop(open);
    drop(running.sink);
    *running.log.failing.lock() = 0;
    let dir = running.home.path().join("audit");
    let now = policy::time::UnixMillis(0);
    let replayed = super::super::journal::replay(&dir, id(2), &*running.log, now)
        .await
        .unwrap();
    assert_eq!((replayed.records, replayed.aborted), (5, 1));
    let aborted = AuditRecord {
        outcome: AuditOutcome::Aborted,
        ..record(5)
    };
    let expected: Vec<_> = (0..5).map(record).chain([aborted]).collect();
    assert_eq!(running.log.written(), expected);
}
