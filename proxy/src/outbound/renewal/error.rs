//! Why a credential was not renewed, in words that say what to do.

use crate::outbound::fault::AskError;
use crate::store::StoreError;

/// A renewal that did not come about. No variant holds a secret.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RenewError {
    /// The certificate has ended: nothing can be proved with it.
    #[error(
        "the certificate has expired, and only a certificate in force can be renewed; have the peer's operator run `grant token --replace` and enroll again with `peer add`"
    )]
    Expired,
    /// The peer has revoked the grant or the certificate.
    #[error(
        "the peer has revoked this grant or certificate; ask its operator for a new grant, or for `grant token --replace`"
    )]
    Revoked,
    /// The credential was replaced or ended meanwhile.
    #[error("the credential was replaced or ended meanwhile; there is nothing to renew")]
    Overtaken,
    /// What is stored cannot be used.
    #[error("what is stored for the renewal cannot be used: {0}")]
    Unusable(String),
    /// No record of the request can be kept.
    #[error("the request cannot be recorded, so it is not sent; check the disk and the database")]
    AuditUnavailable,
    /// The store failed.
    #[error("the renewal could not be stored: {0}")]
    Store(#[from] StoreError),
    /// The peer gave no answer.
    #[error("the peer could not be asked: {0}")]
    Offline(AskError),
    /// The peer refused.
    #[error("the peer refused with {status}{}: {message}{}", named(.reason.as_deref()), advice(.reason.as_deref()))]
    Refused {
        /// Its status.
        status: u16,
        /// Its machine-readable reason.
        reason: Option<String>,
        /// Its words, escaped and bounded.
        message: String,
    },
    /// What came back is not what was asked for.
    #[error("the peer's answer cannot be used: {0}")]
    BadAnswer(&'static str),
    /// The new certificate was not accepted; the one in use stays.
    #[error("the new certificate could not be put to use, the one before it stays: {0}")]
    Unproven(String),
}

fn named(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

fn advice(reason: Option<&str>) -> &'static str {
    match reason {
        Some("renewal_conflict" | "certificate_superseded") => {
            "; a newer certificate is in use elsewhere: was this side restored from a backup, or a key copied? Have the peer's operator run `grant token --replace` and enroll again with `peer add`"
        }
        Some("certificate_expired" | "certificate_revoked") => {
            "; have the peer's operator run `grant token --replace` and enroll again with `peer add`"
        }
        _ => "",
    }
}
