//! The audit record: the columns of `federation_audit_log` as one value.
//!
//! Invariant: every text in a record is an [`AuditText`]: bounded, and free of control characters, whoever sent
//! it. There is no field for a body, and none may be added. How records are queued and stored is elsewhere.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use policy::id::{GrantId, PeerId, SubjectId};
use policy::time::UnixMillis;
use uuid::Uuid;

use super::detail::AuditDetail;

/// Bound of identifiers in a record, bytes.
pub const SHORT_TEXT: usize = 64;
/// Bound of the other texts in a record, bytes.
pub const LONG_TEXT: usize = 1024;

/// Which way a question travelled, or that an operator acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A peer asked us.
    Inbound,
    /// We asked a peer.
    Outbound,
    /// An admin act.
    Admin,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Inbound, Self::Outbound, Self::Admin];

    /// The stored and displayed text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Admin => "admin",
        }
    }

    /// The direction with that text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// Answered in full.
    Allowed,
    /// Refused by us.
    Denied,
    /// Failed on our side or the gateway's.
    Error,
    /// Cut off before it was complete.
    Aborted,
}

impl AuditOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::Error, Self::Aborted];

    /// The stored and displayed text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
            Self::Aborted => "aborted",
        }
    }

    /// The outcome with that text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

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

/// One row of `federation_audit_log` (the specification, section 11, without the chain columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// UUIDv7, drawn by the caller.
    pub id: Uuid,
    /// When the request came in or the act was made.
    pub at: UnixMillis,
    /// Which way.
    pub direction: Direction,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// Our own id of the request.
    pub request_id: AuditText,
    /// The id the peer gave it.
    pub peer_request_id: Option<AuditText>,
    /// Which attempt at the same request, from 1.
    pub attempt: u32,
    /// The trace it belongs to, lower-case hex.
    pub trace_id: Option<AuditText>,
    /// The peer, once known.
    pub peer: Option<PeerId>,
    /// The grant, once known.
    pub grant: Option<GrantId>,
    /// The subject, once known.
    pub subject: Option<SubjectId>,
    /// Serial of the certificate, lower-case hex.
    pub cert_serial: Option<AuditText>,
    /// The verb as asked, known or not.
    pub verb: Option<AuditText>,
    /// The resource as asked, known or not.
    pub resource: Option<AuditText>,
    /// SHA-256 of the canonical query.
    pub query_hash: Option<[u8; 32]>,
    /// Stage of the refusal or failure.
    pub deny_stage: Option<AuditText>,
    /// Code of the refusal or failure.
    pub deny_code: Option<AuditText>,
    /// Status of the answer, if one was begun.
    pub http_status: Option<u16>,
    /// Rows in the answer.
    pub rows_returned: u64,
    /// Rows the gateway sent that were not passed on.
    pub rows_withheld: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// From receipt to the end, microseconds.
    pub latency_us: u64,
    /// Store revision of the snapshot that decided, or of the act's commit.
    pub revision: Option<u64>,
    /// The admin act, e.g. `grant.revoke`.
    pub action: Option<AuditText>,
    /// Who acted.
    pub actor: Option<AuditText>,
    /// What else identifies the act.
    pub detail: Option<AuditDetail>,
}

impl AuditRecord {
    /// A record with the required fields; everything else is absent, zero, or attempt 1.
    #[must_use]
    pub fn new(
        id: Uuid,
        at: UnixMillis,
        direction: Direction,
        outcome: AuditOutcome,
        request_id: AuditText,
    ) -> Self {
        Self {
            id,
            at,
            direction,
            outcome,
            request_id,
            peer_request_id: None,
            attempt: 1,
            trace_id: None,
            peer: None,
            grant: None,
            subject: None,
            cert_serial: None,
            verb: None,
            resource: None,
            query_hash: None,
            deny_stage: None,
            deny_code: None,
            http_status: None,
            rows_returned: 0,
            rows_withheld: 0,
            bytes_out: 0,
            latency_us: 0,
            revision: None,
            action: None,
            actor: None,
            detail: None,
        }
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

    #[test]
    fn closed_sets_read_back() {
        for one in Direction::ALL {
            assert_eq!(Direction::parse(one.as_str()), Some(one));
        }
        for one in AuditOutcome::ALL {
            assert_eq!(AuditOutcome::parse(one.as_str()), Some(one));
        }
        assert_eq!(AuditOutcome::parse("Allowed"), None);
    }
}
