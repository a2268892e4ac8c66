//! `audit reconcile`: what this side has recorded of its questions, held against what the peer exports of them.
//!
//! Invariant: exit 0 says that nothing was found that does not fit, and what could not be decided is printed with it. The comparison
//! itself is `audit/history/reconcile.rs`.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::super::arguments::AuditReconcile;
use super::super::failure::CliFailure;
use super::super::output::{Console, plain};
use super::super::{Context, segment};
use super::verify::{open, unreadable};
use crate::admin::{AskedHead, read_asked};
use crate::audit::checkpoint::CheckpointVerifier;
use crate::audit::history::export::{GrantExport, read, read_head};
use crate::audit::history::reconcile::{
    Own, Question, ReconcileFinding, Reconciled, reconcile as compare,
};
use crate::exit::Exit;

const WHAT: &str = "reconciling with the peer";
const COLUMNS: [(&str, &str); 6] = [
    ("FINDING", "/finding"),
    ("RECORD", "/record"),
    ("REQUEST", "/request"),
    ("AT", "/at"),
    ("ASKED", "/asked"),
    ("WHAT", "/what"),
];

pub(super) async fn reconcile(
    context: &Context<'_>,
    asked: &AuditReconcile,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let lines = lines_of(&asked.export)?;
    let mut lines = lines.into_iter();
    let head = read_head(&lines.next().unwrap_or_default()).map_err(|why| {
        CliFailure::new(Exit::Usage, "unreadable", WHAT, why.to_string())
            .remedy("name a file that `audit export --grant` wrote on the side that serves")
    })?;
    let mut target = format!("/admin/v1/audit/asked?grant={}", head.grant);
    if let Some(peer) = &asked.peer {
        target.push_str(&format!("&peer={}", segment(peer)));
    }
    let mut own = Vec::new();
    context.admin()?.download(WHAT, &target, &mut own).await?;
    let (known, questions) = read_asked(&String::from_utf8_lossy(&own))
        .map_err(|why| CliFailure::new(Exit::Failed, "malformed_answer", WHAT, why))?;
    let (key, whose) = key_of(asked, &known, &head.key)?;
    let export = read(head, lines, &key);
    let own = Own {
        questions,
        witnessed: known
            .witnessed
            .iter()
            .flat_map(|kept| kept.witnesses(known.grant, &key))
            .collect(),
        since: known.since,
        settle: i64::from(asked.settle).saturating_mul(1_000),
    };
    let done = compare(&export, &own);
    let clean = done.findings.is_empty();
    if console.json {
        console.document(&document(&export, &known, &done, whose))?;
    } else {
        print(&export, &known, &done, console)?;
        console.note(whose)?;
    }
    Ok(if clean { Exit::Done } else { Exit::Failed })
}

fn lines_of(path: &Path) -> Result<Vec<String>, CliFailure> {
    let lines: io::Result<Vec<String>> = io::BufRead::lines(open(path)?).collect();
    lines.map_err(|error| unreadable(path, &error))
}

/// The key that has to have signed the export, and what that says.
fn key_of(
    asked: &AuditReconcile,
    known: &AskedHead,
    named: &str,
) -> Result<(CheckpointVerifier, &'static str), CliFailure> {
    let (text, whose) = match (&asked.key, &known.checkpoint_key) {
        (Some(given), _) => (given.as_str(), "signed by the key that was given"),
        (None, Some(kept)) => (
            kept.as_str(),
            "signed by the key that the peer gave at enrollment",
        ),
        (None, None) => (
            named,
            "signed by the key that the file names itself: give --key to know whose",
        ),
    };
    let key = CheckpointVerifier::parse(text).ok_or_else(|| {
        let why = "a key is 64 hex digits, as `status` shows it on the side that serves";
        CliFailure::new(Exit::Usage, "usage", WHAT, why)
    })?;
    Ok((key, whose))
}

fn document(export: &GrantExport, known: &AskedHead, done: &Reconciled, whose: &str) -> Value {
    json!({
        "clean": done.findings.is_empty(),
        "grant": known.grant,
        "peer": known.peer,
        "user": known.user,
        "exported_at": export.head.at,
        "records": export.records.len(),
        "first": export.records.first().map(|one| one.head.gseq),
        "last": export.records.last().map(|one| one.head.gseq),
        "key": whose,
        "result": done,
    })
}

fn print(
    export: &GrantExport,
    known: &AskedHead,
    done: &Reconciled,
    console: &mut Console<'_>,
) -> Result<(), CliFailure> {
    let records = export.records.len();
    let number = |one: Option<&crate::audit::history::export::ExportedRecord>| {
        one.map_or(0, |one| one.head.gseq)
    };
    console.line(&format!(
        "peer {}, grant {}: {records} record(s) of the peer, {} to {}, exported {}; {} question(s) of our own",
        known.peer,
        known.grant,
        number(export.records.first()),
        number(export.records.last()),
        export.head.at,
        done.questions,
    ))?;
    if done.findings.is_empty() {
        console.line(&format!(
            "clean: {} question(s) are on both sides and agree; {} checkpoint(s) that the peer showed are met, {} of them signed",
            done.agreed, done.checkpoints, done.signed_checkpoints
        ))?;
    } else {
        console.line(&format!("NOT CLEAN  {} finding(s)", done.findings.len()))?;
        let rows: Vec<Value> = done.findings.iter().map(shown).collect();
        console.table(&COLUMNS, &rows)?;
    }
    for (count, what) in [
        (
            done.unanswered,
            "question(s) were never answered: the peer may have them or not",
        ),
        (
            done.counted,
            "refusal(s) are counted into records of others like them",
        ),
        (
            done.recent,
            "question(s), record(s) or checkpoint(s) are too recent to be on both sides (--settle)",
        ),
        (
            done.before_export,
            "question(s) are from before the export begins: ask the peer for the rest of it",
        ),
        (
            done.before_own,
            "record(s) are from before our own log begins",
        ),
        (
            done.cut_off_there,
            "answer(s) that we have whole are recorded there as cut off, as after a crash",
        ),
    ] {
        if count > 0 {
            console.note(&format!("{count} {what}"))?;
        }
    }
    Ok(())
}

/// A finding as a row of the table.
fn shown(finding: &ReconcileFinding) -> Value {
    let row = |finding: &str, question: &Question, what: String| {
        let asked: Vec<&str> = [&question.verb, &question.resource]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        json!({
            "finding": finding,
            "record": question.gseq,
            "request": question.request_id.as_ref().or(question.peer_request_id.as_ref()),
            "at": question.at,
            "asked": asked.join(" "),
            "what": what,
        })
    };
    let outcome = |question: &Question| {
        format!(
            "{} {}, {} row(s)",
            question.outcome,
            question
                .http_status
                .map_or_else(|| "-".to_owned(), |status| status.to_string()),
            question.rows
        )
    };
    match finding {
        ReconcileFinding::Missing(question) => row(
            "missing",
            question,
            format!("the peer has no record of it: {}", outcome(question)),
        ),
        ReconcileFinding::Invented(question) => row(
            "invented",
            question,
            format!("we did not ask that: {}", outcome(question)),
        ),
        ReconcileFinding::Altered { question, fields } => {
            let fields: Vec<String> = fields
                .iter()
                .map(|one| format!("{}: {} here, {} there", one.field, one.own, one.peer))
                .collect();
            row("altered", question, fields.join("; "))
        }
        ReconcileFinding::Cut {
            shown,
            last,
            at,
            signed,
            ..
        } => json!({
            "finding": "cut",
            "record": shown,
            "at": at,
            "what": format!(
                "the peer showed record {shown}{}; its export ends with {last}",
                by_signature(*signed)
            ),
        }),
        ReconcileFinding::Rewritten {
            gseq,
            places,
            signed,
            ..
        } => json!({
            "finding": "rewritten",
            "record": gseq,
            "what": format!(
                "the history up to here is not the one that the peer showed{}: {places} checkpoint(s) are not met",
                by_signature(*signed)
            ),
        }),
        ReconcileFinding::Broken { what } => json!({"finding": "broken", "what": plain(what)}),
    }
}

const fn by_signature(signed: bool) -> &'static str {
    if signed { ", signed" } else { "" }
}
