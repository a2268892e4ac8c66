//! A policy that is not in force, and what single grants would be under it.
//!
//! Invariant: it is checked as a reload checks it, and nothing is published. A grant is taken as it is in force, so that
//! it differs in nothing but the policy.

use std::sync::Arc;

use policy::mapping::Mapping;
use policy::rules::RuleSet;
use policy::snapshot::{GrantEntry, Snapshot};

use super::{ApplyError, Directory, mapping_for};
use crate::policy_files;
use crate::store::PolicyFile;

/// A checked policy that is not in force.
#[derive(Debug, Clone)]
pub struct CandidatePolicy {
    /// Names of its files.
    pub files: Vec<String>,
    /// Hash over names and texts, lower-case hex.
    pub hash: String,
    rules: Arc<RuleSet>,
    mapping: Arc<Mapping>,
}

impl Directory {
    /// Checks policy files as a reload would.
    ///
    /// # Errors
    /// [`ApplyError`] as for a reload.
    pub fn candidate_policy(&self, files: &[PolicyFile]) -> Result<CandidatePolicy, ApplyError> {
        let rules = Arc::new(policy_files::parse(files).map_err(ApplyError::Policy)?);
        Ok(CandidatePolicy {
            files: files.iter().map(|file| file.name.clone()).collect(),
            hash: hex::encode(policy_files::hash_of(files)),
            mapping: mapping_for(&self.parts, &rules)?,
            rules,
        })
    }

    /// One grant, as it is in force, under a policy that is not.
    ///
    /// # Errors
    /// [`ApplyError::Snapshot`] for a grant that does not hold together; no such grant is in force.
    pub fn alone(
        &self,
        candidate: &CandidatePolicy,
        entry: &GrantEntry,
    ) -> Result<Snapshot, ApplyError> {
        Snapshot::build(
            0,
            [(*entry.peer).clone()],
            [entry.grant.clone()],
            Arc::clone(&candidate.rules),
            Arc::clone(&candidate.mapping),
            &self.parts.revision_key,
        )
        .map_err(|problems| {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            ApplyError::Snapshot(texts.join("; "))
        })
    }
}
