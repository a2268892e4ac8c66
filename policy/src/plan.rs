//! What the gateway is asked: the requests of one question, built from its permit.
//!
//! Invariant: a plan only exists for a permit and never asks for more than it: teams and personal rows are named to a
//! gateway that can narrow, and a permit that reaches nothing has a plan without requests. Narrowing at the gateway
//! saves work; what may pass is decided on the rows (`rows`).
//! Elsewhere on purpose: methods, headers, hosts, reading on (the gateway client), merging sources.

use std::sync::Arc;

use crate::decision::Permit;
use crate::id::{MissionId, TeamId};
use crate::mapping::{Mapping, NativeSearch, SourceMap, percent_encode};
use crate::native::{MissionFacts, NativeFacts};
use crate::request::{ItemId, QueryFilter};
use crate::resource::Resource;
use crate::rows::RowMatch;

/// Longest list of teams put into a request, in bytes; a longer one is left to the row filter, because servers refuse
/// request targets of many kilobytes.
const MAX_TEAMS_QUERY: usize = 4096;

/// The requests of one question, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPlan {
    sources: Vec<SourcePlan>,
}

/// What a request answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceShape {
    /// Rows at [`SourceMap::rows`].
    Rows,
    /// One row at [`SourceMap::item`]; 404 when there is none.
    Item,
}

/// One collection to ask, page by page where it has pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    source: Arc<SourceMap>,
    shape: SourceShape,
    path: String,
    query: String,
    row_match: RowMatch,
}

/// The row after which a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// Its instant of creation, as the gateway wrote it.
    pub created_at: &'a str,
    /// Its id.
    pub id: &'a str,
}

/// Why a question cannot be put to this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Neither the gateway nor its rows know the filter, so it would be ignored.
    #[error("the gateway's {resource} cannot be filtered by {key}: ask without this filter")]
    FilterUnsupported {
        /// The resource.
        resource: Resource,
        /// The filter key.
        key: &'static str,
    },
}

impl QueryPlan {
    /// The requests of a list.
    ///
    /// # Errors
    /// [`PlanError`] when a filter would have no effect.
    pub fn list(
        permit: &Permit,
        mapping: &Mapping,
        filter: &QueryFilter,
        facts: &NativeFacts,
    ) -> Result<Self, PlanError> {
        let resource = permit.resource();
        let mut sources = Vec::new();
        if !reaches_rows(permit) {
            return Ok(Self { sources });
        }
        let wanted = |source: &&Arc<SourceMap>| match (filter.value("kind"), &source.kind) {
            (Some(wanted), Some(kind)) => wanted == kind,
            _ => true,
        };
        for source in mapping.sources(resource).iter().filter(wanted) {
            let row_match = matches(resource, source, filter)?;
            let query = list_query(permit, source, filter);
            let listed = |path| SourcePlan {
                source: Arc::clone(source),
                shape: SourceShape::Rows,
                path,
                query: query.clone(),
                row_match: row_match.clone(),
            };
            if source.per_mission {
                let only = filter.value("missionId");
                sources.extend(mission_paths(permit, source, facts, only).map(listed));
            } else {
                sources.extend(source.list.fill(None, None).map(listed));
            }
        }
        Ok(Self { sources })
    }

    /// The requests of a get, to be sent in order until one answers with the row. Where the gateway has no path for a
    /// single row, its list is searched for the id.
    #[must_use]
    pub fn get(permit: &Permit, mapping: &Mapping, id: &ItemId, facts: &NativeFacts) -> Self {
        let mut sources = Vec::new();
        if !reaches_rows(permit) {
            return Self { sources };
        }
        for source in mapping.sources(permit.resource()) {
            let mut row_match = RowMatch {
                equals: Vec::new(),
                non_empty: source.non_empty.clone(),
            };
            if let Some(template) = &source.get {
                sources.extend(
                    template
                        .fill(Some(id.as_str()), None)
                        .map(|path| SourcePlan {
                            source: Arc::clone(source),
                            shape: SourceShape::Item,
                            path,
                            query: String::new(),
                            row_match,
                        }),
                );
                continue;
            }
            row_match
                .equals
                .push((source.fields.id.clone(), id.as_str().to_owned()));
            let query = list_query(permit, source, &QueryFilter::default());
            let listed = |path| SourcePlan {
                source: Arc::clone(source),
                shape: SourceShape::Rows,
                path,
                query: query.clone(),
                row_match: row_match.clone(),
            };
            if source.per_mission {
                sources.extend(mission_paths(permit, source, facts, None).map(listed));
            } else {
                sources.extend(source.list.fill(None, None).map(listed));
            }
        }
        Self { sources }
    }

    /// The requests of a search: those of a list without a filter, whose rows are then looked through.
    #[must_use]
    pub fn search(permit: &Permit, mapping: &Mapping, facts: &NativeFacts) -> Self {
        // Without a filter no filter can be without effect.
        Self::list(permit, mapping, &QueryFilter::default(), facts).unwrap_or(Self {
            sources: Vec::new(),
        })
    }

    /// The collections to ask; empty when no row can pass.
    #[must_use]
    pub fn sources(&self) -> &[SourcePlan] {
        &self.sources
    }
}

impl SourcePlan {
    /// How the collection is asked and read.
    #[must_use]
    pub const fn source(&self) -> &Arc<SourceMap> {
        &self.source
    }

    /// What it answers with.
    #[must_use]
    pub const fn shape(&self) -> SourceShape {
        self.shape
    }

    /// Which rows were asked for.
    #[must_use]
    pub const fn row_match(&self) -> &RowMatch {
        &self.row_match
    }

    /// Path and query of a request for up to `rows` rows after `after`. Both only count where the source has pages:
    /// otherwise everything comes at once and the target is always the same.
    #[must_use]
    pub fn target(&self, rows: u32, after: Option<Position<'_>>) -> String {
        let mut target = self.path.clone();
        let mut query = self.query.clone();
        if let (SourceShape::Rows, Some(keyset)) = (self.shape, &self.source.paging) {
            pair(&keyset.limit, &rows.to_string(), &mut query);
            if let Some(Position { created_at, id }) = after {
                pair(&keyset.before, &format!("{created_at},{id}"), &mut query);
            }
        }
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query);
        }
        target
    }
}

/// The target that asks a gateway's own search for up to `rows` rows that fit `words`.
#[must_use]
pub fn native_target(search: &NativeSearch, words: &str, rows: u32) -> String {
    let mut query = String::new();
    pair(&search.query, words, &mut query);
    pair(&search.limit, &rows.to_string(), &mut query);
    let path = search.path.fill(None, None).unwrap_or_default();
    format!("{path}?{query}")
}

/// Whether any row can pass: memory has no teams, and where neither teams nor personal rows are in reach nothing can.
fn reaches_rows(permit: &Permit) -> bool {
    permit.include_personal()
        || (permit.resource() != Resource::Memory && !permit.teams().is_empty())
}

/// Appends `name=value`, percent-encoded.
fn pair(name: &str, value: &str, query: &mut String) {
    if !query.is_empty() {
        query.push('&');
    }
    percent_encode(name, query);
    query.push('=');
    percent_encode(value, query);
}

/// The query of a list but for its page.
fn list_query(permit: &Permit, source: &SourceMap, filter: &QueryFilter) -> String {
    let mut query = String::new();
    for (key, value) in filter.iter() {
        if let Some(name) = source.filters.get(key) {
            pair(name, value, &mut query);
        }
    }
    if let Some(narrow) = &source.narrow {
        let personal = if permit.include_personal() {
            "true"
        } else {
            "false"
        };
        pair(&narrow.personal, personal, &mut query);
        if permit.resource() != Resource::Memory {
            let mut teams = String::new();
            for team in permit.teams().iter() {
                pair(&narrow.team, team.as_str(), &mut teams);
            }
            if !teams.is_empty() && teams.len() <= MAX_TEAMS_QUERY {
                query.push('&');
                query.push_str(&teams);
            }
        }
    }
    query
}

/// What the rows must hold. The gateway is asked to filter too, but its word is not taken for it.
fn matches(
    resource: Resource,
    source: &SourceMap,
    filter: &QueryFilter,
) -> Result<RowMatch, PlanError> {
    let mut equals = Vec::new();
    for (key, value) in filter.iter() {
        let member = match key {
            "kind" => continue,
            "projectId" => source.fields.project.clone(),
            "missionId" => source.fields.mission.clone(),
            _ => Some(key.to_owned()),
        };
        match member {
            Some(member) => equals.push((member, value.to_owned())),
            None if source.filters.contains_key(key) => {}
            None => return Err(PlanError::FilterUnsupported { resource, key }),
        }
    }
    Ok(RowMatch {
        equals,
        non_empty: source.non_empty.clone(),
    })
}

/// The list paths of the missions that pass under the permit; of `only` one of them, where it is named.
fn mission_paths<'a>(
    permit: &'a Permit,
    source: &'a SourceMap,
    facts: &'a NativeFacts,
    only: Option<&'a str>,
) -> impl Iterator<Item = String> + use<'a> {
    facts
        .missions()
        .iter()
        .filter(move |(id, _)| only.is_none_or(|only| id.as_str() == only))
        .filter(move |(_, mission)| mission_passes(permit, mission, facts))
        .filter_map(|(id, _): (&MissionId, _)| source.list.fill(None, Some(id.as_str())))
}

/// The rule of rows (specification, section 6.3) for a mission known by its facts.
fn mission_passes(permit: &Permit, mission: &MissionFacts, facts: &NativeFacts) -> bool {
    let project = match &mission.project {
        None => None,
        Some(id) => match facts.projects().get(id) {
            Some(project) => Some(project),
            // A reference that cannot be resolved opens nothing.
            None => return false,
        },
    };
    let team = mission
        .team
        .as_ref()
        .or(project.and_then(|project| project.team.as_ref()));
    let owner = mission
        .owner
        .as_ref()
        .or(project.and_then(|project| project.owner.as_ref()));
    match team {
        Some(team) => permit
            .teams()
            .binary_search_by(|known: &TeamId| known.cmp(team))
            .is_ok(),
        None => permit.include_personal() && owner == Some(permit.user()),
    }
}

#[cfg(test)]
mod tests;
