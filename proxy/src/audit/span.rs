//! What a span says at its end: the same as the record of its exchange.

use std::time::Duration;

use super::{AuditOutcome, AuditRecord, AuditText};
use crate::telemetry::spans::{RequestSpan, SpanFacts};

impl AuditRecord {
    /// Ends the span of the exchange that this is the record of. `peer` gives what the peer is called here, `cached` says
    /// whether the answer came from memory.
    pub fn end_span(
        &self,
        span: &mut RequestSpan,
        peer: impl FnOnce() -> Option<String>,
        (latency, cached): (Duration, bool),
    ) {
        if !span.is_recording() {
            return;
        }
        let peer = peer();
        let grant = self.grant.map(|grant| grant.to_string());
        span.end(&SpanFacts {
            request_id: self.request_id.as_str(),
            grant: grant.as_deref(),
            peer: peer.as_deref(),
            verb: self.verb.as_ref().map(AuditText::as_str),
            resource: self.resource.as_ref().map(AuditText::as_str),
            outcome: self.outcome.as_str(),
            reason: self.deny_code.as_ref().map(AuditText::as_str),
            failed: matches!(self.outcome, AuditOutcome::Error | AuditOutcome::Aborted),
            status: self.http_status,
            latency,
            cached,
            rows: self.rows_returned,
        });
    }
}
