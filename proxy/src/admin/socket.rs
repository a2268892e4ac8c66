//! The admin socket: a unix socket that only its owner can open.
//!
//! Invariant: the socket never exists with a wider mode than 0600, and a file in its place is removed only when
//! it is a socket on which nobody answers.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The process at the other end, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its uid; `None` when the kernel does not say.
    pub(super) uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self {
            uid: stream
                .io()
                .peer_cred()
                .ok()
                .map(|credentials| credentials.uid()),
        }
    }
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers on it.
    #[error("{}: another process answers on this socket; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something else stands in its place.
    #[error("{}: this is not a socket; move it away, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("{}: the socket cannot be opened: {source}; check the directory and its owner", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Opens the socket at `path` with mode 0600.
///
/// # Errors
/// [`SocketError`].
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    bind_private(path, false).await
}

/// As [`bind`]; one that `follows` the process whose socket is there takes its place.
///
/// # Errors
/// [`SocketError`].
pub async fn bind_private(path: &Path, follows: bool) -> Result<UnixListener, SocketError> {
    let system = |source| SocketError::System {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) if follows => {}
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(system)?;
            }
            _ => return Err(SocketError::InUse(path.to_owned())),
        },
    }
    // Bound under a name in a private directory and moved into place: a wider mode is never reachable.
    let staging = staging_dir(path);
    std::fs::create_dir(&staging).map_err(system)?;
    let bound = bind_in(&staging, path);
    let removed = std::fs::remove_dir_all(&staging);
    let listener = bound.map_err(system)?;
    removed.map_err(system)?;
    Ok(listener)
}

fn staging_dir(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn bind_in(staging: &Path, path: &Path) -> io::Result<UnixListener> {
    std::fs::set_permissions(staging, std::fs::Permissions::from_mode(0o700))?;
    let unplaced = staging.join("s");
    let listener = UnixListener::bind(&unplaced)?;
    std::fs::set_permissions(&unplaced, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unplaced, path)?;
    Ok(listener)
}

/// Serves `routes` until `stop` turns true or its sender is gone; requests in flight are finished.
///
/// # Errors
/// When accepting fails for good.
pub async fn serve(
    listener: UnixListener,
    routes: Router,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let stopped = async move {
        // An error means that nobody is left to say stop.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(
        listener,
        routes.into_make_service_with_connect_info::<Caller>(),
    )
    .with_graceful_shutdown(stopped)
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(bind(&path).await, Err(SocketError::InUse(_))));
        UnixStream::connect(&path).await.unwrap();
        drop(first);
        let second = bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(second);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
