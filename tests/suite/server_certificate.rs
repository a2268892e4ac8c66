//! The certificate of our own listeners: from files that are exchanged while it runs, and from our own authority.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::Clock;
use certs::server_identity::ServerIdentity;
use certs::testing::{Mint, Minted, TestCa};
use reference_gateway::plan;
use serde_json::json;
use support::enroll::{Ticket, redeem, request, ticket};
use support::onboard::onboard;
use tempfile::TempDir;
use tests::grants::BASE;
use tests::{Holder, Home, Wire, World, tls};

/// A directory with certificate, key and roots.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        // As an editor or a tool does it: beside, then renamed.
        let beside = self.path("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    fn put(&self, minted: &Minted) {
        self.write("chain.pem", &minted.chain_pem());
        self.write("key.pem", &minted.key_pem());
    }

    fn settings(&self, more: &str) -> String {
        format!(
            "[tls]\ncertificate_file = {:?}\nkey_file = {:?}\n{more}",
            self.path("chain.pem"),
            self.path("key.pem")
        )
    }
}

fn server(ca: &TestCa) -> Minted {
    Mint::server(&["127.0.0.1"])
        .root_in_chain(true)
        .sign_with(ca)
}

/// The leaf that the federation listener shows to whoever trusts `ca`.
async fn shown(world: &World, holder: &Holder, ca: &TestCa) -> Vec<u8> {
    let config = tls::client(Some(&holder.minted), ca.root_der(), &["h2"]);
    let stream = tls::connect(world.federation(), config).await.unwrap();
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

/// Looks at the files again, as happens by itself every ten seconds; every replica finds the same.
async fn refresh(world: &World) -> Result<bool, String> {
    let mut found = Vec::new();
    for control in world.controls() {
        let server = control.server_certificate.as_ref().unwrap();
        found.push(server.refresh().await);
    }
    assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
    found.remove(0)
}

/// Failures of each replica.
fn failures(world: &World) -> u64 {
    let replicas = u64::try_from(world.replicas().count()).unwrap();
    let all = world.counted("server_certificate_failures_total");
    assert_eq!(all % replicas, 0, "{all}");
    all / replicas
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_exchanged_without_a_restart() {
    let (ca, files) = (TestCa::root("bought"), Files::new());
    let first = server(&ca);
    files.put(&first);
    let world = World::builder().settings(&files.settings("")).start().await;
    let holder = world.amira().await;
    assert_eq!(shown(&world, &holder, &ca).await, first.leaf().to_vec());
    let config = tls::client(Some(&holder.minted), ca.root_der(), &["http/1.1"]);
    let mut kept = tests::RawConnection::open(world.federation(), config)
        .await
        .unwrap();
    let path = format!("{BASE}/list/tasks");
    kept.post(&path, "{}").await.unwrap();
    assert_eq!(kept.response().await.unwrap().status, 200);
    assert_eq!(refresh(&world).await, Ok(false), "nothing has changed");
    let second = server(&ca);
    files.put(&second);
    // What operators do to have it at once, at each process.
    for control in world.controls() {
        let actor = tests::world::operator();
        control.reload_policy(&actor).await.unwrap();
    }
    assert_eq!(shown(&world, &holder, &ca).await, second.leaf().to_vec());
    kept.post(&path, "{}").await.unwrap();
    assert_eq!(
        kept.response().await.unwrap().status,
        200,
        "it is not touched"
    );
    let rows = world.control().list_certificates().await.unwrap();
    assert_eq!(rows[0].serial.as_deref(), Some(second.serial().as_str()));
    assert_eq!(failures(&world), 0);
    // Enrollment is by the root of the files too.
    let (grant, ticket) = ticket(&world).await;
    assert_eq!(ticket.pin, certs::identity::fingerprint(ca.root_der()));
    let (_, csr) = request();
    let answer = redeem(world.enrollment(), ticket.pin, &ticket.token, &csr)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["grantId"], grant.to_string());
    assert_eq!(answer.json()["trustBundlePem"], ca.root_pem());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_exchange_keeps_the_last_good_and_is_loud() {
    let (ca, files) = (TestCa::root("bought"), Files::new());
    let first = server(&ca);
    files.put(&first);
    let world = World::builder().settings(&files.settings("")).start().await;
    let holder = world.amira().await;
    let next = server(&ca);
    let wrong = |mint: Mint| mint.root_in_chain(true).sign_with(&ca);
    let mut told = 0;
    for what in 0..7 {
        match what {
            0 => files.write("chain.pem", "garbage"),
            1 => files.write("chain.pem", ""),
            // Half of an exchange: the certificate is there, the key not yet.
            2 => files.write("chain.pem", &next.chain_pem()),
            3 => files.put(&wrong(Mint::server(&["127.0.0.1"]).expired())),
            4 => files.put(&wrong(Mint::server(&["elsewhere.example"]))),
            5 => std::fs::remove_file(files.path("key.pem")).unwrap(),
            _ => {
                files.put(&next);
                let open = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(files.path("key.pem"), open).unwrap();
            }
        }
        let why = refresh(&world).await.unwrap_err();
        assert!(
            why.contains(files.dir.path().to_str().unwrap()),
            "{what}: {why}"
        );
        assert_eq!(
            refresh(&world).await,
            Err(why.clone()),
            "{what}: it stays so"
        );
        told += 1;
        assert_eq!(failures(&world), told, "{what}: each is told once");
        let status = world
            .control()
            .status()
            .await
            .unwrap()
            .server_certificate
            .unwrap();
        assert_eq!(status.failure.unwrap().message, why);
        let checks = world.control().checks().await.unwrap();
        let check = checks
            .iter()
            .find(|check| check.name == "server certificate")
            .unwrap();
        assert!(check.remedy.is_some(), "{check:?}");
        assert_eq!(
            shown(&world, &holder, &ca).await,
            first.leaf().to_vec(),
            "{what}"
        );
        // Back to what was good is good.
        files.put(&first);
        assert_eq!(refresh(&world).await, Ok(false), "{what}");
        let status = world
            .control()
            .status()
            .await
            .unwrap()
            .server_certificate
            .unwrap();
        assert_eq!(status.failure, None, "{what}");
    }
    files.put(&next);
    assert_eq!(refresh(&world).await, Ok(true));
    assert_eq!(shown(&world, &holder, &ca).await, next.leaf().to_vec());
    world.stop().await;
}

/// Peers learn of the next authority with a renewal, before it is used.
#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_gone_over_to_by_renewals() {
    let (old, new, files) = (TestCa::root("old"), TestCa::root("new"), Files::new());
    files.put(&server(&old));
    files.write("roots.pem", &old.root_pem());
    let settings = files.settings(&format!("roots_file = {:?}\n", files.path("roots.pem")));
    let world = World::builder().settings(&settings).start().await;
    let home = Home::start().await;
    onboard(&world, &home, "home", plan::AMIRA, "amira").await;
    let session = home.session("amira").await;
    let asks = async || {
        home.ask(&session, "work", "/list/notes", &json!({}))
            .await
            .status
    };
    assert_eq!(asks().await, 200);
    let both = format!("{}{}", old.root_pem(), new.root_pem());
    files.write("roots.pem", &both);
    assert_eq!(refresh(&world).await, Ok(true));
    assert_eq!(asks().await, 200);
    let outbound = home.control().outbound.as_ref().unwrap();
    let renewed = outbound.renew_now(tests::world::operator(), None).await;
    assert!(renewed[0].1.is_ok(), "{renewed:?}");
    files.put(&server(&new));
    assert_eq!(refresh(&world).await, Ok(true));
    assert_eq!(asks().await, 200);
    files.write("roots.pem", &new.root_pem());
    assert_eq!(refresh(&world).await, Ok(true));
    let renewed = outbound.renew_now(tests::world::operator(), None).await;
    assert!(renewed[0].1.is_ok(), "{renewed:?}");
    assert_eq!(asks().await, 200);
    let peer = home.control().store.list_peers().await.unwrap().remove(0);
    assert_eq!(peer.trust_bundle_pem, Some(new.root_pem()));
    home.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_without_its_root_is_refused_unless_the_root_is_named() {
    let (ca, files) = (TestCa::root("bought"), Files::new());
    let below = ca.intermediate("issuing");
    let bare = Mint::server(&["127.0.0.1"])
        .root_in_chain(false)
        .sign_with(&below);
    files.put(&bare);
    files.write("root.pem", &ca.root_pem());
    let world = World::start().await;
    let mut config = proxy::config::Config::clone(&world.config);
    world.stop().await;
    let own = tempfile::tempdir().unwrap();
    config.data_dir = own.path().join("data");
    config.admin.socket = own.path().join("admin.sock");
    config.session.socket = own.path().join("session.sock");
    config.audit.dir = own.path().join("audit");
    config.seal = proxy::config::SealSource::Generated(own.path().join("sealing.key"));
    config.policy.dir = own.path().join("policy.d");
    std::fs::create_dir(&config.policy.dir).unwrap();
    if let proxy::config::Tier::Federated(servers) = &mut config.tier {
        servers.database.schema = tests::database::schema(own.path());
    }
    let mut named = proxy::config::TlsFiles {
        certificate: files.path("chain.pem"),
        key: files.path("key.pem"),
        roots: None,
        root: None,
    };
    config.tls.files = Some(named.clone());
    let clock: Arc<dyn Clock> = Arc::new(certs::SystemClock);
    let refused = proxy::app::start(Arc::new(config.clone()), Arc::clone(&clock)).await;
    let why = refused.err().unwrap().to_string();
    assert!(
        why.contains("does not end with a self-signed root"),
        "{why}"
    );
    named.root = Some(files.path("root.pem"));
    config.tls.files = Some(named);
    let running = proxy::app::start(Arc::new(config), clock).await.unwrap();
    let address = running.addresses().enrollment.unwrap();
    // Whoever enrolls is shown the root last, and finds it by its hash.
    let pin = certs::identity::fingerprint(ca.root_der());
    let ticket = Ticket {
        token: "0".repeat(64),
        pin,
    };
    let answer = redeem(address, ticket.pin, &ticket.token, &request().1)
        .await
        .unwrap();
    assert_eq!(answer.status, 404, "{}", answer.text());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_our_own_authority_is_issued_again_in_time() {
    let world = World::builder().manual_clock().start().await;
    let holder = world.amira().await;
    let current = || -> Vec<_> {
        let servers = world.controls().map(|one| &one.server_certificate);
        servers.map(|one| one.as_ref().unwrap().current()).collect()
    };
    let first = current();
    let shown = shown(&world, &holder, &world.ca).await;
    let chain = |of: &ServerIdentity| of.credential().chain()[0].to_vec();
    assert!(first.iter().any(|one| chain(one) == shown));
    let mut kept = world.client(Wire::H1, &holder.minted).await;
    let path = format!("{BASE}/capabilities");
    assert_eq!(kept.post(&path, "{}").await.unwrap().status, 200);
    let day = Duration::from_secs(86_400);
    // The clock of the test's own clients stands: only what is issued is compared.
    world.pass(day * 59).await;
    assert_eq!(refresh(&world).await, Ok(false));
    world.pass(day * 2).await;
    assert_eq!(refresh(&world).await, Ok(true));
    for (second, first) in current().iter().zip(&first) {
        assert_ne!(chain(second), chain(first));
        let left = second.credential().not_after() - world.control().now().0 / 1000;
        assert_eq!(left, 90 * 86_400);
    }
    assert_eq!(refresh(&world).await, Ok(false));
    world.stop().await;
}
