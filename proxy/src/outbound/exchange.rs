//! One request through the door, from its first byte to its one audit record.
//!
//! Invariant: the audit journal knows of the question before the peer does, and every exchange leaves exactly one
//! record whatever becomes of it: one that is dropped unfinished says `aborted`. No body is ever in it.

use std::sync::Arc;
use std::time::Duration;

use certs::Clock;
use http::StatusCode;
use policy::id::SubjectId;
use policy::peer::PeerName;
use policy::resource::Resource;
use policy::time::UnixMillis;
use policy::verb::Verb;
use serde_json::Value;
use uuid::Uuid;

use super::failure::DoorFailure;
use super::route::PeerRoute;
use crate::audit::{
    AuditOutcome, AuditRecord, AuditSlot, AuditText, AuditUnavailable, Direction, record_id,
};
use crate::message::target::Route;
use crate::telemetry::TraceParent;
use crate::telemetry::metrics::Side;
use crate::telemetry::spans::{RequestSpan, Spans};

const NANOS_PER_MICRO: u64 = 1_000;

/// A UUIDv7 of the present time.
pub(super) fn time_ordered_id(clock: &dyn Clock) -> Uuid {
    record_id(UnixMillis(clock.unix_millis()))
}

/// What is known of a request before the peer is asked.
pub(super) struct Asked<'a> {
    pub(super) route: &'a Route,
    pub(super) body: &'a [u8],
    pub(super) request_id: &'a str,
    /// The trace that the caller names.
    pub(super) trace: Option<TraceParent>,
    /// Where spans are made.
    pub(super) spans: &'a Spans,
}

/// The record of one exchange in the making.
pub(super) struct Exchange {
    record: Option<(AuditSlot, AuditRecord)>,
    span: RequestSpan,
    peer: Option<PeerName>,
    cached: bool,
    clock: Arc<dyn Clock>,
    began: u64,
}

impl Exchange {
    /// Begins a record for asking `peer`.
    pub(super) fn begin(
        slot: AuditSlot,
        clock: &Arc<dyn Clock>,
        peer: &PeerRoute,
        asked: &Asked<'_>,
    ) -> Self {
        let mut exchange = Self::begin_local(slot, clock, peer.subject, asked);
        let serial = peer.client.as_ref().ok();
        let serial = serial.map(|ready| AuditText::short(&ready.serial));
        exchange.peer = Some(peer.name.clone());
        exchange.note(|record| {
            record.peer = Some(peer.peer);
            record.grant = Some(peer.grant);
            record.cert_serial = serial;
        });
        exchange
    }

    /// Begins a record for asking the own gateway of the user who is `subject`: one without peer and grant.
    pub(super) fn begin_local(
        slot: AuditSlot,
        clock: &Arc<dyn Clock>,
        subject: SubjectId,
        asked: &Asked<'_>,
    ) -> Self {
        let mut record = AuditRecord::new(
            time_ordered_id(clock.as_ref()),
            UnixMillis(clock.unix_millis()),
            Direction::Outbound,
            AuditOutcome::Aborted,
            AuditText::short(asked.request_id),
        );
        let span = asked.spans.begin(Side::Ask, record.at.0, asked.trace);
        let named = span.named();
        record.trace_id = named.map(|trace| AuditText::short(&trace.trace_id()));
        record.subject = Some(subject);
        record.verb = Some(AuditText::fixed(asked.route.verb()));
        record.resource = asked.route.resource().map(AuditText::short);
        record.query_hash = query_hash(asked.route, asked.body);
        Self {
            record: Some((slot, record)),
            span,
            peer: None,
            cached: false,
            clock: Arc::clone(clock),
            began: clock.boot_nanos(),
        }
    }

    /// Writes down what is known, before the peer is asked.
    pub(super) fn intend(&mut self) -> Result<(), AuditUnavailable> {
        match &mut self.record {
            Some((slot, record)) => slot.intend(record),
            None => Ok(()),
        }
    }

    /// What is sent on of the trace.
    pub(super) fn onward(&self) -> Option<TraceParent> {
        self.span.onward()
    }

    /// The span itself, where there is one.
    pub(super) fn here(&self) -> Option<TraceParent> {
        self.span.here()
    }

    /// Notes that the answer is given from memory.
    pub(super) const fn note_cached(&mut self) {
        self.cached = true;
    }

    /// Changes the record before it is finished.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut AuditRecord)) {
        if let Some((_, record)) = &mut self.record {
            change(record);
        }
    }

    /// Ends the exchange with a failure.
    pub(super) fn fail(&mut self, failure: &DoorFailure) {
        let (stage, status) = (failure.stage(), failure.status());
        let reason = failure.reason().map(AuditText::short);
        self.note(|record| {
            record.deny_stage = Some(AuditText::fixed(stage));
            record.deny_code = reason;
        });
        let outcome = if status == StatusCode::TOO_MANY_REQUESTS {
            AuditOutcome::RateLimited
        } else if status.is_client_error() {
            AuditOutcome::Denied
        } else {
            AuditOutcome::Error
        };
        self.finish(outcome, status);
    }

    /// Ends the exchange: the record is written now.
    pub(super) fn finish(&mut self, outcome: AuditOutcome, status: StatusCode) {
        self.note(|record| {
            record.outcome = outcome;
            record.http_status = Some(status.as_u16());
        });
        self.submit();
    }

    fn submit(&mut self) {
        if let Some((slot, mut record)) = self.record.take() {
            record.latency_us =
                self.clock.boot_nanos().saturating_sub(self.began) / NANOS_PER_MICRO;
            slot.settle(&record);
            let latency = Duration::from_micros(record.latency_us);
            let peer = || self.peer.as_ref().map(ToString::to_string);
            record.end_span(&mut self.span, peer, (latency, self.cached));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.submit();
    }
}

/// The hash of the question, when verb, resource and body are ones that have a canonical form.
pub(super) fn query_hash(route: &Route, body: &[u8]) -> Option<[u8; 32]> {
    let verb = Verb::parse(route.verb()).ok()?;
    let resource = match route.resource() {
        Some(name) => Some(Resource::parse(name).ok()?),
        None => None,
    };
    let body = if body.is_empty() {
        Value::Null
    } else {
        policy::strict_json::parse_bytes(body).ok()?
    };
    let params = route.hashed_params(body.get("params").unwrap_or(&Value::Null));
    let cursor = body.get("cursor").and_then(Value::as_str);
    Some(*policy::query_hash::QueryHash::of(verb, resource, &params, cursor).as_bytes())
}
