//! Who we and they are: identity, trust, certificate authority, credentials, sealing.
//!
//! Invariant: a [`PeerIdentity`] is only as good as the chain it came from, so the two are always
//! made together: [`verify`] proves the chain, [`identity`] reads the proven leaf. No function of
//! this crate can skip verification. What a peer may then do is not known here.
//!
//! Pure, except for the files that say otherwise: `clock` reads the clock, `seal::secret` reads a
//! file or an environment variable, and key generation, signing and sealing draw randomness.

pub mod ca;
pub mod clock;
pub mod credential;
pub mod crl;
pub mod csr;
pub mod identity;
pub mod key;
pub mod ocsp;
pub mod oid;
mod provider;
pub mod publish;
pub mod rotation;
pub mod seal;
pub mod server_identity;
mod signature;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod tls;
pub mod trust;
pub mod verify;

pub use ca::{
    CaError, CertificateAuthority, ClientIssue, EmbeddedCa, IssuedCertificate, ServerIssue, StepCa,
};
pub use clock::{Clock, SystemClock};
pub use credential::{Credential, CredentialError};
pub use crl::{CrlSet, RevocationList};
pub use csr::{CsrError, VerifiedCsr};
pub use identity::{IdentityError, PeerIdentity, Serial};
pub use key::{KeyError, PrivateKey};
pub use publish::{
    CredentialPublisher, CredentialReceiver, CrlPublisher, CrlReceiver, RevokedPublisher,
    RevokedReceiver, TrustPublisher, TrustReceiver,
};
pub use seal::{SealError, SealPurpose, Sealer, SealingSecret};
pub use trust::{RevokedSet, TrustAnchors, TrustError};
pub use verify::{ChainError, LiveClientVerifier, LiveServerResolver, verify_chain};
