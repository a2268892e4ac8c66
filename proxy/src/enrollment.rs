//! Enrollment, serving side: a single-use token and a certificate request become a client certificate.
//!
//! Invariant: a token buys at most one certificate. It is claimed in the store before the authority is asked, and
//! grant, certificate, peer and audit row change in one transaction before anything is answered. A bad certificate
//! request is refused before the claim, so it does not spend the token. A token is never logged beyond its first
//! eight characters.
//!
//! `redeem.rs` is the act, `routes.rs` its HTTP form, `listener.rs` the TLS listener, `caller.rs` what an address may
//! try, `step.rs` the way to a step-ca, `revocation.rs` the routes for
//! those who ask about revocations. The asking side is in
//! `outbound` on purpose: the two never run in one exchange.

pub mod caller;
pub mod listener;
pub mod redeem;
pub mod revocation;
pub mod routes;
mod step;
pub mod token;

use async_trait::async_trait;

pub use listener::{EnrollmentLimits, serve};
pub use redeem::{EnrollmentTerms, RedeemError, Redeemed, Redeemer};
pub use revocation::{CRL_PATH, OCSP_PATH, StatusRoutes};
pub use routes::router;
pub use step::HttpsToStep;
pub use token::{EnrollmentToken, TokenDrawError};

/// Base path of enrollment; the token follows.
pub const ENROLLMENT_PATH: &str = "/api/federation/enrollment/";

/// What makes a committed change effective in this process: rebuilds the snapshot and closes the gates of what it
/// no longer allows.
#[async_trait]
pub trait ApplyChanges: Send + Sync {
    /// Returns when requests are decided by the store's present state.
    ///
    /// # Errors
    /// What went wrong, in words for the log. The change itself stays committed.
    async fn apply_changes(&self) -> Result<(), String>;
}

/// The URL an operator hands to the other side: `<public_url>/api/federation/enrollment/<token>#sha256=<hex>`.
///
/// `pin` is the SHA-256 of the self-signed root (DER) at the end of the enrollment listener's own chain
/// (the specification, section 4.2).
#[must_use]
pub fn enrollment_url(public_url: &str, token: &EnrollmentToken, pin: &[u8; 32]) -> String {
    format!(
        "{}{ENROLLMENT_PATH}{}#sha256={}",
        public_url.trim_end_matches('/'),
        token.expose(),
        hex::encode(pin)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_url_carries_token_and_pin() {
        let token = EnrollmentToken::parse(&"ab".repeat(32)).unwrap();
        let url = enrollment_url("https://work.example:8444/", &token, &[0x1f; 32]);
        assert_eq!(
            url,
            format!(
                "https://work.example:8444/api/federation/enrollment/{}#sha256={}",
                "ab".repeat(32),
                "1f".repeat(32)
            )
        );
    }
}
