//! The list of the embedded authority: complete, in DER, signed by its root (RFC 5280, section 5).
//!
//! What is listed, its number and when it is made anew are the caller's.

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::RevocationReason;
use crate::ca::embedded::{date, signing};
use crate::ca::{CaError, EmbeddedCa};
use crate::identity::{self, Serial};

/// For how long a list is good, seconds: a day (the specification, section 4.5).
pub const LIFETIME: i64 = 24 * 60 * 60;
/// How often it is made anew without cause, seconds: 6 hours.
pub const EVERY: i64 = 6 * 60 * 60;

/// A certificate to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: Serial,
    /// When it was revoked, Unix seconds.
    pub at: i64,
    /// Why.
    pub reason: RevocationReason,
}

/// A list to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlIssue {
    /// Its number: higher than that of every list before.
    pub number: u64,
    /// When it is made, Unix seconds.
    pub now: i64,
    /// What it lists.
    pub revoked: Vec<Revoked>,
}

impl EmbeddedCa {
    /// Signs a list: DER. Takes a while for a long one: not for a thread that serves others.
    ///
    /// # Errors
    /// [`CaError::Time`] or [`CaError::Signing`].
    pub fn sign_crl(&self, issue: &CrlIssue) -> Result<Vec<u8>, CaError> {
        let revoked_certs = issue
            .revoked
            .iter()
            .map(|one| {
                Ok(RevokedCertParams {
                    serial_number: serial(&one.serial)?,
                    revocation_time: date(one.at)?,
                    reason_code: reason(one.reason),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_, CaError>>()?;
        let params = CertificateRevocationListParams {
            this_update: date(issue.now)?,
            next_update: date(issue.now.saturating_add(LIFETIME))?,
            crl_number: SerialNumber::from_slice(&issue.number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: self.key_identifier(),
        };
        let list = params
            .signed_by(self.issuer())
            .map_err(|error| signing(&error))?;
        Ok(list.der().to_vec())
    }

    /// The root's own key identifier, so that verifiers that compare it find the root.
    fn key_identifier(&self) -> KeyIdMethod {
        let parsed = identity::parse(self.root()).ok();
        parsed
            .as_ref()
            .and_then(|root| {
                root.extensions()
                    .iter()
                    .find_map(|extension| match extension.parsed_extension() {
                        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                            Some(KeyIdMethod::PreSpecified(id.0.to_vec()))
                        }
                        _ => None,
                    })
            })
            .unwrap_or(KeyIdMethod::Sha256)
    }
}

fn serial(serial: &Serial) -> Result<SerialNumber, CaError> {
    let magnitude = hex::decode(serial.as_str()).map_err(|error| CaError::Signing {
        reason: error.to_string(),
    })?;
    Ok(SerialNumber::from_slice(&magnitude))
}

const fn reason(reason: RevocationReason) -> Option<rcgen::RevocationReason> {
    use rcgen::RevocationReason as R;
    match reason {
        // RFC 5280, section 5.3.1: left out rather than written.
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(R::KeyCompromise),
        RevocationReason::CaCompromise => Some(R::CaCompromise),
        RevocationReason::AffiliationChanged => Some(R::AffiliationChanged),
        RevocationReason::Superseded => Some(R::Superseded),
        RevocationReason::CessationOfOperation => Some(R::CessationOfOperation),
        RevocationReason::CertificateHold => Some(R::CertificateHold),
        RevocationReason::PrivilegeWithdrawn => Some(R::PrivilegeWithdrawn),
        RevocationReason::AaCompromise => Some(R::AaCompromise),
    }
}
