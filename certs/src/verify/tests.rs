//! One row per defect of a chain, and agreement with an independent implementation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::LazyLock;

use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509PurposeId, X509StoreContext};
use proptest::prelude::*;
use rcgen::{BasicConstraints, IsCa};
use rustls::AlertDescription as Alert;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::clock::{Clock, SystemClock, unix_time};
use crate::identity::PeerIdentity;
use crate::testing::{ExtendedKeyUsagePurpose, KeyUsagePurpose, Mint, Minted, TestCa};

const DAY: i64 = 86_400;

fn mint() -> Mint {
    Mint::client(Uuid::from_u128(1), Uuid::from_u128(2))
}

fn verify(minted: &Minted, anchors: &TrustAnchors) -> Result<(), ChainError> {
    let now = unix_time(SystemClock.unix_seconds());
    verify_chain(&minted.chain, anchors, &RevokedSet::default(), now)
}

/// What OpenSSL says of the same chain, for a TLS client, now.
fn openssl_accepts(minted: &Minted, root: &CertificateDer<'_>) -> bool {
    let x509 = |der: &CertificateDer<'_>| X509::from_der(der).unwrap();
    let mut param = X509VerifyParam::new().unwrap();
    param.set_time(SystemClock.unix_seconds());
    param.set_purpose(X509PurposeId::SSL_CLIENT).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(x509(root)).unwrap();
    store.set_param(&param).unwrap();
    let mut intermediates = Stack::new().unwrap();
    for der in &minted.chain[1..] {
        intermediates.push(x509(der)).unwrap();
    }
    let leaf = x509(minted.leaf());
    X509StoreContext::new()
        .unwrap()
        .init(&store.build(), &leaf, &intermediates, |context| {
            context.verify_cert()
        })
        .unwrap()
}

static ROOT: LazyLock<TestCa> = LazyLock::new(|| TestCa::root("root"));

#[test]
fn good_chains_of_every_key_kind_and_depth_verify() {
    use crate::testing::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
    let anchors = ROOT.anchors(1);
    let below = ROOT.intermediate("below");
    let minted = [
        mint().sign_with(&ROOT),
        mint().sign_with(&below),
        mint().sign_with(&below.intermediate("further below")),
        mint().root_in_chain(true).sign_with(&below),
        mint()
            .key_algorithm(&PKCS_ECDSA_P384_SHA384)
            .sign_with(&ROOT),
        mint().key_algorithm(&PKCS_ED25519).sign_with(&ROOT),
        mint().key_algorithm(&PKCS_RSA_SHA256).sign_with(&ROOT),
    ];
    for (at, minted) in minted.iter().enumerate() {
        assert_eq!(verify(minted, &anchors), Ok(()), "chain {at}");
        assert!(openssl_accepts(minted, ROOT.root_der()), "chain {at}");
    }
}

/// Refused with this error and this alert, and by OpenSSL too.
fn refused(name: &str, minted: &Minted, matches: fn(&ChainError) -> bool, alert: Alert) {
    let error = verify(minted, &ROOT.anchors(1)).unwrap_err();
    assert!(matches(&error), "{name}: {error:?}");
    assert_eq!(Alert::from(error.for_client()), alert, "{name}");
    // OpenSSL cannot read garbage, and lets a CA certificate identify a client.
    if !["garbage", "CA as leaf"].contains(&name) {
        assert!(!openssl_accepts(minted, ROOT.root_der()), "{name}");
    }
}

#[test]
fn each_defect_of_a_leaf_has_its_own_error_and_alert() {
    use ChainError as E;
    let on_root = |mint: Mint| mint.sign_with(&ROOT);
    refused(
        "expired",
        &on_root(mint().expired()),
        |e| matches!(e, E::Expired { now, not_after } if now > not_after),
        Alert::CertificateExpired,
    );
    refused(
        "not yet valid",
        &on_root(mint().not_yet_valid()),
        |e| matches!(e, E::NotYetValid { now, not_before } if now < not_before),
        Alert::CertificateExpired,
    );
    let unknown = |name: &str, minted: &Minted, matches| {
        refused(name, minted, matches, Alert::UnknownCA);
    };
    let server_only = on_root(mint().eku(&[ExtendedKeyUsagePurpose::ServerAuth]));
    unknown("serverAuth only", &server_only, |e| *e == E::WrongPurpose);
    unknown("CA as leaf", &on_root(mint().as_ca()), |e| {
        *e == E::Invalid(webpki::Error::CaUsedAsEndEntity)
    });
    let critical = mint().with_critical_extension_raw(&[1, 3, 6, 1, 4, 1, 99_999, 9], &[5, 0]);
    unknown("unknown critical extension", &on_root(critical), |e| {
        *e == E::Invalid(webpki::Error::UnsupportedCriticalExtension)
    });
    let mut garbage = on_root(mint());
    garbage.chain = vec![CertificateDer::from(vec![0x30, 0x01, 0x00])];
    unknown("garbage", &garbage, |e| *e == E::Malformed);
    let now = unix_time(SystemClock.unix_seconds());
    let nothing = verify_chain(&[], &ROOT.anchors(1), &RevokedSet::default(), now);
    assert_eq!(nothing, Err(E::Empty));
}

#[test]
fn each_defect_of_a_path_has_its_own_error() {
    use ChainError as E;
    let unknown = |name: &str, minted: &Minted, matches| {
        refused(name, minted, matches, Alert::UnknownCA);
    };
    let foreign = mint().sign_with(&TestCa::root("foreign"));
    unknown("foreign CA", &foreign, |e| *e == E::UnknownIssuer);
    // Same name, another key: the issuer is found and its signature is wrong.
    let impostor = mint().sign_with(&TestCa::root("root"));
    unknown("impostor CA", &impostor, |e| *e == E::BadSignature);
    let own = mint().self_signed();
    unknown("self-signed", &own, |e| *e == E::UnknownIssuer);
    let mut alone = mint().sign_with(&ROOT.intermediate("left out"));
    alone.chain.truncate(1);
    unknown("intermediate left out", &alone, |e| *e == E::UnknownIssuer);

    let cannot_sign = ROOT.intermediate_with("cannot sign", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let below = mint().sign_with(&cannot_sign);
    unknown("no keyCertSign", &below, |e| *e == E::IssuerMayNotSign);
    let not_a_ca = ROOT.intermediate_with("not a CA", |params| params.is_ca = IsCa::ExplicitNoCa);
    unknown("issuer is a leaf", &mint().sign_with(&not_a_ca), |e| {
        *e == E::Invalid(webpki::Error::EndEntityUsedAsCa)
    });
    let depth_0 = ROOT.intermediate_with("depth 0", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let too_deep = mint().sign_with(&depth_0.intermediate("depth 1"));
    unknown("path too long", &too_deep, |e| {
        *e == E::Invalid(webpki::Error::PathLenConstraintViolated)
    });
}

#[test]
fn an_expired_anchor_is_no_anchor() {
    let now = SystemClock.unix_seconds();
    let expired = TestCa::root_with("expired root", |params| {
        params.not_after = OffsetDateTime::from_unix_timestamp(now - DAY).unwrap();
        params.not_before = OffsetDateTime::from_unix_timestamp(now - 2 * DAY).unwrap();
    });
    let minted = mint().sign_with(&expired);
    assert_eq!(
        verify(&minted, &expired.anchors(1)),
        Err(ChainError::UnknownIssuer)
    );
    assert!(!openssl_accepts(&minted, expired.root_der()));
    // Another anchor beside it stays good.
    let roots = vec![expired.root_der().clone(), ROOT.root_der().clone()];
    let both = TrustAnchors::new(1, roots).unwrap();
    assert_eq!(verify(&mint().sign_with(&ROOT), &both), Ok(()));
}

#[test]
fn a_revoked_leaf_is_refused_by_fingerprint_and_by_serial() {
    let minted = mint().sign_with(&ROOT);
    let other = mint().sign_with(&ROOT);
    let now = unix_time(SystemClock.unix_seconds());
    let anchors = ROOT.anchors(1);
    let check = |revoked: RevokedSet| verify_chain(&minted.chain, &anchors, &revoked, now);
    assert_eq!(check(minted.revoked()), Err(ChainError::Revoked));
    let by_fingerprint = RevokedSet::new([(minted.fingerprint(), other.serial())]);
    assert_eq!(check(by_fingerprint), Err(ChainError::Revoked));
    let by_serial = RevokedSet::new([(other.fingerprint(), minted.serial())]);
    assert_eq!(check(by_serial), Err(ChainError::Revoked));
    assert_eq!(check(other.revoked()), Ok(()));
}

#[test]
fn expiry_is_inclusive_and_follows_the_time_given() {
    let minted = mint()
        .validity(1_800_000_000, 1_800_003_600)
        .sign_with(&ROOT);
    let anchors = ROOT.anchors(1);
    let at = |seconds| {
        let revoked = RevokedSet::default();
        verify_chain(&minted.chain, &anchors, &revoked, unix_time(seconds)).is_ok()
    };
    assert!(!at(1_799_999_999));
    assert!(at(1_800_000_000));
    assert!(at(1_800_003_600));
    assert!(!at(1_800_003_601));
}

#[derive(Debug, Clone)]
struct Shape {
    depth: usize,
    leaf_window: (i64, i64),
    ca_window: (i64, i64),
    usages: Vec<ExtendedKeyUsagePurpose>,
    key_usage: Vec<KeyUsagePurpose>,
    ca_signs: bool,
    ca_is_ca: bool,
    path_length: Option<u8>,
    foreign: bool,
    critical: bool,
    leave_out: bool,
}

/// Mostly good, so that accepted chains are common enough to be compared.
fn shapes() -> impl Strategy<Value = Shape> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    use KeyUsagePurpose::{DigitalSignature, KeyAgreement};
    let window = prop_oneof![6 => Just((-30, 30)), 1 => Just((-30, -1)), 1 => Just((1, 30))];
    let usages = prop_oneof![
        5 => Just(vec![ClientAuth]),
        1 => Just(vec![ServerAuth, ClientAuth]),
        1 => Just(vec![ServerAuth]),
    ];
    let key_usage = prop_oneof![
        5 => Just(vec![DigitalSignature]),
        1 => Just(vec![]),
        1 => Just(vec![KeyAgreement, DigitalSignature]),
    ];
    let rarely = || prop::bool::weighted(0.1);
    let limits = (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.9),
        prop::option::weighted(0.3, 0u8..3),
    );
    (
        (0usize..3, window.clone(), window, usages, key_usage),
        limits,
        (rarely(), rarely(), rarely()),
    )
        .prop_map(|(certificate, limits, odd)| Shape {
            depth: certificate.0,
            leaf_window: certificate.1,
            ca_window: certificate.2,
            usages: certificate.3,
            key_usage: certificate.4,
            ca_signs: limits.0,
            ca_is_ca: limits.1,
            path_length: limits.2,
            foreign: odd.0,
            critical: odd.1,
            leave_out: odd.2,
        })
}

fn build(shape: &Shape) -> Minted {
    let now = SystemClock.unix_seconds();
    let days = |days: i64| OffsetDateTime::from_unix_timestamp(now + days * DAY).unwrap();
    let mut ca = if shape.foreign {
        TestCa::root("foreign")
    } else {
        ROOT.clone()
    };
    for level in 0..shape.depth {
        ca = ca.intermediate_with(&format!("level {level}"), |params| {
            params.not_before = days(shape.ca_window.0);
            params.not_after = days(shape.ca_window.1);
            params.is_ca = match (shape.ca_is_ca, shape.path_length) {
                (false, _) => IsCa::ExplicitNoCa,
                (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
                (true, Some(length)) => IsCa::Ca(BasicConstraints::Constrained(length)),
            };
            if !shape.ca_signs {
                params.key_usages = vec![KeyUsagePurpose::CrlSign];
            }
        });
    }
    let mut leaf = mint()
        .validity(
            now + shape.leaf_window.0 * DAY,
            now + shape.leaf_window.1 * DAY,
        )
        .eku(&shape.usages)
        .key_usage(&shape.key_usage);
    if shape.critical {
        leaf = leaf.with_critical_extension_raw(&[1, 3, 6, 1, 4, 1, 99_999, 9], &[5, 0]);
    }
    let mut minted = leaf.sign_with(&ca);
    if shape.leave_out && minted.chain.len() > 1 {
        minted.chain.remove(1);
    }
    minted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Two implementations with no code in common accept the same chains.
    #[test]
    fn openssl_agrees(shape in shapes()) {
        let minted = build(&shape);
        let ours = verify(&minted, &ROOT.anchors(1)).is_ok()
            && PeerIdentity::decode(minted.leaf(), 1).is_ok();
        prop_assert_eq!(ours, openssl_accepts(&minted, ROOT.root_der()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Every bit of a certificate is under its signature: none can change unnoticed, in the leaf
    /// or above it, and no change makes the verifier panic.
    #[test]
    fn a_changed_chain_never_verifies(which in 0usize..2, at: prop::sample::Index, bit in 0u8..8) {
        let mut minted = CHAIN.clone();
        let mut der = minted.chain[which].to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        minted.chain[which] = der.into();
        prop_assert!(verify(&minted, &ROOT.anchors(1)).is_err());
    }
}

static CHAIN: LazyLock<Minted> = LazyLock::new(|| mint().sign_with(&ROOT.intermediate("below")));
