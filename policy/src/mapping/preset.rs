//! The two built-in mappings.
//!
//! Invariant: these constants are the contract with the reference gateway and `docs/gateway/internal-v1.openapi.yaml`.
//! Elsewhere on purpose: mappings written in policy (`rules/mapping.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    FactEntries, FactList, FactsMap, FieldMap, Keyset, ListedFacts, Mapping, MemberPath, Narrow,
    NativeSearch, PathTemplate, SingleFacts, SourceMap,
};
use crate::resource::Resource;

/// A template of a preset; the tests prove that each one parses, so the fallback is never taken.
fn path(text: &str) -> PathTemplate {
    PathTemplate::parse(text).unwrap_or_default()
}

fn member(text: &str) -> MemberPath {
    MemberPath::parse(text).unwrap_or_default()
}

fn name(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn entries(
    rows: &str,
    team: Option<&str>,
    project: Option<&str>,
    owner: Option<&str>,
) -> FactEntries {
    FactEntries {
        rows: member(rows),
        id: "id".to_owned(),
        team: team.map(str::to_owned),
        project: project.map(str::to_owned),
        owner: owner.map(str::to_owned),
    }
}

impl Mapping {
    /// The documented internal contract: keyset pages newest first, narrowing by team, facts from one endpoint.
    #[must_use]
    pub fn internal_v1() -> Self {
        let facts = SingleFacts {
            path: path("/internal/v1/facts"),
            limit: "limit".to_owned(),
            page: 1000,
            after: "after".to_owned(),
            next: member("next"),
            teams: entries("teams", None, None, None),
            projects: entries("projects", Some("teamId"), None, Some("ownerId")),
            missions: entries(
                "missions",
                Some("teamId"),
                Some("projectId"),
                Some("ownerId"),
            ),
        };
        let sources = BTreeMap::from([
            (
                Resource::Tasks,
                vec![internal(
                    "tasks",
                    None,
                    &["status", "projectId", "missionId"],
                )],
            ),
            (
                Resource::Notes,
                vec![internal("notes", None, &["missionId"])],
            ),
            (
                Resource::Memory,
                vec![
                    internal("insights", Some("insight"), &[]),
                    internal("preferences", Some("preference"), &[]),
                ],
            ),
            (
                Resource::Projects,
                vec![internal("projects", None, &["status"])],
            ),
            (
                Resource::Missions,
                vec![internal("missions", None, &["status", "projectId"])],
            ),
        ]);
        Self {
            facts: FactsMap::Single(facts),
            sources: shared(sources),
        }
    }

    /// The REST paths of an unchanged Mosaic Stack gateway: whole lists at the root, no paging, no narrowing.
    #[must_use]
    pub fn mosaic() -> Self {
        let list = |at: &str, entries: FactEntries| FactList {
            path: path(at),
            entries,
        };
        let facts = ListedFacts {
            teams: list("/api/teams", entries("", None, None, None)),
            projects: list(
                "/api/projects",
                entries("", Some("teamId"), None, Some("ownerId")),
            ),
            missions: list(
                "/api/missions",
                entries("", Some("teamId"), Some("projectId"), Some("userId")),
            ),
        };
        let mut notes = mosaic("/api/missions/{mission}/tasks", false, "userId", None);
        notes.per_mission = true;
        notes.non_empty = name("notes");
        let mut insights = mosaic("/api/memory/insights", false, "userId", Some("insight"));
        insights.search = Some(NativeSearch {
            path: path("/api/memory/search"),
            query: "query".to_owned(),
            limit: "limit".to_owned(),
            rows: MemberPath::default(),
            scores: ["score", "similarity", "distance"]
                .map(str::to_owned)
                .to_vec(),
        });
        let preferences = mosaic(
            "/api/memory/preferences",
            false,
            "userId",
            Some("preference"),
        );
        let sources = BTreeMap::from([
            (
                Resource::Tasks,
                vec![mosaic("/api/tasks", true, "userId", None)],
            ),
            (Resource::Notes, vec![notes]),
            (Resource::Memory, vec![insights, preferences]),
            (
                Resource::Projects,
                vec![mosaic("/api/projects", true, "ownerId", None)],
            ),
            (
                Resource::Missions,
                vec![mosaic("/api/missions", true, "userId", None)],
            ),
        ]);
        Self {
            facts: FactsMap::Lists(facts),
            sources: shared(sources),
        }
    }
}

fn shared(sources: BTreeMap<Resource, Vec<SourceMap>>) -> BTreeMap<Resource, Vec<Arc<SourceMap>>> {
    sources
        .into_iter()
        .map(|(resource, list)| (resource, list.into_iter().map(Arc::new).collect()))
        .collect()
}

fn fields(owner: &str) -> FieldMap {
    FieldMap {
        id: "id".to_owned(),
        created_at: "createdAt".to_owned(),
        owner: name(owner),
        team: name("teamId"),
        project: name("projectId"),
        mission: name("missionId"),
    }
}

fn internal(collection: &str, kind: Option<&str>, filters: &[&str]) -> SourceMap {
    let base = format!("/internal/v1/{collection}");
    SourceMap {
        kind: kind.map(str::to_owned),
        list: path(&base),
        get: Some(path(&format!("{base}/{{id}}"))),
        rows: member("rows"),
        item: MemberPath::default(),
        paging: Some(Keyset {
            limit: "limit".to_owned(),
            before: "before".to_owned(),
        }),
        narrow: Some(Narrow {
            team: "team".to_owned(),
            personal: "personal".to_owned(),
        }),
        fields: fields("ownerId"),
        filters: filters
            .iter()
            .map(|key| ((*key).to_owned(), (*key).to_owned()))
            .collect(),
        per_mission: false,
        non_empty: None,
        search: None,
    }
}

fn mosaic(list: &str, by_id: bool, owner: &str, kind: Option<&str>) -> SourceMap {
    SourceMap {
        kind: kind.map(str::to_owned),
        list: path(list),
        get: by_id.then(|| path(&format!("{list}/{{id}}"))),
        rows: MemberPath::default(),
        item: MemberPath::default(),
        paging: None,
        narrow: None,
        fields: fields(owner),
        filters: BTreeMap::new(),
        per_mission: false,
        non_empty: None,
        search: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_path_parses() {
        let templates = |mapping: &Mapping| -> Vec<String> {
            mapping
                .sources
                .values()
                .flatten()
                .flat_map(|source| {
                    let search = source.search.as_ref().map(|search| &search.path);
                    [Some(&source.list), source.get.as_ref(), search]
                })
                .flatten()
                .map(PathTemplate::to_string)
                .collect()
        };
        for text in templates(&Mapping::internal_v1()) {
            assert!(text.starts_with("/internal/v1/"), "{text}");
        }
        for text in templates(&Mapping::mosaic()) {
            assert!(text.starts_with("/api/"), "{text}");
        }
        assert!(matches!(
            Mapping::internal_v1().facts,
            FactsMap::Single(SingleFacts { path, .. }) if path.to_string() == "/internal/v1/facts"
        ));
        assert!(matches!(
            Mapping::mosaic().facts,
            FactsMap::Lists(ListedFacts { teams, .. }) if teams.path.to_string() == "/api/teams"
        ));
    }
}
