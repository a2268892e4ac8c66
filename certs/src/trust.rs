//! The certificates that peers' chains must lead to, and what is known to be revoked.
//!
//! Invariant: [`TrustAnchors`] is never empty, and each anchor is a parseable CA certificate that
//! may sign certificates. Sets are immutable: a change is a new value with a higher generation,
//! handed out by `publish.rs`.

use std::borrow::Cow;
use std::collections::HashSet;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;

use crate::clock::unix_seconds;
use crate::identity::{self, Serial};

/// Why a set of trust anchors was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No certificate at all: nobody could be trusted, or, worse, a file was read wrongly.
    #[error("there is no trust anchor; give at least one CA certificate")]
    Empty,
    /// The text is not PEM, or holds something other than certificates.
    #[error("the trust bundle is not a PEM file of certificates only: {reason}")]
    MalformedPem {
        /// What the PEM reader found.
        reason: String,
    },
    /// One certificate does not parse.
    #[error("trust anchor number {position} is not a valid certificate")]
    Malformed {
        /// Position in the bundle, from 1.
        position: usize,
    },
    /// One certificate is not a CA certificate, or its keyUsage forbids signing certificates.
    #[error("trust anchor number {position} is not a CA certificate that may sign certificates")]
    NotCa {
        /// Position in the bundle, from 1.
        position: usize,
    },
}

#[derive(Debug, Clone)]
struct Anchor {
    der: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
}

impl Anchor {
    fn valid_at(&self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// An immutable set of trust anchors with a generation number.
#[derive(Debug, Clone)]
pub struct TrustAnchors {
    generation: u64,
    anchors: Vec<Anchor>,
    /// `prepared[i]` is `anchors[i]` in the path validator's form.
    prepared: Vec<TrustAnchor<'static>>,
}

impl TrustAnchors {
    /// Checks `roots` and makes them generation `generation`. The same certificate given twice
    /// counts once.
    ///
    /// # Errors
    /// [`TrustError`], naming the first certificate that is not fit; one bad element rejects all.
    pub fn new(generation: u64, roots: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut anchors: Vec<Anchor> = Vec::with_capacity(roots.len());
        let mut prepared = Vec::with_capacity(roots.len());
        for (at, der) in roots.into_iter().enumerate() {
            let position = at + 1;
            if anchors.iter().any(|known| known.der == der) {
                continue;
            }
            let anchor = check_anchor(der, position)?;
            let form = anchor_from_trusted_cert(&anchor.der)
                .map_err(|_| TrustError::Malformed { position })?
                .to_owned();
            prepared.push(form);
            anchors.push(anchor);
        }
        if anchors.is_empty() {
            return Err(TrustError::Empty);
        }
        Ok(Self {
            generation,
            anchors,
            prepared,
        })
    }

    /// Parses a PEM bundle of certificates.
    ///
    /// # Errors
    /// [`TrustError`] when the text is not PEM, holds no certificate, or holds one that is not fit.
    pub fn from_pem(generation: u64, pem: &[u8]) -> Result<Self, TrustError> {
        let roots =
            certificates_from_pem(pem).map_err(|reason| TrustError::MalformedPem { reason })?;
        Self::new(generation, roots)
    }

    /// The generation number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The anchors' certificates, in the order given.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.anchors.iter().map(|anchor| &anchor.der)
    }

    /// The anchors as one PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots().map(|der| certificate_to_pem(der)).collect()
    }

    /// The earliest end of validity among the anchors, Unix seconds.
    #[must_use]
    pub fn earliest_not_after(&self) -> Option<i64> {
        self.anchors.iter().map(|anchor| anchor.not_after).min()
    }

    /// The anchors in force at `now`: the path validator does not look at an anchor's own validity,
    /// so an expired one is taken out before it is asked.
    pub(crate) fn in_force(&self, now: UnixTime) -> Cow<'_, [TrustAnchor<'static>]> {
        let now = unix_seconds(now);
        if self.anchors.iter().all(|anchor| anchor.valid_at(now)) {
            return Cow::Borrowed(&self.prepared);
        }
        let valid = self
            .anchors
            .iter()
            .zip(&self.prepared)
            .filter(|(anchor, _)| anchor.valid_at(now))
            .map(|(_, prepared)| prepared.clone())
            .collect();
        Cow::Owned(valid)
    }
}

fn check_anchor(der: CertificateDer<'static>, position: usize) -> Result<Anchor, TrustError> {
    let certificate = identity::parse(&der).map_err(|_| TrustError::Malformed { position })?;
    let ca = matches!(certificate.basic_constraints(), Ok(Some(found)) if found.value.ca);
    let may_sign = match certificate.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Err(_) => false,
    };
    if !(ca && may_sign) {
        return Err(TrustError::NotCa { position });
    }
    let validity = certificate.validity();
    let (not_before, not_after) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    Ok(Anchor {
        der,
        not_before,
        not_after,
    })
}

/// Reads every certificate of a PEM text; any other kind of section is an error.
pub(crate) fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    use rustls_pki_types::pem::SectionKind;

    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section.map_err(|error| error.to_string())? {
            (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
            (kind, _) => return Err(format!("it holds a section of another kind ({kind:?})")),
        }
    }
    Ok(certificates)
}

/// One certificate as PEM.
#[must_use]
pub fn certificate_to_pem(der: &[u8]) -> String {
    pem_section("CERTIFICATE", der)
}

/// A PEM section: 64 characters a line (RFC 7468). The content may be a private key, so no buffer
/// here grows, which would leave a copy behind.
pub(crate) fn pem_section(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    use zeroize::Zeroizing;
    const LINE: usize = 64;
    const FRAME: usize = 40;

    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut pem = String::with_capacity(text.len() + text.len() / LINE + 2 * (FRAME + label.len()));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----");
    for (at, character) in text.chars().enumerate() {
        if at % LINE == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// Leaf certificates known to be revoked, by fingerprint and by serial number.
///
/// The empty set means that nothing is known to be revoked; it is the caller's duty not to publish
/// it before the store was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedSet {
    fingerprints: HashSet<[u8; 32]>,
    serials: HashSet<Serial>,
}

impl RevokedSet {
    /// The set of these certificates: SHA-256 of the leaf's DER, and serial number.
    #[must_use]
    pub fn new(certificates: impl IntoIterator<Item = ([u8; 32], Serial)>) -> Self {
        let (fingerprints, serials) = certificates.into_iter().unzip();
        Self {
            fingerprints,
            serials,
        }
    }

    /// Whether a leaf with this fingerprint or this serial number is revoked. The serial counts
    /// too, since a certificate can be spelled in two ways that differ in fingerprint only.
    #[must_use]
    pub fn contains(&self, fingerprint: &[u8; 32], serial: Option<&Serial>) -> bool {
        self.fingerprints.contains(fingerprint)
            || serial.is_some_and(|serial| self.serials.contains(serial))
    }

    /// How many certificates are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether nothing is known to be revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }
}

#[cfg(test)]
mod tests;
