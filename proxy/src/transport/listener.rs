//! The federation listener: accepts sockets, runs the mTLS handshake, hands the connection on.
//!
//! Invariant: nobody but the holder of a certificate that the live verifier accepted gets past
//! this file, and a connection is never kept without a bound: there is one on the number of open
//! connections and one on the time a handshake may take. A source address that has used up its
//! handshakes or failed authentications is closed before any TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::TrustReceiver;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::balancer::{BalancerError, Balancers};
use super::gate::ConnectionGate;
use super::pause::PauseWatch;
use super::stream::{GatedStream, MtlsStream};
use crate::limit::SourceLimits;

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Longest time from accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Most connections open at once; further ones wait in the kernel's backlog.
    pub max_connections: u32,
}

/// How a handshake ended; a closed set, for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// The peer is authenticated.
    Ok,
    /// The peer showed no certificate.
    NoCertificate,
    /// No configured trust anchor issued it.
    UnknownIssuer,
    /// Its validity is over.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// It is revoked.
    Revoked,
    /// Any other defect of the certificate.
    BadCertificate,
    /// Not TLS 1.3 as we speak it.
    Protocol,
    /// It took too long.
    Timeout,
    /// The connection broke.
    Io,
    /// A balancer's connection did not begin with a usable PROXY header.
    ProxyHeader,
}

impl HandshakeResult {
    /// Every value, for metrics that start at zero.
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::BadCertificate,
        Self::Protocol,
        Self::Timeout,
        Self::Io,
        Self::ProxyHeader,
    ];

    /// The label used in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Io => "io",
            Self::ProxyHeader => "proxy_header",
        }
    }

    /// Whether the peer tried to authenticate and failed, or held a handshake open. A connection that
    /// merely broke is neither: health checks do that.
    #[must_use]
    pub const fn is_failed_authentication(self) -> bool {
        !matches!(self, Self::Ok | Self::Io | Self::ProxyHeader)
    }

    fn of(error: &io::Error) -> Self {
        use rustls::{CertificateError, Error};
        let Some(tls) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
        else {
            return Self::Io;
        };
        match tls {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(defect) => match defect {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::Revoked => Self::Revoked,
                _ => Self::BadCertificate,
            },
            _ => Self::Protocol,
        }
    }
}

/// A connection whose peer is authenticated.
pub struct AcceptedConnection {
    /// The stream to speak HTTP on.
    pub stream: MtlsStream,
    /// The gate under its TLS.
    pub gate: Arc<ConnectionGate>,
    /// The source address: of the socket, or as a balancer said.
    pub source: SocketAddr,
    /// The peer's certificates, leaf first; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// Generation of the trust anchors that were in force when the handshake began, so that the
    /// chain was verified against these or newer ones.
    pub trust_generation: u64,
}

/// Accepts federation connections until told to stop.
pub struct Acceptor {
    listener: TcpListener,
    tls: TlsAcceptor,
    limits: ListenerLimits,
    slots: Arc<Semaphore>,
    trust: TrustReceiver,
    pauses: Arc<PauseWatch>,
    sources: Arc<SourceLimits>,
    balancers: Arc<Balancers>,
}

impl Acceptor {
    /// Takes over a bound listener. `trust` is what `config` verifies clients against, `sources` what
    /// addresses may do, `balancers` say who is behind them; late writes are counted in `pauses`.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        config: Arc<ServerConfig>,
        trust: TrustReceiver,
        (sources, balancers): (Arc<SourceLimits>, Balancers),
        limits: ListenerLimits,
        pauses: Arc<PauseWatch>,
    ) -> Self {
        let slots = usize::try_from(limits.max_connections).unwrap_or(usize::MAX >> 4);
        Self {
            listener,
            tls: TlsAcceptor::from(config),
            limits,
            trust,
            pauses,
            sources,
            balancers: Arc::new(balancers),
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Runs until `stop` turns true, then waits up to `drain` for open connections.
    ///
    /// `serve` drives one connection to its end; `observe` hears how each handshake ended.
    pub async fn run<S, F, O>(
        self,
        serve: S,
        observe: O,
        mut stop: watch::Receiver<bool>,
        drain: Duration,
    ) where
        S: Fn(AcceptedConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
        O: Fn(HandshakeResult, SocketAddr) + Clone + Send + Sync + 'static,
    {
        while !*stop.borrow() {
            let slot = tokio::select! {
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
                _ = stop.changed() => break,
            };
            let Ok(slot) = slot else { break };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.changed() => break,
            };
            let (socket, source) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed on the federation listener");
                    // Out of descriptors: accepting again at once would spin.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let is_behind = self.balancers.contains(source.ip());
            if !is_behind && !admit(&self.sources, source) {
                continue;
            }
            let balancers = Arc::clone(&self.balancers);
            let tls = self.tls.clone();
            let sources = Arc::clone(&self.sources);
            let limit = self.limits.handshake_timeout;
            let generation = self.trust.load().generation();
            let (serve, observe) = (serve.clone(), observe.clone());
            let pauses = Arc::clone(&self.pauses);
            tokio::spawn(async move {
                let mut socket = socket;
                let mut source = source;
                if is_behind {
                    source = match balancers.other_end_within(limit, &mut socket, source).await {
                        Ok(named) => named,
                        Err(BalancerError::Closed) => return,
                        Err(_) => return observe(HandshakeResult::ProxyHeader, source),
                    };
                    if !admit(&sources, source) {
                        return;
                    }
                }
                let (result, connection) = handshake(tls, socket, source, limit, pauses).await;
                let connection = connection.map(|connection| AcceptedConnection {
                    trust_generation: generation,
                    ..connection
                });
                if result.is_failed_authentication() {
                    sources.failed(source.ip());
                }
                observe(result, source);
                if let Some(connection) = connection {
                    serve(connection).await;
                }
                drop(slot);
            });
        }
        drop(self.listener);
        let all = self.limits.max_connections;
        if tokio::time::timeout(drain, self.slots.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!("connections still open at the end of the drain time were dropped");
        }
    }
}

/// Whether a connection from there goes on to its handshake.
fn admit(sources: &SourceLimits, source: SocketAddr) -> bool {
    match sources.admit(source.ip()) {
        Ok(()) => true,
        Err(refusal) => {
            tracing::debug!(%source, limit = refusal.as_str(), "a connection was closed before TLS");
            false
        }
    }
}

async fn handshake(
    tls: TlsAcceptor,
    socket: TcpStream,
    source: SocketAddr,
    limit: Duration,
    pauses: Arc<PauseWatch>,
) -> (HandshakeResult, Option<AcceptedConnection>) {
    if socket.set_nodelay(true).is_err() {
        return (HandshakeResult::Io, None);
    }
    let gate = ConnectionGate::new();
    let gated = GatedStream::new(socket, Arc::clone(&gate), pauses);
    let stream = match tokio::time::timeout(limit, tls.accept(gated)).await {
        Err(_) => return (HandshakeResult::Timeout, None),
        Ok(Err(error)) => return (HandshakeResult::of(&error), None),
        Ok(Ok(stream)) => stream,
    };
    let Some(chain) = stream
        .get_ref()
        .1
        .peer_certificates()
        .filter(|chain| !chain.is_empty())
        .map(|chain| chain.iter().map(|der| der.clone().into_owned()).collect())
    else {
        return (HandshakeResult::NoCertificate, None);
    };
    let stream = MtlsStream::new(stream);
    if stream.is_http2() {
        gate.mark_multiplexed();
    }
    let connection = AcceptedConnection {
        stream,
        gate,
        source,
        chain,
        trust_generation: 0,
    };
    (HandshakeResult::Ok, Some(connection))
}
