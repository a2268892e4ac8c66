//! The door's sockets, with an asking side that knows no peer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use certs::{Sealer, SealingSecret, SystemClock};
use policy::id::UserId;
use policy::time::UnixMillis;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::fixture::{OwnRows, cursors, reaches};
use super::super::reach::ReachRules;
use super::super::{Deadlines, OutboundParts};
use super::*;
use crate::audit::AuditLog;
use crate::store::{SqliteOptions, SqliteStore, Store};

const ASK: &[u8] = b"GET /peers/work/api/federation/v1/capabilities HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn outbound(dir: &TempDir, users: &[u32]) -> Arc<Outbound> {
    let clock = SystemClock;
    let now = UnixMillis(certs::Clock::unix_millis(&clock));
    let options = SqliteOptions::new(dir.path().join("db"), Uuid::new_v4(), now);
    let store = Arc::new(SqliteStore::open(&options).await.unwrap());
    let secret = SealingSecret::from_bytes(Zeroizing::new(vec![3; 32])).unwrap();
    let (audit, _writer) =
        crate::audit::fixture::writer_in(dir.path(), Arc::clone(&store) as Arc<dyn AuditLog>);
    let user = |uid: &u32| (*uid, UserId::parse("amira").unwrap());
    Arc::new(Outbound::new(OutboundParts {
        spans: crate::telemetry::spans::Spans::off(),
        store: store as Arc<dyn Store>,
        sealer: Arc::new(Sealer::new(secret).unwrap()),
        clock: Arc::new(clock),
        audit,
        deadlines: Deadlines::default(),
        session_users: users.iter().map(user).collect::<BTreeMap<_, _>>(),
        fanout_deadline: Duration::from_secs(2),
        local: Arc::new(OwnRows::EMPTY),
        cursors: cursors(),
        reaches: reaches(ReachRules::default()),
        cache_bytes: 0,
        told: crate::telemetry::steps::log,
    }))
}

async fn status(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> String {
    socket.write_all(ASK).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn the_unix_socket_knows_the_uid_at_the_other_end() {
    let dir = TempDir::new().unwrap();
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(dir.path()).unwrap());
    for (users, wanted) in [
        (vec![own], "HTTP/1.1 404 Not Found"),
        (vec![own + 1], "HTTP/1.1 401 Unauthorized"),
    ] {
        let path = dir.path().join("door.sock");
        // The socket file of the first round is left over, and nobody answers on it.
        let listener = DoorListener::bind_unix(&path, 0o600).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let side = outbound(&TempDir::new().unwrap(), &users).await;
        let serving = tokio::spawn(serve(
            listener,
            side,
            DoorLimits::default(),
            stopped,
            Leaving::default(),
        ));
        assert_eq!(
            status(UnixStream::connect(&path).await.unwrap()).await,
            wanted
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            DoorListener::bind_unix(&path, 0o600)
                .await
                .map(drop)
                .unwrap_err()
                .kind(),
            io::ErrorKind::AddrInUse
        );
        stop.send_replace(true);
        serving.await.unwrap();
    }
}

#[tokio::test]
async fn tcp_is_loopback_and_needs_a_token() {
    let dir = TempDir::new().unwrap();
    let refused = DoorListener::bind_loopback("0.0.0.0:0".parse().unwrap()).await;
    assert_eq!(
        refused.map(drop).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    let listener = DoorListener::bind_loopback("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let DoorListener::Loopback(tcp) = &listener else {
        unreachable!()
    };
    let address = tcp.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(
        listener,
        outbound(&dir, &[]).await,
        DoorLimits::default(),
        stopped,
        Leaving::default(),
    ));
    let socket = TcpStream::connect(address).await.unwrap();
    assert_eq!(status(socket).await, "HTTP/1.1 401 Unauthorized");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("door.sock");
    std::fs::write(&path, "mine").unwrap();
    let refused = DoorListener::bind_unix(&path, 0o600).await;
    assert_eq!(
        refused.map(drop).unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
