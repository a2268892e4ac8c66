//! Valkey stands still, dies and comes back while two replicas share the rate of a grant in it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tests::World;
use tests::world::POLICY;

use super::clients::{Clients, known, now};
use super::side::Side;
use super::support::acts::member;
use super::support::reader::until;
use super::support::skipped;

/// The rate of the grant.
const PER_MINUTE: u32 = 1_200;
const BURST: u32 = 20;
/// What an answer may take: the 20 ms of a decision, and whatever else a busy machine takes. A decision that waited for a connection would
/// take 2 s.
const BOUND: Duration = Duration::from_millis(1_500);
const AWAY: &str = "the server of the shared limits does not answer";
const BACK: &str = "the server of the shared limits answers again";

/// A server of this test alone.
struct Server {
    program: PathBuf,
    port: u16,
    dir: TempDir,
    child: Child,
}

impl Server {
    fn start(program: PathBuf) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(&program, port, &dir);
        Self {
            program,
            port,
            dir,
            child,
        }
    }

    fn stop_short(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-STOP", &id]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(&self.program, self.port, &self.dir);
    }

    async fn answers(&self) {
        let address = ("127.0.0.1", self.port);
        until(|| std::net::TcpStream::connect(address).is_ok()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(program: &PathBuf, port: u16, dir: &TempDir) -> Child {
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How often both have said so.
fn said(logs: &[Arc<Mutex<String>>; 2], what: &str) -> usize {
    let counts = logs
        .iter()
        .map(|log| log.lock().unwrap().matches(what).count());
    counts.min().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_valkey_nobody_is_failed_or_kept_waiting_and_rates_hold_within_twice() {
    if !tests::database::is_postgres() {
        return skipped("an outage of Valkey", super::ON_SQLITE);
    }
    let Some(program) = std::env::var_os("MOSAIC_TEST_VALKEY_SERVER") else {
        return skipped(
            "an outage of Valkey",
            "MOSAIC_TEST_VALKEY_SERVER names no program",
        );
    };
    let mut valkey = Server::start(program.into());
    valkey.answers().await;
    let policy = format!(
        "{POLICY}\n[peers.busy]\nrate_limit = {{ per_minute = {PER_MINUTE}, burst = {BURST} }}\n"
    );
    let world = World::builder().policy(&policy).start().await;
    let url = format!("valkey.url=redis://127.0.0.1:{}", valkey.port);
    let settings = [url.as_str(), "valkey.timeout_ms=20"];
    let sides = [
        Side::start(&world, "second", &settings).await,
        Side::start(&world, "third", &settings).await,
    ];
    let logs = sides.each_ref().map(|side| Arc::clone(&side.log));
    let holder = member(&world, "busy").await;
    let at = sides.each_ref().map(|side| side.federation);
    known(&world, &holder, &at).await;
    let began = now();
    let clients = Clients::begin(&world, &holder, &at, 2);
    clients.more(100).await;

    let stopped = now();
    valkey.stop_short();
    until(|| said(&logs, AWAY) >= 1).await;
    clients.more(150).await;
    valkey.kill();
    clients.more(150).await;
    let returned = now();
    valkey.start_again();
    until(|| said(&logs, BACK) >= 1).await;
    let back = now() - returned;
    clients.more(100).await;
    let took = now() - began;
    let asked = clients.end().await;

    for one in &asked {
        let limited = (one.status, one.reason.as_str()) == (429, "rate_exceeded");
        assert!(one.status == 200 || limited, "{one:?}");
    }
    let accepted = asked.iter().filter(|asked| asked.status == 200).count();
    let due = f64::from(BURST) + took.as_secs_f64() * f64::from(PER_MINUTE) / 60.0;
    let ratio = f64::from(u32::try_from(accepted).unwrap()) / due;
    let meanwhile = asked
        .iter()
        .filter(|asked| asked.at > stopped && asked.at < returned);
    let slowest = meanwhile.clone().map(|asked| asked.took).max().unwrap();
    let served = meanwhile.filter(|asked| asked.status == 200).count();
    println!(
        "{accepted} of {} accepted, {ratio:.2} of the rate; {served} in the outage of {:?}, the slowest took {slowest:?}; shared again {back:?} after the return",
        asked.len(),
        returned - stopped
    );
    assert!(ratio <= 2.0, "{ratio}");
    assert!(served > 0);
    assert!(slowest < BOUND, "{slowest:?}");
    for side in sides {
        assert!(side.stop().await);
    }
    world.stop().await;
}
