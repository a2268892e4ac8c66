//! The one decision function, in the two steps between which native facts are fetched.
//!
//! Invariant: the order of the specification, section 5: verb, resource, ceiling, native facts, teams and personal
//! rows, row cap. Each step can only narrow, and what no step allows is denied.
//! Elsewhere on purpose: certificates (`certs`), the facts themselves (the gateway client), rows (`rows`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::compat::Compat;
use crate::decision::{Basis, Decision, Permit, PermitParts};
use crate::deny::{Deny, DenyCode};
use crate::grant::GrantStatus;
use crate::id::{GrantId, SubjectId, TeamId, UserId};
use crate::native::NativeFacts;
use crate::peer::PeerState;
use crate::rate::Rate;
use crate::reach::{ResourceReach, RowLimit, TeamSet};
use crate::request::AccessRequest;
use crate::resource::{Resource, ResourceError};
use crate::revision::EffectiveRevision;
use crate::scope::ScopeFilter;
use crate::snapshot::{GrantEntry, Snapshot};
use crate::time::UnixMillis;
use crate::verb::Verb;

/// What can be said before the native facts are known.
#[derive(Clone, Debug)]
pub enum Admission {
    /// The whole answer: what the grant allows does not depend on facts.
    Capabilities(Capabilities),
    /// A question about rows that may go on to its facts.
    Rows(Admitted),
}

/// A question about rows that has passed the first three steps.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub(crate) basis: Basis,
    pub(crate) verb: Verb,
    pub(crate) resource: Resource,
    pub(crate) limit: Option<RowLimit>,
    pub(crate) store_revision: u64,
}

/// What a grant allows, as the capabilities verb answers it (specification, section 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The resources that can be asked for.
    pub resources: Vec<Resource>,
    /// The resources that the scope excludes.
    pub excluded_resources: Vec<Resource>,
    /// The most rows of one answer.
    pub max_rows_per_query: RowLimit,
    /// The verbs that can be asked.
    pub supported_verbs: Vec<Verb>,
    /// Teams and personal rows, by resource.
    pub filters: BTreeMap<Resource, ScopeFilter>,
    /// The order of rows.
    pub order: &'static str,
    /// How often the grant may ask; a user's own gateway is asked at any rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// Different rows it may see in a UTC day, where policy bounds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_day: Option<u32>,
}

/// The grant a certificate speaks for, if it may be used now: it exists, is the subject's own, its peer is answered,
/// and it is active, in this order (specification, section 2).
///
/// # Errors
/// The first of these that fails. Whether the certificate itself is good is for the caller to know.
pub fn identify(
    snapshot: &Snapshot,
    grant: GrantId,
    subject: SubjectId,
    now: UnixMillis,
) -> Result<&Arc<GrantEntry>, Deny> {
    let entry = snapshot
        .grant(grant)
        .ok_or(Deny::new(DenyCode::GrantUnknown))?;
    let refuse = |code| Err(Deny::new(code).under(entry));
    if entry.grant.subject != subject {
        return refuse(DenyCode::SubjectMismatch);
    }
    match entry.peer.state {
        PeerState::Active | PeerState::Degraded => {}
        PeerState::Suspended => return refuse(DenyCode::PeerSuspended),
        PeerState::Pending => return refuse(DenyCode::PeerUnknown),
        // To a peer that was ended for good, each of its grants is revoked.
        PeerState::Revoked => return refuse(DenyCode::GrantRevoked),
    }
    match entry.grant.status_at(now) {
        GrantStatus::Active => Ok(entry),
        GrantStatus::Pending => refuse(DenyCode::GrantPending),
        GrantStatus::Revoked => refuse(DenyCode::GrantRevoked),
        GrantStatus::Expired => refuse(DenyCode::GrantExpired),
    }
}

/// The steps before the native facts: identity, verb, resource, ceiling.
///
/// # Errors
/// The first step that refuses.
pub fn admit(snapshot: &Snapshot, request: &AccessRequest<'_>) -> Result<Admission, Deny> {
    let entry = identify(snapshot, request.grant, request.subject, request.now)?;
    let verb = admit_verb(entry, request.verb)?;
    if verb == Verb::Capabilities {
        return Ok(Admission::Capabilities(capabilities(snapshot, entry)));
    }
    let resource = admit_resource(snapshot, entry, request.resource)
        .map_err(|(code, resource)| Deny::new(code).asking(Some(verb), resource).under(entry))?;
    Ok(Admission::Rows(Admitted {
        basis: Basis::Grant(Arc::clone(entry)),
        verb,
        resource,
        limit: request.limit,
        store_revision: snapshot.revision(),
    }))
}

/// The same steps for a search: each resource that is `named` must be one that a list would be answered for; when none
/// is named, those are searched that a list would be answered for.
///
/// # Errors
/// The first step that refuses, for the first resource that is refused.
pub fn admit_search(
    snapshot: &Snapshot,
    request: &AccessRequest<'_>,
    named: Option<&[String]>,
) -> Result<Vec<Admitted>, Deny> {
    let entry = identify(snapshot, request.grant, request.subject, request.now)?;
    let verb = admit_verb(entry, Verb::Search.as_str())?;
    let admitted = |resource| Admitted {
        basis: Basis::Grant(Arc::clone(entry)),
        verb,
        resource,
        limit: request.limit,
        store_revision: snapshot.revision(),
    };
    let Some(named) = named else {
        let open = Resource::SERVED
            .into_iter()
            .filter(|resource| admit_resource(snapshot, entry, Some(resource.as_str())).is_ok());
        return Ok(open.map(admitted).collect());
    };
    named
        .iter()
        .map(|name| match admit_resource(snapshot, entry, Some(name)) {
            Ok(resource) => Ok(admitted(resource)),
            Err((code, resource)) => Err(Deny::new(code).asking(Some(verb), resource).under(entry)),
        })
        .collect()
}

/// Step 1: a verb of this version, and one that the peer is known to know.
fn admit_verb(entry: &Arc<GrantEntry>, name: &str) -> Result<Verb, Deny> {
    Verb::parse(name)
        .ok()
        .filter(|verb| knows_verb(entry.compat, *verb))
        .ok_or_else(|| Deny::new(DenyCode::UnknownVerb).under(entry))
}

fn knows_verb(compat: Option<Compat>, verb: Verb) -> bool {
    compat.is_none_or(|compat| compat.knows_verb(verb))
}

fn knows_resource(compat: Option<Compat>, resource: Resource) -> bool {
    compat.is_none_or(|compat| compat.knows_resource(resource))
}

/// Steps 2 and 3.
fn admit_resource(
    snapshot: &Snapshot,
    entry: &GrantEntry,
    name: Option<&str>,
) -> Result<Resource, (DenyCode, Option<Resource>)> {
    let resource = Resource::parse(name.unwrap_or_default()).map_err(|error| match error {
        ResourceError::Reserved => (DenyCode::ReservedResource, None),
        ResourceError::Unknown => (DenyCode::UnknownResource, None),
    })?;
    let refuse = |code| Err((code, Some(resource)));
    let scope = &entry.grant.scope;
    if scope.excluded_resources().contains(&resource) {
        return refuse(DenyCode::ResourceExcluded);
    }
    if !scope.resources().contains(&resource) {
        return refuse(DenyCode::ResourceNotGranted);
    }
    if !snapshot.mapping().serves(resource) || !knows_resource(entry.compat, resource) {
        return refuse(DenyCode::ResourceUnsupported);
    }
    if !entry.effective.resources.contains_key(&resource) {
        return refuse(DenyCode::Ceiling);
    }
    Ok(resource)
}

fn capabilities(snapshot: &Snapshot, entry: &GrantEntry) -> Capabilities {
    let known = |resource: &Resource| knows_resource(entry.compat, *resource);
    let served = |resource: &Resource| snapshot.mapping().serves(*resource) && known(resource);
    let filters: BTreeMap<_, _> = entry
        .effective
        .resources
        .iter()
        .filter(|(resource, _)| served(resource))
        .map(|(resource, reach)| (*resource, filter_of(reach)))
        .collect();
    Capabilities {
        resources: filters.keys().copied().collect(),
        excluded_resources: entry
            .grant
            .scope
            .excluded_resources()
            .iter()
            .copied()
            .filter(known)
            .collect(),
        max_rows_per_query: entry.effective.max_rows_per_query,
        supported_verbs: Verb::ALL
            .into_iter()
            .filter(|verb| knows_verb(entry.compat, *verb))
            .collect(),
        filters,
        order: "created_desc",
        rate_limit: Some(entry.limits.rate),
        rows_per_day: entry.limits.rows_per_day,
    }
}

fn filter_of(reach: &ResourceReach) -> ScopeFilter {
    let include_teams = match &reach.teams {
        TeamSet::Only(teams) => teams.clone(),
        // A scope always names its teams, so the meet with one does too.
        TeamSet::Any => Default::default(),
    };
    ScopeFilter {
        include_teams,
        include_personal: reach.include_personal,
    }
}

impl Admitted {
    /// By what right the question goes on.
    #[must_use]
    pub const fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The user to fetch facts for, as the gateway names them.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.basis.user()
    }

    /// The effective revision it was admitted under.
    #[must_use]
    pub fn effective_revision(&self) -> EffectiveRevision {
        self.basis.effective_revision()
    }

    /// The verb: list, get or search.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// The most rows of one answer.
    #[must_use]
    pub fn row_cap(&self) -> RowLimit {
        match &self.basis {
            Basis::Grant(entry) => entry.effective.max_rows_per_query,
            Basis::Local(_) => RowLimit::MAX,
        }
    }

    /// The resource.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// The rows that were asked for.
    #[must_use]
    pub const fn limit(&self) -> Option<RowLimit> {
        self.limit
    }

    /// The refusal of this question for a cause found later, such as facts that cannot be had.
    #[must_use]
    pub fn refuse(&self, code: DenyCode) -> Deny {
        let deny = Deny::new(code).asking(Some(self.verb), Some(self.resource));
        match &self.basis {
            Basis::Grant(entry) => deny.under(entry),
            Basis::Local(_) => deny,
        }
    }

    /// The last steps: native facts, teams and personal rows, row cap. They narrow and never refuse: a question that
    /// reaches no row is answered with none.
    #[must_use]
    pub fn decide(self, facts: &NativeFacts) -> Permit {
        let (reach, row_cap) = match &self.basis {
            Basis::Grant(entry) => {
                let effective = &entry.effective;
                let reach = effective.resources.get(&self.resource);
                (reach, effective.max_rows_per_query)
            }
            Basis::Local(_) => return self.decide_local(facts),
        };
        let teams: Arc<[TeamId]> = facts
            .teams()
            .iter()
            .filter(|team| reach.is_some_and(|reach| names_team(&reach.teams, team)))
            .cloned()
            .collect();
        let include_personal = reach.is_some_and(|reach| reach.include_personal);
        Permit::issue(PermitParts {
            verb: self.verb,
            resource: self.resource,
            facts: facts.counts(),
            teams,
            include_personal,
            row_limit: self.limit.map_or(row_cap, |limit| limit.min(row_cap)),
            row_cap,
            store_revision: self.store_revision,
            basis: self.basis,
        })
    }
}

/// Membership in a team set of an effective reach, which always lists its teams; `Any` would be a fault and is empty.
fn names_team(teams: &TeamSet, team: &TeamId) -> bool {
    matches!(teams, TeamSet::Only(_)) && teams.contains(team)
}

/// The whole decision about rows in one call, for explanations and tests. A question for capabilities is refused with
/// `unknown_verb`, since no permit exists for it.
#[must_use]
pub fn evaluate(snapshot: &Snapshot, request: &AccessRequest<'_>, facts: &NativeFacts) -> Decision {
    match admit(snapshot, request) {
        Ok(Admission::Rows(admitted)) => Decision::Allow(admitted.decide(facts)),
        Ok(Admission::Capabilities(_)) => Decision::Deny(Deny::new(DenyCode::UnknownVerb)),
        Err(deny) => Decision::Deny(deny),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;
