//! The asking side's cache, from the session to the serving side's books: what is answered from memory, and what not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use proxy::admin::AuditQuery;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::onboard::{keys, onboard, truth, whole_scope};
use tests::{Home, Response, World};

/// A work and a home, with one peer `work` of `amira`, and a session of theirs.
struct Pair {
    world: World,
    home: Home,
    grant: policy::id::GrantId,
    session: String,
}

impl Pair {
    async fn start(lease_ms: u64, settings: &str) -> Self {
        let lease = format!("duration_ms = {lease_ms}");
        let world = World::builder().lease(&lease).start().await;
        let cache = if settings.is_empty() {
            "[cache]\n"
        } else {
            settings
        };
        let home = Home::start_with(cache).await;
        let grant = onboard(&world, &home, "home", plan::AMIRA, "amira").await;
        let session = home.session("amira").await;
        world.gateway.forget_requests().await;
        Self {
            world,
            home,
            grant: grant.parse().unwrap(),
            session,
        }
    }

    async fn ask(&self, path: &str, body: &Value) -> Response {
        self.home.ask(&self.session, "work", path, body).await
    }

    async fn list(&self, body: &Value) -> Response {
        let answer = self.ask("/list/tasks", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// What the serving side has been asked since the start, by its own records, as verbs in order.
    async fn asked(&self) -> Vec<String> {
        // Records are written within a second; the last is waited for by asking for one more thing.
        let last = self.ask("/get/tasks/nothing", &json!({})).await;
        assert_eq!(last.status, 404, "{}", last.text());
        tests::audit::audit_row(self.home.control(), last.request_id()).await;
        tests::audit::audit_row(self.world.control(), last.request_id()).await;
        let query = AuditQuery {
            limit: Some(1_000),
            ..AuditQuery::default()
        };
        let rows = self.world.control().query_audit(query).await.unwrap();
        let mut verbs: Vec<String> = rows
            .iter()
            .filter(|row| row["direction"] == "inbound")
            .map(|row| row["verb"].as_str().unwrap().to_owned())
            .collect();
        // The proof of the path when the peer was added, and the question above.
        assert_eq!(verbs.remove(0), "capabilities");
        assert_eq!(verbs.pop().as_deref(), Some("get"));
        verbs
    }

    async fn stop(self) {
        self.home.stop().await;
        self.world.stop().await;
    }
}

/// Whether an answer says that it is from memory: in its envelope and in every row, or nowhere.
fn is_cached(answer: &Response) -> bool {
    let body = answer.json();
    let mark = body.get("_cached") == Some(&Value::Bool(true));
    let rows = match body.get("item") {
        Some(row) => vec![row.clone()],
        None => answer.items(),
    };
    assert!(!rows.is_empty());
    for row in &rows {
        assert_eq!(row.get("_cached").is_some(), mark, "{row}");
        assert_eq!(row["_source"], "work");
    }
    mark
}

/// The same answer without the marks.
fn unmarked(answer: &Response) -> Value {
    let mut body = answer.json();
    fn strip(value: &mut Value) {
        if let Some(members) = value.as_object_mut() {
            members.remove("_cached");
            members.values_mut().for_each(strip);
        }
        if let Some(items) = value.as_array_mut() {
            items.iter_mut().for_each(strip);
        }
    }
    strip(&mut body);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_identical_question_touches_neither_network_nor_gateway() {
    let pair = Pair::start(10_000, "").await;
    let first = pair.list(&json!({"params": {"limit": 5}})).await;
    assert!(!is_cached(&first));
    let id = keys(&first)[0].1.clone();
    let get = format!("/get/tasks/{id}");
    let one = pair.ask(&get, &json!({})).await;
    assert!(!is_cached(&one));
    pair.world.gateway.forget_requests().await;
    // Spelled differently, but the same question.
    for body in [
        json!({"params": {"limit": 5}}),
        json!({"verb": "list", "resource": "tasks", "params": {"limit": 5}, "cursor": null}),
    ] {
        let again = pair.list(&body).await;
        assert!(is_cached(&again));
        assert_eq!(unmarked(&again), first.json());
    }
    let again = pair.ask(&get, &json!({})).await;
    assert!(is_cached(&again));
    assert_eq!(unmarked(&again), one.json());
    assert!(pair.world.gateway.requests().await.is_empty());
    // Another question, the next page, another resource: none of them is that one.
    let cursor = first.cursor().unwrap();
    for body in [
        json!({"params": {"limit": 4}}),
        json!({"params": {"limit": 5}, "cursor": cursor}),
        json!({"params": {"limit": 5, "filter": {"status": "open"}}}),
    ] {
        assert_ne!(
            pair.list(&body).await.json()["_cached"],
            json!(true),
            "{body}"
        );
    }
    let notes = pair
        .ask("/list/notes", &json!({"params": {"limit": 5}}))
        .await;
    assert!(!is_cached(&notes));
    assert_eq!(
        pair.asked().await,
        ["list", "get", "list", "list", "list", "list"]
    );
    // Each question from memory has left its record here.
    let hits = pair
        .home
        .control()
        .outbound
        .as_ref()
        .unwrap()
        .cache_figures();
    assert_eq!(hits.hits, 3, "{hits:?}");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_and_refusals_are_never_kept() {
    let pair = Pair::start(10_000, "").await;
    for _ in 0..2 {
        let answer = pair.ask("/capabilities", &json!({})).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json().get("_cached"), None);
        let answer = pair.ask("/list/credentials", &json!({})).await;
        assert_eq!(answer.status, 403);
        let answer = pair.ask("/list/tasks", &json!({"unknown": 1})).await;
        assert_eq!(answer.status, 400);
    }
    let expected = [
        "capabilities",
        "list",
        "list",
        "capabilities",
        "list",
        "list",
    ];
    assert_eq!(pair.asked().await, expected);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_is_never_kept_nor_shared() {
    let pair = Pair::start(10_000, "").await;
    let search = json!({"params": {"query": "AC", "limit": 5}});
    let mut found = Vec::new();
    for _ in 0..3 {
        let answer = pair.ask("/search", &search).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.text().contains("_cached"), "{}", answer.text());
        found.push(answer.json());
    }
    assert!(!found[0]["items"].as_array().unwrap().is_empty());
    assert!(
        found.iter().all(|one| *one == found[0]),
        "the same each time"
    );
    // At once, too, each reaches the other side.
    let (a, b, c, d) = tokio::join!(
        pair.ask("/search", &search),
        pair.ask("/search", &search),
        pair.ask("/search", &search),
        pair.ask("/search", &search)
    );
    for answer in [a, b, c, d] {
        assert_eq!(answer.json(), found[0]);
    }
    // Rows that were listed before are no hits from memory, and hits are no list.
    let list = pair.list(&json!({"params": {"limit": 5}})).await;
    assert!(!is_cached(&list));
    assert_eq!(pair.ask("/search", &search).await.json(), found[0]);
    let outbound = pair.home.control().outbound.as_ref().unwrap();
    let figures = outbound.cache_figures();
    assert_eq!((figures.entries, figures.hits, figures.misses), (1, 0, 1));
    let mut expected = vec!["search"; 7];
    expected.extend(["list", "search"]);
    assert_eq!(pair.asked().await, expected);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_identical_questions_at_once_are_one() {
    let pair = Arc::new(Pair::start(10_000, "").await);
    // Slow enough that all of them are out at once.
    let slow = json!({"over_share": ["slow"], "slow_bytes": 400, "slow_pause_ms": 5});
    pair.world.gateway.behave(&slow).await;
    let asked: Vec<_> = (0..100)
        .map(|_| {
            let pair = Arc::clone(&pair);
            tokio::spawn(async move { pair.list(&json!({})).await })
        })
        .collect();
    let expected = truth("tasks", plan::AMIRA);
    let mut fetched = 0;
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!(keys(&answer), expected);
        fetched += usize::from(!is_cached(&answer));
    }
    assert_eq!(fetched, 1);
    pair.world.gateway.behave_honestly().await;
    assert_eq!(pair.asked().await, ["list"]);
    Arc::into_inner(pair).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_renewed_by_one_capabilities_call() {
    let pair = Pair::start(1_000, "").await;
    let first = pair.list(&json!({})).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    let asked: Vec<_> = futures(&pair, 8).await;
    for answer in asked {
        assert!(is_cached(&answer));
        assert_eq!(unmarked(&answer), first.json());
    }
    let asked = pair.asked().await;
    // On a slow machine the renewed lease may run out before the last of them is written.
    let (list, renewals) = asked.split_first().unwrap();
    assert_eq!(list, "list");
    assert!(
        !renewals.is_empty() && renewals.iter().all(|verb| verb == "capabilities"),
        "{asked:?}"
    );
    pair.stop().await;
}

async fn futures(pair: &Pair, count: usize) -> Vec<Response> {
    let body = json!({});
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.push(pair.list(&body).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_revision_is_served() {
    let pair = Pair::start(1_000, "").await;
    let first = pair.list(&json!({})).await;
    let rows = keys(&first).len();
    assert!(rows > 2);
    let mut narrow = whole_scope(plan::AMIRA);
    narrow["max_rows_per_query"] = json!(2);
    pair.world.edit(pair.grant, narrow).await;
    let second = pair.list(&json!({})).await;
    assert!(!is_cached(&second));
    assert_eq!(keys(&second).len(), 2);
    let outbound = pair.home.control().outbound.as_ref().unwrap();
    assert_eq!(outbound.cache_figures().entries, 1, "the old one is gone");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_leaves_nothing_in_memory() {
    let pair = Pair::start(1_000, "").await;
    pair.list(&json!({})).await;
    pair.list(&json!({"params": {"limit": 3}})).await;
    let outbound = Arc::clone(pair.home.control().outbound.as_ref().unwrap());
    assert_eq!(outbound.cache_figures().entries, 2);
    pair.world.revoke(pair.grant).await;
    let answer = pair.ask("/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(answer.reason().as_deref(), Some("grant_revoked"));
    let figures = outbound.cache_figures();
    assert_eq!((figures.entries, figures.bytes), (0, 0));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_suspended_here_is_not_answered_for_from_memory() {
    let pair = Pair::start(10_000, "").await;
    pair.list(&json!({})).await;
    let control = pair.home.control();
    let actor = tests::world::operator();
    control
        .suspend_peer(&actor, "work", Some("outbound"))
        .await
        .unwrap();
    let answer = pair.ask("/list/tasks", &json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(
        control.outbound.as_ref().unwrap().cache_figures().entries,
        0
    );
    control
        .resume_peer(&actor, "work", Some("outbound"))
        .await
        .unwrap();
    assert!(!is_cached(&pair.list(&json!({})).await));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_under_its_bound_and_off_is_off() {
    const BOUND: u64 = 200_000;
    let pair = Pair::start(10_000, &format!("[cache]\nmax_bytes = {BOUND}\n")).await;
    let outbound = Arc::clone(pair.home.control().outbound.as_ref().unwrap());
    for limit in 1..=120 {
        pair.list(&json!({"params": {"limit": limit}})).await;
        let figures = outbound.cache_figures();
        assert!(figures.bytes <= BOUND, "{figures:?}");
    }
    assert!(outbound.cache_figures().entries > 3);
    pair.stop().await;
    let pair = Pair::start(10_000, "[cache]\nmax_bytes = 0\n").await;
    for _ in 0..2 {
        assert!(!is_cached(&pair.list(&json!({})).await));
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_delays_an_answer_but_never_past_its_lease() {
    // The answer takes longer than three quarters of a lease: it is vouched for before it is passed on.
    let pair = Pair::start(1_000, "").await;
    let slow = json!({"over_share": ["slow"], "slow_bytes": 300, "slow_pause_ms": 120});
    pair.world.gateway.behave(&slow).await;
    let answer = pair.list(&json!({})).await;
    assert!(!is_cached(&answer));
    pair.world.gateway.behave_honestly().await;
    let asked = pair.asked().await;
    assert_eq!(asked.first().map(String::as_str), Some("list"));
    assert!(asked.contains(&"capabilities".to_owned()), "{asked:?}");
    pair.stop().await;
}
