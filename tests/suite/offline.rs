//! A peer that is stopped, gone, or swallowed by the network: what sessions of the other side see.
//!
//! Invariant: the serving side is the program as a process of its own, so that it can be stopped as an operator or
//! a kernel would; what is asserted of time is only that a bound of the settings was kept, with room for a busy
//! machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "offline/all_sources.rs"]
mod all_sources;
#[path = "offline/mistaken.rs"]
mod mistaken;
#[path = "offline/stage.rs"]
mod stage;
#[path = "offline/stapled.rs"]
mod stapled;
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use certs::{Clock, SystemClock};
use http::StatusCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::hole::Namespace;
use support::onboard::onboard;
use support::process::{Process, program};
use support::reader::PATIENCE;
use tests::home::door;
use tests::world::operator;
use tests::{Home, Response, World};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Deadlines that a test can wait for; the breaker stays open until it is reset.
const SETTINGS: &str = "\
    [timeouts]\nconnect_ms = 2000\ntls_ms = 2000\nfirst_byte_ms = 2000\ntotal_ms = 6000\n\
    [breaker]\nopen_ms = 600000\nopen_max_ms = 600000\n";
/// The same for a whole sidecar, whose questions are to reach the peer each time.
fn without_cache() -> String {
    format!("{SETTINGS}[cache]\nmax_bytes = 0\n")
}
/// Why a side on PostgreSQL cannot be put where every packet vanishes.
const NO_DATABASE: &str = "where every packet vanishes there is no database to serve from";
/// The longest of these, twice for a question that is tried again, and room for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// The session door of an asking side.
#[derive(Clone)]
struct Door {
    socket: PathBuf,
}

impl Door {
    async fn ask(&self, token: &str) -> Response {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let path = "/peers/work/api/federation/v1/list/tasks";
        door(&self.socket, path, &headers, "{}".to_owned()).await
    }

    async fn ask_at_once(&self, token: &str, times: usize) -> Vec<Response> {
        let mut asked = JoinSet::new();
        for _ in 0..times {
            let (door, token) = (self.clone(), token.to_owned());
            asked.spawn(async move { door.ask(&token).await });
        }
        asked.join_all().await
    }
}

fn details(answer: &Response) -> Value {
    answer.json()["error"]["details"].clone()
}

fn notices(answers: &[Response]) -> usize {
    let told = answers.iter().map(|answer| {
        let notices = details(answer)["notices"].clone();
        for notice in notices.as_array().into_iter().flatten() {
            assert_eq!(
                *notice,
                json!({"peer": "work", "code": "federation_offline",
                    "message": "federation offline for work"})
            );
        }
        notices.as_array().map_or(0, Vec::len)
    });
    told.sum()
}

fn offline(answer: &Response) -> bool {
    let status = StatusCode::from_u16(answer.status).unwrap();
    let named = answer.json()["error"]["message"] == "federation offline for work";
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    ) && named
}

/// A peer that answers nothing is given up by all who ask at once, each session is told once, and from then on
/// nothing is waited for.
async fn is_given_up(door: &Door, sessions: [&str; 2], reasons: &[&str]) {
    let began = SystemClock.boot_nanos();
    let answers = door.ask_at_once(sessions[0], 12).await;
    let took = Duration::from_nanos(SystemClock.boot_nanos() - began);
    assert!(took < GIVEN_UP, "{took:?}");
    for answer in &answers {
        assert!(offline(answer), "{} {}", answer.status, answer.text());
        let reason = details(answer)["reason"].as_str().unwrap().to_owned();
        assert!(reasons.contains(&reason.as_str()), "{reason}");
    }
    assert_eq!(notices(&answers), 1, "once in a session, however many ask");
    for (session, told) in [(sessions[0], 0), (sessions[1], 1)] {
        let answers = door.ask_at_once(session, 12).await;
        for answer in &answers {
            assert!(offline(answer), "{} {}", answer.status, answer.text());
            assert_eq!(details(answer)["reason"], "breaker_open");
            assert!(answer.header("retry-after").is_some());
        }
        assert_eq!(notices(&answers), told);
    }
}

/// It answers within the time in which everything of these tests happens.
async fn answers_again(door: &Door, session: &str) {
    let until = SystemClock.boot_nanos() + u64::try_from(PATIENCE.as_nanos()).unwrap();
    loop {
        let answer = door.ask(session).await;
        if answer.status == 200 {
            assert!(!answer.items().is_empty());
            return;
        }
        assert!(SystemClock.boot_nanos() < until, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A serving side as a process, asked by a home in this process.
async fn pair() -> (Process, Home, Door) {
    let world = World::start().await;
    let home = Home::start_with(SETTINGS).await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    keep_port(&world);
    let process = Process::take_over(world, "info").await;
    let door = Door {
        socket: home.config.session.socket.clone(),
    };
    (process, home, door)
}

/// The sidecar listens where it does now when it is started again.
fn keep_port(world: &World) {
    // A balancer stays where it is.
    if world.beside.is_some() {
        return;
    }
    let file = world.dir.path().join("federation.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let chosen = "[federation]\nlisten = \"127.0.0.1:0\"";
    assert_eq!(text.matches(chosen).count(), 1);
    let fixed = format!("[federation]\nlisten = \"{}\"", world.federation());
    std::fs::write(&file, text.replace(chosen, &fixed)).unwrap();
}

async fn reset(home: &Home) {
    let peer = home
        .control()
        .reset_peer(&operator(), "work")
        .await
        .unwrap();
    assert_eq!(peer.reach.unwrap().breaker, "closed");
}

fn signal(process: &Process, name: &str) {
    let sent = Command::new("kill")
        .args([name, &process.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    if name == "-STOP" {
        // Threads that run on another core stop a moment later.
        while !is_stopped(process.id()) {
            std::thread::yield_now();
        }
    }
}

fn is_stopped(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let state = |stat: &str| {
        stat.rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with('T'))
    };
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
        .all(|stat| state(&stat) == Some(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_peer_is_given_up_and_found_again() {
    let (process, home, door) = pair().await;
    let (first, second) = (home.session("amira").await, home.session("amira").await);
    for _ in 0..2 {
        answers_again(&door, &first).await;
        signal(&process, "-STOP");
        let reasons = ["first_byte_timeout", "tls_timeout", "breaker_open"];
        is_given_up(&door, [&first, &second], &reasons).await;
        let status = home.control().status().await.unwrap();
        let reach = status.outbound[0].reach.as_ref().unwrap();
        assert_eq!((reach.breaker, reach.open_until.is_some()), ("open", true));
        assert!(status.outbound[0].last_failure.is_some());
        signal(&process, "-CONT");
        reset(&home).await;
    }
    answers_again(&door, &second).await;
    home.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_given_up_and_found_again() {
    let (mut process, home, door) = pair().await;
    let (first, second) = (home.session("amira").await, home.session("amira").await);
    for _ in 0..2 {
        answers_again(&door, &first).await;
        process.kill();
        let mut reasons = vec!["unreachable", "connection_lost", "breaker_open"];
        if process.is_behind_balancer() {
            // Which takes connections all the same, and ends them.
            reasons.push("tls_failed");
        }
        is_given_up(&door, [&first, &second], &reasons).await;
        let dir = home.dir.path().to_owned();
        tokio::task::spawn_blocking(move || watched(&dir))
            .await
            .unwrap();
        process.start_again();
        reset(&home).await;
    }
    answers_again(&door, &second).await;
    home.stop().await;
}

/// `status --watch`, as an operator has it open: two looks in a row show the breaker.
fn watched(dir: &Path) {
    let mut watch = Command::new(program())
        .args(["status", "--watch", "--every", "1s", "--json", "--config"])
        .arg(dir.join("federation.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for line in lines.take(2) {
        let status: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let reach = &status["outbound"][0]["reach"];
        assert_eq!(reach["breaker"], "open", "{reach}");
        assert!(reach["open_until"].is_string(), "{reach}");
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// An asking side as a process within a namespace.
struct Inside {
    child: Child,
    door: Door,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Inside {
    /// Starts it on the settings in `dir`; its session door is at `socket`.
    async fn start(namespace: &Namespace, dir: &Path, socket: PathBuf) -> Self {
        let enter = namespace.enter();
        let child = Command::new(enter[0])
            .args(&enter[1..])
            .arg(program())
            .args(["serve", "--set", "log.level=warn", "--config"])
            .arg(dir.join("federation.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let inside = Self {
            child,
            door: Door { socket },
        };
        let listens = async {
            while UnixStream::connect(&inside.door.socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.unwrap();
        inside
    }

    /// `peer reset`, as an operator types it.
    fn reset(&self, dir: &Path) {
        let reset = Command::new(program())
            .args(["peer", "reset", "work", "--json", "--config"])
            .arg(dir.join("federation.toml"))
            .output()
            .unwrap();
        assert!(reset.status.success(), "{reset:?}");
        let peer: Value = serde_json::from_slice(&reset.stdout).unwrap();
        assert_eq!(peer["reach"]["breaker"], "closed");
    }
}

/// Carries connections to `far` until the test ends.
async fn carry(listener: TcpListener, far: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut far = TcpStream::connect(far).await.unwrap();
            // Either end may go first.
            let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vanishing_packets_are_given_up() {
    if tests::database::is_postgres() {
        return support::skipped("vanishing_packets_are_given_up", NO_DATABASE);
    }
    let namespace = match Namespace::make() {
        Ok(namespace) => namespace,
        Err(why) => {
            support::skipped("vanishing_packets_are_given_up", &why);
            return;
        }
    };
    let names = format!(
        "[tls]\nserver_names = [\"127.0.0.1\", \"{}\"]",
        namespace.address
    );
    let world = World::builder().settings(&names).start().await;
    let home = Home::start_with(SETTINGS).await;
    world.let_in(plan::AMIRA).await;
    let scope = support::onboard::whole_scope(plan::AMIRA);
    let grant = world.pending_for("home", plan::AMIRA, scope).await;
    let url = world.enrollment_url(grant.id).await;
    let listener = TcpListener::bind((namespace.address, 0)).await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(carry(listener, world.federation()));
    let request = proxy::admin::AddPeer {
        url,
        user: "amira".to_owned(),
        name: "work".to_owned(),
        endpoint: Some(endpoint),
        fingerprint: None,
        trust_root_pem: None,
    };
    let added = home.control().add_peer(&operator(), request).await.unwrap();
    assert_eq!(added.notice, None);
    let (first, second) = (home.session("amira").await, home.session("amira").await);
    let socket = home.config.session.socket.clone();
    let dir = home.stop().await;
    let inside = Inside::start(&namespace, dir.path(), socket).await;
    for _ in 0..2 {
        answers_again(&inside.door, &first).await;
        namespace.vanish();
        // Those on the open connection wait for an answer, the others for a connection.
        let reasons = ["first_byte_timeout", "connect_timeout", "breaker_open"];
        is_given_up(&inside.door, [&first, &second], &reasons).await;
        namespace.appear();
        inside.reset(dir.path());
    }
    // The connection that led nowhere is not used again.
    answers_again(&inside.door, &second).await;
    world.stop().await;
}

/// Both roles in one process, as most sites have them: what comes in by one door is heard at the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_peers_own_request_closes_its_breaker() {
    let far = World::start().await;
    // Breakers are those of each process.
    let near = World::builder().alone().settings(&without_cache());
    let mut near = near.start().await;
    let mut config = proxy::config::Config::clone(&near.config);
    config.roles.ask = true;
    near.config = std::sync::Arc::new(config);
    let near = near.restart().await;
    far.let_in(plan::BEN).await;
    let scope = support::onboard::whole_scope(plan::BEN);
    let grant = far.pending_for("near", plan::BEN, scope).await;
    let request = proxy::admin::AddPeer {
        url: far.enrollment_url(grant.id).await,
        user: "ben".to_owned(),
        name: "work".to_owned(),
        endpoint: None,
        fingerprint: None,
        trust_root_pem: None,
    };
    near.control().add_peer(&operator(), request).await.unwrap();
    let session = proxy::admin::CreateSession {
        user: "ben".to_owned(),
        ttl_s: None,
    };
    let session = near.control().create_session(&operator(), session).await;
    let token = session
        .unwrap_or_else(|failure| panic!("{failure:?}"))
        .token;
    let door = Door {
        socket: near.config.session.socket.clone(),
    };
    answers_again(&door, &token).await;
    far.stop().await;
    let breaker = || async {
        let status = near.control().status().await.unwrap();
        status.outbound[0].reach.as_ref().unwrap().breaker
    };
    while breaker().await == "closed" {
        assert!(offline(&door.ask(&token).await));
    }
    assert_eq!(breaker().await, "open");
    // The same peer asks us: known under the same name here. Another peer's request says nothing of it.
    for (peer, expected) in [("other", "open"), ("work", "closed")] {
        let user = &support::onboard::users()[plan::AMIRA];
        let scope = support::onboard::whole_scope(plan::AMIRA);
        let holder = support::enlist::enlist(&near, peer, user, scope).await;
        let answer = near.ask(&holder.minted, "/list/tasks", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(breaker().await, expected, "{peer}");
    }
    near.stop().await;
}
