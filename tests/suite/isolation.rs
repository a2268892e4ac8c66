//! Nobody sees a row of somebody else, whatever the scope, the ceiling and the gateway do.
//!
//! The gateway answers everybody's rows, ignores limits and mixes secrets in; what may be shown is
//! worked out a second time from the generator of the data (`support/truth.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "isolation/answers.rs"]
mod answers;
#[path = "isolation/scopes.rs"]
mod scopes;
mod support;

use std::collections::{BTreeMap, HashSet};

use answers::{check_body, check_row, demand, key_of};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use reference_gateway::generate;
use reference_gateway::record::Collection;
use reference_gateway::store::seed::Data;
use scopes::{BASE_POLICY, Case, RESOURCES, cases};
use serde_json::{Value, json};
use support::enlist::{enlist, open};
use support::stream::{Connection, Shape};
use support::truth::{Key, Reach, Truth};
use support::{is_soak, rounds};
use tests::audit::audit_row;
use tests::{Wire, World};

const PRESETS: [&str; 2] = ["internal-v1", "mosaic"];
fn data() -> generate::World {
    let rows = if is_soak() { 200_000 } else { 20_000 };
    generate::World::sized(1_000, rows)
}

async fn start(preset: &str, data: generate::World) -> World {
    World::builder()
        .data(Data::Generated(data))
        .preset(preset)
        .policy(BASE_POLICY)
        .start()
        .await
}

/// Reads a list to its end and checks every page on the way.
async fn walk(
    world: &World,
    connection: &mut Connection,
    resource: &str,
    limit: usize,
    cap: usize,
) -> Result<Vec<Value>, TestCaseError> {
    let mut rows = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut question = json!({"params": {"limit": limit}});
        if !cursor.is_null() {
            question["cursor"] = cursor;
        }
        let answer = connection
            .list(resource, &question)
            .await
            .map_err(|cut| TestCaseError::fail(format!("{resource}: {cut:?}")))?;
        check_body(&answer)?;
        demand!(
            answer.head.status == 200,
            "{resource}: {} {}",
            answer.head.status,
            String::from_utf8_lossy(&answer.body)
        );
        let body = answer.json();
        let page = body["items"].as_array().unwrap();
        demand!(
            page.len() <= limit.min(cap),
            "{} rows in one page",
            page.len()
        );
        for row in page {
            check_row(resource, row)?;
        }
        let audit = audit_row(world.control(), answer.head.header("x-request-id").unwrap()).await;
        demand!(audit["outcome"] == "allowed", "{audit}");
        demand!(audit["rows_returned"] == page.len(), "{audit}");
        rows.extend(page.iter().cloned());
        cursor = body["nextCursor"].clone();
        if cursor.is_null() {
            return Ok(rows);
        }
        demand!(rows.len() < 100_000, "{resource}: the list does not end");
    }
}

/// A row by its id: the same as in the list when it is granted, absent when it is not.
async fn check_get(
    connection: &mut Connection,
    resource: &str,
    listed: &[Value],
    granted: &HashSet<&Key>,
    foreign: &[Key],
) -> Result<(), TestCaseError> {
    let base = tests::grants::BASE;
    let middle = listed.get(listed.len() / 2);
    let ids = middle.iter().map(|row| key_of(row));
    for key in ids.chain(foreign.iter().cloned()) {
        let path = format!("{base}/get/{resource}/{}", key.1);
        let answer = connection
            .whole("POST", &path, "{}")
            .await
            .map_err(|cut| TestCaseError::fail(format!("{path}: {cut:?}")))?;
        check_body(&answer)?;
        if granted.contains(&key) {
            demand!(answer.head.status == 200, "{path}: {}", answer.head.status);
            demand!(Some(&answer.json()["item"]) == middle, "{path} differs");
        } else {
            demand!(answer.head.status == 404, "{path}: {}", answer.head.status);
        }
    }
    Ok(())
}

async fn check(world: &World, truth: &Truth, case: &Case) -> Result<(), TestCaseError> {
    world.reload_policy(&case.policy(truth)).await;
    let user = truth.world.user(case.user);
    let holder = enlist(world, "home", &user, case.scope(truth)).await;
    let wire = if case.wire { Wire::H1 } else { Wire::H2 };
    for (index, resource) in RESOURCES.into_iter().enumerate() {
        let mut connection = open(world, &holder, Shape::of(wire)).await;
        let Some(reach) = case.reach(truth, index) else {
            let answer = connection.list(resource, &json!({})).await;
            let answer = answer.map_err(|cut| TestCaseError::fail(format!("{cut:?}")))?;
            check_body(&answer)?;
            demand!(
                answer.head.status == 403,
                "{resource}: {}",
                answer.head.status
            );
            continue;
        };
        let expected = truth.granted(resource, &user, &reach);
        let limit = (expected.len() / case.pages + 1).min(10_000);
        let cap = case.row_cap();
        let rows = walk(world, &mut connection, resource, limit, cap).await?;
        let keys: Vec<Key> = rows.iter().map(key_of).collect();
        let granted: HashSet<&Key> = expected.iter().collect();
        let strange = keys.iter().find(|key| !granted.contains(key));
        demand!(
            strange.is_none(),
            "{resource}: {strange:?} is not granted by {reach:?}"
        );
        demand!(
            keys == expected,
            "{resource}: {} rows instead of {}, or out of order",
            keys.len(),
            expected.len()
        );
        let everything = Reach {
            teams: (0..40).map(|team| truth.world.team(team).id).collect(),
            personal: true,
        };
        let foreign: Vec<Key> = truth
            .granted(
                resource,
                &truth.world.user((case.user + 1) % 1_000),
                &everything,
            )
            .into_iter()
            .filter(|key| !granted.contains(key))
            .take(2)
            .collect();
        check_get(&mut connection, resource, &rows, &granted, &foreign).await?;
    }
    Ok(())
}

/// Runs the property with a seed that can be given as `MOSAIC_SEED` and is printed on failure.
fn no_scope_shows_a_row_of_anybody_else(preset: &str) {
    let seed: u64 =
        std::env::var("MOSAIC_SEED").map_or(0x6973_6f6c_6174_6564, |text| text.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let data = data();
    let truth = Truth::of(data);
    let world = runtime.block_on(async {
        let world = start(preset, data).await;
        world
            .gateway
            .behave(&json!({"over_share": ["rows", "secrets", "limit"]}))
            .await;
        world
    });
    let config = Config {
        cases: rounds(32, 400),
        failure_persistence: None,
        max_shrink_iters: 40,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, rng).run(&cases(), |case| {
        runtime.block_on(check(&world, &truth, &case))
    });
    if let Err(error) = outcome {
        panic!("preset {preset}, MOSAIC_SEED={seed}: {error}");
    }
    runtime.block_on(world.stop());
}

#[test]
fn no_scope_shows_a_row_of_anybody_else_with_internal_v1() {
    no_scope_shows_a_row_of_anybody_else("internal-v1");
}

#[test]
fn no_scope_shows_a_row_of_anybody_else_with_mosaic() {
    no_scope_shows_a_row_of_anybody_else("mosaic");
}

/// The counters of rows by kind, from `/metrics` of every replica.
async fn row_counters(world: &World) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for control in world.controls() {
        let address = control.addresses.ops.unwrap();
        let text = support::enlist::http_get(address, "/metrics").await;
        let rows = "mosaic_federation_rows_total{disposition=\"";
        for line in text.lines().filter_map(|line| line.strip_prefix(rows)) {
            let (kind, rest) = line.split_once('"').unwrap();
            let value: u64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
            *counters.entry(kind.to_owned()).or_insert(0) += value;
        }
    }
    counters
}

/// A user with teams and rows of every kind.
const BUSY: u64 = 3;

/// The first user after `BUSY` who keeps a credential.
fn keeper(world: generate::World) -> u64 {
    let kept: HashSet<String> = world
        .all_rows()
        .filter(|row| row.collection == Collection::Credentials)
        .filter_map(|row| row.owner)
        .collect();
    (BUSY..1_000)
        .find(|user| user % 10 != 9 && kept.contains(&world.user(*user).id))
        .unwrap()
}

fn whole_scope(truth: &Truth, user: u64) -> (Value, Reach) {
    let teams = truth.teams_of(user);
    let filter = json!({"include_teams": teams});
    let filters = BTreeMap::from(RESOURCES.map(|name| (name, filter.clone())));
    let scope = json!({"resources": RESOURCES, "filters": filters, "max_rows_per_query": 10_000});
    let reach = Reach {
        teams,
        personal: true,
    };
    (scope, reach)
}

#[tokio::test(flavor = "multi_thread")]
async fn withheld_rows_are_counted_exactly_in_audit_and_metric() {
    let data = generate::World::sized(1_000, 8_000);
    let truth = Truth::of(data);
    let user = data.user(BUSY);
    for preset in PRESETS {
        let world = start(preset, data).await;
        let (scope, reach) = whole_scope(&truth, BUSY);
        let holder = enlist(&world, "home", &user, scope).await;
        let mut connection = open(&world, &holder, Shape::of(Wire::H1)).await;
        for over_share in [json!([]), json!(["rows"]), json!(["rows", "limit"])] {
            world
                .gateway
                .behave(&json!({"over_share": over_share}))
                .await;
            // Notes are asked for mission by mission with `mosaic`: which of everybody's are shown
            // depends on the missions asked about.
            for resource in ["tasks", "memory", "projects", "missions"] {
                let granted = truth.granted(resource, &user, &reach).len();
                let withheld = if over_share == json!([]) {
                    0
                } else {
                    truth.everybodys(resource) - granted
                };
                let before = row_counters(&world).await;
                let question = json!({"params": {"limit": 10_000}});
                let answer = connection.list(resource, &question).await.unwrap();
                assert_eq!(answer.json()["items"].as_array().unwrap().len(), granted);
                let id = answer.head.header("x-request-id").unwrap();
                let audit = audit_row(world.control(), id).await;
                let what = format!("{preset} {over_share} {resource}: {audit}");
                assert_eq!(audit["rows_withheld"], withheld, "{what}");
                assert_eq!(audit["rows_returned"], granted, "{what}");
                let after = row_counters(&world).await;
                for (kind, count) in [("withheld", withheld), ("returned", granted)] {
                    let of =
                        |counters: &BTreeMap<String, u64>| counters.get(kind).copied().unwrap_or(0);
                    let grown = of(&after) - of(&before);
                    assert_eq!(grown, u64::try_from(count).unwrap(), "{kind} of {what}");
                }
            }
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_innocent_name_stays_and_secrets_go_at_any_depth() {
    let data = generate::World::sized(1_000, 4_000);
    let truth = Truth::of(data);
    let user = data.user(keeper(data));
    for preset in PRESETS {
        let world = start(preset, data).await;
        let (scope, _) = whole_scope(&truth, keeper(data));
        let holder = enlist(&world, "home", &user, scope).await;
        let mut connection = open(&world, &holder, Shape::of(Wire::H2)).await;
        world
            .gateway
            .behave(&json!({"over_share": ["secrets"]}))
            .await;
        let answer = connection.list("tasks", &json!({})).await.unwrap();
        let id = answer.head.header("x-request-id").unwrap();
        let audit = audit_row(world.control(), id).await;
        assert!(
            audit["rows_withheld"].as_u64().unwrap() > 0,
            "the credentials mixed in: {audit}"
        );
        check_body(&answer).unwrap();
        let body = answer.json();
        let rows = body["items"].as_array().unwrap();
        assert!(!rows.is_empty());
        for row in rows {
            assert_eq!(row["secretary"], "Ms Grey", "{row}");
            assert_eq!(row["auth"]["scheme"], "basic", "{row}");
            assert!(row["auth"].get("client_secret").is_none());
            assert_eq!(row["auth"]["list"], json!([{}, {}]), "{row}");
        }
        let credentials = rows.iter().filter(|row| row["type"] == "credential");
        assert_eq!(credentials.count(), 0, "credentials never leave");
        world.stop().await;
    }
}
