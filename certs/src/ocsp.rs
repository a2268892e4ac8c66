//! Online certificate status (RFC 6960, RFC 5019): requests as a responder reads them, and what both sides share.
//!
//! Invariant: a request that is not understood is refused with the status the protocol has for it, never answered as if it
//! had asked something else. Answers of the embedded authority are in `ocsp/respond.rs`, answers that a server staples to its
//! certificate in `ocsp/stapled.rs`; HTTP, caching and what is known of a serial number are the caller's.

mod respond;
pub mod stapled;

use aws_lc_rs::digest;
use der::asn1::{Null, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{CertId, OcspRequest, OcspResponse};

use crate::crl::RevocationReason;
use crate::identity::Serial;

pub use respond::OcspTimes;

/// The longest request, bytes.
pub const MAX_REQUEST: usize = 4 * 1024;
/// The longest nonce, octets (RFC 8954, section 2.1).
pub const MAX_NONCE: usize = 32;
/// The most certificates of one request.
pub const MAX_IDS: usize = 8;

const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// What is known of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcspStatus {
    /// Issued, and not revoked.
    Good,
    /// Revoked.
    Revoked {
        /// When, Unix seconds.
        at: i64,
        /// Why.
        reason: RevocationReason,
    },
    /// Never issued here.
    Unknown,
}

/// A request that is answered with an error status (RFC 6960, section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OcspRefusal {
    /// It is not a request of the protocol.
    #[error("the OCSP request is malformed")]
    Malformed,
    /// The responder cannot answer.
    #[error("the OCSP responder failed")]
    Internal,
    /// Too much is asked at the moment.
    #[error("the OCSP responder is busy; try later")]
    TryLater,
    /// It asks about certificates of others only.
    #[error("the OCSP responder does not answer for that issuer")]
    Unauthorized,
}

impl OcspRefusal {
    /// The response that says so: DER, unsigned.
    #[must_use]
    pub fn to_der(self) -> Vec<u8> {
        let response = match self {
            Self::Malformed => OcspResponse::malformed_request(),
            Self::Internal => OcspResponse::internal_error(),
            Self::TryLater => OcspResponse::try_later(),
            Self::Unauthorized => OcspResponse::unauthorized(),
        };
        // A sequence of one enumerated value always has a form.
        response.to_der().unwrap_or_default()
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspQuery {
    ids: Vec<CertId>,
    nonce: Option<Vec<u8>>,
}

impl OcspQuery {
    /// Decodes a request.
    ///
    /// # Errors
    /// [`OcspRefusal::Malformed`]: not DER, no certificate or more than [`MAX_IDS`], a nonce of another length than 1 to
    /// [`MAX_NONCE`] octets, a critical extension that is not known.
    pub fn decode(der: &[u8]) -> Result<Self, OcspRefusal> {
        let malformed = |_| OcspRefusal::Malformed;
        if der.len() > MAX_REQUEST {
            return Err(OcspRefusal::Malformed);
        }
        let asked = OcspRequest::from_der(der).map_err(malformed)?.tbs_request;
        let singles = asked
            .request_list
            .iter()
            .filter_map(|one| one.single_request_extensions.as_ref())
            .flatten();
        let whole = asked.request_extensions.iter().flatten();
        if singles
            .chain(whole.clone())
            .any(|extension| extension.critical && extension.extn_id != NONCE)
        {
            return Err(OcspRefusal::Malformed);
        }
        let mut nonces = whole.filter(|extension| extension.extn_id == NONCE);
        let nonce = match (nonces.next(), nonces.next()) {
            (None, _) => None,
            (Some(one), None) => {
                let nonce = OctetStringRef::from_der(one.extn_value.as_bytes())
                    .map_err(malformed)?
                    .as_bytes();
                if !(1..=MAX_NONCE).contains(&nonce.len()) {
                    return Err(OcspRefusal::Malformed);
                }
                Some(nonce.to_vec())
            }
            (Some(_), Some(_)) => return Err(OcspRefusal::Malformed),
        };
        let ids: Vec<CertId> = asked
            .request_list
            .into_iter()
            .map(|one| one.req_cert)
            .collect();
        if !(1..=MAX_IDS).contains(&ids.len()) {
            return Err(OcspRefusal::Malformed);
        }
        Ok(Self { ids, nonce })
    }

    /// Whether the answer has to be signed for this request alone.
    #[must_use]
    pub const fn has_nonce(&self) -> bool {
        self.nonce.is_some()
    }

    /// What distinguishes its answer from that to other requests without a nonce: DER of what is asked.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        self.ids.to_der().unwrap_or_default()
    }
}

/// The hash of an identifier's algorithm over `data`; `None` for an algorithm that is not known.
fn hash(algorithm: &AlgorithmIdentifierOwned, data: &[u8]) -> Option<digest::Digest> {
    let with = match algorithm.oid {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        SHA384 => &digest::SHA384,
        SHA512 => &digest::SHA512,
        _ => return None,
    };
    let bare = algorithm
        .parameters
        .as_ref()
        .is_none_or(|parameters| *parameters == Null.into());
    bare.then(|| digest::digest(with, data))
}

/// Whether an identifier is about a certificate of the issuer with this name (DER) and key (content of its bit string).
fn is_of(id: &CertId, name: &[u8], key: &[u8]) -> bool {
    let matches = |data: &[u8], said: &[u8]| {
        hash(&id.hash_algorithm, data).is_some_and(|hash| hash.as_ref() == said)
    };
    matches(name, id.issuer_name_hash.as_bytes()) && matches(key, id.issuer_key_hash.as_bytes())
}

/// The serial number an identifier is about, when a certificate can have it.
fn serial_of(id: &CertId) -> Option<Serial> {
    Serial::decode(id.serial_number.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
