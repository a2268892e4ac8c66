//! Being told to wait by another sidecar's limiter: both sides are the product, and time is real.
//!
//! Invariant: what was asked, how often and when is read from the serving side's own records. Nothing depends on how fast
//! the machine is, but that a token of the bucket takes longer than putting a few questions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use proxy::admin::AuditQuery;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::onboard::onboard;
use support::reader::until;
use tests::home::door;
use tests::{Home, Response, World};

/// A serving side with one token of two seconds, and a home that has used it up.
struct Pair {
    world: World,
    home: Home,
    session: String,
}

/// A question that is refused, and then answered at the second try.
const ONCE_EACH: [&str; 2] = ["rate_limited", "allowed"];
/// How long a token takes to come back.
const TOKEN: Duration = Duration::from_secs(2);

impl Pair {
    async fn start(settings: &str) -> Arc<Self> {
        let policy = "schema = 1\n[ceiling]\nresources = [\"tasks\", \"notes\"]\n\
            rate_limit = { per_minute = 30, burst = 1 }\n";
        let world = World::builder().policy(policy).start().await;
        let home = Home::start_with(settings).await;
        onboard(&world, &home, "home", plan::AMIRA, "amira").await;
        let session = home.session("amira").await;
        let pair = Arc::new(Self {
            world,
            home,
            session,
        });
        assert_eq!(pair.ask("federated:work", 1).await.status, 200);
        pair
    }

    /// A list of so many rows: another number is another question.
    async fn ask(&self, source: &str, limit: usize) -> Response {
        let question = json!({"source": source, "verb": "list", "resource": "tasks",
            "params": {"limit": limit}});
        let bearer = format!("Bearer {}", self.session);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let socket = &self.home.config.session.socket;
        door(socket, "/v1/query", &headers, question.to_string()).await
    }

    fn spawn(self: &Arc<Self>, source: &'static str, limit: usize) -> Asked {
        let pair = Arc::clone(self);
        tokio::spawn(async move { pair.ask(source, limit).await })
    }

    /// Puts a question, and waits until the home has been told to wait for its answer.
    async fn waiting(self: &Arc<Self>, limit: usize) -> Asked {
        let asked = self.spawn("federated:work", limit);
        let is_told = || async {
            let status = self.home.control().status().await.unwrap();
            let reach = status.outbound[0].reach.as_ref().unwrap();
            reach.limited_until.is_some()
        };
        while !is_told().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        asked
    }

    /// What became of the lists after the first, by the serving side's records, oldest first.
    async fn outcomes(&self, count: usize) -> Vec<String> {
        let lists = async || {
            let query = AuditQuery {
                limit: Some(1_000),
                ..AuditQuery::default()
            };
            let rows = self.world.control().query_audit(query).await.unwrap();
            let lists = rows.into_iter().filter(|row| row["verb"] == "list");
            lists.skip(1).collect::<Vec<Value>>()
        };
        // What is not there now is there within a second; more than expected would be too.
        tokio::time::sleep(tests::audit::AUDIT_WITHIN).await;
        let lists = lists().await;
        assert_eq!(lists.len(), count, "{lists:?}");
        let outcome = |row: &Value| row["outcome"].as_str().unwrap().to_owned();
        lists.iter().map(outcome).collect()
    }

    async fn stop(self: Arc<Self>) {
        let pair = Arc::into_inner(self).expect("nobody asks any more");
        pair.home.stop().await;
        pair.world.stop().await;
    }
}

type Asked = tokio::task::JoinHandle<Response>;

/// Whether it was held back here, without the network, and says for how long.
fn is_held_back(answer: &Response) -> bool {
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    answer.status == 429
        && answer.reason().as_deref() == Some("waiting_as_told")
        && (1..=TOKEN.as_secs()).contains(&after)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_waited_for_and_the_next_try_is_never_early() {
    let pair = Pair::start("[cache]\n").await;
    for limit in [2, 3, 4] {
        let answer = pair.ask("federated:work", limit).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.items().len(), limit);
    }
    // Each was refused once and answered at the second try: nothing ever came before its time.
    assert_eq!(pair.outcomes(6).await, ONCE_EACH.repeat(3));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_different_questions_one_waits_and_the_others_do_not_go_out() {
    let pair = Pair::start("[cache]\n").await;
    let waiter = pair.waiting(2).await;
    let others: Vec<Asked> = (3..13)
        .map(|limit| pair.spawn("federated:work", limit))
        .collect();
    for other in others {
        let answer = other.await.unwrap();
        assert!(is_held_back(&answer), "{} {}", answer.status, answer.text());
    }
    assert!(!waiter.is_finished(), "they were answered at once");
    assert_eq!(waiter.await.unwrap().status, 200);
    assert_eq!(pair.outcomes(2).await, ONCE_EACH);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_questions_share_one_wait() {
    let pair = Pair::start("[cache]\n").await;
    let began = SystemClock.boot_nanos();
    let asked: Vec<Asked> = (0..20).map(|_| pair.spawn("federated:work", 2)).collect();
    for asked in asked {
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.items().len(), 2);
    }
    let took = Duration::from_nanos(SystemClock.boot_nanos() - began);
    // One after another they would have taken forty seconds.
    assert!(took < TOKEN * 10, "{took:?}");
    assert_eq!(pair.outcomes(2).await, ONCE_EACH);
    pair.stop().await;
}

/// A question that has less time than another one like it is not held up by that one's patience.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_time_does_not_wait_with_those_who_have() {
    let pair = Pair::start("[timeouts]\nfanout_ms = 1000\n[cache]\n").await;
    let waiter = pair.waiting(2).await;
    for _ in 0..3 {
        let answer = pair.ask("all", 2).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let failures = answer["_failures"].as_array().unwrap();
        let of_work = failures.iter().find(|one| one["source"] == "work").unwrap();
        assert_eq!(
            (&of_work["code"], &of_work["reason"]),
            (&json!("rate_limited"), &json!("waiting_as_told")),
            "{answer}"
        );
        assert_eq!(answer["_notices"], Value::Null, "it is not away: {answer}");
    }
    assert!(!waiter.is_finished(), "they were answered at once");
    assert_eq!(waiter.await.unwrap().status, 200);
    assert_eq!(pair.outcomes(2).await, ONCE_EACH);
    let status = pair.home.control().status().await.unwrap();
    let reach = status.outbound[0].reach.as_ref().unwrap();
    assert_eq!(reach.breaker, "closed");
    pair.stop().await;
}

/// The one with patience may come later: then those who wait for the question without it give way.
#[tokio::test(flavor = "multi_thread")]
async fn patience_asks_again_for_all_who_have_it() {
    let pair = Pair::start("[timeouts]\nfanout_ms = 1000\n[cache]\n").await;
    let hasty = pair.spawn("all", 2);
    let patient: Vec<Asked> = (0..10).map(|_| pair.spawn("federated:work", 2)).collect();
    for asked in patient {
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let answer = hasty.await.unwrap().json();
    let failures = answer["_failures"].as_array().unwrap();
    let of_work = failures.iter().find(|one| one["source"] == "work").unwrap();
    assert_eq!(of_work["code"], "rate_limited", "{answer}");
    assert_eq!(pair.outcomes(2).await, ONCE_EACH);
    until(|| Arc::strong_count(&pair) == 1).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_at_the_peer_is_waited_for_and_is_no_outage() {
    // How many ask the gateway at once is counted by each process.
    let world = World::builder()
        .alone()
        .gateway("max_requests = 1\nmax_waiting = 0\nread_timeout_ms = 1500\n")
        .settings("[limits]\nfacts_cache_ms = 10000\n")
        .start()
        .await;
    let other = world.amira().await;
    let home = Home::start_with("[breaker]\nfailures = 1\n").await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let pair = Arc::new(Pair {
        world,
        home,
        session,
    });
    let world = &pair.world;
    assert_eq!(pair.ask("federated:work", 1).await.status, 200);
    let facts = world.ask(&other.minted, "/list/tasks", &json!({})).await;
    assert_eq!(facts.status, 200, "{}", facts.text());
    world.gateway.forget_requests().await;
    world.gateway.behave(&json!({"over_share": ["hang"]})).await;
    let (holder, asking) = (other.minted.clone(), Arc::clone(&pair));
    let hung = tokio::spawn(async move {
        let nothing = json!({});
        asking.world.ask(&holder, "/list/notes", &nothing).await
    });
    while world.gateway.requests().await.is_empty() {}
    world.gateway.behave_honestly().await;
    // The only turn is taken for 1.5 s: so the first try is refused, and one that comes later is not.
    let answer = pair.ask("federated:work", 2).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(hung.await.unwrap().status, 504);
    let query = AuditQuery {
        limit: Some(1_000),
        ..AuditQuery::default()
    };
    tokio::time::sleep(tests::audit::AUDIT_WITHIN).await;
    let rows = world.control().query_audit(query).await.unwrap();
    let busy = rows.iter().filter(|row| row["deny_code"] == "gateway_busy");
    let busy = busy.count();
    assert!((1..=2).contains(&busy), "{busy} times");
    let status = pair.home.control().status().await.unwrap();
    let reach = status.outbound[0].reach.as_ref().unwrap();
    assert_eq!(reach.breaker, "closed");
    pair.stop().await;
}
