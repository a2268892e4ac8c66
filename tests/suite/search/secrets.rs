//! AC-9: a gateway that puts credentials, keys and secret-looking fields into every answer brings none of them out, and
//! nothing about an answer says what they hold.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tests::grants::BASE;
use tests::{Wire, World};

use super::{ALL, PRESETS, amira, search, world};
use crate::answers::{check_body, demand};
use crate::support::enlist::open;
use crate::support::rounds;
use crate::support::stream::{Connection, Shape};

/// What the gateway adds to every answer, what stands around it, and what policy removes.
const SECRETS: [&str; 12] = [
    "leak-canary-1",
    "leak-canary-5",
    "leak-canary-credential",
    "leak-canary-key",
    "\"leak-canary-9\"",
    "leak*",
    "canary",
    "apiKey",
    "client_secret",
    "private-key",
    "\"not for peers\"",
    "credential",
];

/// Queries of secrets, of words that are in rows, and of both.
fn any_query() -> impl Strategy<Value = String> {
    let secret = proptest::sample::select(SECRETS.to_vec()).prop_map(str::to_owned);
    let word = proptest::sample::select(vec![
        "AC-4",
        "revocation",
        "private",
        "e*",
        "grey",
        "basic",
        "open",
    ])
    .prop_map(str::to_owned);
    let free = "[a-z0-9][a-z0-9_]{0,7}";
    let one = prop_oneof![4 => secret, 2 => word, 1 => free];
    proptest::collection::vec(one, 1..5).prop_map(|parts| parts.join(" "))
}

async fn check(
    connection: &mut Connection,
    query: &str,
    limit: Option<u16>,
) -> Result<(), TestCaseError> {
    let mut params = json!({ "query": query });
    if let Some(limit) = limit {
        params["limit"] = json!(limit);
    }
    let body = json!({ "params": params }).to_string();
    let answer = connection
        .whole("POST", &format!("{BASE}/search"), &body)
        .await
        .map_err(|cut| TestCaseError::fail(format!("{query}: {cut:?}")))?;
    check_body(&answer)?;
    demand!(answer.head.status == 200, "{query}: {}", answer.head.status);
    let body = answer.json();
    for hit in body["items"].as_array().unwrap() {
        let row = &hit["item"];
        demand!(row["type"] != "credential", "a credential: {row}");
        demand!(
            row.get("internalNote").is_none(),
            "removed by policy: {row}"
        );
        demand!(
            row["meta"].get("cost").is_none(),
            "removed by policy: {row}"
        );
    }
    Ok(())
}

#[test]
fn no_query_brings_a_secret_out() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for preset in PRESETS {
        let (world, holder) = runtime.block_on(async {
            let world = world(preset).await;
            let holder = amira(&world).await;
            world
                .gateway
                .behave(&json!({"over_share": ["rows", "secrets", "limit"]}))
                .await;
            (world, holder)
        });
        let mut connection = runtime.block_on(open(&world, &holder, Shape::of(Wire::H2)));
        let config = Config {
            cases: rounds(100, 5_000),
            failure_persistence: None,
            ..Config::default()
        };
        let questions = (any_query(), proptest::option::of(1_u16..20));
        let connection = std::cell::RefCell::new(&mut connection);
        let outcome = TestRunner::new(config).run(&questions, |(query, limit)| {
            runtime.block_on(check(&mut connection.borrow_mut(), &query, limit))
        });
        if let Err(error) = outcome {
            panic!("{preset}: {error}");
        }
        runtime.block_on(world.stop());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_a_secret_finds_nothing_in_any_verb() {
    for preset in PRESETS {
        let world = world(preset).await;
        let holder = amira(&world).await;
        let behaviour =
            json!({"over_share": ["rows", "secrets"], "hidden": "correct horse battery staple"});
        world.gateway.behave(&behaviour).await;
        for query in [
            "leak-canary-1",
            "leak-canary-credential",
            "leak-canary-key",
            "horse",
            "\"correct horse battery staple\"",
            "batter*",
            "\"not for peers\"",
        ] {
            let answer = search(&world, &holder, json!({ "query": query })).await;
            assert_eq!(answer.items(), Vec::<Value>::new(), "{preset} {query}");
            assert_eq!(answer.json()["_truncated"], false);
        }
        for resource in ALL {
            let answer = world
                .ask(&holder.minted, &format!("/list/{resource}"), &json!({}))
                .await;
            for secret in ["leak-canary", "battery", "not for peers"] {
                assert!(!answer.text().contains(secret), "{resource}: {secret}");
            }
            for row in answer.items().iter().take(2) {
                let id = row["id"].as_str().unwrap();
                let path = format!("/get/{resource}/{id}");
                let item = world.ask(&holder.minted, &path, &json!({})).await;
                assert_eq!(item.json()["item"], *row);
            }
        }
        world.stop().await;
    }
}

/// The whole answers to a list of questions: hits, scores, order, flags.
async fn answers(world: &World, minted: &tests::Holder) -> Vec<String> {
    let mut all = Vec::new();
    for query in [
        "revocation",
        "AC-4 horse",
        "horse",
        "private horse",
        "\"correct horse\" AC*",
        "ho*",
        "open",
    ] {
        for limit in [1, 7, 1000] {
            let params = json!({"query": query, "limit": limit});
            all.push(search(world, minted, params).await.text());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_or_withheld_shows_in_no_hit_score_order_or_flag() {
    for preset in PRESETS {
        let world = world(preset).await;
        let holder = amira(&world).await;
        let honest = answers(&world, &holder).await;
        assert!(honest.iter().any(|answer| answer.contains("revocation")));
        for behaviour in [
            json!({"hidden": "correct horse"}),
            json!({"hidden": "horse ".repeat(2_000)}),
            json!({"hidden": "AC-4 private revocation open"}),
            // Everybody's rows come along, and are withheld.
            json!({"over_share": ["rows"], "hidden": "horse"}),
        ] {
            world.gateway.behave(&behaviour).await;
            assert_eq!(
                answers(&world, &holder).await,
                honest,
                "{preset} {behaviour}"
            );
        }
        world.stop().await;
    }
}
