//! step-ca as the authority for peers: the real program, its own code, over real TLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::sync::Arc;

use certs::{PeerIdentity, PrivateKey};
use proxy::admin::{CheckOutcome, CheckView};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::enroll::{Ticket, redeem, request, ticket};
use support::step::{self, StepProcess, TEMPLATE};
use tests::{Client, Response, Wire, World};

/// A template that forgets whom the certificate is for.
const FORGETFUL: &str = r#"{"subject": {{ toJson .Subject }}, "sans": {{ toJson .SANs }},
 "keyUsage": ["digitalSignature"], "extKeyUsage": ["clientAuth"]}"#;
/// A template that believes what the request says of itself.
const GULLIBLE: &str = r#"{"subject": {{ toJson .Subject }}, "sans": {{ toJson .SANs }},
 "keyUsage": ["digitalSignature"], "extKeyUsage": ["clientAuth"],
 "extensions": [
  {"id": "1.3.6.1.4.1.99999.1", "value": {{ printf "\x0c%c%s" 36 "00000000-0000-4000-8000-000000000001" | b64enc | toJson }}},
  {"id": "1.3.6.1.4.1.99999.2", "value": {{ printf "\x0c%c%s" 36 "00000000-0000-4000-8000-000000000002" | b64enc | toJson }}}]}"#;

async fn world(step: &StepProcess, key: &str) -> World {
    let short = "[limits]\nclient_certificate_days = 1\n";
    let settings = format!("{}{short}", step.settings(key));
    World::builder().settings(&settings).start().await
}

async fn redeemed(world: &World, ticket: &Ticket) -> (PrivateKey, Response) {
    let (key, csr) = request();
    let response = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr).await;
    (key, response.unwrap())
}

fn chain(response: &Response) -> Vec<CertificateDer<'static>> {
    let answer = response.json();
    let pem = answer["certChainPem"].as_str().unwrap();
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|one| one.unwrap())
        .collect()
}

/// A peer with this certificate.
fn client(world: &World, chain: &[CertificateDer<'static>], key: &PrivateKey) -> ClientConfig {
    client_of(world.root(), chain, key)
}

/// The same, which knows the servers of this root.
fn client_of(
    root: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.pkcs8().to_vec()).unwrap();
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.to_vec(), key)
        .unwrap()
}

/// What the replica that was asked for a certificate says of the authority, which has failed in this way.
async fn failed(world: &World, said: &str) -> CheckView {
    let mut found = Vec::new();
    for control in world.controls() {
        found.push(authority(&control.checks().await.unwrap()).clone());
    }
    let failed = found
        .iter()
        .find(|check| check.outcome == CheckOutcome::Fail && check.found.contains(said));
    failed
        .unwrap_or_else(|| panic!("{said}: {found:?}"))
        .clone()
}

fn authority(checks: &[CheckView]) -> &CheckView {
    checks.iter().find(|one| one.name == "authority").unwrap()
}

/// The whole way: token, one-time token, signature, both extensions, a question over mTLS.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_enrolls_and_asks_with_a_certificate_of_step_ca() {
    let Some(program) = step::program() else {
        return;
    };
    for key in ["provisioner.jwk", "provisioner.jwe"] {
        let step = StepProcess::start(&program, TEMPLATE, "24h0m0s");
        let world = world(&step, key).await;
        world.let_in(reference_gateway::plan::AMIRA).await;
        let (grant, ticket) = ticket(&world).await;
        let (private, response) = redeemed(&world, &ticket).await;
        assert_eq!(response.status, 200, "{}\n{}", response.text(), step.log());
        let chain = chain(&response);
        assert_eq!(chain.len(), 2, "leaf and intermediate");
        let identity = PeerIdentity::decode(&chain[0], 0).unwrap();
        assert_eq!(identity.grant, grant.uuid());
        for wire in Wire::BOTH {
            let config = client(&world, &chain, &private);
            let mut client = Client::open_with(wire, world.federation(), config)
                .await
                .unwrap();
            let path = "/api/federation/v1/list/tasks";
            let answer = client.post(path, "{}").await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(!answer.json()["items"].as_array().unwrap().is_empty());
        }
        world.stop().await;
    }
}

/// The embedded authority's certificates open nothing where a step-ca is the authority.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_embedded_authority_is_a_strangers() {
    let Some(program) = step::program() else {
        return;
    };
    let step = StepProcess::start(&program, TEMPLATE, "24h0m0s");
    let world = world(&step, "provisioner.jwk").await;
    let holder = world.amira().await;
    let config = tests::tls::client(Some(&holder.minted), world.root(), &[]);
    let alert = tests::tls::refusal(world.federation(), config).await;
    assert_eq!(alert, rustls::AlertDescription::UnknownCA);
    world.stop().await;
}

/// What step-ca signed and was not asked for is refused, recorded, and revoked there.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_without_the_extensions_or_with_others_gives_no_certificate() {
    let Some(program) = step::program() else {
        return;
    };
    for (template, said) in [(FORGETFUL, "no identity"), (GULLIBLE, "another grant id")] {
        let step = StepProcess::start(&program, template, "24h0m0s");
        let world = world(&step, "provisioner.jwk").await;
        let (grant, ticket) = ticket(&world).await;
        let (_, response) = redeemed(&world, &ticket).await;
        assert_eq!(response.status, 503, "{}", response.text());
        let detail = world
            .control()
            .show_grant(&grant.to_string())
            .await
            .unwrap();
        assert!(detail.certificates.is_empty());
        assert_eq!(detail.grant.status, policy::grant::GrantStatus::Pending);
        let log = step.log();
        assert!(log.contains("/1.0/revoke"), "{log}");
        let check = failed(&world, said).await;
        assert!(check.remedy.as_deref().unwrap().contains("federation.tpl"));
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_ca_that_is_down_or_refuses_spends_the_token_and_says_so() {
    let Some(program) = step::program() else {
        return;
    };
    // Its certificates live for an hour, and a day is asked for.
    let mut step = StepProcess::start(&program, TEMPLATE, "1h0m0s");
    let world = world(&step, "provisioner.jwk").await;
    let (_, refused) = ticket(&world).await;
    let (_, response) = redeemed(&world, &refused).await;
    assert_eq!(response.status, 503, "{}", response.text());
    failed(&world, "refused").await;
    step.stop();
    let (_, down) = ticket(&world).await;
    let (_, response) = redeemed(&world, &down).await;
    assert_eq!(response.status, 503, "{}", response.text());
    let (_, again) = redeemed(&world, &down).await;
    assert_eq!(again.status, 410);
    failed(&world, "cannot be reached").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_that_the_authority_works_and_whether_it_has_a_crl() {
    let Some(program) = step::program() else {
        return;
    };
    let step = StepProcess::start(&program, TEMPLATE, "24h0m0s");
    let world = world(&step, "provisioner.jwk").await;
    let checks = world.control().checks().await.unwrap();
    let check = authority(&checks);
    assert_eq!(check.outcome, CheckOutcome::Ok, "{}", check.found);
    assert!(
        check.found.contains("issues and revokes"),
        "{}",
        check.found
    );
    let list = checks
        .iter()
        .find(|one| one.name == "revocation lists of step-ca")
        .unwrap();
    let expected = if publishes(&step) {
        CheckOutcome::Ok
    } else {
        CheckOutcome::Warn
    };
    assert_eq!(list.outcome, expected, "{}", list.found);
    // Without one, what is revoked there goes on opening grants here: that is said, with what to do.
    let none = checks
        .iter()
        .find(|one| one.name == "authority's revocation list");
    assert_eq!(none.is_some(), !publishes(&step), "{checks:?}");
    if let Some(none) = none {
        assert_eq!(none.outcome, CheckOutcome::Warn);
        let remedy = none.remedy.as_deref().unwrap();
        assert!(remedy.contains("generateOnRevoke"), "{remedy}");
    }
    world.stop().await;
}

/// A world whose listeners show a certificate of step-ca.
async fn listening(step: &StepProcess) -> World {
    let limits = "[limits]\nclient_certificate_days = 1\n";
    let (ca, tls) = (step.settings("provisioner.jwk"), step.server_settings());
    let world = World::builder()
        .manual_clock()
        .settings(&format!("{ca}{tls}{limits}"))
        .start();
    world.await
}

fn root(step: &StepProcess) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(step.file("root.crt")).unwrap()
}

async fn server_view(world: &World) -> serde_json::Value {
    let status = world.control().status().await.unwrap();
    serde_json::to_value(status).unwrap()["server_certificate"].clone()
}

/// Looks at the certificate again, as happens by itself every ten seconds; every replica finds the same.
async fn looked(world: &World) -> Result<bool, String> {
    let mut found = Vec::new();
    for control in world.controls() {
        let server = control.server_certificate.as_ref().unwrap();
        found.push(server.refresh().await);
    }
    let same = |one: &Result<bool, String>| one.as_ref().ok() == found[0].as_ref().ok();
    assert!(found.iter().all(same), "{found:?}");
    found.remove(0)
}

fn server_check(checks: &[CheckView]) -> &CheckView {
    let mut checks = checks.iter();
    checks.find(|one| one.name == "server certificate").unwrap()
}

/// The whole life of a listener's certificate of step-ca: got at the start, renewed in time under connections that stand, kept
/// while step-ca is down.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_listeners_comes_from_step_ca_and_is_renewed() {
    let Some(program) = step::program() else {
        return;
    };
    let mut step = StepProcess::start(&program, TEMPLATE, "25h0m0s");
    let world = listening(&step).await;
    world.let_in(reference_gateway::plan::AMIRA).await;
    let root = root(&step);
    let view = server_view(&world).await;
    assert_eq!(view["source"], "step-ca");
    assert_eq!(view["failure"], serde_json::Value::Null);
    // Enrollment is by its root, and so is what a peer is to trust.
    let (_, ticket) = ticket(&world).await;
    assert_eq!(ticket.pin, certs::identity::fingerprint(&root));
    let (private, response) = redeemed(&world, &ticket).await;
    assert_eq!(response.status, 200, "{}\n{}", response.text(), step.log());
    let bundle = response.json()["trustBundlePem"].clone();
    assert_eq!(bundle, certs::trust::certificate_to_pem(&root));
    let chain = chain(&response);
    let connect = async || {
        let config = client_of(&root, &chain, &private);
        Client::open_with(Wire::H1, world.federation(), config)
            .await
            .unwrap()
    };
    let works = async |client: &mut Client| {
        let path = "/api/federation/v1/list/tasks";
        let answer = client.post(path, "{}").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let mut kept = connect().await;
    works(&mut kept).await;
    // It is due soon: see what the provisioner was told.
    let first = server_view(&world).await["serial"].clone();
    assert_eq!(looked(&world).await, Ok(true), "{}", step.log());
    let second = server_view(&world).await["serial"].clone();
    assert_ne!(first, second);
    works(&mut kept).await;
    works(&mut connect().await).await;
    let checks = world.control().checks().await.unwrap();
    let check = server_check(&checks);
    assert_eq!(check.outcome, CheckOutcome::Ok, "{}", check.found);

    step.stop();
    let why = looked(&world).await.unwrap_err();
    assert!(why.contains("cannot be reached"), "{why}");
    let view = server_view(&world).await;
    let serial = view["serial"].clone();
    let said = view["failure"]["message"].as_str().unwrap();
    assert!(said.contains("cannot be reached"), "{said}");
    let checks = world.control().checks().await.unwrap();
    let check = server_check(&checks);
    assert_eq!(check.outcome, CheckOutcome::Fail);
    assert!(check.found.contains("the last good one"), "{}", check.found);
    works(&mut kept).await;
    works(&mut connect().await).await;
    // Not asked again at once.
    assert_eq!(looked(&world).await, Ok(false));
    step.restart(&program);
    world.pass(std::time::Duration::from_secs(20)).await;
    assert_eq!(looked(&world).await, Ok(true), "{}", step.log());
    let view = server_view(&world).await;
    assert_ne!(view["serial"], serial);
    assert_eq!(view["failure"], serde_json::Value::Null);
    works(&mut kept).await;
    works(&mut connect().await).await;
    world.stop().await;
}

/// Without one there is nothing to listen with.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_certificate_of_step_ca_is_refused() {
    let Some(program) = step::program() else {
        return;
    };
    // Such a one is for clients.
    let wrong = FORGETFUL;
    let part = proxy::app::Circumstances::PART;
    let step = StepProcess::start_with(&program, TEMPLATE, "24h0m0s", wrong);
    let mut world = world(&step, "provisioner.jwk").await;
    let mut config = proxy::config::Config::clone(&world.config);
    config.tls.step = Some(proxy::config::TlsStep {
        provisioner: "mosaic-server".to_owned(),
        key_file: step.file("provisioner.jwk"),
        password_file: None,
    });
    world.config = Arc::new(config);
    let refused = world.restart_under(part).await.err().unwrap().to_string();
    assert!(refused.contains("no server certificate"), "{refused}");
    assert!(step.log().contains("/1.0/revoke"), "{}", step.log());

    let mut step = StepProcess::start(&program, TEMPLATE, "24h0m0s");
    let world = listening(&step).await;
    step.stop();
    // What it issued before does for another start.
    let serial = server_view(&world).await["serial"].clone();
    let world = world.restart_under(part).await.unwrap();
    let view = server_view(&world).await;
    assert_eq!(view["serial"], serial, "{view}");
    let said = view["failure"]["message"].as_str().unwrap();
    assert!(said.contains("cannot be reached"), "{said}");
    let checks = world.control().checks().await.unwrap();
    assert_eq!(server_check(&checks).outcome, CheckOutcome::Fail);
    // And is replaced as soon as that can be, long before it is due.
    step.restart(&program);
    world.pass(std::time::Duration::from_secs(20)).await;
    assert_eq!(looked(&world).await, Ok(true), "{}", step.log());
    assert_ne!(server_view(&world).await["serial"], serial);
    step.stop();

    // But not what was changed, is over, or is not there.
    let file = world.config.data_dir.join("server-certificate.sealed");
    let sealed = std::fs::read(&file).unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    assert!(!sealed.windows(7).any(|part| part == b"PRIVATE"));
    let mut changed = sealed.clone();
    *changed.last_mut().unwrap() ^= 1;
    let dir = world.dir.path().to_owned();
    let (config, clock) = (Arc::clone(&world.config), world.shared_clock());
    let start = async || {
        let clock = Arc::clone(&clock) as Arc<dyn certs::Clock>;
        let started = Box::pin(proxy::app::start(Arc::clone(&config), clock)).await;
        started.err().unwrap().to_string()
    };
    let World {
        sidecar,
        mut beside,
        dir: _held,
        ..
    } = world;
    if let Some(beside) = &mut beside {
        beside.stop().await;
    }
    sidecar.stop().await.unwrap();
    assert!(dir.exists());
    std::fs::write(&file, changed).unwrap();
    let refused = start().await;
    assert!(refused.contains("does not open"), "{refused}");
    std::fs::write(&file, sealed).unwrap();
    clock.advance(std::time::Duration::from_secs(7 * 60));
    let refused = start().await;
    assert!(
        refused.contains("of an earlier start cannot be used"),
        "{refused}"
    );
    std::fs::remove_file(&file).unwrap();
    let refused = start().await;
    assert!(refused.contains("cannot be reached"), "{refused}");
    assert!(refused.contains("none of an earlier start"), "{refused}");
}

/// Versions before 0.23 have no CRL; newer ones were told to publish one.
fn publishes(step: &StepProcess) -> bool {
    let asked = std::process::Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
        .arg(step.file("root.crt"))
        .arg(format!("{}/1.0/crl", step.url()))
        .output()
        .unwrap();
    asked.stdout == b"200"
}

async fn revocation(world: &World) -> serde_json::Value {
    let status = world.control().status().await.unwrap();
    serde_json::to_value(status).unwrap()["revocation"].clone()
}

async fn untold(world: &World, count: u64) {
    for _ in 0..1_000 {
        if revocation(world).await["untold"] == count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{}", revocation(world).await);
}

/// A revocation here does not wait for a step-ca that is down, and reaches it when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn step_ca_is_told_of_what_is_revoked_here() {
    let Some(program) = step::program() else {
        return;
    };
    let mut step = StepProcess::start(&program, TEMPLATE, "24h0m0s");
    let short = "[limits]\nclient_certificate_days = 1\n[revocation]\nrefresh_s = 1\n";
    let settings = format!("{}{short}", step.settings("provisioner.jwk"));
    let world = World::builder().settings(&settings).start().await;
    world.let_in(reference_gateway::plan::AMIRA).await;
    let (first, one) = ticket(&world).await;
    let (_, response) = redeemed(&world, &one).await;
    assert_eq!(response.status, 200, "{}\n{}", response.text(), step.log());
    let leaf = chain(&response).remove(0);
    let serial = PeerIdentity::decode(&leaf, 0).unwrap().serial;
    step.stop();
    world.revoke(first).await;
    let view = revocation(&world).await;
    assert_eq!(view["untold"], 1, "{view}");
    // It says why once it has been tried, in doctor too, and after a restart.
    let world = world.restart().await;
    untold(&world, 1).await;
    let check = async |world: &World| {
        let checks = world.control().checks().await.unwrap();
        checks
            .into_iter()
            .find(|one| one.name == "authority's revocations")
    };
    let pending = check(&world).await.unwrap();
    assert_eq!(pending.outcome, CheckOutcome::Warn);
    step.restart(&program);
    untold(&world, 0).await;
    assert!(check(&world).await.is_none());
    assert!(step.log().contains("/1.0/revoke"), "{}", step.log());
    if publishes(&step) {
        for _ in 0..500 {
            let places = revocation(&world).await["places"].clone();
            if places[0]["lists"][0]["entries"] == 1 {
                world.stop().await;
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{serial} is not on its list: {}", revocation(&world).await);
    }
    world.stop().await;
}
