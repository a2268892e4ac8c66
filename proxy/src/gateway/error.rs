//! Why the gateway has no usable answer, and what a peer is told of it.

use std::io;

use policy::deny::DenyCode;

use super::http1::Unreadable;

/// Why a question to the gateway has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// It cannot be reached, or the connection broke.
    #[error("the gateway cannot be reached: {0}; check that it runs and `gateway.url`")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("the gateway did not answer in time while {0}")]
    Timeout(&'static str),
    /// Too many requests wait for it.
    #[error("too many requests wait for the gateway")]
    Busy,
    /// It refused the subject's credential (401).
    #[error(
        "the gateway refused the subject's credential; register a new one with `gateway token set`"
    )]
    CredentialRejected,
    /// No credential is registered for the subject.
    #[error("no gateway token is registered for this user; register one with `gateway token set`")]
    CredentialMissing,
    /// It says that the subject may not ask this (403).
    #[error("the gateway denies this to the subject")]
    Denied,
    /// It knows no such thing (404).
    #[error("the gateway has no such row")]
    NotFound,
    /// Its answer cannot be used.
    #[error("the gateway's answer cannot be used: {0}")]
    Malformed(String),
}

impl GatewayError {
    /// The reason a peer is given.
    #[must_use]
    pub const fn deny_code(&self) -> DenyCode {
        match self {
            Self::Unreachable(_) => DenyCode::GatewayUnreachable,
            Self::Timeout(_) => DenyCode::GatewayTimeout,
            Self::Busy => DenyCode::GatewayBusy,
            Self::CredentialRejected => DenyCode::SubjectCredentialRejected,
            Self::CredentialMissing => DenyCode::SubjectCredentialMissing,
            Self::Denied => DenyCode::GatewayDenied,
            Self::NotFound => DenyCode::NotFound,
            Self::Malformed(_) => DenyCode::GatewayMalformed,
        }
    }

    pub(super) fn connecting(error: &pingora_core::Error) -> Self {
        use pingora_core::ErrorType::{ConnectTimedout, TLSHandshakeTimedout};
        match error.etype() {
            ConnectTimedout | TLSHandshakeTimedout => Self::Timeout("connecting"),
            // The text of Pingora's error can quote bytes of the answer: only its kind goes on.
            kind => Self::Unreachable(format!("connecting: {}", kind.as_str())),
        }
    }

    pub(super) fn broken(error: &io::Error, doing: &'static str) -> Self {
        Self::Unreachable(format!("{doing}: {}", error.kind()))
    }
}

impl From<Unreadable> for GatewayError {
    fn from(Unreadable(what): Unreadable) -> Self {
        Self::Malformed(what.to_owned())
    }
}
