//! Search over real sockets: what is found, in which order, for whom, and what never is.
//!
//! Elsewhere: words, scores and bounds of memory have tests of their own beside `policy::rank`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "isolation/answers.rs"]
#[allow(dead_code)]
mod answers;
#[path = "search/deny.rs"]
mod deny;
#[path = "search/isolation.rs"]
mod isolation;
#[path = "search/native.rs"]
mod native;
#[path = "isolation/scopes.rs"]
#[allow(dead_code)]
mod scopes;
#[path = "search/secrets.rs"]
mod secrets;
mod support;

use policy::deny::DenyCode;
use reference_gateway::plan;
use reference_gateway::record::Collection;
use serde_json::{Value, json};
use tests::audit::audit_row;
use tests::expect::check_headers;
use tests::world::POLICY;
use tests::{Denial, Holder, Home, Response, Wire, World};

const PRESETS: [&str; 2] = ["internal-v1", "mosaic"];
const ALL: [&str; 5] = ["tasks", "notes", "memory", "projects", "missions"];

/// A serving side whose time stands still, so that no bound of time ends a search on a busy machine.
async fn world(preset: &str) -> World {
    World::builder().preset(preset).manual_clock().start().await
}

/// Amira of the plan, for everything of hers and of her team.
async fn amira(world: &World) -> Holder {
    let filters: serde_json::Map<String, Value> = ["tasks", "notes", "projects", "missions"]
        .into_iter()
        .map(|name| (name.to_owned(), json!({"include_teams": ["platform"]})))
        .collect();
    let scope = json!({"resources": ALL, "filters": filters, "max_rows_per_query": 1000});
    world.holder(plan::AMIRA, scope).await
}

async fn search(world: &World, holder: &Holder, params: Value) -> Response {
    let body = json!({ "params": params });
    world.ask(&holder.minted, "/search", &body).await
}

/// The hits of an answer as resource and id, best first; their form is checked on the way.
fn hits(answer: &Response) -> Vec<(String, String)> {
    let mut last = f64::INFINITY;
    answer
        .items()
        .iter()
        .map(|hit| {
            let members: Vec<&String> = hit.as_object().unwrap().keys().collect();
            assert_eq!(members, ["item", "resource", "score"], "{hit}");
            let score = hit["score"].as_f64().unwrap();
            assert!(score <= last, "not the best first: {}", answer.text());
            last = score;
            assert_eq!(hit["item"]["_source"], "local", "{hit}");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&hit["resource"]), text(&hit["item"]["id"]))
        })
        .collect()
}

fn hit(resource: &str, collection: Collection, number: u64) -> (String, String) {
    (resource.to_owned(), plan::id(collection, number))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_rows_of_all_resources_come_first() {
    for preset in PRESETS {
        let world = world(preset).await;
        let holder = amira(&world).await;
        let answer = search(&world, &holder, json!({"query": "AC-4 revocation"})).await;
        check_headers(&answer);
        let found = hits(&answer);
        // Both terms; then the rarer of the two, the shorter row first.
        let expected = [
            hit("tasks", Collection::Tasks, 4),
            hit("memory", Collection::Insights, 11),
            hit("missions", Collection::Missions, 6),
        ];
        assert_eq!(
            found.first(),
            expected.first(),
            "{preset}: {}",
            answer.text()
        );
        for other in &expected[1..] {
            assert!(found.contains(other), "{preset}: {other:?} in {found:?}");
        }
        // The design, the building and the test of AC-4.
        for step in 140..143 {
            assert!(found.contains(&hit("tasks", Collection::Tasks, step)));
        }
        assert_eq!(found.len(), 6, "{preset}: {found:?}");
        let body = answer.json();
        assert_eq!(
            (&body["_partial"], &body["_truncated"]),
            (&json!(false), &json!(false))
        );
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["_partial", "_truncated", "items"]);
        // The same in HTTP/2, and the same again.
        let question = json!({"params": {"query": "AC-4 revocation"}});
        let again = world
            .ask_on(Wire::H2, &holder.minted, "/search", &question)
            .await;
        assert_eq!(again.body, answer.body);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_phrases_and_prefixes_in_the_resources_that_were_named() {
    let world = world("internal-v1").await;
    let holder = amira(&world).await;
    let ask = async |query: &str, resources: &[&str]| {
        let params = json!({"query": query, "resources": resources});
        hits(&search(&world, &holder, params).await)
    };
    let mission = [hit("missions", Collection::Missions, 6)];
    assert_eq!(ask("REVOCATION", &["missions", "notes"]).await, mission);
    assert_eq!(ask("revoc*", &["missions"]).await, mission);
    assert_eq!(ask("revoc", &["missions"]).await, []);
    assert_eq!(
        ask("\"revocation and renewal\"", &["missions"]).await,
        mission
    );
    assert_eq!(ask("\"renewal and revocation\"", &["missions"]).await, []);
    // Ids and owners are not searched.
    assert_eq!(ask(plan::AMIRA, &["tasks", "memory"]).await, []);
    let id = plan::id(Collection::Missions, 6);
    assert_eq!(ask(&id, &ALL).await, []);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_cap_and_bound_end_an_answer_as_they_end_a_list() {
    let scope = |rows: u32| {
        json!({"resources": ["tasks"], "max_rows_per_query": rows,
        "filters": {"tasks": {"include_teams": ["platform"]}}})
    };
    let world = world("internal-v1").await;
    let few = world.holder(plan::AMIRA, scope(3)).await;
    let many = world.holder(plan::AMIRA, scope(1000)).await;
    let all = hits(&search(&world, &many, json!({"query": "AC*"})).await);
    assert!(all.len() > 10);
    for (holder, limit, rows, truncated) in [
        (&few, json!(null), 3, true),
        (&few, json!(2), 2, false),
        (&few, json!(500), 3, true),
        (&many, json!(5), 5, false),
        (&many, json!(1000), all.len(), false),
    ] {
        let mut params = json!({"query": "AC*"});
        if !limit.is_null() {
            params["limit"] = limit;
        }
        let answer = search(&world, holder, params).await;
        assert_eq!(hits(&answer), all[..rows], "{}", answer.text());
        assert_eq!(answer.json()["_truncated"], truncated, "{rows}");
    }
    world.stop().await;
    for preset in PRESETS {
        let world = World::builder()
            .preset(preset)
            .settings("[limits]\nsearch_rows = 8")
            .manual_clock()
            .start()
            .await;
        let holder = world.holder(plan::AMIRA, scope(1000)).await;
        let answer = search(&world, &holder, json!({"query": "AC*"})).await;
        assert_eq!(answer.json()["_truncated"], true, "{}", answer.text());
        assert!(hits(&answer).len() <= 8);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_fails_makes_the_answer_partial() {
    for preset in PRESETS {
        let world = world(preset).await;
        let holder = amira(&world).await;
        let whole = search(&world, &holder, json!({"query": "AC-4 revocation"})).await;
        world.gateway.behave(&json!({"failing": ["tasks"]})).await;
        let answer = search(&world, &holder, json!({"query": "AC-4 revocation"})).await;
        assert_eq!(answer.json()["_partial"], true, "{}", answer.text());
        let mut expected = hits(&whole);
        expected.retain(|(resource, _)| resource != "tasks");
        let mut found = hits(&answer);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        let row = audit_row(world.control(), answer.request_id()).await;
        assert_eq!(row["outcome"], "allowed", "{row}");
        // When nothing else was asked for, there is no answer.
        let alone = search(
            &world,
            &holder,
            json!({"query": "AC-4", "resources": ["tasks"]}),
        )
        .await;
        let denial = Denial::new(502, "unavailable", DenyCode::GatewayMalformed);
        denial.check(&world, &alone).await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_has_the_question_as_a_hash_and_the_figures() {
    let world = world("internal-v1").await;
    let holder = amira(&world).await;
    world.gateway.behave(&json!({"over_share": ["rows"]})).await;
    let ask = async |params| {
        let answer = search(&world, &holder, params).await;
        let row = audit_row(world.control(), answer.request_id()).await;
        (answer, row)
    };
    let (answer, row) = ask(json!({"query": "revocation"})).await;
    assert_eq!(row["verb"], "search", "{row}");
    assert_eq!(row["outcome"], "allowed");
    assert_eq!(row["rows_returned"], hits(&answer).len());
    assert!(row["rows_withheld"].as_u64().unwrap() > 10, "{row}");
    assert_eq!(row["bytes_out"], answer.body.len());
    assert!(!row.to_string().contains("revocation"), "{row}");
    let (_, named) = ask(json!({"query": "revocation", "resources": ["tasks"]})).await;
    assert_eq!(named["resource"], "tasks", "{named}");
    let (_, other) = ask(json!({"query": "revocations"})).await;
    let (_, same) = ask(json!({"query": "revocation"})).await;
    assert_eq!(row["query_hash"], same["query_hash"]);
    assert_ne!(row["query_hash"], other["query_hash"]);
    assert_ne!(row["query_hash"], named["query_hash"]);
    // It stands under the revision of the grant, and ends with it.
    let capabilities = world.ask(&holder.minted, "/capabilities", &json!({})).await;
    let revision = capabilities.header("x-mosaic-revision");
    assert!(revision.is_some());
    assert_eq!(answer.header("x-mosaic-revision"), revision);
    let mut open = world.client(Wire::H1, &holder.minted).await;
    let path = "/api/federation/v1/search";
    let question = json!({"params": {"query": "revocation"}}).to_string();
    assert_eq!(open.post(path, &question).await.unwrap().status, 200);
    world.revoke(holder.grant).await;
    let after = open.post(path, &question).await.unwrap();
    Denial::new(403, "forbidden", DenyCode::GrantRevoked).check_response(&after);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_searches_its_peer() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let grant = world
        .pending(plan::AMIRA, json!({"resources": ["memory", "tasks"]}))
        .await;
    let url = world.enrollment_url(grant.id).await;
    let home = Home::start().await;
    home.add_peer(&url, "amira", "work").await.unwrap();
    let token = home.session("amira").await;
    let question = json!({"params": {"query": "revocation morning"}});
    let answer = home.ask(&token, "work", "/search", &question).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let items = answer.items();
    assert_eq!(items.len(), 2, "{}", answer.text());
    for item in &items {
        assert_eq!(item["item"]["_source"], "work", "{item}");
        assert_eq!(item["resource"], "memory", "{item}");
        assert!(item["score"].as_f64().unwrap() > 0.0);
    }
    // Never from memory: the gateway is asked each time.
    world.gateway.forget_requests().await;
    let again = home.ask(&token, "work", "/search", &question).await;
    assert_eq!(again.items(), items);
    assert!(again.json().get("_cached").is_none());
    let asked = world.gateway.requests().await;
    assert!(
        asked
            .iter()
            .any(|one| one["path"] == "/internal/v1/insights")
    );
    let row = audit_row(home.control(), again.request_id()).await;
    assert_eq!(
        (&row["verb"], &row["outcome"]),
        (&json!("search"), &json!("allowed"))
    );
    assert_eq!(row["rows_returned"], 2, "{row}");
    let bad = home.ask(&token, "work", "/search", &json!({})).await;
    assert_eq!(bad.status, 400, "{}", bad.text());
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_third_upstream_milestone_sees_what_it_knows() {
    let policy = format!("{POLICY}\n[peers.old]\ncompat = \"upstream-m3\"\n");
    let world = World::builder().policy(&policy).start().await;
    let scope = json!({"resources": ALL, "excluded_resources": ["api_keys"]});
    let old = world.holder_of("old", plan::AMIRA, scope.clone()).await;
    let new = world.holder(plan::AMIRA, scope).await;
    let capabilities = async |holder: &Holder| {
        let answer = world.ask(&holder.minted, "/capabilities", &json!({})).await;
        answer.json()
    };
    let (of_old, of_new) = (capabilities(&old).await, capabilities(&new).await);
    assert_eq!(of_old["resources"], json!(["tasks", "notes", "memory"]));
    assert_eq!(
        of_old["supported_verbs"],
        json!(["list", "get", "capabilities"])
    );
    assert_eq!(of_new["resources"], json!(ALL));
    assert_eq!(
        of_new["supported_verbs"],
        json!(["list", "get", "search", "capabilities"])
    );
    // What is hidden is not answered either.
    let hidden = search(&world, &old, json!({"query": "x"})).await;
    Denial::new(404, "invalid_request", DenyCode::UnknownVerb)
        .check(&world, &hidden)
        .await;
    let newer = world.ask(&old.minted, "/list/projects", &json!({})).await;
    Denial::new(403, "scope_violation", DenyCode::ResourceUnsupported)
        .check(&world, &newer)
        .await;
    // A limit may stand beside params, once.
    let list =
        async |holder: &Holder, body: Value| world.ask(&holder.minted, "/list/memory", &body).await;
    assert_eq!(list(&old, json!({"limit": 2})).await.items().len(), 2);
    assert_eq!(
        list(&old, json!({"params": {"limit": 2}}))
            .await
            .items()
            .len(),
        2
    );
    for (holder, body, reason) in [
        (&old, json!({"limit": 0}), DenyCode::InvalidLimit),
        (
            &old,
            json!({"limit": 2, "params": {"limit": 2}}),
            DenyCode::InvalidLimit,
        ),
        (&new, json!({"limit": 2}), DenyCode::UnknownKey),
    ] {
        let denial = Denial::new(400, "invalid_request", reason);
        denial.check(&world, &list(holder, body).await).await;
    }
    world.stop().await;
}
