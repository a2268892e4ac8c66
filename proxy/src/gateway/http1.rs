//! HTTP/1.1 as the gateway's client speaks it: the head of one GET, the head of its response, and where the body ends.
//!
//! Invariant: a body ends where its framing says or not at all. A response whose end could be told in two ways (two
//! lengths, a length beside an encoding, another encoding than chunked) is refused, and nothing that follows a body is
//! ever read as something (RFC 9112, section 6.3). Pure: reading and writing are in `client.rs`.

use std::mem::MaybeUninit;

use http::{HeaderValue, Method};

/// Most fields in the head of a response.
const MAX_FIELDS: usize = 100;
/// Longest line of chunked framing, and all trailers together, in bytes.
const MAX_FRAMING: usize = 16 * 1024;

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// Begins the head of a GET for `target` (path and query, already encoded); `None` when it cannot stand in one.
pub(super) fn request_line(target: &str) -> Option<Vec<u8>> {
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut head = Vec::with_capacity(target.len().saturating_add(512));
    head.extend_from_slice(Method::GET.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    Some(head)
}

/// Adds a field. A [`HeaderValue`] holds no line ends.
pub(super) fn field(head: &mut Vec<u8>, name: &'static str, value: &HeaderValue) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// The head of a response, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// Whether the body is `application/json`.
    pub(super) json: bool,
    /// Whether the body is compressed or encoded otherwise.
    pub(super) encoded: bool,
    /// Whether the connection may be used again after the body.
    pub(super) keep_alive: bool,
    pub(super) body: BodyEnd,
    /// Bytes of the head.
    pub(super) length: usize,
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    json: Option<bool>,
    encoded: bool,
}

impl ResponseHead {
    /// Reads a head from the start of `input`; `None` when it is not complete yet.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, Unreadable> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let length = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            input,
            &mut lines,
        ) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Unreadable("its head is not HTTP/1.1")),
        };
        let mut fields = Fields::default();
        for line in response.headers.iter() {
            fields.read(line.name, line.value)?;
        }
        if fields.chunked && fields.length.is_some() {
            return Err(Unreadable(
                "it has both a length and a transfer encoding: where it ends cannot be told",
            ));
        }
        let is_1_1 = response.version == Some(1);
        if fields.chunked && !is_1_1 {
            return Err(Unreadable("it is chunked, which HTTP/1.0 does not know"));
        }
        let body = match fields.length {
            _ if fields.chunked => BodyEnd::Chunked(Chunk::Size, 0),
            Some(length) => BodyEnd::Length(length),
            None => BodyEnd::Close,
        };
        Ok(Some(Self {
            status: response.code.unwrap_or_default(),
            json: fields.json.unwrap_or_default(),
            encoded: fields.encoded,
            keep_alive: is_1_1 && !fields.close && body != BodyEnd::Close,
            body,
            length,
        }))
    }

    /// Whether another head follows this one. Switching protocols is none of these: it was not asked for.
    pub(super) const fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }
}

impl Fields {
    fn read(&mut self, name: &str, value: &[u8]) -> Result<(), Unreadable> {
        let value = value.trim_ascii();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            10 if is("connection") => {
                let mut tokens = value.split(|byte| *byte == b',');
                self.close |= tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
            12 if is("content-type") => {
                let media = value.split(|byte| *byte == b';').next().unwrap_or_default();
                let json = media.trim_ascii().eq_ignore_ascii_case(b"application/json");
                // Of several types each must be this one.
                self.json = Some(json && self.json != Some(false));
            }
            14 if is("content-length") => {
                if self.length.is_some() {
                    return Err(Unreadable("it has two lengths"));
                }
                self.length = Some(decimal(value).ok_or(Unreadable("its length is no number"))?);
            }
            16 if is("content-encoding") => {
                self.encoded |= !value.is_empty() && !value.eq_ignore_ascii_case(b"identity");
            }
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Unreadable("its transfer encoding is not chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Where a body ends, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// After so many bytes more.
    Length(u64),
    /// With the last chunk and its trailers, of which so many bytes were read.
    Chunked(Chunk, usize),
    /// With the connection.
    Close,
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
    End,
}

/// What the next bytes of a body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The input from the first position to the second is data; all before the second is done with.
    Data(usize, usize),
    /// So many bytes are done with, and more are needed.
    More(usize),
    /// The body is over after so many bytes.
    End(usize),
}

impl BodyEnd {
    /// Reads on in `input`, which follows what was done with before.
    pub(super) fn next(&mut self, input: &[u8]) -> Result<Part, Unreadable> {
        match self {
            Self::Length(0) => Ok(Part::End(0)),
            Self::Close | Self::Length(_) if input.is_empty() => Ok(Part::More(0)),
            Self::Length(left) => Ok(Part::Data(0, take(left, input))),
            Self::Close => Ok(Part::Data(0, input.len())),
            Self::Chunked(chunk, trailers) => chunk.next(trailers, input),
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) const fn is_close(&self) -> bool {
        matches!(self, Self::Close)
    }
}

/// Takes what `input` has of the `left` bytes.
fn take(left: &mut u64, input: &[u8]) -> usize {
    let taken = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
    taken
}

impl Chunk {
    fn next(&mut self, trailers: &mut usize, input: &[u8]) -> Result<Part, Unreadable> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self {
                Self::Size => match chunk_size(rest)? {
                    None => return Ok(Part::More(at)),
                    Some((line, size)) => {
                        at = at.saturating_add(line);
                        *self = if size == 0 {
                            Self::Trailer
                        } else {
                            Self::Data(size)
                        };
                    }
                },
                Self::Data(_) if rest.is_empty() => return Ok(Part::More(at)),
                Self::Data(left) => {
                    let taken = take(left, rest);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Part::Data(at, at.saturating_add(taken)));
                }
                Self::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at = at.saturating_add(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Part::More(at)),
                    _ => return Err(Unreadable("a chunk of it is longer than it says")),
                },
                Self::Trailer => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    let line = end.map_or(rest.len(), |end| end.saturating_add(1));
                    if trailers.saturating_add(line) > MAX_FRAMING {
                        return Err(Unreadable("its trailers are too long"));
                    }
                    match rest.get(..line) {
                        _ if end.is_none() => return Ok(Part::More(at)),
                        Some(b"\r\n") => *self = Self::End,
                        Some([.., b'\r', b'\n']) => {}
                        _ => return Err(Unreadable("its trailers are not HTTP/1.1")),
                    }
                    at = at.saturating_add(line);
                    *trailers = trailers.saturating_add(line);
                }
                Self::End => return Ok(Part::End(at)),
            }
        }
    }
}

/// The size of a chunk and the bytes of its line; `None` when the line is not complete yet.
fn chunk_size(input: &[u8]) -> Result<Option<(usize, u64)>, Unreadable> {
    let fault = Unreadable("its chunks are not HTTP/1.1");
    // The parser would take a line without a digit for a size of zero, which ends the body.
    if input.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(fault);
    }
    match httparse::parse_chunk_size(input) {
        Ok(httparse::Status::Complete((line, _))) if line > MAX_FRAMING => Err(fault),
        Ok(httparse::Status::Complete(found)) => Ok(Some(found)),
        Ok(httparse::Status::Partial) if input.len() > MAX_FRAMING => Err(fault),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(fault),
    }
}

#[cfg(test)]
mod tests;
