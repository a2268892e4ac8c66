//! Handing the listening sockets of a running sidecar to the one that follows it (`serve --upgrade`): nobody is refused meanwhile.
//!
//! Invariant: sockets go to a process of the same user and to nobody else. Who gives them answers on until the one that follows says
//! that it is ready, and stays when that one ends before; both answer for a while, as two replicas of one store (the specification,
//! section 8).

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Its socket in the data directory.
pub const SOCKET: &str = "hand-over.sock";
/// The form of what is said; another one is refused.
const FORM: u32 = 1;
/// Sockets that go over at most.
const MOST: usize = 16;
/// Longest text that comes with them.
const MAX_TEXT: usize = 8 * 1024;
/// For a word of the other process that it has ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the one that follows says when it answers, and what it is told then.
const READY: [u8; 1] = *b"r";
const LEAVING: [u8; 1] = *b"l";

/// How long connections without a request stay open when another process has taken over: whoever asks on one is answered, and told
/// to ask elsewhere.
pub const LINGER: Duration = Duration::from_secs(10);

/// Whether another process has taken over, so that connections are ended by their next answer.
#[derive(Debug, Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    /// Whether it has.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// It has.
    pub fn leave(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The listening sockets of this process, by the name of their listener.
#[derive(Debug, Default)]
pub struct Offered(Mutex<BTreeMap<String, OwnedFd>>);

impl Offered {
    /// Offers a listening socket.
    ///
    /// # Errors
    /// When the system has no room for another descriptor.
    pub fn offer(&self, name: String, socket: BorrowedFd<'_>) -> io::Result<()> {
        let socket = socket.try_clone_to_owned()?;
        self.0.lock().insert(name, socket);
        Ok(())
    }

    /// Offers nothing any more: a listener that is closed is closed.
    pub fn withdraw(&self) {
        self.0.lock().clear();
    }

    fn all(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let offered = self.0.lock();
        let copy = |(name, socket): (&String, &OwnedFd)| Ok((name.clone(), socket.try_clone()?));
        offered.iter().map(copy).collect()
    }
}

/// The name of the listener at a path.
#[must_use]
pub fn at_path(name: &str, path: &Path) -> String {
    format!("{name}:{}", path.display())
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announcement {
    form: u32,
    /// The newest migration of each kind of store that the process knows.
    schemas: Schemas,
    sockets: Vec<String>,
}

/// The newest migration that a program knows, by the kind of store.
pub type Schemas = BTreeMap<String, i64>;

/// Why no sockets were had.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// Nobody is there.
    #[error(
        "no running sidecar hands over its sockets at `{}`: {source}. Start without --upgrade when none runs with this data directory",
        path.display()
    )]
    Nobody {
        /// Where it was looked for.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is there and was not understood.
    #[error("the running sidecar did not hand over its sockets: {0}")]
    Failed(String),
}

/// Gives sockets at the hand-over socket; `taken` hears when a process that follows is ready. Runs until that, or `taken` is closed.
pub async fn give(
    listener: UnixListener,
    (offered, schemas): (Arc<Offered>, Schemas),
    taken: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = taken.closed() => return,
        };
        let given = match accepted {
            Ok((stream, _)) => give_to(stream, &offered, schemas.clone()).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(()) => {
                // Nobody listening means that the process is stopping anyway.
                let _ = taken.send(()).await;
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a process that was to follow has not taken over; this one goes on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn give_to(mut stream: UnixStream, offered: &Offered, schemas: Schemas) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != rustix::process::geteuid().as_raw() && uid != 0 {
        let message = format!("uid {uid} asked for the sockets, which are for the own user alone");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let (names, sockets): (Vec<String>, Vec<OwnedFd>) = offered.all()?.into_iter().unzip();
    let mut text = serde_json::to_vec(&Announcement {
        form: FORM,
        schemas,
        sockets: names,
    })?;
    text.push(b'\n');
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::Error::other("too many sockets"));
            }
            let sent = rustix::net::sendmsg(
                &stream,
                &[IoSlice::new(&text)],
                &mut control,
                SendFlags::NOSIGNAL,
            );
            Ok(sent?)
        })
        .await?;
    stream
        .write_all(text.get(sent..).unwrap_or_default())
        .await?;
    // How long a start takes is for the other process to say: it may wait for a database. If it ends, so does this.
    let mut word = [0; 1];
    stream.read_exact(&mut word).await?;
    if word != READY {
        return Err(io::Error::other(
            "it said something else than that it is ready",
        ));
    }
    stream.write_all(&LEAVING).await
}

/// Sockets of the process that ran before, and the way to tell it.
#[derive(Debug)]
pub struct Predecessor(BlockingStream);

/// Has the process whose hand-over socket that is give its sockets to this one, which knows these `schemas`.
///
/// # Errors
/// [`HandOverError`]; that process goes on. So it does when its database would be changed under it.
pub fn receive(
    path: &Path,
    schemas: &Schemas,
) -> Result<(BTreeMap<String, OwnedFd>, Predecessor), HandOverError> {
    let nobody = |source| HandOverError::Nobody {
        path: path.to_owned(),
        source,
    };
    let failed = |error: io::Error| HandOverError::Failed(error.to_string());
    let mut stream = BlockingStream::connect(path).map_err(nobody)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut sockets = Vec::new();
    let mut text = vec![0; MAX_TEXT];
    let mut length = 0_usize;
    {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &stream,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        length = length.saturating_add(received.map_err(|error| failed(error.into()))?.bytes);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                sockets.extend(descriptors);
            }
        }
    }
    while text.get(..length).is_none_or(|text| !text.contains(&b'\n')) {
        let room = text.get_mut(length..).filter(|room| !room.is_empty());
        let room = room.ok_or_else(|| HandOverError::Failed("it says too much".to_owned()))?;
        match stream.read(room).map_err(failed)? {
            0 => return Err(HandOverError::Failed("it broke off".to_owned())),
            more => length = length.saturating_add(more),
        }
    }
    let text = text.get(..length).unwrap_or_default();
    let said: Announcement = serde_json::from_slice(text).map_err(|error| {
        HandOverError::Failed(format!(
            "it says what is not understood ({error}): restart instead"
        ))
    })?;
    if said.form != FORM {
        return Err(HandOverError::Failed(format!(
            "it does so in form {}, and this version knows form {FORM}: restart instead",
            said.form
        )));
    }
    if said.schemas != *schemas {
        return Err(HandOverError::Failed(format!(
            "this version has another database schema ({schemas:?}) than the one that runs ({:?}): restart instead",
            said.schemas
        )));
    }
    if said.sockets.len() != sockets.len() {
        return Err(HandOverError::Failed(format!(
            "it named {} sockets and gave {}",
            said.sockets.len(),
            sockets.len()
        )));
    }
    let named = said.sockets.into_iter().zip(sockets).collect();
    Ok((named, Predecessor(stream)))
}

impl Predecessor {
    /// Tells it that this process answers; it takes no new connections when this returns, or soon after.
    ///
    /// # Errors
    /// When it is gone, or does not leave.
    pub fn take_over(mut self) -> io::Result<()> {
        self.0.write_all(&READY)?;
        let mut word = [0; 1];
        self.0.read_exact(&mut word)?;
        if word == LEAVING {
            Ok(())
        } else {
            Err(io::Error::other("it did not say that it leaves"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use tokio::task::{JoinHandle, spawn_blocking};

    use super::*;

    fn schemas(version: i64) -> Schemas {
        Schemas::from([("sqlite".to_owned(), version)])
    }

    /// One that gives the socket of a listener; where it listens, and who hears that it was taken.
    fn giving(path: &Path) -> (std::net::SocketAddr, mpsc::Receiver<()>, JoinHandle<()>) {
        let offered = Arc::new(Offered::default());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        offered.offer("ops".to_owned(), socket.as_fd()).unwrap();
        let (taken, was_taken) = mpsc::channel(1);
        let listener = UnixListener::bind(path).unwrap();
        let given = tokio::spawn(give(listener, (offered, schemas(3)), taken));
        (socket.local_addr().unwrap(), was_taken, given)
    }

    #[tokio::test]
    async fn sockets_are_taken_once_by_one_that_is_ready() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (address, mut was_taken, given) = giving(&path);
        let at = path.clone();
        let follower = spawn_blocking(move || {
            // Some that do not get there take nothing away.
            drop(receive(&at, &schemas(3)).unwrap());
            BlockingStream::connect(&at)
                .unwrap()
                .write_all(b"x")
                .unwrap();
            let other = receive(&at, &schemas(4)).unwrap_err().to_string();
            assert!(other.contains("restart instead"), "{other}");
            let (sockets, predecessor) = receive(&at, &schemas(3)).unwrap();
            predecessor.take_over().unwrap();
            sockets
        });
        was_taken.recv().await.unwrap();
        given.await.unwrap();
        let mut sockets = follower.await.unwrap();
        let socket = TcpListener::from(sockets.remove("ops").unwrap());
        assert_eq!(socket.local_addr().unwrap(), address);
        assert!(sockets.is_empty());
        let nobody = receive(&path, &schemas(3)).unwrap_err();
        assert!(matches!(nobody, HandOverError::Nobody { .. }), "{nobody}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (said, why) in [
            (
                "{\"form\":2,\"schemas\":{\"sqlite\":3},\"sockets\":[]}\n",
                "form 2",
            ),
            (
                "{\"form\":1,\"schemas\":{\"sqlite\":3},\"sockets\":[\"ops\"]}\n",
                "named 1",
            ),
            (
                "{\"form\":1,\"schemas\":{\"sqlite\":3},\"sockets\":[],\"x\":1}\n",
                "not understood",
            ),
            ("{\"form\":1", "broke off"),
            ("", "broke off"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
            let giver = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(said.as_bytes()).unwrap();
            });
            let refused = receive(&path, &schemas(3)).unwrap_err().to_string();
            assert!(refused.contains(why), "{said}: {refused}");
            giver.join().unwrap();
        }
    }
}
