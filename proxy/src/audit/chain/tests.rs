//! Whatever is done to a chain without the key, the first bad row is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use policy::id::GrantId;
use policy::time::UnixMillis;
use proptest::prelude::*;

use super::super::fixture::{id, record};
use super::super::place::HistoryHead;
use super::super::{AuditDetail, AuditOutcome, AuditRow, AuditText, Direction};
use super::*;

fn key() -> ChainKey {
    ChainKey::new(&[7; CHAIN_KEY_LEN])
}

fn chain_id(n: u64) -> Uuid {
    id(900_000 + n)
}

/// The log as a store writes it: chains one after the other.
struct Log {
    rows: Vec<AuditRow>,
    heads: Vec<Head>,
}

impl Log {
    fn of(chains: &[u64]) -> Self {
        let mut log = Self {
            rows: Vec::new(),
            heads: Vec::new(),
        };
        for (n, rows) in (0..).zip(chains) {
            log.begin(chain_id(n));
            for _ in 1..*rows {
                let record = record(u64::try_from(log.rows.len()).unwrap());
                log.push(n, record);
            }
        }
        log
    }

    fn begin(&mut self, chain: Uuid) {
        let before = self.heads.last().copied();
        let mut detail = AuditDetail::new();
        if let Some(before) = before {
            detail = detail
                .text(PREDECESSOR, &before.chain.to_string())
                .count(PREDECESSOR_SEQ, before.seq);
        }
        let n = u64::try_from(self.rows.len()).unwrap();
        let mut first = AuditRecord::new(
            id(500_000 + n),
            UnixMillis(0),
            Direction::Admin,
            AuditOutcome::Allowed,
            AuditText::fixed("begin"),
        );
        first.action = Some(AuditText::fixed(BEGIN_ACTION));
        first.detail = Some(detail);
        self.heads.push(Head {
            chain,
            seq: 0,
            hash: before.map_or(NO_HASH, |head| head.hash),
        });
        self.push(u64::try_from(self.heads.len() - 1).unwrap(), first);
    }

    fn push(&mut self, chain: u64, record: AuditRecord) {
        let head = &mut self.heads[usize::try_from(chain).unwrap()];
        let link = key().link(head, &record, &mut Vec::new());
        let position = i64::try_from(self.rows.len()).unwrap() + 1;
        self.rows.push(AuditRow {
            position,
            record,
            link: Some(link),
            history: None,
        });
    }

    fn verify(&self) -> Report {
        verify(&self.rows, &key(), &[])
    }
}

fn fault_at(report: &Report) -> (i64, Fault) {
    let finding = report.finding.clone().expect("nothing was found");
    (finding.position, finding.fault)
}

#[test]
fn whole_chains_verify_and_rows_from_before_are_counted() {
    let mut log = Log::of(&[5, 1, 3]);
    let report = log.verify();
    assert_eq!(report.finding, None);
    assert_eq!((report.verified, report.unlinked), (9, 0));
    assert_eq!(report.heads, log.heads);
    let old = AuditRow {
        position: 0,
        record: record(77),
        link: None,
        history: None,
    };
    log.rows.insert(0, old.clone());
    let report = log.verify();
    assert_eq!((report.finding, report.unlinked), (None, 1));
    // Once chains have begun, a row without a place is a forgery.
    log.rows.insert(4, AuditRow { position: 4, ..old });
    assert_eq!(fault_at(&log.verify()), (4, Fault::Unlinked));
}

#[test]
fn two_chains_may_interleave_while_processes_hand_over() {
    let mut log = Log::of(&[3]);
    log.begin(chain_id(1));
    log.push(0, record(50));
    log.push(1, record(51));
    log.push(0, record(52));
    assert_eq!(log.verify().finding, None);
    assert_eq!(log.verify().verified, 7);
}

/// The history of a grant goes through the chains of all processes, and shows a gap before the chain does.
#[test]
fn a_row_missing_from_one_of_several_chains_is_named_as_such() {
    let grant = GrantId::new(id(900));
    let of_two = |rows| {
        let mut log = Log::of(&[1]);
        log.begin(chain_id(1));
        let (mut head, mut buffer) = (HistoryHead::NONE, Vec::new());
        for n in 0..rows {
            let mut record = record(50 + n);
            record.grant = Some(grant);
            head = head.next(grant, chain_id(n % 2), &record, &mut buffer);
            log.push(n % 2, record);
            log.rows.last_mut().unwrap().history = Some(head.place());
        }
        log
    };
    assert_eq!(of_two(6).verify().finding, None);
    let mut log = of_two(6);
    log.rows.remove(4);
    let missing = Fault::Missing {
        chain: chain_id(0),
        from: 3,
        to: 3,
    };
    let report = log.verify();
    assert_eq!(fault_at(&report), (7, missing));
    assert_eq!(report.verified, 4, "what is behind the gap is not trusted");
    assert!(report.heads.iter().all(|head| head.seq == 2), "{report:?}");
    // The last of its chain is known from elsewhere.
    let mut log = of_two(6);
    let head = log.heads[0];
    log.rows.remove(6);
    let report = verify(&log.rows, &key(), &[head]);
    let cut = Fault::Cut {
        chain: chain_id(0),
        found: 3,
        known: 4,
    };
    assert_eq!(report.finding.unwrap().fault, cut);
    // Without a gap it is the place itself that was changed.
    let mut log = of_two(6);
    log.rows[4].history.as_mut().unwrap().ghash[0] ^= 1;
    assert_eq!(fault_at(&log.verify()), (5, Fault::History));
    // A gap further on does not explain it.
    let mut log = of_two(8);
    log.rows[4].history.as_mut().unwrap().ghash[0] ^= 1;
    log.rows.remove(6);
    assert_eq!(fault_at(&log.verify()), (5, Fault::History));
}

#[test]
fn every_kind_of_tampering_is_named_at_its_row() {
    // A field of a row.
    let mut log = Log::of(&[6]);
    log.rows[3].record.rows_returned += 1;
    assert_eq!(fault_at(&log.verify()), (4, Fault::Changed));
    // A row is gone.
    let mut log = Log::of(&[6]);
    log.rows.remove(2);
    let missing = Fault::Missing {
        chain: chain_id(0),
        from: 3,
        to: 3,
    };
    assert_eq!(fault_at(&log.verify()), (4, missing));
    // Two rows change places.
    let mut log = Log::of(&[6]);
    log.rows.swap(2, 3);
    assert_eq!(
        fault_at(&log.verify()),
        (4, Fault::OutOfOrder { expected: 3 })
    );
    // A row is there twice.
    let mut log = Log::of(&[6]);
    let again = log.rows[1].clone();
    log.rows.insert(
        4,
        AuditRow {
            position: 9,
            ..again
        },
    );
    assert_eq!(
        fault_at(&log.verify()),
        (9, Fault::OutOfOrder { expected: 5 })
    );
    // Rows are renumbered to hide that one is gone.
    let mut log = Log::of(&[6]);
    log.rows.remove(2);
    for row in &mut log.rows[2..] {
        row.link.as_mut().unwrap().seq -= 1;
    }
    assert_eq!(fault_at(&log.verify()), (4, Fault::Changed));
    // A row of another chain of the same store is put in.
    let mut log = Log::of(&[4, 4]);
    let foreign = log.rows[5].record.clone();
    log.rows[2].record = foreign;
    assert_eq!(fault_at(&log.verify()), (3, Fault::Changed));
    // The key is another one.
    let log = Log::of(&[3]);
    let other = ChainKey::new(&[8; CHAIN_KEY_LEN]);
    assert_eq!(
        fault_at(&verify(&log.rows, &other, &[])),
        (1, Fault::Changed)
    );
}

#[test]
fn a_tail_that_was_cut_is_found_by_the_successor_or_by_a_head_from_elsewhere() {
    // Of an earlier chain: its successor says how far it went.
    let mut log = Log::of(&[5, 3]);
    log.rows.drain(3..5);
    let missing = Fault::Missing {
        chain: chain_id(0),
        from: 4,
        to: 5,
    };
    assert_eq!(fault_at(&log.verify()), (6, missing));
    // A whole chain in the middle.
    let mut log = Log::of(&[2, 3, 2]);
    log.rows.drain(2..5);
    let missing = Fault::Missing {
        chain: chain_id(1),
        from: 1,
        to: 3,
    };
    assert_eq!(fault_at(&log.verify()), (6, missing));
    // Of the newest chain: nothing in the rows shows it, a checkpoint does.
    let mut log = Log::of(&[5, 4]);
    let heads = log.heads.clone();
    log.rows.truncate(7);
    assert_eq!(log.verify().finding, None);
    let cut = Fault::Cut {
        chain: chain_id(1),
        found: 2,
        known: 4,
    };
    assert_eq!(fault_at(&verify(&log.rows, &key(), &heads)), (7, cut));
    // The newest chain is gone as a whole.
    log.rows.truncate(5);
    let cut = Fault::Cut {
        chain: chain_id(1),
        found: 0,
        known: 4,
    };
    assert_eq!(fault_at(&verify(&log.rows, &key(), &heads[1..])), (0, cut));
    // The head is known, and is another row.
    let mut other = Log::of(&[5, 4]);
    other.rows.pop();
    other.heads[1] = other.rows.last().unwrap().link.unwrap().head();
    other.push(1, record(99));
    assert_eq!(
        fault_at(&verify(&other.rows, &key(), &heads)),
        (9, Fault::OtherHistory)
    );
}

#[test]
fn rows_that_were_moved_away_are_resumed_from() {
    let log = Log::of(&[5, 4]);
    let anchor = log.rows[2].link.unwrap().head();
    let resumed = |head: Head| {
        let key = key();
        let mut verifier = Verifier::new(&key);
        verifier.resume(head);
        for row in &log.rows[3..] {
            verifier.push(row);
        }
        verifier.finish()
    };
    let report = resumed(anchor);
    assert_eq!((report.finding, report.verified), (None, 6));
    assert_eq!(report.heads, log.heads);
    let wrong = Head {
        hash: [1; 32],
        ..anchor
    };
    assert_eq!(fault_at(&resumed(wrong)), (4, Fault::BrokenLink));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any change of one column, removal, exchange or repetition is found, at the first row it touches or the next.
    #[test]
    fn whatever_is_done_is_found(
        chains in prop::collection::vec(2..8_u64, 1..4),
        what in 0..6_u8,
        at in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::of(&chains);
        let last = log.rows.len() - 1;
        let heads = log.heads.clone();
        let (at, other) = (at.index(last), other.index(log.rows.len()));
        let mut touched = at;
        match what {
            0 => log.rows[at].record.latency_us ^= 1,
            1 => { log.rows.remove(at); }
            2 => { log.rows.swap(at, other); touched = at.min(other); }
            3 => { let row = log.rows[at].clone(); log.rows.insert(other, row); touched = at.min(other); }
            4 => log.rows[at].link.as_mut().unwrap().prev_hash[31] ^= 1,
            _ => { log.rows.truncate(at + 1); }
        }
        let report = verify(&log.rows, &key(), &heads);
        if what == 2 && at == other {
            prop_assert_eq!(report.finding, None);
        } else {
            prop_assert!(report.finding.is_some());
            prop_assert!(report.verified >= u64::try_from(touched).unwrap());
        }
    }
}
