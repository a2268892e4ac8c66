//! Leases on answers: what a peer is promised, and what taking something away waits for.
//!
//! The serving side alone, with clients that only say that they keep leases. What a cache does with one is in
//! `cache.rs`, the race of both in `lease_race.rs`, the protocol as a model in `lease_model.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use proxy::admin::{AdminCode, CreateGrant, RevokeGrant};
use proxy::directory::Applied;
use serde_json::{Value, json};
use support::acts::{ACTS, Act, act, check_after, member, scope};
use support::enlist::enlist;
use tests::grants::BASE;
use tests::world::{POLICY, operator};
use tests::{Client, Holder, Response, Wire, World};

const ACCEPTS: [(&str, &str); 1] = [("x-mosaic-accept-lease", "1")];

async fn ask(client: &mut Client, headers: &[(&str, &str)], path: &str) -> Response {
    client
        .post_with(&format!("{BASE}{path}"), headers, "{}")
        .await
        .unwrap()
}

/// The lease of an answer, if it has one.
fn lease(answer: &Response) -> Option<u64> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-mosaic-revision").is_some());
    let lease = answer.header("x-mosaic-lease")?;
    Some(lease.parse().unwrap())
}

/// Nanoseconds since boot.
fn now() -> u64 {
    SystemClock.boot_nanos()
}

/// Whole milliseconds since `then`.
fn millis_since(then: u64) -> u64 {
    (now() - then) / 1_000_000
}

/// A serving side whose start is long enough ago, and its lease in milliseconds.
async fn settled(lease_ms: u64) -> World {
    let lines = format!("duration_ms = {lease_ms}");
    let world = World::builder().lease(&lines).start().await;
    world.reload_policy(POLICY).await;
    world
}

/// A holder that has just been promised a lease, and when it asked.
async fn leased(world: &World, peer: &str, wire: Wire) -> (Holder, u64) {
    let holder = member(world, peer).await;
    let mut client = world.client(wire, &holder.minted).await;
    let sent = now();
    let answer = ask(&mut client, &ACCEPTS, "/list/tasks").await;
    assert!(lease(&answer).is_some());
    (holder, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_200_to_a_peer_that_keeps_leases_carries_one() {
    let world = World::builder().lease("duration_ms = 1234").start().await;
    let holder = member(&world, "home").await;
    for wire in Wire::BOTH {
        let mut client = world.client(wire, &holder.minted).await;
        let rows = ask(&mut client, &ACCEPTS, "/list/tasks").await;
        assert_eq!(lease(&rows), Some(1234), "{wire:?}");
        let id = rows.json()["items"][0]["id"].as_str().unwrap().to_owned();
        for path in [format!("/get/tasks/{id}"), "/capabilities".to_owned()] {
            let answer = ask(&mut client, &ACCEPTS, &path).await;
            assert_eq!(lease(&answer), Some(1234), "{wire:?} {path}");
            for not in [[].as_slice(), &[("x-mosaic-accept-lease", "0")]] {
                let answer = ask(&mut client, not, &path).await;
                assert_eq!(lease(&answer), None, "{wire:?} {path}");
            }
        }
        let refused = ask(&mut client, &ACCEPTS, "/list/projects").await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.header("x-mosaic-lease"), None);
        assert_eq!(refused.header("x-mosaic-revision"), None);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_outlives_its_grant_or_its_certificate() {
    let world = World::builder().lease("duration_ms = 10000").start().await;
    let user = support::acts::amira();
    world.let_in_with(&user.id, &user.token()).await;
    let request = CreateGrant {
        user: user.id.clone(),
        peer: "home".to_owned(),
        scope: scope(),
        expires_at: None,
        expires_in_s: Some(8),
    };
    let grant = world
        .control()
        .create_grant(&operator(), request)
        .await
        .unwrap();
    let minted = world
        .mint(grant.id.uuid(), grant.subject.uuid())
        .sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    let mut client = world.client(Wire::H1, &minted).await;
    let promised = lease(&ask(&mut client, &ACCEPTS, "/capabilities").await).unwrap();
    assert!(promised <= 8_000, "{promised}");

    let grant = world.pending_for("other", &user.id, scope()).await;
    let seconds = SystemClock.unix_seconds();
    let minted = world
        .mint(grant.id.uuid(), grant.subject.uuid())
        .validity(seconds - 60, seconds + 9)
        .sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    let mut client = world.client(Wire::H1, &minted).await;
    let promised = lease(&ask(&mut client, &ACCEPTS, "/capabilities").await).unwrap();
    assert!(promised <= 9_000, "{promised}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_returns_when_the_leases_of_the_old_revision_have_ended() {
    const LEASE: u64 = 700;
    let world = settled(LEASE).await;
    for (number, done) in ACTS.into_iter().enumerate() {
        let wire = Wire::BOTH[number % 2];
        let peer = format!("peer-{number}");
        let (holder, sent) = leased(&world, &peer, wire).await;
        let applied = act(&world, done, &peer, &holder).await;
        let elapsed = millis_since(sent);
        assert!(
            elapsed >= LEASE,
            "{done:?} returned {elapsed} ms after the question"
        );
        assert!(applied.waited_ms > 0, "{done:?}: {applied:?}");
        // The specification's bound, section 8.
        let bound = LEASE + if alone(&world) { 100 } else { 1_000 };
        assert!(applied.waited_ms <= bound, "{done:?}: {applied:?}");
        assert_eq!(applied.notice, None);
        check_after(&world, done, &peer, &holder, wire).await;
    }
    world.stop().await;
}

fn alone(world: &World) -> bool {
    world.replicas().count() == 1
}

/// Whether an act waited for no lease; for other replicas it waits, far shorter than the leases of these worlds.
fn at_once(world: &World, applied: &Applied) -> bool {
    applied.waited_ms <= if alone(world) { 0 } else { 2_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_waited_for_when_no_lease_is_out() {
    let world = settled(4_000).await;
    // A lease of another grant of another peer is none of their business.
    let (_other, _) = leased(&world, "other", Wire::H1).await;
    for (number, done) in [
        Act::Revoke,
        Act::Replace,
        Act::Suspend,
        Act::Remove,
        Act::Edit,
    ]
    .into_iter()
    .enumerate()
    {
        let peer = format!("peer-{number}");
        let holder = member(&world, &peer).await;
        let applied = act(&world, done, &peer, &holder).await;
        assert!(at_once(&world, &applied), "{done:?}: {applied:?}");
    }
    let applied = act(&world, Act::Narrow, "nobody", &member(&world, "last").await).await;
    assert!(
        at_once(&world, &applied),
        "the policy did not touch the other grant: {applied:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_leases_holds_nothing_up_and_is_mentioned() {
    let world = settled(4_000).await;
    let holder = member(&world, "home").await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(lease(&ask(&mut client, &[], "/list/tasks").await), None);
    let applied = act(&world, Act::Edit, "home", &holder).await;
    assert!(at_once(&world, &applied), "{applied:?}");
    let notice = applied.notice.unwrap();
    assert_eq!(notice, "peer may serve cached answers for up to 30 s");
    // Said again for as long as it is so, whatever happens to the grant.
    let applied = act(&world, Act::Revoke, "home", &holder).await;
    assert_eq!(applied.notice, Some(notice));
    let other = member(&world, "other").await;
    let applied = act(&world, Act::Revoke, "other", &other).await;
    assert_eq!(applied.notice, None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_committed_in_force_and_said() {
    let lines = "duration_ms = 10000\nwait_ms = 50";
    let world = World::builder().lease(lines).start().await;
    let (holder, _) = leased(&world, "home", Wire::H2).await;
    let id = holder.grant.to_string();
    for _ in 0..2 {
        let failure = world
            .control()
            .revoke_grant(&operator(), &id, RevokeGrant::default())
            .await
            .unwrap_err();
        assert_eq!(failure.code, AdminCode::NotYetEffective);
        assert_eq!(failure.details["committed"], Value::Bool(true));
        let waiting = failure.details["waiting_for"].to_string();
        assert!(
            waiting.contains(&format!("leases of grant {id}")),
            "{waiting}"
        );
        assert!(waiting.contains("before the start"), "{waiting}");
        assert!(failure.message.contains(&id), "{}", failure.message);
        // It holds here all the same.
        check_after(&world, Act::Revoke, "home", &holder, Wire::H1).await;
    }
    let grant = world.control().show_grant(&id).await.unwrap();
    assert_eq!(grant.grant.status, policy::grant::GrantStatus::Revoked);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_start_no_revocation_returns_before_the_longest_lease_of_before() {
    const LONG: u64 = 1_500;
    let mut world = World::builder()
        .lease(&format!("duration_ms = {LONG}"))
        .start()
        .await;
    let (holder, _) = leased(&world, "home", Wire::H1).await;
    let mut config = proxy::config::Config::clone(&world.config);
    config.lease.duration = Duration::from_millis(50);
    world.config = Arc::new(config);
    let stopped = now();
    let world = world.restart().await;
    let store = Arc::clone(&world.control().store);
    let directory = Arc::clone(&world.control().directory);
    directory.forget_earlier_leases().await.unwrap();
    assert_eq!(
        store.longest_lease().await.unwrap(),
        Duration::from_millis(LONG),
        "not before the leases of before have ended"
    );
    world.revoke(holder.grant).await;
    let elapsed = millis_since(stopped);
    assert!(elapsed >= LONG, "returned {elapsed} ms after the stop");
    directory.forget_earlier_leases().await.unwrap();
    assert_eq!(
        store.longest_lease().await.unwrap(),
        Duration::from_millis(50)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_narrows_and_widens_what_a_grant_reaches() {
    let world = World::start().await;
    let user = support::acts::amira();
    let filters = json!({"tasks": {"include_teams": ["platform"]}});
    let narrow = json!({"resources": ["tasks"], "filters": filters, "max_rows_per_query": 3});
    let wide = json!({"resources": ["tasks", "projects"], "filters": filters,
        "max_rows_per_query": 4});
    let holder = enlist(&world, "home", &user, narrow.clone()).await;
    let mut client = world.client(Wire::H1, &holder.minted).await;
    let rows = |answer: &Response| answer.json()["items"].as_array().unwrap().len();
    let first = ask(&mut client, &[], "/list/tasks").await;
    assert_eq!(rows(&first), 3);
    assert_eq!(ask(&mut client, &[], "/list/projects").await.status, 403);
    world.edit(holder.grant, wide).await;
    let second = ask(&mut client, &[], "/list/tasks").await;
    assert_eq!(rows(&second), 4);
    assert_ne!(
        first.header("x-mosaic-revision"),
        second.header("x-mosaic-revision")
    );
    assert_eq!(ask(&mut client, &[], "/list/projects").await.status, 200);
    // A cursor belongs to what the grant reached when it was given.
    let cursor = json!({"cursor": first.json()["nextCursor"]}).to_string();
    let path = format!("{BASE}/list/tasks");
    let stale = client.post(&path, &cursor).await.unwrap();
    assert_eq!(
        (stale.status, stale.reason().as_deref()),
        (400, Some("invalid_cursor"))
    );
    world.edit(holder.grant, narrow).await;
    assert_eq!(ask(&mut client, &[], "/list/projects").await.status, 403);
    // Back at the first scope, but not at the first revision.
    let third = ask(&mut client, &[], "/list/tasks").await;
    assert_ne!(
        first.header("x-mosaic-revision"),
        third.header("x-mosaic-revision")
    );
    world.stop().await;
}
