//! A certificate chain with its private key, ready for TLS.
//!
//! Invariant: the key belongs to the leaf, and the key is held once: every configuration and every
//! connection shares the same [`CertifiedKey`] by reference count. The bytes to be sealed stay with
//! [`PrivateKey`]; a credential cannot give them back.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::identity::{self, IdentityError, Serial, fingerprint};
use crate::key::{KeyError, PrivateKey};
use crate::trust::{certificate_to_pem, certificates_from_pem};

/// Why a chain and a key do not make a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The chain is empty.
    #[error("the certificate chain is empty")]
    EmptyChain,
    /// The chain is not PEM, or holds something other than certificates.
    #[error("the certificate chain is not a PEM file of certificates only: {reason}")]
    MalformedPem {
        /// What the PEM reader found.
        reason: String,
    },
    /// The leaf does not parse, or its serial number is odd.
    #[error("the first certificate of the chain is not fit: {0}")]
    Leaf(IdentityError),
    /// The key does not parse or is not supported.
    #[error("the private key is not fit: {0}")]
    Key(#[from] KeyError),
    /// The key is not the leaf's.
    #[error(
        "the private key does not belong to the first certificate of the chain; put the leaf first"
    )]
    KeyMismatch,
}

/// A certificate chain, leaf first, and its private key in the TLS provider's form.
#[derive(Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    serial: Serial,
    fingerprint: [u8; 32],
    not_before: i64,
    not_after: i64,
}

impl Credential {
    /// Joins `chain` (leaf first) and `key`.
    ///
    /// # Errors
    /// [`CredentialError`] when the chain is empty or malformed, or the key is not the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKey,
    ) -> Result<Self, CredentialError> {
        let leaf = chain.first().ok_or(CredentialError::EmptyChain)?;
        let parsed = identity::parse(leaf).map_err(CredentialError::Leaf)?;
        let serial = Serial::decode(parsed.raw_serial()).map_err(CredentialError::Leaf)?;
        if parsed.public_key().raw != key.public_key()? {
            return Err(CredentialError::KeyMismatch);
        }
        let validity = parsed.validity();
        let (not_before, not_after) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let fingerprint = fingerprint(leaf);
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, key.signing_key()?)),
            serial,
            fingerprint,
            not_before,
            not_after,
        })
    }

    /// Parses a PEM chain, leaf first, and a PEM key.
    ///
    /// # Errors
    /// As [`Credential::new`], and for texts that are not PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CredentialError> {
        let chain = certificates_from_pem(chain)
            .map_err(|reason| CredentialError::MalformedPem { reason })?;
        Self::new(chain, &PrivateKey::from_pem(key)?)
    }

    /// The chain, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain as one PEM text, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain()
            .iter()
            .map(|der| certificate_to_pem(der))
            .collect()
    }

    /// The self-signed certificate at the end of the chain, if there is one: what a client pins.
    #[must_use]
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.chain().last().filter(|last| {
            identity::parse(last).is_ok_and(|parsed| {
                parsed.subject().as_raw() == parsed.issuer().as_raw()
                    && parsed.verify_signature(None).is_ok()
            })
        })
    }

    /// The leaf's serial number.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// SHA-256 of the leaf's DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Start of the leaf's validity, Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// End of the leaf's validity, Unix seconds, inclusive.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The chain and key as rustls takes them; shared, not copied.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("serial", &self.serial.as_str())
            .field("fingerprint", &hex::encode(self.fingerprint))
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("key", &"redacted")
            .finish()
    }
}

#[cfg(test)]
mod tests;
