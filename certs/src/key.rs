//! Private keys: made, parsed, used to sign a certificate request.
//!
//! Invariant: key bytes live in one zeroising buffer, never in `Debug` output, and every
//! [`PrivateKey`] is one the TLS provider can sign with. Sealing them is done in `seal.rs`; the
//! form in which a connection uses them is in `credential.rs`.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RsaKeyPair,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData, SignatureAlgorithm};
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::trust::pem_section;

/// Why a key could not be made, parsed or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library could not make a key.
    #[error("no key could be generated; the system's random source may be unavailable")]
    Generation,
    /// The text holds no PEM private key, or more than one.
    #[error("the text does not hold exactly one PEM private key")]
    MalformedPem,
    /// The bytes are not a private key of a supported kind.
    #[error("the private key is not a P-256, P-384, Ed25519 or RSA key of at least 2048 bits")]
    Unsupported,
    /// The key is of a kind this program does not make requests with.
    #[error("certificate requests are made with P-256 keys only")]
    NotForRequests,
    /// The common name cannot be put in a certificate.
    #[error("the certificate request could not be encoded; use a shorter or plainer common name")]
    Request,
}

/// A private key as PKCS#8 DER. Zeroised on drop.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// Makes a new P-256 key.
    ///
    /// # Errors
    /// [`KeyError::Generation`].
    pub fn generate_p256() -> Result<Self, KeyError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| KeyError::Generation)?;
        Self::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Takes PKCS#8 DER, after trying that the TLS provider can use it.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`].
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let key = Self { pkcs8 };
        key.signing_key()?;
        Ok(key)
    }

    /// Parses a PEM text with exactly one private key: PKCS#8, SEC1 or PKCS#1. Other sections, such
    /// as certificates or EC parameters, are passed over.
    ///
    /// # Errors
    /// [`KeyError::MalformedPem`] or [`KeyError::Unsupported`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let mut keys = PrivateKeyDer::pem_slice_iter(pem);
        let first = keys.next().ok_or(KeyError::MalformedPem)?;
        let mut key = first.map_err(|_| KeyError::MalformedPem)?;
        let converted = match keys.next() {
            None => to_pkcs8(&key),
            Some(second) => {
                if let Ok(mut second) = second {
                    second.zeroize();
                }
                Err(KeyError::MalformedPem)
            }
        };
        key.zeroize();
        Self::from_pkcs8(converted?)
    }

    /// The key as PKCS#8 DER, to be sealed.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem_section("PRIVATE KEY", &self.pkcs8))
    }

    /// A PKCS#10 request in PEM for this key, with `common_name` and no extensions.
    ///
    /// # Errors
    /// [`KeyError::NotForRequests`] for keys other than P-256, [`KeyError::Request`] when the name
    /// cannot be encoded.
    pub fn csr_pem(&self, common_name: &str) -> Result<String, KeyError> {
        let signer = P256Signer::new(self)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name);
        let request = params
            .serialize_request(&signer)
            .map_err(|_| KeyError::Request)?;
        Ok(pem_section("CERTIFICATE REQUEST", request.der()))
    }

    /// The public half, as a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] when the provider cannot say.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyError> {
        let key = self.signing_key()?;
        let spki = key.public_key().ok_or(KeyError::Unsupported)?;
        Ok(spki.to_vec())
    }

    /// The key in the TLS provider's form, which keeps its own copy and clears it when freed.
    pub(crate) fn signing_key(&self) -> Result<Arc<dyn SigningKey>, KeyError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()));
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|_| KeyError::Unsupported)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

fn to_pkcs8(key: &PrivateKeyDer<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let copy = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    match key {
        PrivateKeyDer::Pkcs8(key) => Ok(copy(key.secret_pkcs8_der())),
        PrivateKeyDer::Sec1(key) => [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
        ]
        .into_iter()
        .find_map(|algorithm| {
            let pair = EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok()?;
            Some(copy(pair.to_pkcs8v1().ok()?.as_ref()))
        })
        .ok_or(KeyError::Unsupported),
        PrivateKeyDer::Pkcs1(key) => {
            let pair =
                RsaKeyPair::from_der(key.secret_pkcs1_der()).map_err(|_| KeyError::Unsupported)?;
            let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
                pair.as_der().map_err(|_| KeyError::Unsupported)?;
            Ok(copy(der.as_ref()))
        }
        _ => Err(KeyError::Unsupported),
    }
}

/// A distinguished name of one common name.
pub(crate) fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// A P-256 key in the certificate builder's form: the library's own key pair would keep a second,
/// unwiped copy of the PKCS#8 bytes.
pub(crate) struct P256Signer(EcdsaKeyPair);

impl P256Signer {
    pub(crate) fn new(key: &PrivateKey) -> Result<Self, KeyError> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.pkcs8)
            .map(Self)
            .map_err(|_| KeyError::NotForRequests)
    }
}

impl PublicKeyData for P256Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for P256Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests;
