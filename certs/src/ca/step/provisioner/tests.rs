//! Keys as other implementations write them: each signs what its public half verifies, and what is not fit says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

use super::*;

/// Made with another implementation of JOSE (jwcrypto); the password is this.
const PASSWORD: &[u8] = b"correct horse battery";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../testdata/provisioner-keys.json")).unwrap()
}

fn octets(jwk: &Value, name: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()
}

#[test]
fn every_kind_of_key_signs_what_its_public_half_verifies() {
    let all = vectors();
    let curves: [(&str, &str, &dyn VerificationAlgorithm); 3] = [
        ("p256", "ES256", &ECDSA_P256_SHA256_FIXED),
        ("p384", "ES384", &ECDSA_P384_SHA384_FIXED),
        ("p521", "ES512", &ECDSA_P521_SHA512_FIXED),
    ];
    for (name, algorithm, verifier) in curves {
        let jwk = &all[name];
        let key = ProvisionerKey::parse(&jwk.to_string(), None).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        let mut point = vec![4];
        point.extend(octets(jwk, "x"));
        point.extend(octets(jwk, "y"));
        let signature = key.sign(b"message").unwrap();
        let public = UnparsedPublicKey::new(verifier, point);
        assert!(public.verify(b"message", &signature).is_ok(), "{name}");
        assert!(public.verify(b"massage", &signature).is_err(), "{name}");
    }
    let jwk = &all["ed25519"];
    let key = ProvisionerKey::parse(&jwk.to_string(), None).unwrap();
    assert_eq!(key.algorithm(), "EdDSA");
    let public = UnparsedPublicKey::new(&ED25519, octets(jwk, "x"));
    assert!(
        public
            .verify(b"message", &key.sign(b"message").unwrap())
            .is_ok()
    );
    let jwk = &all["rsa"];
    let key = ProvisionerKey::parse(&jwk.to_string(), None).unwrap();
    assert_eq!(key.algorithm(), "RS256");
    let (n, e) = (octets(jwk, "n"), octets(jwk, "e"));
    let signature = key.sign(b"message").unwrap();
    RsaPublicKeyComponents { n: &n, e: &e }
        .verify(&RSA_PKCS1_2048_8192_SHA256, b"message", &signature)
        .unwrap();
}

#[test]
fn a_key_without_a_name_is_called_by_its_thumbprint() {
    let all = vectors();
    let mut jwk = all["p256"].clone();
    jwk.as_object_mut().unwrap().remove("kid");
    let key = ProvisionerKey::parse(&jwk.to_string(), None).unwrap();
    assert_eq!(key.kid(), all["thumb"].as_str().unwrap());
    jwk["kid"] = "a name".into();
    let key = ProvisionerKey::parse(&jwk.to_string(), None).unwrap();
    assert_eq!(key.kid(), "a name");
}

#[test]
fn an_encrypted_key_opens_with_its_password_in_every_form() {
    let all = vectors();
    let plain = ProvisionerKey::parse(&all["p256"].to_string(), None).unwrap();
    let texts = [
        all["jwe"].as_str().unwrap().to_owned(),
        all["jwe_json"].to_string(),
        all["jwe_512"].as_str().unwrap().to_owned(),
    ];
    for text in texts {
        let key = ProvisionerKey::parse(&text, Some(PASSWORD)).unwrap();
        assert_eq!(key.kid(), plain.kid());
        assert_eq!(
            ProvisionerKey::parse(&text, Some(b"wrong")).unwrap_err(),
            ProvisionerKeyError::WrongPassword
        );
        assert_eq!(
            ProvisionerKey::parse(&text, None).unwrap_err(),
            ProvisionerKeyError::PasswordMissing
        );
    }
}

/// Every octet of the sealed parts matters.
#[test]
fn a_damaged_encrypted_key_does_not_open() {
    let all = vectors();
    let parts: Vec<String> = all["jwe"]
        .as_str()
        .unwrap()
        .split('.')
        .map(str::to_owned)
        .collect();
    for part in 1..parts.len() {
        let mut octets = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        octets[0] ^= 1;
        let mut damaged = parts.clone();
        damaged[part] = URL_SAFE_NO_PAD.encode(octets);
        assert_eq!(
            ProvisionerKey::parse(&damaged.join("."), Some(PASSWORD)).unwrap_err(),
            ProvisionerKeyError::WrongPassword,
            "part {part}"
        );
    }
}

#[test]
fn what_is_not_fit_says_why() {
    let all = vectors();
    let error = |text: &str| ProvisionerKey::parse(text, Some(PASSWORD)).unwrap_err();
    assert_eq!(
        error(&all["oct"].to_string()),
        ProvisionerKeyError::Symmetric
    );
    assert_eq!(
        error(all["jwe_384"].as_str().unwrap()),
        ProvisionerKeyError::UnsupportedEncryption {
            what: "PBES2-HS384+A192KW".to_owned()
        }
    );
    let mut public = all["p256"].clone();
    public.as_object_mut().unwrap().remove("d");
    assert!(
        error(&public.to_string())
            .to_string()
            .contains("not a private key")
    );
    let mut crossed = all["p256"].clone();
    crossed["d"] = all["ed25519"]["d"].clone();
    assert_eq!(
        error(&crossed.to_string()),
        ProvisionerKeyError::Inconsistent
    );
    let mut named = all["p256"].clone();
    named["alg"] = "HS256".into();
    assert!(error(&named.to_string()).to_string().contains("HS256"));
    for text in ["", "a.b", "{}", "[]", "a.b.c.d.e.f", "{\"kty\":\"EC\"}"] {
        let error = error(text);
        assert!(
            matches!(
                error,
                ProvisionerKeyError::Malformed { .. } | ProvisionerKeyError::Unsupported { .. }
            ),
            "{text}: {error}"
        );
    }
    // A header that asks for hours of work is refused before any.
    let header = r#"{"alg":"PBES2-HS256+A128KW","enc":"A256GCM","p2s":"c2FsdA","p2c":4000000000}"#;
    let text = format!("{}.AA.AA.AA.AA", URL_SAFE_NO_PAD.encode(header));
    assert!(error(&text).to_string().contains("p2c"));
}

#[test]
fn nothing_secret_is_in_debug_output_or_errors() {
    let all = vectors();
    let secret = all["p256"]["d"].as_str().unwrap();
    let key = ProvisionerKey::parse(&all["p256"].to_string(), None).unwrap();
    assert!(!format!("{key:?}").contains(secret));
    let broken = all["p256"].to_string().replace('}', "");
    let error = ProvisionerKey::parse(&broken, None).unwrap_err();
    assert!(!format!("{error:?} {error}").contains(secret));
}
