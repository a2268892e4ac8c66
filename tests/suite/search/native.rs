//! The gateway's own search: it adds rows, and decides nothing.
//!
//! The one of the reference gateway answers the nearest insights whatever the words are, looks into what is not for
//! everybody, and says how well each row fits.

use reference_gateway::plan;
use reference_gateway::record::Collection;
use serde_json::{Value, json};
use tests::world::POLICY;
use tests::{Holder, World};

use super::{amira, hit, hits, search};

/// A serving side whose searches look through one row of a resource only.
async fn narrow() -> (World, Holder) {
    let world = World::builder()
        .preset("mosaic")
        .settings("[limits]\nsearch_rows = 1")
        .manual_clock()
        .start()
        .await;
    let holder = amira(&world).await;
    (world, holder)
}

async fn semantic(policy: &str) -> (World, Holder) {
    let policy = format!("{policy}\n[mapping]\nsemantic = true\n");
    let world = World::builder()
        .preset("mosaic")
        .policy(&policy)
        .manual_clock()
        .start()
        .await;
    let holder = amira(&world).await;
    (world, holder)
}

/// The questions put to the gateway's own search.
async fn asked(world: &World) -> Vec<String> {
    let all = world.gateway.requests().await;
    assert!(all.iter().all(|one| one["method"] == "GET"), "{all:?}");
    let to_search = all.iter().filter(|one| one["path"] == "/api/memory/search");
    to_search
        .map(|one| one["query"].as_str().unwrap().to_owned())
        .collect()
}

fn insights(numbers: &[u64]) -> Vec<(String, String)> {
    let all = numbers.iter();
    all.map(|number| hit("memory", Collection::Insights, *number))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_asked_when_everything_was_read() {
    let world = super::world("mosaic").await;
    let holder = amira(&world).await;
    let answer = search(&world, &holder, json!({"query": "morning"})).await;
    assert_eq!(hits(&answer), insights(&[31]));
    assert_eq!(asked(&world).await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_rows_that_were_not_read_if_a_word_is_in_what_is_sent() {
    let (world, holder) = narrow().await;
    let ask = async |behaviour: Value| {
        world.gateway.behave(&behaviour).await;
        world.gateway.forget_requests().await;
        let params = json!({"query": "morning \"comes last\"", "resources": ["memory"]});
        search(&world, &holder, params).await
    };
    let honest = ask(json!({})).await;
    // One word at a time, so that no other word has a part in which rows are found.
    assert_eq!(
        asked(&world).await,
        ["query=morning&limit=200", "query=comes%20last&limit=200"]
    );
    // The gateway answered all insights to both questions; one holds the word.
    assert_eq!(hits(&honest), insights(&[31]), "{}", honest.text());
    assert_eq!(honest.json()["_truncated"], true);
    let row = &honest.items()[0]["item"];
    assert!(row.get("score").is_none(), "the gateway's own score: {row}");
    // The same answer when the words are in what is not sent, and rows of others and credentials come along.
    for behaviour in [
        json!({"hidden": "morning comes last"}),
        json!({"over_share": ["rows", "limit"], "hidden": "morning comes last"}),
        json!({"over_share": ["rows", "secrets", "limit"]}),
    ] {
        let answer = ask(behaviour.clone()).await;
        assert_eq!(
            hits(&answer),
            insights(&[31]),
            "{behaviour}: {}",
            answer.text()
        );
        // The members that `secrets` adds and that are sent make rows longer.
        if behaviour["over_share"] != json!(["rows", "secrets", "limit"]) {
            assert_eq!(answer.items(), honest.items(), "{behaviour}");
        }
        assert!(!answer.text().contains("leak-canary"), "{}", answer.text());
    }
    // One that fails is as if there were none.
    let failing = json!({"query": "morning", "resources": ["memory"]});
    world.gateway.behave(&json!({})).await;
    let answer = search(&world, &holder, failing).await;
    assert_eq!(answer.json()["_partial"], false);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_any_of_the_words_come_last_and_only_where_policy_says_so() {
    let (world, holder) = semantic("schema = 1\n[ceiling]\nresources = [\"memory\"]\n").await;
    let params = json!({"query": "revocation tulips"});
    let answer = search(&world, &holder, params.clone()).await;
    assert_eq!(hits(&answer), insights(&[11, 31]), "{}", answer.text());
    let scores: Vec<f64> = answer
        .items()
        .iter()
        .map(|hit| hit["score"].as_f64().unwrap())
        .collect();
    assert!(scores[0] > 0.0 && scores[1] == 0.0, "{scores:?}");
    assert_eq!(asked(&world).await, ["query=revocation%20tulips&limit=200"]);
    // Still nobody else's, and no credential.
    world
        .gateway
        .behave(&json!({"over_share": ["rows", "secrets", "limit"]}))
        .await;
    let answer = search(&world, &holder, params).await;
    assert_eq!(hits(&answer), insights(&[11, 31]), "{}", answer.text());
    assert!(!answer.text().contains("leak-canary"));
    for item in answer.items() {
        assert_eq!(item["item"]["userId"], plan::AMIRA);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_rule_on_the_resource_keeps_rows_without_the_words_out() {
    let policy = format!("{POLICY}fields.memory = [\"mood\"]\n");
    let (world, holder) = semantic(&policy).await;
    let answer = search(
        &world,
        &holder,
        json!({"query": "revocation tulips", "resources": ["memory"]}),
    )
    .await;
    assert_eq!(hits(&answer), insights(&[11]), "{}", answer.text());
    assert_eq!(asked(&world).await, Vec::<String>::new());
    world.stop().await;
}
