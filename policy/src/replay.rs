//! What another policy would make of grants, and of decisions that were recorded.
//!
//! Invariant: both sides are decided by the one decision function, and what cannot be known is said, not guessed: the
//! facts of a user then are not kept beyond the teams that were within reach, and no row is.
//! Elsewhere on purpose: reading records and building the snapshots (the proxy).

use std::collections::BTreeSet;

use crate::compat::Compat;
use crate::deny::{DenyCode, DenyStage};
use crate::evaluate::{Admission, admit, identify};
use crate::id::TeamId;
use crate::reach::{Reach, ResourceReach, RowLimit, TeamSet};
use crate::recorded::{AnswerThen, DecidedThen, PermittedThen};
use crate::request::AccessRequest;
use crate::resource::Resource;
use crate::snapshot::{GrantEntry, Snapshot};

/// What differs between what a grant reaches and what it would reach, one difference a line.
#[must_use]
pub fn grant_changes(before: &GrantEntry, after: &GrantEntry) -> Vec<String> {
    let mut changes = reach_changes(&before.effective, &after.effective);
    for resource in after.effective.resources.keys() {
        changes.extend(redaction_changes(before, after, *resource));
    }
    changes.extend(limit_changes(before, after));
    changes
}

/// How often the grant may ask, how many rows it may see in a day, and how its peer is treated.
fn limit_changes(before: &GrantEntry, after: &GrantEntry) -> Vec<String> {
    let (old, new) = (before.limits, after.limits);
    let rows = |rows: Option<u32>| rows.map_or("any number".to_owned(), |rows| rows.to_string());
    let compat = |compat: Option<Compat>| compat.map_or("as it is", Compat::as_str).to_owned();
    let hits = |semantic: bool| if semantic { "too" } else { "never" }.to_owned();
    [
        (
            "requests a minute",
            old.rate.per_minute().to_string(),
            new.rate.per_minute().to_string(),
        ),
        (
            "requests at once",
            old.rate.burst().to_string(),
            new.rate.burst().to_string(),
        ),
        (
            "different rows a day",
            rows(old.rows_per_day),
            rows(new.rows_per_day),
        ),
        (
            "the protocol of its peer",
            compat(before.compat),
            compat(after.compat),
        ),
        (
            "hits without a word of the search",
            hits(before.semantic),
            hits(after.semantic),
        ),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .map(|(what, old, new)| format!("{what}: {old} -> {new}"))
    .collect()
}

fn reach_changes(before: &Reach, after: &Reach) -> Vec<String> {
    let mut changes = Vec::new();
    let resources: BTreeSet<_> = before
        .resources
        .keys()
        .chain(after.resources.keys())
        .collect();
    for resource in resources {
        match (
            before.resources.get(resource),
            after.resources.get(resource),
        ) {
            (Some(_), None) => changes.push(format!("{resource}: no longer in reach")),
            (None, Some(_)) => changes.push(format!("{resource}: now in reach")),
            (Some(before), Some(after)) => {
                changes.extend(resource_changes(*resource, before, after));
            }
            (None, None) => {}
        }
    }
    let (old, new) = (before.max_rows_per_query, after.max_rows_per_query);
    if old != new {
        changes.push(format!(
            "rows of an answer: {} -> {}",
            old.rows(),
            new.rows()
        ));
    }
    changes
}

fn resource_changes(
    resource: Resource,
    before: &ResourceReach,
    after: &ResourceReach,
) -> Vec<String> {
    let mut changes = Vec::new();
    let (old, new) = (named(&before.teams), named(&after.teams));
    let lost: Vec<&TeamId> = old.difference(&new).copied().collect();
    let won: Vec<&TeamId> = new.difference(&old).copied().collect();
    if !lost.is_empty() {
        changes.push(format!("{resource}: no longer of teams {}", join(&lost)));
    }
    if !won.is_empty() {
        changes.push(format!(
            "{resource}: also of teams {}, where the user is a member",
            join(&won)
        ));
    }
    changes.extend(personal_change(
        resource,
        before.include_personal,
        after.include_personal,
    ));
    changes
}

fn personal_change(resource: Resource, before: bool, after: bool) -> Option<String> {
    match (before, after) {
        (true, false) => Some(format!("{resource}: no longer personal rows")),
        (false, true) => Some(format!("{resource}: also personal rows")),
        _ => None,
    }
}

/// The paths that would be removed, or kept, besides those that are.
fn redaction_changes(before: &GrantEntry, after: &GrantEntry, resource: Resource) -> Vec<String> {
    let (old_removed, old_exempt) = before.redaction.paths(resource);
    let (new_removed, new_exempt) = after.redaction.paths(resource);
    let missing = |from: &[String], in_it: &[String]| -> Vec<String> {
        let all = from.iter().filter(|path| !in_it.contains(path));
        all.cloned().collect()
    };
    [
        ("rule to remove added", missing(&new_removed, &old_removed)),
        ("rule to remove gone", missing(&old_removed, &new_removed)),
        ("exemption added", missing(&new_exempt, &old_exempt)),
        ("exemption gone", missing(&old_exempt, &new_exempt)),
    ]
    .into_iter()
    .filter(|(_, paths)| !paths.is_empty())
    .map(|(what, paths)| format!("{resource}: {what}: {}", paths.join(" ")))
    .collect()
}

/// The teams of a set. An effective reach always names its teams: a scope does.
fn named(teams: &TeamSet) -> BTreeSet<&TeamId> {
    match teams {
        TeamSet::Any => BTreeSet::new(),
        TeamSet::Only(teams) => teams.iter().collect(),
    }
}

fn join(teams: &[&TeamId]) -> String {
    let names: Vec<_> = teams.iter().map(|team| team.as_str()).collect();
    names.join(" ")
}

/// A decision as it was recorded.
#[derive(Clone, Debug)]
pub struct RecordedAnswer<'a> {
    /// What was asked; `now` is the present.
    pub request: AccessRequest<'a>,
    /// Why it was refused or failed.
    pub denied: Option<DenyCode>,
    /// What was kept of the decision; older records have nothing.
    pub then: Option<&'a DecidedThen>,
}

/// What another policy would make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The same, as far as the record tells.
    Same,
    /// Something else; one difference a line, never empty.
    Changed(Vec<String>),
    /// It cannot be said.
    Not(NotReplayed),
}

/// Why a recorded request cannot be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotReplayed {
    /// It ended before policy had a say: identity, form, limits, the audit log.
    NotDecidedByPolicy,
    /// Its grant is not in force any more.
    GrantNotInForce,
    /// It names nothing that could be asked again.
    Incomplete,
}

impl NotReplayed {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotDecidedByPolicy => "ended before policy had a say",
            Self::GrantNotInForce => "the grant is not in force any more",
            Self::Incomplete => "the record does not name what was asked",
        }
    }
}

/// Decides a recorded request again under `candidate`. `current` is the state in force: what differs from it is told
/// where the record does not say how far the decision reached.
#[must_use]
pub fn replay(current: &Snapshot, candidate: &Snapshot, was: &RecordedAnswer<'_>) -> Replayed {
    let request = &was.request;
    let refused = match was.denied.map(|code| (code, code.stage())) {
        None | Some((_, DenyStage::Native | DenyStage::Gateway | DenyStage::Row)) => None,
        Some((code, DenyStage::Verb | DenyStage::Resource | DenyStage::Ceiling)) => Some(code),
        Some(_) => return Replayed::Not(NotReplayed::NotDecidedByPolicy),
    };
    let entry = |snapshot| identify(snapshot, request.grant, request.subject, request.now);
    let (Ok(before), Ok(after)) = (entry(current), entry(candidate)) else {
        return Replayed::Not(NotReplayed::GrantNotInForce);
    };
    let answers = was.then.map_or(&[][..], |then| &then.answers);
    let mut changes = Vec::new();
    if answers.is_empty() {
        match again(candidate, request, request.resource) {
            Err(Outside::NotAsked) => return Replayed::Not(NotReplayed::Incomplete),
            outcome => changes.extend(differs(refused, &outcome).or_else(|| {
                (refused.is_none() && was.then.is_none())
                    .then(|| outcome.ok().flatten())
                    .flatten()
                    .map(|resource| one_resource(before, after, resource))
                    .filter(|lines| !lines.is_empty())
                    .map(|lines| lines.join("; "))
            })),
        }
    }
    for answer in answers {
        let resource = match answer {
            AnswerThen::Refused(resource) => resource.map(Resource::as_str).or(request.resource),
            AnswerThen::Permitted(permit) => Some(permit.resource.as_str()),
        };
        let outcome = again(candidate, request, resource);
        let code = match answer {
            AnswerThen::Refused(_) => refused,
            AnswerThen::Permitted(_) => None,
        };
        match (differs(code, &outcome), answer) {
            (Some(change), _) => changes.push(change),
            (None, AnswerThen::Permitted(permit)) => {
                changes.extend(permit_changes(permit, before, after));
            }
            (None, AnswerThen::Refused(_)) => {}
        }
    }
    if changes.is_empty() {
        Replayed::Same
    } else {
        Replayed::Changed(changes)
    }
}

enum Outside {
    Refused(DenyCode),
    NotAsked,
}

/// The first three steps again: the resource that may be asked for, if the question is for one.
fn again(
    candidate: &Snapshot,
    request: &AccessRequest<'_>,
    resource: Option<&str>,
) -> Result<Option<Resource>, Outside> {
    let request = AccessRequest {
        resource,
        ..*request
    };
    match admit(candidate, &request) {
        Ok(Admission::Rows(admitted)) => Ok(Some(admitted.resource())),
        Ok(Admission::Capabilities(_)) => Ok(None),
        Err(_) if resource.is_none() => Err(Outside::NotAsked),
        Err(deny) => Err(Outside::Refused(deny.code())),
    }
}

fn differs(was: Option<DenyCode>, now: &Result<Option<Resource>, Outside>) -> Option<String> {
    match (was, now) {
        (None, Err(Outside::Refused(code))) => Some(format!("let through -> refused, {code}")),
        (Some(code), Ok(_)) => Some(format!("refused, {code} -> let through")),
        (Some(was), Err(Outside::Refused(now))) if was != *now => {
            Some(format!("refused, {was} -> refused, {now}"))
        }
        _ => None,
    }
}

/// What differs in the reach of one resource, when the record does not say how far it was.
fn one_resource(before: &GrantEntry, after: &GrantEntry, resource: Resource) -> Vec<String> {
    let only = |entry: &GrantEntry| {
        let mut reach = (*entry.effective).clone();
        reach.resources.retain(|known, _| *known == resource);
        reach
    };
    reach_changes(&only(before), &only(after))
}

/// What a permit would hold less, or more, than it did.
fn permit_changes(then: &PermittedThen, before: &GrantEntry, after: &GrantEntry) -> Vec<String> {
    let resource = then.resource;
    let Some(reach) = after.effective.resources.get(&resource) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    let new = named(&reach.teams);
    let lost: Vec<&TeamId> = then
        .teams
        .iter()
        .filter(|team| !new.contains(team))
        .collect();
    if !lost.is_empty() {
        changes.push(format!("{resource}: no longer of teams {}", join(&lost)));
    }
    // Which teams the user had besides those in reach is not kept: more can only be told against what is in force.
    let old = before.effective.resources.get(&resource);
    let old = old.map(|reach| named(&reach.teams)).unwrap_or_default();
    let won: Vec<&TeamId> = new
        .iter()
        .filter(|team| !old.contains(*team) && !then.teams.contains(team))
        .copied()
        .collect();
    if !won.is_empty() {
        let won = join(&won);
        changes.push(format!(
            "{resource}: also of teams {won}, where the user is a member"
        ));
    }
    changes.extend(personal_change(
        resource,
        then.include_personal,
        reach.include_personal,
    ));
    let cap = after.effective.max_rows_per_query;
    let rows = rows_again(then, cap);
    if rows != then.row_limit {
        let (was, now) = (then.row_limit.rows(), rows.rows());
        changes.push(format!("{resource}: rows of the answer: {was} -> {now}"));
    }
    changes
}

/// The rows of the same question under another cap: what was asked for below the old one stays.
fn rows_again(then: &PermittedThen, cap: RowLimit) -> RowLimit {
    if then.row_limit < then.row_cap {
        then.row_limit.min(cap)
    } else {
        cap
    }
}

#[cfg(test)]
mod tests;
