//! Every way in which a search is refused, each with its reason.

use policy::deny::DenyCode;
use reference_gateway::plan;
use serde_json::{Value, json};
use tests::grants::BASE;
use tests::{Denial, Holder, World};

use super::{PRESETS, search};

const fn bad(reason: DenyCode) -> Denial {
    Denial::new(400, "invalid_request", reason)
}

const fn outside(reason: DenyCode) -> Denial {
    Denial::new(403, "scope_violation", reason)
}

async fn refused(world: &World, holder: &Holder, params: Value, denial: Denial) {
    let answer = search(world, holder, params).await;
    denial.check(world, &answer).await;
}

/// Searches that must be refused before the gateway is asked anything.
async fn all_refused(params: &[Value], denial: Denial) {
    let world = World::start().await;
    let holder = world.amira().await;
    for params in params {
        refused(&world, &holder, params.clone(), denial).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_without_a_query() {
    let none = [
        json!({}),
        json!({"limit": 5}),
        json!({"query": null}),
        json!({"query": 5}),
    ];
    all_refused(&none, bad(DenyCode::InvalidQuery)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_read() {
    let queries = ["", " ", "... !", "\"open", "*", "a *", "a*b", "\"a* b\""];
    let params = queries.map(|query| json!({ "query": query }));
    all_refused(&params, bad(DenyCode::InvalidQuery)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_too_long() {
    let terms: String = (0..17).map(|number| format!("t{number} ")).collect();
    let words: String = (0..65).map(|number| format!("w{number} ")).collect();
    let queries = ["x".repeat(1025), terms, format!("\"{words}\"")];
    let params = queries.map(|query| json!({ "query": query }));
    all_refused(&params, bad(DenyCode::InvalidQuery)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_no_list_of_names() {
    let many: Vec<String> = (0..17).map(|number| format!("r{number}")).collect();
    let wrong = [
        json!([]),
        json!("tasks"),
        json!(null),
        json!([5]),
        json!(["tasks", "tasks"]),
    ];
    let params: Vec<Value> = wrong
        .into_iter()
        .chain([json!(many)])
        .map(|resources| json!({"query": "x", "resources": resources}))
        .collect();
    all_refused(&params, bad(DenyCode::InvalidResources)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_a_search_outside_its_range() {
    let params: Vec<Value> = [json!(0), json!(10_001), json!("5")]
        .into_iter()
        .map(|limit| json!({"query": "x", "limit": limit}))
        .collect();
    all_refused(&params, bad(DenyCode::InvalidLimit)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_does_not_take() {
    let world = World::start().await;
    let holder = world.amira().await;
    for body in [
        json!({"params": {"query": "x", "filter": {"status": "open"}}}),
        json!({"params": {"query": "x", "offset": 1}}),
        json!({"params": {"query": "x"}, "cursor": "abc"}),
        json!({"query": "x"}),
        json!({"limit": 5, "params": {"query": "x"}}),
    ] {
        let answer = world.ask(&holder.minted, "/search", &body).await;
        bad(DenyCode::UnknownKey).check(&world, &answer).await;
    }
    for path in ["/list/tasks", "/get/tasks/1", "/capabilities"] {
        for params in [json!({"query": "x"}), json!({"resources": ["tasks"]})] {
            let body = json!({ "params": params });
            let answer = world.ask(&holder.minted, path, &body).await;
            bad(DenyCode::UnknownKey).check(&world, &answer).await;
        }
    }
    for (body, reason) in [
        (
            json!({"verb": "list", "params": {"query": "x"}}),
            DenyCode::VerbMismatch,
        ),
        (
            json!({"resource": "tasks", "params": {"query": "x"}}),
            DenyCode::ResourceMismatch,
        ),
        (
            json!({"params": {"query": "x", "subjectUserId": "e2"}}),
            DenyCode::IdentityInBody,
        ),
    ] {
        let answer = world.ask(&holder.minted, "/search", &body).await;
        bad(reason).check(&world, &answer).await;
    }
    assert!(world.gateway.requests().await.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_get() {
    let world = World::start().await;
    let holder = world.amira().await;
    let config = tests::tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let mut raw = tests::RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    let request = format!("GET {BASE}/search HTTP/1.1\r\nhost: work.test\r\n\r\n");
    raw.send(request.as_bytes()).await.unwrap();
    let answer = raw.response().await.unwrap();
    let denial = Denial::new(405, "invalid_request", DenyCode::MethodNotAllowed);
    denial.check(&world, &answer).await;
    assert_eq!(answer.header("allow"), Some("POST"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_named_in_a_search_that_a_list_would_be_refused_for() {
    let policy = "schema = 1\n[ceiling]\nresources = [\"tasks\", \"memory\"]\n";
    for preset in PRESETS {
        let world = World::builder().preset(preset).policy(policy).start().await;
        let scope = json!({"resources": ["tasks", "missions"], "excluded_resources": ["memory"]});
        let holder = world.holder(plan::AMIRA, scope).await;
        for (resource, reason) in [
            ("memory", DenyCode::ResourceExcluded),
            ("notes", DenyCode::ResourceNotGranted),
            ("missions", DenyCode::Ceiling),
            ("users", DenyCode::ReservedResource),
            ("Tasks", DenyCode::UnknownResource),
            ("credentials", DenyCode::ResourceNotGranted),
        ] {
            for resources in [json!([resource]), json!(["tasks", resource])] {
                let params = json!({"query": "private", "resources": resources});
                refused(&world, &holder, params, outside(reason)).await;
            }
            let list = world
                .ask(&holder.minted, &format!("/list/{resource}"), &json!({}))
                .await;
            outside(reason).check(&world, &list).await;
        }
        // Without names, what is open is searched.
        let open = search(&world, &holder, json!({"query": "private"})).await;
        assert!(!open.items().is_empty(), "{}", open.text());
        assert!(open.items().iter().all(|hit| hit["resource"] == "tasks"));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sensitive_resources_are_not_searched_even_when_granted() {
    let policy = "schema = 1\n[peers.home]\nresources = [\"tasks\", \"credentials\"]\n\
        allow_sensitive = [\"credentials\"]\n";
    let world = World::builder().policy(policy).start().await;
    let scope = json!({"resources": ["tasks", "credentials"]});
    let holder = world.holder(plan::AMIRA, scope).await;
    let params = json!({"query": "mail", "resources": ["credentials"]});
    refused(
        &world,
        &holder,
        params,
        outside(DenyCode::ResourceUnsupported),
    )
    .await;
    let open = search(&world, &holder, json!({"query": "mail leak canary"})).await;
    assert_eq!(open.items(), Vec::<Value>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_when_the_gateway_gives_no_facts() {
    let world = World::start().await;
    let holder = world.amira().await;
    world
        .gateway
        .behave(&json!({"over_share": ["facts_status500"]}))
        .await;
    let denial = Denial::new(503, "unavailable", DenyCode::FactsUnavailable);
    refused(&world, &holder, json!({"query": "x"}), denial).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_when_all_resources_fail() {
    let world = World::start().await;
    let holder = world.amira().await;
    // The facts are known; the rows fail.
    let fine = search(&world, &holder, json!({"query": "x"})).await;
    assert_eq!(fine.status, 200);
    for (mode, status, reason) in [
        ("status500", 502, DenyCode::GatewayMalformed),
        ("garbage", 502, DenyCode::GatewayMalformed),
        ("truncate", 502, DenyCode::GatewayMalformed),
    ] {
        world.gateway.behave(&json!({"over_share": [mode]})).await;
        let denial = Denial::new(status, "unavailable", reason);
        refused(&world, &holder, json!({"query": "x"}), denial).await;
    }
    world.stop().await;
}
