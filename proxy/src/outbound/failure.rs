//! A request of the session door without rows: its reason, its status, its envelope.
//!
//! Invariant: every failure becomes one envelope of the specification's section 3 with `details.peer` as soon as
//! the peer is known, so a caller can tell who refused. What a peer wrote is bounded and escaped before it is
//! passed on, and only the seven known codes pass.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use policy::deny::DenyCode;
use serde_json::{Map, Value, json};

use super::answer::AnswerFault;
use super::fault::AskError;
use super::notice::Notice;
use super::reach::Barrier;
use super::state::LocalRefusal;
use crate::audit::AuditText;
use crate::message::failure::Failure;
use crate::message::headers::REQUEST_ID;
use crate::message::status::{WireCode, status_of};

/// Codes of the wire protocol that a peer may answer with.
const KNOWN_CODES: [&str; 7] = [
    "invalid_request",
    "unauthorized",
    "forbidden",
    "scope_violation",
    "not_found",
    "rate_limited",
    "unavailable",
];
/// Largest `details` of a peer that is passed on, bytes.
const MAX_DETAILS: usize = 4 * 1024;

/// A failed request of the door.
#[derive(Debug, Clone, PartialEq)]
pub enum DoorFailure {
    /// Neither a live session token nor a mapped uid.
    NoSession,
    /// The same of a request to the proxy, which is told in another way.
    NoProxySession,
    /// The host or origin is not this machine's own.
    ForeignOrigin(&'static str),
    /// No such route, or no peer of that name for this user: one text for both.
    NoSuchPeer,
    /// Several peers of this user go by that name.
    AmbiguousPeer,
    /// The request itself is wrong, or the user's own gateway cannot answer it: a reason of the wire protocol, found
    /// on this side.
    Own(Failure),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The grant is over, as far as this side knows.
    Refused(LocalRefusal),
    /// The credential cannot be used; the cause is in the log.
    CredentialUnusable,
    /// The record of the request cannot be kept.
    AuditUnavailable,
    /// The store failed.
    StoreUnavailable,
    /// The peer was not asked.
    HeldBack(Barrier),
    /// The peer gave no answer.
    Offline(AskError),
    /// The peer's answer cannot be used.
    BadAnswer(AnswerFault),
    /// The peer answered a status or type that is not of the protocol.
    Strange(StatusCode),
    /// The grant kept changing while it was asked: no answer stayed good until it could be passed on.
    LeaseLost,
    /// The peer said no.
    Peer(PeerError),
}

/// An error envelope of a peer, made safe.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerError {
    /// Its status, 400 to 599.
    pub status: StatusCode,
    /// One of the seven codes.
    pub code: &'static str,
    /// Escaped and bounded.
    pub message: String,
    /// Its details, if they are a small object.
    pub details: Map<String, Value>,
}

impl PeerError {
    /// Parses the body of an answer that is no 200; `None` when it is not an envelope with a known code.
    #[must_use]
    pub fn parse(status: StatusCode, body: &[u8]) -> Option<Self> {
        if !(status.is_client_error() || status.is_server_error()) {
            return None;
        }
        let value = policy::strict_json::parse_bytes(body).ok()?;
        let error = value.get("error")?;
        let code = error.get("code")?.as_str()?;
        let code = KNOWN_CODES.into_iter().find(|known| *known == code)?;
        let message = error
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let details = error
            .get("details")
            .and_then(Value::as_object)
            .filter(|details| {
                serde_json::to_vec(details).is_ok_and(|text| text.len() <= MAX_DETAILS)
            })
            .cloned()
            .unwrap_or_default();
        Some(Self {
            status,
            code,
            message: AuditText::long(message).as_str().to_owned(),
            details,
        })
    }

    /// Whether the peer works but has too many questions waiting: the same one is answered later.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let reason = self.details.get("reason").and_then(Value::as_str);
        self.code == WireCode::Unavailable.as_str()
            && reason == Some(DenyCode::GatewayBusy.as_str())
    }

    /// `details.reason` of a `forbidden`.
    #[must_use]
    pub fn forbidden_reason(&self) -> Option<&str> {
        (self.code == "forbidden")
            .then(|| self.details.get("reason")?.as_str())
            .flatten()
    }
}

impl DoorFailure {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoSession => StatusCode::UNAUTHORIZED,
            Self::NoProxySession => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::ForeignOrigin(_) | Self::Refused(_) => StatusCode::FORBIDDEN,
            Self::NoSuchPeer | Self::AmbiguousPeer => StatusCode::NOT_FOUND,
            Self::Own(failure) => failure.http_status(),
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::CredentialUnusable
            | Self::AuditUnavailable
            | Self::StoreUnavailable
            | Self::LeaseLost => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeldBack(Barrier::Limited(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::HeldBack(Barrier::Open(_) | Barrier::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Offline(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Self::Offline(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadAnswer(_) | Self::Strange(_) => StatusCode::BAD_GATEWAY,
            Self::Peer(error) => error.status,
        }
    }

    /// The code of the envelope.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSession | Self::NoProxySession => WireCode::Unauthorized.as_str(),
            Self::ForeignOrigin(_) | Self::Refused(_) => WireCode::Forbidden.as_str(),
            Self::NoSuchPeer | Self::AmbiguousPeer => WireCode::NotFound.as_str(),
            Self::Own(failure) => status_of(failure.code).1.as_str(),
            Self::BodyTimeout => WireCode::InvalidRequest.as_str(),
            Self::CredentialUnusable
            | Self::AuditUnavailable
            | Self::StoreUnavailable
            | Self::HeldBack(Barrier::Open(_) | Barrier::Busy)
            | Self::LeaseLost
            | Self::Offline(_)
            | Self::BadAnswer(_)
            | Self::Strange(_) => WireCode::Unavailable.as_str(),
            Self::HeldBack(Barrier::Limited(_)) => "rate_limited",
            Self::Peer(error) => error.code,
        }
    }

    /// The machine-readable reason, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NoSession | Self::NoProxySession | Self::NoSuchPeer => None,
            Self::AmbiguousPeer => Some("ambiguous_peer"),
            Self::Own(failure) => Some(failure.code.as_str()),
            Self::BodyTimeout => Some("body_timeout"),
            Self::ForeignOrigin(_) => Some("foreign_origin"),
            Self::Refused(refusal) => Some(refusal.reason()),
            Self::CredentialUnusable => Some("credential_unusable"),
            Self::AuditUnavailable => Some("audit_unavailable"),
            Self::StoreUnavailable => Some("store_unavailable"),
            Self::HeldBack(barrier) => Some(barrier.reason()),
            Self::LeaseLost => Some("lease_lost"),
            Self::Offline(error) => Some(error.reason()),
            Self::BadAnswer(AnswerFault::TooLarge | AnswerFault::TooManyRows) => {
                Some("answer_too_large")
            }
            Self::BadAnswer(_) | Self::Strange(_) => Some("malformed_answer"),
            Self::Peer(error) => error.details.get("reason").and_then(Value::as_str),
        }
    }

    /// The stage that failed, for records.
    #[must_use]
    pub const fn stage(&self) -> &'static str {
        match self {
            Self::NoSession
            | Self::NoProxySession
            | Self::ForeignOrigin(_)
            | Self::NoSuchPeer
            | Self::AmbiguousPeer => "session",
            Self::Own(failure) => failure.code.stage().as_str(),
            Self::BodyTimeout => "request",
            Self::Refused(_)
            | Self::CredentialUnusable
            | Self::AuditUnavailable
            | Self::StoreUnavailable
            | Self::HeldBack(_) => "local",
            Self::Offline(_) => "network",
            Self::BadAnswer(_) | Self::Strange(_) | Self::LeaseLost => "answer",
            Self::Peer(_) => "peer",
        }
    }

    /// What is wrong and what to do, in one line; `peer` is the local name of whom it is about.
    #[must_use]
    pub fn message(&self, peer: &str) -> String {
        match self {
            Self::NoSession => "a live session token is needed: `Authorization: Bearer <token>` from `mosaic-federation session create`".to_owned(),
            Self::ForeignOrigin(what) => format!("the `{what}` of this request is not this machine's: use 127.0.0.1, [::1] or localhost"),
            Self::NoSuchPeer => "no such peer or route for this session; `mosaic-federation peer list` shows the peers".to_owned(),
            Self::NoProxySession => "a live session token is needed: http_proxy=http://session:<token>@host:port, the token from `mosaic-federation session create`".to_owned(),
            Self::AmbiguousPeer => "several peers go by that name: use the local name; `mosaic-federation peer list` shows them".to_owned(),
            Self::Own(failure) => failure.text().to_owned(),
            Self::BodyTimeout => "the body did not arrive in time".to_owned(),
            Self::Refused(refusal) => refusal.meaning().to_owned(),
            Self::CredentialUnusable => format!("the credential for {peer} cannot be used; `mosaic-federation doctor` says why"),
            Self::AuditUnavailable => "the request cannot be recorded, so it is refused; check the disk and the database".to_owned(),
            Self::StoreUnavailable => "the store does not answer; try again".to_owned(),
            Self::Offline(_) | Self::HeldBack(Barrier::Open(_)) => format!("federation offline for {peer}"),
            Self::HeldBack(Barrier::Limited(after)) => format!("{peer} has asked for fewer requests; ask again in {} s", after.seconds()),
            Self::HeldBack(Barrier::Busy) => format!("too many requests to {peer} are under way; ask again in a moment"),
            Self::LeaseLost => format!("what {peer} answered was out of date before it could be passed on; ask again"),
            Self::BadAnswer(fault) => format!("the answer of {peer} cannot be used: {fault}"),
            Self::Strange(status) => format!("{peer} answered {} in a form that is not of the protocol", status.as_u16()),
            Self::Peer(error) => error.message.clone(),
        }
    }

    /// After how many seconds asking again is worth it, where this side knows.
    pub(super) fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::HeldBack(barrier) => Some(HeaderValue::from(barrier.retry_after_s())),
            _ => None,
        }
    }

    /// The failure in one line, for an operator.
    #[must_use]
    pub fn sentence(&self, peer: &str) -> String {
        match self {
            Self::Offline(error) => format!("{}: {error}", self.message(peer)),
            Self::Peer(error) => format!(
                "{peer} answered {}: {}",
                error.status.as_u16(),
                error.message
            ),
            _ => self.message(peer),
        }
    }

    /// The answer, under `request_id`; `peer` is the local name, once known; `notice` is what the session is to be
    /// told with it.
    #[must_use]
    pub fn response(
        &self,
        peer: Option<&str>,
        request_id: &str,
        notice: Option<&Notice>,
    ) -> Response {
        let mut details = match self {
            Self::Peer(error) => error.details.clone(),
            _ => Map::new(),
        };
        // Notices are this side's words alone.
        details.remove("notices");
        if let Some(notice) = notice {
            details.insert("notices".to_owned(), json!([notice]));
        }
        if let Some(reason) = self.reason() {
            details.insert("reason".to_owned(), json!(reason));
        }
        if let Some(peer) = peer {
            details.insert("peer".to_owned(), json!(peer));
        }
        let mut error = json!({
            "code": self.code(),
            "message": self.message(peer.unwrap_or("the peer")),
            "requestId": request_id,
        });
        if let (Some(members), false) = (error.as_object_mut(), details.is_empty()) {
            members.insert("details".to_owned(), Value::Object(details));
        }
        let mut response = (self.status(), json!({ "error": error }).to_string()).into_response();
        dress(response.headers_mut(), request_id);
        let challenge = match self {
            Self::NoSession => Some((header::WWW_AUTHENTICATE, "Bearer")),
            Self::NoProxySession => Some((
                header::PROXY_AUTHENTICATE,
                "Basic realm=\"mosaic-federation session\"",
            )),
            Self::Own(failure) if failure.code == DenyCode::ConnectRefused => {
                Some((header::ALLOW, "GET, POST"))
            }
            _ => None,
        };
        if let Some((name, value)) = challenge {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The headers of every answer of the door.
pub(super) fn dress(headers: &mut HeaderMap, request_id: &str) {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_envelope_passes_with_its_reason() {
        let body = br#"{"error":{"code":"forbidden","message":"over\r\n","details":{"reason":"grant_revoked"},"requestId":"x"}}"#;
        let error = PeerError::parse(StatusCode::FORBIDDEN, body).unwrap();
        assert_eq!(error.forbidden_reason(), Some("grant_revoked"));
        assert!(!error.message.chars().any(char::is_control));
    }

    #[test]
    fn what_is_no_envelope_does_not_pass() {
        for body in [
            &b"<html>"[..],
            b"{}",
            br#"{"error":"forbidden"}"#,
            br#"{"error":{"code":"made_up","message":"x"}}"#,
            br#"{"error":{"code":"forbidden","code":"not_found"}}"#,
        ] {
            assert_eq!(PeerError::parse(StatusCode::FORBIDDEN, body), None);
        }
        let good = br#"{"error":{"code":"forbidden","message":"x"}}"#;
        for status in [
            StatusCode::OK,
            StatusCode::FOUND,
            StatusCode::SWITCHING_PROTOCOLS,
        ] {
            assert_eq!(PeerError::parse(status, good), None);
        }
    }

    #[test]
    fn a_reason_counts_only_in_a_forbidden() {
        let body = br#"{"error":{"code":"unavailable","message":"x","details":{"reason":"grant_revoked"}}}"#;
        let error = PeerError::parse(StatusCode::FORBIDDEN, body).unwrap();
        assert_eq!(error.forbidden_reason(), None);
    }

    #[test]
    fn offline_says_so() {
        let failure = DoorFailure::Offline(AskError::ConnectTimeout);
        assert_eq!(failure.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(failure.message("work"), "federation offline for work");
        assert_eq!(
            DoorFailure::Offline(AskError::Unresolved).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
}
