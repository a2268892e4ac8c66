//! Writing answers and refusals onto a session.
//!
//! Invariant: every response carries the request id and `Cache-Control: no-store`; only an answer
//! carries the grant's revision and a lease, and an answer begins only through the connection's gate.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use policy::revision::EffectiveRevision;

use crate::message::failure::Failure;
use crate::message::headers;
use crate::message::rate::RateFields;
use crate::message::target::allowed_methods;

/// The connection to the peer broke while a response was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerGone;

/// Head of a response; `length` is `None` for a streamed body.
fn head(
    status: StatusCode,
    request_id: &str,
    length: Option<usize>,
    http2: bool,
) -> Result<Box<ResponseHeader>, PeerGone> {
    let mut head = ResponseHeader::build_no_case(status, Some(10)).map_err(|_| PeerGone)?;
    let id = HeaderValue::from_str(request_id).map_err(|_| PeerGone)?;
    let mut put = |name, value| head.insert_header(name, value).map_err(|_| PeerGone);
    put(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )?;
    put(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    put(header::HeaderName::from_static(headers::REQUEST_ID), id)?;
    match length {
        Some(length) => put(header::CONTENT_LENGTH, HeaderValue::from(length))?,
        None if !http2 => put(
            header::TRANSFER_ENCODING,
            HeaderValue::from_static("chunked"),
        )?,
        None => {}
    }
    Ok(Box::new(head))
}

fn tell_rate(head: &mut ResponseHeader, rate: Option<RateFields>) -> Result<(), PeerGone> {
    let Some(RateFields { policy, limit }) = rate else {
        return Ok(());
    };
    head.insert_header(headers::RATE_LIMIT_POLICY, policy)
        .map_err(|_| PeerGone)?;
    head.insert_header(headers::RATE_LIMIT, limit)
        .map_err(|_| PeerGone)
}

/// Writes the head of a 200; `lease` is `None` for a peer that keeps none, `length` for a streamed body.
///
/// # Errors
/// [`PeerGone`].
pub async fn begin_answer(
    session: &mut ServerSession,
    request_id: &str,
    revision: EffectiveRevision,
    lease: Option<HeaderValue>,
    length: Option<usize>,
    rate: Option<RateFields>,
) -> Result<(), PeerGone> {
    let mut head = head(StatusCode::OK, request_id, length, session.is_http2())?;
    tell_rate(&mut head, rate)?;
    let value = HeaderValue::from_str(&revision.to_string()).map_err(|_| PeerGone)?;
    head.insert_header(headers::REVISION, value)
        .map_err(|_| PeerGone)?;
    if let Some(lease) = lease {
        head.insert_header(headers::LEASE, lease)
            .map_err(|_| PeerGone)?;
    }
    session
        .write_response_header(head)
        .await
        .map_err(|_| PeerGone)
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

/// Writes a refusal as a whole response. Returns the bytes of its body.
///
/// # Errors
/// [`PeerGone`].
pub async fn refuse(
    session: &mut ServerSession,
    request_id: &str,
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
        Some(length),
        session.is_http2(),
    )?;
    tell_rate(&mut head, rate)?;
    if let Some(seconds) = failure.retry_after {
        head.insert_header(header::RETRY_AFTER, HeaderValue::from(seconds))
            .map_err(|_| PeerGone)?;
    }
    if failure.http_status() == StatusCode::METHOD_NOT_ALLOWED {
        // The reason is only ever given for a head that was read.
        let allowed = allowed_methods(session.req_header().uri.path());
        head.insert_header(header::ALLOW, HeaderValue::from_static(allowed))
            .map_err(|_| PeerGone)?;
    }
    session
        .write_response_header(head)
        .await
        .map_err(|_| PeerGone)?;
    write_body(session, body, true).await?;
    Ok(u64::try_from(length).unwrap_or(u64::MAX))
}
