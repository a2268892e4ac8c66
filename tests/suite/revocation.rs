//! What an operator takes away is gone when the command returns, whatever is in flight.
//!
//! Answers of 200 MB are raced against the acts: after an act has returned, the kernel accepts no
//! byte of an answer under the old revision, and no answer that was cut looks whole.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "revocation/canary.rs"]
mod canary;
mod support;
#[path = "revocation/through.rs"]
mod through;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use support::acts::{ACTS, Act, NARROWED, act, ask_afresh, check_after, member, narrowed};
use support::enlist::open;
use support::reader::{PATIENCE, Pace, Reader, until};
use support::stream::{Answer, Connection, Shape};
use support::{kernel, rounds};
use tests::audit::audit_row;
use tests::world::{POLICY, operator};
use tests::{Holder, Wire, World};

/// One answer of 200 MB cut by one act.
async fn cut_in_flight(world: &World, number: u32, done: Act, wire: Wire, pace: Pace, kept: bool) {
    let what = format!("round {number}: {done:?} {wire:?} {pace:?} kept={kept}");
    let peer = format!("peer-{number}");
    let holder = member(world, &peer).await;
    let shape = Shape {
        receive_buffer: (pace == Pace::Stalled || number.is_multiple_of(2)).then_some(64 * 1024),
        window: if pace == Pace::Fast {
            16 << 20
        } else {
            1 << 20
        },
        ..Shape::of(wire)
    };
    // At a replica itself: a balancer holds bytes of its own.
    let replicas = world.replicas().count();
    let at = world
        .replicas()
        .nth(usize::try_from(number).unwrap() % replicas);
    let at = at.unwrap().addresses().federation.unwrap();
    let config = support::enlist::credentials(world, &holder);
    let mut connection = Connection::open(at, &config, shape).await.unwrap();
    if kept {
        let question = json!({"params": {"limit": 1}});
        let answer = connection.list("tasks", &question).await.unwrap();
        assert_eq!(answer.head.status, 200);
    }
    let local = connection.local;
    let reader = Reader::start(connection, pace).await;
    assert_eq!(reader.head.status, 200);
    reader.under_way(pace).await;

    let cut = || world.counted("connections_cut_total{how=\"reset\"}");
    let before = cut();
    let applied = act(world, done, &peer, &holder).await;
    // In this order a byte on its way from the server's queue to the client's to the client is
    // counted at least once.
    let server = kernel::queues(at, local);
    let client = kernel::queues(local, at);
    let taken = reader.received.load(Ordering::SeqCst);
    assert_eq!(cut() - before, 1, "{what}");
    if world.replicas().count() == 1 {
        assert_eq!(applied.connections_reset, 1, "{what}");
    }

    let (received, request_id) = (
        Arc::clone(&reader.received),
        reader.head.header("x-request-id").unwrap().to_owned(),
    );
    let got = reader.finish().await;
    assert!(
        got.end.is_err(),
        "{what}: an answer that was cut looks whole"
    );
    assert!(got.bytes < 200 << 20, "{what}");
    // A socket that is gone has nothing more to send, or at most a full buffer to be read.
    let room = shape
        .receive_buffer
        .map_or_else(kernel::receive_max, |size| u64::from(size) * 2);
    let sending = server.map_or(0, |(sending, _)| sending);
    let waiting = client.map_or(room, |(_, waiting)| waiting);
    let accepted = sending + waiting + taken;
    let received = received.load(Ordering::SeqCst);
    assert!(
        received <= accepted,
        "{what}: {received} bytes arrived, but the kernel had accepted {accepted} at the return"
    );
    let audit = audit_row(world.control(), &request_id).await;
    assert_eq!(audit["outcome"], "aborted", "{what}: {audit}");
    assert_eq!(
        audit["grant_id"],
        holder.grant.to_string(),
        "{what}: {audit}"
    );
    check_after(world, done, &peer, &holder, wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_accepted_after_the_act_has_returned() {
    let world = World::start().await;
    world
        .gateway
        .behave(&json!({"big_mb": 200, "big_row_kib": 21}))
        .await;
    for number in 0..rounds(50, 2_000) {
        let done = ACTS[usize::try_from(number).unwrap() % ACTS.len()];
        let wire = Wire::BOTH[usize::try_from(number / 5 % 2).unwrap()];
        let pace = [Pace::Fast, Pace::Stalled][usize::try_from(number / 10 % 2).unwrap()];
        cut_in_flight(
            &world,
            number,
            done,
            wire,
            pace,
            (number / 20).is_multiple_of(2),
        )
        .await;
    }
    world.stop().await;
}

/// Asks over and over, on a kept or on fresh connections; a question sent after the act has
/// returned must not be answered under the old revision.
async fn hammer(
    world: &World,
    holder: &Holder,
    (wire, kept): (Wire, bool),
    old: &str,
    returned: &AtomicBool,
    answered: &AtomicU64,
) {
    let config = support::enlist::credentials(world, holder);
    let mut held: Option<Connection> = None;
    let mut late = 0;
    while late < 3 {
        let is_late = returned.load(Ordering::SeqCst);
        late += u32::from(is_late);
        let mut connection = match held.take().filter(|_| kept) {
            Some(connection) => connection,
            None => match Connection::open(world.federation(), &config, Shape::of(wire)).await {
                Ok(connection) => connection,
                Err(_) => continue,
            },
        };
        let Ok(answer) = connection.list("tasks", &json!({})).await else {
            continue;
        };
        let revision = answer.head.header("x-mosaic-revision");
        if is_late {
            assert_ne!(revision, Some(old), "answered after the act had returned");
        }
        if answer.head.status == 200 {
            answered.fetch_add(1, Ordering::SeqCst);
            held = Some(connection);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_sent_after_the_return_is_answered_under_the_old_revision() {
    let world = Arc::new(World::start().await);
    for number in 0..rounds(12, 500) {
        let done = ACTS[usize::try_from(number).unwrap() % ACTS.len()];
        let peer = format!("peer-{number}");
        let holder = member(&world, &peer).await;
        let first = ask_afresh(&world, &holder, Wire::H1).await.unwrap();
        let old = first.head.header("x-mosaic-revision").unwrap().to_owned();
        let returned = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let ways = [
            (Wire::H1, true),
            (Wire::H1, false),
            (Wire::H2, true),
            (Wire::H2, false),
        ];
        let tasks = ways.map(|way| {
            let (world, holder, old) = (Arc::clone(&world), holder.clone(), old.clone());
            let (returned, answered) = (Arc::clone(&returned), Arc::clone(&answered));
            tokio::spawn(async move {
                hammer(&world, &holder, way, &old, &returned, &answered).await;
            })
        });
        until(|| answered.load(Ordering::SeqCst) > 8 + u64::from(number % 7)).await;
        act(&world, done, &peer, &holder).await;
        returned.store(true, Ordering::SeqCst);
        for task in tasks {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
        check_after(&world, done, &peer, &holder, Wire::H1).await;
    }
    Arc::into_inner(world).unwrap().stop().await;
}

/// A question whose answer the gateway drips, so slowly that it has not begun when the act comes.
async fn asked_and_waiting(
    world: &World,
    holder: &Holder,
    wire: Wire,
) -> tokio::task::JoinHandle<Answer> {
    world.gateway.forget_requests().await;
    let slow = json!({"over_share": ["slow"], "slow_bytes": 400, "slow_pause_ms": 30});
    world.gateway.behave(&slow).await;
    let mut connection = open(world, holder, Shape::of(wire)).await;
    let asked = tokio::spawn(async move {
        connection
            .list("tasks", &json!({"params": {"limit": 10_000}}))
            .await
            .unwrap()
    });
    let seen = async {
        loop {
            let requests = world.gateway.requests().await;
            if requests
                .iter()
                .any(|request| request["path"] == "/internal/v1/tasks")
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_its_first_byte_is_planned_again() {
    let world = World::start().await;
    for wire in Wire::BOTH {
        let holder = member(&world, "home").await;
        let before = ask_afresh(&world, &holder, wire).await.unwrap();
        assert!(before.json()["items"].as_array().unwrap().len() > NARROWED);
        let asked = asked_and_waiting(&world, &holder, wire).await;
        let applied = act(&world, Act::Narrow, "home", &holder).await;
        assert_eq!(applied.connections_reset, 0, "nothing was under way yet");
        world.gateway.behave_honestly().await;
        let answer = asked.await.unwrap();
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), NARROWED);
        let after = ask_afresh(&world, &holder, wire).await.unwrap();
        let revision =
            |answer: &Answer| answer.head.header("x-mosaic-revision").unwrap().to_owned();
        assert_eq!(revision(&answer), revision(&after));
        assert_ne!(revision(&answer), revision(&before));
        world.reload_policy(POLICY).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_without_its_first_byte_is_refused_once_the_grant_is_gone() {
    let world = World::start().await;
    for (done, reason) in [
        (Act::Revoke, "grant_revoked"),
        (Act::Suspend, "peer_suspended"),
        (Act::Remove, "grant_revoked"),
    ] {
        for wire in Wire::BOTH {
            let peer = format!("{done:?}-{wire:?}").to_lowercase();
            let holder = member(&world, &peer).await;
            let asked = asked_and_waiting(&world, &holder, wire).await;
            act(&world, done, &peer, &holder).await;
            world.gateway.behave_honestly().await;
            let answer = asked.await.unwrap();
            assert_eq!(answer.head.status, 403);
            assert_eq!(answer.json()["error"]["details"]["reason"], reason);
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_told_once_or_closed() {
    let world = World::start().await;
    for (done, reason) in [
        (Act::Revoke, "grant_revoked"),
        (Act::Suspend, "peer_suspended"),
        (Act::Remove, "grant_revoked"),
    ] {
        let peer = format!("idle-{done:?}").to_lowercase();
        let holder = member(&world, &peer).await;
        let mut connection = open(&world, &holder, Shape::of(Wire::H1)).await;
        let answer = connection.list("tasks", &json!({})).await.unwrap();
        assert_eq!(answer.head.status, 200);
        let cut = || {
            ["closed", "reset"]
                .map(|how| world.counted(&format!("connections_cut_total{{how=\"{how}\"}}")))
        };
        let before = cut();
        let applied = act(&world, done, &peer, &holder).await;
        assert_eq!(cut(), [before[0] + 1, before[1]]);
        if world.replicas().count() == 1 {
            assert_eq!(
                (applied.connections_closed, applied.connections_reset),
                (1, 0)
            );
        }
        let answer = connection.list("tasks", &json!({})).await.unwrap();
        assert_eq!(answer.head.status, 403);
        assert_eq!(answer.json()["error"]["details"]["reason"], reason);
        let again = connection.list("tasks", &json!({})).await;
        assert!(
            again.is_err(),
            "the connection outlived its grant: {again:?}"
        );
    }
    world.stop().await;
}

/// Many acts at once may be applied as one: each holds when it returns, and is told of its own connections only.
#[tokio::test(flavor = "multi_thread")]
async fn acts_at_once_each_hold_and_are_told_of_their_own() {
    let world = Arc::new(World::start().await);
    let mut acts = Vec::new();
    for number in 0..12 {
        let holder = member(&world, &format!("peer-{number}")).await;
        let mut connections = Vec::new();
        // Another number of connections for each.
        for _ in 0..=number % 3 {
            // A replica is told of its own.
            let at = world.sidecar.addresses().federation.unwrap();
            let shape = Shape::of(Wire::H1);
            let config = support::enlist::credentials(&world, &holder);
            let opened = Connection::open(at, &config, shape);
            let mut connection = opened.await.unwrap();
            let answer = connection.list("tasks", &json!({})).await.unwrap();
            assert_eq!(answer.head.status, 200);
            connections.push(connection);
        }
        let world = Arc::clone(&world);
        acts.push(async move {
            let applied = world.revoke(holder.grant).await;
            let own = u64::try_from(connections.len()).unwrap();
            assert_eq!(
                (applied.connections_closed, applied.connections_reset),
                (own, 0)
            );
            for mut connection in connections {
                let answer = connection.list("tasks", &json!({})).await.unwrap();
                assert_eq!(answer.head.status, 403);
                let reason = &answer.json()["error"]["details"]["reason"];
                assert_eq!(reason, "grant_revoked");
            }
            applied.revision
        });
    }
    let acts: Vec<_> = acts.into_iter().map(tokio::spawn).collect();
    for act in acts {
        act.await.unwrap();
    }
    Arc::into_inner(world).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_leaves_other_grants_and_their_streams_alone() {
    let world = World::start().await;
    let (home, other) = (member(&world, "home").await, member(&world, "other").await);
    let before = ask_afresh(&world, &home, Wire::H1).await.unwrap();
    world
        .gateway
        .behave(&json!({"big_mb": 60, "big_row_kib": 21}))
        .await;
    for wire in Wire::BOTH {
        let connection = open(&world, &home, Shape::of(wire)).await;
        let reader = Reader::start(connection, Pace::Stalled).await;
        reader.under_way(Pace::Stalled).await;
        let applied = act(&world, Act::Narrow, "other", &other).await;
        assert_eq!(
            (applied.connections_closed, applied.connections_reset),
            (0, 0)
        );
        let revision = reader.head.header("x-mosaic-revision").unwrap().to_owned();
        assert_eq!(
            Some(revision.as_str()),
            before.head.header("x-mosaic-revision")
        );
        let got = reader.finish().await;
        assert_eq!(got.end, Ok(()));
        assert!(got.bytes > 59 << 20);
        world.reload_policy(POLICY).await;
    }
    world.gateway.behave_honestly().await;
    let after = ask_afresh(&world, &home, Wire::H2).await.unwrap();
    assert_eq!(
        after.head.header("x-mosaic-revision"),
        before.head.header("x-mosaic-revision")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_is_refused_by_place_and_the_old_one_stays() {
    let world = World::start().await;
    let holder = member(&world, "home").await;
    let before = ask_afresh(&world, &holder, Wire::H1).await.unwrap();
    let broken = [
        (
            "schema = 1\n[ceiling]\nresources = [\"tasks\"\n",
            "policy.toml:3",
        ),
        (
            "schema = 1\n[ceiling]\nresources = [\"tasks\"]\nteam = [\"a\"]\n",
            "policy.toml:4",
        ),
        (
            "schema = 1\n[ceiling]\nresources = [\"tasks\", \"wages\"]\n",
            "policy.toml:3",
        ),
        ("schema = 2\n", "policy.toml:1"),
    ];
    for (text, place) in broken {
        world.write_policy(text);
        let failure = world
            .control()
            .reload_policy(&operator())
            .await
            .unwrap_err();
        let problems = failure.details["problems"].to_string();
        assert!(problems.contains(place), "{place} in {problems}");
        let status = serde_json::to_value(world.control().status().await.unwrap()).unwrap();
        let noted = status["policy"]["last_failure"].to_string();
        assert!(noted.contains(place), "{noted}");
        let after = ask_afresh(&world, &holder, Wire::H1).await.unwrap();
        assert_eq!(after.body.len(), before.body.len());
        assert_eq!(
            after.head.header("x-mosaic-revision"),
            before.head.header("x-mosaic-revision")
        );
    }
    // One bad file among good ones: all or nothing.
    world.write_policy(&narrowed("home"));
    let dir = &world.config.policy.dir;
    std::fs::write(
        dir.join("20-more.toml"),
        "schema = 1\n[peers.home]\nnope = 1\n",
    )
    .unwrap();
    let failure = world
        .control()
        .reload_policy(&operator())
        .await
        .unwrap_err();
    assert!(
        failure.details["problems"]
            .to_string()
            .contains("20-more.toml:3")
    );
    let after = ask_afresh(&world, &holder, Wire::H1).await.unwrap();
    assert_eq!(
        after.json()["items"].as_array().unwrap().len(),
        before.json()["items"].as_array().unwrap().len()
    );
    std::fs::remove_file(dir.join("20-more.toml")).unwrap();
    world.reload_policy(POLICY).await;
    let status = serde_json::to_value(world.control().status().await.unwrap()).unwrap();
    assert!(status["policy"]["last_failure"].is_null());
    world.stop().await;
}
