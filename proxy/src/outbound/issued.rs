//! A certificate that a peer has issued to us, checked before anything of it is kept.
//!
//! Invariant: an [`Issued`] holds a certificate over our own key that is valid now and gives an identity, with its
//! chain, and anchors that can be used. For which grant and subject it is, is for the caller to compare.

use certs::{Credential, PeerIdentity, PrivateKey, TrustAnchors};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The parts of an answer that carry a certificate, PEM.
pub(super) struct IssuedParts<'a> {
    pub(super) cert: &'a str,
    pub(super) chain: &'a str,
    pub(super) trust_bundle: &'a str,
}

/// What was issued, checked.
pub(super) struct Issued {
    pub(super) credential: Credential,
    pub(super) identity: PeerIdentity,
}

impl Issued {
    /// Checks what came for `key`; `now` in Unix seconds, by the issuer's clock where that is known.
    ///
    /// # Errors
    /// What is wrong, in a few words.
    pub(super) fn check(
        parts: &IssuedParts<'_>,
        key: &PrivateKey,
        now: i64,
    ) -> Result<Self, &'static str> {
        let leaf = CertificateDer::from_pem_slice(parts.cert.as_bytes())
            .map_err(|_| "the certificate is not PEM")?;
        let mut chain = vec![leaf.clone()];
        for sent in CertificateDer::pem_slice_iter(parts.chain.as_bytes()) {
            let sent = sent.map_err(|_| "the certificate chain is not PEM")?;
            if sent != leaf {
                chain.push(sent);
            }
        }
        let identity = PeerIdentity::decode(&leaf, 0).map_err(
            |_| "the certificate gives no identity: its extensions, key usage or serial are wrong",
        )?;
        if identity.not_after < now || identity.not_before > now {
            return Err("the certificate is not valid now; check both clocks");
        }
        let credential = Credential::new(chain, key)
            .map_err(|_| "the certificate is not for the key that was sent")?;
        TrustAnchors::from_pem(0, parts.trust_bundle.as_bytes())
            .map_err(|_| "the trust bundle cannot be used")?;
        Ok(Self {
            credential,
            identity,
        })
    }
}
