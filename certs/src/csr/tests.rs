//! Requests made by an independent implementation, good and bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509NameBuilder, X509Req, X509ReqBuilder};
use proptest::prelude::*;

use super::*;
use crate::key::PrivateKey;
use crate::trust::pem_section;

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn unsigned(key: &PKey<Private>) -> X509ReqBuilder {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, "home").unwrap();
    let mut builder = X509ReqBuilder::new().unwrap();
    builder.set_subject_name(&name.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder
}

fn request(key: &PKey<Private>, digest: MessageDigest) -> X509Req {
    let mut builder = unsigned(key);
    builder.sign(key, digest).unwrap();
    builder.build()
}

fn pem(request: &X509Req) -> String {
    String::from_utf8(request.to_pem().unwrap()).unwrap()
}

#[test]
fn every_accepted_kind_of_key_is_recognised() {
    let sha256 = MessageDigest::sha256();
    let ed25519 = PKey::generate_ed25519().unwrap();
    let cases = [
        (ec(Nid::X9_62_PRIME256V1), sha256, KeyKind::P256),
        (ec(Nid::SECP384R1), MessageDigest::sha384(), KeyKind::P384),
        (ed25519, MessageDigest::null(), KeyKind::Ed25519),
        (rsa(2048), sha256, KeyKind::Rsa),
        (rsa(3072), MessageDigest::sha512(), KeyKind::Rsa),
    ];
    for (key, digest, kind) in cases {
        let csr = VerifiedCsr::parse(&pem(&request(&key, digest))).unwrap();
        assert_eq!(csr.kind(), kind);
        assert_eq!(csr.public_key(), key.public_key_to_der().unwrap());
    }
}

#[test]
fn our_own_requests_are_accepted_here_and_by_openssl() {
    let key = PrivateKey::generate_p256().unwrap();
    let pem = key.csr_pem("home.example").unwrap();
    let csr = VerifiedCsr::parse(&pem).unwrap();
    assert_eq!(csr.public_key(), key.public_key().unwrap());
    let theirs = X509Req::from_pem(pem.as_bytes()).unwrap();
    assert!(theirs.verify(&theirs.public_key().unwrap()).unwrap());
    assert_eq!(csr.sha256(), VerifiedCsr::parse(&pem).unwrap().sha256());
}

#[test]
fn requested_extensions_do_not_matter() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let mut builder = unsigned(&key);
    let mut extensions = Stack::new().unwrap();
    let ca = BasicConstraints::new().critical().ca().build().unwrap();
    extensions.push(ca).unwrap();
    let san = SubjectAlternativeName::new()
        .dns("bank.example")
        .build(&builder.x509v3_context(None))
        .unwrap();
    extensions.push(san).unwrap();
    builder.add_extensions(&extensions).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    assert!(VerifiedCsr::parse(&pem(&builder.build())).is_ok());
}

#[test]
fn weak_keys_and_signatures_are_refused() {
    let p256 = ec(Nid::X9_62_PRIME256V1);
    let sha1 = MessageDigest::sha1();
    let sha256 = MessageDigest::sha256();
    let cases = [
        ("RSA 1024", request(&rsa(1024), sha256), CsrError::RsaSize),
        ("RSA 2040", request(&rsa(2040), sha256), CsrError::RsaSize),
        (
            "RSA, SHA-1",
            request(&rsa(2048), sha1),
            CsrError::UnsupportedSignature,
        ),
        (
            "RSA, MD5",
            request(&rsa(2048), MessageDigest::md5()),
            CsrError::UnsupportedSignature,
        ),
        (
            "P-256, SHA-1",
            request(&p256, sha1),
            CsrError::UnsupportedSignature,
        ),
        (
            "P-521",
            request(&ec(Nid::SECP521R1), sha256),
            CsrError::UnsupportedKey,
        ),
        (
            "secp256k1",
            request(&ec(Nid::SECP256K1), sha256),
            CsrError::UnsupportedKey,
        ),
        (
            "Ed448",
            request(&PKey::generate_ed448().unwrap(), MessageDigest::null()),
            CsrError::UnsupportedKey,
        ),
    ];
    for (name, request, expected) in cases {
        assert_eq!(VerifiedCsr::parse(&pem(&request)), Err(expected), "{name}");
    }
}

#[test]
fn a_request_for_someone_elses_key_is_refused() {
    let (mine, theirs) = (ec(Nid::X9_62_PRIME256V1), ec(Nid::X9_62_PRIME256V1));
    let mut builder = unsigned(&theirs);
    builder.sign(&mine, MessageDigest::sha256()).unwrap();
    let forged = VerifiedCsr::parse(&pem(&builder.build()));
    assert_eq!(forged, Err(CsrError::BadSignature));
}

#[test]
fn anything_but_one_request_is_refused() {
    let der = request(&ec(Nid::X9_62_PRIME256V1), MessageDigest::sha256())
        .to_der()
        .unwrap();
    let good = pem_section("CERTIFICATE REQUEST", &der);
    let trailing = [&der[..], &[0]].concat();
    let cases = [
        ("empty", String::new(), CsrError::MalformedPem),
        ("text", "hello".into(), CsrError::MalformedPem),
        ("two", format!("{good}{good}"), CsrError::MalformedPem),
        (
            "label",
            pem_section("CERTIFICATE", &der),
            CsrError::MalformedPem,
        ),
        (
            "with a key",
            format!("{good}{}", *PrivateKey::generate_p256().unwrap().to_pem()),
            CsrError::MalformedPem,
        ),
        (
            "cut",
            pem_section("CERTIFICATE REQUEST", &der[..40]),
            CsrError::Malformed,
        ),
        (
            "trailing",
            pem_section("CERTIFICATE REQUEST", &trailing),
            CsrError::Malformed,
        ),
        (
            "huge",
            format!("{}{good}", " ".repeat(CSR_MAX_BYTES)),
            CsrError::TooLarge,
        ),
    ];
    assert!(VerifiedCsr::parse(&good).is_ok());
    for (name, text, expected) in cases {
        assert_eq!(VerifiedCsr::parse(&text), Err(expected), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// One changed bit anywhere: refused, or (in the unsigned parts of the encoding only) the same
    /// key. Never a panic.
    #[test]
    fn a_changed_request_never_verifies_for_another_key(at: prop::sample::Index, bit in 0u8..8) {
        let key = PrivateKey::generate_p256().unwrap();
        let csr = VerifiedCsr::parse(&key.csr_pem("home").unwrap()).unwrap();
        let mut der = csr.der().to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        if let Ok(other) = VerifiedCsr::parse(&pem_section("CERTIFICATE REQUEST", &der)) {
            prop_assert_eq!(other.public_key(), csr.public_key());
        }
    }
}
