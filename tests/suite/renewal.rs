//! Renewal on the serving side, as a peer meets it: what is issued, when it takes over, and who gets nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::time::Duration;

use certs::PeerIdentity;
use certs::testing::Minted;
use futures_util::future::join_all;
use policy::deny::DenyCode;
use policy::id::GrantId;
use proxy::admin::{CreateGrant, RevokeCertificate};
use reference_gateway::plan;
use rustls::AlertDescription;
use serde_json::{Value, json};
use support::enroll::{request, taken};
use support::process::Process;
use tests::audit::audit_row;
use tests::grants::{BASE, PEER};
use tests::world::{POLICY, operator};
use tests::{Denial, Holder, Response, Wire, World, tls};

const CONFLICT: Denial = Denial::new(403, "forbidden", DenyCode::RenewalConflict);
const INVALID: Denial = Denial::new(400, "invalid_request", DenyCode::InvalidCsr);
const UNAVAILABLE: Denial = Denial::new(503, "unavailable", DenyCode::RenewalUnavailable);
const SUPERSEDED: Denial = Denial::new(403, "forbidden", DenyCode::CertificateSuperseded);
const HOUR: Duration = Duration::from_secs(3_600);

/// Asks for a renewal with this certificate.
async fn renew(world: &World, minted: &Minted, csr_pem: &str) -> Response {
    world
        .ask(minted, "/renew", &json!({ "csrPem": csr_pem }))
        .await
}

/// Renews with a new key.
async fn renewed(world: &World, minted: &Minted) -> Minted {
    let (key, csr) = request();
    taken(&renew(world, minted, &csr).await, key)
}

/// One question with a certificate.
async fn list(world: &World, minted: &Minted) -> Response {
    world.ask(minted, "/list/tasks", &json!({})).await
}

async fn works(world: &World, minted: &Minted) {
    let answer = list(world, minted).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// State and confirmation of the certificates of a grant, newest first.
async fn certificates(world: &World, grant: GrantId) -> Vec<(&'static str, bool)> {
    let shown = world.control().show_grant(&grant.to_string()).await;
    let shown = shown.unwrap().certificates;
    shown
        .iter()
        .map(|one| (one.state, one.confirmed_at.is_some()))
        .collect()
}

async fn manual() -> (World, Holder) {
    let world = World::builder().manual_clock().start().await;
    let holder = world.amira().await;
    (world, holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_opens_the_same_grant() {
    let (world, holder) = manual().await;
    for wire in Wire::BOTH {
        let (key, csr) = request();
        let body = json!({ "csrPem": csr });
        let answer = world.ask_on(wire, &holder.minted, "/renew", &body).await;
        let fields = answer.json();
        let members: Vec<&String> = fields.as_object().unwrap().keys().collect();
        let expected = [
            "certChainPem",
            "certPem",
            "notAfter",
            "trustBundlePem",
            "trustGeneration",
        ];
        assert_eq!(members, expected);
        assert_eq!(fields["trustBundlePem"], world.ca.root_pem());
        assert_eq!(fields["trustGeneration"], 1);
        let minted = taken(&answer, key);
        let identity = PeerIdentity::decode(minted.leaf(), 0).unwrap();
        assert_eq!(identity.grant, holder.grant.uuid());
        assert_eq!(identity.subject, holder.subject);
        let end = fields["notAfter"].as_str().unwrap();
        let end: policy::time::UnixMillis = end.parse().unwrap();
        assert_eq!(end.0, identity.not_after * 1000);
        let life = identity.not_after - world.control().now().0 / 1000;
        assert_eq!(life, 90 * 86_400, "by the clock of the serving side");
        let row = audit_row(world.control(), answer.request_id()).await;
        assert_eq!(row["verb"], "renew", "{row}");
        assert_eq!(row["outcome"], "allowed", "{row}");
        assert_eq!(row["cert_serial"], holder.minted.serial().as_str(), "{row}");
    }
    let minted = renewed(&world, &holder.minted).await;
    let rows = list(&world, &holder.minted).await.ids();
    assert_eq!(list(&world, &minted).await.ids(), rows);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_before_is_good_for_the_overlap_from_the_first_use_on() {
    let (world, holder) = manual().await;
    let minted = renewed(&world, &holder.minted).await;
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", false), ("active", true)]
    );
    // However long the new one is not used.
    world.pass(HOUR * 24).await;
    works(&world, &holder.minted).await;
    works(&world, &minted).await;
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", true); 2]
    );
    let mut kept = world.client(Wire::H1, &holder.minted).await;
    let path = format!("{BASE}/list/tasks");
    assert_eq!(kept.post(&path, "{}").await.unwrap().status, 200);
    world.pass(HOUR - Duration::from_millis(1)).await;
    works(&world, &holder.minted).await;
    assert_eq!(kept.post(&path, "{}").await.unwrap().status, 200);
    world.clock().advance(Duration::from_millis(1));
    SUPERSEDED
        .check(&world, &list(&world, &holder.minted).await)
        .await;
    let late = kept.post(&path, "{}").await.unwrap();
    SUPERSEDED.check(&world, &late).await;
    works(&world, &minted).await;
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", true), ("superseded", true)]
    );
    world.stop().await;
}

/// Whatever the request was refused for: the certificate has arrived.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_counts_also_when_it_is_refused() {
    let (world, holder) = manual().await;
    let minted = renewed(&world, &holder.minted).await;
    let refused = world.ask(&minted, "/list/credentials", &json!({})).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", true); 2]
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_same_certificate() {
    let (world, holder) = manual().await;
    let (key, csr) = request();
    let first = renew(&world, &holder.minted, &csr).await;
    let again = renew(&world, &holder.minted, &csr).await;
    assert_eq!(first.json(), again.json());
    let minted = taken(&first, key);
    works(&world, &minted).await;
    for presented in [&holder.minted, &minted] {
        let again = renew(&world, presented, &csr).await;
        assert_eq!(first.json(), again.json(), "also when it is in use");
    }
    let together = join_all((0..8).map(|_| renew(&world, &holder.minted, &csr))).await;
    assert!(
        together
            .iter()
            .filter(|one| one.status == 200)
            .all(|one| one.json() == first.json())
    );
    assert_eq!(certificates(&world, holder.grant).await.len(), 2);
    assert_eq!(world.counted("renewals_served_total{result=\"issued\"}"), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_is_replaced_by_another_request() {
    let (world, holder) = manual().await;
    let lost = renewed(&world, &holder.minted).await;
    let minted = renewed(&world, &holder.minted).await;
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", false), ("revoked", false), ("active", true)]
    );
    let config = tls::client(Some(&lost), world.root(), &["http/1.1"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    works(&world, &minted).await;
    works(&world, &holder.minted).await;
    world.stop().await;
}

/// A certificate that is connected but has not asked anything yet can still be replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_a_replaced_certificate_confirms_nothing() {
    let (world, holder) = manual().await;
    let lost = renewed(&world, &holder.minted).await;
    let mut connected = world.client(Wire::H2, &lost).await;
    let minted = renewed(&world, &holder.minted).await;
    let refused = connected.post(&format!("{BASE}/capabilities"), "{}").await;
    let revoked = Denial::new(403, "forbidden", DenyCode::CertificateRevoked);
    revoked.check(&world, &refused.unwrap()).await;
    works(&world, &minted).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_at_once_one_certificate_is_left() {
    let world = World::start().await;
    let holder = world.amira().await;
    let asked = join_all((0..10).map(|_| async {
        let (key, csr) = request();
        (key, renew(&world, &holder.minted, &csr).await)
    }))
    .await;
    let minted: Vec<Minted> = asked
        .into_iter()
        .map(|(key, answer)| taken(&answer, key))
        .collect();
    let states = certificates(&world, holder.grant).await;
    let active = states
        .iter()
        .filter(|(state, _)| *state == "active")
        .count();
    assert_eq!((states.len(), active), (11, 2), "{states:?}");
    let mut open = 0;
    for one in &minted {
        let config = tls::client(Some(one), world.root(), &["http/1.1"]);
        let Ok(mut connection) = tests::RawConnection::open(world.federation(), config).await
        else {
            continue;
        };
        let asked = connection.post(&format!("{BASE}/list/tasks"), "{}").await;
        let answered = asked.is_ok() && connection.response().await.is_ok();
        open += u32::from(answered);
    }
    assert_eq!(open, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_two_are_good() {
    let (world, holder) = manual().await;
    let second = renewed(&world, &holder.minted).await;
    works(&world, &second).await;
    let third = renewed(&world, &second).await;
    works(&world, &holder.minted).await;
    works(&world, &third).await;
    // Its overlap was not over, but two newer ones are in use.
    SUPERSEDED
        .check(&world, &list(&world, &holder.minted).await)
        .await;
    works(&world, &second).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_conflict() {
    let (world, holder) = manual().await;
    let minted = renewed(&world, &holder.minted).await;
    works(&world, &minted).await;
    for wire in Wire::BOTH {
        // Whoever has the old key is let in for the overlap, but gets no certificate.
        let body = json!({ "csrPem": request().1 });
        let stolen = world.ask_on(wire, &holder.minted, "/renew", &body).await;
        let row = CONFLICT.check(&world, &stolen).await;
        assert_eq!(row["cert_serial"], holder.minted.serial().as_str(), "{row}");
    }
    assert_eq!(certificates(&world, holder.grant).await.len(), 2);
    assert_eq!(
        world.counted("renewals_served_total{result=\"conflict\"}"),
        2
    );
    // Its holder goes on, and renews.
    works(&world, &minted).await;
    works(&world, &renewed(&world, &minted).await).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_suspends_the_peer_where_policy_says_so() {
    let common = POLICY.replace(
        "[redaction]",
        "suspend_on_renewal_conflict = true\n[redaction]",
    );
    let own = format!("{POLICY}[peers.{PEER}]\nsuspend_on_renewal_conflict = true\n");
    for (policy, suspends) in [
        (common.as_str(), true),
        (own.as_str(), true),
        (POLICY, false),
    ] {
        let world = World::builder().manual_clock().policy(policy).start().await;
        let holder = world.amira().await;
        let minted = renewed(&world, &holder.minted).await;
        works(&world, &minted).await;
        let mut kept = world.client(Wire::H1, &minted).await;
        let stolen = renew(&world, &holder.minted, &request().1).await;
        CONFLICT.check(&world, &stolen).await;
        let path = format!("{BASE}/list/tasks");
        let answer = kept.post(&path, "{}").await.unwrap();
        if suspends {
            let denial = Denial::new(403, "forbidden", DenyCode::PeerSuspended);
            denial.check(&world, &answer).await;
            world.resume(PEER).await;
        }
        works(&world, &minted).await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_csr() {
    let world = World::start().await;
    let holder = world.amira().await;
    let (_, good) = request();
    let rsa = weak_csr();
    let broken = good.replacen('M', "N", 1);
    let long = format!("{good}{}", "x".repeat(16 * 1024));
    let twice = format!("{good}{good}");
    let cases = ["", "nonsense", &broken, &long, &twice, rsa];
    for csr in cases {
        INVALID
            .check(&world, &renew(&world, &holder.minted, csr).await)
            .await;
        world.gateway.forget_requests().await;
    }
    let absent = world.ask(&holder.minted, "/renew", &json!({})).await;
    INVALID.check(&world, &absent).await;
    for (body, code) in [
        (json!({"csrPem": 5}), DenyCode::MalformedBody),
        (
            json!({"csrPem": good, "params": {"limit": 5}}),
            DenyCode::UnknownKey,
        ),
        (
            json!({"csrPem": good, "subjectUserId": "x"}),
            DenyCode::IdentityInBody,
        ),
    ] {
        let refused = world.ask(&holder.minted, "/renew", &body).await;
        let denial = Denial::new(400, "invalid_request", code);
        denial.check(&world, &refused).await;
    }
    let elsewhere = json!({ "csrPem": good });
    let refused = world.ask(&holder.minted, "/list/tasks", &elsewhere).await;
    let denial = Denial::new(400, "invalid_request", DenyCode::UnknownKey);
    denial.check(&world, &refused).await;
    assert_eq!(certificates(&world, holder.grant).await.len(), 1);
    world.stop().await;
}

/// A request over an RSA key of 1024 bits, made with `openssl req -new -newkey rsa:1024`.
const fn weak_csr() -> &'static str {
    include_str!("renewal/rsa1024.csr")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_certificate_was_revoked_is_spent() {
    let (world, holder) = manual().await;
    let (key, csr) = request();
    let minted = taken(&renew(&world, &holder.minted, &csr).await, key);
    let serial = minted.serial();
    let revoked = world
        .control()
        .revoke_certificate(&operator(), serial.as_str(), RevokeCertificate::default())
        .await
        .unwrap();
    assert_eq!(revoked.left, 1);
    INVALID
        .check(&world, &renew(&world, &holder.minted, &csr).await)
        .await;
    works(&world, &renewed(&world, &holder.minted).await).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_unavailable() {
    let world = World::builder().manual_clock().start().await;
    world.let_in(plan::AMIRA).await;
    let ends = world.control().now().saturating_add(3_600_000);
    let create = CreateGrant {
        user: plan::AMIRA.to_owned(),
        peer: PEER.to_owned(),
        scope: json!({"resources": ["tasks"]}),
        expires_at: Some(ends),
        expires_in_s: None,
    };
    let grant = world
        .control()
        .create_grant(&operator(), create)
        .await
        .unwrap();
    let minted = world
        .mint(grant.id.uuid(), grant.subject.uuid())
        .sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    let second = renewed(&world, &minted).await;
    let end = PeerIdentity::decode(second.leaf(), 0).unwrap().not_after;
    assert_eq!(end, ends.0 / 1000, "it does not outlive its grant");
    // Nothing is issued for less than five minutes.
    world.pass(Duration::from_secs(3_600 - 299)).await;
    let refused = renew(&world, &minted, &request().1).await;
    UNAVAILABLE.check(&world, &refused).await;
    assert_eq!(world.counted("renewals_served_total{result=\"failed\"}"), 1);
    works(&world, &second).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_have_a_limit_of_their_own() {
    if let Some(why) = tests::valkey::missing() {
        return support::skipped("renewals_have_a_limit_of_their_own", &why);
    }
    let policy = POLICY.replace(
        "per_minute = 1000000, burst = 100000",
        "per_minute = 1, burst = 1",
    );
    let world = World::builder()
        .manual_limits()
        .policy(&policy)
        .start()
        .await;
    let holder = world.amira().await;
    let limited = Denial::new(429, "rate_limited", DenyCode::RateExceeded);
    works(&world, &holder.minted).await;
    limited
        .check(&world, &list(&world, &holder.minted).await)
        .await;
    let (_, csr) = request();
    for _ in 0..10 {
        let answer = renew(&world, &holder.minted, &csr).await;
        assert_eq!(answer.status, 200, "questions do not take from it");
        assert_eq!(answer.header("ratelimit"), None);
    }
    let refused = renew(&world, &holder.minted, &csr).await;
    limited.check(&world, &refused).await;
    assert_eq!(refused.header("retry-after"), Some("6"));
    world.pass(Duration::from_secs(6)).await;
    assert_eq!(renew(&world, &holder.minted, &csr).await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_any_two_steps_changes_nothing() {
    let (world, holder) = manual().await;
    let (key, csr) = request();
    let first = renew(&world, &holder.minted, &csr).await;
    let minted = taken(&first, key);
    let world = world.restart().await;
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(
        renew(&world, &holder.minted, &csr).await.json(),
        first.json()
    );
    assert_eq!(
        certificates(&world, holder.grant).await,
        [("active", false), ("active", true)]
    );
    works(&world, &minted).await;
    let world = world.restart().await;
    world.pass(Duration::from_secs(10)).await;
    works(&world, &holder.minted).await;
    world.pass(HOUR).await;
    SUPERSEDED
        .check(&world, &list(&world, &holder.minted).await)
        .await;
    works(&world, &minted).await;
    world.stop().await;
}

/// Killed at any moment of a renewal or of a first use, the next process answers the same request with one
/// certificate, and that opens the grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_leaves_one_certificate_or_none() {
    let world = World::start().await;
    let holder = world.amira().await;
    let (root, subject) = (world.root().clone(), holder.subject);
    let mut process = Process::take_over(world, "info").await;
    let mut current = holder.minted.clone();
    for round in 0..support::rounds(12, 400) {
        tests::valkey::forget(holder.grant).await;
        let (key, csr) = request();
        let body = json!({ "csrPem": csr }).to_string();
        let ask = |address, minted: Minted, path: &'static str, body: String| {
            let root = root.clone();
            async move {
                let mut client = tests::Client::open(Wire::H1, address, &minted, &root).await?;
                client.post(&format!("{BASE}{path}"), &body).await
            }
        };
        let cut = |process: &mut Process, after: Duration| {
            std::thread::sleep(after);
            process.kill();
        };
        // Spread over what a renewal takes, with both ends.
        let after = Duration::from_micros(u64::from(round) * 1_700 % 21_000);
        let asked = tokio::spawn(ask(
            process.federation,
            current.clone(),
            "/renew",
            body.clone(),
        ));
        cut(&mut process, after);
        let early = asked.await.unwrap();
        process.start_again();
        let answer = ask(process.federation, current.clone(), "/renew", body)
            .await
            .unwrap();
        let minted = taken(&answer, key);
        if let Ok(early) = early {
            assert_eq!(early.json(), answer.json(), "round {round}");
        }
        let identity = PeerIdentity::decode(minted.leaf(), 0).unwrap();
        assert_eq!(identity.subject, subject);
        let list = "/list/tasks";
        let used = tokio::spawn(ask(
            process.federation,
            minted.clone(),
            list,
            "{}".to_owned(),
        ));
        cut(&mut process, after);
        drop(used.await.unwrap());
        process.start_again();
        for good in [&minted, &current] {
            let answer = ask(process.federation, good.clone(), list, "{}".to_owned()).await;
            assert_eq!(answer.unwrap().status, 200, "round {round}");
        }
        current = minted;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cert_revoke_ends_one_certificate_and_leaves_the_grant() {
    let world = World::start().await;
    let holder = world.amira().await;
    let minted = renewed(&world, &holder.minted).await;
    works(&world, &minted).await;
    let mut kept = world.client(Wire::H1, &holder.minted).await;
    let mut other = world.client(Wire::H1, &minted).await;
    let path = format!("{BASE}/list/tasks");
    let leased = [("x-mosaic-accept-lease", "1")];
    let answer = kept.post_with(&path, &leased, "{}").await.unwrap();
    assert_eq!(answer.status, 200);
    let serial = holder.minted.serial();
    let spelled: Vec<String> = serial
        .as_str()
        .as_bytes()
        .chunks(2)
        .map(|pair| String::from_utf8_lossy(pair).to_uppercase())
        .collect();
    let revoke = async |text: &str| {
        world
            .control()
            .revoke_certificate(&operator(), text, RevokeCertificate::default())
            .await
    };
    let revoked = revoke(&spelled.join(":")).await.unwrap();
    assert_eq!((revoked.left, revoked.hint), (1, None));
    assert!(revoked.applied.waited_ms > 0, "{revoked:?}");
    let denial = Denial::new(403, "forbidden", DenyCode::CertificateRevoked);
    denial
        .check(&world, &kept.post(&path, "{}").await.unwrap())
        .await;
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    let alert = tls::refusal(world.federation(), config).await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    assert_eq!(other.post(&path, "{}").await.unwrap().status, 200);
    // Again is no change; the last one says what is left to do.
    assert_eq!(revoke(serial.as_str()).await.unwrap().left, 1);
    let last = revoke(minted.serial().as_str()).await.unwrap();
    assert_eq!(last.left, 0);
    assert!(last.hint.unwrap().contains("grant token --replace"));
    let unknown = revoke("00ff").await.unwrap_err();
    assert_eq!(unknown.code, proxy::admin::AdminCode::NotFound);
    let malformed = revoke("no serial").await.unwrap_err();
    assert_eq!(malformed.code, proxy::admin::AdminCode::InvalidRequest);
    let grant = world
        .control()
        .show_grant(&holder.grant.to_string())
        .await
        .unwrap();
    assert_eq!(serde_json::to_value(grant.grant.status).unwrap(), "active");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_forget_ends_every_grant_of_the_user() {
    let world = World::start().await;
    let scope = json!({"resources": ["tasks"]});
    let first = world.holder_of("home", plan::AMIRA, scope.clone()).await;
    let second = world.holder_of("cabin", plan::AMIRA, scope.clone()).await;
    let other = world.holder_of("cabin", plan::BEN, scope).await;
    let path = format!("{BASE}/list/tasks");
    let mut kept = Vec::new();
    for holder in [&first, &second] {
        let mut client = world.client(Wire::H2, &holder.minted).await;
        assert_eq!(client.post(&path, "{}").await.unwrap().status, 200);
        kept.push(client);
    }
    let socket = &world.config.admin.socket;
    let words = ["user", "forget", plan::AMIRA, "--reason", "left"];
    let ran = tests::command::command(socket, &words).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    for holder in [&first, &second] {
        assert!(ran.out.contains(&holder.grant.to_string()), "{ran:?}");
    }
    let revoked = Denial::new(403, "forbidden", DenyCode::GrantRevoked);
    for mut client in kept {
        // It is told why within the second, or finds the connection closed.
        if let Ok(answer) = client.post(&path, "{}").await {
            revoked.check(&world, &answer).await;
        }
    }
    works(&world, &other.minted).await;
    let again = tests::command::command(socket, &["user", "forget", plan::AMIRA]).await;
    assert_eq!(again.exit, 0, "{again:?}");
    assert!(again.errors.contains("0 grant(s)"), "{again:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cert_list_tells_what_each_certificate_is() {
    let (world, holder) = manual().await;
    let minted = renewed(&world, &holder.minted).await;
    let rows = async || -> Vec<Value> {
        let rows = world.control().list_certificates().await.unwrap();
        rows.iter()
            .map(|row| serde_json::to_value(row).unwrap())
            .collect()
    };
    let shown = rows().await;
    let state = |rows: &[Value], serial: &str| -> Value {
        let row = rows.iter().find(|row| row["serial"] == serial).unwrap();
        assert_eq!(row["role"], "issued");
        assert_eq!(row["peer"], PEER);
        row["state"].clone()
    };
    assert_eq!(shown[0]["role"], "server");
    assert_eq!(shown[1]["role"], "ca");
    assert_eq!(state(&shown, minted.serial().as_str()), "unconfirmed");
    assert_eq!(state(&shown, holder.minted.serial().as_str()), "active");
    works(&world, &minted).await;
    world.pass(HOUR).await;
    let shown = rows().await;
    assert_eq!(state(&shown, minted.serial().as_str()), "active");
    assert_eq!(state(&shown, holder.minted.serial().as_str()), "superseded");
    world.pass(HOUR * 24 * 90).await;
    assert_eq!(state(&rows().await, minted.serial().as_str()), "expired");
    world.stop().await;
}
