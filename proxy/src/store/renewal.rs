//! Renewal of client certificates, as the store keeps it on both sides.
//!
//! Invariant: serving, of a grant only the newest confirmed certificate gets another one, at most one is unconfirmed,
//! and what was asked for with the same request is given again unchanged. Asking, key and request are stored before
//! the peer is asked, its answer before it is used, and the exchange of one credential for the next is one change.
//! Who may ask and when is elsewhere; so is signing.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use certs::crl::RevocationReason;
use policy::id::{GrantId, PeerId};
use policy::time::UnixMillis;
use uuid::Uuid;

use super::change::{Act, Committed, EnrolledCertificate};
use super::error::StoreError;
use super::record::{CertificateEntry, RenewalTries, Sha256};

/// A request for renewal that reached the serving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalRequest {
    /// The id of the intent, if one is to be written.
    pub intent: Uuid,
    /// The grant.
    pub grant: GrantId,
    /// SHA-256 of the certificate that it came with.
    pub presented: Sha256,
    /// SHA-256 of the CSR's DER.
    pub csr_sha256: Sha256,
}

/// A certificate that was issued for the same request before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownCertificate {
    /// The leaf, DER.
    pub der: Vec<u8>,
    /// Leaf and intermediates, PEM.
    pub chain_pem: String,
    /// End of validity.
    pub not_after: UnixMillis,
}

/// What is to be done about a request for renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewalStart {
    /// Issue: the intent is written.
    Issue,
    /// Nothing new: the request is known, and this is its certificate.
    Known(Box<KnownCertificate>),
    /// The request is known, and its certificate was revoked: another one takes another request.
    Spent,
    /// It came with a certificate that is not the newest confirmed one of its grant.
    Outdated,
}

/// A renewed certificate to register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewedCertificate {
    /// What was asked.
    pub request: RenewalRequest,
    /// What was issued.
    pub certificate: EnrolledCertificate,
    /// Leaf and intermediates, PEM.
    pub chain_pem: String,
}

/// A certificate that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// It.
    pub entry: CertificateEntry,
    /// How many certificates of its grant are still good.
    pub left: u64,
}

/// A renewal on the asking side that is about to begin.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRenewal {
    /// The credential to be renewed.
    pub credential: Uuid,
    /// The id of the credential to come; the row id its key is sealed under.
    pub id: Uuid,
    /// The sealed private key.
    pub sealed_key: Vec<u8>,
    /// The request, PEM.
    pub csr_pem: String,
}

impl fmt::Debug for NewRenewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRenewal")
            .field("credential", &self.credential)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What the peer has issued for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedRenewal {
    /// Leaf and intermediates, PEM.
    pub chain_pem: String,
    /// The anchors of the peer's server certificates, PEM.
    pub trust_bundle_pem: String,
    /// Their generation.
    pub trust_generation: u64,
    /// End of validity of the leaf.
    pub not_after: UnixMillis,
    /// When it came, by the peer's clock.
    pub began_at: UnixMillis,
}

/// A renewal on the asking side that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRenewal {
    /// Its key and request.
    pub new: NewRenewal,
    /// When it began.
    pub begun_at: UnixMillis,
    /// What the peer has issued, once it has.
    pub issued: Option<IssuedRenewal>,
}

/// The part of the store that is about renewal.
#[async_trait]
pub trait RenewalStore: Send + Sync {
    /// Says what is to be done about a request for renewal and, where a certificate is to be issued, writes the
    /// intent. Everything else changes nothing. [`StoreError::Conflict`] when the grant is not active.
    async fn begin_renewal(
        &self,
        act: &Act,
        request: RenewalRequest,
    ) -> Result<Committed<RenewalStart>, StoreError>;

    /// Registers a renewed certificate, unconfirmed, closes its intent, and revokes another one that was never
    /// confirmed; the value says whether there was one. [`StoreError::Conflict`] when the grant is not active any
    /// more, or the request has become one that [`begin_renewal`](Self::begin_renewal) would not let be issued for.
    async fn complete_renewal(
        &self,
        act: &Act,
        renewed: RenewedCertificate,
    ) -> Result<Committed<bool>, StoreError>;

    /// Notes the first use of a certificate. The one confirmed before it is good for `overlap` from now on, an older
    /// one no more. Idempotent. [`StoreError::Conflict`] for one that was revoked, [`StoreError::NotFound`] for an
    /// unknown one.
    async fn confirm_certificate(
        &self,
        act: &Act,
        grant: GrantId,
        fingerprint: &Sha256,
        overlap: Duration,
    ) -> Result<Committed<()>, StoreError>;

    /// Revokes one certificate by its serial number (lower-case hex), for a reason that lists give, and raises the edit counter of
    /// its grant. Idempotent: the first reason stays. [`StoreError::NotFound`] for an unknown one.
    async fn revoke_certificate(
        &self,
        act: &Act,
        serial: &str,
        reason: RevocationReason,
    ) -> Result<Committed<RevokedCertificate>, StoreError>;

    /// Stores key and request of a renewal of one of our credentials. [`StoreError::Conflict`] when one is under way,
    /// or the credential is superseded or revoked.
    async fn begin_outbound_renewal(
        &self,
        act: &Act,
        renewal: NewRenewal,
    ) -> Result<Committed<()>, StoreError>;

    /// The renewal of a credential that is under way, if one is.
    async fn outbound_renewal(
        &self,
        credential: Uuid,
    ) -> Result<Option<PendingRenewal>, StoreError>;

    /// Stores what the peer has issued for a renewal. [`StoreError::NotFound`] when it is not under way.
    async fn keep_renewed(
        &self,
        act: &Act,
        credential: Uuid,
        issued: IssuedRenewal,
    ) -> Result<Committed<()>, StoreError>;

    /// Puts the renewed credential in the place of the old one, whose key is forgotten, with the trust bundle that
    /// came with it. The value is its id. `skew_ms` is how far the peer's clock is ahead of ours.
    /// [`StoreError::NotFound`] when nothing was issued for it, [`StoreError::Conflict`] when the old one is not the
    /// current one any more.
    async fn finish_outbound_renewal(
        &self,
        act: &Act,
        credential: Uuid,
        skew_ms: i64,
    ) -> Result<Committed<Uuid>, StoreError>;

    /// Gives up a renewal with its key. Nothing changes when none is under way.
    async fn drop_outbound_renewal(
        &self,
        act: &Act,
        credential: Uuid,
        why: &str,
    ) -> Result<Committed<()>, StoreError>;

    /// Notes what has been tried. Neither audited nor a new revision: it is an observation, not an act.
    async fn record_renewal_tries(
        &self,
        credential: Uuid,
        tries: &RenewalTries,
    ) -> Result<(), StoreError>;

    /// Marks an active peer that we ask as degraded, or such a one as active again; any other state stays.
    async fn mark_peer(
        &self,
        act: &Act,
        peer: PeerId,
        degraded: bool,
        why: &str,
    ) -> Result<Committed<()>, StoreError>;
}
