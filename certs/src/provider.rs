//! The cryptographic provider: which algorithms there are at all.
//!
//! Invariant: every TLS configuration and every verification of a chain uses this one, so that two
//! parts of the product never disagree on what is acceptable. Configurations are in `tls.rs`.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    // Post-quantum hybrid first; nothing beyond what the specification names.
    provider.kx_groups = vec![
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
    ];
    provider
        .cipher_suites
        .retain(|suite| suite.tls13().is_some());
    Arc::new(provider)
});

/// The one cryptographic provider of every configuration made here: aws-lc-rs, TLS 1.3 suites, key
/// exchange X25519MLKEM768, then X25519, then P-256.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
