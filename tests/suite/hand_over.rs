//! One process takes over from another (`serve --upgrade`) while it is asked: nobody is refused, cut off or answered twice.
//!
//! Invariant: what counts as a failure is said in `support/asking.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use proxy::audit::Direction;
use reference_gateway::generate;
use reference_gateway::store::seed::Data;
use rustls::ClientConfig;
use serde_json::json;
use support::asking::{Ledger, peer};
use support::enlist::{credentials, enlist};
use support::log::Log;
use support::process::{Process, serve};
use support::reader::PATIENCE;
use support::truth::Truth;
use tests::grants::BASE;
use tests::{Client, Wire, World};
use tokio::net::UnixStream;

/// Asks the session door the same way.
async fn session(socket: PathBuf, token: String, ledger: Arc<Ledger>) {
    let open = || async {
        let stream = UnixStream::connect(&socket).await?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok::<SendRequest<Full<Bytes>>, std::io::Error>(sender)
    };
    let opened = || async {
        open()
            .await
            .inspect_err(|error| ledger.fail(format_args!("the door: {error}")))
    };
    let Ok(mut sender) = opened().await else {
        return;
    };
    let question =
        json!({"source": "local", "verb": "list", "resource": "tasks", "params": {"limit": 3}});
    let mut due = tokio::time::interval(Duration::from_millis(10));
    while !ledger.stop.load(Ordering::SeqCst) {
        due.tick().await;
        if sender.ready().await.is_err() {
            let Ok(next) = opened().await else { return };
            sender = next;
        }
        let request = http::Request::post("/v1/query")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(question.to_string())))
            .unwrap();
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_canceled() => continue,
            Err(error) => return ledger.fail(format_args!("the door: {error:?}")),
        };
        let status = answer.status();
        match answer.into_body().collect().await {
            Ok(body) if status == 200 => drop(body),
            Ok(body) => ledger.fail(format_args!("the door: {:?}", body.to_bytes())),
            Err(error) => ledger.fail(format_args!("the door: {error:?}")),
        }
        ledger.answers.fetch_add(1, Ordering::SeqCst);
    }
}

async fn ends_well(mut process: Child) {
    let ended = tokio::task::spawn_blocking(move || process.wait());
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    assert!(ended.expect("it ends").unwrap().unwrap().success());
}

/// A process with a peer's credentials, and a token for its session door.
async fn process() -> (Process, Arc<ClientConfig>, (PathBuf, String)) {
    let data = generate::World::sized(1, 6_000);
    let user = data.user(0);
    let teams = Truth::of(data).teams_of(0);
    let world = World::builder()
        .asks()
        .data(Data::Generated(data))
        .preset("internal-v1")
        .settings("[limits]\nfacts_cache_ms = 10000\npeer_concurrency = 64\n")
        .start()
        .await;
    let scope = json!({"resources": ["tasks"], "max_rows_per_query": 10_000,
        "filters": {"tasks": {"include_teams": teams}}});
    let holder = enlist(&world, "home", &user, scope).await;
    let token = world.session(&user.id).await;
    let door = (world.config.session.socket.clone(), token);
    let config = credentials(&world, &holder);
    // What is under way for long is not cut off either.
    let settings = vec!["federation.drain_s=30".to_owned()];
    let process = Process::take_over_with(world, "info", settings).await;
    (process, config, door)
}

/// What a process says that cannot take over.
fn refused(process: &Process, settings: &[String]) -> String {
    let output = serve(process.dir.path(), "warn", settings)
        .arg("--upgrade")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// A page, and an answer that is written while its rows are read.
const QUESTIONS: [&str; 2] = [r#"{"params":{"limit":5}}"#, r#"{"params":{"limit":10000}}"#];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails_while_processes_take_over() {
    let rounds = support::rounds(3, 20);
    let (mut process, config, (door, token)) = process().await;
    // Long answers take a while to come.
    let slow = json!({"over_share": ["slow"], "slow_bytes": 65_536, "slow_pause_ms": 5});
    process.gateway.behave(&slow).await;
    let ledger = Arc::new(Ledger::default());
    let mut asking = Vec::new();
    for (question, count) in QUESTIONS.into_iter().zip([3, 1]) {
        for wire in Wire::BOTH {
            for _ in 0..count {
                let (config, ledger) = (Arc::clone(&config), Arc::clone(&ledger));
                let what = (wire, question);
                let address = process.federation;
                asking.push(tokio::spawn(peer(address, config, what, ledger, |_| {})));
            }
        }
    }
    asking.push(tokio::spawn(session(door, token, Arc::clone(&ledger))));
    for _ in 0..rounds {
        ledger.more(200).await;
        let before = process.follow();
        ledger.more(200).await;
        ends_well(before).await;
    }
    ledger.stop.store(true, Ordering::SeqCst);
    for task in asking {
        task.await.unwrap();
    }
    assert_eq!(*ledger.failures.lock().unwrap(), Vec::<String>::new());
    let answers = ledger.answers.load(Ordering::SeqCst);
    println!("{rounds} processes took over, {answers} answers, none failed");
    // Nothing of it is missing in the record, and nothing is there twice.
    process.stop();
    let log = Log::open(&process).await;
    let mut recorded: HashMap<String, u32> = HashMap::new();
    for row in log.behind(0).await {
        // What is asked at a start, to see that it is refused, has no grant.
        if row.record.direction == Direction::Inbound && row.record.grant.is_some() {
            let id = row.record.request_id.as_str().to_owned();
            *recorded.entry(id).or_default() += 1;
        }
    }
    let ids = ledger.ids.lock().unwrap();
    for id in ids.iter() {
        assert_eq!(recorded.get(id), Some(&1), "{id}");
    }
    assert_eq!(recorded.len(), ids.len(), "what was heeded was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_start_takes_nothing_away() {
    let (mut process, config, _) = process().await;
    let ask = async |process: &Process| {
        let config = ClientConfig::clone(&config);
        let mut client = Client::open_with(Wire::H1, process.federation, config)
            .await
            .unwrap();
        let answer = client.post(&format!("{BASE}/list/tasks"), "{}").await;
        assert_eq!(answer.unwrap().status, 200);
    };
    for (setting, why) in [
        ("federation.listen=127.0.0.1:1", "make them the same"),
        ("roles.ask=false", "for which there is no listener"),
        ("admin.socket=/nonexistent/admin.sock", "/nonexistent"),
    ] {
        let said = refused(&process, &[setting.to_owned()]);
        assert!(said.contains(why), "{said}");
        ask(&process).await;
    }
    // And it can still be followed.
    let before = process.follow();
    ends_well(before).await;
    ask(&process).await;
    process.kill();
    let nobody = refused(&process, &[]);
    assert!(nobody.contains("Start without --upgrade"), "{nobody}");
}
