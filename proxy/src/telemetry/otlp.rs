//! Traces and metrics on their way out: OTLP over HTTP with protobuf (OpenTelemetry Protocol 1.x).
//!
//! Invariant: a request never waits for the collector. What ended waits in a queue of bounded length; what does not fit, or is
//! refused for good, is dropped and counted. How the collector is asked is in `otlp/collector.rs`, how metrics are written in
//! `otlp/figures.rs`.

mod collector;
mod figures;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::clock::Clock;
use http::{Request, header};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HttpClient as _;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Metrics;
pub use collector::Collector;

/// Spans that wait at most, and that one request to the collector holds at most.
const QUEUE: usize = 4_096;
const BATCH: usize = 512;
/// Between two sendings of spans.
const EVERY: Duration = Duration::from_secs(2);
/// For one request to the collector.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the last sendings when the process stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What is counted about sending.
pub struct OtlpMetrics {
    exports: IntCounterVec,
    dropped: IntCounter,
}

/// Brings figures up to date that are only read when somebody looks at them.
pub type Refresh = Box<dyn Fn() + Send + Sync>;

impl OtlpMetrics {
    pub(super) fn new(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let exports = IntCounterVec::new(
            Opts::new(
                format!("{prefix}_otlp_exports_total"),
                "Requests to the OTLP collector, by what they held and how they ended.",
            ),
            &["signal", "result"],
        )?;
        registry.register(Box::new(exports.clone()))?;
        let dropped = IntCounter::new(
            format!("{prefix}_otlp_spans_dropped_total"),
            "Spans that did not reach the OTLP collector: the queue was full, or it could not be reached for long.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { exports, dropped })
    }

    fn count(&self, signal: &str, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        self.exports.with_label_values(&[signal, result]).inc();
    }

    /// Shows these series at zero.
    pub fn expect(&self, signals: &[&str]) {
        for signal in signals {
            for result in ["ok", "failed"] {
                self.exports.with_label_values(&[signal, result]).inc_by(0);
            }
        }
    }
}

/// Who sends: the same for everything that one process sends.
#[must_use]
pub fn resource(instance: &str) -> Resource {
    Resource::builder()
        .with_service_name("mosaic-federation")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build()
}

/// A queue for spans that have ended, and what sends them.
#[must_use]
pub fn span_queue(metrics: Arc<Metrics>) -> (SpanQueue, mpsc::Receiver<SpanData>) {
    let (queue, ended) = mpsc::channel(QUEUE);
    (SpanQueue { queue, metrics }, ended)
}

/// Takes spans that have ended.
pub struct SpanQueue {
    queue: mpsc::Sender<SpanData>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for SpanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanQueue").finish_non_exhaustive()
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.metrics.otlp.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Says once that the collector cannot be reached, and once that it can again.
struct Standing {
    signal: &'static str,
    is_failing: bool,
}

impl Standing {
    const fn of(signal: &'static str) -> Self {
        Self {
            signal,
            is_failing: false,
        }
    }

    fn learn(&mut self, metrics: &Metrics, sent: &Result<(), String>) {
        metrics.otlp.count(self.signal, sent.is_ok());
        match sent {
            Err(why) if !self.is_failing => tracing::warn!(
                signal = self.signal,
                %why,
                "the OTLP collector does not take what is sent; requests are answered as before"
            ),
            Ok(()) if self.is_failing => {
                tracing::info!(
                    signal = self.signal,
                    "the OTLP collector takes what is sent"
                );
            }
            _ => {}
        }
        self.is_failing = sent.is_err();
    }
}

/// Sends spans until `stop`, and then what is left.
pub struct SpanSender {
    exporter: SpanExporter,
    collector: Collector,
    ended: mpsc::Receiver<SpanData>,
    /// What is under way, oldest first.
    waiting: Vec<SpanData>,
    metrics: Arc<Metrics>,
    standing: Standing,
}

impl SpanSender {
    /// What sends the spans of `ended` to `collector`.
    ///
    /// # Errors
    /// When the exporter cannot be made: the environment holds settings of OpenTelemetry that this build cannot follow.
    pub fn new(
        collector: Collector,
        ended: mpsc::Receiver<SpanData>,
        resource: &Resource,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExporterBuildError> {
        let endpoint = collector.url("/v1/traces");
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector.clone())
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .build()?;
        exporter.set_resource(resource);
        Ok(Self {
            exporter,
            collector,
            ended,
            waiting: Vec::new(),
            metrics,
            standing: Standing::of("traces"),
        })
    }

    /// Sends until `stop`; what ended until then is tried once more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut due = interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping(&mut stop) => break,
                _ = due.tick() => {}
                () = self.full() => {}
            }
            // A collector that does not answer holds up nothing: what was not taken is still there.
            tokio::select! {
                () = stopping(&mut stop) => break,
                () = self.send() => {}
            }
        }
        // Whoever makes spans has ended them by now or will not.
        let farewell = async {
            self.ended.close();
            while self.send_one().await {}
        };
        let _ = timeout(FAREWELL, farewell).await;
        let left = self.waiting.len().saturating_add(self.ended.len());
        self.drop_spans(left);
    }

    /// Ends when a whole batch waits, unless the collector is failing: then the clock decides.
    async fn full(&mut self) {
        while self.standing.is_failing || self.waiting.len() < BATCH {
            if self.waiting.len() >= QUEUE {
                return std::future::pending().await;
            }
            match self.ended.recv().await {
                Some(span) => self.waiting.push(span),
                None => return std::future::pending().await,
            }
        }
    }

    async fn send(&mut self) {
        while self.send_one().await {
            if self.ended.is_empty() && self.waiting.is_empty() {
                return;
            }
        }
    }

    /// Sends one batch; whether there may be another.
    async fn send_one(&mut self) -> bool {
        while self.waiting.len() < BATCH {
            match self.ended.try_recv() {
                Ok(span) => self.waiting.push(span),
                Err(_) => break,
            }
        }
        if self.waiting.is_empty() {
            return false;
        }
        let size = self.waiting.len().min(BATCH);
        let batch: Vec<SpanData> = self.waiting.iter().take(size).cloned().collect();
        let sent = self.exporter.export(batch).await;
        let sent = sent.map_err(|error| error.to_string());
        self.standing.learn(&self.metrics, &sent);
        if sent.is_ok() {
            self.waiting.drain(..size);
            return true;
        }
        if self.collector.has_refused_for_good() {
            self.waiting.drain(..size);
            self.drop_spans(size);
            return true;
        }
        // The oldest go first when they are too many.
        let over = self.waiting.len().saturating_sub(QUEUE - BATCH);
        self.waiting.drain(..over);
        self.drop_spans(over);
        false
    }

    fn drop_spans(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.otlp.dropped.inc_by(count);
    }
}

/// Sends what `/metrics` shows, until `stop` and once then; `refresh` is called before they are read.
pub async fn send_metrics(
    collector: Collector,
    (every, resource): (Duration, Resource),
    (metrics, clock): (Arc<Metrics>, Arc<dyn Clock>),
    refresh: Refresh,
    mut stop: watch::Receiver<bool>,
) {
    let began = clock.unix_millis();
    let mut standing = Standing::of("metrics");
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            () = stopping(&mut stop) => true,
            _ = due.tick() => false,
        };
        refresh();
        let span = (began, clock.unix_millis());
        let body = figures::request(&metrics.families(), &resource, span).encode_to_vec();
        let limit = if is_last { FAREWELL } else { TIMEOUT };
        let sent = tokio::select! {
            // The last figures are newer than these.
            () = stopping(&mut stop), if !is_last => continue,
            sent = timeout(limit, post(&collector, "/v1/metrics", body)) => sent,
        };
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        standing.learn(&metrics, &sent);
        if is_last {
            return;
        }
    }
}

async fn stopping(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn post(collector: &Collector, path: &str, body: Vec<u8>) -> Result<(), String> {
    let request = Request::post(collector.url(path))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Bytes::from(body))
        .map_err(|error| error.to_string())?;
    let answer = collector.send_bytes(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("it answered {}", answer.status()))
    }
}
