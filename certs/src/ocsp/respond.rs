//! Answers of the embedded authority, signed with its own key (RFC 6960, section 4.2).
//!
//! Invariant: the authority answers for what it has issued and for nothing else.

use std::time::Duration;

use aws_lc_rs::digest;
use der::Encode;
use der::asn1::{BitString, GeneralizedTime, Null, OctetString};
use rcgen::SigningKey as _;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlReason;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId, ResponseData,
    RevokedInfo, SingleResponse, Version,
};

use super::{NONCE, OcspQuery, OcspRefusal, OcspStatus, is_of, serial_of};
use crate::ca::EmbeddedCa;
use crate::crl::RevocationReason;
use crate::identity::{self, Serial};
use crate::signature::PublicKey;

/// ecdsa-with-SHA256: what the embedded authority signs with.
const ECDSA_SHA256: der::asn1::ObjectIdentifier =
    der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// The window of an answer, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OcspTimes {
    /// When what it says was looked up.
    pub this_update: i64,
    /// Until when it is good.
    pub next_update: i64,
}

impl EmbeddedCa {
    /// The serial numbers that are asked about, in order; `None` where the certificate is another issuer's, or cannot be.
    ///
    /// # Errors
    /// [`OcspRefusal::Unauthorized`] when none is ours.
    pub fn asked(&self, query: &OcspQuery) -> Result<Vec<Option<Serial>>, OcspRefusal> {
        let root = identity::parse(self.root()).map_err(|_| OcspRefusal::Internal)?;
        let name = root.subject().as_raw();
        let key = PublicKey::decode(root.public_key().raw).map_err(|_| OcspRefusal::Internal)?;
        let ours: Vec<bool> = query
            .ids
            .iter()
            .map(|id| is_of(id, name, key.bits))
            .collect();
        if !ours.contains(&true) {
            return Err(OcspRefusal::Unauthorized);
        }
        let asked = query.ids.iter().zip(ours);
        Ok(asked
            .map(|(id, ours)| ours.then(|| serial_of(id)).flatten())
            .collect())
    }

    /// Signs the answer to `query`: DER. `statuses` are in the order of the request; one that is missing is unknown.
    ///
    /// # Errors
    /// [`OcspRefusal::Internal`].
    pub fn sign_ocsp(
        &self,
        query: &OcspQuery,
        statuses: &[OcspStatus],
        times: OcspTimes,
    ) -> Result<Vec<u8>, OcspRefusal> {
        self.respond(query, statuses, times)
            .map_err(|_| OcspRefusal::Internal)
    }

    fn respond(
        &self,
        query: &OcspQuery,
        statuses: &[OcspStatus],
        times: OcspTimes,
    ) -> der::Result<Vec<u8>> {
        let (this_update, next_update) = (time(times.this_update)?, time(times.next_update)?);
        let statuses = statuses
            .iter()
            .chain(std::iter::repeat(&OcspStatus::Unknown));
        let responses = query
            .ids
            .iter()
            .zip(statuses)
            .map(|(id, status)| {
                Ok(SingleResponse {
                    cert_id: id.clone(),
                    cert_status: written(*status)?,
                    this_update,
                    next_update: Some(next_update),
                    single_extensions: None,
                })
            })
            .collect::<der::Result<_>>()?;
        let nonce = query
            .nonce
            .as_ref()
            .map(|nonce| {
                Ok::<_, der::Error>(vec![Extension {
                    extn_id: NONCE,
                    critical: false,
                    extn_value: OctetString::new(OctetString::new(nonce.clone())?.to_der()?)?,
                }])
            })
            .transpose()?;
        let data = ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByKey(self.key_hash()?),
            produced_at: this_update,
            responses,
            response_extensions: nonce,
        };
        let signature = self
            .issuer()
            .key()
            .sign(&data.to_der()?)
            .map_err(|_| der::Tag::BitString.value_error())?;
        let basic = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: AlgorithmIdentifierOwned {
                oid: ECDSA_SHA256,
                parameters: None,
            },
            signature: BitString::from_bytes(&signature)?,
            certs: None,
        };
        OcspResponse::successful(basic)?.to_der()
    }

    /// SHA-1 of the root's public key: how the protocol names a responder by its key.
    fn key_hash(&self) -> der::Result<OctetString> {
        let bad = || der::Tag::Sequence.value_error();
        let root = identity::parse(self.root()).map_err(|_| bad())?;
        let key = PublicKey::decode(root.public_key().raw)?;
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.bits);
        OctetString::new(hash.as_ref())
    }
}

fn written(status: OcspStatus) -> der::Result<CertStatus> {
    Ok(match status {
        OcspStatus::Good => CertStatus::Good(Null),
        OcspStatus::Unknown => CertStatus::Unknown(Null),
        OcspStatus::Revoked { at, reason } => CertStatus::Revoked(RevokedInfo {
            revocation_time: time(at)?,
            revocation_reason: reason_of(reason),
        }),
    })
}

const fn reason_of(reason: RevocationReason) -> Option<CrlReason> {
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(CrlReason::KeyCompromise),
        RevocationReason::CaCompromise => Some(CrlReason::CaCompromise),
        RevocationReason::AffiliationChanged => Some(CrlReason::AffiliationChanged),
        RevocationReason::Superseded => Some(CrlReason::Superseded),
        RevocationReason::CessationOfOperation => Some(CrlReason::CessationOfOperation),
        RevocationReason::CertificateHold => Some(CrlReason::CertificateHold),
        RevocationReason::PrivilegeWithdrawn => Some(CrlReason::PrivilegeWithdrawn),
        RevocationReason::AaCompromise => Some(CrlReason::AaCompromise),
    }
}

fn time(seconds: i64) -> der::Result<OcspGeneralizedTime> {
    let since = u64::try_from(seconds).map_err(|_| der::Tag::GeneralizedTime.value_error())?;
    GeneralizedTime::from_unix_duration(Duration::from_secs(since)).map(OcspGeneralizedTime)
}
