//! What our listeners show of themselves, as one: certificate, chain and key, and the roots that peers know them by.
//!
//! Invariant: a [`ServerIdentity`] is whole and fits together: the key is the leaf's, the chain ends with its root, the
//! leaf is good for every name that peers dial, now and by the roots that they are given. What does not fit is never
//! published, so that an exchange of files that is half done, or wrong, changes nothing.
//!
//! Reading files and watching them is in the proxy.

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::unix_time;
use crate::credential::{Credential, CredentialError};
use crate::identity::fingerprint;
use crate::key::PrivateKey;
use crate::publish::{PublishError, Published};
use crate::trust::{TrustAnchors, TrustError, certificates_from_pem};
use crate::verify::{ChainError, Purpose, verify_path};

/// Why certificate, key and roots do not make an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerIdentityError {
    /// Chain and key do not go together.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The chain has no root, and none was given.
    #[error(
        "the certificate chain does not end with a self-signed root, by whose hash peers enroll; append it to the chain, or name its file"
    )]
    NoRoot,
    /// The root that was given is not one certificate, or not self-signed.
    #[error("the root is not exactly one self-signed certificate")]
    BadRoot,
    /// The roots for peers cannot be used.
    #[error("the roots for peers: {0}")]
    Roots(TrustError),
    /// The certificate is not good for a name that peers dial.
    #[error("the certificate is not good for {name} by {by}: {error}")]
    Chain {
        /// The name.
        name: String,
        /// By which roots: its own, or those for peers.
        by: &'static str,
        /// Why.
        error: ChainError,
    },
}

/// The texts that an identity is made of, PEM.
#[derive(Debug, Clone, Copy)]
pub struct ServerTexts<'a> {
    /// The chain, leaf first.
    pub chain: &'a [u8],
    /// The private key of the leaf.
    pub key: &'a PrivateKey,
    /// The root, where the chain does not end with it.
    pub root: Option<&'a [u8]>,
    /// The roots that peers are given; the root alone when absent.
    pub roots: Option<&'a [u8]>,
}

/// The identity of our listeners.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    credential: Credential,
    roots: TrustAnchors,
    pin: [u8; 32],
}

impl ServerIdentity {
    /// Takes a credential whose chain ends with its root, and the roots that peers are given.
    ///
    /// # Errors
    /// [`ServerIdentityError`]; `now` in Unix seconds.
    pub fn new(
        credential: Credential,
        roots: Vec<CertificateDer<'static>>,
        names: &[ServerName<'static>],
        now: i64,
    ) -> Result<Self, ServerIdentityError> {
        let roots = TrustAnchors::new(0, roots).map_err(ServerIdentityError::Roots)?;
        Self::whole(credential, roots, names, now)
    }

    /// Takes texts, as files hold them.
    ///
    /// # Errors
    /// [`ServerIdentityError`]; `now` in Unix seconds.
    pub fn from_texts(
        texts: &ServerTexts<'_>,
        names: &[ServerName<'static>],
        now: i64,
    ) -> Result<Self, ServerIdentityError> {
        let malformed = |reason| CredentialError::MalformedPem { reason };
        let mut chain = certificates_from_pem(texts.chain).map_err(malformed)?;
        if let Some(root) = texts.root {
            let root = self_signed(root)?;
            if chain.last() != Some(&root) {
                chain.push(root);
            }
        }
        let credential = Credential::new(chain, texts.key)?;
        let own = credential
            .root()
            .ok_or(ServerIdentityError::NoRoot)?
            .clone();
        let roots = match texts.roots {
            Some(pem) => TrustAnchors::from_pem(0, pem),
            None => TrustAnchors::new(0, vec![own]),
        };
        let roots = roots.map_err(ServerIdentityError::Roots)?;
        Self::whole(credential, roots, names, now)
    }

    fn whole(
        credential: Credential,
        roots: TrustAnchors,
        names: &[ServerName<'static>],
        now: i64,
    ) -> Result<Self, ServerIdentityError> {
        let root = credential.root().ok_or(ServerIdentityError::NoRoot)?;
        let pin = fingerprint(root);
        let own = TrustAnchors::new(0, vec![root.clone()]).map_err(ServerIdentityError::Roots)?;
        for (by, anchors) in [("its own root", &own), ("the roots for peers", &roots)] {
            good_for(credential.chain(), anchors, names, unix_time(now))
                .map_err(|(name, error)| ServerIdentityError::Chain { name, by, error })?;
        }
        Ok(Self {
            credential,
            roots,
            pin,
        })
    }

    /// Certificate, chain and key; the chain ends with its root.
    #[must_use]
    pub const fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The roots that peers are given, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.roots.to_pem()
    }

    /// SHA-256 of the root that the chain ends with.
    #[must_use]
    pub const fn pin(&self) -> [u8; 32] {
        self.pin
    }
}

impl Published for ServerIdentity {
    fn may_replace(&self, _in_force: &Self) -> Result<(), PublishError> {
        Ok(())
    }
}

fn self_signed(pem: &[u8]) -> Result<CertificateDer<'static>, ServerIdentityError> {
    let mut found = certificates_from_pem(pem).map_err(|_| ServerIdentityError::BadRoot)?;
    let root = found.pop().ok_or(ServerIdentityError::BadRoot)?;
    let parsed = crate::identity::parse(&root).map_err(|_| ServerIdentityError::BadRoot)?;
    let own = parsed.subject().as_raw() == parsed.issuer().as_raw()
        && parsed.verify_signature(None).is_ok();
    if own && found.is_empty() {
        Ok(root)
    } else {
        Err(ServerIdentityError::BadRoot)
    }
}

/// The first name that a chain is not good for, and why.
fn good_for(
    chain: &[CertificateDer<'static>],
    anchors: &TrustAnchors,
    names: &[ServerName<'static>],
    now: UnixTime,
) -> Result<(), (String, ChainError)> {
    for name in names {
        let verified = match chain.split_first() {
            Some((leaf, intermediates)) => {
                verify_path(leaf, intermediates, anchors, &Purpose::Server(name), now)
            }
            None => Err(ChainError::Empty),
        };
        verified.map_err(|error| (name.to_str().into_owned(), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::testing::{Mint, Minted, TestCa};
    use crate::trust::certificate_to_pem;

    const NAME: &str = "work.example";

    fn names() -> Vec<ServerName<'static>> {
        vec![ServerName::try_from(NAME).unwrap()]
    }

    fn from(
        minted: &Minted,
        key: &PrivateKey,
        root: Option<&str>,
        roots: Option<&str>,
    ) -> Result<ServerIdentity, ServerIdentityError> {
        let chain = minted.chain_pem();
        let texts = ServerTexts {
            chain: chain.as_bytes(),
            key,
            root: root.map(str::as_bytes),
            roots: roots.map(str::as_bytes),
        };
        ServerIdentity::from_texts(&texts, &names(), SystemClock.unix_seconds())
    }

    #[test]
    fn a_chain_with_or_without_its_root_is_taken() {
        let ca = TestCa::root("root");
        let below = ca.intermediate("below");
        let root = ca.root_pem();
        let whole = Mint::server(&[NAME]).root_in_chain(true).sign_with(&below);
        let bare = Mint::server(&[NAME]).root_in_chain(false).sign_with(&below);
        let first = from(&whole, whole.private_key(), None, None).unwrap();
        assert_eq!(first.pin(), fingerprint(ca.root_der()));
        assert_eq!(first.roots_pem(), root);
        let second = from(&bare, bare.private_key(), Some(&root), None).unwrap();
        assert_eq!(second.pin(), first.pin());
        assert_eq!(second.credential().chain().len(), 3);
        let both = from(&whole, whole.private_key(), Some(&root), None).unwrap();
        assert_eq!(both.credential().chain().len(), 3, "it is not sent twice");
        let without = from(&bare, bare.private_key(), None, None);
        assert_eq!(without.unwrap_err(), ServerIdentityError::NoRoot);
    }

    #[test]
    fn peers_may_be_given_more_roots_but_the_certificate_must_lead_to_one() {
        let (ca, next) = (TestCa::root("root"), TestCa::root("next"));
        let minted = Mint::server(&[NAME]).root_in_chain(true).sign_with(&ca);
        let both = format!("{}{}", ca.root_pem(), next.root_pem());
        let key = minted.private_key();
        assert_eq!(
            from(&minted, key, None, Some(&both)).unwrap().roots_pem(),
            both
        );
        let wrong = from(&minted, key, None, Some(&next.root_pem())).unwrap_err();
        assert!(
            matches!(
                wrong,
                ServerIdentityError::Chain {
                    by: "the roots for peers",
                    ..
                }
            ),
            "{wrong}"
        );
        let empty = from(&minted, key, None, Some("")).unwrap_err();
        assert_eq!(empty, ServerIdentityError::Roots(TrustError::Empty));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let ca = TestCa::root("root");
        let good = Mint::server(&[NAME]).root_in_chain(true).sign_with(&ca);
        let other = Mint::server(&[NAME]).root_in_chain(true).sign_with(&ca);
        let mixed = from(&good, other.private_key(), None, None).unwrap_err();
        let mismatch = ServerIdentityError::Credential(CredentialError::KeyMismatch);
        assert_eq!(mixed, mismatch);
        for bad in [
            Mint::server(&["other.example"]),
            Mint::server(&[NAME]).expired(),
            Mint::server(&[NAME]).not_yet_valid(),
        ] {
            let bad = bad.root_in_chain(true).sign_with(&ca);
            let refused = from(&bad, bad.private_key(), None, None).unwrap_err();
            assert!(
                matches!(refused, ServerIdentityError::Chain { .. }),
                "{refused}"
            );
        }
        let key = good.private_key();
        let leaf = certificate_to_pem(good.leaf());
        for root in ["", "x", leaf.as_str()] {
            let refused = from(&good, key, Some(root), None).unwrap_err();
            assert_eq!(refused, ServerIdentityError::BadRoot, "{root}");
        }
    }
}
