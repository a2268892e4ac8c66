//! The enrollment listener: TLS 1.3 with server authentication only, few connections, short ones.
//!
//! Invariant: every connection has a bound in time (handshake, header, whole life), and there is a bound on how
//! many are open; further ones wait in the kernel's backlog. An address that has used up its connections or its
//! failed attempts is closed before any TLS. Which certificate is shown, with the self-signed
//! root last, is in the TLS configuration that the caller gives.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::caller::Caller;
use crate::limit::SourceLimits;
use crate::transport::Balancers;

/// Bounds of the listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrollmentLimits {
    /// From accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// For the head of a request.
    pub header_timeout: Duration,
    /// For a connection as a whole.
    pub connection_timeout: Duration,
    /// Most connections open at once.
    pub max_connections: u32,
    /// How long open connections may take to end after `stop`.
    pub drain: Duration,
}

impl Default for EnrollmentLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(5),
            connection_timeout: Duration::from_secs(60),
            max_connections: 64,
            drain: Duration::from_secs(10),
        }
    }
}

/// After a failed accept (out of descriptors): trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `routes` on `listener`, to those whom `sources` lets in, until `stop` turns true or its sender is gone, then drains.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    limits: EnrollmentLimits,
    (sources, balancers): (Arc<SourceLimits>, Balancers),
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let balancers = Arc::new(balancers);
    let all = limits.max_connections.max(1);
    let slots = Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(1)));
    while !*stop.borrow() {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            _ = stop.changed() => break,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok((socket, source)) => {
                let direct = Caller::new(source.ip(), Arc::clone(&sources));
                let is_behind = balancers.contains(source.ip());
                if !is_behind && direct.admit().is_err() {
                    continue;
                }
                let (acceptor, routes, stop) = (acceptor.clone(), routes.clone(), stop.clone());
                let (balancers, sources) = (Arc::clone(&balancers), Arc::clone(&sources));
                let connection = async move {
                    let (mut socket, mut caller) = (socket, direct);
                    if is_behind {
                        let limit = limits.handshake_timeout;
                        let named = balancers.other_end_within(limit, &mut socket, source);
                        let Ok(named) = named.await else { return };
                        caller = Caller::new(named.ip(), sources);
                        if caller.admit().is_err() {
                            return;
                        }
                    }
                    connection(acceptor, socket, caller, routes, limits, stop).await;
                };
                tokio::spawn(bounded(connection, limits.connection_timeout, slot));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed on the enrollment listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!(
            "enrollment connections still open at the end of the drain time were left behind"
        );
    }
}

async fn bounded(
    connection: impl Future<Output = ()>,
    limit: Duration,
    slot: OwnedSemaphorePermit,
) {
    if tokio::time::timeout(limit, connection).await.is_err() {
        tracing::debug!("an enrollment connection was closed at its time limit");
    }
    drop(slot);
}

async fn connection(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    caller: Caller,
    routes: Router,
    limits: EnrollmentLimits,
    mut stop: watch::Receiver<bool>,
) {
    let stream = match tokio::time::timeout(limits.handshake_timeout, acceptor.accept(socket)).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "enrollment handshake failed");
            // A connection that merely broke is no attempt: health checks do that.
            if error
                .get_ref()
                .is_some_and(|inner| inner.is::<rustls::Error>())
            {
                caller.failed();
            }
            return;
        }
        Err(_) => {
            caller.failed();
            return;
        }
    };
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(4)
        .max_header_list_size(16 * 1024);
    let routes = routes.layer(Extension(caller));
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = async { drop(stop.wait_for(|stop| *stop).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "enrollment connection ended");
    }
}
