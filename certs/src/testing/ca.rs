//! Certificate authorities for tests, roots and intermediates, with any defect wanted.
//!
//! Invariant: a CA's path ends in its root. Leaves are minted in the parent module.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::identity::fingerprint;
use crate::key::{PrivateKey, distinguished_name};
use crate::trust::{TrustAnchors, certificate_to_pem};

pub(super) const HOUR: i64 = 3_600;
pub(super) const DAY: i64 = 24 * HOUR;

/// A certificate authority for tests: a root, or an intermediate below one.
#[derive(Clone)]
pub struct TestCa {
    params: CertificateParams,
    pub(super) key: Arc<KeyPair>,
    /// This CA's certificate, then those above it, the root last.
    path: Vec<CertificateDer<'static>>,
}

impl TestCa {
    /// A self-signed root, valid from yesterday for ten years.
    #[must_use]
    pub fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    /// A self-signed root whose parameters `change` may alter: validity, usages, constraints.
    #[must_use]
    pub fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().into();
        Self {
            params,
            key: Arc::new(key),
            path: vec![der],
        }
    }

    /// A CA signed by this one.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| {})
    }

    /// A CA signed by this one, whose parameters `change` may alter.
    #[must_use]
    pub fn intermediate_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = ca_params(name);
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer()).unwrap().into();
        let mut path = vec![der];
        path.extend(self.path.iter().cloned());
        Self {
            params,
            key: Arc::new(key),
            path,
        }
    }

    /// This CA's certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.path[0]
    }

    /// The root above it, or itself.
    #[must_use]
    pub fn root_der(&self) -> &CertificateDer<'static> {
        self.path.last().unwrap()
    }

    /// This CA's private key as PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The root as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        certificate_to_pem(self.root_der())
    }

    /// SHA-256 of the root's DER, as an enrollment URL pins it.
    #[must_use]
    pub fn root_sha256(&self) -> [u8; 32] {
        fingerprint(self.root_der())
    }

    /// The root as the only trust anchor.
    #[must_use]
    pub fn anchors(&self, generation: u64) -> TrustAnchors {
        TrustAnchors::new(generation, vec![self.root_der().clone()]).unwrap()
    }

    /// This CA's private key.
    #[must_use]
    pub fn private_key(&self) -> PrivateKey {
        PrivateKey::from_pkcs8(Zeroizing::new(self.key.serialize_der())).unwrap()
    }

    pub(super) fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &*self.key)
    }

    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.path[..self.path.len() - 1]
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa").finish_non_exhaustive()
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let now = SystemClock.unix_seconds();
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name);
    params.not_before = date(now - DAY);
    params.not_after = date(now + 3_650 * DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(random_serial().as_slice()));
    params
}

pub(super) fn random_serial() -> Vec<u8> {
    let mut serial = Uuid::new_v4().into_bytes().to_vec();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

pub(super) fn date(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}
