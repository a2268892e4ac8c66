//! The session door: several sources merged, the own gateway, whose peers are whose, and programs that know only
//! `http_proxy`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use proxy::admin::{AuditQuery, CreateSession};
use reference_gateway::plan;
use serde_json::{Value, json};
use support::onboard::{RESOURCES, keys, truth, whole_scope};
use support::truth::Key;
use tests::home::door;
use tests::world::operator;
use tests::{World, WorldBuilder};
use tokio::process::Command;

/// A sidecar that asks and keeps nothing, so that what a peer does shows at once.
fn asking() -> WorldBuilder {
    World::builder().asks().settings("[cache]\nmax_bytes = 0\n")
}

/// A row as it is told apart: instant, id, source.
type Told = (Key, String);

fn told(page: &Value) -> Vec<Told> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = page["items"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            let key = (text(row, "createdAt"), text(row, "id"));
            (key, text(row, "_source"))
        })
        .collect()
}

/// What sources together must show: newest first, of equal rows that of the first source.
fn merged(sources: &[(&str, Vec<Key>)]) -> Vec<Told> {
    let mut all: Vec<(Key, usize)> = Vec::new();
    for (number, (_, keys)) in sources.iter().enumerate() {
        all.extend(keys.iter().map(|key| (key.clone(), number)));
    }
    all.sort_by(|(a, first), (b, second)| b.cmp(a).then(first.cmp(second)));
    all.into_iter()
        .map(|(key, number)| (key, sources[number].0.to_owned()))
        .collect()
}

/// A desk with its own gateway, and two serving sides with the same data, asked as two people.
async fn three_sides() -> (World, World, World) {
    let (desk, work, club) = tokio::join!(asking().start(), World::start(), World::start());
    desk.let_in(plan::AMIRA).await;
    desk.befriend(
        plan::AMIRA,
        "work",
        &work,
        plan::AMIRA,
        whole_scope(plan::AMIRA),
    )
    .await;
    desk.befriend(
        plan::AMIRA,
        "club",
        &club,
        plan::BEN,
        whole_scope(plan::BEN),
    )
    .await;
    (desk, work, club)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_every_source_comes_out_once_whatever_the_page() {
    let (desk, work, club) = three_sides().await;
    let session = desk.session(plan::AMIRA).await;
    for resource in RESOURCES {
        // The data is the same everywhere, so that most rows share their instant with one of another source.
        let wanted = merged(&[
            ("local", truth(resource, plan::AMIRA)),
            ("club", truth(resource, plan::BEN)),
            ("work", truth(resource, plan::AMIRA)),
        ]);
        for limit in [2, 7, 10_000] {
            let pages = desk.pages(&session, "all", resource, limit).await;
            let rows: Vec<Told> = pages.iter().flat_map(told).collect();
            assert_eq!(rows, wanted, "{resource} by {limit}");
            for page in &pages {
                assert_eq!(page["_partial"], false, "{page}");
                assert!(page["items"].as_array().unwrap().len() <= limit as usize);
                let cursor = page["nextCursor"].as_str().unwrap_or_default();
                assert!(cursor.len() <= 8192);
            }
        }
        for (source, user) in [
            ("local", plan::AMIRA),
            ("federated:work", plan::AMIRA),
            ("federated:club", plan::BEN),
        ] {
            let pages = desk.pages(&session, source, resource, 3).await;
            let rows: Vec<Key> = pages.iter().flat_map(told).map(|(key, _)| key).collect();
            assert_eq!(rows, truth(resource, user), "{source}: {resource}");
        }
    }
    for world in [desk, work, club] {
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_side_failing_leaves_the_rest() {
    let (desk, mut work, club) = three_sides().await;
    let session = desk.session(plan::AMIRA).await;
    let all =
        json!({"source": "all", "verb": "list", "resource": "tasks", "params": {"limit": 10_000}});
    let of = |names: &[&str]| {
        let all = [
            ("local", truth("tasks", plan::AMIRA)),
            ("club", truth("tasks", plan::BEN)),
            ("work", truth("tasks", plan::AMIRA)),
        ];
        merged(
            &all.into_iter()
                .filter(|(name, _)| names.contains(name))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        told(&desk.query(&session, &all).await.json()),
        of(&["local", "club", "work"])
    );
    work.stop_gateway().await;
    let page = desk.query(&session, &all).await.json();
    assert_eq!(told(&page), of(&["local", "club"]));
    assert_eq!(
        (&page["_partial"], &page["_failures"][0]["source"]),
        (&json!(true), &json!("work"))
    );
    let mut club = Some(club);
    club.take().unwrap().stop().await;
    let page = desk.query(&session, &all).await.json();
    assert_eq!(told(&page), of(&["local"]));
    assert_eq!(page["_failures"].as_array().unwrap().len(), 2, "{page}");
    let message = page["_failures"][0]["message"].as_str().unwrap();
    assert_eq!(message, "federation offline for club");
    // Half way through a list, too.
    let first =
        json!({"source": "all", "verb": "list", "resource": "tasks", "params": {"limit": 1}});
    assert_eq!(desk.query(&session, &first).await.json()["_partial"], true);
    work.stop().await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_never_reaches_another_users_peers_by_any_name() {
    let (desk, work) = tokio::join!(asking().start(), World::start());
    desk.let_in(plan::AMIRA).await;
    desk.let_in(plan::BEN).await;
    desk.befriend(
        plan::AMIRA,
        "work",
        &work,
        plan::AMIRA,
        whole_scope(plan::AMIRA),
    )
    .await;
    let (hers, his) = (
        desk.session(plan::AMIRA).await,
        desk.session(plan::BEN).await,
    );
    work.gateway.forget_requests().await;
    let names = {
        let routes = desk.control().outbound.as_ref().unwrap().routes();
        let route = routes.routes().next().unwrap().clone();
        let endpoint = route.endpoint.clone().unwrap();
        let mut names = vec![
            "work".to_owned(),
            endpoint.host().to_owned(),
            endpoint.authority(),
        ];
        names.extend(route.common_name.clone());
        names
    };
    let tasks = "/api/federation/v1/list/tasks";
    let ask = async |session: &str, name: &str| {
        let query =
            json!({"source": format!("federated:{name}"), "verb": "list", "resource": "tasks"});
        let peers = format!("/peers/{}{tasks}", name.replace(':', "%3A"));
        let (credentials, host) = (
            basic(session),
            if name == "work" {
                "work.federation"
            } else {
                name
            },
        );
        let headers = [
            ("host", host),
            ("proxy-authorization", credentials.as_str()),
            ("content-type", "application/json"),
        ];
        let target = format!("http://{host}{tasks}");
        let socket = &desk.config.session.socket;
        [
            desk.query(session, &query).await,
            desk.door(session, &peers, &json!({})).await,
            door(socket, &target, &headers, "{}".to_owned()).await,
        ]
    };
    for name in &names {
        for answer in ask(&his, name).await {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "not_found"),
                "{name}"
            );
        }
    }
    let all =
        json!({"source": "all", "verb": "list", "resource": "tasks", "params": {"limit": 10_000}});
    let rows = told(&desk.query(&his, &all).await.json());
    assert_eq!(rows, merged(&[("local", truth("tasks", plan::BEN))]));
    assert!(
        work.gateway.requests().await.is_empty(),
        "work was asked nothing"
    );
    for name in &names {
        let [query, _, proxied] = ask(&hers, name).await;
        for answer in [query, proxied] {
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            assert_eq!(keys(&answer), truth("tasks", plan::AMIRA), "{name}");
        }
    }
    // What one was given to read on with is nothing to the other.
    let mut question = all.clone();
    question["params"]["limit"] = json!(1);
    question["cursor"] = desk.query(&hers, &question).await.json()["nextCursor"].clone();
    assert!(question["cursor"].is_string());
    let refused = desk.query(&his, &question).await;
    assert_eq!(
        (refused.status, refused.reason().as_deref()),
        (400, Some("invalid_cursor"))
    );
    work.stop().await;
    desk.stop().await;
}

async fn own_rows_only(desk: World) {
    for user in [plan::AMIRA, plan::BEN, plan::CHLOE] {
        desk.let_in(user).await;
    }
    for modes in [
        json!([]),
        json!(["rows"]),
        json!(["rows", "secrets", "limit"]),
    ] {
        desk.gateway.behave(&json!({"over_share": modes})).await;
        for user in [plan::AMIRA, plan::BEN, plan::CHLOE] {
            let session = desk.session(user).await;
            for resource in RESOURCES {
                let wanted = truth(resource, user);
                for source in ["local", "all"] {
                    let question = json!({"source": source, "verb": "list", "resource": resource, "params": {"limit": 10_000}});
                    let answer = desk.query(&session, &question).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(keys(&answer), wanted, "{user} {resource} {modes}");
                    let text = answer.text().to_lowercase();
                    for secret in ["password", "apikey", "accesstoken", "internalnote"] {
                        assert!(!text.contains(secret), "{secret}: {text}");
                    }
                }
                let foreign = truth(resource, plan::CHLOE)
                    .into_iter()
                    .chain(truth(resource, plan::BEN));
                if let Some((_, id)) = foreign.into_iter().find(|key| !wanted.contains(key)) {
                    let get =
                        json!({"source": "local", "verb": "get", "resource": resource, "id": id});
                    assert_eq!(
                        desk.query(&session, &get).await.status,
                        404,
                        "{user} {resource}"
                    );
                }
                let (_, id) = wanted[0].clone();
                let get = json!({"source": "local", "verb": "get", "resource": resource, "id": id});
                let answer = desk.query(&session, &get).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json()["item"]["_source"], "local");
            }
            for resource in ["credentials", "api_keys"] {
                let question = json!({"source": "local", "verb": "list", "resource": resource});
                let answer = desk.query(&session, &question).await;
                let refused = (answer.status, answer.reason());
                assert_eq!(refused, (403, Some("resource_not_granted".to_owned())));
            }
        }
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_gateway_shows_nobody_elses_rows_however_it_over_shares() {
    own_rows_only(asking().start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_gateway_answers_without_the_serving_role_too() {
    own_rows_only(World::builder().preset("mosaic").asks_only().start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_the_own_gateway_is_recorded() {
    let desk = asking().start().await;
    desk.let_in(plan::AMIRA).await;
    desk.gateway.behave(&json!({"over_share": ["rows"]})).await;
    let session = desk.session(plan::AMIRA).await;
    let question = json!({"source": "local", "verb": "list", "resource": "tasks"});
    let answer = desk.query(&session, &question).await;
    let row = tests::audit::audit_row(desk.control(), answer.request_id()).await;
    assert_eq!(
        (&row["direction"], &row["outcome"]),
        (&json!("outbound"), &json!("allowed"))
    );
    assert_eq!(
        (&row["peer_id"], &row["grant_id"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(row["rows_returned"], keys(&answer).len());
    assert!(
        row["rows_withheld"].as_u64().unwrap() > 0,
        "an alarm: {row}"
    );
    let query = AuditQuery {
        direction: Some("inbound".to_owned()),
        ..AuditQuery::default()
    };
    assert!(desk.control().query_audit(query).await.unwrap().is_empty());
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_ended_or_has_expired_is_refused_at_once() {
    let desk = asking().manual_clock().start().await;
    desk.let_in(plan::AMIRA).await;
    let control = desk.control();
    let create = async |ttl_s| {
        let request = CreateSession {
            user: plan::AMIRA.to_owned(),
            ttl_s,
        };
        control
            .create_session(&operator(), request)
            .await
            .ok()
            .unwrap()
    };
    let (one, two) = (create(None).await, create(Some(60)).await);
    let question = json!({"source": "local", "verb": "capabilities"});
    let status = async |token: &str| desk.query(token, &question).await.status;
    assert_eq!(
        (status(&one.token).await, status(&two.token).await),
        (200, 200)
    );
    let ended = control
        .end_session(&operator(), &one.id.to_string())
        .await
        .unwrap();
    assert_eq!(ended.state, "ended");
    assert_eq!(
        (status(&one.token).await, status(&two.token).await),
        (401, 200)
    );
    assert!(
        control
            .end_session(&operator(), &one.id.to_string())
            .await
            .is_ok(),
        "again"
    );
    assert!(
        control
            .end_session(&operator(), "00000000-0000-4000-8000-000000000000")
            .await
            .is_err()
    );
    desk.clock().advance(std::time::Duration::from_secs(61));
    assert_eq!(status(&two.token).await, 401);
    let listed = control.list_sessions().await.unwrap();
    let states: BTreeSet<&str> = listed.iter().map(|session| session.state).collect();
    assert_eq!(states, BTreeSet::from(["ended", "expired"]));
    assert!(listed.iter().all(|session| session.user == plan::AMIRA));
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_own_rows_and_those_of_peers_and_nobody_elses() {
    let (desk, work, club) = three_sides().await;
    desk.gateway
        .behave(&json!({"over_share": ["rows", "secrets"]}))
        .await;
    let session = desk.session(plan::AMIRA).await;
    let ask = async |source: &str, params: Value| {
        let question = json!({"source": source, "verb": "search", "params": params});
        desk.query(&session, &question).await
    };
    let params = json!({"query": "design build test errand lesson", "limit": 10_000});
    let answer = ask("all", params.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = answer.json();
    assert_eq!(page["_partial"], false, "{page}");
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for hit in page["items"].as_array().unwrap() {
        let source = hit["item"]["_source"].as_str().unwrap().to_owned();
        let user = if source == "club" {
            plan::BEN
        } else {
            plan::AMIRA
        };
        let resource = hit["resource"].as_str().unwrap();
        let text = |name: &str| hit["item"][name].as_str().unwrap().to_owned();
        let key = (text("createdAt"), text("id"));
        assert!(truth(resource, user).contains(&key), "{hit}");
        seen.insert(source);
    }
    let sources = ["club", "local", "work"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(sources), "{page}");
    let named = ask("local", json!({"query": "x", "resources": ["credentials"]})).await;
    assert_eq!(
        (named.status, named.reason().as_deref()),
        (403, Some("resource_not_granted"))
    );
    let local = ask("local", params).await.json();
    let of_all = page["items"].as_array().unwrap().iter();
    let of_all: Vec<&Value> = of_all
        .filter(|hit| hit["item"]["_source"] == "local")
        .collect();
    assert_eq!(
        local["items"]
            .as_array()
            .unwrap()
            .iter()
            .collect::<Vec<_>>(),
        of_all
    );
    for world in [desk, work, club] {
        world.stop().await;
    }
}

/// `Proxy-Authorization` of a session.
fn basic(token: &str) -> String {
    use base64::Engine as _;
    let plain = format!("session:{token}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(plain)
    )
}

/// The output of a program with `http_proxy` set; `None` with a line that says so where it is not to be had.
async fn proxied(program: &Path, arguments: &[&str], proxy: &str) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("http_proxy", proxy)
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .stdin(Stdio::null())
        .output()
        .await;
    match output {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{}: {errors}", program.display());
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            support::skipped(&program.display().to_string(), &error.to_string());
            None
        }
    }
}

/// A Python that has `requests`: the one `./run test` made, else the machine's.
async fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    for candidate in [made, PathBuf::from("python3")] {
        let probe = Command::new(&candidate)
            .args(["-c", "import requests"])
            .stderr(Stdio::null())
            .status()
            .await;
        if probe.is_ok_and(|status| status.success()) {
            return Some(candidate);
        }
    }
    None
}

const PYTHON: &str = r#"
import os, sys, requests
proxies = {"http": os.environ["http_proxy"]}
session = requests.Session()
session.trust_env = False
answer = session.post(sys.argv[1], json={"params": {"limit": 10000}}, proxies=proxies, timeout=30)
answer.raise_for_status()
sys.stdout.write(answer.text)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_know_only_http_proxy_get_the_rows_of_the_query_form() {
    let (desk, work) = tokio::join!(asking().start(), World::start());
    desk.befriend(
        plan::AMIRA,
        "work",
        &work,
        plan::AMIRA,
        whole_scope(plan::AMIRA),
    )
    .await;
    let session = desk.session(plan::AMIRA).await;
    let address = desk.sidecar.addresses().session.unwrap();
    let proxy = format!("http://session:{session}@{address}");
    let question = json!({"source": "federated:work", "verb": "list", "resource": "tasks", "params": {"limit": 10_000}});
    let wanted = desk.query(&session, &question).await.json();
    assert_eq!(
        told(&wanted),
        merged(&[("work", truth("tasks", plan::AMIRA))])
    );
    let target = "http://work.federation/api/federation/v1/list/tasks";
    let body = json!({"params": {"limit": 10_000}}).to_string();
    let json_type = "content-type: application/json";
    let arguments = [
        "--silent",
        "--fail",
        "--max-time",
        "30",
        "-X",
        "POST",
        "-H",
        json_type,
        "-d",
        &body,
        target,
    ];
    if let Some(text) = proxied(Path::new("curl"), &arguments, &proxy).await {
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            wanted,
            "curl"
        );
        let real = target.replace("work.federation", &work.federation().to_string());
        let arguments = [
            "--silent",
            "--fail",
            "--max-time",
            "30",
            "-X",
            "POST",
            "-H",
            json_type,
            "-d",
            &body,
            &real,
        ];
        let text = proxied(Path::new("curl"), &arguments, &proxy)
            .await
            .unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            wanted,
            "by its real host"
        );
        let without = format!("http://{address}");
        let status = [
            "--silent",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "30",
            "-X",
            "POST",
            target,
        ];
        assert_eq!(
            proxied(Path::new("curl"), &status, &without).await.unwrap(),
            "407"
        );
        let tunnel = [
            "--silent",
            "-o",
            "/dev/null",
            "-w",
            "%{http_connect}",
            "--max-time",
            "30",
            "--proxytunnel",
            target,
        ];
        let mut refused = Command::new("curl");
        refused.args(tunnel).env("http_proxy", &proxy);
        let output = refused.output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "405", "no tunnel");
    }
    match python().await {
        Some(python) => {
            let arguments = ["-c", PYTHON, target];
            let text = proxied(&python, &arguments, &proxy).await.unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap(),
                wanted,
                "requests"
            );
        }
        None => support::skipped(
            "requests",
            "no Python with `requests`; `./run test` installs it",
        ),
    }
    work.stop().await;
    desk.stop().await;
}
