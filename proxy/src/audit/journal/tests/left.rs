//! What is left when the process ends: at any point, with a torn end, in the middle of replaying.

use policy::time::UnixMillis;
use proptest::prelude::*;
use uuid::Uuid;

use super::super::super::fixture::{MemoryLog, clock, id, record};
use super::super::super::{AuditLog, JournalMark};
use super::*;

/// What exchanges do to a journal.
#[derive(Debug, Clone)]
enum Step {
    /// An exchange begins and shows something.
    Intend,
    /// The n-th open exchange ends.
    Settle(prop::sample::Index),
    /// A refusal.
    Refuse,
    /// The writer takes what there is and the database has it.
    Write,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Intend),
        4 => any::<prop::sample::Index>().prop_map(Step::Settle),
        2 => Just(Step::Refuse),
        1 => Just(Step::Write),
    ];
    prop::collection::vec(step, 1..120)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// A journal after some steps, and what the log has to hold in the end.
struct Left {
    dir: tempfile::TempDir,
    log: MemoryLog,
    ended: Vec<Uuid>,
    open: Vec<Uuid>,
}

/// What the writer does: everything there is, into the log.
fn write_down(journal: &Journal, cursor: &mut Cursor, log: &MemoryLog) {
    loop {
        let taken = journal.take(cursor).unwrap();
        if taken.upto == 0 {
            return;
        }
        let mark = JournalMark {
            journal: id(1),
            applied: taken.upto,
        };
        block_on(log.append_audit(&taken.records, Some(mark))).unwrap();
        journal.applied(taken.upto);
    }
}

fn run(steps: &[Step]) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let journal = Journal::create(&small(dir.path()), id(1), id(2), clock()).unwrap();
    let sink = AuditSink::new(Arc::clone(&journal));
    let mut cursor = Cursor::default();
    let (mut ended, mut open, mut next) = (Vec::new(), Vec::new(), 0);
    for step in steps {
        next += 1;
        match step {
            Step::Intend => {
                let mut slot = sink.reserve().unwrap();
                slot.intend(&record(next)).unwrap();
                open.push((slot, next));
            }
            Step::Settle(which) if !open.is_empty() => {
                let (slot, n) = open.remove(which.index(open.len()));
                slot.settle(&record(n));
                ended.push(id(n));
            }
            Step::Settle(_) => {}
            Step::Refuse => {
                sink.reserve()
                    .unwrap()
                    .refuse(&denied(next, "forbidden"))
                    .unwrap();
                ended.push(id(next));
            }
            Step::Write => write_down(&journal, &mut cursor, &log),
        }
    }
    // The process is gone, with everything that was only in its memory.
    let open = open
        .into_iter()
        .map(|(slot, n)| {
            drop(slot);
            id(n)
        })
        .collect();
    Left {
        dir,
        log,
        ended,
        open,
    }
}

impl Left {
    fn path(&self) -> PathBuf {
        self.dir
            .path()
            .join("audit")
            .join(format!("{}.journal", id(1)))
    }

    fn replay(&self) -> Result<Replayed, ReplayError> {
        let dir = self.dir.path().join("audit");
        block_on(replay(&dir, id(2), &self.log, UnixMillis(0)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nothing_accepted_is_lost_or_repeated(steps in steps(), failing in 0..3_u32) {
        let left = run(&steps);
        // The database may fail at first: replaying begins again.
        *left.log.failing.lock() = failing;
        while left.replay().is_err() {}
        let written = left.log.written();
        let (done, aborted): (Vec<_>, Vec<_>) = written.iter().partition(|record| record.outcome != AuditOutcome::Aborted);
        prop_assert_eq!(done.iter().map(|record| record.id).collect::<Vec<_>>(), left.ended.clone());
        prop_assert_eq!(aborted.iter().map(|record| record.id).collect::<Vec<_>>(), left.open.clone());
        prop_assert!(!left.path().exists());
        prop_assert_eq!(*left.log.repeated.lock(), 0);
        prop_assert_eq!(left.replay().unwrap(), Replayed::default());
    }

    #[test]
    fn a_torn_end_costs_only_what_it_touches(steps in steps(), torn in 1..2000_usize) {
        let left = run(&steps);
        let mut bytes = std::fs::read(left.path()).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let from = end.saturating_sub(torn).max(segment::HEAD.min(end));
        bytes[from..end].fill(0);
        std::fs::write(left.path(), &bytes).unwrap();
        let before = left.log.ids().len();
        left.replay().unwrap();
        let ids = left.log.ids();
        let done: Vec<_> = left.log.written().into_iter().filter(|record| record.outcome != AuditOutcome::Aborted).map(|record| record.id).collect();
        // A prefix of what was accepted, no less than the database had; nothing twice, though the database may have
        // an outcome that the journal lost.
        prop_assert!(left.ended.starts_with(&done));
        prop_assert!(done.len() >= before);
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), ids.len());
    }

    #[test]
    fn a_damaged_record_in_the_middle_costs_that_record_and_is_reported(at in 1..19_usize) {
        let steps = vec![Step::Refuse; 20];
        let left = run(&steps);
        let mut bytes = std::fs::read(left.path()).unwrap();
        let size = frame::size(canonical::to_bytes(&denied(1, "forbidden")).len());
        bytes[segment::HEAD + at * size + frame::HEADER + 30] ^= 1;
        std::fs::write(left.path(), &bytes).unwrap();
        let replayed = left.replay().unwrap();
        prop_assert_eq!((replayed.records, replayed.damaged), (19, 1));
        let said = left.log.written().pop().unwrap();
        prop_assert_eq!(said.action, Some(AuditText::fixed(replay::DAMAGED_ACTION)));
    }
}

#[test]
fn a_journal_that_wrapped_around_is_replayed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let journal = Journal::create(&small(dir.path()), id(1), id(2), clock()).unwrap();
    let sink = AuditSink::new(Arc::clone(&journal));
    let mut cursor = Cursor::default();
    let mut long = sink.reserve().unwrap();
    long.intend(&record(0)).unwrap();
    let mut next = 1;
    for round in 0..8 {
        while let Ok(slot) = sink.reserve() {
            slot.settle(&record(next));
            next += 1;
        }
        // The last round stays in the journal.
        if round < 7 {
            write_down(&journal, &mut cursor, &log);
        }
    }
    drop(long);
    drop((sink, journal));
    let audit = dir.path().join("audit");
    let replayed = block_on(replay(&audit, id(2), &log, UnixMillis(0))).unwrap();
    assert_eq!((replayed.aborted, replayed.damaged), (1, 0));
    let expected: Vec<_> = (1..next).chain([0]).map(id).collect();
    assert_eq!(log.ids(), expected);
}

#[test]
fn the_journal_of_a_living_process_and_of_another_store_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = MemoryLog::default();
    let journal = Journal::create(&small(dir.path()), id(1), id(2), clock()).unwrap();
    AuditSink::new(Arc::clone(&journal))
        .record_act(&record(1))
        .unwrap();
    let audit = dir.path().join("audit");
    let path = journal.path().to_owned();
    let replayed = block_on(replay(&audit, id(2), &log, UnixMillis(0))).unwrap();
    assert_eq!(replayed, Replayed::default());
    assert!(path.exists());
    drop(journal);
    let other = block_on(replay(&audit, id(3), &log, UnixMillis(0)));
    assert!(matches!(other, Err(ReplayError::OtherStore { .. })));
    assert!(path.exists());
    assert!(log.ids().is_empty());
}

#[test]
fn a_journal_without_its_space_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = JournalSettings {
        bytes: 1 << 50,
        ..small(dir.path())
    };
    let error = Journal::create(&settings, id(1), id(2), clock()).unwrap_err();
    assert!(error.to_string().contains("audit.journal_bytes"), "{error}");
    let left = std::fs::read_dir(dir.path().join("audit")).unwrap();
    assert_eq!(left.count(), 0);
}
