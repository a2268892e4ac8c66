//! step-ca as the certificate authority: asked over HTTPS, with a one-time token for each act.
//!
//! Invariant: nothing that step-ca returns is used before it was checked to be what was asked for and to lead to the pinned
//! root; what it signed otherwise is revoked at once and refused. How the bytes travel is the caller's ([`StepTransport`]): this
//! file knows what is said. Source: step-ca's HTTP API, version 1.0.

mod jwe;
mod key_error;
mod provisioner;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    CaError, CertificateAuthority, ClientIssue, IssuedCertificate, MIN_LIFETIME, ServerIssue,
};
use crate::crl::RevocationReason;
use crate::csr::VerifiedCsr;
use crate::identity::{self, Serial};
use crate::trust::{TrustAnchors, TrustError, pem_section};

pub use key_error::ProvisionerKeyError;
pub use provisioner::ProvisionerKey;
use token::{SigningClaims, TokenClaims};

/// How long one call of the CA may take, connection included.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, bytes; a CRL of 10,000 serial numbers has about 400 KiB.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The most certificates of a chain that are looked at.
const MAX_CHAIN: usize = 8;
/// Characters of an error text of the CA that are passed on.
const MAX_REASON: usize = 300;

/// One call of the CA's API.
#[derive(Debug)]
pub struct StepRequest<'a> {
    /// Path, such as `/1.0/sign`.
    pub path: &'a str,
    /// A JSON body, to be sent as POST; without one the call is a GET.
    pub body: Option<Vec<u8>>,
}

/// What the CA answered.
#[derive(Debug)]
pub struct StepAnswer {
    /// HTTP status.
    pub status: u16,
    /// The `Date` of the answer, Unix seconds.
    pub date: Option<i64>,
    /// The body, at most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
    /// The certificates that the CA's server has shown, its own first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// A revocation list as the CA publishes it: not verified.
#[derive(Debug)]
pub struct FetchedCrl {
    /// DER.
    pub der: Vec<u8>,
    /// The certificates above that of the CA's server: its issuer signs lists as well.
    pub above: Vec<CertificateDer<'static>>,
}

/// The CA could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct StepUnreachable {
    /// What happened.
    pub why: String,
}

/// Carries calls to the CA: HTTPS only, its chain verified against the pinned root, within [`TIMEOUT`].
#[async_trait]
pub trait StepTransport: Send + Sync {
    /// Sends one call.
    ///
    /// # Errors
    /// [`StepUnreachable`]; an answer with a bad status is none.
    async fn send(&self, request: StepRequest<'_>) -> Result<StepAnswer, StepUnreachable>;
}

/// Which CA is asked, and as whom.
#[derive(Debug)]
pub struct StepSettings {
    /// Its origin without a path, such as `https://ca.example:9000`.
    pub origin: String,
    /// Name of the JWK provisioner.
    pub provisioner: String,
    /// Key of the provisioner.
    pub key: ProvisionerKey,
    /// The pinned root.
    pub root: CertificateDer<'static>,
}

/// How the CA is, as far as it can be seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepHealth {
    /// By how many seconds its clock is ahead of ours.
    pub clock_ahead: Option<i64>,
    /// Whether it publishes a CRL; without one a revocation there only prevents renewals.
    pub has_crl: bool,
}

/// A client of one step-ca.
pub struct StepCa {
    settings: StepSettings,
    transport: Arc<dyn StepTransport>,
}

#[derive(Serialize)]
struct SignCall<'a> {
    csr: &'a str,
    ott: &'a str,
    /// Left out, it is the provisioner's default.
    #[serde(rename = "notAfter", skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
}

/// What is to be signed.
struct Signing<'a> {
    csr: &'a VerifiedCsr,
    /// The common name of the request.
    name: &'a str,
    sans: &'a [String],
    /// Grant and subject of a peer's certificate.
    ids: Option<(Uuid, Uuid)>,
    not_after: Option<String>,
    id: Uuid,
    now: i64,
}

#[derive(Deserialize)]
struct SignAnswer {
    crt: String,
    #[serde(default)]
    ca: String,
    #[serde(default, rename = "certChain")]
    cert_chain: Vec<String>,
}

#[derive(Serialize)]
struct RevokeCall<'a> {
    serial: &'a str,
    ott: &'a str,
    #[serde(rename = "reasonCode")]
    reason_code: u8,
    reason: &'a str,
    passive: bool,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    message: String,
}

impl StepCa {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`CaError::Root`] when the pinned root is not a self-signed CA certificate, [`CaError::NotHttps`].
    pub fn new(settings: StepSettings, transport: Arc<dyn StepTransport>) -> Result<Self, CaError> {
        if !settings.origin.starts_with("https://") {
            return Err(CaError::NotHttps);
        }
        TrustAnchors::new(0, vec![settings.root.clone()])?;
        let root = identity::parse(&settings.root)?;
        if root.subject().as_raw() != root.issuer().as_raw() {
            return Err(CaError::Root(TrustError::NotCa { position: 1 }));
        }
        Ok(Self {
            settings,
            transport,
        })
    }

    /// Revokes a certificate at the CA. `now` is Unix seconds, `id` that of the one-time token.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn revoke(
        &self,
        serial: &Serial,
        code: RevocationReason,
        reason: &str,
        id: Uuid,
        now: i64,
    ) -> Result<(), CaError> {
        const PATH: &str = "/1.0/revoke";
        let decimal = serial.to_decimal();
        let ott = self.token(PATH, &decimal, id, None, now)?;
        let call = RevokeCall {
            serial: &decimal,
            ott: &ott,
            reason_code: code.code(),
            reason,
            passive: true,
        };
        match self.post(PATH, &call).await {
            Ok(_) => Ok(()),
            // It was told before, and the answer was lost.
            Err(CaError::Refused { reason, .. }) if reason.contains("already revoked") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The CA's CRL in DER, `None` when it publishes none. Not verified.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn fetch_crl(&self) -> Result<Option<FetchedCrl>, CaError> {
        let answer = self.ask("/1.0/crl", None).await?;
        match answer.status {
            200 if !answer.body.is_empty() => Ok(Some(FetchedCrl {
                der: answer.body,
                above: answer.chain.into_iter().skip(1).collect(),
            })),
            // Before version 0.23 there is no such path; later ones say so when it is switched off.
            200 | 404 | 501 => Ok(None),
            status => Err(refused(status, &answer.body)),
        }
    }

    /// Looks whether the CA works. `now` is Unix seconds.
    ///
    /// # Errors
    /// [`CaError`] when it does not.
    pub async fn health(&self, now: i64) -> Result<StepHealth, CaError> {
        let answer = self.ask("/health", None).await?;
        if answer.status != 200 {
            return Err(refused(answer.status, &answer.body));
        }
        Ok(StepHealth {
            clock_ahead: answer.date.map(|date| date.saturating_sub(now)),
            has_crl: self.fetch_crl().await?.is_some(),
        })
    }

    /// Where it is asked.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.settings.origin
    }

    /// Has a certificate issued for nobody, checks it like any other, and revokes it: shows that the provisioner's key is taken,
    /// that its template writes both extensions, and what lifetime it gives. Returns that lifetime, seconds.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn prove(&self, asked: ClientIssue) -> Result<i64, CaError> {
        let (id, now) = (asked.id, asked.now);
        let issued = self.sign_client(&asked).await?;
        let id = Uuid::new_v5(&id, b"revoke");
        let code = RevocationReason::CessationOfOperation;
        self.revoke(issued.serial(), code, "a proof only", id, now)
            .await?;
        Ok(issued.not_after().saturating_sub(now))
    }

    async fn sign_client(&self, asked: &ClientIssue) -> Result<IssuedCertificate, CaError> {
        let end = asked
            .now
            .saturating_add(i64::try_from(asked.lifetime.as_secs()).unwrap_or(i64::MAX));
        let not_after = asked.not_after_cap.map_or(end, |cap| end.min(cap));
        let available = not_after.saturating_sub(asked.now);
        if available < i64::try_from(MIN_LIFETIME.as_secs()).unwrap_or(i64::MAX) {
            return Err(CaError::LifetimeTooShort { available });
        }
        // A request without a common name may have any; then it is the grant's.
        let name = asked
            .csr
            .common_name()
            .map_or_else(|| format!("grant-{}", asked.grant), str::to_owned);
        let sign = Signing {
            csr: &asked.csr,
            name: &name,
            sans: std::slice::from_ref(&name),
            ids: Some((asked.grant, asked.subject)),
            not_after: Some(rfc3339(not_after)?),
            id: asked.id,
            now: asked.now,
        };
        let (leaf, intermediates) = self.sign(sign).await?;
        let root = self.settings.root.clone();
        let checked = IssuedCertificate::verify_matches(leaf.clone(), intermediates, root, asked);
        if checked.is_err() {
            self.take_back(&leaf, asked.id, asked.now).await;
        }
        checked
    }

    /// A certificate for a listener: for its names and no grant, for as long as the provisioner gives by itself, which is
    /// mostly much shorter than [`SERVER_LIFETIME`](super::SERVER_LIFETIME).
    async fn sign_server(&self, asked: &ServerIssue) -> Result<IssuedCertificate, CaError> {
        let sans: Vec<String> = asked
            .names
            .iter()
            .map(|name| name.to_str().into_owned())
            .collect();
        let first = sans.first().ok_or(CaError::NoName)?;
        let id = Uuid::new_v4();
        let sign = Signing {
            csr: &asked.csr,
            // step-ca compares it with the common name of the request.
            name: asked.csr.common_name().unwrap_or(first),
            sans: &sans,
            ids: None,
            not_after: None,
            id,
            now: asked.now,
        };
        let (leaf, intermediates) = self.sign(sign).await?;
        let root = self.settings.root.clone();
        let checked =
            IssuedCertificate::verify_matches_server(leaf.clone(), intermediates, root, asked);
        let checked = checked.and_then(|issued| {
            let available = issued.not_after().saturating_sub(asked.now);
            if available < i64::try_from(MIN_LIFETIME.as_secs()).unwrap_or(i64::MAX) {
                return Err(CaError::LifetimeTooShort { available });
            }
            Ok(issued)
        });
        if checked.is_err() {
            self.take_back(&leaf, id, asked.now).await;
        }
        checked
    }

    async fn sign(
        &self,
        sign: Signing<'_>,
    ) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), CaError> {
        const PATH: &str = "/1.0/sign";
        let claims = SigningClaims {
            csr_sha256: sign.csr.sha256(),
            sans: sign.sans,
            ids: sign.ids,
        };
        let ott = self.token(PATH, sign.name, sign.id, Some(claims), sign.now)?;
        let call = SignCall {
            csr: &pem_section("CERTIFICATE REQUEST", sign.csr.der()),
            ott: &ott,
            not_after: sign.not_after,
        };
        let body = self.post(PATH, &call).await?;
        chain(&body)
    }

    /// Revokes what was signed and is not what was asked for. A failure of that is told by what the caller returns anyway:
    /// the certificate is registered nowhere, so it opens nothing here.
    async fn take_back(&self, leaf: &CertificateDer<'_>, id: Uuid, now: i64) {
        let Ok(parsed) = identity::parse(leaf) else {
            return;
        };
        if let Ok(serial) = Serial::decode(parsed.raw_serial()) {
            let id = Uuid::new_v5(&id, b"take back");
            let reason = "not what was asked for";
            let code = RevocationReason::CessationOfOperation;
            let _ = self.revoke(&serial, code, reason, id, now).await;
        }
    }

    fn token(
        &self,
        path: &str,
        subject: &str,
        id: Uuid,
        signing: Option<SigningClaims<'_>>,
        now: i64,
    ) -> Result<String, CaError> {
        let claims = TokenClaims {
            issuer: &self.settings.provisioner,
            audience: &format!("{}{path}", self.settings.origin),
            subject,
            id,
            signing,
        };
        claims
            .sign(&self.settings.key, now)
            .ok_or_else(|| CaError::Signing {
                reason: "the one-time token could not be signed with the provisioner's key"
                    .to_owned(),
            })
    }

    async fn post<T: Serialize + Sync>(&self, path: &str, call: &T) -> Result<Vec<u8>, CaError> {
        let body = serde_json::to_vec(call).map_err(|error| CaError::Signing {
            reason: error.to_string(),
        })?;
        let answer = self.ask(path, Some(body)).await?;
        match answer.status {
            200..=299 => Ok(answer.body),
            status => Err(refused(status, &answer.body)),
        }
    }

    async fn ask(&self, path: &str, body: Option<Vec<u8>>) -> Result<StepAnswer, CaError> {
        let request = StepRequest { path, body };
        self.transport
            .send(request)
            .await
            .map_err(|StepUnreachable { why }| CaError::Unreachable {
                origin: self.settings.origin.clone(),
                why,
            })
    }
}

#[async_trait]
impl CertificateAuthority for StepCa {
    async fn issue_client(&self, request: ClientIssue) -> Result<IssuedCertificate, CaError> {
        self.sign_client(&request).await
    }

    async fn issue_server(&self, request: ServerIssue) -> Result<IssuedCertificate, CaError> {
        self.sign_server(&request).await
    }

    fn anchors(&self) -> Vec<CertificateDer<'static>> {
        vec![self.settings.root.clone()]
    }
}

impl fmt::Debug for StepCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepCa")
            .field("origin", &self.settings.origin)
            .field("provisioner", &self.settings.provisioner)
            .finish_non_exhaustive()
    }
}

/// The leaf and what lies between it and the root.
fn chain(body: &[u8]) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), CaError> {
    let unreadable = |what: &'static str| CaError::Unreadable { what };
    let answer: SignAnswer =
        serde_json::from_slice(body).map_err(|_| unreadable("not the JSON of a signature"))?;
    let one = |pem: &str| {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| unreadable("a text that is not a PEM certificate"))
    };
    let leaf = one(&answer.crt)?;
    let mut above = answer.cert_chain;
    if above.is_empty() && !answer.ca.is_empty() {
        above.push(answer.ca);
    }
    if above.len() > MAX_CHAIN {
        return Err(unreadable("a chain of more than eight certificates"));
    }
    let mut intermediates = Vec::new();
    for pem in &above {
        let certificate = one(pem)?;
        if certificate != leaf {
            intermediates.push(certificate);
        }
    }
    Ok((leaf, intermediates))
}

fn refused(status: u16, body: &[u8]) -> CaError {
    let told: Option<ErrorAnswer> = serde_json::from_slice(body).ok();
    let reason: String = told
        .map(|told| told.message)
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| "it does not say why".to_owned())
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect();
    CaError::Refused { status, reason }
}

/// RFC 3339 in UTC, to the second.
fn rfc3339(seconds: i64) -> Result<String, CaError> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time { seconds })?;
    Ok(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    ))
}

#[cfg(test)]
mod tests;
