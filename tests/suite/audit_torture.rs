//! The audit log under a sidecar that is killed, a database that is away, a journal without space and a torn journal.
//!
//! Invariant: after each round every request that was answered has exactly one row, every chain verifies up to the heads the store and
//! the signed checkpoints name, and nothing was answered with data that could not be recorded.
//! What is done to the sidecar is drawn from a seed that is printed. The clock is made to jump in `audit_chain.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy::audit::chain::Verifier;
use proxy::audit::AuditOutcome;
use reference_gateway::plan;
use rustls::ClientConfig;
use serde_json::json;
use sqlx::{ConnectOptions, Connection as _};
use support::enlist::{credentials, enlist};
use support::log::Log;
use support::onboard::{users, whole_scope};
use support::process::Process;
use support::rounds;
use support::stream::{Connection, Shape};
use tests::{Wire, World};

/// What is done to the sidecar in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Act {
    /// SIGKILL at any moment.
    Kill,
    /// Another process holds the database, then SIGKILL before it lets go.
    LockAndKill,
    /// The database is held until requests are refused, then given back.
    LockUntilFull,
    /// The database file is moved away for a while.
    Move,
    /// SIGKILL, and half a record at the end of the journal.
    KillMidRecord,
    /// SIGKILL, and no space for a new journal at first.
    KillWithoutSpace,
}

const ACTS: [Act; 6] = [
    Act::Kill,
    Act::LockAndKill,
    Act::LockUntilFull,
    Act::Move,
    Act::KillMidRecord,
    Act::KillWithoutSpace,
];

/// Numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Answers that clients got: request id and status.
type Answered = HashMap<String, u16>;

/// Clients that ask until they are told to stop or the connection breaks.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Answered>>,
}

impl Load {
    fn start(process: &Process, config: &Arc<ClientConfig>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..4)
            .map(|n| {
                let (config, stop, address) =
                    (Arc::clone(config), Arc::clone(&stop), process.federation);
                let wire = Wire::BOTH[n % Wire::BOTH.len()];
                tokio::spawn(async move { ask_on(address, &config, wire, n, &stop).await })
            })
            .collect();
        Self { stop, tasks }
    }

    async fn end(self) -> Answered {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Answered::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

async fn ask_on(
    address: std::net::SocketAddr,
    config: &Arc<ClientConfig>,
    wire: Wire,
    nth: usize,
    stop: &AtomicBool,
) -> Answered {
    let mut answered = Answered::new();
    let mut asked = nth;
    'connections: while !stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = Connection::open(address, config, Shape::of(wire)).await else {
            break;
        };
        while !stop.load(Ordering::SeqCst) {
            asked += 1;
            // Answered with rows, refused by scope, refused by shape.
            let (resource, body) = match asked % 4 {
                0 => ("credentials", json!({})),
                1 => ("tasks", json!({"params": {"limit": 0}})),
                _ => ("tasks", json!({"params": {"limit": 3}})),
            };
            match connection.list(resource, &body).await {
                Ok(answer) => {
                    let id = answer.head.header("x-request-id").unwrap().to_owned();
                    let status = answer.head.status;
                    // The one answer without a record, and without data.
                    if id == "-" {
                        assert_eq!(status, 503);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue 'connections;
                    }
                    answered.insert(id, status);
                }
                Err(_) => continue 'connections,
            }
        }
    }
    answered
}

/// A file system of its own for the journal, with room for one and a half.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1600k,mode=0700", "tmpfs"])
            .arg(at)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
    }
}

struct Torture {
    process: Process,
    config: Arc<ClientConfig>,
    small: Option<Small>,
    draw: Draw,
    log: Log,
    position: i64,
    seen: HashSet<String>,
    unrecorded_was_refused: bool,
}

impl Torture {
    fn database(&self) -> PathBuf {
        self.process.data_dir().join("federation.db")
    }

    async fn pause(&mut self) {
        let millis = 20 + self.draw.next(120);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Another process that writes to the database and does not end.
    async fn lock(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.database())
            .busy_timeout(Duration::from_secs(20));
        let mut connection = options.connect().await.unwrap();
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// One round. Returns what was answered, and how many rows of them a torn record may have cost.
    async fn round(&mut self, act: Act) -> (Answered, usize) {
        let load = Load::start(&self.process, &self.config);
        self.pause().await;
        match act {
            Act::Kill => self.process.kill(),
            Act::LockAndKill => {
                let held = self.lock().await;
                self.pause().await;
                self.process.kill();
                held.close().await.unwrap();
            }
            Act::LockUntilFull => {
                let held = self.lock().await;
                self.until_refused().await;
                held.close().await.unwrap();
                self.pause().await;
                let answered = load.end().await;
                self.log.settle().await;
                return (answered, 0);
            }
            Act::Move => {
                let (there, away) = (self.database(), self.database().with_extension("away"));
                std::fs::rename(&there, &away).unwrap();
                self.pause().await;
                std::fs::rename(&away, &there).unwrap();
                let answered = load.end().await;
                self.log.settle().await;
                return (answered, 0);
            }
            Act::KillMidRecord => {
                self.process.kill();
                let answered = load.end().await;
                let torn = support::log::tear(&self.audit_dir());
                self.process.start_again();
                return (answered, usize::from(torn));
            }
            Act::KillWithoutSpace => {
                self.process.kill();
                let small = self.small.as_ref().unwrap();
                std::fs::write(small.ballast(), vec![1; 550 * 1024]).unwrap();
                std::fs::write(small.0.join("more"), vec![1; 700 * 1024]).unwrap_or_default();
                let why = self.process.fails_to_start();
                assert!(why.contains("audit journal"), "{why}");
                std::fs::remove_file(small.ballast()).unwrap();
                std::fs::remove_file(small.0.join("more")).unwrap();
            }
        }
        let answered = load.end().await;
        self.process.start_again();
        (answered, 0)
    }

    fn audit_dir(&self) -> PathBuf {
        self.small.as_ref().map_or_else(
            || self.process.data_dir().join("audit"),
            |small| small.0.clone(),
        )
    }

    /// Waits until a request is refused because it cannot be recorded.
    async fn until_refused(&mut self) {
        let full = async {
            loop {
                let load = Load::start(&self.process, &self.config);
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(load.end().await);
                let Ok(mut connection) =
                    Connection::open(self.process.federation, &self.config, Shape::of(Wire::H1))
                        .await
                else {
                    continue;
                };
                let answer = connection.list("tasks", &json!({})).await;
                if answer.is_ok_and(|answer| answer.head.status == 503) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), full)
            .await
            .expect("the journal does not fill");
        self.unrecorded_was_refused = true;
    }

    /// Compares the log with what the clients saw.
    async fn check(&mut self, answered: &Answered, may_miss: usize) {
        let rows = self.log.behind(self.position).await;
        let mut recorded: HashMap<&str, &AuditOutcome> = HashMap::new();
        for row in &rows {
            let id = row.record.request_id.as_str();
            if row.record.http_status.is_some() || row.record.outcome == AuditOutcome::Aborted {
                assert!(self.seen.insert(id.to_owned()), "{id} is there twice");
                recorded.insert(id, &row.record.outcome);
            }
        }
        let missing: Vec<_> = answered
            .iter()
            .filter(|(id, _)| !recorded.contains_key(id.as_str()))
            .collect();
        assert!(missing.len() <= may_miss, "without a row: {missing:?}");
        for (id, status) in answered {
            let expected: &[AuditOutcome] = match status {
                // The end of an answer may have come before its record's.
                200 => &[AuditOutcome::Allowed, AuditOutcome::Aborted],
                400..500 => &[AuditOutcome::Denied],
                _ => &[AuditOutcome::Error],
            };
            if let Some(outcome) = recorded.get(id.as_str()) {
                assert!(expected.contains(outcome), "{id}: {status}, {outcome:?}");
            }
        }
        self.position = rows.last().map_or(self.position, |row| row.position);
    }

    /// The whole log against every head that is known.
    async fn verify(&self) -> u64 {
        let mut verifier = Verifier::new(self.log.key());
        for head in self.log.heads().await {
            verifier.expect(head);
        }
        for head in self.log.checkpoints(&self.audit_dir()) {
            verifier.expect(head);
        }
        for row in self.log.behind(0).await {
            verifier.push(&row);
        }
        let report = verifier.finish();
        assert_eq!(report.finding, None);
        assert_eq!(report.unlinked, 0);
        report.verified
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_answer_has_its_row() {
    let seed = std::env::var("MOSAIC_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("MOSAIC_SEED={seed}");
    let world = World::start().await;
    let holder = enlist(
        &world,
        "home",
        &users()[plan::AMIRA],
        whole_scope(plan::AMIRA),
    )
    .await;
    let config = credentials(&world, &holder);
    let small = Small::mount(&world.dir.path().join("small"));
    if small.is_none() {
        println!("SKIPPED a journal without space: this user may not mount a tmpfs");
    }
    let mut settings = vec!["audit.journal_bytes=1048576".to_owned()];
    if let Some(small) = &small {
        settings.push(format!("audit.dir={}", small.0.display()));
    }
    let process = Process::take_over_with(world, "info", settings).await;
    let log = Log::open(&process).await;
    let mut torture = Torture {
        position: log.behind(0).await.last().map_or(0, |row| row.position),
        process,
        config,
        small,
        draw: Draw(seed),
        log,
        seen: HashSet::new(),
        unrecorded_was_refused: false,
    };
    let mut done: HashMap<Act, u32> = HashMap::new();
    let mut answers = 0;
    for round in 0..rounds(40, 200) {
        // Each once, then as drawn; those that wait for the journal to fill take their time and are drawn less often.
        let act = match ACTS.get(usize::try_from(round).unwrap()) {
            Some(act) => *act,
            None => match torture.draw.next(16) {
                0 => Act::LockUntilFull,
                n => ACTS[[0, 1, 3, 4, 5][usize::try_from(n % 5).unwrap()]],
            },
        };
        if act == Act::KillWithoutSpace && torture.small.is_none() {
            continue;
        }
        *done.entry(act).or_default() += 1;
        let (answered, may_miss) = torture.round(act).await;
        answers += answered.len();
        torture.check(&answered, may_miss).await;
        if round % 8 == 7 {
            torture.verify().await;
        }
    }
    let verified = torture.verify().await;
    println!("{answers} answers, {verified} rows verified, {done:?}");
    assert!(answers > 500, "{answers}");
    assert!(torture.unrecorded_was_refused);
}
