//! One-time tokens: what lets the holder of a provisioner key ask step-ca for one act.
//!
//! Invariant: a token is good for five minutes and for what it names alone: one request's key and common name, one grant and
//! subject, or one serial number. Source: RFC 7515 (JWS), RFC 7519 (JWT); claims as step-ca reads them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use uuid::Uuid;

use super::provisioner::ProvisionerKey;

/// How far a token is dated back, seconds: for a CA whose clock runs behind.
const BACKDATE: i64 = 60;
/// How long a token is good for from its `nbf`, seconds.
const LIFETIME: i64 = 300;

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenClaims<'a> {
    /// The provisioner's name.
    pub(super) issuer: &'a str,
    /// URL of the act.
    pub(super) audience: &'a str,
    /// Common name of the request, or the serial number to revoke.
    pub(super) subject: &'a str,
    /// The token's own id.
    pub(super) id: Uuid,
    /// Only for signing.
    pub(super) signing: Option<SigningClaims<'a>>,
}

/// What only a token for signing says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SigningClaims<'a> {
    /// SHA-256 of the request's DER.
    pub(super) csr_sha256: [u8; 32],
    /// Names the certificate may hold.
    pub(super) sans: &'a [String],
    /// Grant and subject of a peer's certificate.
    pub(super) ids: Option<(Uuid, Uuid)>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sans: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mosaic_grant_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mosaic_subject_user_id: Option<String>,
}

#[derive(Serialize)]
struct Step {
    sha: String,
}

impl TokenClaims<'_> {
    /// The signed token, issued at `now` (Unix seconds); `None` when the library cannot sign.
    pub(super) fn sign(&self, key: &ProvisionerKey, now: i64) -> Option<String> {
        let header = Header {
            alg: key.algorithm(),
            kid: key.kid(),
            typ: "JWT",
        };
        let signing = self.signing.as_ref();
        let ids = signing.and_then(|signing| signing.ids);
        let nbf = now.saturating_sub(BACKDATE);
        let payload = Payload {
            iss: self.issuer,
            aud: self.audience,
            sub: self.subject,
            jti: self.id.to_string(),
            iat: now,
            nbf,
            exp: nbf.saturating_add(LIFETIME),
            sans: signing.map(|signing| signing.sans),
            step: signing.map(|signing| Step {
                sha: hex::encode(signing.csr_sha256),
            }),
            mosaic_grant_id: ids.map(|(grant, _)| grant.to_string()),
            mosaic_subject_user_id: ids.map(|(_, subject)| subject.to_string()),
        };
        let part = |json: Result<Vec<u8>, serde_json::Error>| {
            json.ok().map(|json| URL_SAFE_NO_PAD.encode(json))
        };
        let header = part(serde_json::to_vec(&header))?;
        let payload = part(serde_json::to_vec(&payload))?;
        let mut token = format!("{header}.{payload}");
        let signature = key.sign(token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Some(token)
    }
}

#[cfg(test)]
mod tests;
