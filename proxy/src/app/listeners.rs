//! Listening sockets: where they come from, and that they can be handed over.
//!
//! Invariant: every socket that is listened on is kept for a process that takes over.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use tokio::net::TcpListener;

use super::{Base, StartError, system};

/// The socket of a listener: the one handed over by the service manager, else one of our own.
pub(super) async fn listen(
    base: &Base,
    name: &str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    let taken = base.inherited.take(name, address);
    let socket = match taken.map_err(StartError::Inherited)? {
        Some(socket) => socket,
        None => TcpListener::bind(address)
            .await
            .map_err(system(format!("the {name} listener cannot bind {address}")))?,
    };
    offer(base, name.to_owned(), &socket)?;
    Ok(socket)
}

/// Keeps a listening socket for a process that is to take over.
pub(super) fn offer(base: &Base, name: String, socket: &impl AsFd) -> Result<(), StartError> {
    let offered = base.offered.offer(name, socket.as_fd());
    offered.map_err(system(
        "a listening socket cannot be kept for a process that takes over",
    ))
}
