//! The HTTP form of enrollment: one route, bounded, with the error envelope of the wire protocol.
//!
//! Invariant: what a stranger sends is bounded (32 KiB, 20 s) before it is looked at, and an act that has begun
//! runs to its end even when the caller hangs up, so that no token is left claimed with an open intent.
//!
//! The envelope is that of the specification, section 3; what the codes of the verbs mean is elsewhere.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::ENROLLMENT_PATH;
use super::caller::Caller;
use super::redeem::{RedeemError, Redeemed, Redeemer};
use super::revocation::{self, StatusRoutes};
use crate::limit::whole_seconds;
use crate::message::headers::{REQUEST_ID, TIME};
use crate::message::status::WireCode;

/// Largest request body, bytes.
const MAX_BODY: usize = 32 * 1024;
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The only body there is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RedeemBody {
    csr_pem: String,
}

/// A refused request.
struct Refusal {
    status: StatusCode,
    code: WireCode,
    message: String,
    reason: Option<&'static str>,
    retry_after: Option<u64>,
}

impl Refusal {
    fn request(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code: WireCode::InvalidRequest,
            message: message.into(),
            reason: None,
            retry_after: None,
        }
    }

    /// For an address that tried too many tokens that were no good.
    fn barred(wait: Duration) -> Self {
        Self {
            status: StatusCode::TOO_MANY_REQUESTS,
            code: WireCode::RateLimited,
            message: "too many attempts from this address failed; wait before the next".to_owned(),
            reason: Some("failed_authentications"),
            retry_after: Some(whole_seconds(wait)),
        }
    }
}

impl From<RedeemError> for Refusal {
    fn from(error: RedeemError) -> Self {
        let message = error.to_string();
        let (status, code, reason) = match error {
            RedeemError::Csr(_) => (
                StatusCode::BAD_REQUEST,
                WireCode::InvalidRequest,
                Some("csr_refused"),
            ),
            RedeemError::UnknownToken => (StatusCode::NOT_FOUND, WireCode::NotFound, None),
            RedeemError::Spent(spent) => (
                StatusCode::GONE,
                WireCode::InvalidRequest,
                Some(spent.reason()),
            ),
            RedeemError::Authority(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                WireCode::Unavailable,
                Some("not_issued"),
            ),
            RedeemError::Store(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                WireCode::Unavailable,
                Some("store_unavailable"),
            ),
        };
        Self {
            status,
            code,
            message,
            reason,
            retry_after: None,
        }
    }
}

/// The routes of the enrollment listener.
///
/// With `status` also those for revocations.
pub fn router(redeemer: Arc<Redeemer>, status: Option<StatusRoutes>) -> Router {
    let routes = Router::new()
        .route(&format!("{ENROLLMENT_PATH}{{token}}"), post(redeem))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(redeemer);
    match status {
        Some(status) => routes.merge(revocation::router(status)),
        None => routes,
    }
}

async fn unknown_route(State(redeemer): State<Arc<Redeemer>>) -> Response {
    let refusal = Refusal::request(
        StatusCode::NOT_FOUND,
        "no such route; this listener serves enrollment and revocation status only",
    );
    refused(&redeemer, refusal)
}

async fn method_not_allowed(State(redeemer): State<Arc<Redeemer>>) -> Response {
    let refusal = Refusal::request(
        StatusCode::METHOD_NOT_ALLOWED,
        "enrollment is a POST; run `mosaic-federation peer add` with this URL",
    );
    let mut response = refused(&redeemer, refusal);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

async fn redeem(
    State(redeemer): State<Arc<Redeemer>>,
    Path(token): Path<String>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let caller = caller.map(|Extension(caller)| caller);
    let (parts, body) = request.into_parts();
    let csr_pem = match csr_of(&parts.headers, body).await {
        Ok(csr_pem) => csr_pem,
        Err(refusal) => return refused(&redeemer, refusal),
    };
    // Behind the body, so that nothing of it is left on a connection that is closed.
    if let Some(wait) = caller.as_ref().and_then(Caller::barred_for) {
        return refused(&redeemer, Refusal::barred(wait));
    }
    let worker = Arc::clone(&redeemer);
    // A task of its own: the caller hanging up must not stop an act between claim and commit.
    let act = tokio::spawn(async move { worker.redeem(&token, &csr_pem).await });
    match act.await {
        Ok(Ok(redeemed)) => answered(&redeemer, &redeemed),
        Ok(Err(error)) => {
            let guess = matches!(error, RedeemError::UnknownToken | RedeemError::Spent(_));
            if let Some(caller) = caller.filter(|_| guess) {
                caller.failed();
            }
            refused(&redeemer, error.into())
        }
        Err(error) => {
            tracing::error!(%error, "an enrollment broke off");
            let refusal = Refusal {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: WireCode::Unavailable,
                message: "the enrollment broke off; ask its issuer to look at the log".to_owned(),
                reason: None,
                retry_after: None,
            };
            refused(&redeemer, refusal)
        }
    }
}

async fn csr_of(headers: &HeaderMap, body: Body) -> Result<String, Refusal> {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media.trim().eq_ignore_ascii_case("application/json") {
        return Err(Refusal::request(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body as `content-type: application/json`",
        ));
    }
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            return Err(Refusal::request(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {MAX_BODY} bytes or broke off"),
            ));
        }
        Err(_) => {
            return Err(Refusal::request(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            ));
        }
    };
    // The parser's own text can quote the body: only the place goes out.
    serde_json::from_slice::<RedeemBody>(&bytes)
        .map(|body| body.csr_pem)
        .map_err(|error| {
            Refusal::request(
                StatusCode::BAD_REQUEST,
                format!(
                    "the body must be {{\"csrPem\": \"...\"}} and nothing else: line {}, column {}",
                    error.line(),
                    error.column()
                ),
            )
        })
}

fn answered(redeemer: &Redeemer, redeemed: &Redeemed) -> Response {
    match serde_json::to_string(redeemed) {
        Ok(text) => {
            let mut response = json_response(StatusCode::OK, text, &redeemer.now_id().to_string());
            let time = HeaderValue::from(redeemer.now_millis());
            response.headers_mut().insert(TIME, time);
            response
        }
        Err(error) => {
            tracing::error!(%error, "an enrollment answer could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn refused(redeemer: &Redeemer, refusal: Refusal) -> Response {
    let request_id = redeemer.now_id().to_string();
    let mut error = json!({
        "code": refusal.code.as_str(),
        "message": refusal.message,
        "requestId": request_id,
    });
    if let (Some(reason), Some(members)) = (refusal.reason, error.as_object_mut()) {
        members.insert("details".to_owned(), json!({ "reason": reason }));
    }
    let mut response = json_response(
        refusal.status,
        json!({ "error": error }).to_string(),
        &request_id,
    );
    if let Some(seconds) = refusal.retry_after {
        let value = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    if matches!(
        refusal.status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS
    ) {
        // What follows on the connection would be the rest of that body.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn json_response(status: StatusCode, text: String, request_id: &str) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    response
}
