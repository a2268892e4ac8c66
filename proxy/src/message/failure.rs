//! A request that gets no rows: the reason, the words for the peer, and what becomes of the
//! connection.
//!
//! Invariant: reasons that would tell which grants exist share one generic text (specification,
//! section 2); everything else says what is wrong and what to do.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use policy::deny::DenyCode;
use serde_json::json;

use super::status::{WireCode, status_of};
use crate::limit::whole_seconds;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The closed reason.
    pub code: DenyCode,
    /// Words for the peer; the code's own when absent.
    pub message: Option<Cow<'static, str>>,
    /// True when nothing more may be read from the connection.
    pub close: bool,
    /// Whole seconds after which the same question is accepted; told as `Retry-After`.
    pub retry_after: Option<u64>,
    doubtful: bool,
}

impl From<DenyCode> for Failure {
    fn from(code: DenyCode) -> Self {
        Self {
            code,
            message: None,
            close: closes(code),
            // A turn comes up as soon as any other request is done.
            retry_after: (code == DenyCode::GatewayBusy).then_some(1),
            doubtful: doubts_framing(code),
        }
    }
}

impl Failure {
    /// A failure with words of its own.
    #[must_use]
    pub fn saying(code: DenyCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: Some(message.into()),
            ..Self::from(code)
        }
    }

    /// A refusal for want of room, which the next question after `wait` does not meet.
    #[must_use]
    pub fn wait(code: DenyCode, wait: Duration) -> Self {
        Self {
            retry_after: Some(whole_seconds(wait)),
            ..Self::from(code)
        }
    }

    /// The same failure of a request whose framing is in doubt as well: the connection ends with it.
    #[must_use]
    pub fn in_doubt(self) -> Self {
        Self {
            close: true,
            doubtful: true,
            ..self
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http_status(&self) -> http::StatusCode {
        status_of(self.code).0
    }

    /// True when the certificate of the connection opens nothing any more, so that no later request
    /// on it can fare better.
    #[must_use]
    pub const fn ends_identity(&self) -> bool {
        matches!(
            status_of(self.code).1,
            WireCode::Unauthorized | WireCode::Forbidden
        )
    }

    /// True when it is not certain where the request ends, so that nothing after its head may be
    /// read as its body.
    #[must_use]
    pub const fn doubts_framing(&self) -> bool {
        self.doubtful
    }

    /// The error envelope (specification, section 3).
    #[must_use]
    pub fn envelope(&self, request_id: &str) -> Bytes {
        let wire = status_of(self.code).1;
        let mut error = json!({
            "code": wire.as_str(),
            "message": self.text(),
            "requestId": request_id,
        });
        if let (Some(object), true) = (error.as_object_mut(), self.code.is_told()) {
            object.insert("details".to_owned(), json!({"reason": self.code.as_str()}));
        }
        Bytes::from(json!({ "error": error }).to_string())
    }

    /// The words for whoever asked.
    #[must_use]
    pub fn text(&self) -> &str {
        if !self.code.is_told() {
            return GENERIC_FORBIDDEN;
        }
        self.message
            .as_deref()
            .unwrap_or_else(|| self.code.meaning())
    }
}

/// The one text for everything a stranger could otherwise probe with.
const GENERIC_FORBIDDEN: &str = "this certificate does not open anything here";

/// Whether this reason leaves it open where the request ends.
const fn doubts_framing(code: DenyCode) -> bool {
    matches!(
        code,
        DenyCode::AmbiguousFraming | DenyCode::UpgradeRefused | DenyCode::ConnectRefused
    )
}

/// Whether the connection ends with this answer: its identity is over, or its framing is in doubt.
const fn closes(code: DenyCode) -> bool {
    matches!(
        status_of(code).1,
        WireCode::Unauthorized | WireCode::Forbidden
    ) || matches!(
        code,
        DenyCode::AmbiguousFraming
            | DenyCode::UpgradeRefused
            | DenyCode::ConnectRefused
            | DenyCode::BodyTooLarge
            | DenyCode::AuditUnavailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_could_probe_with_is_one_text() {
        let texts: Vec<Bytes> = [
            DenyCode::GrantUnknown,
            DenyCode::GrantPending,
            DenyCode::SubjectMismatch,
            DenyCode::CertificateUnregistered,
            DenyCode::PeerUnknown,
        ]
        .into_iter()
        .map(|code| Failure::saying(code, "something telling").envelope("r"))
        .collect();
        assert!(
            texts
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a == b))
        );
        assert!(
            texts
                .iter()
                .all(|text| !String::from_utf8_lossy(text).contains("details"))
        );
    }

    #[test]
    fn a_revoked_grant_is_told() {
        let text = Failure::from(DenyCode::GrantRevoked).envelope("r-1");
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        assert_eq!(value.pointer("/error/code"), Some(&json!("forbidden")));
        assert_eq!(
            value.pointer("/error/details/reason"),
            Some(&json!("grant_revoked"))
        );
        assert_eq!(value.pointer("/error/requestId"), Some(&json!("r-1")));
    }
}
