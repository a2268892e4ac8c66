//! Texts of an audit record: bounded and safe to show, whoever wrote them.
//!
//! Invariant: an [`AuditText`] holds no control or invisible formatting character; the escaping is
//! done once, when it is made. What a record consists of is in `record.rs`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Bound of identifiers in a record, bytes.
pub const SHORT_TEXT: usize = 64;
/// Bound of the other texts in a record, bytes.
pub const LONG_TEXT: usize = 1024;

/// A text as it may stand in a log line, a terminal or a table: bounded, no control or invisible formatting
/// characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AuditText(Cow<'static, str>);

impl AuditText {
    /// A text of the program itself: taken as it is, without a copy.
    #[must_use]
    pub const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// An identifier from outside: escaped, at most [`SHORT_TEXT`] bytes.
    #[must_use]
    pub fn short(text: &str) -> Self {
        Self::bounded(text, SHORT_TEXT)
    }

    /// Any other text from outside: escaped, at most [`LONG_TEXT`] bytes.
    #[must_use]
    pub fn long(text: &str) -> Self {
        Self::bounded(text, LONG_TEXT)
    }

    /// Escapes backslash and every control, bidirectional and zero-width character as `\u{..}`, and cuts
    /// between characters so that the result, with `...` where something was cut, has at most `bound` bytes.
    fn bounded(text: &str, bound: usize) -> Self {
        const CUT: &str = "...";
        // Nearly all are short and plain: nothing to escape, nothing to cut.
        let is_plain = |byte| matches!(byte, b' '..=b'~') && byte != b'\\';
        if text.len() <= bound && text.bytes().all(is_plain) {
            return Self(Cow::Owned(text.to_owned()));
        }
        let mut safe = String::with_capacity(text.len().min(bound));
        let mut piece = String::new();
        // The longest prefix that still leaves room for the mark of a cut.
        let mut room_for_cut = 0;
        for c in text.chars() {
            piece.clear();
            if c == '\\' {
                piece.push_str("\\\\");
            } else if is_unsafe(c) {
                // Writing to a String cannot fail.
                let _ = write!(piece, "\\u{{{:x}}}", u32::from(c));
            } else {
                piece.push(c);
            }
            if safe.len() + piece.len() > bound {
                safe.truncate(room_for_cut);
                safe.push_str(CUT);
                break;
            }
            safe.push_str(&piece);
            if safe.len() + CUT.len() <= bound {
                room_for_cut = safe.len();
            }
        }
        Self(Cow::Owned(safe))
    }

    /// A text read back from the log, which was escaped when it was written.
    pub(crate) fn stored(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Characters that could forge a log line, reorder a terminal line or hide.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

impl fmt::Display for AuditText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AuditText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_forge_lines_or_hide() {
        let text = AuditText::long("ok\r\nINFO forged\u{1b}[31m\u{202e}x\u{200b}\0\\");
        assert_eq!(
            text.as_str(),
            "ok\\u{d}\\u{a}INFO forged\\u{1b}[31m\\u{202e}x\\u{200b}\\u{0}\\\\"
        );
        assert!(!text.as_str().chars().any(is_unsafe));
    }

    #[test]
    fn a_text_at_the_bound_is_kept_and_one_over_it_is_cut_between_characters() {
        let exact = "a".repeat(SHORT_TEXT);
        assert_eq!(AuditText::short(&exact).as_str(), exact);
        let over = AuditText::short(&"é".repeat(SHORT_TEXT));
        assert!(over.as_str().len() <= SHORT_TEXT);
        assert_eq!(over.as_str(), format!("{}...", "é".repeat(30)));
        let escapes = AuditText::short(&"\n".repeat(SHORT_TEXT));
        assert!(escapes.as_str().len() <= SHORT_TEXT);
        assert!(escapes.as_str().ends_with("\\u{a}..."));
    }
}
