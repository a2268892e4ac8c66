//! Issuing certificates, whoever signs them.
//!
//! Invariant: an [`IssuedCertificate`] for a client was checked, after signing, to be what was asked
//! for: both private extensions with the right values, the request's key, clientAuth, the issuer's
//! own chain. Its only constructors are the checks. Back ends are below `ca/`; who may have a
//! certificate is decided by the caller.

pub mod embedded;
pub mod rotating;
pub mod step;

use std::time::Duration;

use async_trait::async_trait;
use rustls_pki_types::{CertificateDer, ServerName};
use uuid::Uuid;

use crate::clock::unix_time;
use crate::csr::VerifiedCsr;
use crate::identity::{self, IdentityError, PeerIdentity, Serial, fingerprint};
use crate::key::KeyError;
use crate::trust::{RevokedSet, TrustAnchors, TrustError, certificate_to_pem};
use crate::verify::{ChainError, Purpose, verify_chain, verify_path};

pub use embedded::{CaMaterial, EmbeddedCa};
pub use rotating::{CaRoots, RotatingCa};
pub use step::StepCa;

/// How long a client certificate is good for, unless told otherwise.
pub const CLIENT_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long a server certificate is good for, unless told otherwise.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The shortest lifetime that is issued.
pub const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How far certificates are dated back, for clocks that run behind.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// Why no certificate was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The lifetime asked for, or what the grant or the CA leaves of it, is under five minutes.
    #[error(
        "only {available} s of validity are left, and certificates are issued for at least 300 s; extend the grant or renew the CA"
    )]
    LifetimeTooShort {
        /// What is left, in seconds; may be negative.
        available: i64,
    },
    /// A time does not fit a certificate.
    #[error("the time {seconds} (Unix seconds) cannot be put in a certificate")]
    Time {
        /// The time, Unix seconds.
        seconds: i64,
    },
    /// A server certificate without a name.
    #[error("a server certificate needs at least one DNS name or IP address")]
    NoName,
    /// A server name that cannot be put in a certificate.
    #[error("the name {name} cannot be put in a certificate")]
    BadName {
        /// The name.
        name: String,
    },
    /// The CA's key does not parse, or no key could be made.
    #[error("the CA's key is not fit: {0}")]
    Key(#[from] KeyError),
    /// The CA's certificate does not parse or is not a CA certificate.
    #[error("the CA's certificate is not fit: {0}")]
    Root(#[from] TrustError),
    /// The key is not the root certificate's.
    #[error("the CA's key does not belong to its certificate")]
    KeyMismatch,
    /// The random source failed.
    #[error("the system's random source failed")]
    Random,
    /// The certificate could not be encoded or signed.
    #[error("the certificate could not be signed: {reason}")]
    Signing {
        /// What the encoder said.
        reason: String,
    },
    /// The certificate that came back gives no identity.
    #[error("the CA issued a certificate that gives no identity: {0}")]
    Identity(#[from] IdentityError),
    /// The certificate that came back does not verify against the CA's own anchors.
    #[error("the CA issued a certificate that does not verify: {0}")]
    Chain(#[from] ChainError),
    /// The certificate that came back is not what was asked for.
    #[error("the CA issued a certificate with another {what} than was asked for")]
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// The CA is to be asked without TLS.
    #[error("the CA is asked over https only; correct its URL")]
    NotHttps,
    /// The CA could not be asked.
    #[error(
        "the CA at {origin} cannot be reached: {why}; see that it runs and that its root is the pinned one"
    )]
    Unreachable {
        /// Where it should be.
        origin: String,
        /// What happened.
        why: String,
    },
    /// The CA refused.
    #[error("the CA refused with status {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// The CA's answer cannot be read.
    #[error("the CA's answer holds {what}")]
    Unreadable {
        /// What is wrong.
        what: &'static str,
    },
}

/// A request for a client certificate.
#[derive(Debug, Clone)]
pub struct ClientIssue {
    /// Names this act, in the intent that is recorded before it and towards the CA.
    pub id: Uuid,
    /// The peer's request, for its key.
    pub csr: VerifiedCsr,
    /// The grant the certificate is for.
    pub grant: Uuid,
    /// The subject user of the grant.
    pub subject: Uuid,
    /// How long it shall be good for, at least [`MIN_LIFETIME`].
    pub lifetime: Duration,
    /// The grant's own end, Unix seconds: the certificate does not outlive it.
    pub not_after_cap: Option<i64>,
    /// The time of issue, Unix seconds.
    pub now: i64,
}

/// A request for a server certificate.
#[derive(Debug, Clone)]
pub struct ServerIssue {
    /// The listener's request, for its key.
    pub csr: VerifiedCsr,
    /// The names clients dial; at least one.
    pub names: Vec<ServerName<'static>>,
    /// How long it shall be good for, at least [`MIN_LIFETIME`].
    pub lifetime: Duration,
    /// The time of issue, Unix seconds.
    pub now: i64,
}

/// Someone who signs certificates.
#[async_trait]
pub trait CertificateAuthority: Send + Sync {
    /// Issues a client certificate and checks that it is what was asked for.
    ///
    /// # Errors
    /// [`CaError`].
    async fn issue_client(&self, request: ClientIssue) -> Result<IssuedCertificate, CaError>;

    /// Issues a server certificate and checks that it is what was asked for.
    ///
    /// # Errors
    /// [`CaError`].
    async fn issue_server(&self, request: ServerIssue) -> Result<IssuedCertificate, CaError>;

    /// The self-signed roots that certificates of this authority lead to; at least one.
    fn anchors(&self) -> Vec<CertificateDer<'static>>;

    /// Those of them that client certificates issued from now on lead to.
    fn client_anchors(&self) -> Vec<CertificateDer<'static>> {
        self.anchors()
    }
}

/// A certificate that was checked to be what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    serial: Serial,
    not_before: i64,
    not_after: i64,
}

impl IssuedCertificate {
    /// Checks a client certificate that a back end returned against what was asked for; `root` is
    /// the anchor it must lead to.
    ///
    /// # Errors
    /// [`CaError::Identity`], [`CaError::Chain`], [`CaError::Root`] or [`CaError::Mismatch`].
    pub fn verify_matches(
        leaf: CertificateDer<'static>,
        intermediates: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
        asked: &ClientIssue,
    ) -> Result<Self, CaError> {
        let identity = PeerIdentity::decode(&leaf, 0)?;
        let mismatch = |what| Err(CaError::Mismatch { what });
        if identity.grant != asked.grant {
            return mismatch("grant id");
        }
        if identity.subject != asked.subject {
            return mismatch("subject user id");
        }
        if identity::parse(&leaf)?.public_key().raw != asked.csr.public_key() {
            return mismatch("public key");
        }
        if asked
            .not_after_cap
            .is_some_and(|cap| identity.not_after > cap)
        {
            return mismatch("end of validity");
        }
        let anchors = TrustAnchors::new(0, vec![root.clone()])?;
        let mut chain = vec![leaf.clone()];
        chain.extend(intermediates.iter().cloned());
        verify_chain(
            &chain,
            &anchors,
            &RevokedSet::default(),
            unix_time(asked.now),
        )?;
        Ok(Self {
            leaf,
            intermediates,
            root,
            serial: identity.serial,
            not_before: identity.not_before,
            not_after: identity.not_after,
        })
    }

    /// Checks a server certificate that a back end returned against what was asked for.
    ///
    /// # Errors
    /// As [`IssuedCertificate::verify_matches`].
    pub fn verify_matches_server(
        leaf: CertificateDer<'static>,
        intermediates: Vec<CertificateDer<'static>>,
        root: CertificateDer<'static>,
        asked: &ServerIssue,
    ) -> Result<Self, CaError> {
        let parsed = identity::parse(&leaf)?;
        if parsed.public_key().raw != asked.csr.public_key() {
            return Err(CaError::Mismatch { what: "public key" });
        }
        let serial = Serial::decode(parsed.raw_serial())?;
        let validity = parsed.validity();
        let (not_before, not_after) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let anchors = TrustAnchors::new(0, vec![root.clone()])?;
        for name in &asked.names {
            let purpose = Purpose::Server(name);
            verify_path(
                &leaf,
                &intermediates,
                &anchors,
                &purpose,
                unix_time(asked.now),
            )?;
        }
        Ok(Self {
            leaf,
            intermediates,
            root,
            serial,
            not_before,
            not_after,
        })
    }

    /// The certificate.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// What its holder presents: leaf and intermediates, without the root.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![self.leaf.clone()];
        chain.extend(self.intermediates.iter().cloned());
        chain
    }

    /// What an enrollment listener presents: leaf, intermediates, and the root last.
    #[must_use]
    pub fn chain_with_root(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = self.chain();
        chain.push(self.root.clone());
        chain
    }

    /// The root it leads to.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn leaf_pem(&self) -> String {
        certificate_to_pem(&self.leaf)
    }

    /// What its holder presents, as PEM: leaf and intermediates, without the root.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain()
            .iter()
            .map(|der| certificate_to_pem(der))
            .collect()
    }

    /// The certificate's serial number.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// SHA-256 of the certificate's DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.leaf)
    }

    /// Start of validity, Unix seconds.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// End of validity, Unix seconds, inclusive.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}
