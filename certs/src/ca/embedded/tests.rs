//! What the embedded CA issues, seen by an independent implementation, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use uuid::Uuid;

use super::*;
use crate::ca::CLIENT_LIFETIME;
use crate::identity::{IdentityError, PeerIdentity};
use crate::oid::ClaimDefect;
use crate::testing::{Mint, TestCa};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;
const GRANT: Uuid = Uuid::from_u128(11);
const SUBJECT: Uuid = Uuid::from_u128(22);

fn ca() -> EmbeddedCa {
    let material = EmbeddedCa::generate("work root", NOW, &SystemRandom::new()).unwrap();
    EmbeddedCa::load(material.root, &material.key).unwrap()
}

fn csr() -> VerifiedCsr {
    let key = PrivateKey::generate_p256().unwrap();
    VerifiedCsr::parse(&key.csr_pem("whatever the peer likes").unwrap()).unwrap()
}

fn client() -> ClientIssue {
    ClientIssue {
        id: Uuid::from_u128(1),
        csr: csr(),
        grant: GRANT,
        subject: SUBJECT,
        lifetime: CLIENT_LIFETIME,
        not_after_cap: None,
        now: NOW,
    }
}

fn server(names: &[&'static str]) -> ServerIssue {
    ServerIssue {
        csr: csr(),
        names: names
            .iter()
            .map(|name| ServerName::try_from(*name).unwrap())
            .collect(),
        lifetime: CLIENT_LIFETIME,
        now: NOW,
    }
}

#[test]
fn the_root_is_a_ca_for_leaves_only_and_lasts_ten_years() {
    let ca = ca();
    let parsed = identity::parse(ca.root()).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    assert_eq!(parsed.raw_serial().len(), SERIAL_OCTETS);
    assert_eq!(parsed.validity().not_after.timestamp(), NOW + 3_650 * DAY);
    let theirs = X509::from_der(ca.root()).unwrap();
    assert!(theirs.verify(&theirs.public_key().unwrap()).unwrap());
    assert_eq!(ca.anchors(), vec![ca.root().clone()]);
}

#[test]
fn a_client_leaf_is_exactly_what_was_asked_for() {
    let ca = ca();
    let issued = ca.sign_client(&client()).unwrap();
    let identity = PeerIdentity::decode(issued.leaf(), 0).unwrap();
    assert_eq!((identity.grant, identity.subject), (GRANT, SUBJECT));
    assert_eq!(identity.not_before, NOW - 300);
    assert_eq!(identity.not_after, NOW + 90 * DAY);
    assert_eq!(identity.serial.as_str().len(), 2 * SERIAL_OCTETS);
    assert_eq!(issued.not_after(), identity.not_after);
    assert_eq!(*issued.serial(), identity.serial);
    assert_eq!(issued.fingerprint(), identity.fingerprint);

    let parsed = identity::parse(issued.leaf()).unwrap();
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
    assert!(parsed.subject_alternative_name().unwrap().is_none());
    assert!(!parsed.is_ca());
    let claims = parsed.extensions().iter().filter(|extension| {
        ClaimExtension::ALL
            .iter()
            .any(|claim| extension.oid.as_bytes() == claim.der_content())
    });
    assert!(claims.clone().count() == 2 && claims.into_iter().all(|claim| !claim.critical));

    let theirs = X509::from_der(issued.leaf()).unwrap();
    let root = X509::from_der(ca.root()).unwrap();
    assert!(theirs.verify(&root.public_key().unwrap()).unwrap());
    assert_eq!(
        theirs.authority_key_id().unwrap().as_slice(),
        root.subject_key_id().unwrap().as_slice()
    );
    assert!(theirs.subject_key_id().is_some());
    let name = theirs.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    let expected = format!("grant-{GRANT}");
    assert_eq!(name.unwrap().data().as_slice(), expected.as_bytes());
    assert_eq!(issued.chain().len(), 1);
    assert_eq!(issued.chain_with_root()[1], *ca.root());
}

#[test]
fn every_serial_number_is_another() {
    let ca = ca();
    let serials: std::collections::HashSet<_> = (0..64)
        .map(|_| {
            let issued = ca.sign_client(&client()).unwrap();
            PeerIdentity::decode(issued.leaf(), 0).unwrap().serial
        })
        .collect();
    assert_eq!(serials.len(), 64);
}

#[test]
fn the_end_is_the_first_of_lifetime_grant_and_root() {
    let ca = ca();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    // (lifetime, cap, now) -> not_after, or what is left
    let near_end = NOW + 3_650 * DAY - 1_000;
    let cases = [
        (minutes(60), None, NOW, Ok(NOW + 3_600)),
        (minutes(60), Some(NOW + 600), NOW, Ok(NOW + 600)),
        (minutes(60), Some(NOW + 7_200), NOW, Ok(NOW + 3_600)),
        (minutes(60), None, near_end, Ok(near_end + 1_000)),
        (minutes(5), None, NOW, Ok(NOW + 300)),
        (minutes(4), None, NOW, Err(240)),
        (minutes(60), Some(NOW + 299), NOW, Err(299)),
        (minutes(60), Some(NOW - 5), NOW, Err(-5)),
        (minutes(60), None, near_end + 900, Err(100)),
    ];
    for (lifetime, not_after_cap, now, expected) in cases {
        let issued = ca.sign_client(&ClientIssue {
            lifetime,
            not_after_cap,
            now,
            ..client()
        });
        let expected = expected.map_err(|available| CaError::LifetimeTooShort { available });
        assert_eq!(issued.map(|issued| issued.not_after()), expected);
    }
}

#[test]
fn a_server_leaf_is_for_its_names_and_not_for_clients() {
    let ca = ca();
    let issued = ca
        .sign_server(&server(&["work.example", "192.0.2.1", "2001:db8::1"]))
        .unwrap();
    let parsed = identity::parse(issued.leaf()).unwrap();
    let purposes = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth);
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 3);
    assert_eq!(ca.sign_server(&server(&[])), Err(CaError::NoName));
}

#[test]
fn all_kinds_of_peers_keys_are_signed() {
    use openssl::hash::MessageDigest;
    use openssl::rsa::Rsa;
    use openssl::x509::X509ReqBuilder;
    let ca = ca();
    let ed25519 = (PKey::generate_ed25519().unwrap(), MessageDigest::null());
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    for (key, digest) in [ed25519, (rsa, MessageDigest::sha256())] {
        let mut request = X509ReqBuilder::new().unwrap();
        request.set_pubkey(&key).unwrap();
        request.sign(&key, digest).unwrap();
        let pem = String::from_utf8(request.build().to_pem().unwrap()).unwrap();
        let csr = VerifiedCsr::parse(&pem).unwrap();
        let issued = ca.sign_client(&ClientIssue { csr, ..client() }).unwrap();
        let theirs = X509::from_der(issued.leaf()).unwrap();
        assert!(theirs.public_key().unwrap().public_eq(&key));
    }
}

#[test]
fn a_root_loads_with_its_own_key_only() {
    let random = SystemRandom::new();
    let material = EmbeddedCa::generate("a", NOW, &random).unwrap();
    let other = EmbeddedCa::generate("b", NOW, &random).unwrap();
    let loaded = EmbeddedCa::load(material.root.clone(), &other.key);
    assert_eq!(loaded.err(), Some(CaError::KeyMismatch));
    let leaf = Mint::client(GRANT, SUBJECT).sign_with(&TestCa::root("c"));
    let loaded = EmbeddedCa::load(leaf.leaf().clone(), leaf.private_key());
    assert_eq!(
        loaded.err(),
        Some(CaError::Root(TrustError::NotCa { position: 1 }))
    );
    let debug = format!("{material:?}");
    assert!(debug.contains("redacted"), "{debug}");
}

/// A back end that returns something else than was asked for is found out.
#[test]
fn what_does_not_match_the_request_is_refused() {
    let root = TestCa::root("external");
    let key = PrivateKey::generate_p256().unwrap();
    let now = crate::clock::Clock::unix_seconds(&crate::clock::SystemClock);
    let minted = Mint::client(GRANT, SUBJECT).sign_with(&root);
    let own = VerifiedCsr::parse(&minted.private_key().csr_pem("x").unwrap()).unwrap();
    let asked = ClientIssue {
        csr: own,
        now,
        ..client()
    };
    let check = |minted: &crate::testing::Minted, asked: &ClientIssue| {
        let leaf = minted.leaf().clone();
        IssuedCertificate::verify_matches(leaf, Vec::new(), root.root_der().clone(), asked)
            .map(|issued| issued.not_after())
    };
    assert!(check(&minted, &asked).is_ok());
    let other_key = VerifiedCsr::parse(&key.csr_pem("x").unwrap()).unwrap();
    let mismatches = [
        (
            "grant id",
            ClientIssue {
                grant: SUBJECT,
                ..asked.clone()
            },
        ),
        (
            "subject user id",
            ClientIssue {
                subject: GRANT,
                ..asked.clone()
            },
        ),
        (
            "public key",
            ClientIssue {
                csr: other_key,
                ..asked.clone()
            },
        ),
        (
            "end of validity",
            ClientIssue {
                not_after_cap: Some(now + 60),
                ..asked.clone()
            },
        ),
    ];
    for (what, asked) in mismatches {
        assert_eq!(check(&minted, &asked), Err(CaError::Mismatch { what }));
    }
    let bare = Mint::client(GRANT, SUBJECT).without_claim(ClaimExtension::Grant);
    assert_eq!(
        check(&bare.sign_with(&root), &asked),
        Err(CaError::Identity(IdentityError::Claim {
            extension: ClaimExtension::Grant,
            defect: ClaimDefect::Missing,
        }))
    );
}
