//! Who may have signed a revocation list: the trust anchors, and what they have certified to sign certificates.
//!
//! Invariant: each issuer leads to an anchor by signatures that were verified, every one of them in force and allowed to
//! sign certificates. Whether it may sign lists is looked at for each list.

use std::fmt;

use rustls_pki_types::CertificateDer;

use super::CrlError;
use super::IssuerKey;
use super::decode::Decoded;
use crate::clock::unix_time;
use crate::identity;
use crate::signature::{PublicKey, Signed};
use crate::trust::TrustAnchors;

/// One issuer.
#[derive(Clone)]
struct CrlIssuer {
    certificate: CertificateDer<'static>,
    /// Its name in DER.
    name: Vec<u8>,
    /// Its SubjectPublicKeyInfo in DER.
    key: Vec<u8>,
    may_sign_lists: bool,
}

/// The issuers whose lists count.
#[derive(Clone, Default)]
pub struct CrlIssuers {
    known: Vec<CrlIssuer>,
}

impl CrlIssuers {
    /// The anchors in force at `now` (Unix seconds), and those of `others` that lead to one of them. The rest is passed over:
    /// what it has signed is foreign.
    #[must_use]
    pub fn new(anchors: &TrustAnchors, others: &[CertificateDer<'static>], now: i64) -> Self {
        let mut issuers = Self::default();
        let in_force = anchors.in_force(unix_time(now)).len();
        if in_force == 0 {
            return issuers;
        }
        for root in anchors.roots() {
            issuers.known.extend(read(root, now));
        }
        let mut left: Vec<CrlIssuer> = others.iter().filter_map(|der| read(der, now)).collect();
        loop {
            let before = left.len();
            left.retain(|candidate| {
                let known = issuers
                    .known
                    .iter()
                    .any(|one| one.certificate == candidate.certificate);
                let leads = known || issuers.has_signed(candidate);
                if leads && !known {
                    issuers.known.push(candidate.clone());
                }
                !leads
            });
            if left.len() == before {
                return issuers;
            }
        }
    }

    /// The certificates of the issuers.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.known.iter().map(|issuer| &issuer.certificate)
    }

    /// The certificate of an issuer by its name; of several the first.
    #[must_use]
    pub fn of(&self, issuer: IssuerKey) -> Option<&CertificateDer<'static>> {
        self.known
            .iter()
            .find(|one| IssuerKey::of(&one.name) == issuer)
            .map(|one| &one.certificate)
    }

    fn has_signed(&self, candidate: &CrlIssuer) -> bool {
        let Ok(parsed) = identity::parse(&candidate.certificate) else {
            return false;
        };
        let Ok(signed) = Signed::decode(&candidate.certificate) else {
            return false;
        };
        self.known
            .iter()
            .filter(|issuer| issuer.name == parsed.issuer().as_raw())
            .filter_map(|issuer| PublicKey::decode(&issuer.key).ok())
            .any(|key| signed.verify(key).is_ok())
    }

    /// Verifies the signature of a list with the key of the issuer it names.
    pub(super) fn verify(&self, list: &Decoded<'_>) -> Result<(), CrlError> {
        let mut named = self
            .known
            .iter()
            .filter(|one| one.name == list.issuer)
            .peekable();
        if named.peek().is_none() {
            return Err(CrlError::Foreign {
                issuer: IssuerKey::of(list.issuer),
            });
        }
        let mut refusal = CrlError::BadSignature;
        for issuer in named {
            let Ok(key) = PublicKey::decode(&issuer.key) else {
                continue;
            };
            match list.signed.verify(key) {
                Ok(()) if issuer.may_sign_lists => return Ok(()),
                Ok(()) => refusal = CrlError::IssuerMayNotSign,
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

impl fmt::Debug for CrlIssuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrlIssuers")
            .field("known", &self.known.len())
            .finish()
    }
}

/// A CA certificate that is in force and may sign certificates.
fn read(der: &CertificateDer<'static>, now: i64) -> Option<CrlIssuer> {
    let parsed = identity::parse(der).ok()?;
    let ca = matches!(parsed.basic_constraints(), Ok(Some(found)) if found.value.ca);
    let (signs_certificates, signs_lists) = match parsed.key_usage() {
        Ok(None) => (true, true),
        Ok(Some(usage)) => (usage.value.key_cert_sign(), usage.value.crl_sign()),
        Err(_) => (false, false),
    };
    let validity = parsed.validity();
    let in_force = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
    (ca && signs_certificates && in_force).then(|| CrlIssuer {
        certificate: der.clone(),
        name: parsed.subject().as_raw().to_vec(),
        key: parsed.public_key().raw.to_vec(),
        may_sign_lists: signs_lists,
    })
}
