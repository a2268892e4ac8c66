//! A Valkey of one world, whose time is that of the test: the limits of grants go by the clock of the server that keeps them.
//!
//! Invariant: its clock stands until it is moved, so that what is left of a limit is exact, however long the machine takes.

use std::ffi::OsString;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use policy::id::GrantId;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::database;

/// What makes the server go by a file.
const SOURCE: &str = include_str!("../valkey/clock.c");

/// A server that runs until it is dropped.
pub struct ManualValkey {
    child: Child,
    port: u16,
    /// Microseconds since the epoch, and where the server reads them.
    now: Mutex<i64>,
    clock: File,
    _dir: TempDir,
}

fn program() -> Option<OsString> {
    std::env::var_os("MOSAIC_TEST_VALKEY_SERVER")
}

/// Why limits cannot go by the clock of a test here; `None` when they can, as they always do within one process.
#[must_use]
pub fn missing() -> Option<String> {
    if !database::is_postgres() {
        return None;
    }
    if program().is_none() {
        return Some("MOSAIC_TEST_VALKEY_SERVER names no program".to_owned());
    }
    let compiler = Command::new("cc").arg("--version").output();
    compiler.err().map(|error| format!("cc: {error}"))
}

/// The library with the clock, beside this test.
fn library() -> PathBuf {
    let mut hash = DefaultHasher::new();
    SOURCE.hash(&mut hash);
    let own = std::env::current_exe().unwrap();
    let dir = own.parent().unwrap();
    let library = dir.join(format!("valkey-clock-{:016x}.so", hash.finish()));
    if !library.exists() {
        // Tests run beside one another: whoever is last replaces it with the same.
        let made = NamedTempFile::new_in(dir).unwrap().into_temp_path();
        let mut compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
            .arg(&made)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut source = compiler.stdin.take().unwrap();
        source.write_all(SOURCE.as_bytes()).unwrap();
        drop(source);
        assert!(compiler.wait().unwrap().success());
        made.persist(&library).unwrap();
    }
    library
}

impl ManualValkey {
    /// Starts one at this time, milliseconds since the epoch.
    ///
    /// # Panics
    /// When there is none here: see [`missing`].
    pub async fn start(now: i64) -> Self {
        let program = program().expect("MOSAIC_TEST_VALKEY_SERVER names a program");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let micros = now * 1_000;
        std::fs::write(&path, micros.to_ne_bytes()).unwrap();
        let clock = File::options().write(true).open(&path).unwrap();
        let begin = |port: u16| {
            Command::new(&program)
                .args(["--bind", "127.0.0.1", "--save", "", "--port"])
                .arg(port.to_string())
                .arg("--dir")
                .arg(dir.path())
                .env("LD_PRELOAD", library())
                .env("CLOCK_FILE", &path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        loop {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut child = begin(port);
            if listens(&mut child, port).await {
                return Self {
                    child,
                    port,
                    now: Mutex::new(micros),
                    clock,
                    _dir: dir,
                };
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Moves its clock.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap();
        *now += i64::try_from(by.as_micros()).unwrap();
        self.clock.write_all_at(&now.to_ne_bytes(), 0).unwrap();
    }
}

/// Fills the buckets of a grant again that the sidecars of this run share: on SQLite a process that is killed takes its buckets with it.
pub async fn forget(grant: GrantId) {
    if !database::is_postgres() {
        return;
    }
    let url = std::env::var("MOSAIC_TEST_VALKEY").unwrap();
    let server = url.strip_prefix("redis://").unwrap().trim_end_matches('/');
    let mut server = TcpStream::connect(server).await.unwrap();
    let names = ["questions", "revalidation", "renewal"]
        .map(|purpose| format!("mosaic-federation:{{{grant}}}:{purpose}"));
    let order = format!("DEL {}\r\n", names.join(" "));
    server.write_all(order.as_bytes()).await.unwrap();
    let kind = server.read_u8().await.unwrap();
    assert_eq!(kind, b':', "a number of buckets");
}

/// Whether it answers at last; not when somebody else has taken its port.
async fn listens(child: &mut Child, port: u16) -> bool {
    loop {
        let answered = answers(port).await;
        if let Some(ended) = child.try_wait().unwrap() {
            assert_ne!(ended.code(), Some(3), "the clock could not be read");
            return false;
        }
        if answered {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a Valkey is there.
async fn answers(port: u16) -> bool {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut answer = [0; 7];
    let asked = async {
        server.write_all(b"PING\r\n").await?;
        server.read_exact(&mut answer).await
    };
    let asked = tokio::time::timeout(Duration::from_secs(1), asked).await;
    matches!(asked, Ok(Ok(_))) && answer == *b"+PONG\r\n"
}

impl Drop for ManualValkey {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
