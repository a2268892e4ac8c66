//! What the asking side has recorded itself, held against the history that the serving side exports.
//!
//! Invariant: every question that was answered is looked for in the export, every record of the export among the own
//! questions, and every place that the peer ever showed in the history that it exports now; what does not fit is named
//! one by one. What cannot be decided (too recent, from before one of the two begins, never answered) is counted, never left out.
//!
//! Pure: reading files and logs is elsewhere.

use std::collections::HashMap;

use policy::time::UnixMillis;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::HistoryHead;
use super::export::{ExportedRecord, GrantExport};
use crate::audit::{AuditOutcome, AuditRecord, AuditText};

/// The request id of a refusal that was not recorded.
const UNRECORDED: &str = "-";
/// The stage of a refusal that is the peer's own.
const BY_PEER: &str = "peer";
/// Times one of its own records can be sent.
const ATTEMPTS_MAX: u32 = 9;

/// A place that the peer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The place.
    pub head: HistoryHead,
    /// When it was heard, by our clock; of a signed one, when it was signed, by the peer's.
    pub at: UnixMillis,
    /// A signature of it was verified.
    pub signed: bool,
}

/// What the asking side knows.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Its questions under the grant, in the order in which they were written down.
    pub questions: Vec<AuditRecord>,
    /// Places that the peer showed, besides those in the questions.
    pub witnessed: Vec<Witness>,
    /// From when on its log is complete; `None` when it always was.
    pub since: Option<UnixMillis>,
    /// How long a request may take to show in both logs, and clocks may differ, milliseconds.
    pub settle: i64,
}

/// A field that the two sides do not agree on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub field: &'static str,
    /// What this side has.
    pub own: Value,
    /// What the export says.
    pub peer: Value,
}

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReconcileFinding {
    /// A question of ours that was answered is not in the export.
    Missing(Question),
    /// A record of the export is no question of ours.
    Invented(Question),
    /// Both have it, and do not agree.
    Altered {
        /// Which.
        #[serde(flatten)]
        question: Question,
        /// In what.
        fields: Vec<Difference>,
    },
    /// The export ends before a place that the peer has shown.
    Cut {
        /// The number of the record shown.
        shown: u64,
        /// The chain it was in.
        chain: Uuid,
        /// The last record of the export.
        last: u64,
        /// When it was shown, or signed.
        at: UnixMillis,
        /// Whether the peer signed it.
        signed: bool,
    },
    /// The export has another record at a place that the peer has shown.
    Rewritten {
        /// The number of the first such record.
        gseq: u64,
        /// The hash that was shown, hex.
        shown: String,
        /// The hash in the export, hex.
        exported: String,
        /// How many places that were shown are others in the export.
        places: u64,
        /// Whether the peer signed the first.
        signed: bool,
    },
    /// The export is not in order.
    Broken {
        /// What is wrong.
        what: String,
    },
}

/// A question, to be found again on both sides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// Our id of the request.
    pub request_id: Option<String>,
    /// The peer's id of it.
    pub peer_request_id: Option<String>,
    /// Its number in the export.
    pub gseq: Option<u64>,
    /// When.
    pub at: UnixMillis,
    /// What was asked.
    pub verb: Option<String>,
    /// Of what.
    pub resource: Option<String>,
    /// How it ended.
    pub outcome: &'static str,
    /// The status.
    pub http_status: Option<u16>,
    /// Rows.
    pub rows: u64,
}

fn text(text: Option<&AuditText>) -> Option<String> {
    text.map(|text| text.as_str().to_owned())
}

impl Question {
    fn own(record: &AuditRecord) -> Self {
        Self {
            request_id: Some(record.request_id.as_str().to_owned()),
            peer_request_id: text(record.peer_request_id.as_ref()),
            gseq: None,
            at: record.at,
            verb: text(record.verb.as_ref()),
            resource: text(record.resource.as_ref()),
            outcome: record.outcome.as_str(),
            http_status: record.http_status,
            rows: record.rows_returned,
        }
    }

    fn exported(exported: &ExportedRecord) -> Self {
        let record = &exported.record;
        Self {
            request_id: text(record.peer_request_id.as_ref()),
            peer_request_id: Some(record.request_id.as_str().to_owned()),
            gseq: Some(exported.head.gseq),
            ..Self::own(record)
        }
    }
}

/// What was compared, and what does not fit.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Reconciled {
    /// Questions of ours, without those answered from memory.
    pub questions: u64,
    /// Those that the export has, and that agree.
    pub agreed: u64,
    /// Records of the export that stand for several refusals, and refusals of ours among them.
    pub counted: u64,
    /// Questions without an answer: whether the peer has them cannot be said.
    pub unanswered: u64,
    /// Questions and records too recent to be in both logs.
    pub recent: u64,
    /// Questions from before the export begins.
    pub before_export: u64,
    /// Records from before our own log begins.
    pub before_own: u64,
    /// Answers that we have whole and the peer recorded as cut off, as after a crash.
    pub cut_off_there: u64,
    /// Places shown by the peer that the export meets.
    pub checkpoints: u64,
    /// Those of them that were signed.
    pub signed_checkpoints: u64,
    /// What does not fit.
    pub findings: Vec<ReconcileFinding>,
}

/// Compares.
#[must_use]
pub fn reconcile(export: &GrantExport, own: &Own) -> Reconciled {
    let mut comparing = Comparing::new(export, own);
    for fault in &export.faults {
        comparing.done.findings.push(ReconcileFinding::Broken {
            what: fault.to_string(),
        });
    }
    for question in &own.questions {
        comparing.question(question);
    }
    comparing.leftovers();
    comparing.witnesses();
    comparing.done
}

struct Comparing<'e> {
    export: &'e GrantExport,
    own: &'e Own,
    /// Records by the peer's id.
    by_id: HashMap<&'e str, usize>,
    /// Records by our id.
    by_question: HashMap<&'e str, Vec<usize>>,
    /// Which records are accounted for.
    explained: Vec<bool>,
    /// Refusals counted into records, by outcome and code, not accounted for.
    surplus: HashMap<(AuditOutcome, Option<&'e str>), u64>,
    /// What ended later may be missing from the export.
    horizon: UnixMillis,
    /// What began earlier may be missing from the export.
    begins: Option<UnixMillis>,
    done: Reconciled,
}

impl<'e> Comparing<'e> {
    fn new(export: &'e GrantExport, own: &'e Own) -> Self {
        let mut by_id = HashMap::new();
        let mut by_question: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut surplus = HashMap::new();
        for (at, exported) in export.records.iter().enumerate() {
            let record = &exported.record;
            // Of two with the same id the first is it; the other is nobody's.
            by_id.entry(record.request_id.as_str()).or_insert(at);
            if let Some(id) = &record.peer_request_id {
                by_question.entry(id.as_str()).or_default().push(at);
            }
            if record.count > 1 {
                let more = surplus.entry(refusal(record)).or_insert(0_u64);
                *more = more.saturating_add(record.count.saturating_sub(1));
            }
        }
        let begins = export
            .records
            .first()
            .filter(|first| first.head.gseq > 1)
            .map(|first| first.record.at.saturating_add(own.settle));
        Self {
            export,
            own,
            by_id,
            by_question,
            explained: vec![false; export.records.len()],
            surplus,
            horizon: export.head.at.saturating_add(own.settle.saturating_neg()),
            begins,
            done: Reconciled::default(),
        }
    }

    /// Looks for one of our questions in the export.
    fn question(&mut self, own: &'e AuditRecord) {
        if own.attempt == 0 {
            // Answered from memory: the peer was not asked.
            return;
        }
        self.done.questions = self.done.questions.saturating_add(1);
        let answered = own
            .peer_request_id
            .as_ref()
            .map(AuditText::as_str)
            .filter(|id| *id != UNRECORDED);
        let Some(id) = answered else {
            self.done.unanswered = self.done.unanswered.saturating_add(1);
            self.explain(own, ATTEMPTS_MAX);
            return;
        };
        let found = self.by_id.get(id).copied().or_else(|| self.renamed(own));
        let before = self.begins.is_some_and(|begins| own.at < begins);
        if let Some(at) = found {
            self.explain(own, own.attempt.saturating_sub(1));
            self.compare(own, at);
        } else if before {
            self.done.before_export = self.done.before_export.saturating_add(1);
        } else if ended(own) > self.horizon {
            self.done.recent = self.done.recent.saturating_add(1);
        } else if self.is_counted(own) {
            self.done.counted = self.done.counted.saturating_add(1);
        } else {
            let missing = ReconcileFinding::Missing(Question::own(own));
            self.done.findings.push(missing);
        }
    }

    /// The record of the same try of the same question under another id of the peer's.
    fn renamed(&self, own: &AuditRecord) -> Option<usize> {
        let records = self.by_question.get(own.request_id.as_str())?;
        records.iter().copied().find(|at| {
            let is_free = self.explained.get(*at) == Some(&false);
            let exported = self.export.records.get(*at);
            is_free && exported.is_some_and(|one| one.record.attempt == own.attempt)
        })
    }

    /// Tries of a question up to this one are accounted for by it.
    fn explain(&mut self, own: &AuditRecord, attempts: u32) {
        let records = self.by_question.get(own.request_id.as_str());
        for at in records.into_iter().flatten() {
            let earlier = self
                .export
                .records
                .get(*at)
                .is_some_and(|one| one.record.attempt <= attempts);
            if let (true, Some(explained)) = (earlier, self.explained.get_mut(*at)) {
                *explained = true;
            }
        }
    }

    /// Whether a refusal that is not there may be one of those counted into a record.
    fn is_counted(&mut self, own: &'e AuditRecord) -> bool {
        match self.surplus.get_mut(&refusal(own)) {
            Some(left) if *left > 0 => {
                *left = left.saturating_sub(1);
                true
            }
            _ => false,
        }
    }

    fn compare(&mut self, own: &AuditRecord, at: usize) {
        let (Some(exported), Some(explained)) =
            (self.export.records.get(at), self.explained.get_mut(at))
        else {
            return;
        };
        *explained = true;
        let fields = differences(own, &exported.record);
        if fields.is_empty() {
            self.done.agreed = self.done.agreed.saturating_add(1);
            let cut_off = own.outcome == AuditOutcome::Allowed
                && exported.record.outcome == AuditOutcome::Aborted;
            if cut_off {
                self.done.cut_off_there = self.done.cut_off_there.saturating_add(1);
            }
            return;
        }
        let mut question = Question::own(own);
        question.gseq = Some(exported.head.gseq);
        let altered = ReconcileFinding::Altered { question, fields };
        self.done.findings.push(altered);
    }

    /// Records that no question of ours accounts for.
    fn leftovers(&mut self) {
        let left = self.export.records.iter().zip(&self.explained);
        for (exported, _) in left.filter(|(_, explained)| !**explained) {
            let at = exported.record.at;
            if self.own.since.is_some_and(|since| at < since) {
                self.done.before_own = self.done.before_own.saturating_add(1);
            } else if at > self.horizon {
                self.done.recent = self.done.recent.saturating_add(1);
            } else {
                let invented = ReconcileFinding::Invented(Question::exported(exported));
                self.done.findings.push(invented);
            }
        }
    }

    /// Holds the history against every place that the peer has shown.
    fn witnesses(&mut self) {
        let shown: HashMap<u64, &HistoryHead> = self
            .export
            .records
            .iter()
            .map(|one| (one.head.gseq, &one.head))
            .collect();
        let (first, last) = match (self.export.records.first(), self.export.records.last()) {
            (Some(first), Some(last)) => (first.head.gseq, last.head.gseq),
            _ => (1, 0),
        };
        let in_questions = self.own.questions.iter().filter_map(|own| {
            let (head, at, signed) = (own.witnessed?, ended(own), false);
            Some(Witness { head, at, signed })
        });
        let (mut cut, mut other): (Option<Witness>, Option<Witness>) = (None, None);
        let mut others = 0_u64;
        let mut met: HashMap<HistoryHead, bool> = HashMap::new();
        for witness in in_questions.chain(self.own.witnessed.iter().copied()) {
            let head = witness.head;
            if head.gseq > last {
                // A signature says itself when it was made, by the clock that dated the export.
                let until = if witness.signed {
                    self.export.head.at
                } else {
                    self.horizon
                };
                if witness.at > until {
                    self.done.recent = self.done.recent.saturating_add(1);
                } else if cut.is_none_or(|known| known.head.gseq < head.gseq || witness.signed) {
                    cut = Some(witness);
                }
            } else if shown.get(&head.gseq).is_some_and(|there| **there == head) {
                *met.entry(head).or_default() |= witness.signed;
            } else if head.gseq >= first {
                others = others.saturating_add(1);
                if other.is_none_or(|known| known.head.gseq > head.gseq) {
                    other = Some(witness);
                }
            }
        }
        self.done.checkpoints = u64::try_from(met.len()).unwrap_or(u64::MAX);
        let signed = met.values().filter(|signed| **signed).count();
        self.done.signed_checkpoints = u64::try_from(signed).unwrap_or(u64::MAX);
        if let Some(Witness { head, signed, .. }) = other {
            let there = shown.get(&head.gseq);
            self.done.findings.push(ReconcileFinding::Rewritten {
                gseq: head.gseq,
                shown: hex::encode(head.ghash),
                exported: there.map_or_else(String::new, |there| hex::encode(there.ghash)),
                places: others,
                signed,
            });
        }
        if let Some(Witness { head, at, signed }) = cut {
            self.done.findings.push(ReconcileFinding::Cut {
                shown: head.gseq,
                chain: head.chain,
                last,
                at,
                signed,
            });
        }
    }
}

/// When a question had ended.
fn ended(own: &AuditRecord) -> UnixMillis {
    let took = i64::try_from(own.latency_us / 1_000).unwrap_or(i64::MAX);
    own.at.saturating_add(took)
}

/// What refusals that are counted together have in common, as both sides know it.
fn refusal(record: &AuditRecord) -> (AuditOutcome, Option<&str>) {
    let code = record.deny_code.as_ref().map(AuditText::as_str);
    (record.outcome, code)
}

/// What the two records of one question do not agree on. Only what both sides know is compared.
fn differences(own: &AuditRecord, peer: &AuditRecord) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut differ = |field, own: Value, peer: Value| {
        if own != peer {
            found.push(Difference { field, own, peer });
        }
    };
    let ids = |text: Option<&AuditText>| json!(text.map(AuditText::as_str));
    differ(
        "request_id",
        ids(Some(&own.request_id)),
        ids(peer.peer_request_id.as_ref()),
    );
    differ(
        "peer_request_id",
        ids(own.peer_request_id.as_ref()),
        ids(Some(&peer.request_id)),
    );
    differ("attempt", json!(own.attempt), json!(peer.attempt));
    differ("subject", json!(own.subject), json!(peer.subject));
    differ("verb", ids(own.verb.as_ref()), ids(peer.verb.as_ref()));
    let known = [
        ("resource", &own.resource, &peer.resource),
        ("cert_serial", &own.cert_serial, &peer.cert_serial),
        ("trace_id", &own.trace_id, &peer.trace_id),
    ];
    for (field, own, peer) in known {
        if own.is_some() {
            differ(field, ids(own.as_ref()), ids(peer.as_ref()));
        }
    }
    let answered = own.outcome == AuditOutcome::Allowed;
    // A refusal from before the body was read has no hash.
    if own.query_hash.is_some()
        && (peer.query_hash.is_some() || peer.outcome == AuditOutcome::Allowed)
    {
        let hash = |hash: Option<[u8; 32]>| json!(hash.map(hex::encode));
        differ("query_hash", hash(own.query_hash), hash(peer.query_hash));
    }
    let cut_off = peer.outcome == AuditOutcome::Aborted;
    if answered && !cut_off {
        differ(
            "outcome",
            json!(own.outcome.as_str()),
            json!(peer.outcome.as_str()),
        );
        differ("status", json!(own.http_status), json!(peer.http_status));
        differ("rows", json!(own.rows_returned), json!(peer.rows_returned));
    }
    let refused = own.deny_stage.as_ref().map(AuditText::as_str) == Some(BY_PEER);
    if refused {
        differ("status", json!(own.http_status), json!(peer.http_status));
        differ(
            "code",
            ids(own.deny_code.as_ref()),
            ids(peer.deny_code.as_ref()),
        );
    }
    found
}
