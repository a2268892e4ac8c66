//! Reading the log back: what to look for, and what comes out.
//!
//! Invariant: a filter only narrows; an empty one matches everything up to its limit. Rows come in the order
//! they were written, which is also the order to follow the log in. The statement itself is the store's.

use policy::id::{GrantId, PeerId};
use policy::time::UnixMillis;
use uuid::Uuid;

use super::chain::Link;
use super::place::HistoryPlace;
use super::record::{AuditOutcome, AuditRecord, Direction};
use super::text::AuditText;

/// Rows given when no limit is asked for.
pub const QUERY_LIMIT_DEFAULT: u32 = 100;
/// Rows given at most.
pub const QUERY_LIMIT_MAX: u32 = 10_000;

/// What to look for; every field present has to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFilter {
    /// At this instant or later.
    pub since: Option<UnixMillis>,
    /// Before this instant.
    pub until: Option<UnixMillis>,
    /// This grant.
    pub grant: Option<GrantId>,
    /// This peer.
    pub peer: Option<PeerId>,
    /// This direction.
    pub direction: Option<Direction>,
    /// This outcome.
    pub outcome: Option<AuditOutcome>,
    /// This verb, exactly.
    pub verb: Option<String>,
    /// This resource, exactly.
    pub resource: Option<String>,
    /// This code of a refusal, exactly.
    pub code: Option<String>,
    /// This request id, ours or the peer's.
    pub request_id: Option<String>,
    /// Only rows written after the one with this id: for following the log.
    pub after: Option<Uuid>,
    /// Without `after`: the first rows that match instead of the last.
    pub oldest_first: bool,
    /// How many rows at most; lowered to [`QUERY_LIMIT_MAX`].
    pub limit: u32,
}

impl AuditFilter {
    /// Whether a row matches, its place and the limit aside: as the statement of a store decides it.
    #[must_use]
    pub fn matches(&self, row: &AuditRow) -> bool {
        let record = &row.record;
        let same = |wanted: &Option<String>, found: &Option<AuditText>| {
            let found = found.as_ref().map(AuditText::as_str);
            wanted.is_none() || wanted.as_deref() == found
        };
        let of_request = |wanted: &String| {
            record.request_id.as_str() == wanted
                || record.peer_request_id.as_ref().map(AuditText::as_str) == Some(wanted)
        };
        self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
            && self.grant.is_none_or(|grant| record.grant == Some(grant))
            && self.peer.is_none_or(|peer| record.peer == Some(peer))
            && self.direction.is_none_or(|one| record.direction == one)
            && self.outcome.is_none_or(|one| record.outcome == one)
            && same(&self.verb, &record.verb)
            && same(&self.resource, &record.resource)
            && same(&self.code, &record.deny_code)
            && self.request_id.as_ref().is_none_or(of_request)
    }
}

impl Default for AuditFilter {
    fn default() -> Self {
        Self {
            since: None,
            until: None,
            grant: None,
            peer: None,
            direction: None,
            outcome: None,
            verb: None,
            resource: None,
            code: None,
            request_id: None,
            after: None,
            oldest_first: false,
            limit: QUERY_LIMIT_DEFAULT,
        }
    }
}

/// A record with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Counts up in the order of writing; gaps mean nothing.
    pub position: i64,
    /// The record.
    pub record: AuditRecord,
    /// Its place in a chain; rows written before there were chains have none.
    pub link: Option<Link>,
    /// Its place in the history of its grant: of requests of peers with a place in a chain.
    pub history: Option<HistoryPlace>,
}
