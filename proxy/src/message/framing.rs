//! Refusal of ambiguous HTTP/1 framing, from the head as it was received.
//!
//! Pingora normalises some of this before any code of ours runs (it drops `Content-Length` beside
//! `Transfer-Encoding`, merges equal lengths, accepts bare line feeds), so the raw bytes are looked
//! at again (RFC 9112, sections 2.2, 5.2, 6.1, 6.3). HTTP/2 has none of these; there only the
//! connection-specific fields are refused (RFC 9113, section 8.2.2).

use policy::deny::DenyCode;

/// Looks at the raw head of an HTTP/1 request, request line to blank line.
///
/// # Errors
/// [`DenyCode::AmbiguousFraming`], [`DenyCode::UpgradeRefused`] or [`DenyCode::ConnectRefused`];
/// the connection must be closed after any of them.
pub fn inspect_raw_head(head: &[u8]) -> Result<(), DenyCode> {
    let mut lines = head.split(|byte| *byte == b'\n');
    let request_line = lines.next().unwrap_or_default();
    if request_line.starts_with(b"CONNECT ") {
        return Err(DenyCode::ConnectRefused);
    }
    let mut lengths = 0_u32;
    let mut encodings = 0_u32;
    for (line, last) in with_last(std::iter::once(request_line).chain(lines)) {
        if last {
            // What follows the final line feed: nothing, in a complete head.
            if line.is_empty() {
                break;
            } else {
                return Err(DenyCode::AmbiguousFraming);
            }
        }
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(DenyCode::AmbiguousFraming);
        };
        if line.contains(&b'\r')
            || line.contains(&0)
            || line.starts_with(b" ")
            || line.starts_with(b"\t")
        {
            return Err(DenyCode::AmbiguousFraming);
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, rest) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths = lengths.saturating_add(1);
            let value = rest.get(1..).unwrap_or_default().trim_ascii();
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(DenyCode::AmbiguousFraming);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            encodings = encodings.saturating_add(1);
            if !rest
                .get(1..)
                .unwrap_or_default()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked")
            {
                return Err(DenyCode::AmbiguousFraming);
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            return Err(DenyCode::UpgradeRefused);
        }
    }
    if lengths > 1 || encodings > 1 || (lengths > 0 && encodings > 0) {
        return Err(DenyCode::AmbiguousFraming);
    }
    Ok(())
}

fn with_last<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a [u8], bool)> {
    let mut lines = lines.peekable();
    std::iter::from_fn(move || {
        let line = lines.next()?;
        Some((line, lines.peek().is_none()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &str) -> Vec<u8> {
        format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    }

    #[test]
    fn an_ordinary_head_passes() {
        assert_eq!(inspect_raw_head(&head("Content-Length: 12\r\n")), Ok(()));
        assert_eq!(
            inspect_raw_head(&head("Transfer-Encoding: chunked\r\n")),
            Ok(())
        );
    }

    #[test]
    fn length_and_encoding_together_are_ambiguous() {
        let both = head("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n");
        assert_eq!(inspect_raw_head(&both), Err(DenyCode::AmbiguousFraming));
    }

    #[test]
    fn several_lengths_are_ambiguous_even_when_equal() {
        let twice = head("Content-Length: 3\r\ncontent-length: 3\r\n");
        assert_eq!(inspect_raw_head(&twice), Err(DenyCode::AmbiguousFraming));
        assert_eq!(
            inspect_raw_head(&head("Content-Length: 3, 3\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
        assert_eq!(
            inspect_raw_head(&head("Content-Length: +3\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
    }

    #[test]
    fn folded_lines_and_bare_line_feeds_are_ambiguous() {
        assert_eq!(
            inspect_raw_head(&head("X-A: 1\r\n folded\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
        assert_eq!(
            inspect_raw_head(&head("X-A: 1\nX-B: 2\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
        assert_eq!(
            inspect_raw_head(b"POST /x HTTP/1.1\nHost: a\n\n"),
            Err(DenyCode::AmbiguousFraming)
        );
    }

    #[test]
    fn upgrade_and_connect_are_refused() {
        assert_eq!(
            inspect_raw_head(&head("Upgrade: websocket\r\n")),
            Err(DenyCode::UpgradeRefused)
        );
        assert_eq!(
            inspect_raw_head(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Err(DenyCode::ConnectRefused)
        );
    }

    #[test]
    fn other_transfer_encodings_are_ambiguous() {
        assert_eq!(
            inspect_raw_head(&head("Transfer-Encoding: gzip, chunked\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
        assert_eq!(
            inspect_raw_head(&head("Transfer-Encoding: xchunked\r\n")),
            Err(DenyCode::AmbiguousFraming)
        );
    }
}
