//! The one client of the gateway: GET over HTTP/1.1, pooled, with a deadline on every step.
//!
//! Built on Pingora's HTTP/1 client rather than on its proxy, because one federated answer can need
//! several questions (pages, two collections, facts). See `docs/decisions/0004-gateway-client.md`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use certs::clock::Clock;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use policy::decision::Permit;
use policy::deny::DenyCode;
use policy::evaluate::Admitted;
use tokio::io::AsyncReadExt;

use super::credential::SubjectAuth;

/// The right by which the gateway is asked something.
pub enum Authority<'a> {
    /// A decision allowed this question.
    Permit(&'a Permit),
    /// The question's facts are fetched before it can be decided.
    Admission(&'a Admitted),
    /// An operator checks the gateway (`gateway check`, `doctor`); rows are not forwarded.
    Operator,
}

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `http://host:port` or `https://host:port`.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// True for https; the certificate is verified against the system's roots for `host`.
        tls: bool,
    },
    /// `unix:/path/to/socket`.
    Unix(String),
}

impl Origin {
    /// Parses `http://host[:port]`, `https://host[:port]` or `unix:/path`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(format!(
                    "`{text}`: a unix socket needs an absolute path, as in unix:/run/gateway.sock"
                ))
            };
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "`{text}`: the gateway is reached by http://, https:// or unix:"
                ));
            }
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(format!(
                "`{text}`: give the origin only; paths come from the preset or mapping"
            ));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| format!("`{text}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!(
                "`{text}`: credentials do not belong in the gateway URL"
            ));
        }
        // A port that does not fit is reported as absent: it must not become the default one.
        let written = authority.as_str().rsplit_once(':').map(|(_, port)| port);
        if authority.port_u16().is_none() && written.is_some_and(|port| !port.ends_with(']')) {
            return Err(format!("`{text}` has a port that is none"));
        }
        Ok(Self::Tcp {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
        })
    }

    /// The origin as a URL, without a path. A gateway on a unix socket is `http://localhost`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if matches!(self, Self::Tcp { tls: true, .. }) {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.host_header())
    }

    fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
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

/// Why a question to the gateway has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// It cannot be reached, or the connection broke.
    #[error("the gateway cannot be reached: {0}; check that it runs and `gateway.url`")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the gateway did not answer in time while {0}")]
    Timeout(&'static str),
    /// It refused the subject's credential (401).
    #[error(
        "the gateway refused the subject's credential; register a new one with `gateway token set`"
    )]
    CredentialRejected,
    /// No credential is registered for the subject.
    #[error("no gateway token is registered for this user; register one with `gateway token set`")]
    CredentialMissing,
    /// It says that the subject may not ask this (403).
    #[error("the gateway denies this to the subject")]
    Denied,
    /// It knows no such thing (404).
    #[error("the gateway has no such row")]
    NotFound,
    /// Its answer cannot be used.
    #[error("the gateway's answer cannot be used: {0}")]
    Malformed(String),
}

impl GatewayError {
    /// The reason a peer is given.
    #[must_use]
    pub const fn deny_code(&self) -> DenyCode {
        match self {
            Self::Unreachable(_) => DenyCode::GatewayUnreachable,
            Self::Timeout(_) => DenyCode::GatewayTimeout,
            Self::CredentialRejected => DenyCode::SubjectCredentialRejected,
            Self::CredentialMissing => DenyCode::SubjectCredentialMissing,
            Self::Denied => DenyCode::GatewayDenied,
            Self::NotFound => DenyCode::NotFound,
            Self::Malformed(_) => DenyCode::GatewayMalformed,
        }
    }

    fn of(error: &pingora_core::Error, doing: &'static str) -> Self {
        use pingora_core::ErrorType::{
            ConnectTimedout, ReadTimedout, TLSHandshakeTimedout, WriteTimedout,
        };
        match error.etype() {
            ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout => {
                Self::Timeout(doing)
            }
            // The text of Pingora's error can quote bytes of the answer: only its kind goes on.
            kind => Self::Unreachable(format!("{doing}: {}", kind.as_str())),
        }
    }
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
    clock: Arc<dyn Clock>,
    origin: Origin,
    host: HeaderValue,
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
        Ok(Self {
            connector: TransportConnector::new(None),
            idle: Mutex::new(Vec::new()),
            clock,
            origin,
            host,
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
        request_id: &str,
    ) -> Result<Answer<'_>, GatewayError> {
        let peer = self.peer(authority).await?;
        let mut fresh = false;
        loop {
            let request = self.request(target, auth, request_id)?;
            let kept = if fresh { None } else { self.take_idle(&peer) };
            let reused = kept.is_some();
            let stream = match kept {
                Some(stream) => stream,
                None => self.connect(&peer).await?,
            };
            let mut session = HttpSession::new_with_options(stream, &*peer);
            session.read_timeout = Some(self.limits.read);
            session.write_timeout = Some(self.limits.read);
            match exchange_heads(&mut session, request).await {
                Ok(()) => return Answer::open(self, peer, session),
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
            GatewayError::of(&error, "connecting")
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
        request_id: &str,
    ) -> Result<Box<RequestHeader>, GatewayError> {
        let unusable = |_| GatewayError::Malformed("the question could not be written".to_owned());
        let mut request =
            RequestHeader::build_no_case(http::Method::GET, target.as_bytes(), Some(6))
                .map_err(unusable)?;
        let id = HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("-"));
        request
            .insert_header(header::HOST, &self.host)
            .map_err(unusable)?;
        request
            .insert_header(header::ACCEPT, HeaderValue::from_static("application/json"))
            .map_err(unusable)?;
        request
            .insert_header(
                header::ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            )
            .map_err(unusable)?;
        request
            .insert_header("x-request-id", id)
            .map_err(unusable)?;
        auth.apply(&mut request, target)?;
        Ok(Box::new(request))
    }

    async fn peer(&self, authority: &Authority<'_>) -> Result<Arc<HttpPeer>, GatewayError> {
        if let Some(peer) = self.resolved.load_full() {
            return Ok(peer);
        }
        let peer = Arc::new(self.resolve(authority).await?);
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
        peer.options.read_timeout = Some(self.limits.read);
        peer.options.write_timeout = Some(self.limits.read);
        peer.options.idle_timeout = Some(self.limits.idle);
        Ok(peer)
    }
}

async fn exchange_heads(
    session: &mut HttpSession,
    request: Box<RequestHeader>,
) -> Result<(), GatewayError> {
    session
        .write_request_header(request)
        .await
        .map_err(|error| GatewayError::of(&error, "writing the question"))?;
    loop {
        session
            .read_response()
            .await
            .map_err(|error| GatewayError::of(&error, "waiting for the answer"))?;
        if !session
            .get_status()
            .is_some_and(|status| status.is_informational())
        {
            return Ok(());
        }
    }
}

/// An answer of the gateway whose body is still to be read.
pub struct Answer<'c> {
    client: &'c GatewayClient,
    peer: Arc<HttpPeer>,
    session: HttpSession,
}

impl<'c> Answer<'c> {
    fn open(
        client: &'c GatewayClient,
        peer: Arc<HttpPeer>,
        mut session: HttpSession,
    ) -> Result<Self, GatewayError> {
        session.respect_keepalive();
        let status = session.get_status().unwrap_or(StatusCode::BAD_GATEWAY);
        let malformed = |what: String| Err(GatewayError::Malformed(what));
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(GatewayError::CredentialRejected),
            StatusCode::FORBIDDEN => return Err(GatewayError::Denied),
            StatusCode::NOT_FOUND => return Err(GatewayError::NotFound),
            other => return malformed(format!("status {}", other.as_u16())),
        }
        let content_type = session.get_header_bytes(header::CONTENT_TYPE);
        let media = content_type
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        if !media.trim_ascii().eq_ignore_ascii_case(b"application/json") {
            return malformed("it is not application/json".to_owned());
        }
        let encoding = session.get_header_bytes(header::CONTENT_ENCODING);
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
            return malformed("it is compressed, which was not asked for".to_owned());
        }
        Ok(Self {
            client,
            peer,
            session,
        })
    }

    /// The next bytes of the body, or `None` at its proper end.
    ///
    /// # Errors
    /// [`GatewayError`] when the connection breaks or stalls before the end.
    pub async fn chunk(&mut self) -> Result<Option<&[u8]>, GatewayError> {
        self.session
            .read_body_ref()
            .await
            .map_err(|error| GatewayError::of(&error, "reading the answer"))
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
        self.release().await;
        Ok(body)
    }

    /// Gives the connection back to the pool. Only after [`Answer::chunk`] returned `None`; an
    /// answer that is dropped instead closes its connection.
    pub async fn release(self) {
        let Self {
            client,
            peer,
            session,
        } = self;
        if let Some(stream) = session.reuse().await {
            client.keep_idle(stream, peer);
        }
    }
}

#[cfg(test)]
mod tests;
