//! The sockets of the session door: a unix socket, and loopback TCP where it is configured.
//!
//! Invariant: the TCP listener is bound to a loopback address or not at all. Connections are bounded in number and
//! in the time a request head may take, and write rows of a peer only under a lease (`passage.rs`). Who may ask is decided per request in `door.rs`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Outbound;
use super::ask::renew;
use super::door::answer;
use super::failure::DoorFailure;
use super::passage::{DoorSocket, Passage, PassageStream};
use super::session::Doorway;
use super::ticket::collecting;
use crate::hand_over::{LINGER, Leaving};
use crate::message::headers::REQUEST_ID;

/// Largest request head, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// After a failed accept (out of descriptors): trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoorLimits {
    /// For the head of a request, and for which an idle connection is kept.
    pub header_timeout: Duration,
    /// Most connections open at once.
    pub max_connections: u32,
    /// How long open connections may take to end after `stop`.
    pub drain: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            max_connections: 256,
            drain: Duration::from_secs(30),
        }
    }
}

/// One socket of the door.
#[derive(Debug)]
pub enum DoorListener {
    /// The unix socket.
    Unix(UnixListener),
    /// Loopback TCP.
    Loopback(TcpListener),
}

impl AsFd for DoorListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Loopback(listener) => listener.as_fd(),
        }
    }
}

impl DoorListener {
    /// Binds a unix socket with permission bits `mode`. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody answers on it, `AlreadyExists` when the path is not a socket, and what the
    /// system says.
    pub async fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the path exists and is not a socket",
                ));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process answers on the socket",
                ));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self::Unix(listener))
    }

    /// Binds loopback TCP.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is not loopback, and what the system says.
    pub async fn bind_loopback(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the session listener must be on a loopback address",
            ));
        }
        TcpListener::bind(address).await.map(Self::Loopback)
    }
}

/// Serves the door on `listener` until `stop` turns true or its sender is gone, then drains.
pub async fn serve(
    listener: DoorListener,
    outbound: Arc<Outbound>,
    limits: DoorLimits,
    mut stop: watch::Receiver<bool>,
    leaving: Leaving,
) {
    let all = limits.max_connections.max(1);
    let slots = Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(1)));
    while !*stop.borrow() {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            _ = stop.changed() => break,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = stop.changed() => break,
        };
        match accepted {
            Ok(Socket::Unix(socket, uid)) => {
                let doorway = Doorway::Unix { uid };
                let until = (stop.clone(), leaving.clone());
                let connection = connection(socket, doorway, Arc::clone(&outbound), limits, until);
                tokio::spawn(held(connection, slot));
            }
            Ok(Socket::Loopback(socket)) => {
                let until = (stop.clone(), leaving.clone());
                let doorway = Doorway::Loopback;
                let connection = connection(socket, doorway, Arc::clone(&outbound), limits, until);
                tokio::spawn(held(connection, slot));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed on the session listener");
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
            "session connections still open at the end of the drain time were left behind"
        );
    }
}

/// An accepted connection.
enum Socket {
    /// With the uid of the process at the other end.
    Unix(UnixStream, Option<u32>),
    Loopback(TcpStream),
}

async fn accept(listener: &DoorListener) -> io::Result<Socket> {
    match listener {
        DoorListener::Unix(listener) => {
            let (socket, _) = listener.accept().await?;
            let uid = socket.peer_cred().ok().map(|credentials| credentials.uid());
            Ok(Socket::Unix(socket, uid))
        }
        DoorListener::Loopback(listener) => {
            let (socket, _) = listener.accept().await?;
            // Answers are written in a few pieces: waiting to fill a packet only adds latency.
            let _ = socket.set_nodelay(true);
            Ok(Socket::Loopback(socket))
        }
    }
}

async fn held(connection: impl Future<Output = ()>, slot: OwnedSemaphorePermit) {
    connection.await;
    drop(slot);
}

/// Answers one request; the response is written only while the leases of what went into it last.
async fn answered(
    outbound: &Outbound,
    passage: &Passage,
    doorway: Doorway,
    request: hyper::Request<Incoming>,
) -> Response {
    let (response, tickets) = collecting(answer(outbound, doorway, request.map(Body::new))).await;
    if !response.status().is_success() {
        return response;
    }
    for ticket in &tickets {
        let lasts = ticket.holds(outbound.clock.boot_nanos()).is_some();
        if !lasts && !renew(outbound, ticket).await {
            let id = response
                .headers()
                .get(REQUEST_ID)
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default();
            return DoorFailure::LeaseLost.response(Some(ticket.peer.name.as_str()), id, None);
        }
    }
    passage.enter(response, tickets)
}

async fn connection<S>(
    socket: S,
    doorway: Doorway,
    outbound: Arc<Outbound>,
    limits: DoorLimits,
    (mut stop, leaving): (watch::Receiver<bool>, Leaving),
) where
    S: DoorSocket,
{
    let passage = Passage::new(Arc::clone(&outbound));
    let socket = PassageStream::new(socket, Arc::clone(&passage));
    let is_leaving = leaving.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (outbound, passage) = (Arc::clone(&outbound), Arc::clone(&passage));
        let is_leaving = is_leaving.clone();
        async move {
            let mut response = answered(&outbound, &passage, doorway, request).await;
            if is_leaving.is_leaving() {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = async {
            drop(stop.wait_for(|stop| *stop).await);
            if leaving.is_leaving() {
                tokio::time::sleep(LINGER).await;
            }
        } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "session connection ended");
    }
}

#[cfg(test)]
mod tests;
