//! Why a peer was not added.
//!
//! Invariant: every variant says whether the token is spent, or makes it plain, and what the operator does next.
//! None holds a token or a key.

use policy::peer::PeerName;

use super::super::endpoint::UrlError;
use super::super::fault::AskError;
use super::super::route::CredentialFault;
use crate::store::StoreError;

/// Why a peer was not added.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AddPeerError {
    /// The enrollment URL is wrong.
    #[error("the enrollment URL cannot be used: {0}")]
    Url(#[source] UrlError),
    /// The given endpoint is wrong.
    #[error("the given endpoint cannot be used: {0}")]
    Endpoint(#[source] UrlError),
    /// The fingerprint is wrong.
    #[error("{0}")]
    Fingerprint(#[source] UrlError),
    /// The trust root is wrong.
    #[error("the trust root cannot be used: {0}")]
    TrustRoot(#[source] certs::TrustError),
    /// Nothing says which server to trust.
    #[error(
        "the URL has no `#sha256=` fragment, so nothing says which server to trust; copy the whole URL, or give `--fingerprint` or `--trust-root`"
    )]
    NoTrust,
    /// More than one thing says which server to trust.
    #[error(
        "the server is named more than once; give one of: the URL's fragment, `--fingerprint`, `--trust-root`"
    )]
    AmbiguousTrust,
    /// The name is no peer name.
    #[error("{0}")]
    Name(#[source] policy::peer::PeerNameError),
    /// The user is no user id.
    #[error("the user cannot be used: {0}")]
    User(#[source] policy::id::IdError),
    /// The name belongs to another user's peer.
    #[error(
        "the name `{0}` is taken by a peer of another user; choose another with `--name`, the token is not spent"
    )]
    NameTaken(PeerName),
    /// Key or request could not be made.
    #[error("no key could be made: {0}; the token is not spent")]
    Key(#[source] certs::KeyError),
    /// The enrollment listener gave no answer.
    #[error(
        "{listener} gave no answer: {fault}; if the token was spent meanwhile, its issuer makes a new one with `grant token --replace`"
    )]
    Unreachable {
        /// The listener.
        listener: String,
        /// What failed.
        fault: AskError,
    },
    /// The listener's certificate is not the pinned one.
    #[error(
        "{0} does not show the certificate that the URL or root names, or not for that host; copy the URL again, and do not go on if it persists: somebody may be in between"
    )]
    Untrusted(String),
    /// There is no such token.
    #[error(
        "the peer knows no such token; copy the URL again or ask its operator for a new one (`grant token`)"
    )]
    UnknownToken,
    /// The token is spent, expired or withdrawn.
    #[error(
        "the token was used, has expired or was withdrawn; ask the peer's operator for a new one (`grant token --replace`)"
    )]
    TokenSpent,
    /// The peer refused in another way.
    #[error("the peer refused with status {status}: {message}")]
    Refused {
        /// The status.
        status: u16,
        /// Its words, escaped.
        message: String,
    },
    /// The answer is not what it must be; the token is spent.
    #[error(
        "the peer's answer cannot be used: {0}; the token is spent: its operator makes a new one with `grant token --replace`"
    )]
    BadAnswer(&'static str),
    /// The endpoint in the answer is on another host; the token is spent.
    #[error(
        "the peer says it is asked at {0}, which is not the host of the enrollment URL; if that is right, ask for a new token (`grant token --replace`) and give `--endpoint`"
    )]
    OtherHost(String),
    /// The key could not be sealed; the token is spent.
    #[error(
        "the key could not be sealed: {0}; the token is spent: ask for a new one (`grant token --replace`)"
    )]
    Seal(#[source] certs::SealError),
    /// The credential cannot be used; the token is spent.
    #[error("{0}; the token is spent: ask for a new one (`grant token --replace`)")]
    Credential(#[source] CredentialFault),
    /// The store refused or failed; the token is spent when that is said.
    #[error("the peer could not be stored: {cause}{}", if *.spent { "; the token is spent: ask for a new one (`grant token --replace`)" } else { "" })]
    Store {
        /// The store's error.
        #[source]
        cause: StoreError,
        /// Whether the token was spent before.
        spent: bool,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(certs::tls::TlsConfigError),
}
