//! Heads and bodies of HTTP/1.1 responses (RFC 9112), as far as a load generator meets them.
//!
//! Invariant: a body is whole only by its own framing: a length or a last chunk. A response that ends by
//! closing the connection is an error here, since a cut answer would look like a short one. Pure; bytes
//! come from `client.rs`.

use std::borrow::Cow;

use memchr::memmem;

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// No HTTP/1.1 status line, or a header that is none.
    #[error("the head of the response is not HTTP/1.1")]
    Head,
    /// Neither a length nor chunks.
    #[error("the response says neither its length nor that it is chunked")]
    Unframed,
    /// A chunk that does not follow the grammar.
    #[error("the response has a malformed chunk")]
    Chunk,
    /// Bytes after the end.
    #[error("the server sent more than one response")]
    Surplus,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By a length in bytes.
    Length(usize),
    /// By a last chunk.
    Chunked,
}

/// The head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its status code.
    pub status: u16,
    /// How its body ends.
    pub framing: Framing,
    /// The server closes the connection after it.
    pub closes: bool,
    /// Bytes of the head, the empty line included.
    pub length: usize,
}

/// Reads a head from the start of `input`; `None` while it is not complete.
///
/// # Errors
/// [`ResponseError`].
pub fn parse_head(input: &[u8]) -> Result<Option<Head>, ResponseError> {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = input
        .get(..end)
        .and_then(|head| std::str::from_utf8(head).ok());
    let mut lines = text.ok_or(ResponseError::Head)?.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or(ResponseError::Head)?;
    let (mut framing, mut closes) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(ResponseError::Head)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| ResponseError::Head)?;
            framing = framing.or(Some(Framing::Length(length)));
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            && value.eq_ignore_ascii_case("chunked")
        {
            framing = Some(Framing::Chunked);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(Head {
        status,
        framing: framing.ok_or(ResponseError::Unframed)?,
        closes,
        length: end + 4,
    }))
}

/// The body within `input` (all bytes after the head so far); `None` while it is not complete.
///
/// # Errors
/// [`ResponseError`].
pub fn complete_body(
    framing: Framing,
    input: &[u8],
) -> Result<Option<Cow<'_, [u8]>>, ResponseError> {
    match framing {
        Framing::Length(length) if input.len() > length => Err(ResponseError::Surplus),
        Framing::Length(length) => Ok((input.len() == length).then_some(Cow::Borrowed(input))),
        // Whole chunked bodies end in these bytes; without them there is nothing to look at yet.
        Framing::Chunked if !input.ends_with(b"0\r\n\r\n") => Ok(None),
        Framing::Chunked => decode_chunks(input).map(|body| body.map(Cow::Owned)),
    }
}

fn decode_chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ResponseError> {
    let mut body = Vec::with_capacity(rest.len());
    loop {
        let Some(end) = memmem::find(rest, b"\r\n") else {
            return Ok(None);
        };
        let (line, after) = rest.split_at(end);
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|size| usize::from_str_radix(size.trim_end(), 16).ok())
            .ok_or(ResponseError::Chunk)?;
        let after = after.get(2..).ok_or(ResponseError::Chunk)?;
        if size == 0 {
            // Trailers are not asked for, so the empty line follows at once.
            return match after {
                b"\r\n" => Ok(Some(body)),
                _ if after.starts_with(b"\r\n") => Err(ResponseError::Surplus),
                _ => Err(ResponseError::Chunk),
            };
        }
        let Some((data, after)) = after.split_at_checked(size) else {
            return Ok(None);
        };
        body.extend_from_slice(data);
        rest = match after.strip_prefix(b"\r\n") {
            Some(next) => next,
            None if after.len() < 2 => return Ok(None),
            None => return Err(ResponseError::Chunk),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_head_is_read_once_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        for cut in 0..text.len() - 5 {
            assert_eq!(parse_head(&text[..cut]), Ok(None), "{cut}");
        }
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!(head.framing, Framing::Length(5));
        assert_eq!(
            (head.status, head.closes, head.length),
            (200, true, text.len() - 5)
        );
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for (text, error) in [
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
                ResponseError::Head,
            ),
            (
                "HTTP/1.1 2x0 OK\r\nContent-Length: 1\r\n\r\n",
                ResponseError::Head,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                ResponseError::Head,
            ),
            (
                "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
                ResponseError::Unframed,
            ),
        ] {
            assert_eq!(parse_head(text.as_bytes()), Err(error), "{text}");
        }
    }

    #[test]
    fn a_body_is_whole_at_its_length() {
        assert_eq!(complete_body(Framing::Length(3), b"ab"), Ok(None));
        assert_eq!(
            complete_body(Framing::Length(3), b"abc")
                .unwrap()
                .unwrap()
                .as_ref(),
            b"abc"
        );
        assert_eq!(
            complete_body(Framing::Length(3), b"abcd"),
            Err(ResponseError::Surplus)
        );
    }

    #[test]
    fn a_chunked_body_is_whole_at_its_last_chunk_and_at_no_cut() {
        // The content ends like a last chunk does: only the sizes tell where the body ends.
        let text = b"4\r\nwiki\r\n7;x=y\r\nx0\r\n\r\nz\r\nA\r\nabcd0\r\n\r\n0\r\n0\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(
                complete_body(Framing::Chunked, &text[..cut]),
                Ok(None),
                "{cut}"
            );
        }
        let body = complete_body(Framing::Chunked, text).unwrap().unwrap();
        assert_eq!(body.as_ref(), b"wikix0\r\n\r\nzabcd0\r\n\r\n0");
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        for text in ["zz\r\nab\r\n0\r\n\r\n", "2\r\nabX\r\n0\r\n\r\n"] {
            let refused = complete_body(Framing::Chunked, text.as_bytes());
            assert_eq!(refused, Err(ResponseError::Chunk), "{text}");
        }
        let two = b"0\r\n\r\nHTTP/1.1 200 OK\r\n0\r\n\r\n";
        assert_eq!(
            complete_body(Framing::Chunked, two),
            Err(ResponseError::Surplus)
        );
    }
}
