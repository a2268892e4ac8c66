//! The token's text, read back as step-ca reads it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::*;

fn key() -> ProvisionerKey {
    let all: Value =
        serde_json::from_str(include_str!("../../../../testdata/provisioner-keys.json")).unwrap();
    ProvisionerKey::parse(&all["p256"].to_string(), None).unwrap()
}

fn parts(token: &str) -> (Value, Value) {
    let part = |n: usize| {
        let text = token.split('.').nth(n).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    (part(0), part(1))
}

#[test]
fn a_token_for_signing_names_one_request_one_grant_and_one_subject() {
    let key = key();
    let claims = TokenClaims {
        issuer: "mosaic-fed",
        audience: "https://ca.example:9000/1.0/sign",
        subject: "home",
        id: Uuid::from_u128(7),
        signing: Some(SigningClaims {
            csr_sha256: [0xab; 32],
            sans: &["home".to_owned()],
            ids: Some((Uuid::from_u128(1), Uuid::from_u128(2))),
        }),
    };
    let (header, payload) = parts(&claims.sign(&key, 1_800_000_000).unwrap());
    assert_eq!(
        header,
        json!({"alg": "ES256", "kid": key.kid(), "typ": "JWT"})
    );
    assert_eq!(
        payload,
        json!({
            "iss": "mosaic-fed",
            "aud": "https://ca.example:9000/1.0/sign",
            "sub": "home",
            "jti": "00000000-0000-0000-0000-000000000007",
            "iat": 1_800_000_000,
            "nbf": 1_799_999_940,
            "exp": 1_800_000_240,
            "sans": ["home"],
            "step": {"sha": "ab".repeat(32)},
            "mosaic_grant_id": "00000000-0000-0000-0000-000000000001",
            "mosaic_subject_user_id": "00000000-0000-0000-0000-000000000002",
        })
    );
}

#[test]
fn a_token_for_a_server_names_it_and_no_grant() {
    let names = ["work.example".to_owned(), "192.0.2.1".to_owned()];
    let claims = TokenClaims {
        issuer: "mosaic-server",
        audience: "https://ca.example:9000/1.0/sign",
        subject: "mosaic-federation",
        id: Uuid::from_u128(7),
        signing: Some(SigningClaims {
            csr_sha256: [0xab; 32],
            sans: &names,
            ids: None,
        }),
    };
    let (_, payload) = parts(&claims.sign(&key(), 1_800_000_000).unwrap());
    assert_eq!(payload["sans"], json!(names));
    assert_eq!(payload["step"]["sha"], "ab".repeat(32));
    for claim in ["mosaic_grant_id", "mosaic_subject_user_id"] {
        assert!(payload.get(claim).is_none(), "{claim}");
    }
}

#[test]
fn a_token_for_revoking_names_one_serial_number_and_no_grant() {
    let claims = TokenClaims {
        issuer: "mosaic-fed",
        audience: "https://ca.example:9000/1.0/revoke",
        subject: "123456789",
        id: Uuid::from_u128(7),
        signing: None,
    };
    let (_, payload) = parts(&claims.sign(&key(), 1_800_000_000).unwrap());
    assert_eq!(payload["sub"], "123456789");
    for claim in ["sans", "step", "mosaic_grant_id", "mosaic_subject_user_id"] {
        assert!(payload.get(claim).is_none(), "{claim}");
    }
}
