//! Revocation against caches: acts of an operator raced against cached and in-flight reads, over a slow network.
//!
//! One serving and one asking sidecar; many grants, each with rounds of its own, all at once. In a round every reader
//! asks over and over: sessions at the door, whose answers come from the cache as often as not, and clients that speak
//! to the serving side directly, on HTTP/1.1 and HTTP/2. Then an operator takes something away. A question that was
//! put after the act had returned must show the new state; how long the act took is printed.
//!
//! What is on its way in a kernel when the act returns is outside of the promise, so it is the question that has to be
//! put afterwards, not the answer that has to arrive. A long answer that a session reads slowly is in a test of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::{Clock, Credential, PrivateKey, SealPurpose, SystemClock};
use http_body_util::BodyExt;
use policy::id::GrantId;
use proxy::directory::Applied;
use reference_gateway::plan;
use rustls::ClientConfig;
use serde_json::json;
use support::acts::{amira, scope_of};
use support::delay::Delay;
use support::enlist::http_get;
use support::rounds;
use support::stream::{Connection, Shape};
use tests::{Home, Wire, World};
use tokio::task::JoinHandle;

/// The lease, milliseconds.
const LEASE: u64 = 600;
/// Grants that are raced at once.
const GRANTS: u32 = 25;
/// Caps on rows, in turn, by which states are told apart.
const CAPS: [usize; 4] = [3, 6, 4, 5];
/// How long after the last lease an act may return, milliseconds (specification, section 8).
const PROMPT: u64 = 100;
/// Between two questions of one reader.
const BREATH: Duration = Duration::from_millis(25);

/// What a plain timer of this process is late by: so much this machine adds to any wait, whoever waits.
#[derive(Default)]
struct Metronome {
    /// When it woke, and how late, nanoseconds.
    beats: Mutex<Vec<(u64, u64)>>,
}

impl Metronome {
    const BEAT: Duration = Duration::from_millis(5);

    async fn run(self: Arc<Self>) {
        loop {
            let due = SystemClock.boot_nanos() + u64::try_from(Self::BEAT.as_nanos()).unwrap();
            tokio::time::sleep(Self::BEAT).await;
            let now = SystemClock.boot_nanos();
            self.beats
                .lock()
                .unwrap()
                .push((now, now.saturating_sub(due)));
        }
    }

    /// The latest that it was since `then`, milliseconds, rounded up; what has not come yet counts as late too.
    fn worst_since(&self, then: u64) -> u64 {
        let beats = self.beats.lock().unwrap();
        let since = beats.iter().rev().take_while(|(woke, _)| *woke >= then);
        let worst = since.map(|(_, late)| *late).max().unwrap_or(0);
        let last = beats.last().map_or(then, |(woke, _)| *woke);
        let beat = u64::try_from(Self::BEAT.as_nanos()).unwrap();
        let missing = SystemClock.boot_nanos().saturating_sub(last + beat);
        worst.max(missing).div_ceil(1_000_000)
    }
}

/// How long one act took, milliseconds.
#[derive(Clone, Copy)]
struct Wait {
    /// It says that it has waited for leases.
    waited: u64,
    /// From the call to its return.
    took: u64,
    /// A plain timer was late by, meanwhile.
    late: u64,
}

/// What all rounds share.
struct Race {
    world: World,
    home: Home,
    network: Delay,
    /// Answers that came from the cache.
    cached: AtomicU64,
    /// Questions that were put after an act had returned.
    late: AtomicU64,
    /// Rounds in which a write was late after its check, which is outside of the promise.
    paused: AtomicU64,
    metronome: Arc<Metronome>,
}

/// One grant, and what its readers look at.
struct Course {
    race: Arc<Race>,
    grant: GrantId,
    peer: String,
    session: String,
    /// Whether policy caps it, or its scope.
    by_policy: bool,
    credential: Arc<ClientConfig>,
    /// The cap in force: what a question put now must show. 0 once the grant is revoked.
    cap: AtomicUsize,
    /// Set while an act is under way, when either state may be shown.
    changing: AtomicBool,
    /// Raised with each act that has returned.
    epoch: AtomicU64,
    /// Answers in this epoch, by which a round knows that its readers are at it.
    answers: AtomicU64,
    stop: AtomicBool,
    violations: Mutex<Vec<String>>,
}

impl Race {
    /// Writes that were late after their check, on both sides.
    async fn pauses(&self) -> u64 {
        let mut total = 0;
        for sidecar in [&self.world.sidecar, &self.home.sidecar] {
            let text = http_get(sidecar.addresses().ops.unwrap(), "/metrics").await;
            let lines = text.lines().filter_map(|line| {
                let rest = line.strip_prefix("mosaic_federation_pause_exceeded_total{")?;
                rest.split_once("} ")?.1.parse::<u64>().ok()
            });
            total += lines.sum::<u64>();
        }
        total
    }
}

impl Course {
    /// A grant for a peer of its own, enrolled through the slow network.
    async fn open(race: &Arc<Race>, number: u32) -> Arc<Self> {
        let peer = format!("peer-{number}");
        let user = amira();
        let by_policy = number.is_multiple_of(3);
        let cap = if by_policy { 10_000 } else { CAPS[0] };
        let grant = race
            .world
            .pending_for(&peer, &user.id, scope_of(cap))
            .await
            .id;
        if by_policy {
            cap_by_policy(&race.world, &peer, CAPS[0]).await;
        }
        let url = race.world.enrollment_url(grant).await;
        let request = proxy::admin::AddPeer {
            url,
            user: "amira".to_owned(),
            name: peer.clone(),
            endpoint: Some(format!("https://{}", race.network.address)),
            fingerprint: None,
            trust_root_pem: None,
        };
        let control = race.home.control();
        let added = control
            .add_peer(&tests::world::operator(), request)
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(added.notice, None);
        Arc::new(Self {
            grant,
            session: race.home.session("amira").await,
            credential: credential_of(race, added.name.as_str()).await,
            race: Arc::clone(race),
            peer,
            by_policy,
            cap: AtomicUsize::new(CAPS[0]),
            changing: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            violations: Mutex::default(),
        })
    }

    /// Judges an answer to a question that was put in `epoch` when the cap was `cap`: `None` for no rows at all.
    fn judge(&self, (epoch, cap): (u64, usize), rows: Option<usize>, what: &str) {
        self.answers.fetch_add(1, Ordering::SeqCst);
        let Some(rows) = rows else { return };
        self.race
            .late
            .fetch_add(u64::from(epoch > 0), Ordering::SeqCst);
        // A change since the question was put may show; what was over before it was put must not.
        let now = (
            self.epoch.load(Ordering::SeqCst),
            self.changing.load(Ordering::SeqCst),
        );
        if rows != cap && now == (epoch, false) {
            let text = format!(
                "{} {what}: {rows} rows in epoch {epoch}, where {cap} are in force",
                self.peer
            );
            self.violations.lock().unwrap().push(text);
        }
    }

    /// What a question that is put now must show; `None` while an act is under way.
    fn expectation(&self) -> Option<(u64, usize)> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let cap = self.cap.load(Ordering::SeqCst);
        let changing = self.changing.load(Ordering::SeqCst);
        (!changing && self.epoch.load(Ordering::SeqCst) == epoch).then_some((epoch, cap))
    }

    /// Sessions at the door.
    async fn read_at_the_door(self: Arc<Self>, slow: bool) {
        while !self.stop.load(Ordering::SeqCst) {
            let expected = self.expectation();
            let body = json!({});
            // A connection that is cut shows nothing.
            let Ok(answer) = self
                .race
                .home
                .try_ask(&self.session, &self.peer, "/list/tasks", &body)
                .await
            else {
                continue;
            };
            let rows = (answer.status == 200).then(|| answer.items().len());
            if answer.status == 200 && answer.json()["_cached"] == json!(true) {
                self.race.cached.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(expected) = expected {
                self.judge(expected, rows, "at the door");
            }
            tokio::time::sleep(if slow { BREATH * 7 } else { BREATH }).await;
        }
    }

    /// A client that holds the same credential and keeps nothing.
    async fn read_directly(self: Arc<Self>, wire: Wire) {
        let mut open: Option<Connection> = None;
        while !self.stop.load(Ordering::SeqCst) {
            let expected = self.expectation();
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => {
                    let address = self.race.network.address;
                    match Connection::open(address, &self.credential, Shape::of(wire)).await {
                        Ok(connection) => connection,
                        Err(_) => {
                            tokio::time::sleep(BREATH * 4).await;
                            continue;
                        }
                    }
                }
            };
            if let Ok(answer) = connection.list("tasks", &json!({})).await {
                let rows = (answer.head.status == 200)
                    .then(|| answer.json()["items"].as_array().unwrap().len());
                if rows.is_some() {
                    open = Some(connection);
                }
                if let Some(expected) = expected {
                    self.judge(expected, rows, &format!("on {wire:?}"));
                }
            }
            tokio::time::sleep(BREATH * 4).await;
        }
    }

    fn readers(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        vec![
            tokio::spawn(Arc::clone(self).read_at_the_door(false)),
            tokio::spawn(Arc::clone(self).read_at_the_door(true)),
            tokio::spawn(Arc::clone(self).read_directly(Wire::H1)),
            tokio::spawn(Arc::clone(self).read_directly(Wire::H2)),
        ]
    }

    /// One act, to the state with `cap` rows (0: revoked).
    async fn act(&self, cap: usize) -> Applied {
        let world = &self.race.world;
        if cap == 0 {
            return world.revoke(self.grant).await;
        }
        if self.by_policy {
            return cap_by_policy(world, &self.peer, cap).await;
        }
        world.edit(self.grant, scope_of(cap)).await
    }

    /// All rounds of this grant.
    async fn run(self: Arc<Self>, rounds: u32) -> Vec<Wait> {
        let readers = self.readers();
        let mut waits = Vec::new();
        for round in 1..=rounds {
            let before = self.race.pauses().await;
            let at = self.answers.load(Ordering::SeqCst);
            support::reader::until(|| self.answers.load(Ordering::SeqCst) > at + 3).await;
            let cap = if round == rounds {
                0
            } else {
                CAPS[usize::try_from(round).unwrap() % CAPS.len()]
            };
            self.changing.store(true, Ordering::SeqCst);
            let began = SystemClock.boot_nanos();
            let applied = self.act(cap).await;
            let took = (SystemClock.boot_nanos() - began) / 1_000_000;
            self.cap.store(cap, Ordering::SeqCst);
            self.epoch.fetch_add(1, Ordering::SeqCst);
            self.changing.store(false, Ordering::SeqCst);
            waits.push(Wait {
                waited: applied.waited_ms,
                took,
                late: self.race.metronome.worst_since(began),
            });
            let at = self.answers.load(Ordering::SeqCst);
            support::reader::until(|| self.answers.load(Ordering::SeqCst) > at + 3).await;
            let violations = std::mem::take(&mut *self.violations.lock().unwrap());
            if !violations.is_empty() {
                let paused = self.race.pauses().await > before;
                assert!(paused, "round {round}: {violations:#?}");
                self.race.paused.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.stop.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.await.unwrap();
        }
        waits
    }
}

/// A ceiling for one peer, in a policy file of its own, and `policy reload`.
async fn cap_by_policy(world: &World, peer: &str, cap: usize) -> Applied {
    let dir = &world.config.policy.dir;
    let text = format!("schema = 1\n[peers.{peer}]\nmax_rows_per_query = {cap}\n");
    let draft = dir.join(format!("{peer}.draft"));
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(&draft, dir.join(format!("{peer}.toml"))).unwrap();
    let operator = tests::world::operator();
    let reloaded = world.control().reload_policy(&operator).await;
    reloaded.unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The credential that the asking side has got for a peer, as a client of the test's own.
async fn credential_of(race: &Race, peer: &str) -> Arc<ClientConfig> {
    let control = race.home.control();
    let peers = control.store.list_peers().await.unwrap();
    let peer = peers.iter().find(|one| one.name.as_str() == peer).unwrap();
    let credentials = control.store.list_outbound_credentials().await.unwrap();
    let own = credentials.iter().find(|one| one.peer == peer.id).unwrap();
    let row = own.id.as_hyphenated().to_string();
    let key = control
        .sealer
        .unseal(SealPurpose::CredentialKey, &row, &own.sealed_key)
        .unwrap();
    let key = PrivateKey::from_pkcs8(key).unwrap();
    let credential =
        Credential::from_pem(own.chain_pem.as_bytes(), key.to_pem().as_bytes()).unwrap();
    let anchors =
        certs::TrustAnchors::from_pem(0, peer.trust_bundle_pem.as_deref().unwrap().as_bytes())
            .unwrap();
    certs::tls::peer_client_config(&credential, Arc::new(anchors), Arc::new(SystemClock)).unwrap()
}

/// A line past the harness, which keeps what a test that passes prints to itself.
fn note(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

/// A line of percentiles; the 99th of them.
fn distribution(name: &str, values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    note(&format!(
        "{name}: n {}, min {}, p50 {}, p90 {}, p99 {}, max {}",
        values.len(),
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    ));
    at(99)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_taken_away_is_shown_to_a_question_put_afterwards() {
    let world = World::builder()
        .lease(&format!("duration_ms = {LEASE}"))
        .start()
        .await;
    let user = amira();
    world.let_in_with(&user.id, &user.token()).await;
    let network = Delay::before(world.federation(), Duration::from_millis(8)).await;
    let race = Arc::new(Race {
        world,
        home: Home::start_with("[cache]\n").await,
        network,
        cached: AtomicU64::new(0),
        late: AtomicU64::new(0),
        paused: AtomicU64::new(0),
        metronome: Arc::default(),
    });
    let beating = tokio::spawn(Arc::clone(&race.metronome).run());
    let each = rounds(500, 10_000) / GRANTS;
    let mut courses = Vec::new();
    for number in 0..GRANTS {
        courses.push(Course::open(&race, number).await);
    }
    let running: Vec<_> = courses
        .iter()
        .map(|course| tokio::spawn(Arc::clone(course).run(each)))
        .collect();
    let mut waits = Vec::new();
    for course in running {
        waits.extend(course.await.unwrap());
    }
    assert_eq!(waits.len(), usize::try_from(each * GRANTS).unwrap());
    beating.abort();
    let beyond = |wait: &Wait| wait.waited.saturating_sub(LEASE);
    distribution(
        "waited for leases, ms",
        waits.iter().map(|wait| wait.waited),
    );
    distribution("of it beyond the lease, ms", waits.iter().map(beyond));
    let took = distribution("the whole act, ms", waits.iter().map(|wait| wait.took));
    let applying = waits
        .iter()
        .map(|wait| wait.took.saturating_sub(wait.waited));
    distribution("of it committing and applying, ms", applying);
    let late = distribution(
        "a plain timer late meanwhile, ms",
        waits.iter().map(|wait| wait.late),
    );
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    note(&format!(
        "{} answers from the cache, {} answers judged after an act, {} rounds with pause_exceeded",
        count(&race.cached),
        count(&race.late),
        count(&race.paused)
    ));
    // A tenth of a second beyond the lease, and what this machine adds to any timer.
    for wait in &waits {
        let allowed = PROMPT + wait.late;
        assert!(
            beyond(wait) <= allowed,
            "{} ms, with a timer late by {} ms",
            wait.waited,
            wait.late
        );
    }
    // So is the whole act, of which every step may come late, in all but one of a hundred.
    assert!(
        took <= LEASE + PROMPT + 3 * late,
        "{took} ms, with a timer late by {late} ms"
    );
    assert!(count(&race.cached) > u64::from(each * GRANTS));
    assert!(count(&race.late) > u64::from(each * GRANTS));
    drop(courses);
    let race = Arc::into_inner(race).unwrap();
    race.home.stop().await;
    race.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_reads_slowly_keeps_its_answer_until_the_grant_is_gone() {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use hyper_util::rt::TokioIo;
    let world = World::builder().lease("duration_ms = 1000").start().await;
    let home = Home::start().await;
    let grant = support::onboard::onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    world
        .gateway
        .behave(&json!({"big_mb": 24, "big_row_kib": 24}))
        .await;
    let stream = tokio::net::UnixStream::connect(&home.config.session.socket)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::post("/peers/work/api/federation/v1/list/tasks")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {session}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut bytes = 0;
    // Several leases long, with nothing read for longer than one.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        for _ in 0..8 {
            let frame = body.frame().await.unwrap().expect("the grant is in force");
            bytes += frame.into_data().unwrap().len();
        }
    }
    world.revoke(grant.parse().unwrap()).await;
    let mut after = 0;
    let whole = loop {
        match body.frame().await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => after += frame.into_data().map_or(0, |data| data.len()),
        }
    };
    assert!(!whole, "an answer that was cut looks whole");
    // What the kernel and the client had taken before.
    assert!(after < 4 << 20, "{after} bytes after {bytes}");
    driver.abort();
    home.stop().await;
    world.stop().await;
}
