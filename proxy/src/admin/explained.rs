//! `audit explain`: how one recorded request came to its answer.
//!
//! Invariant: what is told was decided then. The values of the decision are in the record; scope, ceiling and redaction
//! are built again from the grant and from the policy of the recorded revision, and told only if their effective
//! revision, a keyed hash over all of them, is the recorded one. Nothing is decided again.

use policy::deny::DenyCode;
use policy::explain::Trace;
use policy::grant::{Grant, GrantStatus};
use policy::peer::{Peer, PeerName};
use policy::recorded::{DecidedThen, RecordedRequest};
use policy::snapshot::GrantEntry;
use serde::Serialize;
use serde_json::Value;

use super::policy::StepView;
use super::{AdminCode, AdminFailure, Control, audit_row};
use crate::audit::{AuditFilter, AuditRecord, AuditRow, Direction};
use crate::store::StoreError;

/// Rows of one request that are explained at most: its attempts, and of a request of ours what is recorded of it.
const ROWS: u32 = 100;

/// How one recorded request came to its answer.
#[derive(Debug, Serialize)]
pub struct ExplainedRequest {
    /// The record.
    pub record: Value,
    /// The steps of its decision; more than one list for a search.
    pub traces: Vec<Vec<StepView>>,
    /// Under which the grant was decided on, where that was recorded.
    pub effective_revision: Option<String>,
    /// Whether scope, ceiling and redaction are shown, and are those that were decided on.
    pub verified: bool,
    /// What the code of a refusal means.
    pub reason: Option<ReasonView>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// The code of a refusal, explained.
#[derive(Debug, Serialize)]
pub struct ReasonView {
    /// The code.
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// Its page in the documentation.
    pub page: String,
}

impl Control {
    /// Every record of a request, by our id of it or the peer's, explained; with `historical` also those that were moved into the archive.
    ///
    /// # Errors
    /// No such request; a log or store that cannot be read.
    pub async fn explain_request(
        &self,
        request_id: &str,
        historical: bool,
    ) -> Result<Vec<ExplainedRequest>, AdminFailure> {
        let filter = AuditFilter {
            request_id: Some(request_id.to_owned()),
            limit: ROWS,
            ..AuditFilter::default()
        };
        let rows = if historical {
            self.query_history(&filter).await?
        } else {
            self.store.query_audit(&filter).await?
        };
        if rows.is_empty() {
            let shown = request_id.escape_debug();
            let message = format!("there is no record of a request `{shown}`");
            let elsewhere = !historical && !self.store.cold_files().await?.is_empty();
            let hint = if elsewhere {
                "with --historical the archive is searched too; new records appear within a second"
            } else {
                "records appear within a second; `audit query` lists them"
            };
            return Err(AdminFailure::new(AdminCode::NotFound, message).hint(hint));
        }
        let mut explained = Vec::with_capacity(rows.len());
        for row in &rows {
            explained.push(self.explained(row).await?);
        }
        Ok(explained)
    }

    async fn explained(&self, row: &AuditRow) -> Result<ExplainedRequest, AdminFailure> {
        let record = &row.record;
        let denied = record
            .deny_code
            .as_ref()
            .and_then(|code| DenyCode::parse(code.as_str()));
        let mut explained = ExplainedRequest {
            record: audit_row(row),
            traces: Vec::new(),
            effective_revision: None,
            verified: false,
            reason: denied.map(reason),
            notes: Vec::new(),
        };
        match record.direction {
            Direction::Inbound => self.tell(record, denied, &mut explained).await?,
            Direction::Outbound => explained.notes.push(format!(
                "a question of ours: how the peer decided is in its log, under `audit explain {}`",
                record.request_id.as_str()
            )),
            Direction::Admin => explained.notes.push("an act, not a request".to_owned()),
        }
        Ok(explained)
    }

    async fn tell(
        &self,
        record: &AuditRecord,
        denied: Option<DenyCode>,
        explained: &mut ExplainedRequest,
    ) -> Result<(), AdminFailure> {
        let Some(grant) = record.grant else {
            explained.notes.push(
                "the certificate names no grant, so nothing was decided under one".to_owned(),
            );
            return Ok(());
        };
        let known = self.grant_of(grant).await?;
        let request = RecordedRequest {
            grant,
            of: known.as_ref().map(|(grant, name)| (name, &grant.user)),
            verb: record.verb.as_ref().map_or("no verb", |verb| verb.as_str()),
            resource: record.resource.as_ref().map(|name| name.as_str()),
            denied,
        };
        let Some(recorded) = &record.decision else {
            explained.traces = vec![steps(request.undecided())];
            return Ok(());
        };
        let then = match recorded.decode() {
            Ok(then) => then,
            Err(error) => {
                explained.traces = vec![steps(request.undecided())];
                explained.notes.push(error.to_string());
                return Ok(());
            }
        };
        let entry = match (&known, record.revision) {
            (Some((grant, name)), Some(revision)) => {
                self.entry_then(grant, name, &then, revision).await?
            }
            _ => None,
        };
        let traces = then.traces(&request, entry.as_ref());
        explained.traces = traces.into_iter().map(steps).collect();
        explained.effective_revision = Some(then.effective_revision.to_string());
        explained.verified = entry.is_some();
        if !explained.verified {
            explained.notes.push(
                "scope, ceiling and redaction of then cannot be built again from what is stored now: only what was recorded is told"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// A grant with the name of its peer, if it exists.
    async fn grant_of(
        &self,
        id: policy::id::GrantId,
    ) -> Result<Option<(Grant, PeerName)>, AdminFailure> {
        let grant = match self.store.grant(id).await {
            Ok(found) => found.grant,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let peer = self.store.peer(grant.peer).await?;
        Ok(Some((grant, peer.name)))
    }

    /// The grant as it was when it was decided on; `None` when nothing stored gives its effective revision.
    async fn entry_then(
        &self,
        grant: &Grant,
        name: &PeerName,
        then: &DecidedThen,
        revision: u64,
    ) -> Result<Option<GrantEntry>, AdminFailure> {
        let peer = Peer {
            id: grant.peer,
            name: name.clone(),
            state: then.peer_state,
        };
        let grant = Grant {
            status: GrantStatus::Active,
            edit: then.edit,
            ..grant.clone()
        };
        let policy = self.store.policy_at(revision).await?;
        let files = policy.map(|bundle| bundle.files).unwrap_or_default();
        let entries = self.directory.as_of(&peer, &grant, &files);
        Ok(entries
            .into_iter()
            .find(|entry| entry.effective_revision == then.effective_revision))
    }
}

fn reason(code: DenyCode) -> ReasonView {
    ReasonView {
        code: code.as_str(),
        meaning: code.meaning(),
        remedy: code.remedy(),
        page: format!("docs/reasons/{code}.md"),
    }
}

fn steps(trace: Trace) -> Vec<StepView> {
    trace.steps.into_iter().map(StepView::from).collect()
}
