//! AC-7: all sources are asked while one of them is stopped, gone or swallowed by the network.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use certs::{Clock, SystemClock};
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::home::door;
use tests::world::operator;
use tests::{GatewayProcess, World};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::task::JoinSet;

use super::support::hole::Namespace;
use super::support::process::Process;
use super::support::reader::PATIENCE;
use super::support::{self, onboard::whole_scope};
use super::{Door, GIVEN_UP, Inside, NO_DATABASE, carry, keep_port, signal, without_cache};

impl Door {
    /// A question of the query form, and how long its answer took.
    async fn query(&self, token: &str, source: &str) -> (Value, Duration) {
        let began = SystemClock.boot_nanos();
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let question =
            json!({"source": source, "verb": "list", "resource": "tasks", "params": {"limit": 5}});
        let answer = door(&self.socket, "/v1/query", &headers, question.to_string()).await;
        let took = Duration::from_nanos(SystemClock.boot_nanos() - began);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.json(), took)
    }
}

fn told_all(answers: &[Value]) -> usize {
    let told = answers.iter().map(|answer| {
        let notices = answer["_notices"].as_array();
        assert!(notices.is_none_or(|notices| notices.iter().all(|one| one["peer"] == "work")));
        notices.map_or(0, Vec::len)
    });
    told.sum()
}

/// Before the breaker is open, what is here is answered at the fan-out's deadline, and the session is told once by all
/// the answers together.
async fn cut_at_the_deadline(door: &Door, session: &str) {
    let mut asked = JoinSet::new();
    for _ in 0..8 {
        let (door, session) = (door.clone(), session.to_owned());
        asked.spawn(async move { door.query(&session, "all").await });
    }
    let (answers, times): (Vec<Value>, Vec<Duration>) = asked.join_all().await.into_iter().unzip();
    for answer in &answers {
        assert_eq!(answer["_partial"], true, "{answer}");
        let rows = answer["items"].as_array().unwrap();
        let local = rows.iter().all(|row| row["_source"] == "local");
        assert!(rows.len() == 5 && local, "{answer}");
    }
    assert!(times.iter().all(|took| *took < GIVEN_UP), "{times:?}");
    assert_eq!(told_all(&answers), 1);
}

/// Pairs of questions that are compared, of all sources and of the own gateway alone.
const PAIRS: usize = 21;

/// An address at which connections vanish: nobody accepts them, and what the kernel has no room for it drops.
struct Swallow {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Swallow {
    async fn at(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        // Longer than the kernel waits before it sends the first packet again.
        let patience = Duration::from_secs(3);
        while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await
        {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 64, "there is room for ever more");
        }
        Self {
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// As [`without_cache`], with a deadline for all sources together.
fn settings() -> String {
    without_cache().replace("[breaker]", "fanout_ms = 2000\n[breaker]")
}

/// All sources answer within the time in which everything of these tests happens.
async fn all_answer(door: &Door, session: &str) {
    let until = SystemClock.boot_nanos() + u64::try_from(PATIENCE.as_nanos()).unwrap();
    loop {
        let (answer, _) = door.query(session, "all").await;
        if answer["_partial"] == false {
            break;
        }
        assert!(SystemClock.boot_nanos() < until, "{answer}");
    }
}

/// A session goes on with what is here while work is away, at the price of what is here alone once the breaker is open.
async fn goes_on(door: &Door, gateway: &GatewayProcess, [first, second]: [&str; 2], outage: &str) {
    cut_at_the_deadline(door, first).await;
    // With the breaker open nothing is waited for. The own gateway takes the time that one takes that has work to
    // do, so that the tenth is some milliseconds, and not what two medians differ by on a busy machine.
    let slow = json!({"over_share": ["slow"], "slow_bytes": 250, "slow_pause_ms": 8});
    gateway.behave(&slow).await;
    let (mut open, mut local) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Which of the two comes first changes, so that neither is the one that finds everything warm.
        if pair % 2 == 0 {
            local.push(door.query(first, "local").await.1);
        }
        let (answer, took) = door.query(first, "all").await;
        assert_eq!(answer["_failures"][0]["reason"], "breaker_open", "{answer}");
        assert_eq!(told_all(&[answer]), 0, "{outage}");
        open.push(took);
        if pair % 2 == 1 {
            local.push(door.query(first, "local").await.1);
        }
    }
    let (answer, _) = door.query(second, "all").await;
    assert_eq!(told_all(&[answer]), 1, "another session is told too");
    for times in [&mut open, &mut local] {
        times.sort();
    }
    gateway.behave_honestly().await;
    let (all, alone) = (open[PAIRS / 2], local[PAIRS / 2]);
    println!(
        "median of all sources with the breaker open {all:?}, of the own gateway alone {alone:?}"
    );
    assert!(all <= alone.mul_f64(1.1), "{all:?}, {alone:?}");
    let longest = open[PAIRS - 1];
    assert!(
        longest < Duration::from_millis(1_900),
        "{longest:?}: none waited for the deadline"
    );
}

/// AC-7: work is stopped, then it is gone, then the network swallows what is sent to it, and a session goes on with what
/// is here.
#[tokio::test(flavor = "multi_thread")]
async fn all_sources_go_on_without_the_one_that_is_away() {
    let (desk, work) = tokio::join!(
        World::builder().asks().settings(&settings()).start(),
        World::start()
    );
    desk.let_in(plan::AMIRA).await;
    let scope = whole_scope(plan::AMIRA);
    desk.befriend(plan::AMIRA, "work", &work, plan::AMIRA, scope)
        .await;
    keep_port(&work);
    let mut work = Process::take_over(work, "info").await;
    let (first, second) = (
        desk.session(plan::AMIRA).await,
        desk.session(plan::AMIRA).await,
    );
    let door = Door {
        socket: desk.config.session.socket.clone(),
    };
    for outage in ["stopped", "gone", "swallowed"] {
        all_answer(&door, &first).await;
        let mut swallow = None;
        match outage {
            "stopped" => signal(&work, "-STOP"),
            "gone" => work.kill(),
            _ => {
                work.kill();
                swallow = Some(Swallow::at(work.federation).await);
            }
        }
        goes_on(&door, &desk.gateway, [&first, &second], outage).await;
        match outage {
            "stopped" => signal(&work, "-CONT"),
            _ => {
                drop(swallow);
                work.start_again();
            }
        }
        desk.control()
            .reset_peer(&operator(), "work")
            .await
            .unwrap();
    }
    desk.stop().await;
}

/// Carries connections at an address inside a namespace to the same address outside, by a socket that both sides see.
struct Bridge {
    child: Child,
}

/// The end inside: what is accepted at 127.0.0.1 goes to the socket.
const INSIDE_END: &str = "
import asyncio, sys
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def carry(reader, writer):
    far_reader, far_writer = await asyncio.open_unix_connection(sys.argv[2])
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)
async def main():
    server = await asyncio.start_server(carry, '127.0.0.1', int(sys.argv[1]))
    print('listens', flush=True)
    await server.serve_forever()
asyncio.run(main())
";

impl Bridge {
    fn to(far: SocketAddr, namespace: &Namespace, dir: &Path) -> Self {
        let socket = dir.join("bridge.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(far).await.unwrap();
                    // Either end may go first.
                    let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let enter = namespace.enter();
        let mut child = Command::new(enter[0])
            .args(&enter[1..])
            .args(["python3", "-c", INSIDE_END, &far.port().to_string()])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "listens\n");
        Self { child }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The same where packets vanish: the asking side is in a network of its own, from which the peer's address leads nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn all_sources_go_on_where_packets_vanish() {
    if tests::database::is_postgres() {
        return support::skipped("all_sources_go_on_where_packets_vanish", NO_DATABASE);
    }
    let namespace = match Namespace::make() {
        Ok(namespace) => namespace,
        Err(why) => {
            support::skipped("all_sources_go_on_where_packets_vanish", &why);
            return;
        }
    };
    let address = namespace.address;
    let names = format!("[tls]\nserver_names = [\"127.0.0.1\", \"{address}\"]");
    let (desk, work) = tokio::join!(
        World::builder().asks().settings(&settings()).start(),
        World::builder().settings(&names).start()
    );
    desk.let_in(plan::AMIRA).await;
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(carry(listener, work.federation()));
    let scope = whole_scope(plan::AMIRA);
    desk.befriend_at(
        plan::AMIRA,
        "work",
        &work,
        plan::AMIRA,
        scope,
        Some(endpoint),
    )
    .await;
    let (first, second) = (
        desk.session(plan::AMIRA).await,
        desk.session(plan::AMIRA).await,
    );
    let socket = desk.config.session.socket.clone();
    let World {
        gateway,
        sidecar,
        dir,
        ..
    } = desk;
    sidecar.stop().await.unwrap();
    let far = gateway.url().trim_start_matches("http://").parse().unwrap();
    let _bridge = Bridge::to(far, &namespace, dir.path());
    let inside = Inside::start(&namespace, dir.path(), socket).await;
    all_answer(&inside.door, &first).await;
    namespace.vanish();
    goes_on(&inside.door, &gateway, [&first, &second], "vanished").await;
    namespace.appear();
    inside.reset(dir.path());
    all_answer(&inside.door, &second).await;
    work.stop().await;
}
