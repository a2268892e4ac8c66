//! A file that fails to write or to sync.

use std::io;
use std::sync::atomic::AtomicBool;

use super::super::super::fixture::{clock, id, record};
use super::*;

/// A file in memory that fails when it is told to.
#[derive(Default)]
struct Faulty {
    bytes: Mutex<Vec<u8>>,
    writes_fail: AtomicBool,
    syncs_fail: AtomicBool,
    synced: AtomicU64,
}

#[derive(Clone, Default)]
struct Shared(Arc<Faulty>);

impl JournalFile for Shared {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.0.writes_fail.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut all = self.0.bytes.lock();
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        if all.len() < end {
            all.resize(end, 0);
        }
        all[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let all = self.0.bytes.lock();
        let offset = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&all[offset..offset + buffer.len()]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.0.syncs_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.0.synced.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Running {
    file: Shared,
    home: Home,
    syncing: Option<std::thread::JoinHandle<()>>,
}

fn running() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let file = Shared::default();
    let path = dir.path().join("none");
    let ids = (id(1), id(2));
    let journal = Journal::over(
        Box::new(file.clone()),
        path,
        &small(dir.path()),
        ids,
        clock(),
    );
    Running {
        file,
        syncing: Some(journal.start_syncing().unwrap()),
        home: Home {
            sink: AuditSink::new(Arc::clone(&journal)),
            journal,
            cursor: Cursor::default(),
            _dir: dir,
        },
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.home.journal.stop();
        self.syncing.take().unwrap().join().unwrap();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    // A thousand looks of ten milliseconds are patience, not a measurement.
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

#[test]
fn what_cannot_be_written_refuses_requests_and_owes_no_record_in_the_end() {
    let mut running = running();
    let mut open = running.home.sink.reserve().unwrap();
    open.intend(&record(1)).unwrap();
    let mut unshown = running.home.sink.reserve().unwrap();
    let refused = running.home.sink.reserve().unwrap();
    running.file.0.writes_fail.store(true, Ordering::SeqCst);
    // Nothing was shown: the request is refused. Something was shown: its record is owed.
    assert_eq!(unshown.intend(&record(2)), Err(AuditUnavailable::Failing));
    assert_eq!(
        refused.refuse(&denied(3, "forbidden")),
        Err(AuditUnavailable::Failing)
    );
    open.settle(&record(1));
    drop(unshown);
    assert_eq!(
        running.home.sink.reserve().map(drop),
        Err(AuditUnavailable::Failing)
    );
    assert!(running.home.journal.failure().is_some());
    assert!(!running.home.journal.is_written_down());
    running.file.0.writes_fail.store(false, Ordering::SeqCst);
    until("it recovers", || running.home.sink.reserve().is_ok());
    assert_eq!(running.home.journal.failure(), None);
    let ids: Vec<_> = running.home.take(true).iter().map(|one| one.id).collect();
    assert_eq!(ids, [id(1)]);
    assert_eq!(running.home.journal.open_exchanges(), 0);
}

#[test]
fn after_a_failed_sync_nothing_is_taken_for_safe_before_the_database_has_it() {
    let mut running = running();
    running.file.0.syncs_fail.store(true, Ordering::SeqCst);
    running.home.sink.reserve().unwrap().settle(&record(1));
    until("it fails", || running.home.journal.failure().is_some());
    assert_eq!(
        running.home.sink.reserve().map(drop),
        Err(AuditUnavailable::Failing)
    );
    running.file.0.syncs_fail.store(false, Ordering::SeqCst);
    let synced = running.file.0.synced.load(Ordering::SeqCst);
    until("it syncs again", || {
        running.file.0.synced.load(Ordering::SeqCst) > synced
    });
    assert!(
        running.home.journal.failure().is_some(),
        "the first record may be lost"
    );
    assert_eq!(running.home.take(true).len(), 1);
    until("it recovers", || running.home.sink.reserve().is_ok());
}

#[test]
fn a_write_is_synced_soon_and_an_idle_journal_is_not_synced() {
    let running = running();
    running.home.sink.reserve().unwrap().settle(&record(1));
    until("it is synced", || {
        running.file.0.synced.load(Ordering::SeqCst) == 1
    });
    std::thread::sleep(SYNC_EVERY * 3);
    assert_eq!(running.file.0.synced.load(Ordering::SeqCst), 1);
}
