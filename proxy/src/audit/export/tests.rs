//! Exports: what verifies, and how each kind of change is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;

use super::super::chain::{BEGIN_ACTION, Fault};
use super::super::checkpoint::Checkpoint;
use super::super::fixture::{id, record};
use super::super::{AuditOutcome, AuditRecord, AuditText, Direction};
use super::*;

fn key() -> ChainKey {
    ChainKey::new(&[7; 32])
}

fn signer() -> Arc<CheckpointSigner> {
    Arc::new(CheckpointSigner::from_pkcs8(&CheckpointSigner::generate().unwrap()).unwrap())
}

fn shown(row: &AuditRow) -> Value {
    let mut shown = json!({
        "position": row.position,
        "request_id": row.record.request_id.as_str(),
        "rows_returned": row.record.rows_returned,
    });
    if let Some(link) = row.link {
        shown["chain"] = json!(link.chain);
        shown["seq"] = json!(link.seq);
        shown["prev_hash"] = json!(hex::encode(link.prev_hash));
        shown["hash"] = json!(hex::encode(link.hash));
    }
    shown
}

/// The rows of one chain.
fn rows(count: u64) -> Vec<AuditRow> {
    let (key, mut buffer) = (key(), Vec::new());
    let mut head = Head {
        chain: id(999),
        seq: 0,
        hash: NO_HASH,
    };
    let begin = AuditRecord {
        action: Some(AuditText::fixed(BEGIN_ACTION)),
        ..AuditRecord::new(
            id(500),
            UnixMillis(0),
            Direction::Admin,
            AuditOutcome::Allowed,
            AuditText::fixed("begin"),
        )
    };
    let records = std::iter::once(begin).chain((1..count).map(|n| record(10_000 + n)));
    records
        .enumerate()
        .map(|(at, record)| AuditRow {
            position: i64::try_from(at).unwrap() + 1,
            link: Some(key.link(&mut head, &record, &mut buffer)),
            record,
            history: None,
        })
        .collect()
}

struct Made {
    lines: Vec<String>,
    public: CheckpointVerifier,
}

fn made(rows: &[AuditRow], checkpoint: Option<Head>) -> Made {
    let signer = signer();
    let head = ExportHead {
        audit_export: EXPORT_VERSION,
        store: id(1),
        at: UnixMillis(5),
        key: signer.verifier().to_hex(),
        sealed_chain_key: String::new(),
        resumed: Vec::new(),
    };
    let checkpoints: Vec<_> = checkpoint
        .map(|head| {
            signer.sign(&Checkpoint {
                store: id(1),
                head,
                at: UnixMillis(4),
            })
        })
        .into_iter()
        .collect();
    let public = signer.verifier();
    let (mut exporter, mut text) = Exporter::begin(signer, &head, &checkpoints);
    for row in rows {
        exporter.row(row, shown(row), &mut text);
    }
    text.push_str(&exporter.end());
    Made {
        lines: text.lines().map(str::to_owned).collect(),
        public,
    }
}

fn verify(
    lines: &[String],
    public: Option<CheckpointVerifier>,
    key: Option<&ChainKey>,
) -> Result<ExportReport, ExportFault> {
    let first = lines.first().map_or("", String::as_str);
    let mut verifier = ExportVerifier::begin(first, public, key, shown)?;
    for line in &lines[1..] {
        verifier.push(line)?;
    }
    verifier.finish()
}

fn fault(lines: &[String], made: &Made) -> ExportFault {
    verify(lines, Some(made.public), None).unwrap_err()
}

#[test]
fn an_export_verifies_as_it_was_made() {
    let rows = rows(2_500);
    let made = made(&rows, Some(rows[1_200].link.unwrap().head()));
    // Head, checkpoint, rows, two marks, end.
    assert_eq!(made.lines.len(), 2 + 2_500 + 2 + 1);
    for (public, key) in [
        (Some(made.public), Some(key())),
        (Some(made.public), None),
        (None, None),
    ] {
        let report = verify(&made.lines, public, key.as_ref()).unwrap();
        assert_eq!((report.rows.verified, report.checkpoints), (2_500, 1));
        assert_eq!(report.rows.heads, [rows[2_499].link.unwrap().head()]);
        assert_eq!(report.store, id(1));
    }
    let empty = made_empty();
    assert_eq!(
        verify(&empty.lines, Some(empty.public), None)
            .unwrap()
            .rows
            .verified,
        0
    );
}

fn made_empty() -> Made {
    made(&[], None)
}

#[test]
fn each_kind_of_change_is_named_where_it_is() {
    let rows = rows(1_010);
    let made = made(&rows, None);
    // Line 1 is the head, the row of number n is on line n + 1, the mark behind row 1000 on line 1002.
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = made.lines.clone();
        change(&mut lines);
        fault(&lines, &made)
    };
    let removed = with(&|lines| drop(lines.remove(5)));
    let ExportFault::Rows(finding) = removed else {
        panic!("{removed}")
    };
    assert_eq!((finding.position, finding.id), (6, Some(rows[5].record.id)));
    assert!(
        matches!(finding.fault, Fault::Missing { from: 5, to: 5, .. }),
        "{finding:?}"
    );
    let swapped = with(&|lines| lines.swap(5, 6));
    assert!(
        matches!(&swapped, ExportFault::Rows(finding) if finding.position == 6),
        "{swapped}"
    );
    let twice = with(&|lines| lines.insert(6, lines[5].clone()));
    assert!(
        matches!(&twice, ExportFault::Rows(finding) if matches!(finding.fault, Fault::OutOfOrder { expected: 6 })),
        "{twice}"
    );
    let other = with(&|lines| {
        lines[5] = lines[5].replace("\"rows_returned\":10004", "\"rows_returned\":1")
    });
    assert_eq!(other, ExportFault::ShowsOther { line: 6 });
    let digest = with(&|lines| {
        let mut row: RowLine = serde_json::from_str(&lines[5]).unwrap();
        row.digest = "0".repeat(64);
        lines[5] = json(&row);
    });
    assert_eq!(digest, ExportFault::Changed { line: 6 });
    assert_eq!(with(&|lines| lines.truncate(900)), ExportFault::CutOff);
    assert_eq!(with(&|lines| drop(lines.pop())), ExportFault::CutOff);
    assert_eq!(
        with(&|lines| lines.push("{}".to_owned())),
        ExportFault::Changed { line: 1_014 }
    );
    assert!(matches!(
        with(&|lines| lines[7] = "x".to_owned()),
        ExportFault::Malformed { line: 8, .. }
    ));
}

/// A forger without the private key who makes everything agree again is found at the next mark.
#[test]
fn a_forged_row_is_found_at_the_next_signature() {
    let rows = rows(1_010);
    let made = made(&rows, None);
    let mut forged = rows.clone();
    forged[4].record.rows_returned = 0;
    let theirs = self::made(&forged, None);
    let mut lines = theirs.lines.clone();
    lines[0].clone_from(&made.lines[0]);
    assert_eq!(fault(&lines, &made), ExportFault::Changed { line: 2 });
    // With the forger's own head too, the rows agree and the signature does not.
    let found = fault(&theirs.lines, &made);
    assert_eq!(found, ExportFault::Signature { line: 1_002 });
    // Under the forger's key it is one piece: the hashes show that it is not what was recorded.
    assert!(verify(&theirs.lines, Some(theirs.public), None).is_ok());
    let found = verify(&theirs.lines, Some(theirs.public), Some(&key())).unwrap_err();
    let ExportFault::Rows(finding) = found else {
        panic!("{found}")
    };
    assert_eq!((finding.position, finding.fault), (5, Fault::Changed));
}

#[test]
fn a_checkpoint_must_be_met_by_the_rows() {
    let rows = rows(20);
    let beyond = made(&rows[..10], Some(rows[15].link.unwrap().head()));
    let found = fault(&beyond.lines, &beyond);
    assert!(
        matches!(&found, ExportFault::Rows(finding) if matches!(finding.fault, Fault::Cut { found: 10, known: 16, .. })),
        "{found}"
    );
    let other = Head {
        hash: [1; 32],
        ..rows[4].link.unwrap().head()
    };
    let made = made(&rows, Some(other));
    let found = fault(&made.lines, &made);
    assert!(
        matches!(&found, ExportFault::Rows(finding) if finding.fault == Fault::OtherHistory),
        "{found}"
    );
    let stranger = signer().verifier();
    let found = verify(&made.lines, Some(stranger), None).unwrap_err();
    assert_eq!(found, ExportFault::Checkpoint { line: 2 });
}

#[test]
fn what_is_no_export_is_said() {
    let made = made_empty();
    let begin =
        |first: &str| ExportVerifier::begin(first, Some(made.public), None, shown).map(|_| ());
    assert!(matches!(
        begin(""),
        Err(ExportFault::Malformed { line: 1, .. })
    ));
    assert!(matches!(
        begin("{}"),
        Err(ExportFault::Malformed { line: 1, .. })
    ));
    let newer = made.lines[0].replace("\"audit_export\":1", "\"audit_export\":2");
    assert_eq!(begin(&newer), Err(ExportFault::Version(2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever byte is changed, an export does not verify any more.
    #[test]
    fn no_changed_byte_goes_unnoticed(line in 0usize..44, at: prop::sample::Index, flip in 1u8..128) {
        let rows = rows(40);
        let made = made(&rows, Some(rows[30].link.unwrap().head()));
        let mut lines = made.lines.clone();
        let line = line % lines.len();
        let mut bytes = lines[line].clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let Ok(text) = String::from_utf8(bytes) else { return Ok(()) };
        prop_assume!(!text.contains('\n'));
        lines[line] = text;
        // A change that JSON reads as the same is none; the digest covers the text of head and checkpoint.
        let same = line > 1
            && serde_json::from_str::<Value>(&lines[line]).ok() == serde_json::from_str(&made.lines[line]).ok();
        prop_assert_eq!(verify(&lines, Some(made.public), None).is_ok(), same, "{}", lines[line]);
    }
}
