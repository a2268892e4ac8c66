//! Places, headers, files and their comparison.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use policy::id::{GrantId, PeerId, SubjectId};
use policy::recorded::RecordedDecision;
use policy::time::UnixMillis;
use proptest::prelude::*;

use super::export::{GrantExport, GrantExportFault, GrantExporter, read, read_head};
use super::reconcile::{Own, ReconcileFinding, Reconciled, Witness, reconcile};
use super::*;
use crate::audit::chain::{Link, NO_HASH};
use crate::audit::checkpoint::{CheckpointSigner, CheckpointVerifier};
use crate::audit::fixture::{id, record};
use crate::audit::{AuditDetail, AuditOutcome, AuditRow, AuditText};

fn grant() -> GrantId {
    GrantId::new(id(900))
}

fn signer() -> Arc<CheckpointSigner> {
    let key = CheckpointSigner::generate().unwrap();
    Arc::new(CheckpointSigner::from_pkcs8(&key).unwrap())
}

/// The serving side's record of the n-th question.
fn answered(n: u64) -> AuditRecord {
    let mut record = record(n);
    record.at = UnixMillis(1_000 * i64::try_from(n).unwrap());
    record.grant = Some(grant());
    record.subject = Some(SubjectId::new(id(901)));
    record.peer = Some(PeerId::new(id(902)));
    record.cert_serial = Some(AuditText::fixed("0a1b"));
    record.peer_request_id = Some(AuditText::short(&format!("asked-{n}")));
    record.resource = Some(AuditText::fixed("tasks"));
    record.query_hash = Some([u8::try_from(n).unwrap(); 32]);
    record.http_status = Some(200);
    record.rows_withheld = 3;
    record.revision = Some(44);
    record
}

/// The asking side's record of the same.
fn asked(theirs: &AuditRecord) -> AuditRecord {
    let mut own = theirs.clone();
    own.direction = Direction::Outbound;
    own.id = id(5_000 + theirs.rows_returned);
    own.request_id = theirs.peer_request_id.clone().unwrap();
    own.peer_request_id = Some(theirs.request_id.clone());
    own.rows_withheld = 0;
    own.revision = None;
    if theirs.outcome != AuditOutcome::Allowed {
        own.deny_stage = Some(AuditText::fixed("peer"));
    }
    own
}

/// Rows as a log has them.
fn rows(records: &[AuditRecord], chain: Uuid) -> Vec<AuditRow> {
    let (mut head, mut buffer) = (HistoryHead::NONE, Vec::new());
    records
        .iter()
        .zip(1..)
        .map(|(record, position)| {
            head = head.next(grant(), chain, record, &mut buffer);
            AuditRow {
                position,
                record: record.clone(),
                link: Some(Link {
                    chain,
                    seq: 7,
                    prev_hash: NO_HASH,
                    hash: NO_HASH,
                }),
                history: Some(head.place()),
            }
        })
        .collect()
}

fn file(rows: &[AuditRow], signer: &Arc<CheckpointSigner>) -> String {
    let at = UnixMillis(1_000_000);
    let (mut exporter, mut text) = GrantExporter::begin(Arc::clone(signer), grant(), at);
    for row in rows {
        exporter.row(row, &mut text).unwrap();
    }
    text.push_str(&exporter.end());
    text
}

fn opened(text: &str, key: &CheckpointVerifier) -> GrantExport {
    let mut lines = text.lines();
    let head = read_head(lines.next().unwrap()).unwrap();
    read(head, lines.map(str::to_owned), key)
}

/// An honest pair of five questions; the first and the fourth place were shown.
struct Pair {
    signer: Arc<CheckpointSigner>,
    theirs: Vec<AuditRecord>,
    own: Own,
}

impl Pair {
    fn new() -> Self {
        let mut theirs: Vec<AuditRecord> = (1..=5).map(answered).collect();
        theirs[2].outcome = AuditOutcome::Denied;
        theirs[2].http_status = Some(403);
        theirs[2].deny_stage = Some(AuditText::fixed("resource"));
        theirs[2].deny_code = Some(AuditText::fixed("resource_not_granted"));
        theirs[2].rows_returned = 0;
        let mut questions: Vec<AuditRecord> = theirs.iter().map(asked).collect();
        let places = rows(&theirs, id(1));
        let head = |n: usize| HistoryHead {
            chain: id(1),
            gseq: places[n].history.unwrap().gseq,
            ghash: places[n].history.unwrap().ghash,
        };
        questions[1].witnessed = Some(head(0));
        questions[4].witnessed = Some(head(3));
        let last = Witness {
            head: head(4),
            at: UnixMillis(6_000),
            signed: true,
        };
        Self {
            signer: signer(),
            theirs,
            own: Own {
                questions,
                witnessed: vec![last],
                since: None,
                settle: 0,
            },
        }
    }

    /// What the serving side exports, reconciled.
    fn reconciled(&self) -> Reconciled {
        let text = file(&rows(&self.theirs, id(1)), &self.signer);
        reconcile(&opened(&text, &self.signer.verifier()), &self.own)
    }
}

fn names(done: &Reconciled) -> Vec<&'static str> {
    let name = |finding: &ReconcileFinding| match finding {
        ReconcileFinding::Missing(_) => "missing",
        ReconcileFinding::Invented(_) => "invented",
        ReconcileFinding::Altered { .. } => "altered",
        ReconcileFinding::Cut { .. } => "cut",
        ReconcileFinding::Rewritten { .. } => "rewritten",
        ReconcileFinding::Broken { .. } => "broken",
    };
    done.findings.iter().map(name).collect()
}

#[test]
fn an_honest_pair_is_clean() {
    let done = Pair::new().reconciled();
    assert_eq!(done.findings, []);
    assert_eq!((done.questions, done.agreed), (5, 5));
    assert_eq!((done.checkpoints, done.signed_checkpoints), (3, 1));
}

#[test]
fn a_removed_record_is_missing_and_the_history_is_another() {
    let mut pair = Pair::new();
    pair.theirs.remove(1);
    let done = pair.reconciled();
    assert_eq!(names(&done), ["missing", "rewritten", "cut"]);
    let ReconcileFinding::Missing(question) = &done.findings[0] else {
        panic!("{done:?}");
    };
    assert_eq!(question.request_id.as_deref(), Some("asked-2"));
    let ReconcileFinding::Rewritten { gseq, places, .. } = &done.findings[1] else {
        panic!("{done:?}");
    };
    assert_eq!((*gseq, *places), (4, 1));
}

#[test]
fn a_cut_tail_is_missing_and_known() {
    let mut pair = Pair::new();
    pair.theirs.pop();
    let done = pair.reconciled();
    assert_eq!(names(&done), ["missing", "cut"]);
    let ReconcileFinding::Cut {
        shown,
        last,
        signed,
        ..
    } = &done.findings[1]
    else {
        panic!("{done:?}");
    };
    assert_eq!((*shown, *last, *signed), (5, 4, true));
}

#[test]
fn an_invented_record_is_named() {
    let mut pair = Pair::new();
    let mut invented = answered(6);
    invented.rows_returned = 1_000;
    pair.theirs.push(invented);
    let done = pair.reconciled();
    assert_eq!(names(&done), ["invented"]);
    let ReconcileFinding::Invented(question) = &done.findings[0] else {
        panic!("{done:?}");
    };
    assert_eq!((question.gseq, question.rows), (Some(6), 1_000));
    // The same question twice is one too many.
    let mut pair = Pair::new();
    pair.theirs.push(pair.theirs[4].clone());
    assert_eq!(names(&pair.reconciled()), ["invented"]);
}

#[test]
fn every_field_that_both_sides_know_is_compared() {
    type Change = fn(&mut AuditRecord);
    let changes: [(&str, Change); 9] = [
        ("query_hash", |one| one.query_hash = Some([99; 32])),
        ("query_hash", |one| one.query_hash = None),
        ("status", |one| one.http_status = Some(503)),
        ("rows", |one| one.rows_returned += 1),
        ("subject", |one| one.subject = Some(SubjectId::new(id(77)))),
        ("verb", |one| one.verb = Some(AuditText::fixed("search"))),
        ("resource", |one| {
            one.resource = Some(AuditText::fixed("notes"));
        }),
        ("cert_serial", |one| one.cert_serial = None),
        ("outcome", |one| one.outcome = AuditOutcome::Denied),
    ];
    for (field, change) in changes {
        let mut pair = Pair::new();
        change(&mut pair.theirs[4]);
        let done = pair.reconciled();
        assert_eq!(names(&done), ["altered", "rewritten"], "{field}");
        let ReconcileFinding::Altered { question, fields } = &done.findings[0] else {
            panic!("{done:?}");
        };
        assert_eq!(question.request_id.as_deref(), Some("asked-5"));
        let named: Vec<_> = fields.iter().map(|one| one.field).collect();
        assert_eq!(named, [field]);
    }
    // A record under another id of the peer's is the same question all the same.
    let mut pair = Pair::new();
    pair.theirs[4].request_id = AuditText::fixed("another");
    assert_eq!(names(&pair.reconciled()), ["altered", "rewritten"]);
    // What a refusal says is compared too.
    let mut pair = Pair::new();
    pair.theirs[2].deny_code = Some(AuditText::fixed("resource_excluded"));
    let done = pair.reconciled();
    assert_eq!(names(&done), ["altered", "rewritten"]);
}

#[test]
fn what_cannot_be_decided_is_counted() {
    let mut pair = Pair::new();
    // The first was answered from memory after it had been answered; the second died once before it was answered.
    let mut again = pair.own.questions[0].clone();
    (again.attempt, again.peer_request_id) = (0, None);
    pair.own.questions.push(again);
    pair.own.questions[1].attempt = 2;
    pair.theirs[1].attempt = 2;
    let mut died = answered(1);
    died.id = id(60);
    died.request_id = AuditText::short(&id(60).to_string());
    died.peer_request_id = Some(AuditText::fixed("asked-2"));
    (died.outcome, died.http_status, died.rows_returned) = (AuditOutcome::Aborted, None, 0);
    pair.theirs.push(died);
    // One that was never answered, here or there.
    let mut silent = pair.own.questions[0].clone();
    silent.request_id = AuditText::fixed("asked-8");
    silent.peer_request_id = None;
    pair.own.questions.push(silent);
    // Refusals counted into one.
    let mut counted = answered(7);
    counted.peer_request_id = Some(AuditText::fixed("asked-7"));
    counted.outcome = AuditOutcome::RateLimited;
    counted.deny_code = Some(AuditText::fixed("rate_exceeded"));
    (counted.http_status, counted.count, counted.query_hash) = (Some(429), 2, None);
    let mut limited: Vec<AuditRecord> = vec![asked(&counted), asked(&counted), asked(&counted)];
    limited[1].peer_request_id = Some(AuditText::fixed("b-2"));
    limited[2].peer_request_id = Some(AuditText::fixed("b-3"));
    pair.theirs.push(counted);
    pair.own.questions.extend(limited);
    pair.own.witnessed.clear();
    pair.own
        .questions
        .iter_mut()
        .for_each(|own| own.witnessed = None);
    let done = pair.reconciled();
    assert_eq!((done.unanswered, done.counted), (1, 1));
    // Two refusals are counted into the record: the third is missing.
    assert_eq!(names(&done), ["missing"]);
    // All of it within the time that is left for both logs to settle.
    pair.own.settle = 2_000_000;
    let done = pair.reconciled();
    assert_eq!(done.findings, []);
    assert_eq!(done.recent, 2);
}

#[test]
fn an_export_that_begins_later_is_taken_as_it_is() {
    let pair = Pair::new();
    let all = rows(&pair.theirs, id(1));
    let text = file(&all[2..], &pair.signer);
    let export = opened(&text, &pair.signer.verifier());
    assert_eq!(export.faults, []);
    let done = reconcile(&export, &pair.own);
    assert_eq!(done.findings, []);
    assert_eq!((done.before_export, done.agreed), (2, 3));
    // The places behind it are still those that were shown.
    assert_eq!(done.checkpoints, 2);
}

#[test]
fn a_file_that_was_changed_says_where() {
    let pair = Pair::new();
    let key = pair.signer.verifier();
    let text = file(&rows(&pair.theirs, id(1)), &pair.signer);
    let lines: Vec<&str> = text.lines().collect();
    let broken = |lines: &[&str]| opened(&lines.join("\n"), &key).faults;
    assert_eq!(broken(&lines), []);
    let mut without = lines.clone();
    without.remove(2);
    assert!(matches!(
        broken(&without)[..],
        [
            GrantExportFault::Broken { line: 3, gseq: 3 },
            GrantExportFault::Signature
        ]
    ));
    assert_eq!(broken(&lines[..6]), [GrantExportFault::CutOff]);
    let shown = lines[3].replace("\"http_status\":403", "\"http_status\":200");
    assert_ne!(shown, lines[3]);
    let mut changed = lines.clone();
    changed[3] = &shown;
    assert_eq!(broken(&changed), [GrantExportFault::ShowsOther { line: 4 }]);
    let other = signer();
    let foreign = file(&rows(&pair.theirs, id(1)), &other);
    assert_eq!(opened(&foreign, &key).faults, [GrantExportFault::Signature]);
}

/// Made by another program, from the description in `docs/protocol.md`.
const BY_ANOTHER: &str = include_str!("../../../../fuzz/corpus/checkpoint/export");

#[test]
fn the_hashes_are_those_of_the_description() {
    let export = opened(BY_ANOTHER, &signer().verifier());
    assert_eq!(export.records.len(), 3);
    // Everything but the signature, which nobody made.
    assert_eq!(export.faults, [GrantExportFault::Signature]);
}

#[test]
fn the_serving_side_does_not_export_what_it_did_not_write() {
    let pair = Pair::new();
    let mut rows = rows(&pair.theirs, id(1));
    rows[3].record.bytes_out += 1;
    let signer = Arc::clone(&pair.signer);
    let (mut exporter, mut text) = GrantExporter::begin(signer, grant(), UnixMillis(1_000_000));
    for row in &rows[..3] {
        exporter.row(row, &mut text).unwrap();
    }
    let unfaithful = exporter.row(&rows[3], &mut text).unwrap_err();
    assert_eq!(unfaithful.gseq, 4);
}

#[test]
fn nothing_that_the_peer_may_not_know_is_told() {
    let mut record = answered(1);
    record.deny_code = Some(AuditText::fixed("subject_mismatch"));
    record.deny_stage = Some(AuditText::fixed("identity"));
    record.latency_us = 77;
    record.decision = Some(RecordedDecision::from_bytes(vec![1, 2]).unwrap());
    let told = canonical::decode(&canonical::told_bytes(&record)).unwrap();
    assert_eq!((told.rows_withheld, told.latency_us), (0, 0));
    assert_eq!((told.revision, told.peer), (None, None));
    assert_eq!(
        (told.deny_code.clone(), told.deny_stage.clone()),
        (None, None)
    );
    assert_eq!((told.decision.clone(), told.detail.clone()), (None, None));
    assert_eq!(told.peer_request_id, record.peer_request_id);
    assert_eq!(canonical::told_bytes(&told), canonical::told_bytes(&record));
    // So the hash does not depend on it.
    let mut other = record.clone();
    (other.rows_withheld, other.revision) = (0, Some(9_999));
    other.detail = Some(AuditDetail::new().count("n", 1));
    let mut buffer = Vec::new();
    let place = |record: &AuditRecord, buffer: &mut Vec<u8>| {
        HistoryHead::NONE.next(grant(), id(1), record, buffer)
    };
    assert_eq!(place(&record, &mut buffer), place(&other, &mut buffer));
    other.rows_returned += 1;
    assert_ne!(place(&record, &mut buffer), place(&other, &mut buffer));
}

#[test]
fn a_signature_is_for_one_grant_and_place() {
    let (signer, other) = (signer(), signer());
    let key = signer.verifier();
    let head = HistoryHead {
        chain: id(1),
        gseq: 5,
        ghash: [4; 32],
    };
    let signature = HeaderSignature::over(&signer, grant(), &head, UnixMillis(9)).unwrap();
    assert!(signature.is_by(&key, grant(), &head));
    assert!(!signature.is_by(&other.verifier(), grant(), &head));
    assert!(!signature.is_by(&key, GrantId::new(id(8)), &head));
    let next = HistoryHead { gseq: 6, ..head };
    assert!(!signature.is_by(&key, grant(), &next));
    let later = HeaderSignature {
        at: UnixMillis(10),
        ..signature
    };
    assert!(!later.is_by(&key, grant(), &head));
}

proptest! {
    #[test]
    fn a_header_reads_back_and_has_one_spelling(
        chain in any::<u128>(),
        gseq in 1..u64::MAX,
        ghash in any::<[u8; 32]>(),
        signed in prop::option::of((any::<i64>(), any::<[u8; 32]>())),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let head = HistoryHead { chain: Uuid::from_u128(chain), gseq, ghash };
        let signed = signed.map(|(at, half)| HeaderSignature {
            at: UnixMillis(at),
            signature: [half, half].concat().try_into().unwrap(),
        });
        let header = CheckpointHeader { head, signed };
        let text = header.value();
        prop_assert_eq!(CheckpointHeader::parse(text.as_bytes()), Some(header));
        prop_assert_eq!(HistoryHead::from_bytes(&head.to_bytes()), Some(head));
        let mut bytes = text.into_bytes();
        let place = at.index(bytes.len());
        if bytes[place] != with {
            bytes[place] = with;
            prop_assert_ne!(CheckpointHeader::parse(&bytes), Some(header));
        }
    }

    #[test]
    fn no_bytes_are_a_header_by_accident(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(header) = CheckpointHeader::parse(&bytes) {
            prop_assert_eq!(header.value().into_bytes(), bytes);
        }
    }
}
