//! `policy shadow`: a candidate beside the policy in force.
//!
//! Invariant: a candidate is checked as a reload would check it, or none runs. Nothing is stored: it ends with the process,
//! and each process of a database has its own.

use policy::id::GrantId;
use policy::peer::PeerName;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{AdminCode, AdminFailure, Control};
use crate::inbound::shadow::{FoundDifference, ShadowFound};
use crate::store::PolicyFile;

/// A candidate to run beside the policy in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartShadow {
    /// Its files.
    pub files: Vec<PolicyFile>,
}

/// Whether a candidate runs, and what it has found.
#[derive(Debug, Serialize)]
pub struct ShadowView {
    /// Whether decisions are compared.
    pub running: bool,
    /// Names of the candidate's files.
    pub files: Vec<String>,
    /// Hash over them.
    pub hash: Option<String>,
    /// Since when it runs.
    pub since: Option<UnixMillis>,
    /// Decisions compared.
    pub decisions: u64,
    /// Those that the candidate would have made otherwise.
    pub differing: u64,
    /// The different differences, the most frequent first.
    pub differences: Vec<ShadowDifference>,
    /// Decisions whose difference is not in the list, since that is full.
    pub unlisted: u64,
}

/// One difference.
#[derive(Debug, Serialize)]
pub struct ShadowDifference {
    /// The grant.
    pub grant: GrantId,
    /// Its peer.
    pub peer: PeerName,
    /// What was asked.
    pub verb: Option<&'static str>,
    /// For what; none for capabilities.
    pub resource: Option<&'static str>,
    /// `refused`, `allowed`, `refused_otherwise` or `otherwise`.
    pub change: &'static str,
    /// What was decided.
    pub now: String,
    /// What the candidate decides.
    pub then: String,
    /// How often.
    pub count: u64,
    /// First seen.
    pub first_seen: UnixMillis,
    /// Last seen.
    pub last_seen: UnixMillis,
}

impl ShadowView {
    fn of(found: Option<ShadowFound>, running: bool) -> Self {
        let since = found.as_ref().map(|found| found.since);
        let hash = found.as_ref().map(|found| found.hash.clone());
        let (files, differences) = found.as_ref().map_or_else(Default::default, |found| {
            let listed = found.differences.iter().map(ShadowDifference::of);
            (found.files.clone(), listed.collect())
        });
        Self {
            running,
            files,
            hash,
            since,
            decisions: found.as_ref().map_or(0, |found| found.decisions),
            differing: found.as_ref().map_or(0, |found| found.differing),
            differences,
            unlisted: found.as_ref().map_or(0, |found| found.unlisted),
        }
    }
}

impl ShadowDifference {
    fn of(found: &FoundDifference) -> Self {
        let difference = &found.difference;
        Self {
            grant: found.grant,
            peer: found.peer.clone(),
            verb: difference.verb.map(|verb| verb.as_str()),
            resource: difference.resource.map(|resource| resource.as_str()),
            change: difference.change.as_str(),
            now: difference.now.clone(),
            then: difference.then.clone(),
            count: found.count,
            first_seen: found.first,
            last_seen: found.last,
        }
    }
}

impl Control {
    /// `policy shadow DIR`: compares every decision with that of a candidate from now on.
    ///
    /// # Errors
    /// Every problem of the candidate's files; a process that answers nobody.
    pub fn start_shadow(&self, request: &StartShadow) -> Result<ShadowView, AdminFailure> {
        if !self.config.roles.serve {
            let why =
                "this process answers nobody (`roles.serve` is off): there is nothing to compare";
            return Err(AdminFailure::new(AdminCode::Conflict, why));
        }
        let candidate = self
            .directory
            .candidate_policy(&request.files)
            .map_err(|error| Self::unusable_policy(error, "nothing is compared with it"))?;
        self.shadow.start(candidate);
        Ok(self.shadow())
    }

    /// `policy shadow --off`: ends the comparison, and tells for the last time what it has found.
    #[must_use]
    pub fn end_shadow(&self) -> ShadowView {
        ShadowView::of(self.shadow.end(), false)
    }

    /// `policy shadow`: what has been found so far.
    #[must_use]
    pub fn shadow(&self) -> ShadowView {
        let found = self.shadow.found();
        let running = found.is_some();
        ShadowView::of(found, running)
    }
}
