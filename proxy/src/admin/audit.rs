//! Reading the audit log.
//!
//! Invariant: reading changes nothing and is bounded by the log's own limit.

use policy::time::UnixMillis;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{AdminCode, AdminFailure, Control, audit_row, parse_grant_id};
use crate::audit::archive::query_history;
use crate::audit::{
    AuditFilter, AuditLogError, AuditOutcome, AuditRow, Direction, QUERY_LIMIT_DEFAULT,
};

/// What to look for; every field present has to match.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// From this instant on.
    pub since: Option<UnixMillis>,
    /// Of the last so many seconds.
    pub since_s: Option<u32>,
    /// Before this instant.
    pub until: Option<UnixMillis>,
    /// Grant id.
    pub grant: Option<String>,
    /// Peer, by local name.
    pub peer: Option<String>,
    /// Direction of the peer, when two have the name.
    pub peer_direction: Option<String>,
    /// `inbound`, `outbound` or `admin`.
    pub direction: Option<String>,
    /// Outcome.
    pub outcome: Option<String>,
    /// Verb.
    pub verb: Option<String>,
    /// Resource.
    pub resource: Option<String>,
    /// Before so many seconds ago.
    pub until_s: Option<u32>,
    /// Code of a refusal.
    pub code: Option<String>,
    /// Request id, ours or the peer's.
    pub request_id: Option<String>,
    /// Only rows after the one with this id.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: Option<u32>,
    /// Rows that were moved into the archive too.
    #[serde(default)]
    pub historical: bool,
}

impl Control {
    /// `audit query` and each step of `audit tail`: rows in the order they were written.
    ///
    /// # Errors
    /// A value that no row can have; an unknown peer; a log that cannot be read.
    pub async fn query_audit(&self, query: AuditQuery) -> Result<Vec<Value>, AdminFailure> {
        let ago = |seconds: u32| self.now().saturating_add(-i64::from(seconds) * 1000);
        let until_s = query.until_s.map(ago);
        let peer = match &query.peer {
            None => None,
            Some(name) => Some(
                self.find_peer(name, query.peer_direction.as_deref())
                    .await?
                    .id,
            ),
        };
        let filter = AuditFilter {
            since: query.since.max(query.since_s.map(ago)),
            until: [query.until, until_s].into_iter().flatten().min(),
            grant: query.grant.as_deref().map(parse_grant_id).transpose()?,
            peer,
            direction: closed(
                query.direction,
                Direction::parse,
                "inbound, outbound or admin",
            )?,
            outcome: closed(
                query.outcome,
                AuditOutcome::parse,
                "allowed, denied, rate_limited, error or aborted",
            )?,
            verb: query.verb,
            resource: query.resource,
            code: query.code,
            request_id: query.request_id,
            after: query.after,
            oldest_first: false,
            limit: query.limit.unwrap_or(QUERY_LIMIT_DEFAULT),
        };
        let rows = if query.historical {
            self.query_history(&filter).await?
        } else {
            match self.store.query_audit(&filter).await {
                // Who follows the log goes on where it was, also when that row was moved meanwhile.
                Err(AuditLogError::UnknownPosition { .. }) => self.query_history(&filter).await?,
                found => found?,
            }
        };
        Ok(rows.iter().map(audit_row).collect())
    }

    /// Rows of the database and of the archive.
    pub(super) async fn query_history(
        &self,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRow>, AuditLogError> {
        query_history(&*self.store, self.archiver.shelf(), filter).await
    }
}

fn closed<T>(
    text: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
    words: &str,
) -> Result<Option<T>, AdminFailure> {
    text.map(|text| {
        parse(&text).ok_or_else(|| {
            AdminFailure::invalid(format!("`{}` is not one of {words}", text.escape_debug()))
        })
    })
    .transpose()
}

impl From<AuditLogError> for AdminFailure {
    fn from(error: AuditLogError) -> Self {
        let code = match &error {
            AuditLogError::Unavailable { .. }
            | AuditLogError::Corrupt { .. }
            | AuditLogError::Cold(_) => AdminCode::Unavailable,
            AuditLogError::UnknownPosition { .. } => AdminCode::NotFound,
        };
        Self::new(code, error.to_string())
    }
}
