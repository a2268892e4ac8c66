//! A token buys one certificate, once, in time, from the side that printed it; and nothing secret
//! is left lying about.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::{SealPurpose, Sealer};
use policy::id::GrantId;
use proxy::admin::AdminCode;
use proxy::app::secrets;
use proxy::store::SecretPurpose;
use reference_gateway::plan;
use serde_json::{Value, json};
use support::enroll::{Ticket, contains, files, redeem, request};
use support::process::Process;
use support::stream::{Connection, Shape};
use tests::{Home, Response, Wire, World};

fn scope() -> Value {
    json!({"resources": ["tasks"]})
}

/// A pending grant and the ticket for it.
async fn ticket(world: &World) -> (GrantId, Ticket) {
    let grant = world.pending(plan::AMIRA, scope()).await;
    let url = world.enrollment_url(grant.id).await;
    (grant.id, Ticket::of(&url))
}

async fn redeemed(world: &World, ticket: &Ticket) -> Response {
    let (_, csr) = request();
    redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
        .await
        .unwrap()
}

/// How many certificates a grant has, and how many of them are in force.
async fn certificates(world: &World, grant: GrantId) -> (usize, usize) {
    let detail = world
        .control()
        .show_grant(&grant.to_string())
        .await
        .unwrap();
    let active = detail
        .certificates
        .iter()
        .filter(|one| one.state == "active");
    (detail.certificates.len(), active.count())
}

fn check(response: &Response, status: u16, reason: Option<&str>) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.reason().as_deref(), reason, "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(!response.request_id().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once() {
    let world = World::start().await;
    let (grant, ticket) = ticket(&world).await;
    let first = redeemed(&world, &ticket).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let answer = first.json();
    let mut members: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "certChainPem",
            "certPem",
            "commonName",
            "endpointUrl",
            "grantId",
            "subjectUserId",
            "trustBundlePem"
        ]
    );
    assert_eq!(answer["grantId"], grant.to_string());
    for _ in 0..2 {
        check(&redeemed(&world, &ticket).await, 410, Some("token_used"));
    }
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_is_gone() {
    let world = World::builder().manual_clock().start().await;
    let (grant, late) = ticket(&world).await;
    world.clock().advance(Duration::from_secs(900));
    check(&redeemed(&world, &late).await, 410, Some("token_expired"));
    assert_eq!(certificates(&world, grant).await, (0, 0));
    let (grant, in_time) = ticket(&world).await;
    world.clock().advance(Duration::from_secs(899));
    assert_eq!(redeemed(&world, &in_time).await.status, 200);
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_token_is_not_found_whatever_its_form() {
    let world = World::start().await;
    let (grant, known) = ticket(&world).await;
    let other = known.token.chars().rev().collect::<String>();
    for token in [
        other.as_str(),
        &known.token[..63],
        &known.token.to_uppercase(),
        "x",
        "%00",
        &"0".repeat(64),
    ] {
        let (_, csr) = request();
        let response = redeem(world.enrollment(), known.pin, token, &csr)
            .await
            .unwrap();
        // A token of digits only is its own upper case.
        if token != known.token {
            check(&response, 404, None);
        }
    }
    assert_eq!(certificates(&world, grant).await, (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_does_not_spend_the_token() {
    let world = World::start().await;
    let (grant, ticket) = ticket(&world).await;
    let (_, good) = request();
    // A request whose signature does not hold: one character of its base64 changed.
    let at = good.len() - 60;
    let swapped = if &good[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{swapped}{}", &good[..at], &good[at + 1..]);
    let weak = {
        let key = openssl::rsa::Rsa::generate(1024).unwrap();
        let key = openssl::pkey::PKey::from_rsa(key).unwrap();
        let mut builder = openssl::x509::X509ReqBuilder::new().unwrap();
        builder.set_pubkey(&key).unwrap();
        builder
            .sign(&key, openssl::hash::MessageDigest::sha256())
            .unwrap();
        String::from_utf8(builder.build().to_pem().unwrap()).unwrap()
    };
    for bad in ["", "not PEM", &forged, &weak, &format!("{good}{good}")] {
        let response = redeem(world.enrollment(), ticket.pin, &ticket.token, bad)
            .await
            .unwrap();
        check(&response, 400, Some("csr_refused"));
    }
    let response = redeem(world.enrollment(), ticket.pin, &ticket.token, &good)
        .await
        .unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(certificates(&world, grant).await, (1, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_with_another_root_is_refused_before_the_token_is_sent() {
    let world = World::start().await;
    let grant = world.pending(plan::AMIRA, scope()).await;
    let url = world.enrollment_url(grant.id).await;
    let (rest, pin) = url.split_once("#sha256=").unwrap();
    let wrong: String = pin.chars().rev().collect();
    let home = Home::start().await;
    let failure = home
        .add_peer(&format!("{rest}#sha256={wrong}"), "amira", "work")
        .await
        .unwrap_err();
    assert_eq!(failure.code, AdminCode::Forbidden, "{failure:?}");
    assert!(home.control().list_peers().await.unwrap().is_empty());
    // Without a pin there is nothing to trust.
    let failure = home.add_peer(rest, "amira", "work").await.unwrap_err();
    assert_eq!(failure.code, AdminCode::InvalidRequest, "{failure:?}");
    assert_eq!(certificates(&world, grant.id).await, (0, 0));
    home.add_peer(&url, "amira", "work").await.unwrap();
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_parallel_redemptions_one_gets_a_certificate() {
    let world = World::start().await;
    for _ in 0..support::rounds(2, 50) {
        let (grant, ticket) = ticket(&world).await;
        let listener = world.enrollment();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let ticket = ticket.clone();
                tokio::spawn(async move {
                    let (_, csr) = request();
                    redeem(listener, ticket.pin, &ticket.token, &csr)
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            let response = task.await.unwrap();
            if response.status == 200 {
                won += 1;
            } else {
                check(&response, 410, Some("token_used"));
            }
        }
        assert_eq!(won, 1);
        assert_eq!(certificates(&world, grant).await, (1, 1));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_token_and_a_revoked_grant_withdraw_the_old_one() {
    let world = World::start().await;
    let (grant, old) = ticket(&world).await;
    let new = Ticket::of(&world.enrollment_url(grant).await);
    check(&redeemed(&world, &old).await, 410, Some("token_withdrawn"));
    world.revoke(grant).await;
    let response = redeemed(&world, &new).await;
    assert_eq!(response.status, 410, "{}", response.text());
    assert_eq!(certificates(&world, grant).await, (0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_token_revokes_the_certificate_before_it() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let (grant, first) = ticket(&world).await;
    let enroll = async |ticket: &Ticket| {
        let (key, csr) = request();
        let answer = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let chain = answer.json()["certChainPem"].as_str().unwrap().to_owned();
        let credential =
            certs::Credential::from_pem(chain.as_bytes(), key.to_pem().as_bytes()).unwrap();
        let clock = std::sync::Arc::new(certs::SystemClock);
        certs::tls::peer_client_config(&credential, world.ca.anchors(1).into(), clock).unwrap()
    };
    let ask = async |config| -> Option<u16> {
        let shape = Shape::of(Wire::H1);
        let mut connection = Connection::open(world.federation(), &config, shape)
            .await
            .ok()?;
        let answer = connection.list("tasks", &json!({})).await.ok()?;
        Some(answer.head.status)
    };
    let old = enroll(&first).await;
    assert_eq!(ask(old.clone()).await, Some(200));
    let replaced = world.replace_token(grant).await;
    assert_eq!(replaced.revoked_certificates, 1);
    assert_eq!(ask(old.clone()).await, None, "refused at the handshake");
    let new = enroll(&Ticket::of(&replaced.url)).await;
    assert_eq!(ask(new).await, Some(200));
    assert_eq!(ask(old).await, None);
    assert_eq!(certificates(&world, grant).await, (2, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_no_log_and_no_file_beyond_their_beginning() {
    let world = World::start().await;
    let (_, good) = ticket(&world).await;
    let (_, unused) = ticket(&world).await;
    let unknown = "5eed".repeat(16);
    let process = Process::take_over(world, "trace").await;
    for token in [good.token.as_str(), &good.token, &unknown] {
        let (_, csr) = request();
        redeem(process.enrollment, good.pin, token, &csr)
            .await
            .unwrap();
    }
    let home = Home::start().await;
    // The port in a URL is that of the listener of the time; only the token is looked up.
    let url = format!(
        "https://{}/api/federation/enrollment/{}#sha256={}",
        process.enrollment,
        unused.token,
        unused
            .pin
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    home.add_peer(&url, "amira", "work").await.unwrap();
    let session = home.session("amira").await;
    let log = process.log.lock().unwrap().clone();
    assert!(log.contains(&good.token[..8]), "the act is in the log");
    let home_files = files(&home.config.data_dir);
    for token in [good.token, unused.token, unknown, session] {
        let nine = &token[..9];
        assert!(!log.contains(nine), "{nine} is in the log");
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&token[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        for (name, content) in files(&process.data_dir()).iter().chain(&home_files) {
            assert!(!contains(content, nine.as_bytes()), "{nine} in {name}");
            assert!(!contains(content, &bytes), "{nine} in {name}, raw");
        }
    }
    home.stop().await;
}

/// The ways in which bytes could lie in a file in the clear.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    for shift in 0..3 {
        // Whatever stands before it, one of the three alignments is that of the file. The last
        // characters depend on what follows.
        let text = STANDARD.encode(&secret[shift..]);
        all.push(text.as_bytes()[..text.len() - 8].to_vec());
    }
    all
}

/// The private number of a P-256 key: the OCTET STRING of 32 bytes in its PKCS#8.
fn scalar(pkcs8: &[u8]) -> &[u8] {
    let at = pkcs8
        .windows(2)
        .position(|two| two == [0x04, 0x20])
        .unwrap();
    &pkcs8[at + 2..at + 34]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_lies_in_the_database_in_the_clear() {
    let world = World::start().await;
    world.let_in(plan::AMIRA).await;
    let grant = world.pending(plan::AMIRA, scope()).await;
    let url = world.enrollment_url(grant.id).await;
    let home = Home::start().await;
    home.add_peer(&url, "amira", "work").await.unwrap();
    let mut secrets_of_both: Vec<(&str, Vec<u8>)> = Vec::new();
    let authority = world.ca.private_key();
    secrets_of_both.push(("the authority's key", authority.pkcs8().to_vec()));
    secrets_of_both.push(("the authority's number", scalar(authority.pkcs8()).to_vec()));
    let home_sealer = secrets::sealer(&home.config.seal).unwrap();
    let credentials = home
        .control()
        .store
        .list_outbound_credentials()
        .await
        .unwrap();
    for credential in &credentials {
        let row = credential.id.as_hyphenated().to_string();
        let key = home_sealer
            .unseal(SealPurpose::CredentialKey, &row, &credential.sealed_key)
            .unwrap();
        secrets_of_both.push(("a credential's key", key.to_vec()));
        secrets_of_both.push(("a credential's number", scalar(&key).to_vec()));
    }
    assert_eq!(credentials.len(), 1);
    let world_sealer = secrets::sealer(&world.config.seal).unwrap();
    let unseal = async |sealer: &Sealer, stored, sealed_as| {
        let all = world.control().store.load_secrets(stored).await.unwrap();
        let one = all.first().unwrap();
        sealer
            .unseal(sealed_as, &one.id, &one.sealed)
            .unwrap()
            .to_vec()
    };
    let revision = unseal(
        &world_sealer,
        SecretPurpose::RevisionKey,
        SealPurpose::RevisionKey,
    )
    .await;
    let cursor = unseal(
        &world_sealer,
        SecretPurpose::CursorKey,
        SealPurpose::CursorKey,
    )
    .await;
    secrets_of_both.push(("the revision key", revision));
    secrets_of_both.push(("the cursor key", cursor));
    let token = "a-gateway-token-for-nobody-else-to-read";
    world.let_in_with(plan::BEN, token).await;
    secrets_of_both.push(("a gateway token", token.as_bytes().to_vec()));
    for config in [&world.config, &home.config] {
        let sealing = config.data_dir.join("sealing.key");
        let mode = std::fs::metadata(&sealing).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let secret = std::fs::read(&sealing).unwrap();
        secrets_of_both.push(("a sealing secret", secret));
    }
    // The harness makes the other one itself.
    let mode = std::fs::metadata(&home.config.data_dir)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "the data directory is its owner's alone");
    let mut all = files(&world.config.data_dir);
    all.extend(files(&home.config.data_dir));
    for (name, content) in &all {
        for (what, secret) in &secrets_of_both {
            for spelling in spellings(secret) {
                assert!(!contains(content, &spelling), "{what} in {name}");
            }
        }
        assert!(!contains(content, b"PRIVATE KEY"), "{name}");
    }
    // The search finds what does lie there: the certificates are public.
    let der = world
        .control()
        .store
        .list_certificates(grant.id)
        .await
        .unwrap();
    assert!(
        all.iter()
            .any(|(_, content)| contains(content, &der[0].der))
    );
    home.stop().await;
    world.stop().await;
}
