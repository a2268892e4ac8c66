//! What every refusal must look like, on the wire and in the audit log.
//!
//! Invariant: one place says it, so that no test can forget a part of it.

use policy::deny::DenyCode;
use proxy::message::status::status_of;
use serde_json::Value;

use crate::audit::audit_row;
use crate::response::Response;
use crate::world::World;

/// The one text for whatever a stranger could probe with.
pub const GENERIC: &str = "this certificate does not open anything here";

/// A refusal to expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status.
    pub status: u16,
    /// Code of the envelope.
    pub code: &'static str,
    /// Reason in the audit row, and in the envelope unless it is one of those that are not told.
    pub reason: DenyCode,
}

impl Denial {
    /// A refusal; status and code are written out in the test, not taken from the product.
    #[must_use]
    pub const fn new(status: u16, code: &'static str, reason: DenyCode) -> Self {
        Self {
            status,
            code,
            reason,
        }
    }

    /// Checks response and audit row. Gives the row.
    pub async fn check(&self, world: &World, response: &Response) -> Value {
        self.check_response(response);
        let row = audit_row(world.control(), response.request_id()).await;
        let outcome = match self.status {
            429 => "rate_limited",
            500.. => "error",
            _ => "denied",
        };
        assert_eq!(row["outcome"], outcome, "{row}");
        assert_eq!(row["deny_code"], self.reason.as_str(), "{row}");
        assert_eq!(row["deny_stage"], self.reason.stage().as_str(), "{row}");
        assert_eq!(row["http_status"], self.status, "{row}");
        assert_eq!(row["direction"], "inbound", "{row}");
        assert_eq!(row["rows_returned"], 0, "{row}");
        row
    }

    /// Checks the response alone.
    pub fn check_response(&self, response: &Response) {
        assert_eq!(response.status, self.status, "{}", response.text());
        assert_eq!(status_of(self.reason).0.as_u16(), self.status);
        check_headers(response);
        assert_eq!(response.header("x-mosaic-revision"), None);
        let body = response.json();
        let error = &body["error"];
        assert_eq!(error["code"], self.code, "{body}");
        assert_eq!(error["requestId"], response.request_id(), "{body}");
        let members: Vec<&str> = error
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        if is_generic(self.reason) {
            assert_eq!(members, ["code", "message", "requestId"], "{body}");
            assert_eq!(error["message"], GENERIC, "{body}");
        } else {
            assert_eq!(error["details"]["reason"], self.reason.as_str(), "{body}");
            assert!(!error["message"].as_str().unwrap().is_empty());
        }
    }
}

/// Reasons that would tell which grants, peers or certificates exist.
#[must_use]
pub fn is_generic(reason: DenyCode) -> bool {
    matches!(
        reason,
        DenyCode::GrantUnknown
            | DenyCode::GrantPending
            | DenyCode::SubjectMismatch
            | DenyCode::CertificateUnregistered
            | DenyCode::PeerUnknown
    )
}

/// What holds of every response: a request id, `no-store`, JSON, and nothing of the inside.
pub fn check_headers(response: &Response) {
    assert!(
        uuid::Uuid::try_parse(response.request_id()).is_ok(),
        "{response:?}"
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    for name in ["server", "x-powered-by", "via", "set-cookie"] {
        assert_eq!(response.header(name), None);
    }
    let text = response.text();
    for inside in [
        "panicked",
        "backtrace",
        ".rs:",
        "src/",
        "sqlite",
        "SELECT",
        "127.0.0.1",
        "token-",
    ] {
        assert!(!text.contains(inside), "{inside} in {text}");
    }
}
