//! The journal through full and failing files, counted refusals, and the end of its process at any point.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod fault;
mod left;

use std::sync::atomic::Ordering;

use super::super::fixture::{clock, id, record, small};
use super::super::{AuditOutcome, AuditRecord, AuditSink, AuditText, canonical};
use super::*;

/// A journal in a file of its own, without a writer.
struct Home {
    _dir: tempfile::TempDir,
    journal: Arc<Journal>,
    sink: AuditSink,
    cursor: Cursor,
}

fn home(on_exhausted: OnExhausted) -> Home {
    let dir = tempfile::tempdir().unwrap();
    let settings = JournalSettings {
        on_exhausted,
        ..small(dir.path())
    };
    let journal = Journal::create(&settings, id(1), id(2), clock()).unwrap();
    Home {
        sink: AuditSink::new(Arc::clone(&journal)),
        journal,
        cursor: Cursor::default(),
        _dir: dir,
    }
}

impl Home {
    /// What the writer would take now; `apply` says that the database has it.
    fn take(&mut self, apply: bool) -> Vec<AuditRecord> {
        let mut records = Vec::new();
        loop {
            let taken = self.journal.take(&mut self.cursor).unwrap();
            if taken.upto == 0 {
                return records;
            }
            records.extend(taken.records);
            if apply {
                self.journal.applied(taken.upto);
            }
        }
    }

    /// Requests that are answered until one is refused.
    fn fill(&self) -> (u64, AuditUnavailable) {
        for n in 0.. {
            match self.sink.reserve() {
                Ok(mut slot) => {
                    slot.intend(&record(n)).unwrap();
                    slot.settle(&record(n));
                }
                Err(why) => return (n, why),
            }
        }
        unreachable!()
    }
}

fn denied(n: u64, code: &'static str) -> AuditRecord {
    AuditRecord {
        outcome: AuditOutcome::Denied,
        deny_code: Some(AuditText::fixed(code)),
        ..record(0)
    }
    .with_id(n)
}

impl AuditRecord {
    fn with_id(self, n: u64) -> Self {
        Self {
            id: id(n),
            request_id: AuditText::short(&id(n).to_string()),
            ..self
        }
    }
}

#[test]
fn the_file_has_its_space_and_only_its_owner_reads_it() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let home = home(OnExhausted::Refuse);
    let file = std::fs::metadata(home.journal.path()).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(file.len(), JOURNAL_BYTES_MIN);
    assert!(file.blocks() * 512 >= JOURNAL_BYTES_MIN, "not preallocated");
    let dir = std::fs::metadata(home.journal.path().parent().unwrap()).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_full_journal_refuses_requests_but_no_acts_and_recovers() {
    let mut home = home(OnExhausted::Refuse);
    let (answered, why) = home.fill();
    assert_eq!(why, AuditUnavailable::Full);
    assert!(answered > 1000, "{answered}");
    assert!(home.journal.occupied() <= home.journal.capacity() / 10 * 9);
    assert_eq!(home.journal.counts().refused.load(Ordering::Relaxed), 1);
    // The reserve is for acts: there is room for many.
    for n in 0..100 {
        home.sink.record_act(&record(1_000_000 + n)).unwrap();
    }
    // Once the database has the records, requests are taken again, for ever.
    let records = home.take(true);
    assert_eq!(records.len() as u64, answered + 100);
    for _ in 0..5 {
        let (again, _) = home.fill();
        assert!(again > 1000, "{again}");
        assert_eq!(home.take(true).len() as u64, again);
    }
}

#[test]
fn an_exchange_that_began_can_end_whatever_the_space() {
    let mut home = home(OnExhausted::Refuse);
    let mut open: Vec<_> = (0..40)
        .map(|n| {
            let mut slot = home.sink.reserve().unwrap();
            slot.intend(&record(900_000 + n)).unwrap();
            slot
        })
        .collect();
    let (answered, _) = home.fill();
    for (n, slot) in (0..).zip(open.drain(..)) {
        slot.settle(&record(900_000 + n));
    }
    assert_eq!(home.journal.open_exchanges(), 0);
    assert_eq!(home.take(true).len() as u64, answered + 40);
    assert_eq!(
        home.journal.counts().write_failures.load(Ordering::Relaxed),
        0
    );
}

#[test]
fn an_exchange_that_goes_on_for_long_does_not_hold_the_space_of_others() {
    let mut home = home(OnExhausted::Refuse);
    let mut long = home.sink.reserve().unwrap();
    long.intend(&record(7)).unwrap();
    let mut total = 0;
    for _ in 0..20 {
        // More than the whole journal, several times over.
        let (answered, _) = home.fill();
        assert!(answered > 500, "{answered}");
        total += home.take(true).len() as u64;
    }
    assert!(total > 20_000, "{total}");
    long.settle(&record(7));
    assert_eq!(home.take(true).last().map(|record| record.id), Some(id(7)));
}

#[test]
fn refusals_are_counted_into_one_record_while_the_journal_is_filling() {
    let mut home = home(OnExhausted::Refuse);
    let refuse = |home: &Home, n, code| home.sink.reserve().unwrap().refuse(&denied(n, code));
    // Below one half each has a record of its own.
    for n in 0..3 {
        refuse(&home, n, "forbidden").unwrap();
    }
    let mut answered = 0;
    while !home.journal.is_filling() {
        home.sink.reserve().unwrap().settle(&record(answered));
        answered += 1;
    }
    let before = home.journal.occupied();
    for n in 100..600 {
        refuse(&home, n, "forbidden").unwrap();
        refuse(&home, 1000 + n, "not_found").unwrap();
    }
    // Two records: one for each kind of refusal.
    assert!(home.journal.occupied() < before + 1024);
    assert_eq!(home.journal.counts().coalesced.load(Ordering::Relaxed), 998);
    let taken = home.take(false);
    let counts: Vec<_> = taken
        .iter()
        .filter(|record| record.outcome == AuditOutcome::Denied)
        .map(|record| (record.id, record.count))
        .collect();
    let own = |n| (id(n), 1);
    assert_eq!(
        counts,
        [own(0), own(1), own(2), (id(100), 500), (id(1100), 500)]
    );
    // What the writer has is not counted into any more.
    refuse(&home, 700, "forbidden").unwrap();
    let counts: Vec<_> = home.take(false).iter().map(|record| record.count).collect();
    assert_eq!(counts, [1]);
}

#[test]
fn dropping_answers_and_says_afterwards_how_many() {
    let mut home = home(OnExhausted::Drop);
    let syncing = home.journal.start_syncing().unwrap();
    let mut answered = 0_u64;
    while home.journal.counts().dropped.load(Ordering::Relaxed) < 25 {
        let mut slot = home.sink.reserve().unwrap();
        slot.intend(&record(answered)).unwrap();
        slot.settle(&record(answered));
        answered += 1;
    }
    // It may be said in one act or in several, and before the writer has taken anything.
    let (mut recorded, mut said) = (0, 0);
    while recorded < answered - 25 || said < 25 {
        for record in home.take(true) {
            match record.action {
                None => recorded += 1,
                Some(action) => {
                    assert_eq!(action, AuditText::fixed(health::DROPPED_ACTION));
                    let detail = record.detail.unwrap();
                    said += detail.value("requests").unwrap().as_u64().unwrap();
                }
            }
        }
        std::thread::yield_now();
    }
    assert_eq!((recorded, said), (answered - 25, 25));
    home.journal.stop();
    syncing.join().unwrap();
}
