//! Long answers pass through in bounded memory, and no fault of the gateway becomes a whole answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reference_gateway::generate;
use reference_gateway::plan;
use reference_gateway::record::User;
use reference_gateway::store::seed::Data;
use serde_json::{Value, json};
use support::enlist::{enlist, open};
use support::process::Process;
use support::reader::{PATIENCE, Pace, Reader};
use support::relay::{Break, break_gateway};
use support::stream::{Answer, Connection, Cut, Shape};
use support::truth::{Reach, Truth};
use tests::audit::audit_row;
use tests::{Holder, Wire, World, WorldBuilder};

/// Most that an answer of 200 MB may add to the peak (the specification, section 13).
const RISE: u64 = 8 << 20;
const EVERYTHING: &str = r#"{"params":{"limit":10000}}"#;

fn amira() -> User {
    let mut users = plan::plan().users.into_iter();
    users.find(|user| user.id == plan::AMIRA).unwrap()
}

fn scope(teams: &BTreeSet<String>) -> Value {
    json!({"resources": ["tasks"], "max_rows_per_query": 10_000,
        "filters": {"tasks": {"include_teams": teams}}})
}

/// Reads a list of tasks to its end, counting rows and keeping none. Every row is one flat object.
async fn count_rows(mut connection: Connection) -> (u64, u64) {
    let path = format!("{}/list/tasks", tests::grants::BASE);
    let (head, mut body) = connection.ask("POST", &path, EVERYTHING).await.unwrap();
    assert_eq!(head.status, 200);
    let (mut objects, mut bytes) = (0, 0);
    while let Some(part) = body.part().await.unwrap() {
        objects += part.iter().filter(|byte| **byte == b'{').count();
        bytes += part.len();
    }
    (
        u64::try_from(objects).unwrap() - 1,
        u64::try_from(bytes).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_200_mb_adds_less_than_8_mb() {
    let world = World::start().await;
    let holder = enlist(&world, "home", &amira(), scope(&BTreeSet::new())).await;
    let config = support::enlist::credentials(&world, &holder);
    let process = Process::take_over(world, "info").await;
    let connect = async |wire| {
        Connection::open(process.federation, &config, Shape::of(wire))
            .await
            .unwrap()
    };
    for wire in Wire::BOTH {
        // What is made once, at the first questions, is not the answer's.
        process
            .gateway
            .behave(&json!({"big_mb": 2, "big_row_kib": 21}))
            .await;
        for _ in 0..3 {
            count_rows(connect(wire).await).await;
        }
        process
            .gateway
            .behave(&json!({"big_mb": 200, "big_row_kib": 21}))
            .await;
        process.reset_peak();
        let (before, _) = process.memory();
        let (rows, bytes) = count_rows(connect(wire).await).await;
        let (_, peak) = process.memory();
        assert_eq!(rows, 200 * 1024 / 21);
        assert!(bytes > 200 * 1024 * 1024 / 21 * 20, "{bytes}");
        let rise = peak.saturating_sub(before);
        println!(
            "{wire:?}: {rows} rows, {bytes} bytes, peak over idle {} KiB",
            rise / 1024
        );
        assert!(rise < RISE, "{wire:?}: the peak rose by {rise} bytes");
    }
    // A reader that stops does not make the sidecar keep what it cannot send.
    process.reset_peak();
    let (before, _) = process.memory();
    let reader = Reader::start(connect(Wire::H1).await, Pace::Stalled).await;
    reader.under_way(Pace::Stalled).await;
    let (_, peak) = process.memory();
    assert!(peak.saturating_sub(before) < RISE, "{before} to {peak}");
    let got = reader.finish().await;
    assert_eq!(got.end, Ok(()));
}

/// A user whose tasks are more than is collected before the first byte, and how many they are.
struct Large {
    data: generate::World,
    user: User,
    teams: BTreeSet<String>,
    rows: usize,
}

fn large() -> Large {
    let data = generate::World::sized(1, 6_000);
    let truth = Truth::of(data);
    let (user, teams) = (data.user(0), truth.teams_of(0));
    let reach = Reach {
        teams: teams.clone(),
        personal: true,
    };
    let rows = truth.granted("tasks", &user, &reach).len();
    assert!(rows > 1_000);
    Large {
        data,
        user,
        teams,
        rows,
    }
}

fn builder(data: Data, preset: &str) -> WorldBuilder {
    World::builder()
        .data(data)
        .preset(preset)
        .gateway("read_timeout_ms = 400")
        .settings("[limits]\nfacts_cache_ms = 10000\n")
}

async fn start(data: Data, preset: &str) -> World {
    builder(data, preset).start().await
}

/// What came of a question: a whole answer, or none.
async fn ask(world: &World, holder: &Holder, wire: Wire) -> Result<Answer, Cut> {
    let mut connection = open(world, holder, Shape::of(wire)).await;
    let path = format!("{}/list/tasks", tests::grants::BASE);
    let asked = connection.whole("POST", &path, EVERYTHING);
    tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("an end in time")
}

/// Every replica has the facts of the subject from then on.
async fn warm(world: &World, holder: &Holder) {
    let few = json!({"params": {"limit": 1}});
    for answer in world.ask_each(&holder.minted, "/list/tasks", &few).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A failure before the first byte: an envelope, and its record.
async fn check_refused(world: &World, answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        answer.head.status,
        status,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let error = answer.json()["error"].clone();
    assert_eq!(error["code"], "unavailable", "{error}");
    assert_eq!(error["details"]["reason"], code, "{error}");
    assert_eq!(answer.head.header("x-mosaic-revision"), None);
    let row = audit_row(world.control(), answer.head.header("x-request-id").unwrap()).await;
    assert_eq!(row["outcome"], "error", "{row}");
    assert_eq!(row["deny_code"], code, "{row}");
    assert_eq!(row["http_status"], status, "{row}");
}

/// The latest record of tasks being listed.
async fn latest(world: &World, than: usize) -> Value {
    let rows = async {
        loop {
            let query = proxy::admin::AuditQuery {
                verb: Some("list".to_owned()),
                limit: Some(10_000),
                ..Default::default()
            };
            let mut rows = world.control().query_audit(query).await.unwrap();
            if rows.len() > than {
                return rows.pop().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(tests::audit::AUDIT_WITHIN, rows)
        .await
        .expect("an audit row in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_gateway_makes_a_small_answer_an_error() {
    for preset in ["internal-v1", "mosaic"] {
        for wire in Wire::BOTH {
            let world = start(Data::Plan, preset).await;
            let teams = BTreeSet::from(["platform".to_owned()]);
            let holder = enlist(&world, "home", &amira(), scope(&teams)).await;
            // The facts are fetched once and kept: it is the rows that fail below.
            warm(&world, &holder).await;
            assert_eq!(ask(&world, &holder, wire).await.unwrap().head.status, 200);
            for (mode, status, code) in [
                ("truncate", 502, "gateway_malformed"),
                ("garbage", 502, "gateway_malformed"),
                ("status500", 502, "gateway_malformed"),
                ("hang", 504, "gateway_timeout"),
            ] {
                world.gateway.behave(&json!({"over_share": [mode]})).await;
                let answer = ask(&world, &holder, wire).await.unwrap();
                println!("{preset} {wire:?} {mode}: {}", answer.head.status);
                check_refused(&world, &answer, status, code).await;
            }
            world.gateway.behave_honestly().await;
            let answer = ask(&world, &holder, wire).await.unwrap();
            assert_eq!(answer.head.status, 200, "a fault leaves nothing behind");
            world.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_after_the_first_byte_aborts_the_answer() {
    let large = large();
    let world = start(Data::Generated(large.data), "internal-v1").await;
    let holder = enlist(&world, "home", &large.user, scope(&large.teams)).await;
    let mut recorded = 0;
    for wire in Wire::BOTH {
        for mode in ["truncate", "garbage"] {
            world.gateway.behave(&json!({"over_share": [mode]})).await;
            let outcome = ask(&world, &holder, wire).await;
            assert!(
                outcome.is_err(),
                "{wire:?} {mode}: a cut answer looks whole"
            );
            let row = latest(&world, recorded).await;
            recorded += 1;
            assert_eq!(row["outcome"], "error", "{row}");
            assert_eq!(row["deny_code"], "gateway_malformed", "{row}");
            assert!(row["rows_returned"].as_u64().unwrap() > 0, "{row}");
            assert!(row["bytes_out"].as_u64().unwrap() >= 64 * 1024, "{row}");
        }
    }
    world.gateway.behave_honestly().await;
    let answer = ask(&world, &holder, Wire::H1).await.unwrap();
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), large.rows);
    assert_eq!(answer.head.header("content-length"), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_lists_that_break_off_are_errors_however_long() {
    let large = large();
    let world = start(Data::Generated(large.data), "mosaic").await;
    let holder = enlist(&world, "home", &large.user, scope(&large.teams)).await;
    warm(&world, &holder).await;
    for wire in Wire::BOTH {
        assert_eq!(ask(&world, &holder, wire).await.unwrap().head.status, 200);
        for mode in ["truncate", "garbage"] {
            world.gateway.behave(&json!({"over_share": [mode]})).await;
            let answer = ask(&world, &holder, wire).await.unwrap();
            check_refused(&world, &answer, 502, "gateway_malformed").await;
        }
        world.gateway.behave_honestly().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_in_the_middle_aborts_the_answer() {
    for how in [Break::Closed, Break::Reset] {
        // The relay is before the gateway of one process.
        let world = builder(Data::Plan, "internal-v1").alone().start().await;
        let world = break_gateway(world, 3 << 20, how).await;
        let holder = enlist(&world, "home", &amira(), scope(&BTreeSet::new())).await;
        warm(&world, &holder).await;
        for wire in Wire::BOTH {
            world
                .gateway
                .behave(&json!({"big_mb": 50, "big_row_kib": 21}))
                .await;
            let connection = open(&world, &holder, Shape::of(wire)).await;
            let reader = Reader::start(connection, Pace::Fast).await;
            let id = reader.head.header("x-request-id").unwrap().to_owned();
            let got = reader.finish().await;
            assert!(
                got.end.is_err(),
                "{how:?} {wire:?}: a cut answer looks whole"
            );
            assert!(got.bytes < 4 << 20, "{how:?} {wire:?}: {}", got.bytes);
            let row = audit_row(world.control(), &id).await;
            assert_eq!(row["outcome"], "error", "{row}");
            // Before the first byte of a short answer there is still a status to give.
            world.gateway.behave(&json!({"over_share": ["hang"]})).await;
            let answer = ask(&world, &holder, wire).await.unwrap();
            check_refused(&world, &answer, 504, "gateway_timeout").await;
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_2_mib_is_withheld_and_the_others_come() {
    for preset in ["internal-v1", "mosaic"] {
        let world = start(Data::Plan, preset).await;
        let teams = BTreeSet::from(["platform".to_owned()]);
        let holder = enlist(&world, "home", &amira(), scope(&teams)).await;
        let ids = |answer: &Answer| -> BTreeSet<String> {
            let body = answer.json();
            let rows = body["items"].as_array().unwrap().iter();
            rows.map(|row| row["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let all = ask(&world, &holder, Wire::H1).await.unwrap();
        world
            .gateway
            .behave(&json!({"over_share": ["oversize"]}))
            .await;
        for wire in Wire::BOTH {
            let answer = ask(&world, &holder, wire).await.unwrap();
            assert_eq!(answer.head.status, 200);
            assert!(answer.body.len() < 1 << 20);
            assert!(ids(&answer).is_subset(&ids(&all)));
            assert_eq!(ids(&answer).len() + 1, ids(&all).len());
            let id = answer.head.header("x-request-id").unwrap();
            let row = audit_row(world.control(), id).await;
            assert_eq!(row["outcome"], "allowed", "{row}");
            assert_eq!(row["rows_withheld"], 1, "{row}");
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gateway_is_passed_on_as_it_comes() {
    let large = large();
    let world = Arc::new(start(Data::Generated(large.data), "internal-v1").await);
    let holder = enlist(&world, "home", &large.user, scope(&large.teams)).await;
    let fast = ask(&world, &holder, Wire::H1).await.unwrap();
    let slow = json!({"over_share": ["slow"], "slow_bytes": 16_384, "slow_pause_ms": 10});
    world.gateway.behave(&slow).await;
    for wire in Wire::BOTH {
        let mut connection = open(&world, &holder, Shape::of(wire)).await;
        let path = format!("{}/list/tasks", tests::grants::BASE);
        let (head, mut reading) = connection.ask("POST", &path, EVERYTHING).await.unwrap();
        assert_eq!(head.status, 200);
        let first = reading.part().await.unwrap().unwrap();
        // The gateway is still at it: the record of a finished answer would be there otherwise.
        let id = head.header("x-request-id").unwrap().to_owned();
        let query = proxy::admin::AuditQuery {
            request_id: Some(id.clone()),
            ..Default::default()
        };
        assert!(world.control().query_audit(query).await.unwrap().is_empty());
        let mut body = first.to_vec();
        while let Some(part) = reading.part().await.unwrap() {
            body.extend_from_slice(&part);
        }
        assert_eq!(body, fast.body);
        assert_eq!(audit_row(world.control(), &id).await["outcome"], "allowed");
    }
    Arc::into_inner(world).unwrap().stop().await;
}
