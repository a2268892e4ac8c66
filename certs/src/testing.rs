//! Minting certificates for tests: good ones, and ones with each defect a hostile peer can have.
//!
//! Invariant: what is minted is signed for real, so that a test fails where it means to and not at
//! a signature. Compiled for tests and under the feature `test-util` only; panics on misuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod ca;
mod crl;
mod der;

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock::{Clock, SystemClock};
use crate::credential::Credential;
use crate::identity::{Serial, fingerprint};
use crate::key::{PrivateKey, distinguished_name};
use crate::oid::{self, ClaimExtension};
use crate::trust::{RevokedSet, certificate_to_pem};
use ca::{DAY, HOUR, date, random_serial};
use der::{Tamper, resign};

pub use ca::TestCa;
pub use crl::{CRL_NUMBER, CrlMint, crl_pem};
pub use der::tlv;

pub use crate::clock::ManualClock;
pub use rcgen::{
    ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256,
};

/// A leaf certificate in the making. Starts as a good one.
pub struct Mint {
    params: CertificateParams,
    algorithm: &'static SignatureAlgorithm,
    tamper: Vec<Tamper>,
    without_root: bool,
}

impl Mint {
    /// A good client certificate: both private extensions, clientAuth, digitalSignature, valid from
    /// an hour ago for 30 days.
    #[must_use]
    pub fn client(grant: Uuid, subject: Uuid) -> Self {
        let mut mint = Self::leaf(
            &format!("grant-{grant}"),
            ExtendedKeyUsagePurpose::ClientAuth,
        );
        mint.params.custom_extensions = vec![
            CustomExtension::from_oid_content(ClaimExtension::Grant.arcs(), oid::encode(grant)),
            CustomExtension::from_oid_content(ClaimExtension::Subject.arcs(), oid::encode(subject)),
        ];
        mint
    }

    /// A good server certificate for these DNS names and IP addresses, whose chain will include the
    /// root last.
    #[must_use]
    pub fn server(names: &[&str]) -> Self {
        let mut mint = Self::leaf(names[0], ExtendedKeyUsagePurpose::ServerAuth);
        mint.params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        mint.without_root = false;
        mint
    }

    fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose) -> Self {
        let now = SystemClock.unix_seconds();
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(common_name);
        params.not_before = date(now - HOUR);
        params.not_after = date(now + 30 * DAY);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
        Self {
            params,
            algorithm: &PKCS_ECDSA_P256_SHA256,
            tamper: Vec::new(),
            without_root: true,
        }
    }

    /// Changes anything the certificate builder knows.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    /// Valid from `not_before` to `not_after`, Unix seconds.
    #[must_use]
    pub fn validity(self, not_before: i64, not_after: i64) -> Self {
        self.with(|params| {
            params.not_before = date(not_before);
            params.not_after = date(not_after);
        })
    }

    /// Expired an hour ago.
    #[must_use]
    pub fn expired(self) -> Self {
        let now = SystemClock.unix_seconds();
        self.validity(now - 2 * DAY, now - HOUR)
    }

    /// Valid from tomorrow.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        let now = SystemClock.unix_seconds();
        self.validity(now + DAY, now + 2 * DAY)
    }

    /// Exactly these extended key usages; none = no such extension.
    #[must_use]
    pub fn eku(self, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.with(|params| params.extended_key_usages = usages.to_vec())
    }

    /// Exactly these key usages; none = no such extension.
    #[must_use]
    pub fn key_usage(self, usages: &[KeyUsagePurpose]) -> Self {
        self.with(|params| params.key_usages = usages.to_vec())
    }

    /// Without one of the private extensions.
    #[must_use]
    pub fn without_claim(self, claim: ClaimExtension) -> Self {
        self.with(|params| {
            params
                .custom_extensions
                .retain(|extension| !extension.oid_components().eq(claim.arcs().iter().copied()));
        })
    }

    /// With this DER as the content of one of the private extensions, in place of the good one.
    #[must_use]
    pub fn claim_raw(self, claim: ClaimExtension, der: &[u8]) -> Self {
        self.without_claim(claim)
            .with_extension_raw(claim.arcs(), der)
    }

    /// With one more extension of this DER content, not critical; repeats what is there already.
    #[must_use]
    pub fn with_extension_raw(self, oid: &[u64], der: &[u8]) -> Self {
        self.with(|params| {
            params
                .custom_extensions
                .push(CustomExtension::from_oid_content(oid, der.to_vec()));
        })
    }

    /// With one more extension that is critical.
    #[must_use]
    pub fn with_critical_extension_raw(self, oid: &[u64], der: &[u8]) -> Self {
        self.with(|params| {
            let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
            extension.set_criticality(true);
            params.custom_extensions.push(extension);
        })
    }

    /// With this magnitude as serial number; it is encoded as a positive integer.
    #[must_use]
    pub fn serial(self, magnitude: &[u8]) -> Self {
        self.with(|params| params.serial_number = Some(SerialNumber::from_slice(magnitude)))
    }

    /// With a negative serial number.
    #[must_use]
    pub fn negative_serial(self) -> Self {
        const MARK: [u8; 8] = [0x7f, 0xa5, 0x5a, 0xa5, 0x5a, 0xa5, 0x5a, 0xa5];
        self.serial(&MARK).tamper_tbs(|tbs| {
            let at = tbs.windows(MARK.len()).position(|part| part == MARK);
            tbs[at.unwrap()] = 0xff;
        })
    }

    /// A CA certificate instead of a leaf.
    #[must_use]
    pub fn as_ca(self) -> Self {
        self.with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }

    /// With a new key of this algorithm instead of P-256.
    #[must_use]
    pub fn key_algorithm(mut self, algorithm: &'static SignatureAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Leaves the root out of the chain (the default for clients), or puts it last (for servers).
    #[must_use]
    pub fn root_in_chain(mut self, included: bool) -> Self {
        self.without_root = !included;
        self
    }

    /// Changes the to-be-signed bytes (the TBSCertificate's content, without its own tag and
    /// length) just before they are signed.
    #[must_use]
    pub fn tamper_tbs(mut self, change: impl FnOnce(&mut Vec<u8>) + 'static) -> Self {
        self.tamper.push(Box::new(change));
        self
    }

    /// Signs it with `ca`, for real.
    #[must_use]
    pub fn sign_with(self, ca: &TestCa) -> Minted {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let good: CertificateDer<'static> =
            self.params.signed_by(&key, &ca.issuer()).unwrap().into();
        let leaf = resign(&good, self.tamper, &ca.key);
        let mut chain = vec![leaf];
        chain.extend(ca.intermediates().iter().cloned());
        if !self.without_root {
            chain.push(ca.root_der().clone());
        }
        Minted::new(chain, &key)
    }

    /// Signs it with its own key.
    #[must_use]
    pub fn self_signed(self) -> Minted {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let good: CertificateDer<'static> = self.params.self_signed(&key).unwrap().into();
        let leaf = resign(&good, self.tamper, &key);
        Minted::new(vec![leaf], &key)
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mint").finish_non_exhaustive()
    }
}

/// A minted certificate, its chain and its key.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKey>,
}

impl Minted {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKey::from_pkcs8(Zeroizing::new(key.serialize_der())).unwrap();
        Self {
            chain,
            key: Arc::new(key),
        }
    }

    /// A chain that somebody else has issued, leaf first, with its key.
    #[must_use]
    pub fn of(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Self {
        Self {
            chain,
            key: Arc::new(key),
        }
    }

    /// The leaf's DER.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// SHA-256 of the leaf's DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(self.leaf())
    }

    /// The leaf's serial number; panics if it is odd.
    #[must_use]
    pub fn serial(&self) -> Serial {
        let parsed = crate::identity::parse(self.leaf()).unwrap();
        Serial::decode(parsed.raw_serial()).unwrap()
    }

    /// The set in which this certificate alone is revoked.
    #[must_use]
    pub fn revoked(&self) -> RevokedSet {
        RevokedSet::new([(self.fingerprint(), self.serial())])
    }

    /// The private key.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKey {
        &self.key
    }

    /// The private key as rustls takes it.
    #[must_use]
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8().to_vec()))
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|der| certificate_to_pem(der))
            .collect()
    }

    /// The private key as PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.to_pem().to_string()
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The chain and key as a credential; panics if the leaf is too odd for one.
    #[must_use]
    pub fn credential(&self) -> Credential {
        Credential::new(self.chain.clone(), &self.key).unwrap()
    }

    /// The chain and key for rustls, with no check at all.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::new(CertifiedKey::new(
            self.chain.clone(),
            self.key.signing_key().unwrap(),
        ))
    }
}

/// A client that a hostile or foreign peer could run: it presents `minted` whatever its defects (or
/// nothing), speaks `versions`, keeps session tickets, and trusts `server_root`. To be altered by
/// the test before use.
#[must_use]
pub fn foreign_client_config(
    minted: Option<&Minted>,
    server_root: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(server_root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match minted {
        None => builder.with_no_client_auth(),
        Some(minted) => builder.with_client_cert_resolver(Arc::new(
            rustls::sign::SingleCertAndKey::from(minted.certified_key()),
        )),
    }
}
