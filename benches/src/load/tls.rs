//! The TLS side of the load generator.
//!
//! Invariant: TLS 1.3 only, the server is verified, and nothing is ever resumed, so that each handshake
//! measured is a whole one. Ordinary rustls, not the product's own client configuration, because the key
//! exchange has to be chosen here: like is compared with like.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Key exchange that a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyExchange {
    /// X25519, which every server here knows.
    X25519,
    /// X25519MLKEM768, which only the Rust servers here know.
    Hybrid,
}

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is not the PEM it should be.
    #[error("{path}: {error}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls_pki_types::pem::Error,
    },
    /// The certificates do not fit together.
    #[error("the certificates cannot be used: {0}")]
    Config(#[from] rustls::Error),
}

/// A configuration that trusts `ca` and presents `client` (chain and key), if given.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(
    ca: &Path,
    client: Option<(&Path, &Path)>,
    key_exchange: KeyExchange,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = match key_exchange {
        KeyExchange::X25519 => vec![kx_group::X25519],
        KeyExchange::Hybrid => vec![kx_group::X25519MLKEM768],
    };
    let mut anchors = RootCertStore::empty();
    for anchor in certificates(ca)? {
        anchors.add(anchor)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(anchors);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Pem {
                path: key.to_owned(),
                error,
            })?;
            builder.with_client_auth_cert(certificates(chain)?, secret)?
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |error| TlsError::Pem {
        path: path.to_owned(),
        error,
    };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(refused)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    if found.is_empty() {
        return Err(refused(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}
