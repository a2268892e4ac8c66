//! The signed statement of who a question is asked for, in `service_token` mode.
//!
//! A compact JWS (RFC 7515) signed with Ed25519 (RFC 8037), valid 30 seconds, bound to method and
//! target (`htm`, `htu` as in RFC 9449, section 4.2: the URL without its query). The public key is published as a
//! JWKS file that the gateway reads.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certs::clock::Clock;
use policy::id::{GrantId, UserId};
use serde::Serialize;
use uuid::Uuid;

/// How long an assertion is valid, in seconds.
pub const LIFETIME_SECONDS: i64 = 30;

/// Signs assertions with one key.
pub struct AssertionSigner {
    key: Ed25519KeyPair,
    kid: String,
    header: String,
    issuer: String,
    audience: String,
    origin: String,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_id: Option<String>,
    jti: String,
    iat: i64,
    exp: i64,
    htm: &'a str,
    htu: String,
}

impl AssertionSigner {
    /// A new private key, PKCS#8 encoded, to be sealed by the caller.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate() -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
            .map(|document| zeroize::Zeroizing::new(document.as_ref().to_vec()))
            .map_err(|_| "the system's random source failed".to_owned())
    }

    /// A signer with the given PKCS#8 key. `origin` is the gateway's, as it names itself in its
    /// `Host` (`http://host:port`).
    ///
    /// # Errors
    /// When the key is not an Ed25519 key.
    pub fn new(
        pkcs8: &[u8],
        issuer: &str,
        audience: &str,
        origin: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let key = Ed25519KeyPair::from_pkcs8(pkcs8)
            .map_err(|_| "the assertion key is not an Ed25519 key in PKCS#8".to_owned())?;
        let kid = thumbprint(key.public_key().as_ref());
        let header = URL_SAFE_NO_PAD
            .encode(serde_json::json!({"alg": "EdDSA", "kid": kid, "typ": "JWT"}).to_string());
        Ok(Self {
            key,
            kid,
            header,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            origin: origin.to_owned(),
            clock,
        })
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref()),
        }]})
    }

    /// An assertion that `user` asks `method` of `target` (path and query; the query is left out).
    #[must_use]
    pub fn sign(
        &self,
        user: &UserId,
        grant: Option<GrantId>,
        method: &str,
        target: &str,
    ) -> String {
        let now = self.clock.unix_millis().div_euclid(1000);
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: user.as_str(),
            grant_id: grant.map(|grant| grant.to_string()),
            jti: Uuid::new_v4().to_string(),
            iat: now,
            exp: now.saturating_add(LIFETIME_SECONDS),
            htm: method,
            htu: format!(
                "{}{}",
                self.origin,
                target.split('?').next().unwrap_or_default()
            ),
        };
        // Claims are plain strings and integers: they always serialize.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }
}

/// The key's thumbprint (RFC 7638), used as its `kid`.
fn thumbprint(public: &[u8]) -> String {
    let canonical = format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(public)
    );
    URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
}
