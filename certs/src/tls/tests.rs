//! Whole handshakes in memory: what is refused, with which alert, and what is negotiated.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod hostile;
mod pinned;

use std::sync::Mutex;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::TLS12;
use rustls::{
    AlertDescription as Alert, ClientConnection, Error, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConnection,
};
use uuid::Uuid;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::identity::PeerIdentity;
use crate::oid::ClaimExtension;
use crate::publish::{CredentialPublisher, RevokedPublisher, TrustPublisher, channel};
use crate::testing::{
    ExtendedKeyUsagePurpose, KeyUsagePurpose, Mint, Minted, TestCa, foreign_client_config,
};
use crate::trust::RevokedSet;
use crate::verify::ChainError;

/// One server with everything that can change under it.
struct Serving {
    ca: TestCa,
    server_ca: TestCa,
    trust: TrustPublisher,
    revoked: RevokedPublisher,
    credential: CredentialPublisher,
    clock: Arc<ManualClock>,
    config: Arc<ServerConfig>,
    refusals: Arc<Mutex<Vec<ChainError>>>,
}

fn serving() -> Serving {
    let ca = TestCa::root("clients");
    let server_ca = TestCa::root("servers");
    let server = Mint::server(&["work.example", "192.0.2.1"]).sign_with(&server_ca);
    let (trust, anchors) = channel(ca.anchors(1));
    let (revoked, revoked_now) = channel(RevokedSet::default());
    let (credential, credential_now) = channel(server.credential());
    let clock = Arc::new(ManualClock::at_millis(SystemClock.unix_millis()));
    let refusals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&refusals);
    let verifier =
        LiveClientVerifier::new(anchors, revoked_now).with_observer(Arc::new(move |error| {
            seen.lock().unwrap().push(error.clone())
        }));
    let resolver = LiveServerResolver::new(credential_now);
    let config = federation_server_config(verifier, resolver, clock.clone()).unwrap();
    Serving {
        ca,
        server_ca,
        trust,
        revoked,
        credential,
        clock,
        config,
        refusals,
    }
}

impl Serving {
    fn client(&self) -> Minted {
        Mint::client(Uuid::from_u128(1), Uuid::from_u128(2)).sign_with(&self.ca)
    }

    fn foreign(&self, minted: Option<&Minted>) -> ClientConfig {
        foreign_client_config(minted, self.server_ca.root_der(), &[&TLS13])
    }

    fn peer(&self, minted: &Minted, name: &'static str) -> Meeting {
        let anchors = Arc::new(self.server_ca.anchors(1));
        let clock = self.clock.clone();
        let config = peer_client_config(&minted.credential(), anchors, clock).unwrap();
        meet(config, Arc::clone(&self.config), name)
    }

    fn meet(&self, config: ClientConfig) -> Meeting {
        meet(Arc::new(config), Arc::clone(&self.config), "work.example")
    }
}

/// Both ends after all they had to say.
struct Meeting {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

impl Meeting {
    fn alert(&self) -> Option<Alert> {
        match self.client_error {
            Some(Error::AlertReceived(alert)) => Some(alert),
            _ => None,
        }
    }

    fn succeeded(&self) -> bool {
        self.client_error.is_none()
            && self.server_error.is_none()
            && !self.client.is_handshaking()
            && !self.server.is_handshaking()
    }
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &'static str) -> Meeting {
    let mut meeting = Meeting {
        client: ClientConnection::new(client, name.try_into().unwrap()).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
    };
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while meeting.client.wants_write() {
            meeting.client.write_tls(&mut to_server).unwrap();
        }
        let mut input = to_server.as_slice();
        while !input.is_empty() && meeting.server_error.is_none() {
            meeting.server.read_tls(&mut input).unwrap();
            meeting.server_error = meeting.server.process_new_packets().err();
        }
        while meeting.server.wants_write() {
            meeting.server.write_tls(&mut to_client).unwrap();
        }
        let mut input = to_client.as_slice();
        while !input.is_empty() && meeting.client_error.is_none() {
            meeting.client.read_tls(&mut input).unwrap();
            meeting.client_error = meeting.client.process_new_packets().err();
        }
        if to_server.is_empty() && to_client.is_empty() {
            return meeting;
        }
    }
}

#[test]
fn a_peer_gets_in_with_post_quantum_key_exchange_and_h2() {
    let serving = serving();
    let meeting = serving.peer(&serving.client(), "work.example");
    assert!(meeting.succeeded(), "{:?}", meeting.server_error);
    let server = &meeting.server;
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(ALPN_H2));
    let group = server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(meeting.client.tls13_tickets_received(), 0);
}

#[test]
fn the_key_exchange_groups_are_these_three_in_this_order() {
    let groups: Vec<_> = provider().kx_groups.iter().map(|kx| kx.name()).collect();
    let expected = [
        NamedGroup::X25519MLKEM768,
        NamedGroup::X25519,
        NamedGroup::secp256r1,
    ];
    assert_eq!(groups, expected);

    let serving = serving();
    let with_groups = |groups| {
        let mut config = serving.foreign(Some(&serving.client()));
        let mut limited = config.crypto_provider().as_ref().clone();
        limited.kx_groups = groups;
        let resolver = config.client_auth_cert_resolver.clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(serving.server_ca.root_der().clone()).unwrap();
        config = ClientConfig::builder_with_provider(Arc::new(limited))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        serving.meet(config)
    };
    // A client that sends shares of both gets the hybrid. (One that sends a P-256 share only keeps
    // it, even if it names the hybrid: rustls saves the round trip.)
    let both = with_groups(vec![kx_group::X25519MLKEM768, kx_group::X25519]);
    let group = both.server.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert!(with_groups(vec![kx_group::SECP256R1]).succeeded());
    let refused = with_groups(vec![kx_group::SECP384R1]);
    assert_eq!(refused.alert(), Some(Alert::HandshakeFailure));
}

#[test]
fn clients_are_refused_with_the_alert_of_their_defect() {
    let serving = serving();
    let mint = || Mint::client(Uuid::from_u128(1), Uuid::from_u128(2));
    let foreign = TestCa::root("foreign");
    let good = serving.client();
    let revoked = serving.client();
    serving.revoked.publish(revoked.revoked()).unwrap();
    let server_only = mint().eku(&[ExtendedKeyUsagePurpose::ServerAuth]);
    let cases: Vec<(&str, Option<Minted>, Alert)> = vec![
        ("none", None, Alert::CertificateRequired),
        (
            "foreign CA",
            Some(mint().sign_with(&foreign)),
            Alert::UnknownCA,
        ),
        ("self-signed", Some(mint().self_signed()), Alert::UnknownCA),
        (
            "expired",
            Some(mint().expired().sign_with(&serving.ca)),
            Alert::CertificateExpired,
        ),
        (
            "not yet valid",
            Some(mint().not_yet_valid().sign_with(&serving.ca)),
            Alert::CertificateExpired,
        ),
        ("revoked", Some(revoked), Alert::CertificateRevoked),
        (
            "serverAuth only",
            Some(server_only.sign_with(&serving.ca)),
            Alert::UnknownCA,
        ),
    ];
    for (name, minted, alert) in &cases {
        let meeting = serving.meet(serving.foreign(minted.as_ref()));
        assert!(meeting.server_error.is_some(), "{name}");
        assert_eq!(meeting.alert(), Some(*alert), "{name}");
    }
    // One cause each, except where no certificate was sent.
    assert_eq!(serving.refusals.lock().unwrap().len(), cases.len() - 1);
    assert!(serving.meet(serving.foreign(Some(&good))).succeeded());
}

#[test]
fn a_certificate_presented_without_its_key_is_refused() {
    let serving = serving();
    let stolen = serving.client();
    let mut thief = serving.client();
    thief.chain = stolen.chain;
    let meeting = serving.meet(serving.foreign(Some(&thief)));
    assert!(meeting.server_error.is_some());
    assert_eq!(meeting.alert(), Some(Alert::DecryptError));
}

/// What the identity layer refuses is let through the handshake, so that the peer is told over HTTP
/// and not by an alert.
#[test]
fn malformed_claims_pass_the_handshake_and_give_no_identity() {
    let serving = serving();
    let mint = || Mint::client(Uuid::from_u128(1), Uuid::from_u128(2));
    let private = [1, 3, 6, 1, 4, 1, 99_999, 9];
    let cases = [
        mint().without_claim(ClaimExtension::Grant),
        mint().claim_raw(ClaimExtension::Subject, &[0x0c, 0x81, 36]),
        mint().with_extension_raw(ClaimExtension::Grant.arcs(), &[5, 0]),
        mint()
            .with_extension_raw(&private, &[5, 0])
            .with_extension_raw(&private, &[5, 0]),
        mint().eku(&[]),
        mint().key_usage(&[KeyUsagePurpose::KeyAgreement]),
        mint().serial(&[0]),
        mint().negative_serial(),
    ];
    for (at, mint) in cases.into_iter().enumerate() {
        let minted = mint.sign_with(&serving.ca);
        let meeting = serving.meet(serving.foreign(Some(&minted)));
        assert!(meeting.succeeded(), "{at}: {:?}", meeting.server_error);
        let leaf = &meeting.server.peer_certificates().unwrap()[0];
        assert!(PeerIdentity::decode(leaf, 1).is_err(), "{at}");
    }
}

#[test]
fn tls_1_2_is_refused() {
    let serving = serving();
    let client = serving.client();
    let old = foreign_client_config(Some(&client), serving.server_ca.root_der(), &[&TLS12]);
    let meeting = serving.meet(old);
    assert!(meeting.server_error.is_some());
    assert_eq!(meeting.alert(), Some(Alert::ProtocolVersion));
}

#[test]
fn no_ticket_is_sent_and_a_revoked_peer_cannot_resume() {
    let serving = serving();
    let client = serving.client();
    // A client that keeps whatever tickets it is sent, and offers them again.
    let config = Arc::new(serving.foreign(Some(&client)));
    let first = meet(
        Arc::clone(&config),
        Arc::clone(&serving.config),
        "work.example",
    );
    assert!(first.succeeded());
    assert_eq!(first.client.tls13_tickets_received(), 0);
    let again = meet(
        Arc::clone(&config),
        Arc::clone(&serving.config),
        "work.example",
    );
    assert_eq!(again.server.handshake_kind(), Some(HandshakeKind::Full));
    serving.revoked.publish(client.revoked()).unwrap();
    let after = meet(config, Arc::clone(&serving.config), "work.example");
    assert_eq!(after.alert(), Some(Alert::CertificateRevoked));
}

#[test]
fn anchors_credential_and_clock_are_read_at_each_handshake() {
    let serving = serving();
    let client = serving.client();
    assert!(serving.peer(&client, "work.example").succeeded());

    let next_ca = TestCa::root("next");
    serving.trust.publish(next_ca.anchors(2)).unwrap();
    let old = serving.peer(&client, "work.example");
    assert_eq!(old.alert(), Some(Alert::UnknownCA));
    assert!(serving.trust.publish(serving.ca.anchors(2)).is_err());

    serving.trust.publish(serving.ca.anchors(3)).unwrap();
    let next = Mint::server(&["work.example"]).sign_with(&serving.server_ca);
    serving.credential.publish(next.credential()).unwrap();
    let meeting = serving.peer(&client, "work.example");
    assert!(meeting.succeeded());
    assert_eq!(meeting.client.peer_certificates().unwrap()[0], *next.leaf());

    serving.clock.advance(Duration::from_secs(31 * 86_400));
    // The client's own clock is the same one here, so let it not judge the server.
    let late = serving.meet(serving.foreign(Some(&client)));
    assert_eq!(late.alert(), Some(Alert::CertificateExpired));
}

#[test]
fn a_peer_refuses_a_server_of_another_name_or_ca() {
    let serving = serving();
    let client = serving.client();
    assert!(serving.peer(&client, "192.0.2.1").succeeded());
    let wrong_name = serving.peer(&client, "home.example").client_error;
    assert_eq!(
        wrong_name,
        Some(Error::InvalidCertificate(CertificateError::NotValidForName))
    );
    // The bundle that verifies clients does not verify servers.
    let anchors = Arc::new(serving.ca.anchors(1));
    let clock = serving.clock.clone();
    let config = peer_client_config(&client.credential(), anchors, clock).unwrap();
    let wrong_ca = meet(config, Arc::clone(&serving.config), "work.example").client_error;
    assert_eq!(
        wrong_ca,
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    );
    // A client certificate is not a server's.
    let posing = Mint::server(&["work.example"])
        .eku(&[ExtendedKeyUsagePurpose::ClientAuth])
        .sign_with(&serving.server_ca);
    serving.credential.publish(posing.credential()).unwrap();
    let wrong_use = serving.peer(&client, "work.example").client_error;
    assert_eq!(
        wrong_use,
        Some(Error::InvalidCertificate(CertificateError::InvalidPurpose))
    );
}

#[test]
fn neither_listener_can_resume() {
    let serving = serving();
    let (_, credential) = channel(
        Mint::server(&["a.example"])
            .sign_with(&serving.server_ca)
            .credential(),
    );
    let enrollment =
        enrollment_server_config(LiveServerResolver::new(credential), Arc::new(SystemClock))
            .unwrap();
    for config in [&serving.config, &enrollment] {
        assert_eq!(config.send_tls13_tickets, 0);
        assert_eq!(config.max_early_data_size, 0);
        assert!(!config.ticketer.enabled());
        assert!(!config.session_storage.can_cache());
    }
}
