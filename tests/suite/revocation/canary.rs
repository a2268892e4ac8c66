//! The revocation canary: what a round shows, what it leaves, and that it is loud.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use policy::grant::GrantStatus;
use proxy::admin::{AuditQuery, CanaryStep, CreateGrant, GrantView};
use proxy::store::Actor;
use reference_gateway::plan;
use serde_json::Value;
use support::enlist::http_get;
use tests::audit::audit_rows;

use super::*;

const PEER: &str = "revocation-canary";

async fn its_grants(world: &World) -> Vec<GrantView> {
    let grants = world.control().list_grants().await.unwrap();
    grants
        .into_iter()
        .filter(|grant| grant.peer.as_str() == PEER)
        .collect()
}

async fn metrics(world: &World) -> String {
    http_get(world.sidecar.addresses().ops.unwrap(), "/metrics").await
}

/// Every row with which something was asked or done for it.
async fn its_rows(world: &World) -> Vec<Value> {
    let query = AuditQuery {
        peer: Some(PEER.to_owned()),
        limit: Some(1_000),
        ..AuditQuery::default()
    };
    world.control().query_audit(query).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_shows_that_revoking_works_and_reads_nothing() {
    let world = World::start().await;
    let before = its_grants(&world).await;
    assert!(before.is_empty());
    for round in 1..=2_u64 {
        let shown = world.control().run_canary().await.unwrap().unwrap();
        assert!(shown.latency_ms >= shown.waited_ms, "{shown:?}");
        let grants = its_grants(&world).await;
        assert_eq!(grants.len(), usize::try_from(round).unwrap());
        assert!(
            grants
                .iter()
                .all(|grant| grant.status == GrantStatus::Revoked),
            "{grants:?}"
        );
        let metrics = metrics(&world).await;
        let count = format!("mosaic_federation_revocation_latency_seconds_count {round}\n");
        assert!(metrics.contains(&count), "{metrics}");
    }
    for step in CanaryStep::ALL {
        let step = step.as_str();
        let line =
            format!("mosaic_federation_revocation_canary_failures_total{{step=\"{step}\"}} 0\n");
        assert!(metrics(&world).await.contains(&line), "{line}");
    }
    // Three questions in each round got through; whatever came after was refused, and none was about rows.
    let asked = audit_rows(world.control(), PEER, 6).await;
    let allowed = asked.iter().filter(|row| row["outcome"] == "allowed");
    assert_eq!(allowed.count(), 6, "{asked:#?}");
    for row in &asked {
        // What was refused for who asked was not read any further.
        let verb = if row["outcome"] == "allowed" {
            json!("capabilities")
        } else {
            Value::Null
        };
        assert_eq!(row["verb"], verb, "{row}");
        assert_eq!(row["rows_returned"], 0, "{row}");
    }
    let rows = its_rows(&world).await;
    for act in [
        "grant.create",
        "token.create",
        "token.claim",
        "grant.activate",
        "grant.revoke",
    ] {
        let those: Vec<_> = rows.iter().filter(|row| row["action"] == act).collect();
        assert_eq!(those.len(), 2, "{act}: {rows:#?}");
    }
    let created = rows.iter().find(|row| row["action"] == "grant.create");
    assert_eq!(created.unwrap()["actor"], "sidecar:revocation-canary");
    assert!(
        world.gateway.requests().await.is_empty(),
        "no gateway was asked"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_fails_is_loud_and_leaves_nothing_open() {
    let world = World::start().await;
    world.control().run_canary().await.unwrap().unwrap();
    // Somebody suspends its peer: nobody can enroll for it, so nothing can be shown.
    world.suspend(PEER).await;
    let failure = world.control().run_canary().await.unwrap().unwrap_err();
    assert_eq!(failure.step, CanaryStep::Issue, "{failure}");
    let view = world.control().canary.as_ref().unwrap().view();
    assert_eq!((view.rounds, view.failures), (1, 1));
    assert_eq!(view.failure, Some(failure));
    let line = "mosaic_federation_revocation_canary_failures_total{step=\"issue\"} 1\n";
    assert!(metrics(&world).await.contains(line));
    let open = |grant: &GrantView| grant.status != GrantStatus::Revoked;
    assert!(!its_grants(&world).await.iter().any(open));
    world.resume(PEER).await;
    world.control().run_canary().await.unwrap().unwrap();
    let view = world.control().canary.as_ref().unwrap().view();
    assert_eq!((view.rounds, view.failure), (2, None));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_name_is_nobody_elses() {
    let world = World::start().await;
    let request = |peer: &str| CreateGrant {
        user: plan::AMIRA.to_owned(),
        peer: peer.to_owned(),
        scope: json!({"resources": ["tasks"]}),
        expires_at: None,
        expires_in_s: None,
    };
    let control = world.control();
    let refused = control.create_grant(&operator(), request(PEER)).await;
    let refused = refused.expect_err("the name is taken");
    assert!(refused.message.contains(PEER), "{refused:?}");
    // A peer of that name from somewhere else is not touched, and the canary does not sing.
    let canary = Actor::Sidecar("revocation-canary");
    let foreign = control.create_grant(&canary, request(PEER)).await.unwrap();
    let failure = control.run_canary().await.unwrap().unwrap_err();
    assert_eq!(failure.step, CanaryStep::CleanUp, "{failure}");
    let grants = its_grants(&world).await;
    assert_eq!(grants.len(), 1);
    assert_eq!(
        (grants[0].id, grants[0].status),
        (foreign.id, GrantStatus::Pending)
    );
    world.stop().await;
}

/// What has run out is forgotten with everything that was kept of it but its audit rows.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_run_out_is_forgotten() {
    let world = Arc::new(World::builder().manual_clock().start().await);
    let over = Arc::new(AtomicBool::new(false));
    let (moving, done) = (Arc::clone(&world), Arc::clone(&over));
    // Leases end by the clock of the test.
    let moved = tokio::spawn(async move {
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            moving.clock().advance(Duration::from_millis(50));
        }
    });
    for _ in 0..3 {
        world.control().run_canary().await.unwrap().unwrap();
    }
    over.store(true, Ordering::SeqCst);
    moved.await.unwrap();
    assert_eq!(its_grants(&world).await.len(), 3);
    world.control().clean_up_canary().await.unwrap();
    assert_eq!(
        its_grants(&world).await.len(),
        3,
        "their certificates are good by the clock"
    );
    world.clock().advance(Duration::from_secs(601));
    world.control().clean_up_canary().await.unwrap();
    assert!(its_grants(&world).await.is_empty());
    let rows = its_rows(&world).await;
    let revoked = rows.iter().filter(|row| row["action"] == "grant.revoke");
    assert_eq!(revoked.count(), 3, "the log keeps all of it");
    assert!(rows.iter().any(|row| row["action"] == "grant.forget"));
    Arc::into_inner(world).unwrap().stop().await;
}

/// Polls a future a number of times; `None` when it was not done by then, and it is dropped.
async fn cut_after<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// A round is an enrollment and a revocation: cut off anywhere, the grant is pending without a certificate or active with
/// one, and the next start ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_is_cut_off_anywhere_leaves_nothing_behind() {
    let mut world = World::start().await;
    let mut whole = false;
    for number in 1..400 {
        let polls = number * rounds(3, 1);
        whole = cut_after(polls, world.control().run_canary())
            .await
            .is_some();
        for grant in its_grants(&world).await {
            let detail = world
                .control()
                .show_grant(&grant.id.to_string())
                .await
                .unwrap();
            let certificates = detail.certificates.len();
            let fits = match grant.status {
                GrantStatus::Pending => certificates == 0,
                GrantStatus::Active => certificates == 1,
                GrantStatus::Revoked | GrantStatus::Expired => certificates <= 1,
            };
            assert!(fits, "after {polls} polls: {detail:?}");
        }
        if number % 4 == 0 || whole {
            world = world.restart().await;
            // The start does this too, at its own pace.
            world.control().clean_up_canary().await.unwrap();
        }
        if whole {
            break;
        }
    }
    assert!(whole);
    let open = |grant: &GrantView| grant.status != GrantStatus::Revoked;
    assert!(!its_grants(&world).await.iter().any(open));
    world.control().run_canary().await.unwrap().unwrap();
    world.stop().await;
}
