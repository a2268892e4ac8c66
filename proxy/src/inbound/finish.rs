//! One exchange, from its first byte to its one audit record.
//!
//! Invariant: an [`Exchange`] holds space in the audit journal from the start, so a request that
//! cannot be recorded is refused before anything is asked; nothing of an answer is shown before the
//! journal has the intent, and no refusal before it has the record; and dropping an exchange unfinished
//! records `aborted`, so no path can forget the record.

use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use policy::decision::Permit;
use policy::deny::{Deny, DenyCode};
use policy::id::{GrantId, PeerId, SubjectId};
use policy::recorded::RecordedDecision;
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;
use uuid::Uuid;

use crate::audit::{AuditOutcome, AuditRecord, AuditSink, AuditSlot, AuditText, Direction};
use crate::message::headers::RequestTag;
use crate::telemetry::metrics::{RowsKind, Side};
use crate::telemetry::spans::{RequestSpan, Spans};
use crate::telemetry::{Metrics, TraceParent};

/// What every exchange needs to record itself.
#[derive(Clone)]
pub struct Recorder {
    /// Where records go.
    pub audit: AuditSink,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// Where their spans are made.
    pub spans: Spans,
    /// When they happened.
    pub clock: Arc<dyn Clock>,
}

/// How an exchange ended, with its figures.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// For the record.
    pub outcome: AuditOutcome,
    /// Why there were no rows.
    pub denied: Option<DenyCode>,
    /// The status that was sent.
    pub status: u16,
}

/// Figures of an answer, filled in as it is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Rows sent.
    pub returned: u64,
    /// Rows the gateway showed and the filter withheld.
    pub withheld: u64,
    /// Members removed from the rows sent.
    pub redacted: u64,
    /// Bytes of the body sent.
    pub bytes: u64,
}

/// A request under way.
pub struct Exchange {
    recorder: Recorder,
    slot: Option<AuditSlot>,
    began: u64,
    verb: &'static str,
    record: AuditRecord,
    span: RequestSpan,
    /// Figures of the answer so far.
    pub figures: Figures,
}

impl Exchange {
    /// Begins an exchange and reserves its space in the audit journal.
    ///
    /// # Errors
    /// [`DenyCode::AuditUnavailable`] when there is none: the request must be refused.
    pub fn begin(recorder: &Recorder) -> Result<Self, DenyCode> {
        let slot = recorder
            .audit
            .reserve()
            .map_err(|_| DenyCode::AuditUnavailable)?;
        let id = Uuid::now_v7();
        let record = AuditRecord::new(
            id,
            UnixMillis(recorder.clock.unix_millis()),
            Direction::Inbound,
            AuditOutcome::Aborted,
            AuditText::short(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        );
        Ok(Self {
            recorder: recorder.clone(),
            slot: Some(slot),
            began: recorder.clock.boot_nanos(),
            verb: "unknown",
            // Begun anew when it is known what the peer says of a trace.
            span: Spans::off().begin(Side::Serve, record.at.0, None),
            record,
            figures: Figures::default(),
        })
    }

    /// The id minted for this request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.record.request_id.as_str()
    }

    /// When it began.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.record.at
    }

    /// When it was received, nanoseconds since boot.
    #[must_use]
    pub const fn began(&self) -> u64 {
        self.began
    }

    /// Notes what the peer's headers say about the request.
    pub fn note_peer(
        &mut self,
        request_id: Option<String>,
        attempt: u8,
        trace: Option<TraceParent>,
    ) {
        self.record.peer_request_id = request_id.map(|id| AuditText::short(&id));
        self.record.attempt = u32::from(attempt);
        let spans = &self.recorder.spans;
        self.span = spans.begin(Side::Serve, self.record.at.0, trace);
        let named = self.span.named();
        self.record.trace_id = named.map(|trace| AuditText::short(&trace.trace_id()));
    }

    /// What questions to the gateway say of this request, whose id is `id`.
    #[must_use]
    pub fn tag<'a>(&self, id: &'a str) -> RequestTag<'a> {
        RequestTag {
            id,
            trace: self.span.here(),
        }
    }

    /// Notes the identity of the certificate.
    pub fn note_identity(&mut self, grant: GrantId, subject: SubjectId, serial: &str) {
        self.record.grant = Some(grant);
        self.record.subject = Some(subject);
        self.record.cert_serial = Some(AuditText::short(serial));
    }

    /// Notes the peer that the grant belongs to.
    pub fn note_grant(&mut self, peer: PeerId, revision: u64) {
        self.record.peer = Some(peer);
        self.record.revision = Some(revision);
    }

    /// Notes what is asked.
    pub fn note_query(&mut self, verb: &'static str, resource: Option<&str>) {
        self.verb = verb;
        self.record.verb = Some(AuditText::fixed(verb));
        self.record.resource = resource.map(AuditText::short);
    }

    /// Begins to note a decision under a grant; that of a plan that was given up is forgotten.
    pub fn note_decision(&mut self, entry: &GrantEntry) {
        self.record.decision = Some(RecordedDecision::under(entry));
    }

    /// Notes that the decision was a refusal.
    pub fn note_refusal(&mut self, deny: &Deny) {
        if let Some(decision) = &mut self.record.decision {
            decision.refused(deny);
        }
    }

    /// Notes a permit of the decision.
    pub fn note_permit(&mut self, permit: &Permit) {
        if let Some(decision) = &mut self.record.decision {
            decision.permitted(permit);
        }
    }

    /// Notes the hash of the canonical query.
    pub fn note_query_hash(&mut self, hash: [u8; 32]) {
        self.record.query_hash = Some(hash);
    }

    /// Writes down what is known, before the first byte of an answer: should the process end before the answer does,
    /// the next one records it as aborted. Once is enough.
    ///
    /// # Errors
    /// [`DenyCode::AuditUnavailable`]: nothing may be answered.
    pub fn intend(&mut self) -> Result<(), DenyCode> {
        match &mut self.slot {
            Some(slot) => slot
                .intend(&self.record)
                .map_err(|_| DenyCode::AuditUnavailable),
            None => Ok(()),
        }
    }

    /// Ends an exchange of which something was shown: its record is written and it is counted.
    pub fn finish(mut self, ending: Ending) {
        self.settle(ending);
    }

    /// Ends an exchange with a refusal, before anything of that is shown.
    ///
    /// # Errors
    /// [`DenyCode::AuditUnavailable`]: it is not recorded, and that is what is to be answered.
    pub fn refuse(mut self, ending: Ending) -> Result<(), DenyCode> {
        let Some(slot) = self.slot.take() else {
            return Ok(());
        };
        self.end(ending);
        slot.refuse(&self.record)
            .map_err(|_| DenyCode::AuditUnavailable)
    }

    fn settle(&mut self, ending: Ending) {
        if let Some(slot) = self.slot.take() {
            self.end(ending);
            slot.settle(&self.record);
        }
    }

    /// Counts the exchange and completes its record.
    fn end(&mut self, ending: Ending) {
        let elapsed = self.recorder.clock.boot_nanos().saturating_sub(self.began);
        self.count(ending, Duration::from_nanos(elapsed));
        let figures = self.figures;
        let record = &mut self.record;
        record.outcome = ending.outcome;
        record.http_status = (ending.status != 0).then_some(ending.status);
        record.deny_code = ending.denied.map(|code| AuditText::fixed(code.as_str()));
        record.deny_stage = ending
            .denied
            .map(|code| AuditText::fixed(code.stage().as_str()));
        record.rows_returned = figures.returned;
        record.rows_withheld = figures.withheld;
        record.bytes_out = figures.bytes;
        record.latency_us = elapsed / 1000;
        let latency = Duration::from_nanos(elapsed);
        let peer = || record.peer.map(|peer| peer.to_string());
        record.end_span(&mut self.span, peer, (latency, false));
    }

    fn count(&self, ending: Ending, elapsed: Duration) {
        let figures = self.figures;
        let metrics = &self.recorder.metrics;
        metrics.exchange(
            "inbound",
            self.verb,
            ending.outcome.as_str(),
            ending.denied.map(|code| (code.stage(), code)),
            elapsed,
        );
        metrics.rows(RowsKind::Returned, figures.returned);
        if figures.withheld > 0 {
            metrics.rows(RowsKind::Withheld, figures.withheld);
            tracing::warn!(
                request_id = self.request_id(),
                withheld = figures.withheld,
                "the gateway showed rows that its answer should not have held"
            );
        }
        if figures.redacted > 0 {
            metrics.rows(RowsKind::RedactedMembers, figures.redacted);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle(Ending {
            outcome: AuditOutcome::Aborted,
            denied: None,
            status: 0,
        });
    }
}
