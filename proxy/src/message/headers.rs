//! Header names of the wire protocol, and the few values of a peer that are read.
//!
//! Nothing of a peer's headers reaches the gateway; what is read here is validated and only goes
//! into our own records.

use http::HeaderMap;
use jiff::fmt::rfc2822::DateTimeParser;

use crate::telemetry::TraceParent;

/// Minted by the serving side for every exchange.
pub const REQUEST_ID: &str = "x-request-id";
/// Effective revision of the grant, on every 200.
pub const REVISION: &str = "x-mosaic-revision";
/// For how many milliseconds an answer may be served from a cache, on every 200 to a peer that keeps leases.
pub const LEASE: &str = "x-mosaic-lease";
/// `1` from a peer that keeps leases.
pub const ACCEPT_LEASE: &str = "x-mosaic-accept-lease";
/// The serving side's wall clock when it answered, milliseconds since the Unix epoch: what `Date` says in whole seconds.
pub const TIME: &str = "x-mosaic-time";
/// How far the history of the grant has got, on every 200 once it has a record.
pub const CHECKPOINT: &str = "x-mosaic-checkpoint";
/// The generation of the serving side's trust roots: on every 200 of one that has ever changed them, and, as acknowledged, on every
/// question of an asking side that has another than the first.
pub const TRUST_GENERATION: &str = "x-mosaic-trust-generation";
/// How the grant's rate stands.
pub const RATE_LIMIT: &str = "ratelimit";
/// What the grant's rate is.
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
/// The trace that a request belongs to (W3C Trace Context).
pub const TRACE_PARENT: &str = "traceparent";
/// Counts the tries of one request by the querying side.
pub const ATTEMPT: &str = "x-mosaic-attempt";

/// Longest request id of a peer that is kept, in bytes.
const PEER_REQUEST_ID: usize = 64;

/// The peer's own request id, when it is one that can be kept safely: 1 to 64 bytes of letters,
/// digits, `-`, `_`, `.`, `:`.
#[must_use]
pub fn peer_request_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(REQUEST_ID)?.as_bytes();
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    if value.is_empty() || value.len() > PEER_REQUEST_ID || !value.iter().all(safe) {
        return None;
    }
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The trace that whoever asks names in `traceparent`.
#[must_use]
pub fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(TRACE_PARENT)?.to_str().ok()?)
}

/// What a request to the gateway says of the request that it is for.
#[derive(Debug, Clone, Copy)]
pub struct RequestTag<'a> {
    /// Our id of it.
    pub id: &'a str,
    /// Its span.
    pub trace: Option<TraceParent>,
}

impl<'a> RequestTag<'a> {
    /// That of a request without a span.
    #[must_use]
    pub const fn untraced(id: &'a str) -> Self {
        Self { id, trace: None }
    }
}

/// When an answer says that it was written: milliseconds since the Unix epoch, and how coarse that is. Of
/// [`TIME`] where there is one, else of `Date`.
#[must_use]
pub fn time_of(headers: &HeaderMap) -> Option<(i64, i64)> {
    let text = |name| headers.get(name)?.to_str().ok();
    let exact = text(TIME)
        .filter(|text| text.len() <= 16)
        .and_then(|text| text.parse().ok())
        .filter(|millis| *millis >= 0);
    if let Some(millis) = exact {
        return Some((millis, 1));
    }
    let date = text(http::header::DATE.as_str())?;
    let stamp = DateTimeParser::new().parse_timestamp(date).ok()?;
    Some((stamp.as_millisecond(), 1_000))
}

/// Whether the peer says that it keeps leases.
#[must_use]
pub fn accepts_lease(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT_LEASE)
        .is_some_and(|value| value.as_bytes() == b"1")
}

/// The generation of trust roots that the other side says, when it is one.
#[must_use]
pub fn trust_generation(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(TRUST_GENERATION)?.to_str().ok()?;
    let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|c| c.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|generation| digits && *generation > 0)
}

/// The attempt number the peer gives, 1 when absent or unusable.
#[must_use]
pub fn attempt(headers: &HeaderMap) -> u8 {
    headers
        .get(ATTEMPT)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .filter(|attempt| (1..=9).contains(attempt))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn one(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn the_time_of_an_answer_is_as_exact_as_it_says() {
        let date = one("date", "Fri, 27 Nov 2026 23:22:05 GMT");
        assert_eq!(time_of(&date), Some((1_795_821_725_000, 1_000)));
        let mut both = date.clone();
        both.insert(TIME, HeaderValue::from_static("1795821725123"));
        assert_eq!(time_of(&both), Some((1_795_821_725_123, 1)));
        for odd in ["", "-1", "x", "99999999999999999999", "1e3"] {
            let mut headers = date.clone();
            headers.insert(TIME, HeaderValue::from_static(odd));
            assert_eq!(time_of(&headers), time_of(&date), "{odd}");
        }
        assert_eq!(time_of(&HeaderMap::new()), None);
        assert_eq!(time_of(&one("date", "yesterday")), None);
    }

    #[test]
    fn a_generation_of_trust_is_a_plain_number_from_one() {
        assert_eq!(trust_generation(&one(TRUST_GENERATION, "7")), Some(7));
        for odd in ["", "0", "-1", "+1", " 1", "1e3", "x", "9999999999999999999"] {
            assert_eq!(trust_generation(&one(TRUST_GENERATION, odd)), None, "{odd}");
        }
        assert_eq!(trust_generation(&HeaderMap::new()), None);
    }

    #[test]
    fn only_plain_request_ids_are_kept() {
        assert_eq!(
            peer_request_id(&one(REQUEST_ID, "a-1_b.c:d")).as_deref(),
            Some("a-1_b.c:d")
        );
        assert_eq!(peer_request_id(&one(REQUEST_ID, "a b")), None);
        assert_eq!(peer_request_id(&one(REQUEST_ID, "")), None);
    }

    #[test]
    fn a_trace_is_read_where_one_is_named() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = trace_parent(&one(TRACE_PARENT, good)).unwrap();
        assert_eq!(read.to_string(), good);
        assert!(trace_parent(&one(TRACE_PARENT, "01-zz")).is_none());
        assert!(trace_parent(&HeaderMap::new()).is_none());
    }
}
