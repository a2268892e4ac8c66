//! Redeeming a token: claim, intent, issue, commit, apply, answer.
//!
//! Invariant: the order below is the only one. The request is verified before the token is claimed; the token is
//! claimed before the authority is asked; what the authority signed is answered only after it was committed
//! together with grant, peer and audit row. When issuing or committing fails the token stays spent, the grant
//! stays pending and the intent says why, so a new token is all that is needed.
//!
//! HTTP and TLS are elsewhere; the check of what the authority returned is inside the authority's own type.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use certs::{
    CaError, CertificateAuthority, ClientIssue, Clock, CsrError, IssuedCertificate, PeerIdentity,
    VerifiedCsr,
};
use policy::time::UnixMillis;
use serde::Serialize;
use uuid::{NoContext, Timestamp, Uuid};

use super::ApplyChanges;
use super::token::EnrollmentToken;
use crate::store::{
    Act, Actor, Claim, EnrolledCertificate, Enrollment, IssueIntent, Store, StoreError, TokenClaim,
};

const MILLIS_PER_SECOND: i64 = 1_000;

/// What this side offers to whoever enrolls.
#[derive(Clone)]
pub struct EnrollmentTerms {
    /// The federation endpoint peers ask, `https://host:port`.
    pub endpoint_url: String,
    /// The name this side goes by.
    pub common_name: String,
    /// The anchors in force of this side's server certificates on both listeners, PEM.
    pub server_anchors_pem: Arc<dyn Fn() -> String + Send + Sync>,
    /// The generation of our trust roots.
    pub trust_generation: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a client certificate is good for; the grant's end cuts it short.
    pub certificate_lifetime: Duration,
    /// The public key of this side's audit checkpoints, hex.
    pub checkpoint_key: String,
}

/// The answer to a redeemed token (the specification, section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redeemed {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The certificate and its intermediates, PEM, without the root.
    pub cert_chain_pem: String,
    /// The anchors of the serving side's server certificates, PEM.
    pub trust_bundle_pem: String,
    /// Their generation.
    pub trust_generation: u64,
    /// The grant, canonical UUID.
    pub grant_id: String,
    /// The subject, canonical UUID.
    pub subject_user_id: String,
    /// Where to ask.
    pub endpoint_url: String,
    /// The name the serving side goes by.
    pub common_name: String,
    /// The public key of the checkpoints that answers carry, Ed25519, hex.
    pub checkpoint_key: String,
}

/// Why a token that exists cannot be redeemed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It was redeemed before.
    Used,
    /// A newer token took its place, or the grant was revoked.
    Withdrawn,
    /// It lapsed.
    Expired,
    /// The grant is not pending, or changed while the certificate was issued.
    NotPending,
}

impl Spent {
    /// The machine-readable reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Used => "token_used",
            Self::Withdrawn => "token_withdrawn",
            Self::Expired => "token_expired",
            Self::NotPending => "grant_not_pending",
        }
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Used => "was redeemed before",
            Self::Withdrawn => "was withdrawn",
            Self::Expired => "has expired",
            Self::NotPending => "is for a grant that no longer waits for enrollment",
        })
    }
}

/// Why no certificate was given out.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The certificate request is not acceptable; the token is not spent.
    #[error("{0}; the token is still good: correct the request and send it again")]
    Csr(#[from] CsrError),
    /// There is no such token.
    #[error("there is no such enrollment token; check the URL, or ask its issuer for a new one")]
    UnknownToken,
    /// The token cannot be redeemed any more.
    #[error("the enrollment token {0}; ask its issuer for a new one (`grant token --replace`)")]
    Spent(Spent),
    /// The authority did not issue; the token is spent, the grant stays pending.
    #[error(
        "no certificate could be issued; ask the issuer to look at the log and for a new token (`grant token`)"
    )]
    Authority(#[source] CaError),
    /// The store failed.
    #[error(
        "the enrollment could not be recorded; try again, and ask for a new token if that is refused"
    )]
    Store(#[source] StoreError),
}

/// Redeems tokens. Shared by all connections of the enrollment listener.
pub struct Redeemer {
    store: Arc<dyn Store>,
    authority: Arc<dyn CertificateAuthority>,
    clock: Arc<dyn Clock>,
    changes: Arc<dyn ApplyChanges>,
    terms: EnrollmentTerms,
}

impl Redeemer {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        authority: Arc<dyn CertificateAuthority>,
        clock: Arc<dyn Clock>,
        changes: Arc<dyn ApplyChanges>,
        terms: EnrollmentTerms,
    ) -> Self {
        Self {
            store,
            authority,
            clock,
            changes,
            terms,
        }
    }

    /// Redeems `token` for a certificate over the key of `csr_pem`.
    ///
    /// # Errors
    /// [`RedeemError`]; which of them spend the token is said there.
    pub async fn redeem(&self, token: &str, csr_pem: &str) -> Result<Redeemed, RedeemError> {
        let csr = VerifiedCsr::parse(csr_pem)?;
        // A text that is not of a token's form was never issued.
        let token = EnrollmentToken::parse(token).ok_or(RedeemError::UnknownToken)?;
        let claim = self.claim(&token).await?;
        let grant = claim.grant.id;
        tracing::info!(token = token.prefix(), %grant, "enrollment token claimed");
        let intent = self.now_id();
        let recorded = self
            .store
            .record_issue_intent(
                &self.act(&token),
                IssueIntent {
                    id: intent,
                    grant,
                    csr_sha256: csr.sha256(),
                },
            )
            .await;
        recorded.map(drop).map_err(conflict_is_not_pending)?;
        let outcome = self.issue_and_commit(&token, &claim, intent, csr).await;
        if let Err(error) = &outcome {
            self.close_intent(&token, intent, error).await;
        }
        let issued = outcome?;
        tracing::info!(token = token.prefix(), %grant, not_after = issued.not_after(), "enrollment completed");
        // The certificate is committed: it is answered even when this process lags behind its store.
        if let Err(why) = self.changes.apply_changes().await {
            tracing::error!(%grant, why, "a completed enrollment is not in force yet");
        }
        Ok(self.answer(&claim, &issued))
    }

    async fn claim(&self, token: &EnrollmentToken) -> Result<Claim, RedeemError> {
        let claimed = self
            .store
            .claim_token(&self.act(token), &token.sha256())
            .await
            .map_err(RedeemError::Store)?;
        let spent = match claimed.value {
            TokenClaim::Claimed(claim) => return Ok(*claim),
            TokenClaim::Unknown => {
                tracing::info!(token = token.prefix(), "unknown enrollment token");
                return Err(RedeemError::UnknownToken);
            }
            TokenClaim::Used => Spent::Used,
            TokenClaim::Withdrawn => Spent::Withdrawn,
            TokenClaim::Expired => Spent::Expired,
            TokenClaim::NotPending => Spent::NotPending,
        };
        tracing::info!(
            token = token.prefix(),
            reason = spent.reason(),
            "enrollment token refused"
        );
        Err(RedeemError::Spent(spent))
    }

    async fn issue_and_commit(
        &self,
        token: &EnrollmentToken,
        claim: &Claim,
        intent: Uuid,
        csr: VerifiedCsr,
    ) -> Result<IssuedCertificate, RedeemError> {
        let ends_at = claim.grant.ends_at();
        let request = ClientIssue {
            id: intent,
            csr,
            grant: claim.grant.id.uuid(),
            subject: claim.grant.subject.uuid(),
            lifetime: self.terms.certificate_lifetime,
            not_after_cap: ends_at.map(|end| end.0.div_euclid(MILLIS_PER_SECOND)),
            now: self.clock.unix_seconds(),
        };
        let issued = self
            .authority
            .issue_client(request)
            .await
            .map_err(RedeemError::Authority)?;
        let identity = PeerIdentity::decode(issued.leaf(), 0)
            .map_err(|error| RedeemError::Authority(error.into()))?;
        let enrollment = Enrollment {
            intent,
            grant: claim.grant.id,
            certificate: EnrolledCertificate {
                fingerprint: identity.fingerprint,
                serial: identity.serial.as_str().to_owned(),
                not_before: seconds(identity.not_before),
                not_after: seconds(identity.not_after),
                der: issued.leaf().as_ref().to_vec(),
            },
        };
        // A grant that changed meanwhile refuses this: the certificate opens nothing, and is revoked all the same.
        let certificate = enrollment.certificate.clone();
        let completed = self
            .store
            .complete_enrollment(&self.act(token), enrollment)
            .await;
        if let Err(error) = completed {
            self.take_back(token, claim, &certificate).await;
            return Err(conflict_is_not_pending(error));
        }
        Ok(issued)
    }

    /// Registers what was issued in vain as revoked, so that it is listed and its authority is told.
    async fn take_back(
        &self,
        token: &EnrollmentToken,
        claim: &Claim,
        certificate: &EnrolledCertificate,
    ) {
        let (act, grant) = (self.act(token), claim.grant.id);
        if let Err(error) = self.store.register_revoked(&act, grant, certificate).await {
            tracing::error!(%grant, %error, serial = certificate.serial, "a certificate that was issued in vain could not be registered as revoked; it opens nothing here");
        }
    }

    async fn close_intent(&self, token: &EnrollmentToken, intent: Uuid, error: &RedeemError) {
        let why = match error {
            RedeemError::Authority(cause) => cause.to_string(),
            RedeemError::Store(cause) => cause.to_string(),
            other => other.to_string(),
        };
        tracing::error!(token = token.prefix(), %intent, why, "enrollment failed; its token is spent");
        if let Err(error) = self
            .store
            .fail_issue_intent(&self.act(token), intent, &why)
            .await
        {
            tracing::error!(%intent, %error, "a failed enrollment could not be recorded as failed");
        }
    }

    fn answer(&self, claim: &Claim, issued: &IssuedCertificate) -> Redeemed {
        // Before the roots are read, as for a renewal.
        let trust_generation = (self.terms.trust_generation)();
        Redeemed {
            cert_pem: issued.leaf_pem(),
            cert_chain_pem: issued.chain_pem(),
            trust_bundle_pem: (self.terms.server_anchors_pem)(),
            trust_generation,
            grant_id: claim.grant.id.to_string(),
            subject_user_id: claim.grant.subject.to_string(),
            endpoint_url: self.terms.endpoint_url.clone(),
            common_name: self.terms.common_name.clone(),
            checkpoint_key: self.terms.checkpoint_key.clone(),
        }
    }

    fn act(&self, token: &EnrollmentToken) -> Act {
        Act {
            id: self.now_id(),
            actor: Actor::Enrollee {
                prefix: token.prefix().to_owned(),
            },
            now: UnixMillis(self.clock.unix_millis()),
        }
    }

    /// The present time, milliseconds since the Unix epoch.
    pub(super) fn now_millis(&self) -> i64 {
        self.clock.unix_millis()
    }

    /// A UUIDv7 of the present time.
    pub(super) fn now_id(&self) -> Uuid {
        let now = self.clock.unix_millis();
        let seconds = u64::try_from(now.div_euclid(MILLIS_PER_SECOND)).unwrap_or(0);
        let millis = u32::try_from(now.rem_euclid(MILLIS_PER_SECOND)).unwrap_or(0);
        let nanos = millis.saturating_mul(1_000_000);
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos))
    }
}

fn seconds(unix: i64) -> UnixMillis {
    UnixMillis(unix.saturating_mul(MILLIS_PER_SECOND))
}

/// Between the claim and the commit only a change of the grant can contradict.
fn conflict_is_not_pending(error: StoreError) -> RedeemError {
    match error {
        StoreError::Conflict { .. } => RedeemError::Spent(Spent::NotPending),
        other => RedeemError::Store(other),
    }
}
