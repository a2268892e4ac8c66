//! Listeners that are lax in one way each: the attack that it lets through says so, and the others are refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use certs::publish::channel;
use certs::testing::{ManualClock, Mint, TestCa};
use certs::{CaError, LiveClientVerifier, LiveServerResolver, RevokedSet, SystemClock};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::probe::reachable;
use super::*;
use crate::transport::Balancers;

/// Takes whatever certificate there is.
#[derive(Debug)]
struct Anyone;

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// An authority for peers and a server certificate, as a sidecar has them.
pub(crate) struct Site {
    authority: Arc<EmbeddedCa>,
    servers: TestCa,
}

impl Site {
    pub(crate) fn new() -> Self {
        let day_ago = SystemClock.unix_seconds() - 86_400;
        let made = EmbeddedCa::generate("work", day_ago, &SystemRandom::new()).unwrap();
        Self {
            authority: Arc::new(EmbeddedCa::load(made.root, &made.key).unwrap()),
            servers: TestCa::root("servers"),
        }
    }

    fn resolver(&self) -> LiveServerResolver {
        let server = Mint::server(&["127.0.0.1"]).sign_with(&self.servers);
        let (publisher, in_force) = channel(server.credential());
        // Its receiver goes on reading what was published.
        drop(publisher);
        LiveServerResolver::new(in_force)
    }

    /// The real configuration, at a time.
    fn real(&self, clock: Arc<dyn Clock>) -> Arc<ServerConfig> {
        let anchors = TrustAnchors::new(1, vec![self.authority.root().clone()]).unwrap();
        let (trust, revoked) = (channel(anchors).1, channel(RevokedSet::default()).1);
        let verifier = LiveClientVerifier::new(trust, revoked);
        tls::federation_server_config(verifier, self.resolver(), clock).unwrap()
    }

    fn anyone(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anyone))
            .with_cert_resolver(Arc::new(self.resolver()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    async fn attack(
        &self,
        config: Arc<ServerConfig>,
        status: u16,
    ) -> Vec<(&'static str, AttackResult)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let doorstep = reachable(listener.local_addr().unwrap(), &Balancers::default());
        let serving = tokio::spawn(answer_all(listener, config, status));
        let attacker = Attacker {
            doorstep,
            name: ServerName::try_from("127.0.0.1").unwrap(),
            roots: Arc::new(self.servers.anchors(0)),
            authority: Some(Arc::clone(&self.authority)),
            claimed: (Uuid::new_v4(), Uuid::new_v4()),
            clock: Arc::new(SystemClock),
        };
        let shown = attacker.attack().await;
        serving.abort();
        shown
            .attacks
            .into_iter()
            .map(|one| (one.attack.as_str(), one.result))
            .collect()
    }
}

impl Site {
    /// A connection to a listener that lets everybody in, answers one request with this status, and goes away.
    pub(crate) async fn probe(&self, status: u16) -> Probe {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let doorstep = reachable(listener.local_addr().unwrap(), &Balancers::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let open = tls::enrollment_server_config(self.resolver(), Arc::clone(&clock)).unwrap();
        tokio::spawn(answer_all(listener, open, status));
        let roots = Arc::new(self.servers.anchors(0));
        let config = tls::anchored_client_config(roots, clock).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Probe::open(doorstep, &name, config).await.unwrap()
    }
}

/// Answers one request of each connection with this status; the next byte ends it.
async fn answer_all(listener: TcpListener, config: Arc<ServerConfig>, status: u16) {
    while let Ok((socket, _)) = listener.accept().await {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(socket).await else {
                return;
            };
            let mut heard = Vec::new();
            while !heard.windows(4).any(|part| part == b"\r\n\r\n") {
                if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // Kept open: whoever asked goes first.
            let _gone = stream.read_buf(&mut heard).await;
        });
    }
}

fn through(results: &[(&'static str, AttackResult)]) -> Vec<&'static str> {
    results
        .iter()
        .filter(|(_, result)| *result == AttackResult::GotThrough)
        .map(|(attack, _)| *attack)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_listener_refuses_every_attack() {
    let site = Site::new();
    let results = site.attack(site.real(Arc::new(SystemClock)), 401).await;
    assert_eq!(results.len(), Attack::ALL.len());
    let refused = |one: &(&str, AttackResult)| one.1 == AttackResult::Refused;
    assert!(results.iter().all(refused), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_asks_for_no_certificate_is_noticed() {
    let site = Site::new();
    let open = tls::enrollment_server_config(site.resolver(), Arc::new(SystemClock)).unwrap();
    let results = site.attack(open, 200).await;
    assert_eq!(through(&results), Attack::ALL.map(Attack::as_str));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_takes_any_certificate_is_noticed() {
    let site = Site::new();
    let results = site.attack(site.anyone(), 401).await;
    assert_eq!(
        through(&results),
        ["foreign_authority", "expired_certificate"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_does_not_look_at_the_time_is_noticed() {
    let site = Site::new();
    let past = SystemClock.unix_millis() - 62 * 60_000;
    let past = Arc::new(ManualClock::at_millis(past));
    let results = site.attack(site.real(past), 401).await;
    assert!(
        through(&results).contains(&"expired_certificate"),
        "{results:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_believes_headers_is_noticed() {
    let site = Site::new();
    for status in [200, 403, 404, 500] {
        let results = site.attack(site.real(Arc::new(SystemClock)), status).await;
        assert_eq!(through(&results), ["identity_headers"], "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_not_taken_for_a_refusal() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let doorstep = reachable(listener.local_addr().unwrap(), &Balancers::default());
    drop(listener);
    let attacker = |authority| Attacker {
        doorstep,
        name: ServerName::try_from("127.0.0.1").unwrap(),
        roots: Arc::new(site.servers.anchors(0)),
        authority,
        claimed: (Uuid::new_v4(), Uuid::new_v4()),
        clock: Arc::new(SystemClock),
    };
    for authority in [Some(Arc::clone(&site.authority)), None] {
        let shown = attacker(authority).attack().await;
        let not_tried = |one: &Attacked| one.result == AttackResult::NotTried;
        assert!(shown.attacks.iter().all(not_tried), "{shown:?}");
    }
}

#[test]
fn what_it_attacks_with_opens_nothing() -> Result<(), CaError> {
    let site = Site::new();
    let now = SystemClock.unix_seconds();
    for flaw in [Flaw::Unregistered, Flaw::Expired, Flaw::Nameless] {
        let key = PrivateKey::generate_p256()?;
        let credential = site.authority.issue_flawed(flaw, &key, now)?;
        let identity = certs::PeerIdentity::decode(&credential.chain()[0], 1);
        assert_eq!(identity.is_err(), flaw == Flaw::Nameless);
        let over = Duration::from_secs(300);
        assert!(credential.not_after() <= now + i64::try_from(over.as_secs()).unwrap());
        assert_eq!(credential.not_after() < now, flaw == Flaw::Expired);
    }
    Ok(())
}
