//! What another policy would change: of what grants reach, and of decisions that were recorded.
//!
//! Invariant: nothing is published, and a candidate is checked as a reload would check it. It is compared with the state
//! in force, decided by the same functions; what a record does not tell is said, not guessed.

use std::collections::BTreeMap;

use policy::deny::DenyCode;
use policy::id::{GrantId, UserId};
use policy::peer::PeerName;
use policy::replay::{NotReplayed, RecordedAnswer, Replayed, grant_changes, replay};
use policy::request::AccessRequest;
use policy::snapshot::Snapshot;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AdminFailure, Control, parse_grant_id};
use crate::audit::{AuditFilter, AuditOutcome, AuditRecord, Direction};
use crate::store::PolicyFile;

/// Records looked at in one call; the answer says where to go on.
const PAGE: u32 = 10_000;

/// A candidate to compare with the policy in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparePolicy {
    /// Its files.
    pub files: Vec<PolicyFile>,
}

/// What a candidate would change.
#[derive(Debug, Serialize)]
pub struct PolicyDiff {
    /// The grants that would reach something else.
    pub grants: Vec<GrantDiff>,
    /// Grants compared.
    pub compared: usize,
    /// Whether the gateway would be asked in another way.
    pub mapping_differs: bool,
}

/// What would change of one grant.
#[derive(Debug, Serialize)]
pub struct GrantDiff {
    /// The grant.
    pub grant: GrantId,
    /// Its peer.
    pub peer: PeerName,
    /// Its user.
    pub user: UserId,
    /// The differences, one a line.
    pub changes: Vec<String>,
}

/// Records to decide again under a candidate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayPolicy {
    /// Its files.
    pub files: Vec<PolicyFile>,
    /// From this instant on.
    pub since: Option<UnixMillis>,
    /// Of the last so many seconds; one of the two is needed.
    pub since_s: Option<u32>,
    /// Of this grant only.
    pub grant: Option<String>,
    /// Go on behind the record with this id.
    pub after: Option<Uuid>,
}

/// What came of a page of records.
#[derive(Debug, Default, Serialize)]
pub struct ReplayedPage {
    /// Records looked at.
    pub examined: u64,
    /// Requests that would be decided the same.
    pub same: u64,
    /// Those that would not.
    pub changed: Vec<ChangedDecision>,
    /// How many cannot be decided again, by why.
    pub not_replayed: BTreeMap<&'static str, u64>,
    /// Where to go on; absent at the end.
    pub next: Option<Uuid>,
}

/// A decision that would be another.
#[derive(Debug, Serialize)]
pub struct ChangedDecision {
    /// The request.
    pub request_id: String,
    /// When.
    pub at: UnixMillis,
    /// Under which grant.
    pub grant: GrantId,
    /// What was asked.
    pub verb: String,
    /// For what; none for capabilities.
    pub resource: Option<String>,
    /// The differences, one a line.
    pub changes: Vec<String>,
}

impl Control {
    /// `policy diff`: what a candidate would change of what the grants reach.
    ///
    /// # Errors
    /// Every problem of the candidate's files.
    pub async fn diff_policy(&self, request: ComparePolicy) -> Result<PolicyDiff, AdminFailure> {
        let candidate = self.candidate(request.files).await?;
        let current = self.directory.view();
        let mut diff = PolicyDiff {
            grants: Vec::new(),
            compared: 0,
            mapping_differs: current.snapshot.mapping().hash() != candidate.mapping().hash(),
        };
        for after in candidate.grants() {
            let Some(before) = current.snapshot.grant(after.grant.id) else {
                continue;
            };
            if after.grant.status_at(self.now()).is_final() {
                continue;
            }
            diff.compared += 1;
            let mut changes = grant_changes(before, after);
            let suspends = |snapshot: &Snapshot| {
                let rules = snapshot.rules();
                rules.suspends_on_renewal_conflict(&after.peer.name)
            };
            match (suspends(&current.snapshot), suspends(&candidate)) {
                (false, true) => {
                    changes.push("a renewal conflict: now suspends its peer".to_owned())
                }
                (true, false) => {
                    changes.push("a renewal conflict: no longer suspends its peer".to_owned())
                }
                _ => {}
            }
            if !changes.is_empty() {
                diff.grants.push(GrantDiff {
                    grant: after.grant.id,
                    peer: after.peer.name.clone(),
                    user: after.grant.user.clone(),
                    changes,
                });
            }
        }
        diff.grants
            .sort_by(|a, b| (&a.peer, a.grant).cmp(&(&b.peer, b.grant)));
        Ok(diff)
    }

    /// One step of `policy replay`: decides a page of recorded requests again.
    ///
    /// # Errors
    /// Every problem of the candidate's files; a log that cannot be read.
    pub async fn replay_policy(&self, request: ReplayPolicy) -> Result<ReplayedPage, AdminFailure> {
        let grant = request.grant.as_deref().map(parse_grant_id).transpose()?;
        let candidate = self.candidate(request.files).await?;
        let now = self.now();
        let ago = |seconds: u32| now.saturating_add(-i64::from(seconds) * 1000);
        let since = request.since.max(request.since_s.map(ago));
        if since.is_none() {
            return Err(AdminFailure::invalid("`since` or `since_s` is missing"));
        }
        let filter = AuditFilter {
            since,
            grant,
            direction: Some(Direction::Inbound),
            after: request.after,
            oldest_first: true,
            limit: PAGE,
            ..AuditFilter::default()
        };
        let rows = self.query_history(&filter).await?;
        let current = self.directory.view();
        let mut page = ReplayedPage::default();
        for row in &rows {
            page.take(
                &row.record,
                replayed(&current.snapshot, &candidate, &row.record, now),
            );
        }
        let full = u64::from(PAGE) == page.examined;
        page.next = rows.last().filter(|_| full).map(|row| row.record.id);
        Ok(page)
    }

    async fn candidate(&self, files: Vec<PolicyFile>) -> Result<Snapshot, AdminFailure> {
        let candidate = self.directory.candidate(files).await;
        candidate.map_err(|error| Self::unusable_policy(error, "nothing was changed"))
    }
}

fn replayed(
    current: &Snapshot,
    candidate: &Snapshot,
    record: &AuditRecord,
    now: UnixMillis,
) -> Replayed {
    let (Some(grant), Some(subject), Some(verb)) = (record.grant, record.subject, &record.verb)
    else {
        return Replayed::Not(NotReplayed::Incomplete);
    };
    let denied = match &record.deny_code {
        None => None,
        Some(text) => match DenyCode::parse(text.as_str()) {
            Some(code) => Some(code),
            None => return Replayed::Not(NotReplayed::NotDecidedByPolicy),
        },
    };
    let then = record.decision.as_ref().and_then(|kept| kept.decode().ok());
    let decided = then.as_ref().is_some_and(|then| !then.answers.is_empty());
    if record.outcome == AuditOutcome::Aborted && denied.is_none() && !decided {
        return Replayed::Not(NotReplayed::Incomplete);
    }
    let was = RecordedAnswer {
        request: AccessRequest {
            grant,
            subject,
            now,
            verb: verb.as_str(),
            resource: record.resource.as_ref().map(|name| name.as_str()),
            limit: None,
        },
        denied,
        then: then.as_ref(),
    };
    replay(current, candidate, &was)
}

impl ReplayedPage {
    fn take(&mut self, record: &AuditRecord, replayed: Replayed) {
        self.examined += 1;
        match replayed {
            Replayed::Same => self.same += 1,
            Replayed::Not(why) => *self.not_replayed.entry(why.as_str()).or_default() += 1,
            Replayed::Changed(changes) => {
                let Some(grant) = record.grant else { return };
                let text = |text: &crate::audit::AuditText| text.as_str().to_owned();
                self.changed.push(ChangedDecision {
                    request_id: text(&record.request_id),
                    at: record.at,
                    grant,
                    verb: record.verb.as_ref().map(text).unwrap_or_default(),
                    resource: record.resource.as_ref().map(text),
                    changes,
                });
            }
        }
    }
}
