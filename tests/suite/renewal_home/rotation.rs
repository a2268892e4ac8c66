//! The embedded root is rotated: two peers follow, one of them late, and who has not is waited for.

use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use policy::deny::DenyCode;
use proxy::admin::RotationView;
use proxy::config::Config;
use reference_gateway::plan;
use rustls::AlertDescription;
use serde_json::{Value, json};
use tests::command::{Ran, command};
use tests::expect::Denial;
use tests::{Home, Wire, World, tls};

use super::support::copied;
use super::support::enlist::enlist;
use super::support::onboard::{keys, onboard, truth, users};
use super::support::reader::PATIENCE;

const BASE: &str = "/api/federation/v1";
const UNTRUSTED: Denial = Denial::new(403, "forbidden", DenyCode::CertificateUntrusted);

async fn rotate(world: &World, arguments: &[&str]) -> Ran {
    let socket = &world.config.admin.socket;
    command(
        socket,
        &[&["ca", "rotate"], arguments, &["--json"]].concat(),
    )
    .await
}

fn document(ran: &Ran) -> Value {
    assert_eq!(ran.exit, 0, "{}", ran.errors);
    serde_json::from_str(&ran.out).unwrap()
}

/// What waits, once `ready` says so.
async fn when(world: &World, ready: impl Fn(&RotationView) -> bool) -> RotationView {
    let look = async {
        loop {
            let view = world.control().rotation().await.unwrap();
            if ready(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

async fn answers(home: &Home, user: &str) {
    let session = home.session("alex").await;
    let body = json!({"params": {"limit": 1000}});
    let answer = home.ask(&session, "work", "/list/tasks", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(keys(&answer), truth("tasks", user));
}

/// The roots that a home keeps of work.
async fn bundle(home: &Home) -> (String, u64) {
    let peers = home.control().store.list_peers().await.unwrap();
    let peer = peers.into_iter().find(|peer| peer.name.as_str() == "work");
    let peer = peer.unwrap();
    (peer.trust_bundle_pem.unwrap(), peer.trust_generation)
}

/// Waits until a home keeps just these roots.
async fn keeps(home: &Home, user: &str, roots: &str, generation: u64) {
    let look = async {
        loop {
            answers(home, user).await;
            if bundle(home).await == (roots.to_owned(), generation) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, look).await.is_err() {
        panic!("{:?} is not {generation} {roots}", bundle(home).await);
    }
}

/// Starts another sidecar on a copy of what a kill at this moment would leave, and looks at its rotation.
async fn after_a_kill(world: &World) -> RotationView {
    let trial = tempfile::tempdir().unwrap();
    copied::copy(world.dir.path(), trial.path());
    let file = trial.path().join("federation.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let config: Config = proxy::config::parse(Some((&file, &text)), &[], &[]).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let running = proxy::app::start(Arc::new(config), clock).await.unwrap();
    let view = running.control.rotation().await.unwrap();
    running.stop().await.unwrap();
    view
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_follow_a_rotation_and_the_late_one_is_waited_for() {
    if let Some(why) = copied::missing() {
        return super::support::skipped("a kill at any step of a rotation", &why);
    }
    let world = World::builder()
        .settings("[limits]\nrenewal_overlap_s = 1\n")
        .start()
        .await;
    let old = world.ca.root_pem();
    let (prompt, late) = (Home::start().await, Home::start().await);
    onboard(&world, &prompt, "prompt", plan::AMIRA, "alex").await;
    onboard(&world, &late, "late", plan::BEN, "alex").await;
    assert_eq!(bundle(&prompt).await, (old.clone(), 1));
    let away = late.stop().await;

    // Nothing before its turn.
    for early in [&["apply"][..], &["finish"], &["finish", "--force"]] {
        let refused = rotate(&world, early).await;
        assert_eq!(refused.exit, 1, "{early:?}: {}", refused.errors);
        assert!(
            refused.errors.contains("ca rotate status"),
            "{}",
            refused.errors
        );
    }
    let planned = document(&rotate(&world, &["plan"]).await);
    assert_eq!(
        (&planned["phase"], &planned["generation"]),
        (&json!("planned"), &json!(1))
    );
    let next = planned["next_root"]["pem"].as_str().unwrap().to_owned();
    assert_ne!(next, old);
    let again = document(&rotate(&world, &["plan"]).await);
    assert_eq!(again["next_root"], planned["next_root"]);
    let killed = after_a_kill(&world).await;
    assert_eq!(
        (killed.phase, killed.next_root.unwrap().pem),
        ("planned", next.clone())
    );
    answers(&prompt, plan::AMIRA).await;
    assert_eq!(
        bundle(&prompt).await,
        (old.clone(), 1),
        "nobody is told of a plan"
    );

    let applied = document(&rotate(&world, &["apply"]).await);
    assert_eq!(
        (&applied["generation"], &applied["waiting"]),
        (&json!(2), &json!(2))
    );
    let both = format!("{old}{next}");
    keeps(&prompt, plan::AMIRA, &both, 2).await;
    let view = when(&world, |view| view.waiting == 1).await;
    let waited: Vec<_> = view
        .followers
        .iter()
        .filter(|one| one.waits_for.is_some())
        .collect();
    assert_eq!(waited[0].peer.as_str(), "late");
    assert_eq!(waited[0].of_old_root.len(), 1);
    let refused = rotate(&world, &["finish"]).await;
    assert_eq!(refused.exit, 1);
    assert!(refused.errors.contains("late"), "{}", refused.errors);
    assert!(!refused.errors.contains("prompt"), "{}", refused.errors);
    let killed = after_a_kill(&world).await;
    assert_eq!(
        (killed.phase, killed.generation, killed.waiting),
        ("applied", 2, 1)
    );

    // The one that was away comes with the old root alone, and follows.
    let late = Home::start_in(away, Arc::new(SystemClock)).await;
    keeps(&late, plan::BEN, &both, 2).await;
    when(&world, |view| view.waiting == 0).await;
    let finished = document(&rotate(&world, &["finish"]).await);
    assert_eq!(
        (&finished["phase"], &finished["generation"]),
        (&json!("steady"), &json!(3))
    );
    assert_eq!(finished["root"], planned["next_root"]);
    assert_eq!(after_a_kill(&world).await.root.pem, next);
    for (home, user) in [(&prompt, plan::AMIRA), (&late, plan::BEN)] {
        keeps(home, user, &next, 3).await;
    }
    let secrets = &world.control().store;
    let roots = secrets
        .load_secrets(proxy::store::SecretPurpose::CaKey)
        .await;
    assert_eq!(roots.unwrap().len(), 1, "the old key is gone");

    // After a start it is as before, and who enrolls now is given the next root alone.
    let mut world = world;
    world.keep_address();
    let world = world.restart().await;
    answers(&prompt, plan::AMIRA).await;
    let new = Home::start().await;
    onboard(&world, &new, "new", plan::BEN, "alex").await;
    assert_eq!(bundle(&new).await, (next, 3));
    for home in [prompt, late, new] {
        home.stop().await;
    }
    world.stop().await;
}

/// A certificate whose answer was lost before the roots changed is given again as it was, and with it the peer is told that
/// there is more: it does not wait until that one is due.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_before_the_rotation_holds_nobody_up() {
    let pair = super::Pair::start().await;
    pair.works().await;
    pair.line.lose_answers();
    pair.renew().await.unwrap_err();
    assert_eq!(pair.issued().await.len(), 2, "it was issued");
    document(&rotate(&pair.world, &["plan"]).await);
    document(&rotate(&pair.world, &["apply"]).await);
    pair.line.mend();
    // The answer is taken up, which is not the end of it.
    pair.renew().await.unwrap();
    assert_eq!(pair.issued().await.len(), 2, "the same certificate");
    let view = pair.world.control().rotation().await.unwrap();
    assert_eq!(view.waiting, 1, "it is of the old root");
    let look = async {
        loop {
            pair.works().await;
            // Long before it is due, which is after 198 s.
            pair.pass(1).await;
            drop(pair.outbound().renew_due().await);
            if pair.issued().await.len() == 3 {
                return;
            }
        }
    };
    let began = pair.home.control().now();
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    let waited = pair.home.control().now().since(began) / 1000;
    assert!(waited < 60, "{waited} s");
    let used = pair.works().await;
    let row = tests::audit::audit_row(pair.world.control(), used.request_id()).await;
    let view = pair.world.control().rotation().await.unwrap();
    let old = json!(view.followers[0].of_old_root);
    let old = old.as_array().unwrap();
    assert!(
        !old.contains(&row["cert_serial"]),
        "of the next root: {view:?}"
    );
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_left_behind_is_named_and_kept_connections_end() {
    let world = World::start().await;
    let user = &users()[plan::AMIRA];
    let holder = enlist(&world, "home", user, json!({"resources": ["tasks"]})).await;
    let mut kept = world.client(Wire::H1, &holder.minted).await;
    let path = format!("{BASE}/list/tasks");
    assert_eq!(kept.post(&path, "{}").await.unwrap().status, 200);
    document(&rotate(&world, &["plan"]).await);
    document(&rotate(&world, &["apply"]).await);
    // Both roots are trusted: the connection stands, and so does a new one.
    assert_eq!(kept.post(&path, "{}").await.unwrap().status, 200);
    let mut other = world.client(Wire::H1, &holder.minted).await;
    assert_eq!(other.post(&path, "{}").await.unwrap().status, 200);
    let refused = rotate(&world, &["finish"]).await;
    assert_eq!(refused.exit, 1, "{}", refused.errors);
    let grant = holder.grant.to_string();
    assert!(refused.errors.contains(&grant), "{}", refused.errors);
    let finished = document(&rotate(&world, &["finish", "--force"]).await);
    assert_eq!(finished["phase"], "steady");
    let answer = kept.post(&path, "{}").await.unwrap();
    UNTRUSTED.check(&world, &answer).await;
    assert!(
        kept.post(&path, "{}").await.is_err(),
        "the connection is closed"
    );
    // The next root is what the listener shows now: whoever trusts that one is refused for its own certificate.
    let root = world.control().ca.anchors().remove(0);
    let client = tls::client(Some(&holder.minted), &root, &[]);
    let alert = tls::refusal(world.federation(), client).await;
    assert_eq!(alert, AlertDescription::UnknownCA);
    let acts = command(&world.config.admin.socket, &["audit", "query", "--json"]).await;
    for act in [
        "ca.rotate.plan",
        "ca.rotate.apply",
        "ca.rotate.finish",
        "ca.rotate.left",
    ] {
        assert!(acts.out.contains(act), "{act}");
    }
    world.stop().await;
}
