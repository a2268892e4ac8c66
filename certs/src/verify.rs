//! Verification of chains, live at each handshake and again per request.
//!
//! Invariant: nothing here returns success without a path from the leaf to an anchor in force at
//! the given time, with the right purpose, and a leaf that is not known to be revoked. The anchors
//! and the revoked set are read anew at each call, never kept. Reading the identity out of a
//! verified leaf is left to `identity.rs`, on purpose: a peer with a good chain and malformed
//! extensions gets an HTTP answer that says so, not a TLS alert.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::clock::unix_seconds;
use crate::crl::{CrlRefusal, CrlSet, IssuerKey};
use crate::csr::{CsrError, key_kind};
use crate::identity::{Serial, fingerprint, issued_by};
use crate::ocsp::stapled::PathIssuer;
use crate::provider::provider;
use crate::publish::{CredentialReceiver, CrlReceiver, RevokedReceiver, TrustReceiver};
use crate::trust::{RevokedSet, TrustAnchors};

/// Why a chain does not verify. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// There is no certificate in the chain.
    #[error("no certificate was presented")]
    Empty,
    /// A certificate is not valid DER.
    #[error("a certificate of the chain does not parse")]
    Malformed,
    /// A certificate of the chain is not valid yet.
    #[error("the certificate is not valid before {not_before}, and it is {now}; check the clocks")]
    NotYetValid {
        /// The time of the check.
        now: i64,
        /// Start of validity.
        not_before: i64,
    },
    /// A certificate of the chain has expired.
    #[error("the certificate expired at {not_after}, and it is {now}; renew it")]
    Expired {
        /// The time of the check.
        now: i64,
        /// End of validity.
        not_after: i64,
    },
    /// The leaf is in the set of revoked certificates, or a list names a certificate of the chain.
    #[error("the certificate is revoked")]
    Revoked,
    /// There has to be a revocation list of the leaf's issuer, and there is none.
    #[error(
        "there is no revocation list of the certificate's issuer, so nobody can tell whether it is revoked"
    )]
    NoRevocationList,
    /// The newest revocation list of the leaf's issuer is too old.
    #[error(
        "the newest revocation list of the certificate's issuer was good until {since} and is too old"
    )]
    RevocationListTooOld {
        /// Its nextUpdate.
        since: i64,
    },
    /// No path leads to a trust anchor that is in force.
    #[error("the certificate was not issued under a trusted CA")]
    UnknownIssuer,
    /// A signature in the chain is wrong, or made in an unsupported way.
    #[error("a signature in the certificate chain does not verify")]
    BadSignature,
    /// The leaf may not be used for what it is used for.
    #[error("the certificate's extended key usage does not allow this use")]
    WrongPurpose,
    /// The leaf is not valid for the name that was dialled.
    #[error("the certificate is not valid for the name that was dialled")]
    WrongName,
    /// An issuing certificate's keyUsage lacks keyCertSign.
    #[error("a certificate of the chain was signed by one whose keyUsage lacks keyCertSign")]
    IssuerMayNotSign,
    /// The leaf's key is none of those that peers may have.
    #[error("the key of the certificate cannot be used: {0}")]
    UnfitKey(CsrError),
    /// Any other rule of RFC 5280 that the chain breaks.
    #[error("the certificate chain breaks a rule: {0}")]
    Invalid(webpki::Error),
}

impl From<webpki::Error> for ChainError {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::BadDer | E::BadDerTime | E::TrailingData(_) | E::MalformedExtensions => {
                Self::Malformed
            }
            E::CertNotValidYet { time, not_before } => Self::NotYetValid {
                now: unix_seconds(time),
                not_before: unix_seconds(not_before),
            },
            E::CertExpired { time, not_after } => Self::Expired {
                now: unix_seconds(time),
                not_after: unix_seconds(not_after),
            },
            E::CertRevoked => Self::Revoked,
            E::UnknownIssuer => Self::UnknownIssuer,
            E::InvalidSignatureForPublicKey
            | E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::BadSignature,
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Self::WrongPurpose,
            E::CertNotValidForName(_) => Self::WrongName,
            other => Self::Invalid(other),
        }
    }
}

impl From<CrlRefusal> for ChainError {
    fn from(refusal: CrlRefusal) -> Self {
        match refusal {
            CrlRefusal::Revoked(_) => Self::Revoked,
            CrlRefusal::Missing => Self::NoRevocationList,
            CrlRefusal::TooOld { since } => Self::RevocationListTooOld { since },
        }
    }
}

impl ChainError {
    /// The rustls error that sends the alert the specification asks for: `certificate_expired`,
    /// `certificate_revoked`, and `unknown_ca` for every other chain that does not verify. The
    /// finer cause is for this side's operators, not for whoever is knocking.
    #[must_use]
    pub fn for_client(&self) -> CertificateError {
        match self {
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            // Both alert `unknown_ca` as well: what is wrong is on this side.
            Self::NoRevocationList | Self::RevocationListTooOld { .. } => {
                CertificateError::UnknownRevocationStatus
            }
            _ => CertificateError::UnknownIssuer,
        }
    }

    /// The rustls error for a server's chain, seen from the client: as fine as rustls knows it,
    /// since it is our own operator who reads it.
    #[must_use]
    pub fn for_server(&self) -> CertificateError {
        match self {
            Self::Malformed => CertificateError::BadEncoding,
            Self::Expired { .. } => CertificateError::Expired,
            Self::NotYetValid { .. } => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::WrongName => CertificateError::NotValidForName,
            Self::WrongPurpose => CertificateError::InvalidPurpose,
            Self::BadSignature => CertificateError::BadSignature,
            _ => CertificateError::UnknownIssuer,
        }
    }
}

/// What a leaf is used for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose<'a> {
    /// It identifies a client.
    Client,
    /// It identifies the server of this name.
    Server(&'a ServerName<'a>),
}

/// Verifies a client's `chain` (leaf first) against `anchors` at `now`, for client authentication,
/// and looks the leaf up in `revoked`. Used at the handshake, and again per request when the trust
/// generation has moved.
///
/// # Errors
/// [`ChainError`]: the path first, revocation last.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    revoked: &RevokedSet,
    now: UnixTime,
) -> Result<(), ChainError> {
    verify_listed(chain, anchors, revoked, None, now)
}

/// As [`verify_chain`], and looks every certificate of the path up in the revocation lists.
pub(crate) fn verify_listed(
    chain: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    revoked: &RevokedSet,
    lists: Option<&CrlSet>,
    now: UnixTime,
) -> Result<(), ChainError> {
    let (leaf, intermediates) = chain.split_first().ok_or(ChainError::Empty)?;
    let path = verify_path(leaf, intermediates, anchors, &Purpose::Client, now)?;
    refuse_unfit_key(leaf)?;
    if revoked.contains(&fingerprint(leaf), path.serial.as_ref()) {
        return Err(ChainError::Revoked);
    }
    let Some(lists) = lists else { return Ok(()) };
    for (issuer, serial) in &path.above {
        lists.check_listed(issuer, serial)?;
    }
    // An odd serial number is refused later, by the identity layer: no list can name it.
    if let Some(serial) = &path.serial {
        lists.check(&IssuerKey::of(&path.issuer.name), serial, unix_seconds(now))?;
    }
    Ok(())
}

/// What a verified path says.
#[derive(Debug)]
pub(crate) struct VerifiedPath {
    /// The leaf's serial number, when it is one that can have been issued by us.
    pub(crate) serial: Option<Serial>,
    /// Who issued the leaf.
    pub(crate) issuer: PathIssuer,
    /// The certificates between leaf and anchor: who issued each, and its serial number.
    above: Vec<(IssuerKey, Serial)>,
}

/// Verifies a path for `purpose`.
pub(crate) fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &TrustAnchors,
    purpose: &Purpose<'_>,
    now: UnixTime,
) -> Result<VerifiedPath, ChainError> {
    let leaf = EndEntityCert::try_from(leaf)?;
    let anchors = anchors.in_force(now);
    let usage = match purpose {
        Purpose::Client => KeyUsage::client_auth(),
        Purpose::Server(_) => KeyUsage::server_auth(),
    };
    let algorithms = provider().signature_verification_algorithms.all;
    let path =
        leaf.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None)?;
    let (mut issuer, mut above) = (None, Vec::new());
    for certificate in path.intermediate_certificates() {
        let der = certificate.der();
        let read = may_sign(&der)?;
        issuer.get_or_insert(read);
        above.extend(issued_by(&der));
    }
    if let Purpose::Server(name) = purpose {
        leaf.verify_is_valid_for_subject_name(name)?;
    }
    let anchor = path.anchor();
    let issuer = match issuer {
        Some(issuer) => issuer,
        None => PathIssuer {
            name: sequence(&anchor.subject)?,
            key: anchor.subject_public_key_info.as_ref().to_vec(),
        },
    };
    Ok(VerifiedPath {
        serial: Serial::decode(leaf.serial()).ok(),
        issuer,
        above,
    })
}

/// A DER SEQUENCE of this content.
fn sequence(content: &[u8]) -> Result<Vec<u8>, ChainError> {
    use der::Encode as _;
    der::asn1::AnyRef::new(der::Tag::Sequence, content)
        .and_then(|any| any.to_der())
        .map_err(|_| ChainError::Malformed)
}

/// The path validator looks at the keys that sign certificates, not at the leaf's own. A key is held to what a request for
/// a certificate is held to (the specification, section 4.2): not every authority above looks at requests as ours does.
fn refuse_unfit_key(leaf: &CertificateDer<'_>) -> Result<(), ChainError> {
    let leaf = crate::identity::parse(leaf).map_err(|_| ChainError::Malformed)?;
    match key_kind(leaf.public_key()) {
        Ok(_) => Ok(()),
        Err(why) => Err(ChainError::UnfitKey(why)),
    }
}

/// The path validator looks at basicConstraints only.
fn may_sign(issuer: &CertificateDer<'_>) -> Result<PathIssuer, ChainError> {
    let issuer = crate::identity::parse(issuer).map_err(|_| ChainError::Malformed)?;
    match issuer.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            return Err(ChainError::IssuerMayNotSign);
        }
        Ok(_) => {}
        Err(_) => return Err(ChainError::Malformed),
    }
    let key = der::asn1::AnyRef::try_from(issuer.public_key().raw);
    Ok(PathIssuer {
        name: issuer.subject().as_raw().to_vec(),
        key: key.map_err(|_| ChainError::Malformed)?.value().to_vec(),
    })
}

/// Told of each client chain that is refused at a handshake.
pub type RefusalObserver = Arc<dyn Fn(&ChainError) + Send + Sync>;

/// Requires a client certificate and verifies it against the anchors and the revoked set in force
/// at that moment.
///
/// Sends no certificate-authority hints: they would have to outlive a change of the anchors.
pub struct LiveClientVerifier {
    anchors: TrustReceiver,
    revoked: RevokedReceiver,
    lists: Option<CrlReceiver>,
    algorithms: WebPkiSupportedAlgorithms,
    observer: Option<RefusalObserver>,
}

impl LiveClientVerifier {
    /// A verifier that reads `anchors` and `revoked` at each handshake.
    #[must_use]
    pub fn new(anchors: TrustReceiver, revoked: RevokedReceiver) -> Self {
        Self {
            anchors,
            revoked,
            lists: None,
            algorithms: provider().signature_verification_algorithms,
            observer: None,
        }
    }

    /// The same verifier, which also looks every chain up in the revocation lists in force.
    #[must_use]
    pub fn with_lists(self, lists: CrlReceiver) -> Self {
        Self {
            lists: Some(lists),
            ..self
        }
    }

    /// The same verifier, which also tells `observer` the cause of each refusal: the alert on the
    /// wire is coarser.
    #[must_use]
    pub fn with_observer(self, observer: RefusalObserver) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }
}

impl fmt::Debug for LiveClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveClientVerifier")
            .field("trust_generation", &self.anchors.load().generation())
            .field("revoked", &self.revoked.load().len())
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for LiveClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let mut chain = Vec::with_capacity(1 + intermediates.len());
        chain.push(CertificateDer::from(end_entity.as_ref()));
        chain.extend(
            intermediates
                .iter()
                .map(|der| CertificateDer::from(der.as_ref())),
        );
        let lists = self.lists.as_ref().map(CrlReceiver::load);
        let (anchors, revoked) = (self.anchors.load(), self.revoked.load());
        match verify_listed(&chain, &anchors, &revoked, lists.as_deref(), now) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
                if let Some(observer) = &self.observer {
                    observer(&error);
                }
                Err(error.for_client().into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Serves the credential in force at each handshake.
pub struct LiveServerResolver {
    in_force: Box<dyn Fn() -> Arc<CertifiedKey> + Send + Sync>,
}

impl LiveServerResolver {
    /// A resolver that reads `credential` at each handshake.
    #[must_use]
    pub fn new(credential: CredentialReceiver) -> Self {
        Self::reading(move || credential.load().certified_key())
    }

    /// A resolver that calls `in_force` at each handshake.
    #[must_use]
    pub fn reading(in_force: impl Fn() -> Arc<CertifiedKey> + Send + Sync + 'static) -> Self {
        Self {
            in_force: Box::new(in_force),
        }
    }
}

impl fmt::Debug for LiveServerResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveServerResolver").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for LiveServerResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some((self.in_force)())
    }
}

#[cfg(test)]
mod tests;
