//! The audit log under a sidecar that is killed, also while it moves rows into the archive, a database that is away, a journal without
//! space, at the start and at run time, and a torn journal.
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
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy::audit::AuditOutcome;
use proxy::audit::chain::Verifier;
use reference_gateway::plan;
use rustls::ClientConfig;
use serde_json::{Value, json};
use support::enlist::{credentials, enlist};
use support::log::Log;
use support::onboard::{users, whole_scope};
use support::process::Process;
use support::rounds;
use support::stream::{Connection, Shape};
use tests::database::Database;
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
    /// The database is moved away for a while: the file, or the schema under another name.
    Move,
    /// SIGKILL, and half a record at the end of the journal.
    KillMidRecord,
    /// SIGKILL, and no space for a new journal at first.
    KillWithoutSpace,
    /// The file system of the journal is full while requests come: the system refuses to write what it had promised space for.
    FillDisk,
    /// Everything there is moved into the archive while requests come, and SIGKILL somewhere on the way.
    KillWhileArchiving,
}

const ACTS: [Act; 8] = [
    Act::Kill,
    Act::LockAndKill,
    Act::LockUntilFull,
    Act::Move,
    Act::KillMidRecord,
    Act::KillWithoutSpace,
    Act::FillDisk,
    Act::KillWhileArchiving,
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
                    // What cannot be recorded is refused, without data.
                    if status == 503 {
                        assert_eq!(answer.json()["error"]["code"], "unavailable");
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
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1600k,mode=0700", "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.path())
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
    async fn pause(&mut self) {
        let millis = 20 + self.draw.next(120);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Another process that writes to the database and does not end.
    async fn lock(&self) -> Database {
        let mut held = Database::open(&self.process.config()).await;
        let orders: &[&str] = match &held {
            Database::Sqlite(_) => &["PRAGMA busy_timeout = 20000", "BEGIN IMMEDIATE"],
            Database::Postgres(_) => &[
                "SET idle_in_transaction_session_timeout = 0",
                "BEGIN",
                "LOCK TABLE meta, federation_audit_log IN SHARE ROW EXCLUSIVE MODE",
            ],
        };
        for order in orders {
            held.execute(order, &[]).await;
        }
        held
    }

    /// Moves the database away for a while.
    async fn move_away(&mut self) {
        if !tests::database::is_postgres() {
            let there = self.process.data_dir().join("federation.db");
            let away = there.with_extension("away");
            std::fs::rename(&there, &away).unwrap();
            self.pause().await;
            return std::fs::rename(&away, &there).unwrap();
        }
        let mut database = Database::open(&self.process.config()).await;
        let schema = tests::database::schema(self.process.dir.path());
        let away = format!("{schema}_away");
        let rename = |from: &str, to: &str| format!("ALTER SCHEMA {from} RENAME TO {to}");
        database.execute(&rename(&schema, &away), &[]).await;
        self.pause().await;
        database.execute(&rename(&away, &schema), &[]).await;
        database.close().await;
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
                held.close().await;
            }
            Act::LockUntilFull => {
                let held = self.lock().await;
                let mut answered = self.until_refused().await;
                held.close().await;
                self.pause().await;
                answered.extend(load.end().await);
                return (answered, 0);
            }
            Act::Move => {
                self.move_away().await;
                return (load.end().await, 0);
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
                // What the killed one left is brought in all the same.
                let why = self
                    .process
                    .fails_to_start(&["audit.journal_bytes=2097152"]);
                assert!(why.contains("cannot be made with 2097152 bytes"), "{why}");
            }
            Act::FillDisk => {
                let mut answered = load.end().await;
                answered.extend(self.fill_disk().await);
                return (answered, 0);
            }
            Act::KillWhileArchiving => {
                let socket = self.process.data_dir().join("admin.sock");
                let arguments = ["audit", "archive", "--older-than", "1s"];
                let again = socket.clone();
                let moving = tokio::spawn(async move {
                    // One after the other until nobody answers.
                    while tests::command::command(&again, &arguments).await.exit == 0 {}
                });
                let millis = 5 + self.draw.next(600);
                tokio::time::sleep(Duration::from_millis(millis)).await;
                self.process.kill();
                moving.await.unwrap();
                let answered = load.end().await;
                self.process.start_again();
                // What was left behind is in nobody's way.
                let load = Load::start(&self.process, &self.config);
                let ran = tests::command::command(&socket, &arguments).await;
                assert_eq!(ran.exit, 0, "{ran:?}");
                return (answered.into_iter().chain(load.end().await).collect(), 0);
            }
        }
        let answered = load.end().await;
        self.process.start_again();
        (answered, 0)
    }

    fn audit_dir(&self) -> PathBuf {
        match &self.small {
            Some(small) => small.path().to_owned(),
            None => self.process.data_dir().join("audit"),
        }
    }

    /// Asks until a request is refused because it cannot be recorded. Returns what was answered on the way.
    async fn until_refused(&mut self) -> Answered {
        let mut answered = Answered::new();
        let full = async {
            loop {
                let load = Load::start(&self.process, &self.config);
                tokio::time::sleep(Duration::from_millis(100)).await;
                answered.extend(load.end().await);
                let address = self.process.federation;
                let shape = Shape::of(Wire::H1);
                let opened = Connection::open(address, &self.config, shape).await;
                let answer = opened.unwrap().list("tasks", &json!({})).await.unwrap();
                if answer.head.status == 503 {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), full)
            .await
            .expect("the journal does not fill");
        self.unrecorded_was_refused = true;
        answered
    }

    async fn status(&self) -> Value {
        let socket = self.process.data_dir().join("admin.sock");
        let ran = tests::command::command(&socket, &["status", "--json"]).await;
        assert_eq!(ran.exit, 0, "{ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    /// Asks on while the journal's file system has no space left, until requests are refused, and on until they are answered
    /// again after there is some. Returns what was answered.
    async fn fill_disk(&mut self) -> Answered {
        let audit = self.audit_dir();
        let quiet = async {
            while self.status().await["audit"]["waiting"] != 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), quiet)
            .await
            .expect("the journal does not empty");
        support::log::take_space_back(&audit);
        let filler = audit.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        drop(file);
        let said = self.process.log.lock().unwrap().len();
        let mut answered = self.until_refused().await;
        let log = self.process.log.lock().unwrap()[said..].to_owned();
        assert!(log.contains("No space left"), "{log}");
        std::fs::remove_file(&filler).unwrap();
        let again = async {
            loop {
                let (address, shape) = (self.process.federation, Shape::of(Wire::H1));
                let opened = Connection::open(address, &self.config, shape).await;
                let answer = opened.unwrap().list("tasks", &json!({})).await.unwrap();
                if answer.head.status == 200 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again)
            .await
            .expect("it does not recover by itself");
        let load = Load::start(&self.process, &self.config);
        self.pause().await;
        answered.extend(load.end().await);
        answered
    }

    /// Compares the log with what the clients saw, as soon as the log has it all.
    async fn check(&mut self, answered: &Answered, may_miss: usize) {
        let mut recorded: HashMap<String, AuditOutcome> = HashMap::new();
        let mut counted = 0;
        let mut missing = Vec::new();
        for _ in 0..2000 {
            let rows = self.log.behind(self.position).await;
            self.position = rows.last().map_or(self.position, |row| row.position);
            for row in rows {
                let record = row.record;
                if record.http_status.is_none() && record.outcome != AuditOutcome::Aborted {
                    continue;
                }
                let id = record.request_id.as_str().to_owned();
                assert!(self.seen.insert(id.clone()), "{id} is there twice");
                counted += record.count - 1;
                recorded.insert(id, record.outcome);
            }
            missing = answered
                .iter()
                .filter(|(id, _)| !recorded.contains_key(*id))
                .collect();
            // Refusals that were counted into the row of another are accounted for by its count.
            let refused = missing
                .iter()
                .filter(|(_, status)| (400..500).contains(*status))
                .count();
            let other = missing.len() - refused;
            if other <= may_miss && refused <= usize::try_from(counted).unwrap() + may_miss {
                missing.clear();
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(missing.is_empty(), "without a row: {missing:?}");
        for (id, status) in answered {
            let expected: &[AuditOutcome] = match status {
                // The end of an answer may have come before its record's.
                200 => &[AuditOutcome::Allowed, AuditOutcome::Aborted],
                400..500 => &[AuditOutcome::Denied],
                _ => &[AuditOutcome::Error],
            };
            if let Some(outcome) = recorded.get(id) {
                assert!(expected.contains(outcome), "{id}: {status}, {outcome:?}");
            }
        }
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
        // What the harness wrote before the first sidecar began a chain.
        assert!(report.unlinked <= 1, "{}", report.unlinked);
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
    let small = Small::mount();
    if small.is_none() {
        let why = "this user may not mount a tmpfs";
        support::skipped("a journal without space at the start", why);
        support::skipped("a journal without space at run time", why);
    }
    let archive = world.config.data_dir.join("audit").join("archive");
    let mut settings = vec![
        "audit.journal_bytes=1048576".to_owned(),
        format!("audit.archive_dir={}", archive.display()),
    ];
    if let Some(small) = &small {
        settings.push(format!("audit.dir={}", small.path().display()));
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
                n => ACTS[[0, 1, 3, 4, 5, 6, 7][usize::try_from(n % 7).unwrap()]],
            },
        };
        if matches!(act, Act::KillWithoutSpace | Act::FillDisk) && torture.small.is_none() {
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
    let files = torture.log.files().await.len();
    println!("{answers} answers, {verified} rows verified, {files} files, {done:?}");
    assert!(answers > 500, "{answers}");
    assert!(files > 0, "nothing was moved into the archive");
    assert!(torture.unrecorded_was_refused);
}
