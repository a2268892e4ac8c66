//! One connection to a peer: name, TCP, TLS, HTTP, and what the TLS below said when it died.
//!
//! Invariant: no connection exists without a server certificate verified for the endpoint's own name. An alert of
//! the peer is kept whichever layer above swallows it: in TLS 1.3 the refusal of a client certificate arrives
//! after the handshake, on the first read, and HTTP/2 reports it as a plain broken pipe.
//!
//! Which connection is used for which request is in `client.rs`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::Endpoint;
use super::fault::AskError;

/// Largest response head, bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Most fields in a response head.
const MAX_FIELDS: usize = 64;
/// How long a suspicious connection is given to deliver an alert before a request is written to it.
const ALERT_WAIT: Duration = Duration::from_millis(250);

/// Deadlines of one request (the specification, section 9.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Resolving and connecting.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte: Duration,
    /// From the first step to the last byte of the answer.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            tls: Duration::from_secs(3),
            first_byte: Duration::from_secs(10),
            total: Duration::from_secs(30),
        }
    }
}

/// What is known of a connection's TLS, shared with its user.
#[derive(Debug, Default)]
pub(super) struct Witness {
    alert: Mutex<Option<AlertDescription>>,
    read: AtomicU64,
}

impl Witness {
    /// The fatal alert the peer sent, if it did.
    pub(super) fn alert(&self) -> Option<AlertDescription> {
        *self.alert.lock()
    }

    /// Bytes of plaintext read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = alert_of(error) {
            self.alert.lock().get_or_insert(alert);
        }
    }
}

fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// A TLS stream that tells its [`Witness`].
struct WitnessedStream {
    tls: TlsStream<TcpStream>,
    witness: Arc<Witness>,
}

impl WitnessedStream {
    /// A write that fails may have overtaken the alert that says why: reads what has arrived.
    fn look_for_alert(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0_u8; 512];
        for _ in 0..8 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.tls).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Err(error)) => return self.witness.note(&error),
                Poll::Ready(Ok(())) | Poll::Pending => return,
            }
        }
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.witness.note(error);
            self.look_for_alert(cx);
        }
        result
    }
}

impl AsyncRead for WitnessedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.tls).poll_read(cx, buf);
        match &result {
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len().saturating_sub(before);
                let read = u64::try_from(read).unwrap_or(u64::MAX);
                self.witness.read.fetch_add(read, Ordering::Relaxed);
            }
            Poll::Ready(Err(error)) => self.witness.note(error),
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncWrite for WitnessedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write(cx, buf);
        self.written(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// The HTTP side of a connection.
enum Sender {
    /// One exchange at a time.
    H1(http1::SendRequest<Full<Bytes>>),
    /// Many at once.
    H2(http2::SendRequest<Full<Bytes>>),
}

/// An open connection to a peer.
pub(super) struct Connection {
    sender: Sender,
    pub(super) witness: Arc<Witness>,
    /// When the last question was sent on it, nanoseconds since boot: read before its first byte went out.
    pub(super) sent_at: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("multiplexed", &self.is_multiplexed())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens one: resolve and connect, handshake, each within its deadline. A `wary` one waits a moment for an
    /// alert before it is used, because the one before it died without saying why.
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: &TlsConnector,
        deadlines: &Deadlines,
        wary: bool,
    ) -> Result<Self, AskError> {
        let connecting = connect(endpoint);
        let socket = tokio::time::timeout(deadlines.connect, connecting)
            .await
            .map_err(|_| AskError::ConnectTimeout)??;
        let name = endpoint.server_name().clone();
        let stream = tokio::time::timeout(deadlines.tls, tls.connect(name, socket))
            .await
            .map_err(|_| AskError::TlsTimeout)?
            .map_err(|error| AskError::of_handshake(&error))?;
        if wary {
            // Readable or not, the next read tells; only the wait matters.
            let _ = tokio::time::timeout(ALERT_WAIT, stream.get_ref().0.readable()).await;
        }
        Self::speak(stream).await
    }

    async fn speak(tls: TlsStream<TcpStream>) -> Result<Self, AskError> {
        let witness = Arc::new(Witness::default());
        let multiplexed = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(WitnessedStream {
            tls,
            witness: Arc::clone(&witness),
        });
        let died = |witness: &Witness| AskError::Died(witness.alert());
        let sender = if multiplexed {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
                .initial_stream_window_size(1024 * 1024)
                .initial_connection_window_size(4 * 1024 * 1024)
                .handshake(stream)
                .await
                .map_err(|_| died(&witness))?;
            // How it ends is told to whoever waits for an answer on it.
            tokio::spawn(async move { drop(connection.await) });
            Sender::H2(sender)
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_FIELDS)
                .handshake(stream)
                .await
                .map_err(|_| died(&witness))?;
            tokio::spawn(async move { drop(connection.await) });
            Sender::H1(sender)
        };
        Ok(Self {
            sender,
            witness,
            sent_at: 0,
        })
    }

    /// Another handle on the same connection, when it carries many exchanges at once.
    pub(super) fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => Some(Self {
                sender: Sender::H2(sender.clone()),
                witness: Arc::clone(&self.witness),
                sent_at: 0,
            }),
        }
    }

    /// Whether it speaks HTTP/2.
    pub(super) const fn is_multiplexed(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    /// Whether it can take a request now.
    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.is_ready(),
            Sender::H2(sender) => sender.is_ready(),
        }
    }

    /// Waits until it can take a request; false when it is over.
    pub(super) async fn ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::H1(sender) => sender.ready().await.is_ok(),
            Sender::H2(sender) => sender.ready().await.is_ok(),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => sender.send_request(request).await,
            Sender::H2(sender) => sender.send_request(request).await,
        }
    }
}

/// Resolves without blocking and connects to the first address that answers.
async fn connect(endpoint: &Endpoint) -> Result<TcpStream, AskError> {
    let addresses = tokio::net::lookup_host((endpoint.host(), endpoint.port()))
        .await
        .map_err(|_| AskError::Unresolved)?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                // Requests are one small write each: waiting for more to send only adds latency.
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Err(error) => last = Some(error.kind()),
        }
    }
    Err(last.map_or(AskError::Unresolved, AskError::Unreachable))
}
