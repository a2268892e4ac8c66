//! The client of one peer under one credential: a small pool, a deadline for every step, one retry.
//!
//! Invariant: one [`PeerClient`] belongs to one (credential, trust bundle) pair and is replaced with either, so no
//! connection made under an older credential or older anchors is ever used for a newer one. A request is sent
//! again only when its connection died before the first byte of an answer, once, on a connection of its own, with
//! the same request id.
//!
//! What may be asked is decided by `route.rs`; what an answer means for the grant, by `state.rs`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certs::Clock;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Deadlines};
use super::endpoint::Endpoint;
use super::fault::AskError;
use crate::message::headers::{ACCEPT_LEASE, ATTEMPT, REQUEST_ID, TRACE_PARENT, TRUST_GENERATION};
use crate::telemetry::TraceParent;

/// Idle HTTP/1.1 connections that are kept.
const MAX_IDLE: usize = 8;
/// For how long an unused connection is kept, nanoseconds: below the usual 60 s of servers.
const IDLE_NANOS: u64 = 50_000_000_000;
/// How long a connection may take to become free after its answer has ended.
const SETTLE: Duration = Duration::from_secs(1);

/// A request as it will be written: nothing of the caller's but what stands here.
#[derive(Debug, Clone)]
pub struct Question {
    /// GET or POST.
    pub method: Method,
    /// Path, already encoded.
    pub path: String,
    /// JSON, or empty.
    pub body: Bytes,
    /// The same for every attempt.
    pub request_id: String,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// The number of its first try.
    pub attempt: u8,
    /// Whether it may be sent a second time.
    pub repeatable: bool,
}

/// The beginning of a peer's answer.
#[derive(Debug)]
pub struct Reply {
    /// Status, headers.
    pub head: http::response::Parts,
    /// The rest, to be read.
    pub body: ReplyBody,
    /// The number of the try that was answered.
    pub attempt: u8,
    /// When it was sent the last time, nanoseconds since boot.
    pub sent: u64,
    /// When its head had arrived, nanoseconds since boot.
    pub received: u64,
}

/// The client of one peer under one credential.
pub struct PeerClient {
    endpoint: Endpoint,
    tls: TlsConnector,
    deadlines: Deadlines,
    pool: Arc<Pool>,
    /// The generation of the peer's trust roots that it is told of, unless it is the first.
    acknowledges: Option<u64>,
}

impl std::fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerClient")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl PeerClient {
    /// A client; nothing is connected yet. `config` must verify the server, and is shared by all connections.
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        config: Arc<ClientConfig>,
        deadlines: Deadlines,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            endpoint,
            tls: TlsConnector::from(config),
            deadlines,
            pool: Arc::new(Pool {
                kept: Mutex::new(VecDeque::new()),
                clock,
            }),
            acknowledges: None,
        }
    }

    /// Tells the peer with each question that its trust roots of that generation are here.
    #[must_use]
    pub fn acknowledging(self, generation: u64) -> Self {
        Self {
            acknowledges: (generation > 1).then_some(generation),
            ..self
        }
    }

    /// Asks, and returns when the head of the answer is there.
    ///
    /// # Errors
    /// [`AskError`], by the step that failed.
    pub async fn ask(&self, question: &Question) -> Result<Reply, AskError> {
        self.ask_within(question, self.deadlines.total).await
    }

    /// As [`ask`](Self::ask), with all of the answer due within the client's own deadline or `within`, whichever is
    /// shorter.
    ///
    /// # Errors
    /// [`AskError`], by the step that failed.
    pub async fn ask_within(
        &self,
        question: &Question,
        within: Duration,
    ) -> Result<Reply, AskError> {
        let mut total = Box::pin(tokio::time::sleep(self.deadlines.total.min(within)));
        let asked = tokio::select! {
            asked = self.attempts(question) => asked,
            () = &mut total => Err(AskError::TotalTimeout),
        };
        if let Err(AskError::FirstByteTimeout | AskError::TotalTimeout) = &asked {
            // Whether a connection that says nothing is a slow one or leads nowhere cannot be told: the next
            // question gets a new one. Those that run on these connections go on.
            self.close_idle();
        }
        let (response, connection, attempt) = asked?;
        let received = self.pool.clock.boot_nanos();
        let (head, incoming) = response.into_parts();
        let sent = connection.sent_at;
        let body = ReplyBody {
            incoming,
            connection: Some(connection),
            pool: Arc::clone(&self.pool),
            total,
        };
        Ok(Reply {
            head,
            body,
            attempt,
            sent,
            received,
        })
    }

    /// Opens a connection and keeps it for the next question, unless one is kept already.
    ///
    /// # Errors
    /// [`AskError`], by the step that failed.
    pub(super) async fn warm_up(&self) -> Result<(), AskError> {
        if let Some(kept) = self.pool.take() {
            self.pool.keep(kept);
            return Ok(());
        }
        let mut connection = self.open(false).await?;
        // One that cannot take a request yet would not be kept.
        if connection.ready().await {
            self.pool.keep(connection);
        }
        Ok(())
    }

    /// Lets go of every connection that is kept for later.
    pub(super) fn close_idle(&self) {
        self.pool.kept.lock().clear();
    }

    async fn attempts(
        &self,
        question: &Question,
    ) -> Result<(http::Response<Incoming>, Connection, u8), AskError> {
        let first = match self.pool.take() {
            Some(connection) => connection,
            None => self.open(false).await?,
        };
        let attempt = question.attempt;
        match self.exchange(first, question, attempt).await {
            Ok((response, connection)) => Ok((response, connection, attempt)),
            Err(AskError::Died(None)) if question.repeatable => {
                let fresh = self.open(true).await?;
                let attempt = attempt.saturating_add(1);
                let (response, connection) = self.exchange(fresh, question, attempt).await?;
                Ok((response, connection, attempt))
            }
            Err(error) => Err(error),
        }
    }

    async fn open(&self, wary: bool) -> Result<Connection, AskError> {
        Connection::open(&self.endpoint, &self.tls, &self.deadlines, wary).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        question: &Question,
        attempt: u8,
    ) -> Result<(http::Response<Incoming>, Connection), AskError> {
        let request = self.request(question, attempt, connection.is_multiplexed())?;
        let before = connection.witness.bytes_read();
        if let Some(shared) = connection.shared() {
            self.pool.keep(shared);
        }
        connection.sent_at = self.pool.clock.boot_nanos();
        let sent = tokio::time::timeout(self.deadlines.first_byte, connection.send(request)).await;
        match sent {
            Err(_) => Err(AskError::FirstByteTimeout),
            Ok(Ok(response)) => Ok((response, connection)),
            Ok(Err(error)) => {
                let answering =
                    !connection.is_multiplexed() && connection.witness.bytes_read() > before;
                Err(match connection.witness.alert() {
                    Some(alert) => AskError::Died(Some(alert)),
                    None if error.is_parse() => AskError::NotHttp,
                    None if error.is_user() => AskError::Unsendable,
                    None if answering => AskError::Broken,
                    None => AskError::Died(None),
                })
            }
        }
    }

    fn request(
        &self,
        question: &Question,
        attempt: u8,
        multiplexed: bool,
    ) -> Result<Request<Full<Bytes>>, AskError> {
        let authority = self.endpoint.authority();
        let target = if multiplexed {
            format!("https://{authority}{}", question.path)
        } else {
            question.path.clone()
        };
        let uri: Uri = target.parse().map_err(|_| AskError::Unsendable)?;
        let mut builder = Request::builder()
            .method(question.method.clone())
            .uri(uri)
            .version(if multiplexed {
                Version::HTTP_2
            } else {
                Version::HTTP_11
            })
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header(REQUEST_ID, &question.request_id)
            .header(ACCEPT_LEASE, HeaderValue::from_static("1"))
            .header(ATTEMPT, HeaderValue::from(u16::from(attempt)));
        if !multiplexed {
            builder = builder.header(HOST, authority);
        }
        if question.method == Method::POST {
            builder = builder.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(generation) = self.acknowledges {
            builder = builder.header(TRUST_GENERATION, HeaderValue::from(generation));
        }
        if let Some(trace) = &question.trace {
            builder = builder.header(TRACE_PARENT, trace.to_string());
        }
        builder
            .body(Full::new(question.body.clone()))
            .map_err(|_| AskError::Unsendable)
    }
}

/// The rest of an answer. Dropped before its end, its HTTP/1.1 connection is closed.
#[derive(Debug)]
pub struct ReplyBody {
    incoming: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
    total: Pin<Box<Sleep>>,
}

impl ReplyBody {
    /// The next bytes, or `None` at the proper end.
    ///
    /// # Errors
    /// [`AskError::Broken`] or [`AskError::TotalTimeout`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, AskError> {
        loop {
            let frame = tokio::select! {
                frame = self.incoming.frame() => frame,
                () = &mut self.total => {
                    self.pool.kept.lock().clear();
                    return Err(AskError::TotalTimeout);
                }
            };
            match frame {
                None => {
                    if let Some(connection) = self.connection.take() {
                        Pool::give_back(&self.pool, connection);
                    }
                    return Ok(None);
                }
                Some(Err(_)) => return Err(AskError::Broken),
                // Trailers say nothing here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }

    /// Reads the whole body, of at most `limit` bytes; `None` when it is longer.
    ///
    /// # Errors
    /// As [`ReplyBody::chunk`].
    pub async fn collect(mut self, limit: usize) -> Result<Option<Vec<u8>>, AskError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }
}

/// Connections that wait for the next request, oldest first.
struct Pool {
    kept: Mutex<VecDeque<(Connection, u64)>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("kept", &self.kept.lock().len())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A connection that can be used now, the most recently used first.
    fn take(&self) -> Option<Connection> {
        let now = self.clock.boot_nanos();
        let mut kept = self.kept.lock();
        kept.retain(|(connection, since)| {
            now.saturating_sub(*since) < IDLE_NANOS && connection.is_ready()
        });
        kept.pop_back().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Connection) {
        let now = self.clock.boot_nanos();
        let mut kept = self.kept.lock();
        if connection.is_multiplexed() {
            // One of these carries everything: a second would only stay idle.
            kept.retain(|(other, _)| !other.is_multiplexed());
        }
        if kept.len() >= MAX_IDLE {
            kept.pop_front();
        }
        kept.push_back((connection, now));
    }

    /// Keeps a connection whose answer has ended, once it is free again.
    fn give_back(pool: &Arc<Self>, mut connection: Connection) {
        if connection.is_multiplexed() {
            return;
        }
        if connection.is_ready() {
            return pool.keep(connection);
        }
        let pool = Arc::clone(pool);
        tokio::spawn(async move {
            if tokio::time::timeout(SETTLE, connection.ready()).await == Ok(true) {
                pool.keep(connection);
            }
        });
    }
}

#[cfg(test)]
mod tests;
