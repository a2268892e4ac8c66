//! From records to a response body, with whatever the modes in force do to it.
//!
//! Invariant: without a mode the body is well-formed, complete and has a length. Which records
//! there are was decided before (`visibility.rs`); endless lists are in `big.rs`.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;

use crate::failure::Failure;
use crate::modes::{Behaviour, Mode};
use crate::record::Record;
use crate::render::{Leak, Shape, write_row};

/// Length of the text that mode `oversize` gives a row: 2 MiB.
const OVERSIZE: usize = 2 * 1024 * 1024;

/// What surrounds the rows of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `{"rows":[...]}`
    Rows,
    /// `[...]`
    Array,
    /// The row itself.
    Item,
}

impl Frame {
    const fn open(self) -> &'static [u8] {
        match self {
            Self::Rows => b"{\"rows\":[",
            Self::Array => b"[",
            Self::Item => b"",
        }
    }

    const fn close(self) -> &'static [u8] {
        match self {
            Self::Rows => b"]}",
            Self::Array => b"]",
            Self::Item => b"",
        }
    }

    /// The frame of a list in an API shape.
    #[must_use]
    pub const fn list(shape: Shape) -> Self {
        match shape {
            Shape::InternalV1 => Self::Rows,
            Shape::Mosaic => Self::Array,
        }
    }

    /// Opening and closing text, for bodies that are written elsewhere.
    #[must_use]
    pub const fn edges(self) -> (&'static [u8], &'static [u8]) {
        (self.open(), self.close())
    }
}

/// Mix credential rows into an answer: after every third row, with that row's time, so that the
/// order by time still holds.
pub fn mix_in(rows: &mut Vec<Record>, credentials: Vec<Record>) {
    let mut at = 1;
    for mut credential in credentials {
        match rows.get(at - 1) {
            Some(neighbour) => {
                credential.created_at.clone_from(&neighbour.created_at);
                rows.insert(at, credential);
                at += 4;
            }
            None if rows.is_empty() => rows.push(credential),
            None => break,
        }
    }
}

/// Put mixed-in rows where the keyset has them, and leave out those that do not come after
/// `before`: whatever else such a gateway does, its pages stay in order.
pub fn keep_keyset(rows: &mut Vec<Record>, before: Option<&(String, String)>) {
    rows.retain(|row| {
        before.is_none_or(|(created_at, id)| (&row.created_at, &row.id) < (created_at, id))
    });
    rows.sort_by(|left, right| (&right.created_at, &right.id).cmp(&(&left.created_at, &left.id)));
}

/// The response that holds these rows.
///
/// # Errors
/// [`Failure`] 500 when a row cannot be written.
pub fn deliver(
    frame: Frame,
    shape: Shape,
    mut rows: Vec<Record>,
    behaviour: &Behaviour,
) -> Result<Response, Failure> {
    if let Some(first) = rows.first_mut().filter(|_| behaviour.is(Mode::Oversize)) {
        first.text = Some("x".repeat(OVERSIZE));
    }
    if !behaviour.hidden.is_empty() {
        let hidden = serde_json::to_string(&behaviour.hidden)?;
        for row in &mut rows {
            let extra = row.extra.take().map(|extra| extra + ",");
            row.extra = Some(format!("{}\"apiKey\":{hidden}", extra.unwrap_or_default()));
        }
    }
    let leak = if behaviour.is(Mode::Secrets) {
        Leak::Secrets
    } else {
        Leak::Nothing
    };
    let broken = behaviour.is(Mode::Garbage).then_some(rows.len() / 2);
    let mut body = Vec::with_capacity(64 + rows.len() * 420);
    body.extend_from_slice(frame.open());
    let mut last = body.len();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        last = body.len();
        write_row(&mut body, shape, row, leak)?;
        if broken == Some(index) {
            body.truncate(body.len() - 1);
            body.extend_from_slice(b",\"broken\":tru ,\"x\" \"y\"}");
        }
    }
    if broken.is_some() && rows.is_empty() {
        body.extend_from_slice(b"{\"id\":,}");
    }
    let middle = usize::midpoint(last, body.len());
    body.extend_from_slice(frame.close());
    if behaviour.is(Mode::Truncate) {
        body.truncate(middle);
        // Sent in pieces of unknown number: the message ends cleanly although the JSON does not.
        return Ok(pieces(body, 4_096, Duration::ZERO));
    }
    if behaviour.is(Mode::Slow) {
        let bytes = usize::try_from(behaviour.slow_bytes).unwrap_or(1);
        let pause = Duration::from_millis(behaviour.slow_pause_ms.into());
        return Ok(pieces(body, bytes, pause));
    }
    Ok(json(Body::from(body)))
}

/// A chunked response of pieces with a pause before each.
fn pieces(body: Vec<u8>, bytes: usize, pause: Duration) -> Response {
    let rest = Bytes::from(body);
    let stream = stream::unfold(rest, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let piece = rest.split_to(bytes.min(rest.len()));
        Some((Ok::<_, Infallible>(piece), rest))
    });
    json(Body::from_stream(stream))
}

/// A JSON response that must not be stored.
#[must_use]
pub fn json(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, text);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
