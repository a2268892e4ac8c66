//! Different rows that a grant may see in a day (`rows_per_day`; specification, section 7): exact over pages, repeated
//! reads, restarts and crashes, and over at midnight UTC.
//!
//! Invariant: what a grant may see at all is asked for first, without a budget; what a budget leaves is compared with that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use certs::{Clock, SystemClock};
use policy::deny::DenyCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::process::Process;
use tests::grants::BASE;
use tests::{Denial, Holder, RawConnection, Response, Wire, World, tls};

const DAY: i64 = 86_400_000;
/// What more than a few rows of the plan say.
const SEARCHED: &str = "AC*";
const SPENT: Denial = Denial::new(429, "rate_limited", DenyCode::RowsPerDayExceeded);

/// Everything is open, at any rate; each grant may see so many rows a day.
fn policy(rows_per_day: Option<u32>) -> String {
    let budget = rows_per_day.map_or(String::new(), |rows| format!("rows_per_day = {rows}\n"));
    format!(
        "schema = 1\n[ceiling]\nresources = [\"tasks\", \"notes\", \"memory\", \"projects\", \"missions\"]\n\
         max_rows_per_query = 10000\nrate_limit = {{ per_minute = 1000000, burst = 100000 }}\n{budget}"
    )
}

async fn amira(world: &World) -> Holder {
    let scope = json!({
        "resources": ["tasks", "notes", "memory"],
        "filters": {"tasks": {"include_teams": ["platform"]}},
        "max_rows_per_query": 1000,
    });
    world.holder(plan::AMIRA, scope).await
}

/// A world without budgets, one grant in it, and all the ids of a resource it may see.
async fn open(resource: &str, least: usize) -> (World, Holder, Vec<String>) {
    let world = World::builder()
        .policy(&policy(None))
        .manual_clock()
        .start()
        .await;
    let holder = amira(&world).await;
    let all = list(&world, &holder, resource, json!({})).await.ids();
    assert!(all.len() >= least, "{resource}: {all:?}");
    // Leases from before the start are over, so that a reload need not wait for them.
    world.clock().advance(Duration::from_secs(1));
    (world, holder, all)
}

async fn list(world: &World, holder: &Holder, resource: &str, body: Value) -> Response {
    let path = format!("/list/{resource}");
    let answer = world.ask(&holder.minted, &path, &body).await;
    assert!([200, 429].contains(&answer.status), "{}", answer.text());
    answer
}

async fn get(world: &World, holder: &Holder, id: &str) -> Response {
    let path = format!("/get/tasks/{id}");
    world.ask(&holder.minted, &path, &json!({})).await
}

fn is_truncated(answer: &Response) -> bool {
    answer.json()["_truncated"] == true
}

/// Checks the refusal and gives the time it tells to wait, which must lead to the next midnight.
async fn spent(world: &World, answer: &Response) -> Duration {
    SPENT.check(world, answer).await;
    let told: i64 = answer.header("retry-after").unwrap().parse().unwrap();
    let then = world.clock().unix_millis() + told * 1000;
    assert!(then.rem_euclid(DAY) < 1000, "{told}");
    Duration::from_secs(told.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_per_day_exceeded() {
    // Memory is two collections, merged.
    for (resource, rows) in [("tasks", 4), ("memory", 2)] {
        let (world, holder, all) = open(resource, rows + 1).await;
        let budget = u32::try_from(rows).unwrap();
        world.reload_policy(&policy(Some(budget))).await;
        let cut = list(&world, &holder, resource, json!({})).await;
        assert_eq!(cut.ids(), all[..rows], "{resource}");
        assert!(is_truncated(&cut));
        let row = tests::audit::audit_row(world.control(), cut.request_id()).await;
        assert_eq!(row["rows_returned"], rows);
        assert_eq!(row["outcome"], "allowed");
        // From now on nothing with rows, not even those it has seen; the gateway is not asked for them.
        world.gateway.forget_requests().await;
        for wire in Wire::BOTH {
            let mut client = world.client(wire, &holder.minted).await;
            for path in [
                format!("{BASE}/list/{resource}"),
                format!("{BASE}/get/{resource}/{}", all[0]),
            ] {
                let answer = client.post(&path, "{}").await.unwrap();
                spent(&world, &answer).await;
            }
        }
        assert!(world.gateway.requests().await.is_empty());
        let capabilities = world.ask(&holder.minted, "/capabilities", &json!({})).await;
        assert_eq!(capabilities.json()["rows_per_day"], budget);
        // After the time told the list goes on where it was cut.
        let refused = list(&world, &holder, resource, json!({})).await;
        let wait = spent(&world, &refused).await;
        world.pass(wait - Duration::from_secs(1)).await;
        let cursor = json!({"cursor": cut.cursor().expect("a cursor")});
        assert_eq!(
            list(&world, &holder, resource, cursor.clone()).await.status,
            429
        );
        world.clock().advance(Duration::from_secs(1));
        let rest = list(&world, &holder, resource, cursor).await;
        let end = all.len().min(2 * rows);
        assert_eq!(rest.ids(), all[rows..end], "{resource}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_seen_again_costs_nothing() {
    let (world, holder, all) = open("tasks", 6).await;
    world.reload_policy(&policy(Some(3))).await;
    for _ in 0..5 {
        assert_eq!(get(&world, &holder, &all[0]).await.status, 200);
        let two = list(&world, &holder, "tasks", json!({"params": {"limit": 2}})).await;
        assert_eq!(two.ids(), all[..2]);
    }
    assert_eq!(
        get(&world, &holder, "none").await.status,
        404,
        "no row, no cost"
    );
    assert_eq!(get(&world, &holder, &all[5]).await.status, 200);
    spent(&world, &get(&world, &holder, &all[1]).await).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_count_together_and_a_row_counts_once() {
    let (world, holder, all) = open("tasks", 6).await;
    world.reload_policy(&policy(Some(5))).await;
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let question = json!({"params": {"limit": 2}, "cursor": cursor});
        let page = list(&world, &holder, "tasks", question).await;
        if page.status == 429 {
            spent(&world, &page).await;
            break;
        }
        seen.extend(page.ids());
        assert_eq!(is_truncated(&page), seen.len() == 5);
        cursor = json!(page.cursor().expect("there is more"));
    }
    assert_eq!(seen, all[..5]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_count_apart_and_resources_together() {
    let (world, holder, all) = open("tasks", 6).await;
    world.reload_policy(&policy(Some(2))).await;
    let other = amira(&world).await;
    assert_eq!(
        list(&world, &holder, "tasks", json!({})).await.ids(),
        all[..2]
    );
    spent(&world, &list(&world, &holder, "notes", json!({})).await).await;
    assert_eq!(
        list(&world, &other, "tasks", json!({})).await.ids(),
        all[..2]
    );
    world.stop().await;
}

/// Searches. Ids in the order of the hits, each with its resource.
async fn search(world: &World, holder: &Holder, params: &Value) -> (Response, Vec<String>) {
    let body = json!({ "params": params });
    let answer = world.ask(&holder.minted, "/search", &body).await;
    assert!([200, 429].contains(&answer.status), "{}", answer.text());
    let hits = answer.json()["items"].as_array().cloned();
    let ids = hits.unwrap_or_default().into_iter().map(|hit| {
        let (resource, id) = (&hit["resource"], &hit["item"]["id"]);
        format!("{} {}", resource.as_str().unwrap(), id.as_str().unwrap())
    });
    (answer, ids.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_of_a_search_count_as_rows() {
    let (world, holder, _) = open("tasks", 6).await;
    let all = json!({"query": SEARCHED, "limit": 50});
    let (whole, hits) = search(&world, &holder, &all).await;
    assert!(hits.len() > 4, "{}", whole.text());
    assert!(!is_truncated(&whole));
    world.reload_policy(&policy(Some(4))).await;
    // What was found best, as far as the budget goes.
    let (cut, found) = search(&world, &holder, &all).await;
    assert_eq!(found, hits[..4]);
    assert!(is_truncated(&cut));
    let row = tests::audit::audit_row(world.control(), cut.request_id()).await;
    assert_eq!(
        (&row["rows_returned"], &row["outcome"]),
        (&json!(4), &json!("allowed"))
    );
    // Then nothing, not even what it has seen, by a search or by a list; and the gateway is not asked.
    world.gateway.forget_requests().await;
    let (refused, _) = search(&world, &holder, &all).await;
    let wait = spent(&world, &refused).await;
    spent(&world, &list(&world, &holder, "tasks", json!({})).await).await;
    assert!(world.gateway.requests().await.is_empty());
    world.pass(wait).await;
    // The next day, in two steps: what was seen costs nothing.
    let two = json!({"query": SEARCHED, "limit": 2});
    for _ in 0..3 {
        assert_eq!(search(&world, &holder, &two).await.1, hits[..2]);
    }
    let (cut, found) = search(&world, &holder, &all).await;
    assert_eq!(found, hits[..4]);
    assert!(is_truncated(&cut));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decision_on_a_search_is_told_with_what_its_budget_did() {
    let (world, holder, _) = open("tasks", 6).await;
    world.reload_policy(&policy(Some(2))).await;
    let params = json!({"query": SEARCHED, "resources": ["tasks", "notes"]});
    let (cut, found) = search(&world, &holder, &params).await;
    assert_eq!(found.len(), 2);
    let (refused, _) = search(&world, &holder, &params).await;
    spent(&world, &refused).await;
    for answer in [&cut, &refused] {
        tests::audit::audit_row(world.control(), answer.request_id()).await;
    }
    let socket = &world.config.admin.socket;
    let explained = async |answer: &Response| {
        let id = answer.request_id();
        let ran = tests::command::command(socket, &["audit", "explain", id]).await;
        assert_eq!(ran.exit, 0, "{ran:?}");
        ran
    };
    let told = explained(&cut).await;
    for resource in ["tasks", "notes"] {
        assert!(told.out.contains("verb: search -> known"), "{}", told.out);
        let step = format!("redaction: {resource} -> ");
        assert!(told.out.contains(&step), "{resource}: {}", told.out);
    }
    assert!(
        told.out.contains("ended allowed with status 200: 2 row(s)"),
        "{}",
        told.out
    );
    let told = explained(&refused).await;
    assert!(told.out.contains("rows_per_day_exceeded"), "{}", told.out);
    assert!(
        told.out
            .contains("ended rate_limited with status 429: 0 row(s)"),
        "{}",
        told.out
    );
    assert!(
        told.errors
            .contains("docs/reasons/rows_per_day_exceeded.md"),
        "{}",
        told.errors
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_of_today() {
    let (world, holder, all) = open("tasks", 6).await;
    world.reload_policy(&policy(Some(4))).await;
    let three = list(&world, &holder, "tasks", json!({"params": {"limit": 3}})).await;
    assert_eq!(three.ids(), all[..3]);
    let world = world.restart().await;
    let cut = list(&world, &holder, "tasks", json!({})).await;
    assert_eq!(cut.ids(), all[..4]);
    assert!(is_truncated(&cut));
    let world = world.restart().await;
    let refused = list(&world, &holder, "tasks", json!({})).await;
    let wait = spent(&world, &refused).await;
    let status = world.control().status().await.unwrap();
    let shown = status.inbound.iter().find(|one| one.grant == holder.grant);
    let shown = shown.unwrap();
    assert_eq!(
        (shown.rows_per_day, shown.rows_remaining),
        (Some(4), Some(0))
    );
    world.pass(wait).await;
    assert_eq!(
        list(&world, &holder, "tasks", json!({})).await.ids(),
        all[..4]
    );
    world.stop().await;
}

/// A long answer leaves in parts; each is booked before it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_cut_within_its_parts() {
    let world = World::builder().policy(&policy(Some(150))).start().await;
    let scope = json!({"resources": ["tasks"], "max_rows_per_query": 10_000});
    let holder = world.holder(plan::AMIRA, scope).await;
    // 256 rows of 4 KiB; a part is 64 KiB.
    world.gateway.behave(&json!({"big_mb": 1})).await;
    for wire in Wire::BOTH {
        let holder = if wire == Wire::H1 {
            holder.clone()
        } else {
            let scope = json!({"resources": ["tasks"], "max_rows_per_query": 10_000});
            world.holder(plan::AMIRA, scope).await
        };
        let answer = world
            .ask_on(wire, &holder.minted, "/list/tasks", &json!({}))
            .await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() > 150 * 2048, "{}", answer.body.len());
        assert_eq!(answer.items().len(), 150);
        assert!(is_truncated(&answer));
        assert!(answer.cursor().is_some());
        let ids: BTreeSet<String> = answer.ids().into_iter().collect();
        assert_eq!(ids.len(), 150);
    }
    world.stop().await;
}

/// Kills the sidecar at different moments of an answer: a row that arrived was booked.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_gives_no_rows_back() {
    // Not over midnight, when a new budget begins.
    let left = DAY - SystemClock.unix_millis().rem_euclid(DAY);
    if left < 120_000 {
        tokio::time::sleep(Duration::from_millis(left.try_into().unwrap())).await;
    }
    let budget = 7;
    let world = World::builder().policy(&policy(Some(budget))).start().await;
    let holder = amira(&world).await;
    let mut process = Process::take_over(world, "info").await;
    let mut seen = BTreeSet::new();
    let mut cursor = Value::Null;
    let mut kills = 0;
    for moment in [0, 1, 2, 4, 8, 15, 30, 60].into_iter().cycle().take(12) {
        let config = tls::client(Some(&holder.minted), process.ca.root_der(), &["http/1.1"]);
        let mut raw = RawConnection::open(process.federation, config)
            .await
            .unwrap();
        let question = json!({"params": {"limit": 1}, "cursor": cursor});
        raw.post(&format!("{BASE}/list/tasks"), &question.to_string())
            .await
            .unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(moment), raw.response()).await;
        process.kill();
        kills += 1;
        process.start_again();
        // An answer that was cut off is as good as none: its row is asked for again.
        let Ok(Ok(answer)) = answer else { continue };
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        seen.extend(answer.ids());
        cursor = json!(answer.cursor().expect("there is more"));
    }
    // The rest, undisturbed.
    let config = tls::client(Some(&holder.minted), process.ca.root_der(), &["http/1.1"]);
    let mut raw = RawConnection::open(process.federation, config)
        .await
        .unwrap();
    loop {
        let question = json!({"params": {"limit": 1}, "cursor": cursor});
        raw.post(&format!("{BASE}/list/tasks"), &question.to_string())
            .await
            .unwrap();
        let answer = raw.response().await.unwrap();
        if answer.status == 429 {
            SPENT.check_response(&answer);
            break;
        }
        seen.extend(answer.ids());
        cursor = json!(answer.cursor().expect("there is more"));
    }
    let budget = usize::try_from(budget).unwrap();
    assert!(seen.len() <= budget, "{} rows of {budget}", seen.len());
    // A kill can lose the answer, and with it the one row of it, but a lost row is asked for again.
    assert_eq!(seen.len(), budget, "after {kills} kills");
}
