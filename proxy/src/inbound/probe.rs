//! Connections of this process to its own federation listener, over real sockets: for its attack on itself at start
//! (`self_attack.rs`) and for the revocation canary (`admin/canary.rs`).
//!
//! Invariant: a probe verifies the server like any peer, says what it is in its request id, and waits for nothing longer
//! than ten seconds. It asks for `capabilities` only: no row of anybody is read.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{AlertDescription, ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::message::headers::{ACCEPT_LEASE, REQUEST_ID};
use crate::transport::Balancers;
use crate::transport::balancer::LOCAL_HEADER;

/// Longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 64 * 1024;
const CAPABILITIES: &str = "/api/federation/v1/capabilities";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// No TCP connection.
    #[error("no connection to {address}: {source}")]
    Unreachable {
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The listener refused with an alert.
    #[error("refused with the alert {0:?}")]
    Alert(AlertDescription),
    /// The handshake failed in another way.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// Not in time.
    #[error("no connection within {} s", PATIENCE.as_secs())]
    TooLate,
}

/// Why there is no answer on a connection.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It was ended, with an alert or without.
    #[error("the connection was ended: {0}")]
    Ended(String),
    /// Not in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TooLate,
}

enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

/// Where a listener is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorstep {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it takes us for a load balancer, and waits for a PROXY header.
    pub is_balancers: bool,
}

/// A connection.
pub struct Probe {
    sender: Sender,
    authority: String,
    resumed: bool,
}

/// How a listener that is bound to `listen` is reached from here.
#[must_use]
pub fn reachable(listen: SocketAddr, balancers: &Balancers) -> Doorstep {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    // A connection to an address of this machine comes from the same.
    Doorstep {
        address: SocketAddr::new(ip, listen.port()),
        is_balancers: balancers.contains(ip),
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, what).await.ok()
}

impl Probe {
    /// Connects; the server must be `name`. In TLS 1.3 a client's certificate is refused at the first read only.
    ///
    /// # Errors
    /// [`Unopened`].
    pub async fn open(
        doorstep: Doorstep,
        name: &ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<Self, Unopened> {
        in_time(Self::connect(doorstep, name, config))
            .await
            .unwrap_or(Err(Unopened::TooLate))
    }

    async fn connect(
        doorstep: Doorstep,
        name: &ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<Self, Unopened> {
        let address = doorstep.address;
        let unreachable = |source| Unopened::Unreachable { address, source };
        let mut socket = TcpStream::connect(address).await.map_err(unreachable)?;
        if doorstep.is_balancers {
            socket.write_all(&LOCAL_HEADER).await.map_err(unreachable)?;
        }
        let tls = TlsConnector::from(config)
            .connect(name.clone(), socket)
            .await
            .map_err(|error| {
                let tls = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match tls {
                    Some(rustls::Error::AlertReceived(alert)) => Unopened::Alert(*alert),
                    _ => Unopened::Handshake(error.to_string()),
                }
            })?;
        let state = tls.get_ref().1;
        let resumed = matches!(state.handshake_kind(), Some(HandshakeKind::Resumed));
        let multiplexed = state.alpn_protocol() == Some(b"h2");
        let spoken = |error: hyper::Error| Unopened::Handshake(error.to_string());
        let stream = TokioIo::new(tls);
        // How a connection ends is told to whoever waits for an answer on it.
        let sender = if multiplexed {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                .await
                .map_err(spoken)?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::H2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(spoken)?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::H1(sender)
        };
        Ok(Self {
            sender,
            authority: format!("{}:{}", name.to_str(), address.port()),
            resumed,
        })
    }

    /// Whether the handshake took up an earlier session.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Asks for `capabilities` under this request id, with more headers; gives the status when the whole answer came.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(
        &mut self,
        request_id: &'static str,
        more: HeaderMap,
    ) -> Result<StatusCode, Unanswered> {
        in_time(self.exchange(request_id, more))
            .await
            .unwrap_or(Err(Unanswered::TooLate))
    }

    async fn exchange(
        &mut self,
        request_id: &'static str,
        more: HeaderMap,
    ) -> Result<StatusCode, Unanswered> {
        let ended = |error: &dyn std::fmt::Display| Unanswered::Ended(error.to_string());
        let multiplexed = matches!(self.sender, Sender::H2(_));
        let builder = if multiplexed {
            Request::get(format!("https://{}{CAPABILITIES}", self.authority))
                .version(Version::HTTP_2)
        } else {
            Request::get(CAPABILITIES).header(header::HOST, &self.authority)
        };
        let mut request = builder
            .header(REQUEST_ID, HeaderValue::from_static(request_id))
            .header(ACCEPT_LEASE, HeaderValue::from_static("1"))
            .body(Empty::new())
            .map_err(|error| ended(&error))?;
        request.headers_mut().extend(more);
        let answer = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(|error| ended(&error))?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(|error| ended(&error))?;
                sender.send_request(request).await
            }
        };
        let answer = answer.map_err(|error| ended(&error))?;
        let status = answer.status();
        // Whoever sends a head has answered, however the body ends.
        let _body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok(status)
    }
}
