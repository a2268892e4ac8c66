//! Lists of another authority in files: what they take away, and what a bad one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::testing::{CrlMint, TestCa, crl_pem};
use certs::trust::certificate_to_pem;
use certs::{Clock, SystemClock};
use policy::deny::DenyCode;
use proxy::admin::CheckOutcome;
use reference_gateway::plan;
use rustls::AlertDescription;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::grants::BASE;
use tests::{Client, Denial, Holder, Home, Wire, World, tls};

use super::support::acts::{amira, scope};
use super::support::onboard::onboard;
use super::support::reader::{Pace, Reader};
use super::support::stream::{Connection, Shape};
use super::{comes, fails, metric, places, revocation};

const DAY: i64 = 86_400;
/// How soon after it was written a list is in force.
const SOON: Duration = Duration::from_secs(1);
const UNAVAILABLE: Denial = Denial::new(503, "unavailable", DenyCode::CrlUnavailable);
const REVOKED: Denial = Denial::new(403, "forbidden", DenyCode::CertificateRevoked);

/// A serving side whose peers have certificates of an authority below its root, which publishes lists of its own.
struct Outside {
    world: World,
    middle: TestCa,
    file: PathBuf,
    dir: TempDir,
}

impl Outside {
    /// With `list` in the file at the start and these further settings of `[revocation]`.
    async fn start(list: Option<CrlMint>, settings: &str) -> Self {
        let ca = TestCa::root("work authority");
        let middle = ca.intermediate("middle");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("middle.crl");
        if let Some(list) = list {
            std::fs::write(&file, list.sign_with(&middle)).unwrap();
        }
        let issuers = dir.path().join("issuers.pem");
        std::fs::write(&issuers, certificate_to_pem(middle.der())).unwrap();
        let settings = format!(
            "[revocation]\nfiles = [\"{}\"]\nissuers_file = \"{}\"\n{settings}\n",
            file.display(),
            issuers.display()
        );
        let world = World::builder()
            .authority(&ca)
            .settings(&settings)
            .start()
            .await;
        Self {
            world,
            middle,
            file,
            dir,
        }
    }

    async fn member(&self, peer: &str) -> Holder {
        let user = amira();
        self.world.let_in(&user.id).await;
        let grant = self.world.pending_for(peer, &user.id, scope()).await;
        let subject = grant.subject.uuid();
        let minted = self
            .world
            .mint(grant.id.uuid(), subject)
            .sign_with(&self.middle);
        self.world.register(grant.id, &minted).await;
        Holder {
            grant: grant.id,
            subject,
            minted,
        }
    }

    /// Puts other content in the place of the file, at once.
    fn publish(&self, content: impl AsRef<[u8]>) {
        replace(&self.file, content.as_ref());
    }

    fn publish_list(&self, list: &CrlMint) {
        self.publish(list.sign_with(&self.middle));
    }

    async fn client(&self, wire: Wire, holder: &Holder) -> Client {
        self.world.client(wire, &holder.minted).await
    }

    async fn place(&self) -> Value {
        revocation(&self.world).await["places"][0].clone()
    }

    /// Waits until the place is in this state at each replica, with or without a failure.
    async fn state(&self, state: &str, failure: Option<&str>) -> Value {
        comes(state, async || {
            let mut places = places(&self.world).await;
            let fits = |place: &Value| place["state"] == state && fails(place, failure);
            places.iter().all(fits).then(|| places.swap_remove(0))
        })
        .await
    }

    /// Waits until the list of this number is in force at each replica.
    async fn list(&self, number: &str) {
        comes("the list", async || {
            let places = places(&self.world).await;
            let has = |place: &Value| place["lists"][0]["number"] == number;
            places.iter().all(has).then_some(())
        })
        .await;
    }
}

fn replace(file: &Path, content: &[u8]) {
    let next = file.with_extension("next");
    std::fs::write(&next, content).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn now() -> i64 {
    SystemClock.unix_seconds()
}

async fn ask(client: &mut Client) -> tests::Response {
    client
        .post(&format!("{BASE}/list/tasks"), "{}")
        .await
        .unwrap()
}

async fn refusal(outside: &Outside, holder: &Holder) -> AlertDescription {
    let config = tls::client(Some(&holder.minted), outside.world.root(), &[]);
    tls::refusal(outside.world.federation(), config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_takes_effect_within_a_second_on_every_way_and_leaves_others_alone() {
    let outside = Outside::start(Some(CrlMint::number(1)), "").await;
    let world = &outside.world;
    let (bad, good) = (outside.member("bad").await, outside.member("good").await);
    let mut kept = Vec::new();
    for wire in Wire::BOTH {
        for holder in [&bad, &good] {
            let mut client = outside.client(wire, holder).await;
            assert_eq!(ask(&mut client).await.status, 200);
            kept.push(client);
        }
    }
    // An answer of each that is under way.
    world
        .gateway
        .behave(&json!({"big_mb": 60, "big_row_kib": 21}))
        .await;
    let mut streams = Vec::new();
    for holder in [&bad, &good] {
        let config = Arc::new(tls::client(Some(&holder.minted), world.root(), &[]));
        let connection = Connection::open(world.federation(), &config, Shape::of(Wire::H1))
            .await
            .unwrap();
        let reader = Reader::start(connection, Pace::Stalled).await;
        reader.under_way(Pace::Stalled).await;
        streams.push(reader);
    }
    world.gateway.behave_honestly().await;

    let written = SystemClock.boot_nanos();
    outside.publish_list(&CrlMint::number(2).revoke_for(&bad.minted.serial(), 1));
    outside.list("2").await;
    let applied = comes("the row", async || {
        let rows = world.control().list_certificates().await.unwrap();
        let serial = bad.minted.serial();
        let mut rows = rows.iter();
        let row = rows
            .find(|row| row.serial.as_deref() == Some(serial.as_str()))
            .unwrap();
        (row.state == "revoked").then(|| Duration::from_nanos(SystemClock.boot_nanos() - written))
    })
    .await;
    assert!(applied < SOON, "in force after {applied:?}");
    let alert = refusal(&outside, &bad).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    let mut kept = kept.into_iter();
    for _ in Wire::BOTH {
        let (mut bad_client, mut good_client) = (kept.next().unwrap(), kept.next().unwrap());
        // An idle connection is told once, or closed.
        let path = format!("{BASE}/list/tasks");
        if let Ok(answer) = bad_client.post(&path, "{}").await {
            REVOKED.check(world, &answer).await;
            bad_client.closed().await;
        }
        assert_eq!(
            ask(&mut good_client).await.status,
            200,
            "the same connection"
        );
    }
    let (good_stream, bad_stream) = (streams.pop().unwrap(), streams.pop().unwrap());
    assert!(bad_stream.finish().await.end.is_err(), "cut in the middle");
    let whole = good_stream.finish().await;
    assert_eq!(whole.end, Ok(()));
    assert!(whole.bytes > 59 << 20);
    assert_eq!(world.counted("crl_revoked_total"), 1);
    // Taken off a later list, it stays revoked: rows are final.
    outside.publish_list(&CrlMint::number(3));
    outside.list("3").await;
    assert_eq!(
        refusal(&outside, &bad).await,
        AlertDescription::CertificateRevoked
    );
    outside.world.stop().await;
}

/// A list may name a certificate before it is registered here, as after a restore from a backup.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_after_its_list_is_revoked_too() {
    let outside = Outside::start(Some(CrlMint::number(1)), "").await;
    let world = &outside.world;
    let user = amira();
    world.let_in(&user.id).await;
    let grant = world.pending_for("late", &user.id, scope()).await;
    let minted = world
        .mint(grant.id.uuid(), grant.subject.uuid())
        .sign_with(&outside.middle);
    outside.publish_list(&CrlMint::number(2).revoke_for(&minted.serial(), 1));
    outside.list("2").await;
    world.register(grant.id, &minted).await;
    comes("the row", async || {
        let rows = world.control().list_certificates().await.unwrap();
        let serial = minted.serial();
        let mut rows = rows.iter();
        let row = rows.find(|row| row.serial.as_deref() == Some(serial.as_str()));
        (row.unwrap().state == "revoked").then_some(())
    })
    .await;
    assert_eq!(world.counted("crl_revoked_total"), 1);
    outside.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_ends_what_a_home_asks_and_its_cache() {
    let outside = Outside::start(Some(CrlMint::number(1)), "").await;
    let world = &outside.world;
    let home = Home::start_with("[cache]\nmax_bytes = 1000000\n").await;
    let grant = onboard(world, &home, "home", plan::AMIRA, "bea").await;
    let token = home.session("bea").await;
    let question = json!({"params": {"limit": 3}});
    for _ in 0..3 {
        let answer = home.ask(&token, "work", "/list/tasks", &question).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Of the root this time: the home's certificate is of our own authority.
    let rows = world.control().list_certificates().await.unwrap();
    let row = rows
        .into_iter()
        .find(|row| row.grant.is_some_and(|id| id.to_string() == grant));
    let serial = hex_serial(row.unwrap().serial.as_deref().unwrap());
    let ours = CrlMint::number(9).revoke(&serial).sign_with(&world.ca);
    let middle = CrlMint::number(2).sign_with(&outside.middle);
    outside.publish(crl_pem(&middle) + &crl_pem(&ours));
    let answer = comes("a refusal", async || {
        let answer = home.ask(&token, "work", "/list/tasks", &question).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    for _ in 0..3 {
        let again = home.ask(&token, "work", "/list/tasks", &question).await;
        assert_eq!(again.status, 403, "{}", again.text());
    }
    home.stop().await;
    outside.world.stop().await;
}

fn hex_serial(text: &str) -> certs::Serial {
    let octets: Vec<u8> = (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    certs::Serial::decode(&octets).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_that_has_to_be_there_nobody_gets_in() {
    let outside = Outside::start(None, "").await;
    let holder = outside.member("home").await;
    assert_eq!(
        outside.state("missing", Some("cannot be read")).await["lists"],
        json!([])
    );
    assert_eq!(
        refusal(&outside, &holder).await,
        AlertDescription::UnknownCA
    );
    let refused = "revocation_refusals_total{why=\"no_list\"}";
    assert_eq!(outside.world.counted(refused), 1);
    let checks = outside.world.control().checks().await.unwrap();
    let check = checks
        .iter()
        .find(|one| one.name.starts_with("revocation lists of"))
        .unwrap();
    assert_eq!(check.outcome, CheckOutcome::Fail, "{}", check.found);
    // Those of our own authority have its list.
    let own = outside.world.amira().await;
    let mut client = outside.client(Wire::H1, &own).await;
    assert_eq!(ask(&mut client).await.status, 200);
    outside.publish_list(&CrlMint::number(1));
    outside.state("fresh", None).await;
    let mut client = outside.client(Wire::H2, &holder).await;
    assert_eq!(ask(&mut client).await.status, 200);
    outside.world.stop().await;

    let lenient = Outside::start(None, "required = false\n").await;
    let holder = lenient.member("home").await;
    lenient.state("missing", Some("cannot be read")).await;
    let mut client = lenient.client(Wire::H1, &holder).await;
    assert_eq!(ask(&mut client).await.status, 200);
    lenient.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_list_serves_loudly_and_one_that_is_too_old_does_not() {
    let late = CrlMint::number(1).window(now() - DAY, now() - 5);
    let outside = Outside::start(Some(late), "grace_s = 3600\n").await;
    let holder = outside.member("home").await;
    outside.state("late", None).await;
    let mut kept = Vec::new();
    for wire in Wire::BOTH {
        let mut client = outside.client(wire, &holder).await;
        assert_eq!(ask(&mut client).await.status, 200);
        kept.push(client);
    }
    let file = outside.file.display().to_string();
    comes("the metric", async || {
        metric(&outside.world, &format!("crl_state{{place=\"{file}\"}} 1"))
            .await
            .then_some(())
    })
    .await;
    // An hour and more after it was due.
    outside.publish_list(&CrlMint::number(2).window(now() - DAY, now() - 3_700));
    outside.state("too_old", None).await;
    for client in &mut kept {
        UNAVAILABLE.check(&outside.world, &ask(client).await).await;
    }
    assert_eq!(
        refusal(&outside, &holder).await,
        AlertDescription::UnknownCA
    );
    comes("the alarm", async || {
        metric(&outside.world, &format!("crl_state{{place=\"{file}\"}} 2"))
            .await
            .then_some(())
    })
    .await;
    let refused = "revocation_refusals_total{why=\"list_too_old\"}";
    assert_eq!(outside.world.counted(refused), 1);
    outside.publish_list(&CrlMint::number(3));
    outside.state("fresh", None).await;
    let mut client = outside.client(Wire::H1, &holder).await;
    assert_eq!(ask(&mut client).await.status, 200);
    outside.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_list_changes_nothing_and_is_named() {
    let outside = Outside::start(Some(CrlMint::number(5)), "").await;
    let (bad, good) = (outside.member("bad").await, outside.member("good").await);
    outside.publish_list(&CrlMint::number(6).revoke(&bad.minted.serial()));
    outside.state("fresh", None).await;
    outside.list("6").await;
    let forger = TestCa::root("work authority").intermediate("middle");
    let stranger = TestCa::root("another authority");
    let next = CrlMint::number(7);
    let lists: [(Vec<u8>, &str); 9] = [
        (Vec::new(), "no revocation list"),
        (b"garbage".to_vec(), "neither DER nor PEM"),
        (
            next.sign_with(&outside.middle)[..100].to_vec(),
            "revocation lists only",
        ),
        (next.sign_with(&forger), "does not verify"),
        (CrlMint::number(4).sign_with(&outside.middle), "older list"),
        (
            next.clone()
                .window(now() + 3_600, now() + DAY)
                .sign_with(&outside.middle),
            "check the clocks",
        ),
        (
            next.clone().window(now(), None).sign_with(&outside.middle),
            "no nextUpdate",
        ),
        (
            certificate_to_pem(outside.middle.der()).into_bytes(),
            "another kind",
        ),
        (next.sign_with(&stranger), "is gone"),
    ];
    for (content, words) in lists {
        outside.publish(&content);
        let place = outside.state("fresh", Some(words)).await;
        assert_eq!(place["lists"][0]["number"], "6", "{words}");
        assert_eq!(
            refusal(&outside, &bad).await,
            AlertDescription::CertificateRevoked
        );
        let mut client = outside.client(Wire::H1, &good).await;
        assert_eq!(ask(&mut client).await.status, 200, "{words}");
        let checks = outside.world.control().checks().await.unwrap();
        let check = checks
            .iter()
            .find(|one| one.name.starts_with("revocation lists of"))
            .unwrap();
        assert_eq!(check.outcome, CheckOutcome::Warn, "{}", check.found);
    }
    let foreign = outside.place().await;
    assert_eq!(foreign["foreign"], 1);
    // Beside a good one a foreign one does no harm.
    let both = [
        next.sign_with(&outside.middle),
        CrlMint::number(1)
            .revoke(&good.minted.serial())
            .sign_with(&stranger),
    ];
    outside.publish(both.concat());
    let place = outside.state("fresh", None).await;
    assert_eq!(
        (
            place["foreign"].as_u64(),
            place["lists"][0]["number"].as_str()
        ),
        (Some(1), Some("7"))
    );
    let mut client = outside.client(Wire::H1, &good).await;
    assert_eq!(ask(&mut client).await.status, 200);
    outside.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_list_outlives_a_restart() {
    let outside = Outside::start(Some(CrlMint::number(3)), "").await;
    let (bad, good) = (outside.member("bad").await, outside.member("good").await);
    outside.state("fresh", None).await;
    let Outside {
        world,
        middle,
        file,
        dir,
    } = outside;
    // While it is down the list names one, is read by nobody, and is then destroyed.
    let mut world = world.restart().await;
    replace(&file, b"garbage");
    world = world.restart().await;
    let outside = Outside {
        world,
        middle,
        file,
        dir,
    };
    let place = outside.state("fresh", Some("neither DER nor PEM")).await;
    assert_eq!(place["lists"][0]["number"], "3");
    let mut client = outside.client(Wire::H1, &good).await;
    assert_eq!(
        ask(&mut client).await.status,
        200,
        "required, and still there"
    );
    outside.publish_list(&CrlMint::number(2).revoke(&bad.minted.serial()));
    outside.state("fresh", Some("older list")).await;
    outside.publish_list(&CrlMint::number(4).revoke(&bad.minted.serial()));
    outside.state("fresh", None).await;
    assert_eq!(
        refusal(&outside, &bad).await,
        AlertDescription::CertificateRevoked
    );
    outside.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_a_directory_counts() {
    let ca = TestCa::root("work authority");
    let (one, two) = (ca.intermediate("one"), ca.intermediate("two"));
    let dir = tempfile::tempdir().unwrap();
    let lists = dir.path().join("lists.d");
    std::fs::create_dir(&lists).unwrap();
    let issuers = dir.path().join("issuers.pem");
    std::fs::write(
        &issuers,
        certificate_to_pem(one.der()) + &certificate_to_pem(two.der()),
    )
    .unwrap();
    let settings = format!(
        "[revocation]\nfiles = [\"{}\"]\nissuers_file = \"{}\"\n",
        lists.display(),
        issuers.display()
    );
    replace(&lists.join("one.crl"), &CrlMint::number(1).sign_with(&one));
    let world = World::builder()
        .authority(&ca)
        .settings(&settings)
        .start()
        .await;
    let user = amira();
    world.let_in(&user.id).await;
    let mut holders = Vec::new();
    for (peer, issuer) in [("one", &one), ("two", &two)] {
        let grant = world.pending_for(peer, &user.id, scope()).await;
        let minted = world
            .mint(grant.id.uuid(), grant.subject.uuid())
            .sign_with(issuer);
        world.register(grant.id, &minted).await;
        holders.push(minted);
    }
    let status = async |holder: usize| {
        let opened =
            Client::open(Wire::H1, world.federation(), &holders[holder], world.root()).await;
        match opened {
            Ok(mut client) => client
                .post(&format!("{BASE}/list/tasks"), "{}")
                .await
                .map_or(0, |answer| answer.status),
            Err(_) => 0,
        }
    };
    assert_eq!(
        (status(0).await, status(1).await),
        (200, 0),
        "the second has no list"
    );
    replace(
        &lists.join("two.pem"),
        crl_pem(&CrlMint::number(1).sign_with(&two)).as_bytes(),
    );
    comes("the second list", async || {
        (status(1).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(0).await, 200);
    // A file that goes away takes nothing back.
    let revoking = CrlMint::number(2).revoke(&holders[0].serial());
    replace(&lists.join("one.crl"), &revoking.sign_with(&one));
    comes("the revocation", async || {
        (status(0).await == 0).then_some(())
    })
    .await;
    std::fs::remove_file(lists.join("one.crl")).unwrap();
    comes("its failure", async || {
        let view = revocation(&world).await;
        let places = view["places"].as_array().unwrap();
        let gone = |place: &Value| {
            place["failure"]
                .as_str()
                .is_some_and(|why| why.contains("gone"))
        };
        places.iter().any(gone).then_some(())
    })
    .await;
    assert_eq!((status(0).await, status(1).await), (0, 200));
    // Under another name it is the same list.
    replace(&lists.join("other.crl"), &revoking.sign_with(&one));
    comes("its place taken", async || {
        let view = revocation(&world).await;
        let places = view["places"].as_array().unwrap();
        (places.len() == 2 && places.iter().all(|place| place["failure"].is_null())).then_some(())
    })
    .await;
    assert_eq!((status(0).await, status(1).await), (0, 200));
    world.stop().await;
}
