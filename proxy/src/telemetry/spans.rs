//! Spans: one `federation.request` for each exchange, on either side.
//!
//! Invariant: what a span says is in the audit record as well; nothing of a question's or an answer's content is in it. A peer
//! cannot make this process record its traces: whether a question of a peer is sampled is decided here alone, and its trace is
//! linked, or continued where the operator says so; who names the id of a continued trace chooses whether it is among the recorded
//! ones. How spans leave the process is in `otlp.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span,
    SpanProcessor,
};

use super::metrics::Side;
use super::trace_parent::TraceParent;

/// The name of the spans (the specification, section 12).
const NAME: &str = "federation.request";

/// How spans are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRules {
    /// How many of a hundred questions that nobody else has decided on are recorded.
    pub percent: u8,
    /// Whether a peer's trace is continued; else it is linked.
    pub join_peers: bool,
}

/// Makes spans, or none. Clones share what they make.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<Making>>);

struct Making {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    join_peers: bool,
}

impl Spans {
    /// Makes none.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Makes spans and gives them to `processor` when they have ended.
    #[must_use]
    pub fn to<P: SpanProcessor + 'static>(
        processor: P,
        rules: SpanRules,
        resource: Resource,
    ) -> Self {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampling {
                percent: rules.percent,
            })
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("mosaic-federation");
        Self(Some(Arc::new(Making {
            provider,
            tracer,
            join_peers: rules.join_peers,
        })))
    }

    /// Begins the span of an exchange that began at `began`, milliseconds since the Unix epoch; `from` is what the one who
    /// asks said of a trace.
    #[must_use]
    pub fn begin(&self, side: Side, began: i64, from: Option<TraceParent>) -> RequestSpan {
        let Some(making) = &self.0 else {
            return RequestSpan { span: None, from };
        };
        let began = UNIX_EPOCH + Duration::from_millis(began.try_into().unwrap_or_default());
        let kind = match side {
            Side::Serve => SpanKind::Server,
            Side::Ask => SpanKind::Client,
        };
        let theirs = from.map(remote);
        let builder = making
            .tracer
            .span_builder(NAME)
            .with_kind(kind)
            .with_start_time(began);
        let context = Context::new();
        let span = match theirs {
            // Who asks at the door is a user of this machine: their trace goes on.
            Some(theirs) if making.join_peers || side == Side::Ask => builder
                .start_with_context(&making.tracer, &context.with_remote_span_context(theirs)),
            Some(theirs) => builder
                .with_links(vec![Link::new(theirs, Vec::new(), 0)])
                .start_with_context(&making.tracer, &context),
            None => builder.start_with_context(&making.tracer, &context),
        };
        RequestSpan {
            span: Some(Box::new((span, began))),
            from,
        }
    }

    /// Ends what makes them; they are with their processor then.
    pub fn end(&self) {
        if let Some(making) = &self.0 {
            let _ = making.provider.shutdown_with_timeout(Duration::ZERO);
        }
    }
}

fn remote(from: TraceParent) -> SpanContext {
    let flags = if from.is_sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from_bytes(from.trace().to_be_bytes()),
        SpanId::from_bytes(from.span().to_be_bytes()),
        flags,
        true,
        TraceState::NONE,
    )
}

/// What a span says at its end.
#[derive(Debug, Clone, Copy)]
pub struct SpanFacts<'a> {
    /// Our id of the request.
    pub request_id: &'a str,
    /// The grant, once it is known.
    pub grant: Option<&'a str>,
    /// The peer, once it is known.
    pub peer: Option<&'a str>,
    /// The verb.
    pub verb: Option<&'a str>,
    /// The resource, where there is one.
    pub resource: Option<&'a str>,
    /// How it ended.
    pub outcome: &'a str,
    /// The code of the refusal or failure.
    pub reason: Option<&'a str>,
    /// Whether that is a failure rather than a refusal.
    pub failed: bool,
    /// Status of the answer.
    pub status: Option<u16>,
    /// How long it took.
    pub latency: Duration,
    /// Whether the answer came from memory.
    pub cached: bool,
    /// Rows in the answer.
    pub rows: u64,
}

/// The span of an exchange under way; none when spans are off.
pub struct RequestSpan {
    span: Option<Box<(Span, SystemTime)>>,
    from: Option<TraceParent>,
}

impl RequestSpan {
    /// The span itself, for those who are asked on its behalf; `None` when there is none.
    #[must_use]
    pub fn here(&self) -> Option<TraceParent> {
        let context = self.span.as_ref()?.0.span_context().clone();
        TraceParent::new(
            u128::from_be_bytes(context.trace_id().to_bytes()),
            u64::from_be_bytes(context.span_id().to_bytes()),
            context.is_sampled(),
        )
    }

    /// Whether anybody will see what it says.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.0.is_recording())
    }

    /// What is sent on: the span itself, else what came.
    #[must_use]
    pub fn onward(&self) -> Option<TraceParent> {
        self.here().or(self.from)
    }

    /// The trace that records name: the one that was named to us, else our own.
    #[must_use]
    pub fn named(&self) -> Option<TraceParent> {
        self.from
            .or_else(|| self.here().filter(TraceParent::is_sampled))
    }

    /// Ends it.
    pub fn end(&mut self, facts: &SpanFacts<'_>) {
        let Some(span) = self.span.take() else {
            return;
        };
        let (mut span, began) = *span;
        if !span.is_recording() {
            return;
        }
        let texts = [
            ("request_id", Some(facts.request_id)),
            ("grant_id", facts.grant),
            ("peer", facts.peer),
            ("verb", facts.verb),
            ("resource", facts.resource),
            ("outcome", Some(facts.outcome)),
            ("reason", facts.reason),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                span.set_attribute(KeyValue::new(key, value.to_owned()));
            }
        }
        span.set_attribute(KeyValue::new(
            "latency_ms",
            facts.latency.as_secs_f64() * 1_000.0,
        ));
        span.set_attribute(KeyValue::new("cached", facts.cached));
        span.set_attribute(KeyValue::new(
            "rows",
            i64::try_from(facts.rows).unwrap_or(i64::MAX),
        ));
        if let Some(status) = facts.status {
            span.set_attribute(KeyValue::new(
                "http.response.status_code",
                i64::from(status),
            ));
        }
        if facts.failed {
            span.set_status(Status::error(facts.reason.unwrap_or_default().to_owned()));
        }
        span.end_with_timestamp(began + facts.latency);
    }
}

/// Decides which questions are recorded.
#[derive(Debug, Clone)]
struct Sampling {
    percent: u8,
}

impl Sampling {
    /// By the low 56 bits of the trace id, which are random (W3C Trace Context, level 2): everybody who looks at the same trace
    /// with the same figure decides the same.
    fn takes(&self, trace: TraceId) -> bool {
        const RANDOM: u128 = (1 << 56) - 1;
        let drawn = u128::from_be_bytes(trace.to_bytes()) & RANDOM;
        drawn * 100 < u128::from(self.percent) << 56
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _name: &str,
        kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        // Only what a local user records is recorded because they do.
        let told = *kind == SpanKind::Client
            && parent.is_some_and(|parent| parent.span().span_context().is_sampled());
        SamplingResult {
            decision: if told || self.takes(trace) {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

#[cfg(test)]
mod tests;
