//! The embedded certificate authority: one P-256 root that signs leaves directly.
//!
//! Invariant: its root allows no CA below it, and every leaf it returns has been checked like that
//! of any other back end. Keeping and sealing the root's key, and rotating it, is the caller's.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    BACKDATE, CaError, CertificateAuthority, ClientIssue, IssuedCertificate, MIN_LIFETIME,
    ServerIssue,
};
use crate::credential::Credential;
use crate::csr::VerifiedCsr;
use crate::identity;
use crate::key::{P256Signer, PrivateKey, distinguished_name};
use crate::oid::{self, ClaimExtension};
use crate::trust::{TrustAnchors, TrustError};

/// How long a root is good for: ten years of 365 days.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);
/// For how long a certificate is over that is made to be, seconds.
const OVER: i64 = 3_600;
/// Octets of a random serial number; the top bit is cleared and the next one set, so that it is
/// positive and of full length.
const SERIAL_OCTETS: usize = 16;

/// A new root and its key, to be stored (the key sealed).
#[derive(Debug)]
pub struct CaMaterial {
    /// The self-signed root certificate.
    pub root: CertificateDer<'static>,
    /// The root's private key.
    pub key: PrivateKey,
}

impl CaMaterial {
    /// Root and key as one secret: length of the root (4 octets, big-endian), root (DER), key (PKCS#8).
    ///
    /// # Errors
    /// [`CaError::Root`] when the root is longer than a certificate can be.
    pub fn encode(
        root: &CertificateDer<'_>,
        key: &PrivateKey,
    ) -> Result<Zeroizing<Vec<u8>>, CaError> {
        let length = u32::try_from(root.len())
            .map_err(|_| CaError::Root(TrustError::Malformed { position: 1 }))?;
        Ok(Zeroizing::new(
            [&length.to_be_bytes(), root.as_ref(), key.pkcs8()].concat(),
        ))
    }

    /// Takes what [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`CaError::Root`] or [`CaError::Key`].
    pub fn decode(secret: &[u8]) -> Result<Self, CaError> {
        let damaged = || CaError::Root(TrustError::Malformed { position: 1 });
        let (length, rest) = secret.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
        let (root, key) = rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok(Self {
            root: CertificateDer::from(root.to_vec()),
            key: PrivateKey::from_pkcs8(Zeroizing::new(key.to_vec()))?,
        })
    }
}

/// What is wrong with a certificate that a process makes to attack its own listener with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It names a grant and a subject, and nobody has registered it.
    Unregistered,
    /// As that, and its time was over an hour ago.
    Expired,
    /// It names neither grant nor subject.
    Nameless,
}

/// Where others learn of revocations of this authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUrls {
    /// Its revocation list.
    pub crl: String,
    /// Its OCSP responder.
    pub ocsp: String,
}

/// A certificate authority inside this process.
pub struct EmbeddedCa {
    root: CertificateDer<'static>,
    root_not_after: i64,
    issuer: Issuer<'static, P256Signer>,
    random: SystemRandom,
    /// What client certificates say of that; known only when listeners have their ports.
    urls: ArcSwapOption<StatusUrls>,
}

impl EmbeddedCa {
    /// Makes a new root named `common_name`, good for [`ROOT_LIFETIME`] from `now` (Unix seconds).
    ///
    /// # Errors
    /// [`CaError::Key`], [`CaError::Random`], [`CaError::Time`] or [`CaError::Signing`].
    pub fn generate(
        common_name: &str,
        now: i64,
        random: &dyn SecureRandom,
    ) -> Result<CaMaterial, CaError> {
        let key = PrivateKey::generate_p256()?;
        let signer = P256Signer::new(&key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name);
        params.serial_number = Some(random_serial(random)?);
        params.not_before = date(now.saturating_sub(seconds(BACKDATE)))?;
        params.not_after = date(now.saturating_add(seconds(ROOT_LIFETIME)))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params
            .self_signed(&signer)
            .map_err(|error| signing(&error))?;
        Ok(CaMaterial {
            root: root.into(),
            key,
        })
    }

    /// Takes a stored root and its key.
    ///
    /// # Errors
    /// [`CaError::Root`], [`CaError::Key`] or [`CaError::KeyMismatch`].
    pub fn load(root: CertificateDer<'static>, key: &PrivateKey) -> Result<Self, CaError> {
        // The same check as for any anchor: parseable, a CA, allowed to sign.
        TrustAnchors::new(0, vec![root.clone()])?;
        let parsed = identity::parse(&root)?;
        if parsed.public_key().raw != key.public_key()? {
            return Err(CaError::KeyMismatch);
        }
        if parsed.subject().as_raw() != parsed.issuer().as_raw() {
            return Err(CaError::Root(TrustError::NotCa { position: 1 }));
        }
        let root_not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&root, P256Signer::new(key)?)
            .map_err(|error| signing(&error))?;
        Ok(Self {
            root,
            root_not_after,
            issuer,
            random: SystemRandom::new(),
            urls: ArcSwapOption::empty(),
        })
    }

    /// The self-signed root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Has every client certificate from now on say where revocations are published (RFC 5280, sections 4.2.1.13 and
    /// 4.2.2.1).
    pub fn say_where(&self, urls: Arc<StatusUrls>) {
        self.urls.store(Some(urls));
    }

    /// Signs in the root's name.
    pub(crate) fn issuer(&self) -> &Issuer<'static, P256Signer> {
        &self.issuer
    }

    /// The validity of a leaf issued at `now`: back-dated, and ending with the first of the
    /// lifetime, the cap and the root.
    fn validity(
        &self,
        now: i64,
        lifetime: Duration,
        cap: Option<i64>,
    ) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
        let not_after = now
            .saturating_add(seconds(lifetime))
            .min(cap.unwrap_or(i64::MAX))
            .min(self.root_not_after);
        let available = not_after.saturating_sub(now);
        if available < seconds(MIN_LIFETIME) {
            return Err(CaError::LifetimeTooShort { available });
        }
        let not_before = now.saturating_sub(seconds(BACKDATE));
        Ok((date(not_before)?, date(not_after)?))
    }

    fn leaf_params(
        &self,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        (not_before, not_after): (OffsetDateTime, OffsetDateTime),
    ) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name);
        params.serial_number = Some(random_serial(&self.random)?);
        params.not_before = not_before;
        params.not_after = not_after;
        // Also writes the subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        Ok(params)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        csr: &VerifiedCsr,
    ) -> Result<CertificateDer<'static>, CaError> {
        let key = SubjectPublicKeyInfo::from_der(csr.public_key()).map_err(|e| signing(&e))?;
        let leaf = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| signing(&error))?;
        Ok(leaf.into())
    }

    fn sign_client(&self, request: &ClientIssue) -> Result<IssuedCertificate, CaError> {
        let validity = self.validity(request.now, request.lifetime, request.not_after_cap)?;
        let mut params = self.leaf_params(
            &format!("grant-{}", request.grant.hyphenated()),
            ExtendedKeyUsagePurpose::ClientAuth,
            validity,
        )?;
        params.custom_extensions = [
            (ClaimExtension::Grant, request.grant),
            (ClaimExtension::Subject, request.subject),
        ]
        .into_iter()
        .map(|(claim, value)| CustomExtension::from_oid_content(claim.arcs(), oid::encode(value)))
        .collect();
        if let Some(urls) = self.urls.load_full() {
            params.crl_distribution_points = vec![CrlDistributionPoint {
                uris: vec![urls.crl.clone()],
            }];
            params.custom_extensions.push(responder(&urls.ocsp)?);
        }
        let leaf = self.sign(&params, &request.csr)?;
        IssuedCertificate::verify_matches(leaf, Vec::new(), self.root.clone(), request)
    }

    /// A credential that must not open anything, for an attack on the own listener: for a client, good for five minutes
    /// from `now` (Unix seconds), with this flaw. Its grant is drawn for it, so it is registered nowhere.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue_flawed(
        &self,
        flaw: Flaw,
        key: &PrivateKey,
        now: i64,
    ) -> Result<Credential, CaError> {
        let from = match flaw {
            Flaw::Unregistered | Flaw::Nameless => now,
            Flaw::Expired => now
                .saturating_sub(OVER)
                .saturating_sub(seconds(MIN_LIFETIME)),
        };
        let until = from.saturating_add(seconds(MIN_LIFETIME));
        let window = (date(from.saturating_sub(seconds(BACKDATE)))?, date(until)?);
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let mut params = self.leaf_params("self-attack", usage, window)?;
        if flaw != Flaw::Nameless {
            params.custom_extensions = ClaimExtension::ALL
                .into_iter()
                .map(|claim| (claim, Uuid::new_v4()))
                .map(|(claim, id)| CustomExtension::from_oid_content(claim.arcs(), oid::encode(id)))
                .collect();
        }
        let leaf = params
            .signed_by(&P256Signer::new(key)?, &self.issuer)
            .map_err(|error| signing(&error))?;
        Credential::new(vec![leaf.into()], key).map_err(|error| CaError::Signing {
            reason: error.to_string(),
        })
    }

    fn sign_server(&self, request: &ServerIssue) -> Result<IssuedCertificate, CaError> {
        let first = request.names.first().ok_or(CaError::NoName)?;
        let validity = self.validity(request.now, request.lifetime, None)?;
        let mut params = self.leaf_params(
            &first.to_str(),
            ExtendedKeyUsagePurpose::ServerAuth,
            validity,
        )?;
        params.subject_alt_names = request
            .names
            .iter()
            .map(subject_alt_name)
            .collect::<Result<_, _>>()?;
        let leaf = self.sign(&params, &request.csr)?;
        IssuedCertificate::verify_matches_server(leaf, Vec::new(), self.root.clone(), request)
    }
}

impl fmt::Debug for EmbeddedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedCa")
            .field("root_not_after", &self.root_not_after)
            .field("key", &"redacted")
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl CertificateAuthority for EmbeddedCa {
    async fn issue_client(&self, request: ClientIssue) -> Result<IssuedCertificate, CaError> {
        self.sign_client(&request)
    }

    async fn issue_server(&self, request: ServerIssue) -> Result<IssuedCertificate, CaError> {
        self.sign_server(&request)
    }

    fn anchors(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }
}

/// authorityInfoAccess with one OCSP responder.
fn responder(url: &str) -> Result<CustomExtension, CaError> {
    use der::Encode as _;
    use x509_cert::ext::pkix::name::GeneralName;
    use x509_cert::ext::pkix::{AccessDescription, AuthorityInfoAccessSyntax};
    /// id-pe-authorityInfoAccess.
    const ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    const OCSP: der::asn1::ObjectIdentifier =
        der::asn1::ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
    let der = der::asn1::Ia5String::new(url)
        .map(|url| AccessDescription {
            access_method: OCSP,
            access_location: GeneralName::UniformResourceIdentifier(url),
        })
        .and_then(|one| AuthorityInfoAccessSyntax(vec![one]).to_der())
        .map_err(|error| CaError::Signing {
            reason: error.to_string(),
        })?;
    Ok(CustomExtension::from_oid_content(&ACCESS, der))
}

fn subject_alt_name(name: &ServerName<'_>) -> Result<SanType, CaError> {
    let bad = || CaError::BadName {
        name: name.to_str().into_owned(),
    };
    match name {
        ServerName::DnsName(dns) => Ok(SanType::DnsName(
            dns.as_ref().try_into().map_err(|_| bad())?,
        )),
        ServerName::IpAddress(address) => Ok(SanType::IpAddress(IpAddr::from(*address))),
        _ => Err(bad()),
    }
}

fn random_serial(random: &dyn SecureRandom) -> Result<SerialNumber, CaError> {
    let mut serial = [0; SERIAL_OCTETS];
    random.fill(&mut serial).map_err(|_| CaError::Random)?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&serial))
}

pub(crate) fn date(seconds: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time { seconds })
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(crate) fn signing(error: &rcgen::Error) -> CaError {
    CaError::Signing {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
