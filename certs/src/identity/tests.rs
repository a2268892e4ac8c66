//! One row per defect of a leaf, and the law that decoding never panics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::testing::{ExtendedKeyUsagePurpose, KeyUsagePurpose, Mint, Minted, TestCa, tlv};

const GRANT: Uuid = Uuid::from_u128(0x0190_5a3c_1111_7abc_8def_0123_4567_89ab);
const SUBJECT: Uuid = Uuid::from_u128(0x6f96_19ff_8b86_4011_b42d_00cf_4fc9_64ff);

/// The extendedKeyUsage extension.
const EKU: &[u64] = &[2, 5, 29, 37];

static CA: LazyLock<TestCa> = LazyLock::new(|| TestCa::root("identity tests"));

fn mint() -> Mint {
    Mint::client(GRANT, SUBJECT)
}

fn decode(minted: &Minted) -> Result<PeerIdentity, IdentityError> {
    PeerIdentity::decode(minted.leaf(), 7)
}

#[test]
fn a_good_leaf_gives_all_of_its_identity() {
    let minted = mint()
        .serial(&[0x9a, 0xbc, 0x01])
        .validity(1_700_000_000, 1_800_000_000)
        .sign_with(&CA);
    let identity = decode(&minted).unwrap();
    assert_eq!(identity.grant, GRANT);
    assert_eq!(identity.subject, SUBJECT);
    assert_eq!(identity.serial.as_str(), "9abc01");
    assert_eq!(identity.not_before, 1_700_000_000);
    assert_eq!(identity.not_after, 1_800_000_000);
    assert_eq!(identity.trust_generation, 7);
    assert_eq!(
        identity.fingerprint.as_slice(),
        digest::digest(&digest::SHA256, minted.leaf()).as_ref()
    );
    assert_eq!(identity.clone().reverified(8).trust_generation, 8);
}

fn refused(name: &str, mint: Mint, expected: IdentityError) {
    assert_eq!(decode(&mint.sign_with(&CA)), Err(expected), "{name}");
}

#[test]
fn a_leaf_that_is_not_for_clients_is_refused() {
    use ExtendedKeyUsagePurpose::{Any, ServerAuth};
    use IdentityError::{CaCertificate, MalformedExtension, NoClientAuth, NoDigitalSignature};
    refused("serverAuth only", mint().eku(&[ServerAuth]), NoClientAuth);
    refused("no EKU", mint().eku(&[]), NoClientAuth);
    refused("any EKU", mint().eku(&[Any]), NoClientAuth);
    let agreement = mint().key_usage(&[KeyUsagePurpose::KeyAgreement]);
    refused("no digitalSignature", agreement, NoDigitalSignature);
    refused("CA", mint().as_ca(), CaCertificate);
    let garbage = mint().eku(&[]).with_extension_raw(EKU, &[0x04, 0x00]);
    refused("EKU of garbage", garbage, MalformedExtension);
}

#[test]
fn odd_serials_are_refused() {
    use IdentityError::OddSerial;
    refused("zero", mint().serial(&[0]), OddSerial);
    refused("21 octets", mint().serial(&[1; 21]), OddSerial);
    // 20 octets of magnitude, and the sign octet makes 21.
    refused("20 octets, high bit", mint().serial(&[0x80; 20]), OddSerial);
    refused("negative", mint().negative_serial(), OddSerial);
    assert!(decode(&mint().serial(&[0x7f; 20]).sign_with(&CA)).is_ok());
}

#[test]
fn repeated_extensions_are_refused() {
    use IdentityError::DuplicateExtension;
    let private = [1, 3, 6, 1, 4, 1, 99_999, 9];
    let twice = mint()
        .with_extension_raw(&private, &tlv(0x0c, b"a"))
        .with_extension_raw(&private, &tlv(0x0c, b"b"));
    refused("a foreign extension", twice, DuplicateExtension);
    let server_auth = tlv(0x30, &tlv(0x06, &[0x2b, 6, 1, 5, 5, 7, 3, 1]));
    let twice = mint().with_extension_raw(EKU, &server_auth);
    refused("EKU", twice, DuplicateExtension);
}

#[test]
fn malformed_claims_are_refused() {
    let good = oid::encode(Uuid::from_u128(3));
    let upper = SUBJECT.to_string().to_uppercase();
    let trailing = [good.clone(), vec![5, 0]].concat();
    for extension in ClaimExtension::ALL {
        let raw = |der: &[u8]| mint().claim_raw(extension, der);
        let again = |mint: Mint| mint.with_extension_raw(extension.arcs(), &good);
        let cases = [
            (mint().without_claim(extension), ClaimDefect::Missing),
            (again(raw(&good)), ClaimDefect::Duplicate),
            (again(mint()), ClaimDefect::Duplicate),
            (raw(&tlv(0x13, upper.as_bytes())), ClaimDefect::WrongTag),
            (raw(&tlv(0x0c, upper.as_bytes())), ClaimDefect::NotCanonical),
            (raw(&trailing), ClaimDefect::TrailingBytes),
            (raw(&[]), ClaimDefect::WrongLength),
        ];
        for (mint, defect) in cases {
            let expected = IdentityError::Claim { extension, defect };
            refused(extension.name(), mint, expected);
        }
    }
}

#[test]
fn a_leaf_without_key_usage_is_accepted() {
    assert!(decode(&mint().key_usage(&[]).sign_with(&CA)).is_ok());
}

#[test]
fn the_serial_is_spelled_without_its_sign_octet() {
    let cases: [(&[u8], Option<&str>); 9] = [
        (&[1], Some("01")),
        (&[0x7f], Some("7f")),
        (&[0, 0x80], Some("80")),
        (&[0x0a, 0x0b], Some("0a0b")),
        (&[], None),
        (&[0], None),
        (&[0, 0x7f], None),
        (&[0, 0, 0x80], None),
        (&[0x80], None),
    ];
    for (content, expected) in cases {
        let serial = Serial::decode(content).ok();
        assert_eq!(serial.as_ref().map(Serial::as_str), expected, "{content:?}");
    }
}

#[test]
fn bytes_after_the_certificate_and_non_certificates_are_refused() {
    let minted = mint().sign_with(&CA);
    let trailing = [minted.leaf().as_ref(), &[0]].concat();
    for bytes in [&trailing[..], &[], &[0x30, 0x80], GRANT.as_bytes()] {
        assert_eq!(
            PeerIdentity::decode(bytes, 0),
            Err(IdentityError::MalformedCertificate)
        );
    }
}

static GOOD: LazyLock<Minted> = LazyLock::new(|| mint().sign_with(&CA));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever happens to the bytes, decoding answers; and when it answers with an identity, that
    /// identity is what the bytes state.
    #[test]
    fn decoding_a_mutated_certificate_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut der = GOOD.leaf().to_vec();
        for (at, octet) in edits {
            let at = at.index(der.len());
            der[at] = octet;
        }
        if let Some(cut) = cut {
            let length = cut.index(der.len());
            der.truncate(length);
        }
        if let Ok(identity) = PeerIdentity::decode(&der, 0) {
            let states = |value: Uuid| der.windows(38).any(|part| part == oid::encode(value));
            prop_assert!(states(identity.grant) && states(identity.subject));
            prop_assert_eq!(identity.fingerprint, fingerprint(&der));
        }
    }

    #[test]
    fn decoding_noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(PeerIdentity::decode(&noise, 0).is_err());
    }
}
