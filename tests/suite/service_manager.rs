//! A service manager that hands over sockets and wants to be told: the protocol of systemd, spoken by this test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustls_pki_types::CertificateDer;
use support::process::program;
use support::reader::PATIENCE;
use tempfile::TempDir;
use tests::{GatewayProcess, World, tls};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::Child;

/// Opens a socket for each name, says where, and becomes the program with these sockets.
const LAUNCHER: &str = r#"
import fcntl, os, socket, sys
names, program = sys.argv[1].split(":"), sys.argv[2:]
kept = []
for name in names:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    print(name, listener.getsockname()[1], flush=True)
    kept.append(fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 100))
for place, fd in enumerate(kept):
    os.dup2(fd, 3 + place, inheritable=True)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
os.execv(program[0], program)
"#;

/// The process, where its sockets are, and what it says.
struct Managed {
    child: Child,
    sockets: BTreeMap<String, SocketAddr>,
    told: UnixDatagram,
    root: CertificateDer<'static>,
    _gateway: GatewayProcess,
    _dir: TempDir,
}

impl Managed {
    async fn start(names: &str, settings: &[&str]) -> Self {
        let World {
            gateway,
            sidecar,
            ca,
            dir,
            ..
        } = World::start().await;
        sidecar.stop().await.unwrap();
        let notify = dir.path().join("notify");
        let told = UnixDatagram::bind(&notify).unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", LAUNCHER, names]).arg(program()).args([
            "serve",
            "--set",
            "log.level=warn",
        ]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
            .arg("--config")
            .arg(dir.path().join("federation.toml"))
            .env("NOTIFY_SOCKET", &notify)
            .env("WATCHDOG_USEC", "300000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sockets = BTreeMap::new();
        for _ in names.split(':') {
            let line = lines.next_line().await.unwrap().unwrap();
            let (name, port) = line.split_once(' ').unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
            sockets.insert(name.to_owned(), address);
        }
        Self {
            child,
            sockets,
            told,
            root: ca.root_der().clone(),
            _gateway: gateway,
            _dir: dir,
        }
    }

    /// Waits until it says this.
    async fn until(&self, line: &str) {
        let heard = async {
            let mut buffer = [0; 4096];
            loop {
                let length = self.told.recv(&mut buffer).await.unwrap();
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                if text.lines().any(|one| one == line) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| panic!("never said {line}"));
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, and what it wrote.
    async fn end(mut self) -> (bool, String) {
        let mut text = String::new();
        let mut errors = self.child.stderr.take().unwrap();
        let read = async {
            errors.read_to_string(&mut text).await.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, read).await.unwrap();
        (status.success(), text)
    }
}

/// The status line of an answer over HTTP.
async fn asked(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_taken_over_and_the_manager_is_told() {
    let managed = Managed::start("enrollment:federation:ops", &[]).await;
    // Whoever connects before it is ready waits.
    let ready = asked(managed.sockets["ops"], "/readyz");
    let (ready, ()) = tokio::join!(ready, managed.until("READY=1"));
    assert_eq!(ready, "HTTP/1.1 200 OK");
    let bare = tls::client(None, &managed.root, &["http/1.1"]);
    let alert = tls::refusal(managed.sockets["federation"], bare).await;
    assert_eq!(alert, rustls::AlertDescription::CertificateRequired);
    let config = tls::client(None, &managed.root, &["http/1.1"]);
    tls::connect(managed.sockets["enrollment"], config)
        .await
        .unwrap();
    for _ in 0..3 {
        managed.until("WATCHDOG=1").await;
    }
    managed.signal("-HUP");
    managed.until("RELOADING=1").await;
    managed.until("READY=1").await;
    managed.signal("-TERM");
    managed.until("STOPPING=1").await;
    let (ended_well, text) = managed.end().await;
    assert!(ended_well, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_would_not_be_used_keeps_it_from_starting() {
    for (names, settings, said) in [
        ("ops:metrics", &[][..], "for which there is no listener"),
        (
            "federation",
            &["roles.serve=false", "roles.ask=true"],
            "for which there is no listener",
        ),
        ("ops:ops", &[], "two sockets named `ops`"),
        ("ops", &["ops.listen=127.0.0.1:1"], "make them the same"),
    ] {
        let managed = Managed::start(names, settings).await;
        let (ended_well, text) = managed.end().await;
        assert!(!ended_well && text.contains(said), "{names}: {text}");
    }
}
