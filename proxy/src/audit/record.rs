//! The audit record: the columns of `federation_audit_log` as one value.
//!
//! Invariant: every text in a record is an [`AuditText`]: bounded, and free of control characters, whoever sent
//! it. There is no field for a body, and none may be added. How records are queued and stored is elsewhere.

use policy::id::{GrantId, PeerId, SubjectId};
use policy::recorded::RecordedDecision;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::detail::AuditDetail;
use super::place::HistoryHead;
use super::text::AuditText;

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
    /// Refused because of a rate or concurrency limit.
    RateLimited,
    /// Failed on our side or the gateway's.
    Error,
    /// Cut off before it was complete.
    Aborted,
}

impl AuditOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Allowed,
        Self::Denied,
        Self::RateLimited,
        Self::Error,
        Self::Aborted,
    ];

    /// The stored and displayed text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
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

/// One row of `federation_audit_log` (the specification, section 11). Its place in the chain is with [`AuditRow`](super::AuditRow).
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
    /// How many requests the record stands for: 1, or more when refusals were counted into one record while
    /// the journal was filling. Times and request ids are those of the first.
    pub count: u64,
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
    /// What the decision came to, for telling it later.
    pub decision: Option<RecordedDecision>,
    /// How far the serving side said, with its answer, that its history of the grant had got (outbound only).
    pub witnessed: Option<HistoryHead>,
}

impl AuditRecord {
    /// A record with the required fields; everything else is absent, zero, or 1 (attempt and count).
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
            count: 1,
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
            decision: None,
            witnessed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
