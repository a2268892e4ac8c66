//! The one client of the gateway: GET over HTTP/1.1, pooled, with a deadline on every step.
//!
//! Pingora connects; what is said on a connection is written and read here (`http1.rs` knows the
//! grammar), because one federated answer can need several questions (pages, two collections,
//! facts), each of which should cost little more than its system calls. See
//! `docs/decisions/0004-gateway-client.md`.
//!
//! Invariant: a connection is used for the next question only after an answer that ended where it
//! said it would, with nothing behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use certs::clock::Clock;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::upstreams::peer::HttpPeer;
use policy::decision::Permit;
use policy::evaluate::Admitted;
use tokio::io::AsyncReadExt;

use super::credential::SubjectAuth;
use super::error::GatewayError;
use super::http1::{self, BodyEnd, Part, ResponseHead};
use super::origin::Origin;
use super::wire::{Buffers, Wire};
use crate::message::headers::RequestTag;

/// The right by which the gateway is asked something.
pub enum Authority<'a> {
    /// A decision allowed this question.
    Permit(&'a Permit),
    /// The question's facts are fetched before it can be decided.
    Admission(&'a Admitted),
    /// An operator checks the gateway (`gateway check`, `doctor`); rows are not forwarded.
    Operator,
}

/// Deadlines of the client.
#[derive(Debug, Clone, Copy)]
pub struct GatewayLimits {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the response head, and between two reads of the body.
    pub read: Duration,
    /// How long an unused connection stays open.
    pub idle: Duration,
}

/// Idle connections kept at most.
const MAX_IDLE: usize = 256;

struct Idle {
    stream: Stream,
    /// What it is connected to: a name that resolves anew makes new connections.
    peer: Arc<HttpPeer>,
    /// When it came back, on the clock that counts suspended time.
    since: u64,
}

/// The pooled client of one gateway.
///
/// Idle connections are kept here rather than in Pingora's pool, which spawns a task and asks the
/// kernel for the peer's address each time one comes back.
pub struct GatewayClient {
    connector: TransportConnector,
    idle: Mutex<Vec<Idle>>,
    buffers: Buffers,
    clock: Arc<dyn Clock>,
    origin: Origin,
    /// The fields that every question has.
    fields: Vec<u8>,
    resolved: ArcSwapOption<HttpPeer>,
    limits: GatewayLimits,
}

impl GatewayClient {
    /// A client of `origin`; nothing is connected yet.
    ///
    /// # Errors
    /// When the origin's host cannot stand in a header.
    pub fn new(
        origin: Origin,
        limits: GatewayLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let host = HeaderValue::from_str(&origin.host_header())
            .map_err(|_| "the gateway's host has characters a header cannot hold".to_owned())?;
        let mut fields = Vec::new();
        http1::field(&mut fields, "Host", &host);
        let json = HeaderValue::from_static("application/json");
        http1::field(&mut fields, "Accept", &json);
        let identity = HeaderValue::from_static("identity");
        http1::field(&mut fields, "Accept-Encoding", &identity);
        Ok(Self {
            connector: TransportConnector::new(None),
            idle: Mutex::default(),
            buffers: Buffers::default(),
            clock,
            origin,
            fields,
            resolved: ArcSwapOption::empty(),
            limits,
        })
    }

    /// Asks for `target` (path and query, already encoded) as the subject that `auth` stands for.
    ///
    /// The answer's head has arrived with status 200 and a JSON type; its body follows through
    /// [`Answer::chunk`].
    ///
    /// # Errors
    /// [`GatewayError`], by what went wrong or what the gateway said.
    pub async fn ask(
        &self,
        authority: &Authority<'_>,
        target: &str,
        auth: &SubjectAuth,
        tag: RequestTag<'_>,
    ) -> Result<Answer<'_>, GatewayError> {
        let peer = self.peer(authority).await?;
        let mut fresh = false;
        loop {
            let request = self.request(target, auth, tag)?;
            let kept = if fresh { None } else { self.take_idle(&peer) };
            let reused = kept.is_some();
            let stream = match kept {
                Some(stream) => stream,
                // Boxed, as all that is seldom done on the way of a request: its future is moved as a whole.
                None => Box::pin(self.connect(&peer)).await?,
            };
            let mut wire = Wire::new(stream, &self.buffers, self.limits.read);
            match wire.exchange_heads(&request).await {
                Ok(head) => return Answer::open(self, peer, wire, &head),
                // A pooled connection that the gateway closed meanwhile: once more on a fresh one.
                Err(GatewayError::Unreachable(_)) if reused && !fresh => fresh = true,
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect(&self, peer: &Arc<HttpPeer>) -> Result<Stream, GatewayError> {
        self.connector.new_stream(&**peer).await.map_err(|error| {
            // The name may point elsewhere by now: resolve again for the next question.
            self.resolved.store(None);
            GatewayError::connecting(&error)
        })
    }

    /// An idle connection to `peer` that is open and silent. One with bytes on it is dropped: they
    /// would be read as the answer to the next question, which may be another user's.
    fn take_idle(&self, peer: &Arc<HttpPeer>) -> Option<Stream> {
        let now = self.clock.boot_nanos();
        loop {
            let mut idle = self.idle.lock().pop()?;
            let age = Duration::from_nanos(now.saturating_sub(idle.since));
            if age >= self.limits.idle || !Arc::ptr_eq(&idle.peer, peer) {
                continue;
            }
            if idle.stream.read(&mut [0; 1]).now_or_never().is_none() {
                return Some(idle.stream);
            }
        }
    }

    fn keep_idle(&self, stream: Stream, peer: Arc<HttpPeer>) {
        let since = self.clock.boot_nanos();
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_IDLE {
            let limit = self.limits.idle;
            idle.retain(|kept| Duration::from_nanos(since.saturating_sub(kept.since)) < limit);
        }
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                stream,
                peer,
                since,
            });
        }
    }

    fn request(
        &self,
        target: &str,
        auth: &SubjectAuth,
        tag: RequestTag<'_>,
    ) -> Result<Vec<u8>, GatewayError> {
        let mut head = http1::request_line(target).ok_or_else(|| {
            GatewayError::Malformed("the question could not be written".to_owned())
        })?;
        head.extend_from_slice(&self.fields);
        let id = HeaderValue::from_str(tag.id).unwrap_or(HeaderValue::from_static("-"));
        http1::field(&mut head, "X-Request-Id", &id);
        let trace = tag
            .trace
            .and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok());
        if let Some(trace) = trace {
            http1::field(&mut head, "traceparent", &trace);
        }
        auth.write(&mut head, target)?;
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }

    async fn peer(&self, authority: &Authority<'_>) -> Result<Arc<HttpPeer>, GatewayError> {
        if let Some(peer) = self.resolved.load_full() {
            return Ok(peer);
        }
        let peer = Arc::new(Box::pin(self.resolve(authority)).await?);
        self.resolved.store(Some(Arc::clone(&peer)));
        Ok(peer)
    }

    /// Resolves the origin's name without blocking: Pingora's own constructor would block and panic.
    async fn resolve(&self, _authority: &Authority<'_>) -> Result<HttpPeer, GatewayError> {
        let unreachable = |detail: String| GatewayError::Unreachable(detail);
        let mut peer = match &self.origin {
            Origin::Unix(path) => HttpPeer::new_uds(path, false, String::new())
                .map_err(|_| unreachable(format!("`{path}` is not a usable socket path")))?,
            Origin::Tcp { host, port, tls } => {
                let looked_up = tokio::time::timeout(
                    self.limits.connect,
                    tokio::net::lookup_host((host.as_str(), *port)),
                );
                let address: SocketAddr = looked_up
                    .await
                    .map_err(|_| GatewayError::Timeout("resolving its name"))?
                    .map_err(|error| unreachable(format!("`{host}` does not resolve: {error}")))?
                    .next()
                    .ok_or_else(|| unreachable(format!("`{host}` resolves to no address")))?;
                // An empty name would turn certificate verification off, so it is always given.
                HttpPeer::new(address, *tls, host.clone())
            }
        };
        peer.options.connection_timeout = Some(self.limits.connect);
        peer.options.total_connection_timeout = Some(self.limits.connect);
        peer.options.idle_timeout = Some(self.limits.idle);
        Ok(peer)
    }
}

/// An answer of the gateway whose body is still to be read.
pub struct Answer<'c> {
    client: &'c GatewayClient,
    peer: Arc<HttpPeer>,
    wire: Wire<'c>,
    body: BodyEnd,
    keep_alive: bool,
    ended: bool,
}

impl<'c> Answer<'c> {
    fn open(
        client: &'c GatewayClient,
        peer: Arc<HttpPeer>,
        wire: Wire<'c>,
        head: &ResponseHead,
    ) -> Result<Self, GatewayError> {
        let malformed = |what: String| Err(GatewayError::Malformed(what));
        match StatusCode::from_u16(head.status) {
            Ok(StatusCode::OK) => {}
            Ok(StatusCode::UNAUTHORIZED) => return Err(GatewayError::CredentialRejected),
            Ok(StatusCode::FORBIDDEN) => return Err(GatewayError::Denied),
            Ok(StatusCode::NOT_FOUND) => return Err(GatewayError::NotFound),
            _ => return malformed(format!("status {}", head.status)),
        }
        if !head.json {
            return malformed("it is not application/json".to_owned());
        }
        if head.encoded {
            return malformed("it is compressed, which was not asked for".to_owned());
        }
        Ok(Self {
            client,
            peer,
            wire,
            body: head.body,
            keep_alive: head.keep_alive,
            ended: false,
        })
    }

    /// The next bytes of the body, or `None` at its proper end.
    ///
    /// # Errors
    /// [`GatewayError`] when the connection breaks or stalls before the end.
    pub async fn chunk(&mut self) -> Result<Option<&[u8]>, GatewayError> {
        const READING: &str = "reading the answer";
        let data = loop {
            if self.ended {
                return Ok(None);
            }
            match self.body.next(self.wire.unread())? {
                Part::Data(from, to) => {
                    break (from, to);
                }
                Part::End(used) => {
                    self.wire.used(used);
                    self.ended = true;
                }
                Part::More(used) => {
                    self.wire.used(used);
                    if self.wire.fill(READING).await? == 0 {
                        if !self.body.is_close() {
                            let cut = format!("{READING}: it ended early");
                            return Err(GatewayError::Unreachable(cut));
                        }
                        self.ended = true;
                    }
                }
            }
        };
        Ok(Some(self.wire.take(data.0, data.1)))
    }

    /// Reads the whole body, of at most `limit` bytes.
    ///
    /// # Errors
    /// [`GatewayError`]; a longer body is malformed.
    pub async fn collect(mut self, limit: usize) -> Result<Vec<u8>, GatewayError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Err(GatewayError::Malformed(format!(
                    "it is longer than {limit} bytes"
                )));
            }
            body.extend_from_slice(chunk);
        }
        self.release();
        Ok(body)
    }

    /// Gives the connection back to the pool. Only after [`Answer::chunk`] returned `None`; an
    /// answer that is dropped instead closes its connection.
    pub fn release(self) {
        if self.ended && self.keep_alive && self.wire.unread().is_empty() {
            let stream = self.wire.into_stream();
            self.client.keep_idle(stream, self.peer);
        }
    }
}

#[cfg(test)]
mod tests;
