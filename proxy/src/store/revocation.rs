//! The store's part about revocation lists: what is listed, what was read elsewhere, and who has yet to be told.
//!
//! Invariant: the number of our own list only goes up, whichever process makes the next one. Taking a certificate away
//! because a list names it is an act like any other; the rest is observation, neither audited nor a new revision.

use async_trait::async_trait;
use certs::crl::RevocationReason;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::change::{Act, Committed, EnrolledCertificate};
use super::error::StoreError;
use super::record::{CertificateState, Sha256};

/// A revoked certificate, as a list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedLeaf {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// When it was revoked.
    pub revoked_at: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
}

/// A list of the embedded authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedList {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub made_at: UnixMillis,
    /// Hash of what it lists.
    pub content: Sha256,
    /// DER.
    pub der: Vec<u8>,
}

/// A good list of another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptList {
    /// Where it was read from.
    pub source: String,
    /// SHA-256 of its DER.
    pub sha256: Sha256,
    /// DER.
    pub der: Vec<u8>,
    /// The certificate of its issuer, DER.
    pub issuer: Vec<u8>,
}

/// A revocation that another authority has not been told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntoldRevocation {
    /// The certificate.
    pub fingerprint: Sha256,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// DER.
    pub der: Vec<u8>,
    /// When it was revoked.
    pub revoked_at: UnixMillis,
    /// Why.
    pub reason: RevocationReason,
    /// How often telling failed.
    pub tries: u32,
    /// When it was tried last.
    pub tried_at: Option<UnixMillis>,
    /// Why that failed.
    pub failure: Option<String>,
}

/// A certificate that the embedded authority has issued for listeners of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificateRecord {
    /// SHA-256 of its DER.
    pub fingerprint: Sha256,
    /// Its serial number, lower-case hex.
    pub serial: String,
    /// DER.
    pub der: Vec<u8>,
    /// Its end.
    pub not_after: UnixMillis,
}

/// A registered certificate that a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedLeaf {
    /// The certificate.
    pub fingerprint: Sha256,
    /// The reason of the list.
    pub reason: RevocationReason,
}

/// What is known of a serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialStanding {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its state.
    pub state: CertificateState,
    /// When it was revoked, and why.
    pub revoked: Option<(UnixMillis, RevocationReason)>,
}

/// The part of the store that is about revocation lists.
#[async_trait]
pub trait RevocationStore: Send + Sync {
    /// The revoked certificates that end after an instant, by serial number.
    async fn revoked_leaves(&self, end_after: UnixMillis) -> Result<Vec<RevokedLeaf>, StoreError>;

    /// The last list of the embedded authority, if one was ever made.
    async fn published_list(&self) -> Result<Option<PublishedList>, StoreError>;

    /// Stores the next list; false when its number is not one more than that of the last one: somebody else was first.
    async fn publish_list(&self, list: &PublishedList) -> Result<bool, StoreError>;

    /// The last good lists of every place.
    async fn kept_lists(&self) -> Result<Vec<KeptList>, StoreError>;

    /// Puts these in the place of those that were kept of `source`.
    async fn keep_lists(&self, source: &str, lists: &[KeptList]) -> Result<(), StoreError>;

    /// Revokes registered certificates that lists name and raises the edit counters of their grants; the value lists the
    /// grants. Nothing changes for those revoked already.
    async fn revoke_listed(
        &self,
        act: &Act,
        listed: &[ListedLeaf],
    ) -> Result<Committed<Vec<GrantId>>, StoreError>;

    /// Registers a certificate that was issued and that its grant did not take, as revoked: it is listed, and its authority
    /// is told. Idempotent.
    async fn register_revoked(
        &self,
        act: &Act,
        grant: GrantId,
        certificate: &EnrolledCertificate,
    ) -> Result<Committed<()>, StoreError>;

    /// The revocations that another authority has yet to be told of, of certificates that have not ended, oldest first;
    /// at most `most`.
    async fn untold_revocations(
        &self,
        now: UnixMillis,
        most: u32,
    ) -> Result<Vec<UntoldRevocation>, StoreError>;

    /// How many there are.
    async fn count_untold(&self, now: UnixMillis) -> Result<u64, StoreError>;

    /// Notes that the authority was told of a revocation, or why it could not be.
    async fn record_told(
        &self,
        fingerprint: &Sha256,
        at: UnixMillis,
        failure: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Notes a certificate for listeners, before it is shown to anybody, and forgets those that ended before `now`. Idempotent.
    async fn record_server_certificate(
        &self,
        issued: &ServerCertificateRecord,
        now: UnixMillis,
    ) -> Result<(), StoreError>;

    /// What is known of the certificates with a serial number (lower-case hex), those for listeners included: two issuers
    /// may use the same.
    async fn standing_of(&self, serial: &str) -> Result<Vec<SerialStanding>, StoreError>;
}
