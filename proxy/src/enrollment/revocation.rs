//! The routes for those who ask about revocations: our list, and OCSP (the specification, section 4.5; RFC 5280, RFC 6960).
//!
//! Invariant: both are for anybody, answer from memory or with a bounded amount of work, and say how long they may be kept.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use certs::Clock;
use certs::ocsp::OcspRefusal;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

use crate::revocation::{OcspAnswer, PublishedCrl, Responder};

/// Where the list is.
pub const CRL_PATH: &str = "/api/federation/crl";
/// Where the responder is.
pub const OCSP_PATH: &str = "/api/federation/ocsp";
/// Bytes of a body that are read, so that a request that is too long is still answered on its connection.
const MAX_READ: usize = 64 * 1024;
/// For how long others may serve our list without asking again, seconds: it changes with each revocation.
const CRL_KEPT: i64 = 60;
/// The same for an answer of the responder, at most.
const OCSP_KEPT: i64 = 300;

/// What the routes answer from.
pub struct StatusRoutes {
    /// The list.
    pub list: Arc<PublishedCrl>,
    /// The responder.
    pub responder: Arc<Responder>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The routes.
pub fn router(parts: StatusRoutes) -> Router {
    Router::new()
        .route(CRL_PATH, get(crl).fallback(not_allowed_on_crl))
        .route(OCSP_PATH, post(ocsp_post).fallback(not_allowed_on_ocsp))
        .route(
            &format!("{OCSP_PATH}/{{*request}}"),
            get(ocsp_get).fallback(not_allowed_on_crl),
        )
        .with_state(Arc::new(parts))
}

async fn crl(State(parts): State<Arc<StatusRoutes>>, headers: HeaderMap) -> Response {
    let Some(list) = parts.list.current().await else {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "there is no revocation list yet",
        );
    };
    let tag = format!("\"{}\"", list.hash);
    let left = list.next_update.saturating_sub(parts.clock.unix_seconds());
    let (is_known, kept) = (
        is_known(&headers, &tag, list.this_update),
        left.clamp(0, CRL_KEPT),
    );
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (StatusCode::OK, list.der.clone()).into_response()
    };
    let out = response.headers_mut();
    set(out, header::CONTENT_TYPE, "application/pkix-crl");
    describe(out, &tag, list.this_update, list.next_update, kept);
    response
}

/// Whether the caller has what would be answered (RFC 9110, section 13.2.2).
fn is_known(headers: &HeaderMap, tag: &str, changed: i64) -> bool {
    let read = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = read(header::IF_NONE_MATCH) {
        return known
            .split(',')
            .map(|one| one.trim().trim_start_matches("W/"))
            .any(|one| one == tag || one == "*");
    }
    // Two lists may be made within a second, so the same second says nothing.
    read(header::IF_MODIFIED_SINCE)
        .and_then(|since| DateTimeParser::new().parse_timestamp(since).ok())
        .is_some_and(|since| since.as_second() > changed)
}

async fn ocsp_post(State(parts): State<Arc<StatusRoutes>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Also of a request that is refused: in HTTP/2 an answer before the end of the body resets the stream, and some clients take that for
    // a failure.
    let body = to_bytes(body, MAX_READ).await;
    let media = head.headers.get(header::CONTENT_TYPE);
    let media = media
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/ocsp-request") {
        let what = "send the request as `content-type: application/ocsp-request`";
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    }
    let Ok(body) = body else {
        return malformed();
    };
    let answer = parts.responder.answer(&body).await;
    answered(&parts, answer, false)
}

async fn ocsp_get(
    State(parts): State<Arc<StatusRoutes>>,
    Path(request): Path<String>,
    headers: HeaderMap,
) -> Response {
    // RFC 6960, appendix A.1: base64, its `/` and `+` escaped or not.
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(request.as_bytes())
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(request.as_bytes()));
    let Ok(decoded) = decoded else {
        return malformed();
    };
    let answer = parts.responder.answer(&decoded).await;
    let tag = tag_of(&answer);
    if let Some(times) = answer
        .times
        .filter(|times| is_known(&headers, &tag, times.this_update))
    {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        let left = times.next_update.saturating_sub(parts.clock.unix_seconds());
        let kept = left.clamp(0, OCSP_KEPT);
        describe(
            response.headers_mut(),
            &tag,
            times.this_update,
            times.next_update,
            kept,
        );
        return response;
    }
    answered(&parts, answer, true)
}

fn malformed() -> Response {
    let refused = (StatusCode::OK, OcspRefusal::Malformed.to_der());
    let mut response = refused.into_response();
    let out = response.headers_mut();
    set(out, header::CONTENT_TYPE, "application/ocsp-response");
    set(out, header::CACHE_CONTROL, "no-store");
    response
}

/// An answer over HTTP; what was asked by GET may be kept (RFC 5019, section 6).
fn answered(parts: &StatusRoutes, answer: OcspAnswer, may_keep: bool) -> Response {
    let tag = tag_of(&answer);
    let mut response = (StatusCode::OK, answer.der).into_response();
    let out = response.headers_mut();
    set(out, header::CONTENT_TYPE, "application/ocsp-response");
    match answer.times.filter(|_| may_keep) {
        Some(times) => {
            let left = times.next_update.saturating_sub(parts.clock.unix_seconds());
            let kept = left.clamp(0, OCSP_KEPT);
            describe(out, &tag, times.this_update, times.next_update, kept);
        }
        None => set(out, header::CACHE_CONTROL, "no-store"),
    }
    response
}

fn tag_of(answer: &OcspAnswer) -> String {
    format!(
        "\"{}\"",
        hex::encode(certs::identity::fingerprint(&answer.der))
    )
}

/// Which it is, since when, until when, and for how long it may be kept without asking.
fn describe(out: &mut HeaderMap, tag: &str, since: i64, until: i64, kept: i64) {
    set(out, header::ETAG, tag);
    set(out, header::LAST_MODIFIED, &date(since));
    set(out, header::EXPIRES, &date(until));
    let control = format!("public, no-transform, must-revalidate, max-age={kept}");
    set(out, header::CACHE_CONTROL, &control);
}

/// An HTTP date (RFC 9110, section 5.6.7).
fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .ok()
        .and_then(|at| DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok())
        .unwrap_or_default()
}

fn set(out: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        out.insert(name, value);
    }
}

async fn not_allowed_on_crl() -> Response {
    not_allowed("GET, HEAD")
}

async fn not_allowed_on_ocsp() -> Response {
    not_allowed("POST")
}

fn not_allowed(allowed: &'static str) -> Response {
    let mut response = text(
        StatusCode::METHOD_NOT_ALLOWED,
        "another method is needed here",
    );
    set(response.headers_mut(), header::ALLOW, allowed);
    response
}

fn text(status: StatusCode, what: &'static str) -> Response {
    let mut response = (status, Body::from(format!("{what}\n"))).into_response();
    let out = response.headers_mut();
    set(out, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(out, header::CACHE_CONTROL, "no-store");
    response
}
