//! Keys in every form an operator may bring, and their silence.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;

use super::*;

#[test]
fn keys_from_openssl_are_read_in_every_form() {
    let ec = |curve| EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap();
    let (p256, p384) = (ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1));
    let rsa = Rsa::generate(2048).unwrap();
    let ed25519 = PKey::generate_ed25519().unwrap();
    let public = |key: &PKey<_>| key.public_key_to_der().unwrap();
    let p256_key = PKey::from_ec_key(p256.clone()).unwrap();
    let p384_key = PKey::from_ec_key(p384.clone()).unwrap();
    let rsa_key = PKey::from_rsa(rsa.clone()).unwrap();
    let cases = [
        (
            "P-256 PKCS#8",
            p256_key.private_key_to_pem_pkcs8(),
            &p256_key,
        ),
        ("P-256 SEC1", p256.private_key_to_pem(), &p256_key),
        (
            "P-384 PKCS#8",
            p384_key.private_key_to_pem_pkcs8(),
            &p384_key,
        ),
        ("P-384 SEC1", p384.private_key_to_pem(), &p384_key),
        ("RSA PKCS#8", rsa_key.private_key_to_pem_pkcs8(), &rsa_key),
        ("RSA PKCS#1", rsa.private_key_to_pem(), &rsa_key),
        (
            "Ed25519 PKCS#8",
            ed25519.private_key_to_pem_pkcs8(),
            &ed25519,
        ),
    ];
    for (name, pem, theirs) in cases {
        let key = PrivateKey::from_pem(&pem.unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(key.public_key().unwrap(), public(theirs), "{name}");
        let again = PKey::private_key_from_pem(key.to_pem().as_bytes()).unwrap();
        assert!(again.public_eq(theirs), "{name}");
    }
}

#[test]
fn weak_foreign_or_absent_keys_are_refused() {
    let rsa = Rsa::generate(1024).unwrap();
    let group = EcGroup::from_curve_name(Nid::SECP256K1).unwrap();
    let k1 = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let good = PrivateKey::generate_p256().unwrap().to_pem();
    let cases = [
        (rsa.private_key_to_pem().unwrap(), KeyError::Unsupported),
        (
            k1.private_key_to_pem_pkcs8().unwrap(),
            KeyError::Unsupported,
        ),
        (b"".to_vec(), KeyError::MalformedPem),
        (
            format!("{}{}", *good, *good).into_bytes(),
            KeyError::MalformedPem,
        ),
    ];
    for (pem, expected) in cases {
        assert_eq!(PrivateKey::from_pem(&pem).err(), Some(expected));
    }
    let noise = Zeroizing::new(vec![0x30; 64]);
    assert_eq!(
        PrivateKey::from_pkcs8(noise).err(),
        Some(KeyError::Unsupported)
    );
}

#[test]
fn a_key_does_not_show_itself() {
    let key = PrivateKey::generate_p256().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(redacted)");
    assert_eq!(format!("{key:#?}"), "PrivateKey(redacted)");
}

#[test]
fn requests_are_made_with_p256_only() {
    let pem = PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8();
    let key = PrivateKey::from_pem(&pem.unwrap()).unwrap();
    assert_eq!(key.csr_pem("x"), Err(KeyError::NotForRequests));
}
