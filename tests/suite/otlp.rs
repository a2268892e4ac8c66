//! Traces and metrics reach an OTLP collector: spans joined across both sidecars and the gateway, the metrics of `/metrics`, and
//! nothing that a request waits for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::testing::{Mint, TestCa};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use reference_gateway::plan;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use serde_json::json;
use support::onboard::whole_scope;
use tests::World;
use tests::home::door;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// A trace whose spans the collector refuses for good.
const UNWANTED: &str = "bad0bad0bad0bad0bad0bad0bad0bad0";

/// What a collector was sent.
#[derive(Debug, Clone, Default)]
struct Received {
    spans: Vec<Span>,
    /// Sums of counters by name.
    counters: BTreeMap<String, f64>,
    /// Sums of gauges by name.
    gauges: BTreeMap<String, f64>,
    /// Requests with spans that were answered with a failure.
    turned_away: usize,
    authorizations: Vec<String>,
    /// Who sent spans, by trace.
    instances: BTreeMap<String, BTreeSet<String>>,
}

fn server_config(ca: &TestCa) -> Arc<ServerConfig> {
    let key = Mint::server(&["localhost"]).sign_with(ca).certified_key();
    let config = ServerConfig::builder_with_provider(certs::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    Arc::new(config)
}

struct CollectorServer {
    url: String,
    received: watch::Receiver<Received>,
    task: JoinHandle<()>,
}

impl CollectorServer {
    async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (told, received) = watch::channel(Received::default());
        let told = Arc::new(told);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, told) = (tls.clone(), Arc::clone(&told));
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, told).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(socket).await {
                                serve(stream, told).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            url: format!("{scheme}://localhost:{port}"),
            received,
            task,
        }
    }

    /// Everything received once that is enough.
    async fn until(&mut self, enough: impl FnMut(&Received) -> bool) -> Received {
        self.received.wait_for(enough).await.unwrap().clone()
    }
}

impl Drop for CollectorServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S>(stream: S, told: Arc<watch::Sender<Received>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let mut answer = Response::new(Full::new(Bytes::new()));
            // A span cannot be taken when its trace says so.
            if head.uri.path() == "/v1/traces" && hex(&body).contains(UNWANTED) {
                *answer.status_mut() = StatusCode::BAD_REQUEST;
                told.send_modify(|received| received.turned_away += 1);
            } else {
                told.send_modify(|received| take(received, &head, &body));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn take(received: &mut Received, head: &http::request::Parts, body: &[u8]) {
    assert_eq!(head.method, "POST");
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    if let Some(value) = head.headers.get("authorization") {
        received
            .authorizations
            .push(value.to_str().unwrap().to_owned());
    }
    match head.uri.path() {
        "/v1/traces" => {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for group in request.resource_spans {
                let resource = group.resource.unwrap();
                let instance = text(&resource.attributes, "service.instance.id").unwrap();
                for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    let of = received.instances.entry(hex(&span.trace_id)).or_default();
                    of.insert(instance.clone());
                    received.spans.push(span);
                }
            }
        }
        "/v1/metrics" => {
            use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};
            let request = ExportMetricsServiceRequest::decode(body).unwrap();
            let scopes = request.resource_metrics.into_iter();
            for metric in scopes
                .flat_map(|group| group.scope_metrics)
                .flat_map(|scope| scope.metrics)
            {
                let (points, into) = match metric.data {
                    Some(Data::Sum(sum)) => (sum.data_points, &mut received.counters),
                    Some(Data::Gauge(gauge)) => (gauge.data_points, &mut received.gauges),
                    _ => continue,
                };
                let total = points.iter().map(|point| match point.value {
                    Some(Value::AsDouble(value)) => value,
                    _ => panic!("{point:?}"),
                });
                into.insert(metric.name, total.sum());
            }
        }
        other => panic!("{other}"),
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::BoolValue(is) => Some(is.to_string()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_kind(received: &Received, kind: SpanKind) -> Vec<Span> {
    let of = |span: &&Span| span.kind == kind as i32;
    received.spans.iter().filter(of).cloned().collect()
}

/// A question about tasks at the desk's door that belongs to a trace.
async fn ask(desk: &World, session: &str, flags: &str) -> u16 {
    ask_within(desk, session, &format!("00-{TRACE}-{PARENT}-{flags}")).await
}

async fn ask_within(desk: &World, session: &str, parent: &str) -> u16 {
    let credentials = format!("Bearer {session}");
    let headers = [
        ("authorization", credentials.as_str()),
        ("content-type", "application/json"),
        ("traceparent", parent),
    ];
    let query = json!({"source": "federated:work", "verb": "list", "resource": "tasks"});
    let socket = &desk.config.session.socket;
    door(socket, "/v1/query", &headers, query.to_string())
        .await
        .status
}

async fn two_sides(collector: &CollectorServer, serving: &str) -> (World, World, String) {
    let settings = format!(
        "[otlp]\nendpoint = \"{}\"\nmetrics_every_s = 1\n",
        collector.url
    );
    let (desk, work) = tokio::join!(
        World::builder().asks().settings(&settings).start(),
        World::builder()
            .settings(&format!("{settings}{serving}"))
            .start()
    );
    desk.let_in(plan::AMIRA).await;
    let scope = whole_scope(plan::AMIRA);
    desk.befriend(plan::AMIRA, "work", &work, plan::AMIRA, scope)
        .await;
    let session = desk.session(plan::AMIRA).await;
    work.gateway.forget_requests().await;
    (desk, work, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_goes_through_both_sidecars_and_the_gateway() {
    let mut collector = CollectorServer::start(None).await;
    let (desk, work, session) = two_sides(&collector, "join_peers = true\n").await;
    assert_eq!(ask(&desk, &session, "01").await, 200);
    assert_eq!(ask(&desk, &session, "01").await, 200);
    let joined = |span: &Span| hex(&span.trace_id) == TRACE;
    let received = collector
        .until(|received| received.spans.iter().filter(|span| joined(span)).count() == 3)
        .await;
    let asked: Vec<Span> = of_kind(&received, SpanKind::Client);
    let asked: Vec<Span> = asked.into_iter().filter(joined).collect();
    let [first, second] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    for (span, cached) in [(first, "false"), (second, "true")] {
        assert_eq!(hex(&span.parent_span_id), PARENT);
        assert_eq!(span.name, "federation.request");
        for (key, value) in [
            ("peer", "work"),
            ("verb", "list"),
            ("resource", "tasks"),
            ("outcome", "allowed"),
            ("cached", cached),
        ] {
            assert_eq!(text(&span.attributes, key).as_deref(), Some(value), "{key}");
        }
        assert!(text(&span.attributes, "grant_id").is_some());
    }
    let served = of_kind(&received, SpanKind::Server);
    let served: Vec<&Span> = served.iter().filter(|span| joined(span)).collect();
    // The second was answered from memory.
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].parent_span_id, first.span_id);
    let here = format!("00-{TRACE}-{}-01", hex(&served[0].span_id));
    let asked = work.gateway.requests().await;
    assert!(!asked.is_empty());
    for request in &asked {
        assert_eq!(request["traceparent"], here, "{request}");
    }
    let instances = received.instances[TRACE].len();
    assert_eq!(instances, 2, "each side says which it is");
    work.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_decides_nothing_about_what_is_recorded() {
    let mut collector = CollectorServer::start(None).await;
    // The desk records what its caller records; the serving side by itself records nothing.
    let (desk, work, session) = two_sides(&collector, "sample_percent = 0\n").await;
    assert_eq!(ask(&desk, &session, "01").await, 200);
    desk.stop().await;
    work.stop().await;
    // Both have sent what they had.
    let received = collector.received.borrow_and_update().clone();
    assert!(of_kind(&received, SpanKind::Server).is_empty());
    let asked = of_kind(&received, SpanKind::Client);
    assert_eq!(
        asked
            .iter()
            .filter(|span| hex(&span.trace_id) == TRACE)
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_joining_the_trace_of_a_peer_is_linked() {
    let mut collector = CollectorServer::start(None).await;
    let (desk, work, session) = two_sides(&collector, "").await;
    assert_eq!(ask(&desk, &session, "00").await, 200);
    let linked = |span: &&Span| span.links.iter().any(|link| hex(&link.trace_id) == TRACE);
    let received = collector
        .until(|received| received.spans.iter().any(|span| linked(&span)))
        .await;
    let served = of_kind(&received, SpanKind::Server);
    let served: Vec<_> = served.iter().filter(linked).collect();
    assert_eq!(served.len(), 1);
    assert_ne!(hex(&served[0].trace_id), TRACE);
    let id = text(&served[0].attributes, "request_id").unwrap();
    // The record names the trace that the peer named.
    let rows = work
        .control()
        .query_audit(proxy::admin::AuditQuery {
            direction: Some("inbound".to_owned()),
            ..proxy::admin::AuditQuery::default()
        })
        .await
        .unwrap();
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| serde_json::to_value(row).unwrap())
        .collect();
    let row = rows.iter().find(|row| row["request_id"] == id.as_str());
    assert_eq!(row.unwrap()["trace_id"], TRACE);
    work.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_sent_as_they_are_shown() {
    let mut collector = CollectorServer::start(None).await;
    let (desk, work, session) = two_sides(&collector, "").await;
    assert_eq!(ask(&desk, &session, "01").await, 200);
    let name = "mosaic_federation_requests_total";
    let received = collector
        .until(|received| received.counters.get(name).is_some_and(|sum| *sum > 0.0))
        .await;
    assert!(
        received
            .counters
            .contains_key("mosaic_federation_otlp_spans_dropped_total")
    );
    // What is only counted when somebody looks.
    let name = "mosaic_federation_cache_entries";
    collector
        .until(|received| received.gauges.get(name).is_some_and(|sum| *sum > 0.0))
        .await;
    work.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_over_https_is_verified_and_gets_the_authorization() {
    let (good, other) = (TestCa::root("collector authority"), TestCa::root("another"));
    let mut collector = CollectorServer::start(Some(server_config(&good))).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let secret = file("authorization", "Bearer collector-secret\n");
    for (roots, is_trusted) in [(&other, false), (&good, true)] {
        let roots = file("roots.pem", &roots.root_pem());
        let settings = format!(
            "[otlp]\nendpoint = \"{}\"\nroot_file = \"{roots}\"\nauthorization_file = \"{secret}\"\nmetrics_every_s = 1\n",
            collector.url
        );
        let work = World::builder().settings(&settings).start().await;
        if is_trusted {
            let received = collector
                .until(|received| !received.authorizations.is_empty())
                .await;
            assert_eq!(received.authorizations[0], "Bearer collector-secret");
        }
        work.stop().await;
        // Stopping sends once more: what is not trusted has been tried by now.
        let none = collector.received.borrow().authorizations.is_empty();
        assert_eq!(none, !is_trusted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_is_nobodys_trouble() {
    let collector = CollectorServer::start(None).await;
    let (desk, work, session) = two_sides(&collector, "").await;
    drop(collector);
    for _ in 0..3 {
        assert_eq!(ask(&desk, &session, "01").await, 200);
    }
    desk.stop().await;
    work.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_says_nothing_delays_no_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, mut was_asked) = watch::channel(0);
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            kept.push(socket);
            asked.send_modify(|asked| *asked += 1);
        }
    });
    let settings = format!("[otlp]\nendpoint = \"http://localhost:{port}\"\n");
    let work = World::builder().settings(&settings).start().await;
    let holder = work.amira().await;
    let answer = work.ask(&holder.minted, "/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 200);
    // Figures and a span are on their way and will not arrive.
    was_asked.wait_for(|asked| *asked >= 2).await.unwrap();
    // Its own bounds are 8 s and 10 s; what is left gets 3 s.
    let stopping = tokio::time::timeout(Duration::from_secs(7), work.stop());
    stopping.await.expect("stopping waits for no collector");
    silent.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_are_refused_for_good_are_dropped_and_counted() {
    let mut collector = CollectorServer::start(None).await;
    let (desk, work, session) = two_sides(&collector, "sample_percent = 0\n").await;
    let unwanted = format!("00-{UNWANTED}-{PARENT}-01");
    assert_eq!(ask_within(&desk, &session, &unwanted).await, 200);
    collector.until(|received| received.turned_away == 1).await;
    assert_eq!(ask(&desk, &session, "01").await, 200);
    let dropped = "mosaic_federation_otlp_spans_dropped_total";
    let received = collector
        .until(|received| {
            received.counters.get(dropped).is_some_and(|sum| *sum > 0.0)
                && received
                    .spans
                    .iter()
                    .any(|span| hex(&span.trace_id) == TRACE)
        })
        .await;
    assert_eq!(received.turned_away, 1, "it is not tried again");
    work.stop().await;
    desk.stop().await;
}
