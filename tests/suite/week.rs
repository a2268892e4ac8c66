//! A week in little: renewals, reloads, grants made and revoked, a gateway and a line that fail, processes that take over, all while
//! peers ask. What the process holds must not grow with it.
//!
//! Invariant: it is looked at from outside, as the kernel counts it. A short run only shows that all of it goes on together; the long
//! one (`./run soak`, half an hour, or `MOSAIC_WEEK_S` seconds) says what grows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certs::{Clock as _, SystemClock};
use reference_gateway::plan;
use serde_json::{Value, json};
use support::acts::amira;
use support::asking::{Ledger, peer};
use support::enlist::{credentials, enlist};
use support::line::Line;
use support::onboard::{onboard, whole_scope};
use support::process::Process;
use tests::command::command;
use tests::world::POLICY;
use tests::{Home, Wire, World};

const MIB: u64 = 1024 * 1024;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Resident memory, bytes.
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn by(process: &Process) -> Self {
        let count = |what: &str| {
            let dir = format!("/proc/{}/{what}", process.id());
            std::fs::read_dir(dir).unwrap().count()
        };
        Self {
            memory: process.memory().0,
            descriptors: count("fd"),
            threads: count("task"),
        }
    }

    /// The median of each.
    fn median(of: &[Self]) -> Self {
        fn middle<T: Ord + Copy>(mut all: Vec<T>) -> T {
            all.sort_unstable();
            all[all.len() / 2]
        }
        Self {
            memory: middle(of.iter().map(|one| one.memory).collect()),
            descriptors: middle(of.iter().map(|one| one.descriptors).collect()),
            threads: middle(of.iter().map(|one| one.threads).collect()),
        }
    }
}

/// What operators do at the process.
struct Operator {
    socket: PathBuf,
    policy: PathBuf,
    scope: PathBuf,
}

impl Operator {
    fn at(dir: &Path) -> Self {
        let scope = dir.join("scope.json");
        std::fs::write(&scope, whole_scope(plan::AMIRA).to_string()).unwrap();
        Self {
            socket: dir.join("data").join("admin.sock"),
            policy: dir.join("policy.d").join("policy.toml"),
            scope,
        }
    }

    async fn run(&self, arguments: &[&str]) -> Value {
        let ran = command(&self.socket, &[&["--json"], arguments].concat()).await;
        assert_eq!(ran.exit, 0, "{arguments:?}: {}{}", ran.out, ran.errors);
        serde_json::from_str(&ran.out).unwrap()
    }

    async fn reload(&self, rows: u64) {
        let text = format!("{POLICY}\n[peers.guest]\nmax_rows_per_query = {rows}\n");
        std::fs::write(&self.policy, text).unwrap();
        self.run(&["policy", "reload"]).await;
    }

    async fn make_and_revoke(&self) {
        let scope = self.scope.display().to_string();
        let made = [
            "grant",
            "create",
            "--user",
            plan::AMIRA,
            "--peer",
            "guest",
            "--scope",
            &scope,
        ];
        let grant = self.run(&made).await;
        let id = grant["id"].as_str().unwrap();
        self.run(&["grant", "revoke", id]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_holds_does_not_grow() {
    let seconds = match std::env::var("MOSAIC_WEEK_S") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if support::is_soak() => 1_800,
        Err(_) => 12,
    };
    let world = World::builder()
        .settings("[limits]\nfacts_cache_ms = 1000\nclient_certificate_s = 300\n")
        .lease("duration_ms = 200")
        .start()
        .await;
    let other = enlist(&world, "other", &amira(), whole_scope(plan::AMIRA)).await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let config = credentials(&world, &other);
    // Where the home knows it.
    let listen = format!("federation.listen={}", world.federation());
    let settings = vec!["federation.drain_s=30".to_owned(), listen];
    let mut process = Process::take_over_with(world, "info", settings).await;
    let operator = Operator::at(process.dir.path());
    let line = Line::to(process.federation).await;
    let ledger = Arc::new(Ledger::default());
    let asking: Vec<_> = Wire::BOTH
        .into_iter()
        .map(|wire| {
            let what = (wire, r#"{"params":{"limit":20}}"#);
            let (config, ledger) = (Arc::clone(&config), Arc::clone(&ledger));
            tokio::spawn(peer(line.address, config, what, ledger, |_| {}))
        })
        .collect();
    let began = SystemClock.boot_nanos();
    let passed = || (SystemClock.boot_nanos() - began) / 1_000_000_000;
    let (mut held, mut followed, mut asked) = (Vec::new(), 0_u32, [0_u32; 2]);
    let mut round = 0_u64;
    while passed() < seconds {
        round += 1;
        operator.reload(3 + round % 5).await;
        operator.make_and_revoke().await;
        match round % 40 {
            10 => {
                process
                    .gateway
                    .behave(&json!({"over_share": ["status500"]}))
                    .await
            }
            12 => process.gateway.behave_honestly().await,
            20 => line.cut(),
            22 => line.mend(),
            _ => {}
        }
        // Once early, so that what is measured is one process; it is one that took over.
        if followed == 0 && passed() >= seconds / 6 {
            let mut before = process.follow();
            let ended = tokio::task::spawn_blocking(move || before.wait());
            assert!(ended.await.unwrap().unwrap().success());
            followed += 1;
            held.clear();
        }
        let answer = home.ask(&session, "work", "/list/tasks", &json!({})).await;
        asked[usize::from(answer.status != 200)] += 1;
        held.push(Held::by(&process));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ledger.stop.store(true, Ordering::SeqCst);
    line.mend();
    for task in asking {
        task.await.unwrap();
    }
    let third = (held.len() / 3).max(1);
    let early = Held::median(&held[..third]);
    let late = Held::median(&held[held.len() - third..]);
    println!(
        "{round} rounds in {} s: {} answers, {} failed while gateway or line did; the home {} and {}; {early:?} -> {late:?}",
        passed(),
        ledger.answers.load(Ordering::SeqCst),
        ledger.failures.lock().unwrap().len(),
        asked[0],
        asked[1]
    );
    assert_eq!(followed, 1);
    assert!(asked[0] > 0 && ledger.answers.load(Ordering::SeqCst) > 0);
    assert!(late.descriptors <= early.descriptors + 8);
    assert!(late.threads <= early.threads + 4);
    assert!(late.memory <= early.memory + early.memory / 5 + 8 * MIB);
    home.stop().await;
}
