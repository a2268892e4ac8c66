//! Why a peer gave no answer: one closed set, with the alert its TLS sent.
//!
//! Invariant: nothing the peer wrote is in an error, so its text may stand in logs and in front of users. What an
//! error means for the grant is in `state.rs`, which status it becomes in `failure.rs`.

use std::io;

use rustls::AlertDescription;

/// Why a peer gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Its name does not resolve.
    #[error("its name does not resolve; check the endpoint's host and the resolver")]
    Unresolved,
    /// No TCP connection.
    #[error("no connection ({0}); check that it runs, its port and the firewall")]
    Unreachable(io::ErrorKind),
    /// No TCP connection in time.
    #[error("no connection in time; check its address and the firewall")]
    ConnectTimeout,
    /// No TLS handshake in time.
    #[error("no TLS handshake in time; check that the endpoint is a federation listener")]
    TlsTimeout,
    /// Its server certificate does not verify.
    #[error(
        "its server certificate does not verify against its trust bundle and name; enroll again if it changed its CA"
    )]
    Untrusted,
    /// The handshake failed in another way; the alert, when one came. It says nothing of our certificate: in TLS 1.3 a
    /// peer judges that after our side has finished, and what speaks before has not shown that it is the peer.
    #[error("the TLS handshake failed{}; check that the endpoint is a federation listener", alert_text(*.0))]
    Handshake(Option<AlertDescription>),
    /// The connection died before an answer; the alert, when the peer sent one.
    #[error("the connection ended before an answer{}", alert_text(*.0))]
    Died(Option<AlertDescription>),
    /// No first byte in time.
    #[error("no answer in time")]
    FirstByteTimeout,
    /// Not the whole answer in time.
    #[error("the answer was not complete in time")]
    TotalTimeout,
    /// The answer is not HTTP, or its head is too large.
    #[error("what came back is not an HTTP answer")]
    NotHttp,
    /// The connection broke within the answer.
    #[error("the connection broke within the answer")]
    Broken,
    /// The request could not be written down; a fault of this program.
    #[error("the request could not be written")]
    Unsendable,
}

fn alert_text(alert: Option<AlertDescription>) -> String {
    alert.map_or_else(String::new, |alert| format!(": alert {alert:?}"))
}

impl AskError {
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Untrusted,
            Some(rustls::Error::AlertReceived(alert)) => Self::Handshake(Some(*alert)),
            _ => Self::Handshake(None),
        }
    }

    /// The machine-readable reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Unreachable(_) => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsTimeout => "tls_timeout",
            Self::Untrusted => "server_certificate_untrusted",
            Self::Handshake(_) => "tls_failed",
            Self::Died(Some(AlertDescription::CertificateRevoked)) => "certificate_revoked",
            Self::Died(Some(AlertDescription::CertificateExpired)) => "certificate_expired",
            Self::Died(Some(_)) => "refused_by_alert",
            Self::Died(None) | Self::Broken => "connection_lost",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::NotHttp => "not_http",
            Self::Unsendable => "unsendable",
        }
    }

    /// Whether a deadline ended it.
    #[must_use]
    pub const fn is_timeout(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout | Self::TlsTimeout | Self::FirstByteTimeout | Self::TotalTimeout
        )
    }

    /// The alert that the peer sent after it had shown that it is the peer, if it did.
    #[must_use]
    pub const fn alert(self) -> Option<AlertDescription> {
        match self {
            Self::Died(alert) => alert,
            _ => None,
        }
    }
}
