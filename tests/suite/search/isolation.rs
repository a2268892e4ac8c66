//! No search shows a row of somebody else, whatever the scope, the ceiling and the gateway do.
//!
//! The gateway answers everybody's rows, ignores limits and mixes secrets in; what may be found is worked out a second
//! time from the generator of the data: the rows that are granted, and the words in them.

use std::collections::{BTreeSet, HashMap};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use reference_gateway::generate;
use reference_gateway::record::Record;
use reference_gateway::store::seed::Data;
use serde_json::{Value, json};
use tests::grants::BASE;
use tests::{Wire, World};

use crate::answers::{check_body, check_row, demand, key_of};
use crate::scopes::{BASE_POLICY, Case, RESOURCES, cases};
use crate::support::enlist::{enlist, open};
use crate::support::rounds;
use crate::support::stream::{Connection, Shape};
use crate::support::truth::{Key, Truth};

/// Words that the generator writes, one that it does not, and those of members that are removed.
const WORDS: [&str; 7] = [
    "ledger", "harbour", "quartz", "zenith", "absent", "leak", "canary",
];

struct Given {
    truth: Truth,
    rows: HashMap<String, Record>,
}

impl Given {
    fn of(data: generate::World) -> Self {
        Self {
            truth: Truth::of(data),
            rows: data.all_rows().map(|row| (row.id.clone(), row)).collect(),
        }
    }

    /// Whether a word stands in what is sent of a row. The labels of tasks are removed by policy.
    fn has(&self, id: &str, words: &[&str]) -> bool {
        let row = &self.rows[id];
        let texts = [Some(&row.title), row.text.as_ref(), row.status.as_ref()];
        texts
            .into_iter()
            .flatten()
            .flat_map(|text| text.split([' ', '_']))
            .any(|word| words.contains(&word))
    }
}

async fn ask(connection: &mut Connection, params: Value) -> Result<(u16, Value), TestCaseError> {
    let body = json!({ "params": params }).to_string();
    let answer = connection
        .whole("POST", &format!("{BASE}/search"), &body)
        .await
        .map_err(|cut| TestCaseError::fail(format!("{params}: {cut:?}")))?;
    check_body(&answer)?;
    Ok((answer.head.status, answer.json()))
}

async fn check(
    world: &World,
    given: &Given,
    case: &Case,
    words: &[&str],
) -> Result<(), TestCaseError> {
    let truth = &given.truth;
    world.reload_policy(&case.policy(truth)).await;
    let user = truth.world.user(case.user);
    let holder = enlist(world, "home", &user, case.scope(truth)).await;
    let wire = if case.wire { Wire::H1 } else { Wire::H2 };
    let mut connection = open(world, &holder, Shape::of(wire)).await;
    let mut expected: BTreeSet<(String, Key)> = BTreeSet::new();
    for (index, resource) in RESOURCES.into_iter().enumerate() {
        let Some(reach) = case.reach(truth, index) else {
            let params = json!({"query": words.join(" "), "resources": [resource]});
            let (status, body) = ask(&mut connection, params).await?;
            demand!(status == 403, "{resource}: {status} {body}");
            continue;
        };
        let granted = truth.granted(resource, &user, &reach);
        let found = granted.into_iter().filter(|key| given.has(&key.1, words));
        expected.extend(found.map(|key| (resource.to_owned(), key)));
    }
    let (status, body) = ask(
        &mut connection,
        json!({"query": words.join(" "), "limit": 10_000}),
    )
    .await?;
    demand!(status == 200, "{status} {body}");
    let mut found = BTreeSet::new();
    for hit in body["items"].as_array().unwrap() {
        let resource = hit["resource"].as_str().unwrap().to_owned();
        check_row(&resource, &hit["item"])?;
        found.insert((resource, key_of(&hit["item"])));
    }
    let strange = found.difference(&expected).next();
    demand!(
        strange.is_none(),
        "{strange:?} is not granted, or has none of {words:?}"
    );
    let cap = case.row_cap();
    let is_cut = expected.len() > cap;
    demand!(
        body["_truncated"] == is_cut,
        "{} of {}: {}",
        found.len(),
        expected.len(),
        body["_truncated"]
    );
    demand!(body["_partial"] == false, "partial");
    let shown = body["items"].as_array().unwrap().len();
    demand!(
        shown == expected.len().min(cap),
        "{shown} of {}, at most {cap}",
        expected.len()
    );
    demand!(found.len() == shown, "a row is there twice");
    Ok(())
}

fn no_search_shows_a_row_of_anybody_else(preset: &str) {
    let seed: u64 =
        std::env::var("MOSAIC_SEED").map_or(0x7365_6172_6368, |text| text.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let data = generate::World::sized(1_000, 6_000);
    let given = Given::of(data);
    let world = runtime.block_on(async {
        let world = World::builder()
            .data(Data::Generated(data))
            .preset(preset)
            .policy(BASE_POLICY)
            .manual_clock()
            .start()
            .await;
        world
            .gateway
            .behave(&json!({"over_share": ["rows", "secrets", "limit"]}))
            .await;
        world
    });
    let config = Config {
        cases: rounds(16, 200),
        failure_persistence: None,
        max_shrink_iters: 20,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let words = proptest::sample::subsequence(WORDS.to_vec(), 1..4);
    let outcome = TestRunner::new_with_rng(config, rng).run(&(cases(), words), |(case, words)| {
        runtime.block_on(check(&world, &given, &case, &words))
    });
    if let Err(error) = outcome {
        panic!("preset {preset}, MOSAIC_SEED={seed}: {error}");
    }
    runtime.block_on(world.stop());
}

#[test]
fn no_search_shows_a_row_of_anybody_else_with_internal_v1() {
    no_search_shows_a_row_of_anybody_else("internal-v1");
}

#[test]
fn no_search_shows_a_row_of_anybody_else_with_mosaic() {
    no_search_shows_a_row_of_anybody_else("mosaic");
}
