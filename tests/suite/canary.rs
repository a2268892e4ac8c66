//! Nothing of a peer's answer is kept: random texts are read through the asking side while it is loaded, crashes and
//! logs everything, and are then looked for wherever it could have written.
//!
//! Invariant: the search is proved in the same run, by finding the same texts where they were put on purpose, and the
//! reading, by finding them in the answers. Every file that the process can write lies below one directory: its data,
//! its working directory, its temporary directory and its standard error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use reference_gateway::plan;
use sqlx::Connection as _;
use support::contents::write_tables;
use support::onboard::onboard;
use support::process::program;
use support::reader::PATIENCE;
use support::search::{Needles, files, holders};
use tests::{Home, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Texts that are looked for.
const CANARIES: usize = 8;
/// Sessions that ask at once.
const ASKERS: usize = 6;

/// A text that is nowhere else: letters and digits, so that no encoding of JSON changes it.
fn canary() -> String {
    format!(
        "canary{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    )
}

/// Puts the texts into rows of the gateway.
async fn plant(world: &World, canaries: &[String]) {
    let file = world.dir.path().join("gateway.db");
    let mut rows = sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display()))
        .await
        .unwrap();
    for (number, text) in canaries.iter().enumerate() {
        let table = ["tasks", "mission_notes"][number % 2];
        let wanted = format!(
            "UPDATE {table} SET title = title || ' ' || ?, text = ? WHERE id IN \
             (SELECT id FROM {table} WHERE title NOT LIKE '%canary%' ORDER BY created_at DESC LIMIT 40)"
        );
        sqlx::query(sqlx::AssertSqlSafe(wanted))
            .bind(text)
            .bind(text)
            .execute(&mut rows)
            .await
            .unwrap();
    }
    rows.close().await.unwrap();
}

/// The asking side as a process that may dump core, as far as the system is asked.
struct Asking {
    child: Child,
    socket: PathBuf,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Asking {
    async fn start(dir: &Path) -> Self {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join("log.txt"))
            .unwrap();
        let temporary = dir.join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let child = Command::new("sh")
            .args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""])
            .arg(program())
            .args(["serve", "--set", "log.level=trace", "--config"])
            .arg(dir.join("federation.toml"))
            .current_dir(dir)
            .env("TMPDIR", &temporary)
            .env("SQLITE_TMPDIR", &temporary)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = dir.join("data/session.sock");
        let asking = Self { child, socket };
        let listens = async {
            while UnixStream::connect(&asking.socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let started = tokio::time::timeout(PATIENCE, listens).await;
        let log = || std::fs::read_to_string(dir.join("log.txt")).unwrap_or_default();
        assert!(
            started.is_ok(),
            "it does not listen: {}",
            log().lines().last().unwrap_or_default()
        );
        asking
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        // It may have ended in between.
        let _sent = sent.unwrap();
    }

    async fn ended(&mut self) {
        let until = async {
            while self.child.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, until).await.unwrap();
    }
}

/// One question over a connection of its own; the whole answer as text.
async fn ask(socket: &Path, path: &str, bearer: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {bearer}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sessions that ask without a pause until told to stop; connections that fail with the process are no failure.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn begin(socket: &Path, token: &str, canaries: &[String]) -> Self {
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let tasks = (0..ASKERS).map(|number| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let (socket, bearer) = (socket.to_owned(), format!("Bearer {token}"));
            let canaries = canaries.to_vec();
            tokio::spawn(async move {
                let resource = ["tasks", "notes"][number % 2];
                let path = format!("/peers/work/api/federation/v1/list/{resource}");
                while !stop.load(Ordering::SeqCst) {
                    match tokio::time::timeout(PATIENCE, ask(&socket, &path, &bearer)).await {
                        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => {
                            let found = canaries.iter().filter(|one| answer.contains(*one));
                            seen.fetch_add(found.count(), Ordering::SeqCst);
                        }
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            seen,
        }
    }

    /// Until this many texts have passed through.
    async fn saw(&self, times: usize) {
        let before = self.seen.load(Ordering::SeqCst);
        let passed = async {
            while self.seen.load(Ordering::SeqCst) < before + times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, passed)
            .await
            .expect("texts pass through");
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_peers_answers_is_kept() {
    let mut world = World::start().await;
    let home = Home::start_with("[breaker]\nopen_ms = 100\nopen_max_ms = 100\n").await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let canaries: Vec<String> = (0..CANARIES).map(|_| canary()).collect();
    plant(&world, &canaries).await;
    let token = home.session("amira").await;
    let config = Arc::clone(&home.config);
    let dir = home.stop().await;
    let needles = Needles::of(&canaries);

    // Both ways of dying, each while answers are under way.
    for crash in ["-SEGV", "-KILL"] {
        let mut asking = Asking::start(dir.path()).await;
        let load = Load::begin(&asking.socket, &token, &canaries);
        load.saw(20).await;
        // The runtime's own handler takes the first SIGSEGV, finds no overflow of a stack, and steps aside.
        while asking.child.try_wait().unwrap().is_none() {
            asking.signal(crash);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        load.end().await;
    }
    // The breaker trips in the middle, and the process ends in order.
    let mut asking = Asking::start(dir.path()).await;
    let load = Load::begin(&asking.socket, &token, &canaries);
    load.saw(20).await;
    world.stop_gateway().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end().await;
    asking.signal("-TERM");
    asking.ended().await;

    write_tables(&config, dir.path()).await;
    let written = files(dir.path());
    let size = |name: &str| {
        let path = written.iter().find(|path| path.ends_with(name));
        std::fs::metadata(path.unwrap_or_else(|| panic!("no {name}")))
            .unwrap()
            .len()
    };
    assert!(size("log.txt") > 10_000, "trace says much");
    let database = if tests::database::is_postgres() {
        "table secrets"
    } else {
        "data/federation.db"
    };
    assert!(size(database) > 0);
    let dumped = written.iter().any(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name == "core" || name.starts_with("core.")
    });
    assert!(!dumped, "the process was dumped: {written:?}");
    assert_eq!(holders(dir.path(), &needles), Vec::<PathBuf>::new());
    the_search_finds(&canaries[0]);
    world.stop().await;
}

/// The same search, where the text is: in every form, and in the memory of a process that protects nothing.
fn the_search_finds(text: &str) {
    let needles = Needles::of(&[text.to_owned()]);
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("nothing", &b"canary".repeat(1000));
    assert!(holders(dir.path(), &needles).is_empty());
    let row = format!("{{\"title\":\"{text}\"}}");
    put("raw", row.as_bytes());
    put(
        "hex",
        row.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .as_bytes(),
    );
    put(
        "upper",
        row.bytes()
            .map(|byte| format!("{byte:02X}"))
            .collect::<String>()
            .as_bytes(),
    );
    for skipped in 0..3 {
        let shifted = base64::engine::general_purpose::STANDARD.encode(&row.as_bytes()[skipped..]);
        put(&format!("base64-{skipped}"), shifted.as_bytes());
    }
    let mut packed =
        flate2::write::GzEncoder::new(b"before ".to_vec(), flate2::Compression::best());
    packed.write_all(row.repeat(20).as_bytes()).unwrap();
    put("gzip", &packed.finish().unwrap());
    assert_eq!(
        holders(dir.path(), &needles).len(),
        7,
        "{:?}",
        files(dir.path())
    );
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if !pattern.starts_with("core") {
        support::skipped(
            "the core dump of an unprotected process",
            &format!("core_pattern is {}", pattern.trim()),
        );
        return;
    }
    let crash = tempfile::tempdir().unwrap();
    let script = "ulimit -c unlimited || exit 9; canary=$0; kill -SEGV $$; echo $canary";
    let mut victim = Command::new("sh");
    victim.args(["-c", script, text]).current_dir(crash.path());
    let ended = victim.stdout(Stdio::null()).status().unwrap();
    if ended.code() == Some(9) {
        support::skipped(
            "the core dump of an unprotected process",
            "this user may not have any",
        );
        return;
    }
    assert_eq!(
        holders(crash.path(), &needles).len(),
        1,
        "{:?}",
        files(crash.path())
    );
}
