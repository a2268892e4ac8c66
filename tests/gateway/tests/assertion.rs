//! Asking on behalf of a user: what an assertion has to hold, each part broken on its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod harness;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::{Answer, Gateway};
use hyper::{Method, StatusCode};
use reference_gateway::authenticate::Service;
use reference_gateway::plan;
use reference_gateway::store::seed::Data;
use serde_json::{Value, json};

/// The gateway's clock stands still.
const NOW: i64 = 1_800_000_000;

struct Signer {
    kid: &'static str,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(kid: &'static str, seed: u8) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        Self { kid, key }
    }

    fn publish(signers: &[&Self], dir: &Path) {
        let keys: Vec<Value> = signers
            .iter()
            .map(|signer| {
                let x = URL_SAFE_NO_PAD.encode(signer.key.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": signer.kid, "x": x})
            })
            .collect();
        std::fs::write(dir.join("jwks.json"), json!({"keys": keys}).to_string()).unwrap();
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self) -> Value {
        json!({"alg": "EdDSA", "kid": self.kid, "typ": "JWT"})
    }
}

async fn gateway() -> Gateway {
    Gateway::start_with(Data::Plan, |dir| {
        let jwks = dir.join("jwks.json");
        Some(Service::new(
            "service-1".into(),
            "work".into(),
            jwks,
            || NOW,
        ))
    })
    .await
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

fn claims(gateway: &Gateway, path: &str) -> Value {
    let jti = format!("id-{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
    json!({
        "iss": "sidecar", "aud": "work", "sub": plan::BEN, "grant_id": "grant-7", "jti": jti,
        "iat": NOW, "exp": NOW + 30, "htm": "GET",
        "htu": format!("{}{path}", gateway.running.url()),
    })
}

async fn ask(gateway: &Gateway, path: &str, assertion: &str) -> Answer {
    let headers = [
        ("authorization", "Bearer service-1"),
        ("x-mosaic-assertion", assertion),
    ];
    gateway.send(Method::GET, path, &headers).await
}

const WHOAMI: &str = "/internal/v1/whoami";

#[tokio::test]
async fn a_good_assertion_is_the_subject_and_works_once() {
    let gateway = gateway().await;
    let signer = Signer::new("k1", 1);
    Signer::publish(&[&signer], gateway.dir.path());
    let assertion = signer.sign(&signer.header(), &claims(&gateway, WHOAMI));
    let first = ask(&gateway, WHOAMI, &assertion).await;
    assert_eq!(first.json(), json!({"userId": plan::BEN}));
    let again = ask(&gateway, WHOAMI, &assertion).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    let seen = gateway.control(Method::GET, "/_control/requests", "").await;
    assert_eq!(seen.json()[0]["grantId"], "grant-7");
    assert_eq!(seen.json()[0]["user"], plan::BEN);
}

#[tokio::test]
async fn a_query_does_not_change_the_target() {
    let gateway = gateway().await;
    let signer = Signer::new("k1", 1);
    Signer::publish(&[&signer], gateway.dir.path());
    let path = "/internal/v1/tasks?limit=1000";
    for signed_path in ["/internal/v1/tasks", path] {
        let assertion = signer.sign(&signer.header(), &claims(&gateway, signed_path));
        let answer = ask(&gateway, path, &assertion).await;
        assert_eq!(answer.rows().len(), 54);
    }
}

#[tokio::test]
async fn every_claim_counts() {
    let gateway = gateway().await;
    let signer = Signer::new("k1", 1);
    Signer::publish(&[&signer], gateway.dir.path());
    let elsewhere = format!("{}/internal/v1/facts", gateway.running.url());
    for (name, value) in [
        ("aud", json!("home")),
        ("aud", json!(["home", "other"])),
        ("sub", json!("nobody")),
        ("sub", json!("")),
        ("grant_id", json!("")),
        ("jti", json!("")),
        ("jti", json!("x".repeat(129))),
        ("iat", json!(NOW + 6)),
        ("iat", json!(NOW - 1)),
        ("exp", json!(NOW)),
        ("exp", json!(NOW + 31)),
        ("exp", json!(i64::MIN)),
        ("htm", json!("POST")),
        ("htu", json!(elsewhere)),
        ("htu", json!(WHOAMI)),
        ("htu", json!("http://elsewhere.example/internal/v1/whoami")),
    ] {
        let mut broken = claims(&gateway, WHOAMI);
        broken[name] = value.clone();
        let assertion = signer.sign(&signer.header(), &broken);
        let answer = ask(&gateway, WHOAMI, &assertion).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name} {value}");
    }
    for name in ["aud", "sub", "grant_id", "jti", "iat", "exp", "htm", "htu"] {
        let mut lacking = claims(&gateway, WHOAMI);
        lacking.as_object_mut().unwrap().remove(name);
        let assertion = signer.sign(&signer.header(), &lacking);
        let answer = ask(&gateway, WHOAMI, &assertion).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "without {name}");
    }
    let mut banned = claims(&gateway, WHOAMI);
    banned["sub"] = json!(plan::DORA);
    let assertion = signer.sign(&signer.header(), &banned);
    let answer = ask(&gateway, WHOAMI, &assertion).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn header_and_signature_count() {
    let gateway = gateway().await;
    let (signer, thief) = (Signer::new("k1", 1), Signer::new("k1", 2));
    Signer::publish(&[&signer], gateway.dir.path());
    let refused = async |assertion: String| {
        let answer = ask(&gateway, WHOAMI, &assertion).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{assertion}");
    };
    let good = || claims(&gateway, WHOAMI);
    refused(thief.sign(&thief.header(), &good())).await;
    for header in [
        json!({"alg": "none", "kid": "k1"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "kid": "k2"}),
        json!({"alg": "EdDSA", "kid": "k1", "crit": ["x"]}),
    ] {
        refused(signer.sign(&header, &good())).await;
    }
    let whole = signer.sign(&signer.header(), &good());
    let parts: Vec<&str> = whole.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(good().to_string());
    refused(format!("{}.{other}.{}", parts[0], parts[2])).await;
    refused(format!("{}.{}.", parts[0], parts[1])).await;
    refused(format!("{}.{}", parts[0], parts[1])).await;
    refused(format!("{whole}.x")).await;
    refused(format!("{whole}=")).await;
    let accepted = ask(&gateway, WHOAMI, &whole).await;
    assert_eq!(accepted.status, StatusCode::OK);
}

#[tokio::test]
async fn published_keys_are_read_again_and_a_broken_file_is_no_keys() {
    let gateway = gateway().await;
    let (old, new) = (Signer::new("k1", 1), Signer::new("k2", 2));
    let status = async |signer: &Signer| {
        let assertion = signer.sign(&signer.header(), &claims(&gateway, WHOAMI));
        ask(&gateway, WHOAMI, &assertion).await.status
    };
    assert_eq!(status(&old).await, StatusCode::UNAUTHORIZED);
    Signer::publish(&[&old], gateway.dir.path());
    assert_eq!(status(&old).await, StatusCode::OK);
    assert_eq!(status(&new).await, StatusCode::UNAUTHORIZED);
    Signer::publish(&[&old, &new], gateway.dir.path());
    assert_eq!(status(&old).await, StatusCode::OK);
    assert_eq!(status(&new).await, StatusCode::OK);
    Signer::publish(&[&new], gateway.dir.path());
    assert_eq!(status(&old).await, StatusCode::UNAUTHORIZED);
    std::fs::write(gateway.dir.path().join("jwks.json"), "{").unwrap();
    assert_eq!(status(&new).await, StatusCode::UNAUTHORIZED);
    std::fs::remove_file(gateway.dir.path().join("jwks.json")).unwrap();
    assert_eq!(status(&new).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn credentials_are_not_mixed() {
    let gateway = gateway().await;
    let signer = Signer::new("k1", 1);
    Signer::publish(&[&signer], gateway.dir.path());
    let alone = gateway.ask("service-1", WHOAMI).await;
    assert_eq!(alone.status, StatusCode::UNAUTHORIZED);
    let assertion = signer.sign(&signer.header(), &claims(&gateway, WHOAMI));
    let with_user = [
        ("authorization", "Bearer token-e1"),
        ("x-mosaic-assertion", assertion.as_str()),
    ];
    let with_user = gateway.send(Method::GET, WHOAMI, &with_user).await;
    assert_eq!(with_user.status, StatusCode::UNAUTHORIZED);
    // The mosaic shape knows no service.
    let assertion = signer.sign(&signer.header(), &claims(&gateway, "/api/tasks"));
    let mosaic = ask(&gateway, "/api/tasks", &assertion).await;
    assert_eq!(mosaic.status, StatusCode::UNAUTHORIZED);
    // The user's own token goes on working beside it.
    let own = gateway.ask("token-e1", WHOAMI).await;
    assert_eq!(own.json(), json!({"userId": plan::AMIRA}));
}
