//! Writing answers and refusals onto a session.
//!
//! Invariant: every response carries the request id and `Cache-Control: no-store`; only an answer
//! carries the grant's revision, a lease and how far its history has got, and an answer begins only through the connection's gate.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, response};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use policy::revision::EffectiveRevision;
use policy::time::UnixMillis;

use crate::message::failure::Failure;
use crate::message::headers;
use crate::message::rate::RateFields;
use crate::message::target::allowed_methods;

/// The connection to the peer broke while a response was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerGone;

/// Names that would be parsed anew for every response otherwise.
static REQUEST_ID: HeaderName = HeaderName::from_static(headers::REQUEST_ID);
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static(headers::RATE_LIMIT_POLICY);
static RATE_LIMIT: HeaderName = HeaderName::from_static(headers::RATE_LIMIT);
static TIME: HeaderName = HeaderName::from_static(headers::TIME);
static REVISION: HeaderName = HeaderName::from_static(headers::REVISION);
static LEASE: HeaderName = HeaderName::from_static(headers::LEASE);
static CHECKPOINT: HeaderName = HeaderName::from_static(headers::CHECKPOINT);
static TRUST_GENERATION: HeaderName = HeaderName::from_static(headers::TRUST_GENERATION);

/// Fields of one response at most, Pingora's own included.
const FIELDS: usize = 15;

/// Head of a response; `length` is `None` for a streamed body.
fn head(
    status: StatusCode,
    request_id: &str,
    at: UnixMillis,
    length: Option<usize>,
    http2: bool,
    rate: Option<RateFields>,
) -> Result<response::Parts, PeerGone> {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    let mut fields = HeaderMap::with_capacity(FIELDS);
    let json = HeaderValue::from_static("application/json");
    fields.insert(header::CONTENT_TYPE, json);
    let never = HeaderValue::from_static("no-store");
    fields.insert(header::CACHE_CONTROL, never);
    let id = HeaderValue::from_str(request_id).map_err(|_| PeerGone)?;
    fields.insert(REQUEST_ID.clone(), id);
    fields.insert(TIME.clone(), HeaderValue::from(at.0));
    match length {
        Some(length) => {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        None if !http2 => {
            let chunked = HeaderValue::from_static("chunked");
            fields.insert(header::TRANSFER_ENCODING, chunked);
        }
        None => {}
    }
    if let Some(RateFields { policy, limit }) = rate {
        fields.insert(RATE_LIMIT_POLICY.clone(), policy);
        fields.insert(RATE_LIMIT.clone(), limit);
    }
    head.headers = fields;
    Ok(head)
}

async fn write_head(session: &mut ServerSession, head: response::Parts) -> Result<(), PeerGone> {
    let head = Box::new(ResponseHeader::from(head));
    session
        .write_response_header(head)
        .await
        .map_err(|_| PeerGone)
}

/// What an answer says of its grant.
pub struct Carried {
    /// Under which effective revision it was made.
    pub revision: EffectiveRevision,
    /// For how long it may be kept; `None` for a peer that keeps none.
    pub lease: Option<HeaderValue>,
    /// How far the history of the grant has got; `None` before its first record.
    pub checkpoint: Option<HeaderValue>,
    /// The generation of our trust roots; `None` as long as it is the first.
    pub trust: Option<u64>,
    /// How its rate stands.
    pub rate: Option<RateFields>,
}

/// Writes the head of a 200 at some time; `length` is `None` for a streamed body.
///
/// # Errors
/// [`PeerGone`].
pub async fn begin_answer(
    session: &mut ServerSession,
    (request_id, at): (&str, UnixMillis),
    carried: Carried,
    length: Option<usize>,
) -> Result<(), PeerGone> {
    let Carried {
        revision,
        lease,
        checkpoint,
        trust,
        rate,
    } = carried;
    let mut head = head(
        StatusCode::OK,
        request_id,
        at,
        length,
        session.is_http2(),
        rate,
    )?;
    if let Some(checkpoint) = checkpoint {
        head.headers.insert(CHECKPOINT.clone(), checkpoint);
    }
    if let Some(generation) = trust {
        let value = HeaderValue::from(generation);
        head.headers.insert(TRUST_GENERATION.clone(), value);
    }
    let value = HeaderValue::try_from(revision.to_string()).map_err(|_| PeerGone)?;
    head.headers.insert(REVISION.clone(), value);
    if let Some(lease) = lease {
        head.headers.insert(LEASE.clone(), lease);
    }
    write_head(session, head).await
}

/// Writes a part of a body.
///
/// # Errors
/// [`PeerGone`].
pub async fn write_body(
    session: &mut ServerSession,
    part: Bytes,
    end: bool,
) -> Result<(), PeerGone> {
    session
        .write_response_body(part, end)
        .await
        .map_err(|_| PeerGone)
}

/// Writes a refusal at `at` as a whole response. Returns the bytes of its body.
///
/// # Errors
/// [`PeerGone`].
pub async fn refuse(
    session: &mut ServerSession,
    (request_id, at): (&str, UnixMillis),
    failure: &Failure,
    rate: Option<RateFields>,
) -> Result<u64, PeerGone> {
    if failure.close {
        session.set_keepalive(None);
    }
    let body = failure.envelope(request_id);
    let length = body.len();
    let mut head = head(
        failure.http_status(),
        request_id,
        at,
        Some(length),
        session.is_http2(),
        rate,
    )?;
    if let Some(seconds) = failure.retry_after {
        head.headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if failure.http_status() == StatusCode::METHOD_NOT_ALLOWED {
        // The reason is only ever given for a head that was read.
        let allowed = allowed_methods(session.req_header().uri.path());
        head.headers
            .insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    write_head(session, head).await?;
    write_body(session, body, true).await?;
    Ok(u64::try_from(length).unwrap_or(u64::MAX))
}
