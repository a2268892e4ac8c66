//! JSON strings below the level of rows: one escape sequence checked, a whole string decoded.
//!
//! Invariant: a lone surrogate is never accepted, so every string that passes has exactly one reading.
//! Elsewhere on purpose: finding where a string ends (`scan.rs`, `walk.rs`).

use std::borrow::Cow;

/// Checks the escape sequence whose backslash is at `at` (a surrogate pair counts as one).
///
/// Returns the position after it; `None` when it is malformed or cut short by the end of `input`.
pub(super) fn escape(input: &[u8], at: usize) -> Option<usize> {
    match input.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => match code_unit(input, at + 2)? {
            0xd800..=0xdbff => {
                let pair = input.get(at + 6..at + 8) == Some(b"\\u")
                    && matches!(code_unit(input, at + 8)?, 0xdc00..=0xdfff);
                pair.then_some(at + 12)
            }
            0xdc00..=0xdfff => None,
            _ => Some(at + 6),
        },
        _ => None,
    }
}

fn code_unit(input: &[u8], at: usize) -> Option<u16> {
    let digits = input.get(at..at + 4)?;
    digits
        .iter()
        .try_fold(0, |unit, digit| Some(unit << 4 | hex_digit(*digit)?))
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(byte: u8) -> Option<u16> {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => return None,
    };
    Some(u16::from(value))
}

/// The text of a string from the bytes between its quotes; `None` when they are not UTF-8 or not well formed.
pub(super) fn decode(raw: &[u8], escaped: bool) -> Option<Cow<'_, str>> {
    if !escaped {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    let mut quoted = Vec::with_capacity(raw.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(raw);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted)
        .ok()
        .map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (text, end) in [
            ("\\n", Some(2)),
            ("\\u0041", Some(6)),
            ("\\ud83d\\ude00", Some(12)),
            ("\\uD83D\\uDE00x", Some(12)),
            ("\\ud83d", None),
            ("\\ud83dabcdef", None),
            ("\\ud83d\\u0041", None),
            ("\\ude00", None),
            ("\\u00g1", None),
            ("\\u+041", None),
            ("\\u004", None),
            ("\\x41", None),
            ("\\", None),
        ] {
            assert_eq!(escape(text.as_bytes(), 0), end, "{text}");
        }
    }

    #[test]
    fn decoding() {
        assert_eq!(decode(b"plain", false).as_deref(), Some("plain"));
        assert_eq!(decode(br"\u006fwnerId", true).as_deref(), Some("ownerId"));
        assert_eq!(decode(b"\xff", false), None);
        assert_eq!(decode(b"\\n\xff", true), None);
    }
}
