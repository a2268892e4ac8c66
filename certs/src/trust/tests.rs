//! What may be an anchor, and what may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use rcgen::IsCa;

use super::*;
use crate::key::PrivateKey;
use crate::testing::{KeyUsagePurpose, TestCa};

#[test]
fn only_certificates_that_may_sign_are_anchors() {
    let good = TestCa::root("good");
    let not_ca = TestCa::root_with("not a CA", |params| params.is_ca = IsCa::ExplicitNoCa);
    let silent = TestCa::root_with("no constraints", |params| params.is_ca = IsCa::NoCa);
    let crl_only = TestCa::root_with("CRLs only", |params| {
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    let no_usage = TestCa::root_with("no keyUsage", |params| params.key_usages = vec![]);
    let make = |roots: &[&TestCa]| {
        let roots = roots.iter().map(|ca| ca.der().clone()).collect();
        TrustAnchors::new(3, roots).map(|anchors| anchors.roots().count())
    };
    assert_eq!(make(&[&good, &no_usage]), Ok(2));
    assert_eq!(make(&[&good, &good]), Ok(1));
    assert_eq!(make(&[]), Err(TrustError::Empty));
    for bad in [&not_ca, &silent, &crl_only] {
        assert_eq!(make(&[&good, bad]), Err(TrustError::NotCa { position: 2 }));
    }
    let garbage = vec![good.der().clone(), CertificateDer::from(vec![0x30, 0])];
    assert_eq!(
        TrustAnchors::new(1, garbage).map(|_| ()),
        Err(TrustError::Malformed { position: 2 })
    );
}

#[test]
fn a_bundle_survives_the_way_through_pem() {
    let cas = [TestCa::root("a"), TestCa::root("b")];
    let roots: Vec<_> = cas.iter().map(|ca| ca.der().clone()).collect();
    let anchors = TrustAnchors::new(9, roots.clone()).unwrap();
    let again = TrustAnchors::from_pem(9, anchors.to_pem().as_bytes()).unwrap();
    assert!(again.roots().eq(&roots));
    assert_eq!(again.generation(), 9);
    assert_eq!(again.earliest_not_after(), anchors.earliest_not_after());
    let lines = anchors.to_pem();
    assert!(lines.lines().all(|line| line.len() <= 64));
    let theirs = openssl::x509::X509::stack_from_pem(lines.as_bytes()).unwrap();
    assert_eq!(theirs.len(), 2);
}

/// The trap is a bundle that cannot be read and counts as an empty one.
#[test]
fn a_bundle_that_is_not_one_is_an_error() {
    let ca = TestCa::root("a");
    let pem = ca.root_pem();
    let key = PrivateKey::generate_p256().unwrap().to_pem();
    let empty = |text: &[u8]| TrustAnchors::from_pem(1, text).map(|_| ());
    for nothing in [&b""[..], b"garbage", ca.der().as_ref()] {
        assert!(empty(nothing).is_err());
    }
    for mixed in [
        format!("{pem}{}", *key),
        pem.replace("-----END", "-----ENT"),
    ] {
        let result = empty(mixed.as_bytes());
        assert!(
            matches!(result, Err(TrustError::MalformedPem { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn pem_sections_are_those_of_openssl() {
    for ca in [
        TestCa::root("a"),
        TestCa::root("a longer name for another length"),
    ] {
        let theirs = openssl::x509::X509::from_der(ca.der()).unwrap();
        assert_eq!(ca.root_pem().as_bytes(), theirs.to_pem().unwrap());
    }
}
