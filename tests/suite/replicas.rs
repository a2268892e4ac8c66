//! Several processes on one store: what one takes away is gone at all of them when the act returns, whatever has become of the others.
//!
//! The first replica is in this process, the others are processes of their own. On PostgreSQL each has a link to the database
//! that can be cut; on SQLite two processes share one data directory, as while one hands over to the next.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "replicas/partition.rs"]
mod partition;
#[path = "replicas/race.rs"]
mod race;
#[path = "replicas/side.rs"]
mod side;
mod support;

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certs::{Clock, SystemClock};
use proxy::admin::{AdminCode, AdminFailure};
use proxy::app::{Circumstances, StartError};
use proxy::directory::Applied;
use proxy::replicas::Rollback;
use reference_gateway::plan;
use serde_json::json;
use side::Side;
use support::acts::{amira, member, narrowed, scope};
use support::enlist::enlist;
use support::enroll::{redeem, request, taken, ticket};
use support::reader::{PATIENCE, until};
use support::{rounds, skipped};
use tests::command::command;
use tests::database::Value;
use tests::grants::BASE;
use tests::world::operator;
use tests::{Client, Holder, Wire, World};

/// How long a replica serves without having heard of the store, milliseconds.
pub const FENCE: u64 = 500;
/// The longest lease, milliseconds.
pub const LEASE: u64 = 200;
/// Why nothing is shown in a world of its own.
pub const ON_SQLITE: &str = "the store is SQLite; it runs with MOSAIC_TEST_STORE=postgres";
/// What answers are asked with.
pub const ACCEPTS: [(&str, &str); 1] = [("x-mosaic-accept-lease", "1")];

/// A moment to count from.
#[derive(Debug, Clone, Copy)]
pub struct Began(u64);

impl Began {
    /// This one.
    pub fn now() -> Self {
        Self(SystemClock.boot_nanos())
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(SystemClock.boot_nanos() - self.0)
    }
}

/// The first replica.
pub async fn world() -> World {
    World::builder()
        .lease(&format!("duration_ms = {LEASE}"))
        .settings(&format!(
            "[replicas]\nfence_ms = {FENCE}\nname = \"first\"\n"
        ))
        .start()
        .await
}

async fn connect(at: SocketAddr, world: &World, holder: &Holder) -> Client {
    let wire = Wire::H1;
    Client::open(wire, at, &holder.minted, world.root())
        .await
        .unwrap()
}

/// A connection that came to nothing: 403 where the certificate was revoked.
fn refused(error: &std::io::Error) -> (u16, String) {
    let text = error.to_string();
    let status = if text.contains("CertificateRevoked") {
        403
    } else {
        0
    };
    (status, text)
}

/// Status and reason of a question on a connection of its own.
async fn asked(at: SocketAddr, world: &World, holder: &Holder) -> (u16, String) {
    let opened = Client::open(Wire::H1, at, &holder.minted, world.root()).await;
    let mut client = match opened {
        Ok(client) => client,
        Err(error) => return refused(&error),
    };
    let path = format!("{BASE}/list/tasks");
    let answer = client
        .post_with(&path, &ACCEPTS, r#"{"params":{"limit":1}}"#)
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        // The handshake ends on this side before it does on the other.
        Err(error) => return refused(&error),
    };
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let reason = body["error"]["details"]["reason"].as_str();
    (answer.status, reason.unwrap_or_default().to_owned())
}

/// Waits until a replica answers so.
async fn answers(at: SocketAddr, world: &World, holder: &Holder, status: u16) {
    let began = Began::now();
    loop {
        let (found, reason) = asked(at, world, holder).await;
        if found == status {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found} {reason}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_takes_away_is_gone_at_all() {
    let world = world().await;
    let second = Side::start(&world, "second", &[]).await;
    let third = Side::start(&world, "third", &[]).await;
    let all = [world.federation(), second.federation, third.federation];
    for round in 0..4 {
        let holder = member(&world, &format!("peer-{round}")).await;
        for at in all {
            answers(at, &world, &holder, 200).await;
        }
        let mut open = connect(third.federation, &world, &holder).await;
        assert_eq!(
            open.post(&format!("{BASE}/capabilities"), "{}")
                .await
                .unwrap()
                .status,
            200
        );
        if round % 2 == 0 {
            world.revoke(holder.grant).await;
        } else {
            let ran = command(
                &second.admin,
                &["grant", "revoke", &holder.grant.to_string()],
            )
            .await;
            assert_eq!(ran.exit, 0, "{ran:?}");
        }
        for at in all {
            let (status, _) = asked(at, &world, &holder).await;
            assert_eq!(status, 403, "round {round}");
        }
        // One that was open is told so or was closed.
        if let Ok(answer) = open.post(&format!("{BASE}/list/tasks"), "{}").await {
            assert_eq!(answer.status, 403);
        }
    }
    // The others are asked for, by name.
    let status = command(&second.admin, &["status"]).await;
    for name in ["first", "second", "third"] {
        assert!(status.out.contains(name), "{}", status.out);
    }
    let checks = world.control().checks().await.unwrap();
    let check = checks
        .iter()
        .find(|check| check.name == "replicas")
        .unwrap();
    assert!(check.found.contains("3 serving"), "{check:?}");
    assert!(second.stop().await, "it ends in good order");
    let holder = member(&world, "afterwards").await;
    answers(third.federation, &world, &holder, 200).await;
    world.revoke(holder.grant).await;
    assert_eq!(asked(third.federation, &world, &holder).await.0, 403);
    world.stop().await;
}

/// Enrolled at one and renewed at another: whoever was just given a certificate is refused nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_adds_is_known_at_all() {
    // A machine that is busy for long fences nobody.
    let world = World::builder()
        .settings("[replicas]\nfence_ms = 10000\n")
        .start()
        .await;
    let second = Side::start(&world, "second", &[]).await;
    let third = Side::start(&world, "third", &[]).await;
    let all = [third.federation, second.federation, world.federation()];
    // The gateway token of the user is taken over behind the acts.
    let first = member(&world, "first").await;
    for at in all {
        answers(at, &world, &first, 200).await;
    }
    for round in 0..rounds(8, 500) {
        let (grant, ticket) = ticket(&world).await;
        let (key, csr) = request();
        let enrolled = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr).await;
        let enrolled = Holder {
            grant,
            minted: taken(&enrolled.unwrap(), key),
            ..first
        };
        for at in all {
            let found = asked(at, &world, &enrolled).await;
            assert_eq!(found, (200, String::new()), "round {round}, enrolled");
        }
        let (key, csr) = request();
        let mut client = connect(second.federation, &world, &enrolled).await;
        let body = json!({ "csrPem": csr }).to_string();
        let renewed = client.post(&format!("{BASE}/renew"), &body).await;
        let renewed = Holder {
            minted: taken(&renewed.unwrap(), key),
            ..enrolled
        };
        for at in all {
            let found = asked(at, &world, &renewed).await;
            assert_eq!(found, (200, String::new()), "round {round}, renewed");
        }
    }
    world.stop().await;
}

/// Writes a secret as the product would want it.
fn write_secret(path: &Path, secret: &[u8]) {
    let mut file = std::fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600);
    std::io::Write::write_all(&mut file.open(path).unwrap(), secret).unwrap();
}

/// Each finds the secrets in a place of its own, and one gets the next one late.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealing_secret_that_one_changes_is_taken_over() {
    const NEXT: &[u8] = b"0123456789abcdef0123456789abcdef-the-next-secret";
    let world = world().await;
    let first = world.config.data_dir.join("sealing.key");
    let own = world.dir.path().join("second.key");
    write_secret(&own, &std::fs::read(&first).unwrap());
    let setting = format!("seal.secret_file={}", own.display());
    let second = Side::start(&world, "second", &[&setting]).await;
    let logged = |text: &str| second.log.lock().unwrap().contains(text);
    let config = world.dir.path().join("federation.toml");
    let config = config.display().to_string();
    let keys = async |what: &str| {
        let admin = world.config.data_dir.join("admin.sock");
        let arguments = ["--config", &config, "keys", "reseal", what];
        command(&admin, &arguments).await
    };
    let next_of = |path: &Path| path.with_extension("key.next");

    write_secret(&next_of(&first), NEXT);
    let started = keys("start").await;
    assert_eq!(started.exit, 0, "{started:?}");
    until(|| logged("second.key.next")).await;
    assert!(!logged("changes the sealing secret: taken over"));
    write_secret(&next_of(&own), NEXT);
    until(|| logged("changes the sealing secret: taken over")).await;

    for path in [&first, &own] {
        std::fs::rename(next_of(path), path).unwrap();
    }
    let ended = keys("finish").await;
    assert_eq!(ended.exit, 0, "{ended:?}");
    until(|| logged("has ended the change of the sealing secret")).await;
    // What the second one seals now opens at the first.
    let user = amira();
    let token = world.dir.path().join("token");
    write_secret(&token, user.token().as_bytes());
    let token = token.display().to_string();
    let set = ["gateway", "token", "set", "--user", &user.id];
    let set = [&set[..], &["--token-file", &token]].concat();
    let set = command(&second.admin, &set).await;
    assert_eq!(set.exit, 0, "{set:?}");
    let grant = world.pending_for("home", &user.id, scope()).await;
    let subject = grant.subject.uuid();
    let minted = world.mint(grant.id.uuid(), subject).sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    let holder = Holder {
        grant: grant.id,
        subject,
        minted,
    };
    for at in [second.federation, world.federation()] {
        answers(at, &world, &holder, 200).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_one_reads_holds_at_all() {
    let world = world().await;
    let second = Side::start(&world, "second", &[]).await;
    let holder = enlist(&world, "narrow", &amira(), scope()).await;
    answers(second.federation, &world, &holder, 200).await;
    world.reload_policy(&narrowed("narrow")).await;
    let mut client = connect(second.federation, &world, &holder).await;
    let path = format!("{BASE}/list/tasks");
    let answer = client.post(&path, "{}").await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(
        body["items"].as_array().map(Vec::len),
        Some(support::acts::NARROWED),
        "{body}"
    );
    world.stop().await;
}

/// Freezes a replica, then revokes. One that was frozen in the middle of a write is tried again: a file's lock is taken from nobody
/// who lives, and the turn of writers after a second only.
async fn revoke_beside_frozen(
    world: &World,
    side: &Side,
    grant: &str,
) -> Result<Applied, AdminFailure> {
    loop {
        side.freeze();
        let revoking = world
            .control()
            .revoke_grant(&operator(), grant, Default::default())
            .await;
        match revoking {
            Err(failure) if failure.code == AdminCode::Unavailable => side.thaw(),
            done => return done,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_frozen_is_waited_for_no_longer_than_it_could_serve() {
    let world = world().await;
    let second = Side::start(&world, "second", &[]).await;
    let holder = member(&world, "frozen").await;
    answers(second.federation, &world, &holder, 200).await;
    let mut open = connect(second.federation, &world, &holder).await;
    let path = format!("{BASE}/list/tasks");
    let first = open.post_with(&path, &ACCEPTS, "{}").await.unwrap();
    assert_eq!(first.status, 200);
    let grant = holder.grant.to_string();
    // Of all tries: one that is frozen again for long has not served in between.
    let began = Began::now();
    revoke_beside_frozen(&world, &second, &grant).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(FENCE), "{took:?}");
    println!("revoked beside a frozen replica in {} ms", took.as_millis());
    // Put after the act had returned, answered when it wakes up and believes that nothing has happened.
    let late = open.post_with(&path, &ACCEPTS, "{}");
    let (late, ()) = tokio::join!(late, async { second.thaw() });
    if let Ok(answer) = late {
        assert_ne!(answer.status, 200);
    }
    answers(second.federation, &world, &holder, 403).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_database_is_away_serves_nothing_and_comes_back() {
    if !tests::database::is_postgres() {
        return skipped("a replica whose database is away", ON_SQLITE);
    }
    let world = world().await;
    let second = Side::start(&world, "second", &[]).await;
    let holder = member(&world, "cut").await;
    let kept = member(&world, "kept").await;
    let link = second.link.as_ref().unwrap();
    for holder in [&holder, &kept] {
        answers(second.federation, &world, holder, 200).await;
    }
    link.cut();
    world.revoke(holder.grant).await;
    for holder in [&holder, &kept] {
        let (status, reason) = asked(second.federation, &world, holder).await;
        assert_eq!((status, reason.as_str()), (503, "replica_fenced"));
    }
    // No act either.
    let act = command(&second.admin, &["grant", "revoke", &kept.grant.to_string()]).await;
    assert_eq!(act.exit, 5, "{act:?}");
    assert!(
        act.errors.contains("has not heard of the store"),
        "{}",
        act.errors
    );
    assert_eq!(asked(world.federation(), &world, &kept).await.0, 200);
    until(|| {
        second
            .log
            .lock()
            .unwrap()
            .contains("this replica serves nothing")
    })
    .await;
    link.heal();
    answers(second.federation, &world, &kept, 200).await;
    assert_eq!(asked(second.federation, &world, &holder).await.0, 403);
    until(|| {
        second
            .log
            .lock()
            .unwrap()
            .contains("this replica serves again")
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_cannot_wait_says_for_whom_it_waits() {
    let world = World::builder()
        .lease(&format!("duration_ms = {LEASE}\nwait_ms = 0"))
        .settings("[replicas]\nfence_ms = 5000\n")
        .start()
        .await;
    let second = Side::start(&world, "second", &[]).await;
    let holder = member(&world, "waits").await;
    answers(second.federation, &world, &holder, 200).await;
    let grant = holder.grant.to_string();
    let failure = revoke_beside_frozen(&world, &second, &grant).await;
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, AdminCode::NotYetEffective, "{failure:?}");
    assert_eq!(failure.details["committed"], json!(true));
    let waiting = failure.details["waiting_for"].to_string();
    assert!(waiting.contains("replica second"), "{waiting}");
    // What adds something is not held up by it.
    world.pending(plan::AMIRA, scope()).await;
    second.thaw();
    answers(second.federation, &world, &holder, 403).await;
    world.stop().await;
}

/// Sets the revision of a store back, as a restore of an older state would.
async fn set_back(world: &World, by: i64) {
    let mut database = world.database().await;
    let changed = database
        .execute(
            "UPDATE meta SET revision = CASE WHEN revision > $1 THEN revision - $1 ELSE 1 END",
            &[Value::Number(by)],
        )
        .await;
    assert_eq!(changed, 1);
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_older_than_it_was_is_refused_or_taken_with_every_peer_suspended() {
    let world = world().await;
    let holder = member(&world, "restored").await;
    assert_eq!(asked(world.federation(), &world, &holder).await.0, 200);
    let other = member(&world, "other").await;
    world.revoke(other.grant).await;
    // What a start and a stop add is more than what is taken away below.
    let config = Arc::clone(&world.config);
    set_back(&world, 1_000).await;
    world.sidecar.stop().await.unwrap();
    let start = |rollback| {
        let circumstances = Circumstances {
            rollback,
            ..Circumstances::PART
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Box::pin(proxy::app::start_under(
            Arc::clone(&config),
            clock,
            circumstances,
        ))
    };
    let Err(StartError::RolledBack { found, mark }) = start(Rollback::Refuse).await else {
        panic!("it started");
    };
    assert!(found < mark);
    let running = start(Rollback::Accept).await.unwrap();
    let at = running.addresses().federation.unwrap();
    let mut client = Client::open(Wire::H1, at, &holder.minted, world.ca.root_der())
        .await
        .unwrap();
    let answer = client.post(&format!("{BASE}/list/tasks"), "{}").await;
    assert_eq!(answer.unwrap().reason().as_deref(), Some("peer_suspended"));
    running.stop().await.unwrap();
    // Taken once, it is the store.
    start(Rollback::Refuse).await.unwrap().stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_store_goes_back_while_it_runs_serves_nothing_any_more() {
    if !tests::database::is_postgres() {
        return skipped("replicas of a store that goes back", ON_SQLITE);
    }
    let world = world().await;
    let holder = member(&world, "back").await;
    answers(world.federation(), &world, &holder, 200).await;
    set_back(&world, 3).await;
    until(|| world.control().replicas.went_back()).await;
    let (status, reason) = asked(world.federation(), &world, &holder).await;
    assert_eq!((status, reason.as_str()), (503, "replica_fenced"));
    // Not when it has caught up by numbers either.
    set_back(&world, -10).await;
    tokio::time::sleep(Duration::from_millis(2 * FENCE)).await;
    assert_eq!(asked(world.federation(), &world, &holder).await.0, 503);
    let metrics = String::from_utf8(world.sidecar.metrics.render().unwrap()).unwrap();
    assert!(metrics.contains("fences_total{reason=\"went_back\"} 1"));
    world.stop().await;
}
