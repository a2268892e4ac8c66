//! Both sides as processes of their own, and a kill -9 before and behind every write of a renewal, on either side.
//!
//! Invariant: the process that is killed runs the product's own sidecar and is told of its steps as `serve` is; what goes on
//! afterwards is the product's program.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy::id::GrantId;
use proxy::telemetry::steps::RenewalStep;
use reference_gateway::plan;
use serde_json::Value;
use tempfile::TempDir;
use tests::command::command;
use tests::home::reach;
use tests::world::operator;
use tests::{GatewayProcess, Home, World};

use super::support;
use super::support::line::Line;
use super::support::onboard::{keys, truth, whole_scope};
use super::support::process::{Spawned, built, serve, spawn};
use super::support::reader::PATIENCE;
use proxy::admin::AddPeer;

/// One side as a process.
struct Side {
    dir: TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Side {
    fn admin(&self) -> PathBuf {
        self.dir.path().join("data/admin.sock")
    }

    /// SIGKILL, if it still runs, and the next process in the same directory.
    fn next(&mut self, command: &mut Command) -> Spawned {
        // It may be dead already.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
        let spawned = spawn(command);
        self.log = Arc::clone(&spawned.log);
        spawned
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("federation.toml")
    }

    /// Waits until it has died, by its own hand.
    async fn dies(&mut self, what: &str) {
        let waited = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    assert_eq!(status.signal(), Some(9), "{what}: {status}");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            panic!("{what} was never reached: {}", self.log.lock().unwrap());
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A work that amira's home asks, each a process.
struct Pair {
    work: Side,
    home: Side,
    /// From the home to the work, wherever that listens.
    line: Line,
    session: String,
    grant: GrantId,
    _gateway: GatewayProcess,
}

impl Pair {
    async fn start() -> Self {
        // The old certificate ends with the first use of the new one.
        let world = World::builder()
            .settings("[limits]\nrenewal_overlap_s = 0\n")
            .start()
            .await;
        let home = Home::start().await;
        let line = Line::to(world.federation()).await;
        world.let_in(plan::AMIRA).await;
        let grant = world
            .pending_for("home", plan::AMIRA, whole_scope(plan::AMIRA))
            .await;
        let order = AddPeer {
            url: world.enrollment_url(grant.id).await,
            user: "amira".to_owned(),
            name: "work".to_owned(),
            endpoint: Some(format!("https://{}", line.address)),
            fingerprint: None,
            trust_root_pem: None,
        };
        let added = home.control().add_peer(&operator(), order).await.unwrap();
        assert_eq!(added.notice, None);
        let session = home.session("amira").await;
        let dir = home.stop().await;
        let started = |dir: &Path| spawn(&mut serve(dir, "info", &[]));
        let spawned = started(dir.path());
        let home = Side {
            dir,
            child: spawned.child,
            log: spawned.log,
        };
        let World {
            gateway,
            sidecar,
            mut beside,
            dir,
            ..
        } = world;
        // One process follows on all of them.
        if let Some(beside) = &mut beside {
            beside.stop().await;
        }
        sidecar.stop().await.unwrap();
        let spawned = started(dir.path());
        line.lead_to(spawned.federation.unwrap());
        let work = Side {
            dir,
            child: spawned.child,
            log: spawned.log,
        };
        Self {
            work,
            home,
            line,
            session,
            grant: grant.id,
            _gateway: gateway,
        }
    }

    fn side(&mut self, asking: bool) -> &mut Side {
        if asking {
            &mut self.home
        } else {
            &mut self.work
        }
    }

    /// One side goes on as the program, or up to a step.
    fn go_on(&mut self, asking: bool, until: Option<RenewalStep>) {
        let side = self.side(asking);
        let mut command = match until {
            None => serve(side.dir.path(), "info", &[]),
            Some(step) => {
                let mut command = Command::new(built("until"));
                command.arg("serve").arg(side.file());
                command.arg(format!("{step:?}"));
                command
            }
        };
        let spawned = side.next(&mut command);
        side.child = spawned.child;
        if let Some(federation) = spawned.federation {
            self.line.lead_to(federation);
        }
    }

    /// A user's question; the whole answer, if one came.
    async fn asked(&self) -> Option<tests::Response> {
        let door = self.home.dir.path().join("data/session.sock");
        reach(&door, &self.session, "work", "/list/notes").await
    }

    /// A user's question is answered, and well.
    async fn works(&self, what: &str) {
        let answer = self.asked().await;
        let answer = answer.unwrap_or_else(|| panic!("{what}: {}", self.home.log.lock().unwrap()));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(keys(&answer), truth("notes", plan::AMIRA), "{what}");
    }

    /// Renews, up to the kill; a user keeps asking, and is answered until then.
    async fn renewed_until(&mut self, asking: bool, what: &str) {
        let admin = self.home.admin();
        let renewing =
            tokio::spawn(
                async move { command(&admin, &["cert", "renew", "--peer", "work"]).await },
            );
        loop {
            let answer = self.asked().await;
            match answer {
                Some(answer) if answer.status == 200 => {
                    assert_eq!(keys(&answer), truth("notes", plan::AMIRA), "{what}");
                }
                // Only of a side that has been killed.
                _ => break,
            }
            if self.side(asking).child.try_wait().unwrap().is_some() {
                break;
            }
        }
        self.side(asking).dies(what).await;
        let _broken_off = renewing.await.unwrap();
    }

    /// What is in use: one credential here, one certificate there, the same.
    async fn one_is_good(&self, what: &str) {
        let serial = async |side: &Side, role: &str, state: &str| -> Vec<String> {
            let ran = command(&side.admin(), &["cert", "list", "--json"]).await;
            assert_eq!(ran.exit, 0, "{what}: {ran:?}");
            let list: Value = serde_json::from_str(&ran.out).unwrap();
            let of = |row: &&Value| row["role"] == role && row["state"] == state;
            let rows = list["items"].as_array().unwrap().iter().filter(of);
            rows.map(|row| row["serial"].as_str().unwrap().to_owned())
                .collect()
        };
        let ours = serial(&self.home, "client", "active").await;
        assert_eq!(ours.len(), 1, "{what}");
        assert_eq!(serial(&self.work, "issued", "active").await, ours, "{what}");
        let unused = serial(&self.work, "issued", "unconfirmed").await;
        assert_eq!(unused, [""; 0], "{what}");
    }

    async fn records_hold(&self, what: &str) {
        for side in [&self.home, &self.work] {
            let ran = command(&side.admin(), &["audit", "verify"]).await;
            assert_eq!(ran.exit, 0, "{what}: {ran:?}");
        }
    }

    /// A renewal that is killed at a step, and what comes of it.
    async fn kill_at(&mut self, asking: bool, step: RenewalStep) {
        let what = format!("killed at {step:?}");
        // A grant may renew a few times in a row, as long as the process of the work remembers, or the server it is asked of.
        tests::valkey::forget(self.grant).await;
        if asking {
            self.go_on(false, None);
        }
        self.go_on(asking, Some(step));
        self.works(&what).await;
        self.renewed_until(asking, &what).await;
        self.go_on(asking, None);
        // The very first question after the start.
        self.works(&what).await;
        let ran = command(&self.home.admin(), &["cert", "renew", "--peer", "work"]).await;
        assert_eq!(ran.exit, 0, "{what}: {ran:?}");
        self.works(&what).await;
        self.one_is_good(&what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_either_side_is_gone_on_from() {
    let mut pair = Pair::start().await;
    pair.works("before").await;
    let rounds = support::rounds(1, 25);
    for round in 0..rounds {
        for (asking, steps) in [(true, RenewalStep::ASKING), (false, RenewalStep::SERVING)] {
            for step in steps {
                pair.kill_at(asking, step).await;
            }
        }
        pair.records_hold(&format!("round {round}")).await;
    }
    println!(
        "{} kills of processes at {} steps of a renewal",
        rounds * 16,
        RenewalStep::ASKING.len() + RenewalStep::SERVING.len()
    );
}
