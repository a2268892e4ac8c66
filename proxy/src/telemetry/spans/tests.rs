//! Spans: what they say, whose trace they continue, and who decides that they are recorded.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Mutex;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;

use super::*;

/// Keeps what ended.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Kept {
    fn take(&self) -> Vec<SpanData> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn spans(percent: u8, join_peers: bool) -> (Spans, Kept) {
    let kept = Kept::default();
    let rules = SpanRules {
        percent,
        join_peers,
    };
    let resource = Resource::builder_empty().build();
    (Spans::to(kept.clone(), rules, resource), kept)
}

fn facts() -> SpanFacts<'static> {
    SpanFacts {
        request_id: "r-1",
        grant: Some("g"),
        peer: Some("work"),
        verb: Some("list"),
        resource: Some("tasks"),
        outcome: "allowed",
        reason: None,
        failed: false,
        status: Some(200),
        latency: Duration::from_micros(1_500),
        cached: true,
        rows: 3,
    }
}

fn theirs(is_sampled: bool) -> TraceParent {
    TraceParent::new(
        0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        0xb7ad_6b71_6920_3331,
        is_sampled,
    )
    .unwrap()
}

#[test]
fn without_a_collector_there_is_no_span_and_the_callers_trace_goes_on() {
    let mut span = Spans::off().begin(Side::Ask, 5, Some(theirs(true)));
    assert_eq!(span.here(), None);
    assert_eq!(span.onward(), Some(theirs(true)));
    assert_eq!(span.named(), Some(theirs(true)));
    span.end(&facts());
}

#[test]
fn a_span_says_what_it_must() {
    let (spans, kept) = spans(100, false);
    let mut span = spans.begin(Side::Serve, 1_000, None);
    let here = span.here().unwrap();
    assert!(here.is_sampled());
    assert_eq!(span.named(), Some(here));
    span.end(&facts());
    span.end(&facts());
    let ended = kept.take();
    assert_eq!(ended.len(), 1);
    let span = &ended[0];
    assert_eq!(
        (span.name.as_ref(), &span.span_kind),
        ("federation.request", &SpanKind::Server)
    );
    assert_eq!(span.start_time, UNIX_EPOCH + Duration::from_secs(1));
    assert_eq!(
        span.end_time.duration_since(span.start_time).unwrap(),
        Duration::from_micros(1_500)
    );
    let said = |key: &str| {
        let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
        found.map(|pair| pair.value.to_string())
    };
    for (key, value) in [
        ("request_id", "r-1"),
        ("grant_id", "g"),
        ("peer", "work"),
        ("verb", "list"),
        ("resource", "tasks"),
        ("outcome", "allowed"),
        ("latency_ms", "1.5"),
        ("cached", "true"),
        ("rows", "3"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(said(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(said("reason"), None);
}

#[test]
fn a_peers_trace_is_linked_or_continued_and_its_sampling_is_not_taken_over() {
    for join in [false, true] {
        let (none, kept) = spans(0, join);
        let mut span = none.begin(Side::Serve, 0, Some(theirs(true)));
        assert!(!span.here().unwrap().is_sampled());
        span.end(&facts());
        assert!(kept.take().is_empty());

        let (all, kept) = spans(100, join);
        let mut span = all.begin(Side::Serve, 0, Some(theirs(false)));
        let here = span.here().unwrap();
        assert!(here.is_sampled() && here.span() != theirs(false).span());
        assert_eq!(here.trace() == theirs(false).trace(), join);
        // Records name what the peer named: it is what both sides can look for.
        assert_eq!(span.named(), Some(theirs(false)));
        span.end(&facts());
        let ended = kept.take();
        assert_eq!(ended[0].links.links.len(), usize::from(!join));
        let parent = u64::from_be_bytes(ended[0].parent_span_id.to_bytes());
        assert_eq!(parent == theirs(false).span(), join);
    }
}

#[test]
fn a_local_callers_trace_goes_on_and_is_recorded_as_they_record() {
    let (spans, kept) = spans(0, false);
    for is_sampled in [true, false] {
        let mut span = spans.begin(Side::Ask, 0, Some(theirs(is_sampled)));
        let here = span.here().unwrap();
        assert_eq!(
            (here.trace(), here.is_sampled()),
            (theirs(true).trace(), is_sampled)
        );
        assert_eq!(span.onward(), Some(here));
        span.end(&facts());
        assert_eq!(kept.take().len(), usize::from(is_sampled));
    }
}

#[test]
fn a_share_is_a_share_of_traces() {
    let sampling = Sampling { percent: 25 };
    let taken = (0..40_000u128)
        .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1)
        .filter(|id| sampling.takes(TraceId::from_bytes(id.to_be_bytes())))
        .count();
    assert!((9_000..11_000).contains(&taken), "{taken}");
}

#[test]
fn what_failed_is_an_error_and_what_was_refused_is_none() {
    let (spans, kept) = spans(100, false);
    for failed in [true, false] {
        let mut span = spans.begin(Side::Serve, 0, None);
        span.end(&SpanFacts {
            reason: Some("gateway_timeout"),
            failed,
            ..facts()
        });
        let ended = kept.take();
        assert_eq!(ended[0].status != Status::Unset, failed);
    }
}
