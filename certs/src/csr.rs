//! Certificate requests, from strangers.
//!
//! Invariant: a [`VerifiedCsr`] holds a key of an accepted kind whose holder signed the request.
//! Everything else that a request can ask for is ignored: names, extensions and attributes are the
//! issuer's to decide.

use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry as oids;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::identity::fingerprint;

/// The longest request text, in bytes.
pub const CSR_MAX_BYTES: usize = 16 * 1024;
/// The smallest RSA modulus, in bits.
const RSA_MIN_BITS: usize = 2048;
/// The largest RSA modulus, in bits: verification cost grows with it.
const RSA_MAX_BITS: usize = 8192;

/// Why a certificate request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// The text is longer than [`CSR_MAX_BYTES`].
    #[error("the certificate request is longer than 16 KiB")]
    TooLarge,
    /// The text is not exactly one PEM certificate request.
    #[error("the text does not hold exactly one PEM certificate request")]
    MalformedPem,
    /// The request is not valid DER.
    #[error("the certificate request is not valid DER")]
    Malformed,
    /// The key is of another kind than P-256, P-384, Ed25519 or RSA.
    #[error("the key must be P-256, P-384, Ed25519 or RSA")]
    UnsupportedKey,
    /// The RSA key is too small or too large.
    #[error("the RSA key must have 2048 to 8192 bits")]
    RsaSize,
    /// The RSA public exponent is even, or below 65537 (FIPS 186-5, section 5.1).
    #[error("the RSA key must have an odd public exponent of at least 65537")]
    RsaExponent,
    /// The signature is made with an algorithm that is not accepted, such as one over SHA-1.
    #[error(
        "the certificate request is signed with an algorithm that is not accepted; use SHA-256 or better"
    )]
    UnsupportedSignature,
    /// The signature is not made by the key in the request.
    #[error("the certificate request is not signed by its own key")]
    BadSignature,
}

/// The kind of a request's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 to 8192 bits.
    Rsa,
}

/// A certificate request whose signature was verified with its own, accepted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCsr {
    der: Vec<u8>,
    public_key: Vec<u8>,
    kind: KeyKind,
    common_name: Option<String>,
}

impl VerifiedCsr {
    /// Parses and verifies one PEM certificate request.
    ///
    /// # Errors
    /// [`CsrError`].
    pub fn parse(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > CSR_MAX_BYTES {
            return Err(CsrError::TooLarge);
        }
        let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
        match (sections.next(), sections.next()) {
            (Some(Ok((SectionKind::Csr, der))), None) => Self::decode(der),
            _ => Err(CsrError::MalformedPem),
        }
    }

    fn decode(der: Vec<u8>) -> Result<Self, CsrError> {
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        let key = &request.certification_request_info.subject_pki;
        let kind = key_kind(key)?;
        if !signature_accepted(kind, &request.signature_algorithm) {
            return Err(CsrError::UnsupportedSignature);
        }
        request
            .verify_signature()
            .map_err(|_| CsrError::BadSignature)?;
        let public_key = key.raw.to_vec();
        let common_name = request
            .certification_request_info
            .subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        Ok(Self {
            der,
            public_key,
            kind,
            common_name,
        })
    }

    /// The request's DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the request's DER: the same request sent twice has the same.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        fingerprint(&self.der)
    }

    /// The public key as a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The first common name the request asks for: said to authorities that compare it, given to no certificate by itself.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The kind of the key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }
}

/// The kind of a key that peers may have.
///
/// # Errors
/// [`CsrError::UnsupportedKey`], [`CsrError::RsaSize`] or [`CsrError::RsaExponent`].
pub(crate) fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, CsrError> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == oids::OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok())
            .ok_or(CsrError::UnsupportedKey)?;
        return match curve {
            curve if curve == oids::OID_EC_P256 => Ok(KeyKind::P256),
            curve if curve == oids::OID_NIST_EC_P384 => Ok(KeyKind::P384),
            _ => Err(CsrError::UnsupportedKey),
        };
    }
    if *algorithm == oids::OID_SIG_ED25519 {
        return Ok(KeyKind::Ed25519);
    }
    if *algorithm == oids::OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(rsa)) = key.parsed() else {
            return Err(CsrError::UnsupportedKey);
        };
        let bits = modulus_bits(rsa.modulus);
        if !(RSA_MIN_BITS..=RSA_MAX_BITS).contains(&bits) {
            return Err(CsrError::RsaSize);
        }
        return if exponent_is_fit(rsa.exponent) {
            Ok(KeyKind::Rsa)
        } else {
            Err(CsrError::RsaExponent)
        };
    }
    Err(CsrError::UnsupportedKey)
}

/// Whether a big-endian public exponent is odd and above 2^16.
fn exponent_is_fit(exponent: &[u8]) -> bool {
    exponent.last().is_some_and(|last| last & 1 == 1) && modulus_bits(exponent) > 16
}

/// The bit length of a big-endian magnitude, leading zeros not counted.
fn modulus_bits(modulus: &[u8]) -> usize {
    let mut octets = modulus.iter().skip_while(|octet| **octet == 0);
    octets.next().map_or(0, |first| {
        let leading = usize::try_from(first.leading_zeros()).unwrap_or(8);
        octets.count() * 8 + (8 - leading)
    })
}

/// Signature algorithms by kind of key; SHA-1 and MD5 are in none of them.
fn signature_accepted(kind: KeyKind, algorithm: &AlgorithmIdentifier<'_>) -> bool {
    let accepted: &[oids::Oid<'_>] = match kind {
        KeyKind::P256 | KeyKind::P384 => &[
            oids::OID_SIG_ECDSA_WITH_SHA256,
            oids::OID_SIG_ECDSA_WITH_SHA384,
        ],
        KeyKind::Ed25519 => &[oids::OID_SIG_ED25519],
        KeyKind::Rsa => &[
            oids::OID_PKCS1_SHA256WITHRSA,
            oids::OID_PKCS1_SHA384WITHRSA,
            oids::OID_PKCS1_SHA512WITHRSA,
            // The verifier behind it accepts SHA-256 and better only.
            oids::OID_PKCS1_RSASSAPSS,
        ],
    };
    accepted.contains(&algorithm.algorithm)
}

#[cfg(test)]
mod tests;
