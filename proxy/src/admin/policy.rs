//! Policy: reload the files, explain a decision.
//!
//! Invariant: an explanation is the trace of the very decision function that requests go through, on the
//! snapshot in force; nothing is decided a second way.

use policy::decision::Decision;
use policy::evaluate::{Admission, admit, evaluate};
use policy::explain::TraceStep;
use policy::id::GrantId;
use policy::native::NativeFacts;
use policy::reach::RowLimit;
use policy::request::AccessRequest;
use serde::{Deserialize, Serialize};

use super::{AdminCode, AdminFailure, Control, PolicyFailure, parse_grant_id};
use crate::directory::{Applied, ApplyError, Touched};
use crate::gateway::{Authority, facts};
use crate::message::headers::RequestTag;
use crate::store::Actor;

/// A question to explain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The grant.
    pub grant: String,
    /// The verb.
    pub verb: String,
    /// The resource; none for capabilities.
    pub resource: Option<String>,
    /// The number of rows asked for.
    pub limit: Option<u64>,
    /// Without asking the gateway for the user's teams: as if there were none.
    #[serde(default, rename = "static")]
    pub without_facts: bool,
}

/// How a decision comes about.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Whether it would be answered.
    pub allowed: bool,
    /// The code of the refusal.
    pub deny_code: Option<&'static str>,
    /// The steps, in order.
    pub steps: Vec<StepView>,
    /// Where the user's teams come from: `gateway` or `none`.
    pub facts: &'static str,
    /// The store revision it was decided under.
    pub revision: u64,
}

/// One step of a decision.
#[derive(Debug, Serialize)]
pub struct StepView {
    /// Its name.
    pub name: &'static str,
    /// What it looked at.
    pub input: String,
    /// What came of it.
    pub outcome: String,
}

impl From<TraceStep> for StepView {
    fn from(step: TraceStep) -> Self {
        Self {
            name: step.name,
            input: step.input,
            outcome: step.outcome,
        }
    }
}

impl Control {
    /// `policy reload`: all files are checked together and applied as one, or nothing changes. A server certificate from
    /// files is read again too; what is wrong with it does not keep the policy from being applied.
    ///
    /// # Errors
    /// Every problem of the files (`details.problems`); a change that could not be applied here.
    pub async fn reload_policy(&self, actor: &Actor) -> Result<Applied, AdminFailure> {
        let act = self.act(actor);
        if let Some(server) = &self.server_certificate {
            // A failure is told by the certificate itself: log, metric, `status`, `doctor`.
            let _ = server.refresh().await;
        }
        let reloaded = self.directory.reload_policy(&act).await;
        *self.policy_failure.lock() = match &reloaded {
            Ok(_) => None,
            Err(error) => Some(PolicyFailure {
                at: act.now,
                message: apply_text(error),
            }),
        };
        let applied = reloaded
            .map_err(|error| Self::unusable_policy(error, "the last good set stays in force"))?;
        self.settled(applied, Touched::All).await
    }

    /// Policy files that cannot be applied; `meanwhile` says what holds instead.
    pub(super) fn unusable_policy(error: ApplyError, meanwhile: &str) -> AdminFailure {
        match error {
            ApplyError::Policy(problems) => {
                let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                AdminFailure::invalid(format!(
                    "the policy has {} problem(s); {meanwhile}",
                    lines.len()
                ))
                .hint("correct the files and repeat; `policy check` checks them without applying")
                .detail("problems", lines)
            }
            ApplyError::Store(error) => error.into(),
            ApplyError::Snapshot(why) => {
                AdminFailure::new(AdminCode::Conflict, why).hint(meanwhile)
            }
        }
    }

    /// `policy explain`.
    ///
    /// # Errors
    /// An unknown grant; facts that the gateway does not give.
    pub async fn explain(&self, request: Explain) -> Result<Explanation, AdminFailure> {
        let grant = parse_grant_id(&request.grant)?;
        let limit = request
            .limit
            .map(|rows| {
                RowLimit::new(rows).map_err(|error| AdminFailure::invalid(error.to_string()))
            })
            .transpose()?;
        let view = self.directory.view();
        let subject = match view.snapshot.grant(grant) {
            Some(entry) => entry.grant.subject,
            // Finished grants without a certificate are not in the snapshot; the store still knows them.
            None => self.store.grant(grant).await?.grant.subject,
        };
        let access = AccessRequest {
            grant,
            subject,
            now: self.now(),
            verb: &request.verb,
            resource: request.resource.as_deref(),
            limit,
        };
        let revision = view.snapshot.revision();
        let decision = match admit(&view.snapshot, &access) {
            Err(deny) => return Ok(explanation(&Decision::Deny(deny), "none", revision)),
            Ok(Admission::Capabilities(capabilities)) => {
                return Ok(capabilities_explained(&capabilities, revision));
            }
            Ok(admission) if !request.without_facts => {
                let facts = self.facts_for(&admission, grant).await?;
                (evaluate(&view.snapshot, &access, &facts), "gateway")
            }
            Ok(_) => (
                evaluate(&view.snapshot, &access, &NativeFacts::builder().build()),
                "none",
            ),
        };
        Ok(explanation(&decision.0, decision.1, revision))
    }

    async fn facts_for(
        &self,
        admission: &Admission,
        grant: GrantId,
    ) -> Result<NativeFacts, AdminFailure> {
        let Admission::Rows(admitted) = admission else {
            return Ok(NativeFacts::builder().build());
        };
        let user = admitted.user();
        let unavailable = |error: crate::gateway::GatewayError| {
            AdminFailure::new(
                AdminCode::Unavailable,
                format!("the teams of {user} cannot be had: {error}"),
            )
            .hint("repair it, or explain with --static, as if the user had no teams")
        };
        let auth = self
            .credentials
            .for_subject(user, Some(grant))
            .map_err(unavailable)?;
        let mapping = self.directory.view();
        let mapping = mapping.snapshot.mapping();
        let id = self.draw_id().to_string();
        facts::fetch(
            &self.gateway,
            mapping,
            &Authority::Operator,
            &auth,
            RequestTag::untraced(&id),
        )
        .await
        .map_err(unavailable)
    }
}

fn apply_text(error: &ApplyError) -> String {
    match error {
        ApplyError::Policy(problems) => problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

fn explanation(decision: &Decision, facts: &'static str, revision: u64) -> Explanation {
    let steps = decision.trace().steps.into_iter();
    Explanation {
        allowed: matches!(decision, Decision::Allow(_)),
        deny_code: match decision {
            Decision::Allow(_) => None,
            Decision::Deny(deny) => Some(deny.code().as_str()),
        },
        steps: steps.map(StepView::from).collect(),
        facts,
        revision,
    }
}

fn capabilities_explained(
    capabilities: &policy::evaluate::Capabilities,
    revision: u64,
) -> Explanation {
    let names: Vec<&str> = capabilities
        .resources
        .iter()
        .map(|resource| resource.as_str())
        .collect();
    let step = StepView {
        name: "capabilities",
        input: "an active grant".to_owned(),
        outcome: format!(
            "allowed: {}",
            if names.is_empty() {
                "no resource".to_owned()
            } else {
                names.join(" ")
            }
        ),
    };
    Explanation {
        allowed: true,
        deny_code: None,
        steps: vec![step],
        facts: "none",
        revision,
    }
}
