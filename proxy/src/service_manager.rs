//! What the service manager, or the sidecar that ran before, hands over, and what the service manager is told: the protocol of systemd,
//! which others speak too.
//!
//! Invariant: a socket that is handed over is used, under the name of its listener and at the address of the settings, or the
//! sidecar does not start; without a service manager nothing happens. See sd_listen_fds(3) and sd_notify(3).

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use listenfd::ListenFd;
use parking_lot::Mutex;
use rustix::net::AddressFamily;
use sd_notify::NotifyState;

use crate::hand_over::at_path;

/// Names of sockets, separated by colons (sd_listen_fds(3)).
const NAMES: &str = "LISTEN_FDNAMES";

/// Listening sockets by the name of the listener that they are for.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<BTreeMap<String, Socket>>);

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    /// No sockets.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those handed over to this process; call it once, before there are threads.
    ///
    /// # Errors
    /// Which one is not a listening TCP socket, or has no name of its own.
    pub fn from_environment() -> Result<Self, String> {
        let names = std::env::var(NAMES).unwrap_or_default();
        let mut handed_over = ListenFd::from_env();
        let mut names = names.split(':');
        let mut sockets = BTreeMap::new();
        for place in 0..handed_over.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = handed_over
                .take_tcp_listener(place)
                .map_err(|error| format!("the socket `{name}` handed over by the service manager is not a listening TCP socket: {error}"))?
                .ok_or_else(|| format!("the socket `{name}` was handed over twice"))?;
            if sockets.insert(name.clone(), Socket::Tcp(socket)).is_some() {
                return Err(format!(
                    "the service manager handed over two sockets named `{name}`: give each FileDescriptorName= the name of its listener"
                ));
            }
        }
        Ok(Self(Mutex::new(sockets)))
    }

    /// Those of the sidecar that ran before.
    ///
    /// # Errors
    /// Which one is not a listening socket.
    pub fn from_predecessor(sockets: BTreeMap<String, OwnedFd>) -> Result<Self, String> {
        let socket = |(name, socket): (String, OwnedFd)| {
            let failed =
                |error: rustix::io::Errno| format!("the socket `{name}` handed over: {error}");
            if !rustix::net::sockopt::socket_acceptconn(&socket).map_err(failed)? {
                return Err(format!("the socket `{name}` handed over does not listen"));
            }
            let socket = match rustix::net::sockopt::socket_domain(&socket).map_err(failed)? {
                AddressFamily::UNIX => Socket::Unix(socket.into()),
                _ => Socket::Tcp(socket.into()),
            };
            Ok((name, socket))
        };
        let sockets = sockets.into_iter().map(socket);
        sockets
            .collect::<Result<_, _>>()
            .map(|sockets| Self(Mutex::new(sockets)))
    }

    /// Takes the socket for the listener `name`, which the settings want at `path`.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn take_unix(
        &self,
        name: &str,
        path: &Path,
    ) -> Result<Option<tokio::net::UnixListener>, String> {
        let name = at_path(name, path);
        let socket = match self.0.lock().remove(&name) {
            None => return Ok(None),
            Some(Socket::Unix(socket)) => socket,
            Some(Socket::Tcp(_)) => {
                return Err(format!("the socket `{name}` is not a unix socket"));
            }
        };
        let failed = |error: std::io::Error| format!("the socket `{name}`: {error}");
        socket.set_nonblocking(true).map_err(failed)?;
        tokio::net::UnixListener::from_std(socket)
            .map(Some)
            .map_err(failed)
    }

    /// Takes the socket for the listener `name`, which the settings want at `address`.
    ///
    /// # Errors
    /// When it listens elsewhere.
    pub fn take(
        &self,
        name: &str,
        address: SocketAddr,
    ) -> Result<Option<tokio::net::TcpListener>, String> {
        let socket = match self.0.lock().remove(name) {
            None => return Ok(None),
            Some(Socket::Tcp(socket)) => socket,
            Some(Socket::Unix(_)) => return Err(format!("the socket `{name}` is a unix socket")),
        };
        let failed = |error: std::io::Error| format!("the socket `{name}`: {error}");
        let found = socket.local_addr().map_err(failed)?;
        let is_same =
            found.ip() == address.ip() && (address.port() == 0 || found.port() == address.port());
        if !is_same {
            return Err(format!(
                "`{name}` was handed over at {found}, and the settings say {address}: make them the same"
            ));
        }
        socket.set_nonblocking(true).map_err(failed)?;
        tokio::net::TcpListener::from_std(socket)
            .map(Some)
            .map_err(failed)
    }

    /// Names of sockets that nothing has taken.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }
}

/// Says that this process is the one to look after from now on, in place of the one that handed over to it.
pub fn taken_over() {
    tell(&[NotifyState::MainPid(std::process::id())]);
}

/// Says that requests are answered from now on.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// Says that the policy is being read again; [`ready`] ends it.
pub fn reloading() {
    let status = NotifyState::Status("reading the policy again");
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, status]),
        Err(_) => tell(&[status]),
    }
}

/// Says that what is under way is ended, and nothing else begins.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Says that the process is alive as often as the service manager wants to hear it; ends at once when it does not.
pub async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let every = (limit / 3).max(Duration::from_millis(1));
    let mut due = tokio::time::interval(every);
    loop {
        due.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn handed_over(name: &str) -> (Inherited, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sockets = BTreeMap::from([(name.to_owned(), Socket::Tcp(socket))]);
        (Inherited(Mutex::new(sockets)), address)
    }

    #[tokio::test]
    async fn a_socket_is_taken_once_by_its_listener() {
        let (inherited, address) = handed_over("ops");
        assert!(inherited.take("federation", address).unwrap().is_none());
        assert_eq!(inherited.left(), ["ops"]);
        let any = SocketAddr::new(address.ip(), 0);
        let taken = inherited.take("ops", any).unwrap().unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(inherited.left().is_empty());
        assert!(inherited.take("ops", any).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_socket_elsewhere_is_refused() {
        for other in ["127.0.0.1:1", "127.0.0.2:0", "[::1]:0"] {
            let (inherited, _) = handed_over("ops");
            let refused = inherited.take("ops", other.parse().unwrap());
            assert!(refused.unwrap_err().contains("the settings say"), "{other}");
        }
    }
}
