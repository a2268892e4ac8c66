//! A peer's reply passed on: rows retagged as they arrive, refusals in our envelope.
//!
//! Invariant: a status line leaves only when the answer is whole or longer than [`HELD`]; so short answers that
//! turn out malformed become a clean 502, and a long one is cut off, never ended as if it were whole. Of the
//! peer's headers only a valid `Retry-After` and `X-Request-Id` are passed on.

use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::answer::{AnswerFault, AnswerLimits, Retagger, Shape};
use super::breaker::Verdict;
use super::cache::MAX_ENTRY;
use super::client::{Reply, ReplyBody};
use super::exchange::Exchange;
use super::failure::{DoorFailure, PeerError, dress};
use super::fault::AskError;
use super::reach::Admission;
use super::ticket::Ticket;
use super::verdict;
use crate::audit::{AuditOutcome, AuditText};
use crate::message::headers::peer_request_id;
use crate::message::target::Route;

/// How much of an answer is held back until it is known to be whole, bytes of output.
const HELD: usize = MAX_ENTRY;
/// Largest error body of a peer, bytes.
const MAX_ERROR: usize = 64 * 1024;

/// The form of the answer to a route.
pub(super) const fn shape_of(route: &Route) -> Shape {
    match route {
        Route::List { .. } => Shape::Items,
        Route::Get { .. } => Shape::Item,
        Route::Search => Shape::Hits,
        Route::Capabilities | Route::Renew => Shape::Plain,
    }
}

/// Whether the head says uncompressed JSON.
pub(super) fn is_plain_json(headers: &HeaderMap) -> bool {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = media
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    let plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    plain && media.trim().eq_ignore_ascii_case("application/json")
}

/// Reads a reply that is no 200 to its end.
pub(super) async fn refusal(reply: Reply) -> DoorFailure {
    let status = reply.head.status;
    if !is_plain_json(&reply.head.headers) {
        return DoorFailure::Strange(status);
    }
    match reply.body.collect(MAX_ERROR).await {
        Ok(Some(body)) => {
            PeerError::parse(status, &body).map_or(DoorFailure::Strange(status), DoorFailure::Peer)
        }
        Ok(None) => DoorFailure::Strange(status),
        Err(error) => DoorFailure::Offline(error),
    }
}

/// A `Retry-After` in whole seconds, if the peer gave a sane one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::RETRY_AFTER)?.as_bytes();
    let sane = (1..=6).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    sane.then(|| HeaderValue::from_bytes(value).ok())?
}

/// Whose request id an answer carries: the peer's when it is one, else ours.
pub(super) fn answer_id(headers: &HeaderMap, own: &str) -> String {
    peer_request_id(headers).unwrap_or_else(|| own.to_owned())
}

/// The rest of a reply that has not been read yet.
struct Live {
    body: ReplyBody,
    retagger: Retagger,
}

/// A peer's 200 under the peer's local name: what of it is certain, and the rest as it comes. Its exchange ends with
/// the last of it, or as `aborted` when it is dropped before.
pub(super) struct PeerAnswer {
    /// The request's place, until the answer has been read; absent for an answer from memory.
    admission: Option<Admission>,
    request_id: String,
    exchange: Exchange,
    /// Output not yet taken.
    out: Vec<u8>,
    /// Absent once everything has been read and found sound.
    live: Option<Live>,
    rows: u64,
    sent: u64,
    /// An answer from memory, not yet taken.
    kept: Option<Bytes>,
    /// Where more may be said of each row, once everything has been read.
    marks: Vec<usize>,
    /// The right to pass it on, and when its question was sent; `None` for a peer without leases.
    under: Option<(Ticket, u64)>,
}

/// Why a 200 cannot be used, the outage this belongs to, and the exchange to finish with it.
pub(super) type Unusable = Box<(DoorFailure, Option<u64>, Exchange)>;

enum Fault {
    Answer(AnswerFault),
    Network(AskError),
}

impl PeerAnswer {
    /// Opens a 200, reading as much as is held back.
    ///
    /// # Errors
    /// [`Unusable`], when the answer is found wanting by then.
    pub(super) async fn open(
        reply: Reply,
        mut admission: Admission,
        route: &Route,
        peer: &str,
        own_id: &str,
        exchange: Exchange,
    ) -> Result<Self, Unusable> {
        if !is_plain_json(&reply.head.headers) {
            let outage = admission.settle(Verdict::Failed);
            let failure = DoorFailure::Strange(reply.head.status);
            return Err(Box::new((failure, outage, exchange)));
        }
        let mut answer = Self {
            admission: Some(admission),
            request_id: answer_id(&reply.head.headers, own_id),
            exchange,
            out: Vec::new(),
            live: Some(Live {
                body: reply.body,
                retagger: Retagger::new(shape_of(route), peer, AnswerLimits::default()),
            }),
            rows: 0,
            sent: 0,
            kept: None,
            marks: Vec::new(),
            under: None,
        };
        match answer.gather(HELD).await {
            Ok(()) => {
                answer.settle(Verdict::Answered);
                Ok(answer)
            }
            Err(fault) => {
                let outage = answer.settle(fault.verdict());
                Err(Box::new((fault.into_failure(), outage, answer.exchange)))
            }
        }
    }

    /// An answer from memory.
    pub(super) fn kept(body: Bytes, rows: u64, own_id: &str, mut exchange: Exchange) -> Self {
        // It was not sent anywhere: no attempt.
        exchange.note(|record| record.attempt = 0);
        Self {
            request_id: own_id.to_owned(),
            exchange,
            admission: None,
            out: Vec::new(),
            live: None,
            rows,
            sent: 0,
            kept: Some(body),
            marks: Vec::new(),
            under: None,
        }
    }

    /// Says how the request ended for its peer; the outage that this belongs to.
    fn settle(&mut self, verdict: Verdict) -> Option<u64> {
        self.admission.as_mut()?.settle(verdict)
    }

    /// The same under a lease; its question was sent at `sent`.
    pub(super) fn under(mut self, ticket: Option<Ticket>, sent: u64) -> Self {
        self.under = ticket.map(|ticket| (ticket, sent));
        self
    }

    /// The right to pass it on.
    pub(super) fn ticket(&self) -> Option<&Ticket> {
        self.under.as_ref().map(|(ticket, _)| ticket)
    }

    /// When its question was sent, nanoseconds since boot.
    pub(super) fn sent(&self) -> Option<u64> {
        self.under.as_ref().map(|(_, sent)| *sent)
    }

    /// The answer with `_cached` in its envelope and in each of its rows, and their number; `None` when it is not all
    /// here.
    pub(super) fn marked_as_cached(&self) -> Option<(Vec<u8>, u64)> {
        const MARK: &[u8] = b",\"_cached\":true";
        if self.live.is_some() || self.out.len() > MAX_ENTRY {
            return None;
        }
        let more = self
            .marks
            .len()
            .saturating_add(1)
            .saturating_mul(MARK.len());
        let mut marked = Vec::with_capacity(self.out.len().saturating_add(more));
        let mut from = 0;
        for mark in &self.marks {
            marked.extend_from_slice(self.out.get(from..*mark)?);
            marked.extend_from_slice(MARK);
            from = *mark;
        }
        marked.extend_from_slice(self.out.get(from..)?.strip_suffix(b"}")?);
        marked.extend_from_slice(MARK);
        marked.push(b'}');
        Some((marked, self.rows))
    }

    /// The answer as an HTTP response; what is not here yet is passed on as it arrives.
    pub(super) fn into_response(mut self) -> Response {
        let id = std::mem::take(&mut self.request_id);
        let body = if self.live.is_none() {
            Body::from(self.take())
        } else {
            Body::from_stream(stream::try_unfold(self, Self::next))
        };
        let mut response = Response::new(body);
        dress(response.headers_mut(), &id);
        response
    }

    /// The whole answer, of at most `limit` bytes; the exchange ends with it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn collect(mut self, limit: usize) -> Result<Bytes, DoorFailure> {
        let gathered = self.gather(limit).await;
        let failure = match gathered {
            Ok(()) if self.live.is_none() && self.out.len() <= limit => return Ok(self.take()),
            Ok(()) => DoorFailure::BadAnswer(AnswerFault::TooLarge),
            Err(fault) => {
                self.settle(fault.verdict());
                fault.into_failure()
            }
        };
        self.exchange.fail(&failure);
        Err(failure)
    }

    /// Reads until there is more than `enough` output or the answer has ended.
    async fn gather(&mut self, enough: usize) -> Result<(), Fault> {
        while self.out.len() <= enough {
            let Some(live) = &mut self.live else { break };
            let chunk = live.body.chunk().await.map_err(Fault::Network)?;
            let read = match &chunk {
                Some(chunk) => live.retagger.push(chunk, &mut self.out),
                None => live.retagger.finish(&mut self.out),
            };
            read.map_err(Fault::Answer)?;
            self.rows = live.retagger.rows();
            if chunk.is_none() {
                self.marks = live.retagger.marks().to_vec();
                self.live = None;
            }
        }
        Ok(())
    }

    /// Takes the output gathered so far; the exchange ends with the last of it.
    fn take(&mut self) -> Bytes {
        let bytes = match self.kept.take() {
            Some(kept) => kept,
            None => Bytes::from(std::mem::take(&mut self.out)),
        };
        self.sent = self
            .sent
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let (rows, sent) = (self.rows, self.sent);
        self.exchange.note(|record| {
            record.rows_returned = rows;
            record.bytes_out = sent;
            record.http_status = Some(StatusCode::OK.as_u16());
        });
        if self.live.is_none() {
            self.exchange.finish(AuditOutcome::Allowed, StatusCode::OK);
        }
        bytes
    }

    /// The next piece for the caller, or the fault that cuts the connection.
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.live.is_none() && self.out.is_empty() {
            return Ok(None);
        }
        match self.gather(0).await {
            Ok(()) => Ok(Some((self.take(), self))),
            Err(fault) => {
                tracing::warn!(reason = fault.reason(), "the answer of a peer was cut off");
                self.exchange.note(|record| {
                    record.deny_code = Some(AuditText::fixed(fault.reason()));
                });
                self.exchange.finish(AuditOutcome::Error, StatusCode::OK);
                self.settle(fault.verdict());
                Err(io::Error::other(fault.reason()))
            }
        }
    }
}

impl Fault {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Answer(AnswerFault::TooLarge | AnswerFault::TooManyRows) => "answer_too_large",
            Self::Answer(_) => "malformed_answer",
            Self::Network(error) => error.reason(),
        }
    }

    const fn verdict(&self) -> Verdict {
        match self {
            Self::Answer(fault) => verdict::of_fault(*fault),
            Self::Network(error) => verdict::of_silence(*error),
        }
    }

    fn into_failure(self) -> DoorFailure {
        match self {
            Self::Answer(fault) => DoorFailure::BadAnswer(fault),
            Self::Network(error) => DoorFailure::Offline(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_whole_seconds_are_passed_on() {
        assert_eq!(
            retry_after(&one(header::RETRY_AFTER, "17")),
            Some(HeaderValue::from_static("17"))
        );
        for odd in ["", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT", "1234567"] {
            assert_eq!(retry_after(&one(header::RETRY_AFTER, odd)), None, "{odd}");
        }
    }

    #[test]
    fn only_plain_json_is_read() {
        assert!(is_plain_json(&one(
            header::CONTENT_TYPE,
            "application/json; charset=utf-8"
        )));
        assert!(!is_plain_json(&one(header::CONTENT_TYPE, "text/html")));
        assert!(!is_plain_json(&HeaderMap::new()));
        let mut packed = one(header::CONTENT_TYPE, "application/json");
        packed.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(!is_plain_json(&packed));
    }
}
