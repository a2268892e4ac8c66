//! The shared limiter on a cluster, and on a master that sentinels watch: real servers, of which one is lost while it is asked.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::{Cmd, FromRedisValue, cmd};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::*;
use crate::config::Password;

/// How long servers may take to agree; they take a second or two.
const AGREE: Duration = Duration::from_secs(60);
/// As in the settings.
const PATIENCE: Duration = Duration::from_millis(20);
/// What a decision took at most, with room for a busy machine; making a connection may take twice that.
const BOUND: Duration = Duration::from_secs(1);

/// A user that may do what docs/postgresql.md says that a sidecar needs, and no more.
const USER: &str = "user limits on >l resetchannels -@all ~mosaic-federation:* +eval +evalsha +get +set +time +ping +role +select +hello +client|setinfo";

/// The program of this run; without one the test says so and is counted as skipped.
fn program(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("MOSAIC_TEST_VALKEY_SERVER").map(PathBuf::from);
    if found.is_none() {
        println!("SKIPPED {test}: MOSAIC_TEST_VALKEY_SERVER names no program");
    }
    found
}

/// This moment, since the machine was started.
fn now() -> Duration {
    Duration::from_nanos(SystemClock.boot_nanos())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that ends with the test.
struct Server {
    child: Child,
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    /// `:password@`, if it has one.
    credentials: String,
    dir: TempDir,
}

impl Server {
    /// Starts one with a file of settings, `credentials` being what clients write before its address.
    async fn start(program: &PathBuf, settings: &str, more: &[&str], credentials: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let file = dir.path().join("server.conf");
        let place = dir.path().display();
        let text = format!("bind 127.0.0.1\nport {port}\ndir {place}\n{settings}\n");
        std::fs::write(&file, text).unwrap();
        let mut arguments = vec![file.display().to_string()];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let child = spawn(program, &arguments);
        let server = Self {
            child,
            program: program.clone(),
            arguments,
            port,
            credentials: credentials.to_owned(),
            dir,
        };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        until("a server answers", async || {
            self.tried::<String>(&cmd("PING")).await.is_ok()
        })
        .await;
    }

    async fn tried<T: FromRedisValue>(&self, asked: &Cmd) -> redis::RedisResult<T> {
        let url = format!("redis://{}127.0.0.1:{}", self.credentials, self.port);
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        asked.query_async(&mut connection).await
    }

    /// Asks until there is an answer: a server that changes its role ends connections.
    async fn ask<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut asked = cmd(words.next().unwrap());
        for word in words {
            asked.arg(word);
        }
        let answered = async {
            loop {
                match self.tried(&asked).await {
                    Ok(answer) => return answer,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(AGREE, answered).await.expect("an answer")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.child = spawn(&self.program, &self.arguments);
        self.answers().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            println!("{}: {last:#?}", self.port);
        }
    }
}

fn spawn(program: &PathBuf, arguments: &[String]) -> Child {
    Command::new(program)
        .args(arguments)
        .args(["--logfile", "log"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(AGREE, waited)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Two replicas that ask for one bucket all the time, each at a pace.
struct Asking {
    stop: watch::Sender<bool>,
    began: Duration,
    rate: u32,
    burst: u32,
    tasks: Vec<tokio::task::JoinHandle<(u32, Duration)>>,
}

impl Asking {
    fn begin(replicas: &[Arc<SharedLimiter>]) -> Self {
        let (rate, burst) = (50, 20);
        let quota = Quota::of(Rate::new(rate * 60, burst).unwrap());
        let limit = bucket(Uuid::new_v4(), Purpose::Questions, quota);
        let stop = watch::Sender::new(false);
        let tasks = replicas.iter().map(|replica| {
            let (replica, stop) = (Arc::clone(replica), stop.subscribe());
            tokio::spawn(async move {
                let (mut accepted, mut slowest) = (0, Duration::ZERO);
                while !*stop.borrow() {
                    let asked = now();
                    accepted += u32::from(replica.draw(&[limit]).await.from.is_some());
                    slowest = slowest.max(now() - asked);
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                (accepted, slowest)
            })
        });
        Self {
            began: now(),
            rate,
            burst,
            tasks: tasks.collect(),
            stop,
        }
    }

    /// Ends it: the rate was kept within twice, and nobody waited.
    async fn end(self) {
        self.stop.send(true).unwrap();
        let (mut accepted, mut slowest) = (0, Duration::ZERO);
        for task in self.tasks {
            let (some, slow) = task.await.unwrap();
            accepted += some;
            slowest = slowest.max(slow);
        }
        let due = f64::from(self.burst) + (now() - self.began).as_secs_f64() * f64::from(self.rate);
        let ratio = f64::from(accepted) / due;
        println!("{accepted} accepted of {due:.0} due: {ratio:.3}; the slowest took {slowest:?}");
        assert!(ratio <= 2.0, "{ratio}");
        assert!(accepted > self.burst, "{accepted}");
        assert!(slowest < BOUND, "{slowest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_shares_each_bucket_and_goes_on_while_one_of_its_nodes_is_away() {
    let Some(program) =
        program("a_cluster_shares_each_bucket_and_goes_on_while_one_of_its_nodes_is_away")
    else {
        return;
    };
    let mut nodes = Vec::new();
    for slots in ["0 5460", "5461 10922", "10923 16383"] {
        let bus = free_port();
        let settings = format!(
            "cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 1000\ncluster-require-full-coverage no\nrequirepass s\nmasterauth s\nsave \"\"\n{USER} +cluster|slots +cluster|info"
        );
        let node = Server::start(&program, &settings, &[], ":s@").await;
        node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {slots}"))
            .await;
        nodes.push((node, bus));
    }
    let [(first, _), others @ ..] = nodes.as_slice() else {
        panic!("there are three");
    };
    for (node, bus) in others {
        let met = format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port);
        first.ask::<()>(&met).await;
    }
    until("the nodes know each other", async || {
        let mut whole = true;
        for (node, _) in &nodes {
            let info: String = node.ask("CLUSTER INFO").await;
            whole &= [
                "cluster_state:ok",
                "cluster_slots_ok:16384",
                "cluster_known_nodes:3",
            ]
            .iter()
            .all(|line| info.contains(line));
        }
        whole
    })
    .await;
    // One that is not there is in the list too.
    let url = format!(
        "redis-cluster://limits:l@127.0.0.1:{},127.0.0.1:{}",
        free_port(),
        first.port
    );

    let quota = Quota::per_window(10, Duration::from_secs(36_000));
    let grants: Vec<Limited> = (0..24)
        .map(|_| bucket(Uuid::new_v4(), Purpose::Questions, quota))
        .collect();
    let replicas = [limiter(&url, LONG), limiter(&url, LONG)];
    for &grant in &grants {
        let mut accepted = 0;
        for turn in 0..12 {
            let (replica, _) = &replicas[turn % 2];
            accepted += u32::from(replica.draw(&[grant]).await.from.is_some());
        }
        assert_eq!(accepted, 10);
    }
    assert_eq!(
        replicas.each_ref().map(|(_, metrics)| fallbacks(metrics)),
        [0, 0]
    );
    for (node, _) in &nodes {
        assert!(node.ask::<u64>("DBSIZE").await > 0, "each has some of them");
    }
    let options = ValkeyOptions::new(&valkey(&url, LONG), None, None).unwrap();
    let found: Vec<_> = options
        .parts()
        .await
        .into_iter()
        .map(|part| (part.found.is_ok(), part.needed))
        .collect();
    assert_eq!(found, [(false, false), (true, false), (true, true)]);

    let in_time = [limiter(&url, PATIENCE), limiter(&url, PATIENCE)];
    let asking = Asking::begin(&in_time.each_ref().map(|(replica, _)| Arc::clone(replica)));
    nodes[1].0.kill();
    // Grants of the others go on where they were: each has none left.
    let (replica, metrics) = limiter(&url, LONG);
    until("the grants of two nodes go on", async || {
        let mut there = BTreeSet::new();
        for (place, &grant) in grants.iter().enumerate() {
            let before = fallbacks(&metrics);
            let drawn = replica.draw(&[grant]).await;
            if fallbacks(&metrics) == before {
                assert_eq!(drawn.from, None);
                there.insert(place);
            }
        }
        !there.is_empty()
    })
    .await;
    nodes[1].0.start_again().await;
    until("all of them are shared again", async || {
        let before = fallbacks(&metrics);
        for &grant in &grants {
            replica.draw(&[grant]).await;
        }
        fallbacks(&metrics) == before
    })
    .await;
    asking.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_sentinels_chose_is_found_and_goes_on_with_what_was_left() {
    const NAME: &str = "the_master_that_sentinels_chose_is_found_and_goes_on_with_what_was_left";
    let Some(program) = program(NAME) else {
        return;
    };
    let settings = format!(
        "requirepass s\nmasterauth s\nsave \"\"\nrepl-diskless-sync-delay 0\nrepl-diskless-load swapdb\n{USER}"
    );
    let master = Server::start(&program, &settings, &[], ":s@").await;
    let follows = format!("{settings}\nreplicaof 127.0.0.1 {}", master.port);
    let replica = Server::start(&program, &follows, &[], ":s@").await;
    until("the replica follows", async || {
        let info: String = replica.ask("INFO replication").await;
        info.contains("master_link_status:up")
    })
    .await;
    let watching = format!(
        "requirepass w\nsentinel sentinel-pass w\nsentinel monitor limits 127.0.0.1 {} 2\nsentinel auth-pass limits s\n\
         sentinel down-after-milliseconds limits 1000\nsentinel failover-timeout limits 3000",
        master.port
    );
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        sentinels.push(Server::start(&program, &watching, &["--sentinel"], ":w@").await);
    }
    until(
        "the sentinels know each other and the replica",
        async || {
            let mut ready = true;
            for sentinel in &sentinels {
                let known: Vec<HashMap<String, String>> = sentinel.ask("SENTINEL MASTERS").await;
                ready &= known[0]["num-other-sentinels"] == "2" && known[0]["num-slaves"] == "1";
            }
            ready
        },
    )
    .await;

    let hosts = sentinels
        .iter()
        .map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
    let hosts: Vec<String> = hosts.collect();
    let url = format!("redis-sentinel://limits:l@{}/limits", hosts.join(","));
    let password = Password::new("w".to_owned().into());
    let options =
        |timeout| ValkeyOptions::new(&valkey(&url, timeout), Some(&password), None).unwrap();
    let replicas = [PATIENCE, PATIENCE, LONG].map(|patience| {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().unwrap());
        let own = Arc::new(LocalLimiter::new(Arc::clone(&clock)));
        let shared = SharedLimiter::new(options(patience), own, clock, Arc::clone(&metrics));
        (Arc::new(shared), metrics)
    });
    let [(one, _), (two, _), (patient, metrics)] = &replicas;
    let quota = Quota::per_window(10, Duration::from_secs(36_000));
    let limit = bucket(Uuid::new_v4(), Purpose::Questions, quota);
    for left in (4..10).rev() {
        let drawn = patient.draw(&[limit]).await;
        assert_eq!((drawn.from, drawn.standing.remaining), (Some(0), left));
    }
    assert_eq!(fallbacks(metrics), 0);
    until("the replica has it", async || {
        replica.ask::<u64>("DBSIZE").await == 1
    })
    .await;
    let found = options(LONG).parts().await;
    assert!(found.iter().all(|part| part.found.is_ok()), "{found:?}");

    let asking = Asking::begin(&[Arc::clone(one), Arc::clone(two)]);
    // It holds its connections, and answers nothing.
    master.signal(Signal::STOP);
    until("the replica is the master", async || {
        let info: String = replica.ask("INFO replication").await;
        info.contains("role:master")
    })
    .await;
    until("it is asked, and has what was left", async || {
        let before = fallbacks(metrics);
        let left = patient.look(limit).await.remaining;
        fallbacks(metrics) == before && left == 4
    })
    .await;
    let found = options(LONG).parts().await;
    let place = format!("127.0.0.1:{} is the master of limits", replica.port);
    assert_eq!(found.last().map(|part| part.found.clone()), Some(Ok(place)));
    // The other one comes back and believes that nothing has happened; nobody goes back to it.
    master.signal(Signal::CONT);
    master.answers().await;
    for left in [3, 2, 1, 0] {
        assert_eq!(patient.draw(&[limit]).await.standing.remaining, left);
    }
    assert_eq!(patient.draw(&[limit]).await.from, None);
    asking.end().await;

    // Sentinels that are away are named one by one, and so is the master that cannot be found.
    drop(sentinels);
    let found = options(LONG).parts().await;
    let needed: Vec<bool> = found.iter().map(|part| part.needed).collect();
    assert_eq!(needed, [false, false, false, true]);
    for (part, host) in found.iter().zip(hosts.iter().chain([&"limits".to_owned()])) {
        let why = part.found.clone().unwrap_err();
        assert!(why.contains(host), "{why}");
    }
}
