//! Why an operation was not done, and the envelope that says so.
//!
//! Invariant: every failure says what failed and why in one sentence and, where there is something to do, what
//! (`details.hint`). The envelope is that of the federation API (the specification, section 3) with three codes
//! more; the status follows from the code by one exhaustive match.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::directory::{ApplyError, Unsettled};
use crate::store::StoreError;

/// The closed set of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminCode {
    /// The request is wrong; asking again will not help.
    InvalidRequest,
    /// There is no such object.
    NotFound,
    /// The present state does not allow it.
    Conflict,
    /// The other side refuses.
    Forbidden,
    /// Something needed does not answer.
    Unavailable,
    /// The change is committed, but this process could not apply it.
    NotYetEffective,
}

impl AdminCode {
    /// The code in the envelope.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::NotYetEffective => "not_yet_effective",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotYetEffective => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// An operation that was not done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct AdminFailure {
    /// Why, for programs.
    pub code: AdminCode,
    /// What failed and why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// More for programs: lists of problems, state of a commit.
    pub details: Map<String, Value>,
}

impl AdminFailure {
    /// A failure with nothing to add.
    #[must_use]
    pub fn new(code: AdminCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            details: Map::new(),
        }
    }

    /// A wrong request.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(AdminCode::InvalidRequest, message)
    }

    /// With what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With something more for programs.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// The failure to apply what is committed: the change stands, and this process answers nothing meanwhile.
    #[must_use]
    pub fn committed(revision: u64, error: &ApplyError) -> Self {
        Self::new(
            AdminCode::NotYetEffective,
            format!(
                "the change is committed as revision {revision}, but could not be applied: {error}"
            ),
        )
        .hint("nothing is served until it is; see the log, repair the cause and repeat the command")
        .detail("committed", true)
        .detail("revision", revision)
        .detail("waiting_for", json!(["this process"]))
    }

    /// Leases that have not ended yet: nothing is answered under the old state, but caches may still hold it.
    #[must_use]
    pub fn unsettled(revision: u64, unsettled: Unsettled) -> Self {
        Self::new(
            AdminCode::NotYetEffective,
            format!(
                "the change is committed as revision {revision} and this process answers nothing under the old state, \
                 but another replica or the cache of a peer may: waiting for {}",
                unsettled.waiting_for.join(", ")
            ),
        )
        .hint("repeat the command: it changes nothing more and returns when it holds everywhere")
        .detail("committed", true)
        .detail("revision", revision)
        .detail("waiting_for", unsettled.waiting_for)
    }

    /// The envelope.
    #[must_use]
    pub fn envelope(&self) -> Value {
        let mut error = json!({"code": self.code.as_str(), "message": self.message});
        let mut details = self.details.clone();
        if let Some(hint) = &self.hint {
            details.insert("hint".to_owned(), hint.as_str().into());
        }
        if let (Some(object), false) = (error.as_object_mut(), details.is_empty()) {
            object.insert("details".to_owned(), Value::Object(details));
        }
        json!({ "error": error })
    }
}

impl From<StoreError> for AdminFailure {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound { .. } => AdminCode::NotFound,
            StoreError::Conflict { .. } => AdminCode::Conflict,
            StoreError::Invalid { .. } => AdminCode::InvalidRequest,
            StoreError::Busy | StoreError::Unavailable { .. } | StoreError::Corrupt { .. } => {
                AdminCode::Unavailable
            }
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for AdminFailure {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self.envelope())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_carries_hint_and_details() {
        let failure = AdminFailure::invalid("no")
            .hint("do")
            .detail("problems", json!(["a"]));
        assert_eq!(
            failure.envelope(),
            json!({"error": {"code": "invalid_request", "message": "no",
                "details": {"problems": ["a"], "hint": "do"}}})
        );
        assert_eq!(
            AdminFailure::invalid("no").envelope(),
            json!({"error": {"code": "invalid_request", "message": "no"}})
        );
    }
}
