//! A peer to ask in tests: a real TLS listener with a scripted answer, and the parts of an asking side.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use certs::publish::channel;
use certs::seal::{CursorKey, PageSealer};
use certs::testing::{Mint, Minted, TestCa};
use certs::{Clock, LiveClientVerifier, LiveServerResolver, RevokedSet, SystemClock};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::client::PeerClient;
use super::connection::Deadlines;
use super::endpoint::Endpoint;
use super::local::{LocalAnswer, LocalQuestion, LocalSource};
use super::reach::ReachRules;
use super::reaches::Reaches;
use crate::message::failure::Failure;
use crate::telemetry::Metrics;

/// A user's own gateway that has one answer to everything.
pub(crate) struct OwnRows(pub(crate) Result<&'static str, policy::deny::DenyCode>);

impl OwnRows {
    /// One without rows.
    pub(crate) const EMPTY: Self = Self(Ok(r#"{"items":[],"_partial":false,"_truncated":false}"#));
}

#[async_trait]
impl LocalSource for OwnRows {
    async fn answer(&self, _: LocalQuestion<'_>) -> Result<LocalAnswer, Failure> {
        let body = self.0.map_err(Failure::from)?;
        Ok(LocalAnswer {
            body: Bytes::from_static(body.as_bytes()),
            ..LocalAnswer::default()
        })
    }
}

/// A sealer of cursors with a key of its own.
pub(crate) fn cursors() -> PageSealer {
    PageSealer::new(&CursorKey::generate(1).unwrap(), None).unwrap()
}

/// What the peer does with a request.
pub(crate) enum Act {
    /// Answers.
    Answer(Response),
    /// Drops the connection without a byte.
    Hang,
    /// Never answers.
    Stall,
}

/// A request as the peer saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    }
}

/// The counters and records of a peer.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: Mutex<Vec<Seen>>,
}

/// A peer's certificates.
pub(crate) struct Pki {
    pub(crate) ca: TestCa,
    pub(crate) client: Minted,
    pub(crate) grant: Uuid,
    pub(crate) subject: Uuid,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (ca, grant, subject) = (TestCa::root("peer root"), Uuid::new_v4(), Uuid::new_v4());
        let client = Mint::client(grant, subject).sign_with(&ca);
        Self {
            ca,
            client,
            grant,
            subject,
        }
    }

    /// The federation listener's configuration over `server`; `revoked` are the client's.
    pub(crate) fn server_config(
        &self,
        server: &Minted,
        revoked: RevokedSet,
        alpn: &[&[u8]],
    ) -> Arc<ServerConfig> {
        let (_, anchors) = channel(self.ca.anchors(1));
        let (_, revoked) = channel(revoked);
        let (_, credential) = channel(server.credential());
        let config = certs::tls::federation_server_config(
            LiveClientVerifier::new(anchors, revoked),
            LiveServerResolver::new(credential),
            Arc::new(SystemClock),
        );
        let mut config = ServerConfig::clone(&config.unwrap());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// An ordinary listener for 127.0.0.1.
    pub(crate) fn ordinary(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let server = Mint::server(&["127.0.0.1", "localhost"]).sign_with(&self.ca);
        self.server_config(&server, RevokedSet::default(), alpn)
    }

    /// The client of the peer at `address`, with the good credential.
    pub(crate) fn client_of(&self, address: SocketAddr, deadlines: Deadlines) -> PeerClient {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let config = certs::tls::peer_client_config(
            &self.client.credential(),
            Arc::new(self.ca.anchors(1)),
            Arc::clone(&clock),
        );
        let endpoint = Endpoint::parse(&format!("https://{address}")).unwrap();
        PeerClient::new(endpoint, config.unwrap(), deadlines, clock)
    }
}

/// What a side knows of reaching its peers: nothing yet.
pub(crate) fn reaches(rules: ReachRules) -> Arc<Reaches> {
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Reaches::new(rules, Arc::new(SystemClock), metrics))
}

pub(crate) const H1: &[&[u8]] = &[b"http/1.1"];
pub(crate) const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Deadlines that a test can wait for, and that an idle machine keeps.
pub(crate) const QUICK: Deadlines = Deadlines {
    connect: Duration::from_secs(2),
    tls: Duration::from_millis(700),
    first_byte: Duration::from_millis(700),
    total: Duration::from_secs(3),
};

/// An answer with a JSON body.
pub(crate) fn json(status: u16, text: impl Into<Body>) -> Act {
    let builder = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    Act::Answer(builder.body(text.into()).unwrap())
}

/// Starts a peer; `script` is given the number of each request, from 0.
pub(crate) async fn start(
    config: Arc<ServerConfig>,
    script: impl Fn(usize) -> Act + Send + Sync + 'static,
) -> (SocketAddr, Arc<Log>) {
    start_reading(config, move |number, _| script(number)).await
}

/// Starts a peer; `script` is given each request too.
pub(crate) async fn start_reading(
    config: Arc<ServerConfig>,
    script: impl Fn(usize, &Seen) -> Act + Send + Sync + 'static,
) -> (SocketAddr, Arc<Log>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (log, script) = (Arc::new(Log::default()), Arc::new(script));
    let seen = Arc::clone(&log);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, log, script) =
                (acceptor.clone(), Arc::clone(&seen), Arc::clone(&script));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else {
                    return;
                };
                log.connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(move |request: Request<Incoming>| {
                    respond(request, Arc::clone(&log), Arc::clone(&script))
                });
                let server = auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    (address, log)
}

/// What makes hyper drop a connection.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

async fn respond(
    request: Request<Incoming>,
    log: Arc<Log>,
    script: Arc<impl Fn(usize, &Seen) -> Act>,
) -> Result<Response, HungUp> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), 1 << 20)
        .await
        .map_err(|_| HungUp)?;
    let seen = Seen {
        head: Arc::new(head),
        body: body.to_vec(),
    };
    let number = {
        let mut requests = log.requests.lock();
        requests.push(seen.clone());
        requests.len() - 1
    };
    match script(number, &seen) {
        Act::Answer(response) => Ok(response),
        Act::Hang => Err(HungUp),
        Act::Stall => Ok::<_, Infallible>(std::future::pending().await).map_err(|_| HungUp),
    }
}
