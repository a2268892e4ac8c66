//! TLS configurations: the listeners' and the clients'.
//!
//! Invariant: TLS 1.3 only, no resumption in either direction (but for a process that tries whether its own listener allows
//! it), and no way to build a client that
//! does not verify: a server's certificate by its path, its name and, where that is stapled, its status.
//! Resumption is off because a resumed session never reaches the client
//! certificate verifier, so a revoked peer would come back in. Sockets are elsewhere.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{NoServerSessionStorage, WantsServerCert};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::{Clock, TlsClock, unix_seconds};
use crate::credential::Credential;
use crate::identity::fingerprint;
use crate::ocsp::stapled::{self, StapledError};
pub use crate::provider::provider;
use crate::trust::TrustAnchors;
use crate::verify::{LiveClientVerifier, LiveServerResolver, Purpose, verify_path};

const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// Why a configuration could not be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the TLS configuration could not be built: {0}")]
pub struct TlsConfigError(#[from] rustls::Error);

/// The federation listener's configuration: a client certificate is required; ALPN `h2`, then
/// `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn federation_server_config(
    verifier: LiveClientVerifier,
    resolver: LiveServerResolver,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(TlsClock::new(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier));
    Ok(server_config(builder, resolver))
}

/// The enrollment listener's configuration: the client stays anonymous; ALPN `h2`, then `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn enrollment_server_config(
    resolver: LiveServerResolver,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(TlsClock::new(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth();
    Ok(server_config(builder, resolver))
}

fn server_config(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    resolver: LiveServerResolver,
) -> Arc<ServerConfig> {
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_1_1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// A client's configuration towards one peer: presents `credential`, trusts `anchors` only; ALPN
/// `h2`, then `http/1.1`. Build it once per credential and share it.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn peer_client_config(
    credential: &Credential,
    anchors: Arc<TrustAnchors>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let verifier = ServerVerifier::new(ServerTrust::Anchors(anchors));
    let presented = Arc::new(SingleCertAndKey::from(credential.certified_key()));
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(TlsClock::new(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(presented);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// A client's configuration for a process that tries its own listener: as [`peer_client_config`] in one protocol, HTTP/2 if
/// `multiplexed`. It would take up an earlier session again, if the listener let it.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn probing_client_config(
    credential: &Credential,
    anchors: Arc<TrustAnchors>,
    clock: Arc<dyn Clock>,
    multiplexed: bool,
) -> Result<ClientConfig, TlsConfigError> {
    let mut config = Arc::unwrap_or_clone(peer_client_config(credential, anchors, clock)?);
    config.resumption = Resumption::in_memory_sessions(8);
    let protocol = if multiplexed { ALPN_H2 } else { ALPN_HTTP_1_1 };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// A client's configuration for enrollment: the server must send, after its leaf, a self-signed CA
/// certificate with this SHA-256 (of its DER), which is then the only anchor that its chain and
/// name are verified against. The client stays anonymous; ALPN `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn pinned_client_config(
    root_sha256: [u8; 32],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    anonymous_client_config(ServerTrust::PinnedRoot(root_sha256), clock)
}

/// A client's configuration for enrollment with a root from a file instead of a pin. The client
/// stays anonymous; ALPN `http/1.1`.
///
/// # Errors
/// [`TlsConfigError`] when the provider cannot do TLS 1.3.
pub fn anchored_client_config(
    anchors: Arc<TrustAnchors>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    anonymous_client_config(ServerTrust::Anchors(anchors), clock)
}

fn anonymous_client_config(
    trust: ServerTrust,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(TlsClock::new(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(trust)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// What a server's chain must lead to. There is no variant for "anything".
#[derive(Debug)]
enum ServerTrust {
    Anchors(Arc<TrustAnchors>),
    PinnedRoot([u8; 32]),
}

/// Verifies a server's chain and name.
#[derive(Debug)]
struct ServerVerifier {
    trust: ServerTrust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn new(trust: ServerTrust) -> Self {
        Self {
            trust,
            algorithms: provider().signature_verification_algorithms,
        }
    }

    fn anchors(
        &self,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Arc<TrustAnchors>, CertificateError> {
        match &self.trust {
            ServerTrust::Anchors(anchors) => Ok(Arc::clone(anchors)),
            ServerTrust::PinnedRoot(sha256) => pinned_root(intermediates, sha256),
        }
    }
}

/// Finds the pinned root among what the server sent; its hash is the proof that it is the one, and
/// it must still be a self-issued CA certificate.
fn pinned_root(
    sent: &[CertificateDer<'_>],
    sha256: &[u8; 32],
) -> Result<Arc<TrustAnchors>, CertificateError> {
    let root = sent
        .iter()
        .rev()
        .find(|der| fingerprint(der) == *sha256)
        .ok_or(CertificateError::UnknownIssuer)?;
    let parsed = crate::identity::parse(root).map_err(|_| CertificateError::BadEncoding)?;
    if parsed.subject().as_raw() != parsed.issuer().as_raw() {
        return Err(CertificateError::UnknownIssuer);
    }
    TrustAnchors::new(0, vec![root.clone().into_owned()])
        .map(Arc::new)
        .map_err(|_| CertificateError::UnknownIssuer)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let anchors = self.anchors(intermediates)?;
        let purpose = Purpose::Server(server_name);
        let path = verify_path(end_entity, intermediates, &anchors, &purpose, now)
            .map_err(|error| error.for_server())?;
        stapled::verify(ocsp_response, end_entity, &path.issuer, unix_seconds(now)).map_err(
            |error| match error {
                StapledError::Revoked => CertificateError::Revoked,
                _ => CertificateError::InvalidOcspResponse,
            },
        )?;
        Ok(ServerCertVerified::assertion())
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

#[cfg(test)]
mod tests;
