//! How a gateway is asked: paths, paging, where rows are and which members hold what.
//!
//! Invariant: a mapping can only describe reading. It names no method, no header and no host; a path is a template of
//! whole segments, so no value put into it can add a segment or a query.
//! Elsewhere on purpose: sending the questions (the gateway client), building them (`plan.rs`), the texts of a
//! mapping in policy (`rules/mapping.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::resource::Resource;

mod path;
mod preset;

pub(crate) use path::percent_encode;
pub use path::{MemberPath, PathError, PathTemplate};

/// One whole mapping: facts and every resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Where the subject's teams, projects and missions come from.
    pub facts: FactsMap,
    /// The collections that answer for a resource, in the order they are merged. A resource without an entry, or
    /// with an empty one, is not served.
    #[serde(serialize_with = "sources_form")]
    pub sources: BTreeMap<Resource, Vec<Arc<SourceMap>>>,
}

/// One collection of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceMap {
    /// The value of the `kind` filter that chooses this source; only where a resource has several.
    pub kind: Option<String>,
    /// Path of the list; holds `{mission}` exactly when `per_mission`.
    pub list: PathTemplate,
    /// Path of one row, holding `{id}`; without it a row is looked for in the list.
    pub get: Option<PathTemplate>,
    /// Member path to the array of rows in the answer of `list`; empty when the array is the answer.
    pub rows: MemberPath,
    /// Member path to the row in the answer of `get`; empty when the row is the answer.
    pub item: MemberPath,
    /// How pages are asked for; `None` when the gateway sends everything at once, in any order.
    pub paging: Option<Keyset>,
    /// How the gateway is told to narrow by team; `None` when it cannot be.
    pub narrow: Option<Narrow>,
    /// Which members hold what.
    pub fields: FieldMap,
    /// Query parameters of the gateway by our filter key; the other keys are checked on the rows alone.
    pub filters: BTreeMap<String, String>,
    /// Whether the list is asked for once per mission.
    pub per_mission: bool,
    /// A member that must be a non-empty string; a row where it is not is no row of this resource.
    pub non_empty: Option<String>,
    /// The gateway's own search in the collection, where it has one that answers GET.
    pub search: Option<NativeSearch>,
}

/// A search of the gateway's own. Its answers are looked at like those of any list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NativeSearch {
    /// Its path, without placeholders.
    pub path: PathTemplate,
    /// Query parameter for the words.
    pub query: String,
    /// Query parameter for the number of rows.
    pub limit: String,
    /// Member path to the rows in the answer.
    pub rows: MemberPath,
    /// Members of its rows in which the gateway says how well they fit; they are not sent.
    pub scores: Vec<String>,
}

/// Keyset paging: newest first, by created-at and id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Keyset {
    /// Query parameter for the number of rows.
    pub limit: String,
    /// Query parameter for the position to read on from: `<created-at as the gateway wrote it>,<id>`.
    pub before: String,
}

/// Narrowing by team and owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Narrow {
    /// Query parameter naming a team, repeated for each.
    pub team: String,
    /// Query parameter saying `true` or `false`: whether the subject's own rows of no team are wanted.
    pub personal: String,
}

/// Which top-level members of a row hold what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FieldMap {
    /// The row's id.
    pub id: String,
    /// The row's instant of creation, RFC 3339.
    pub created_at: String,
    /// The owner's user id.
    pub owner: Option<String>,
    /// The team's id.
    pub team: Option<String>,
    /// The project's id.
    pub project: Option<String>,
    /// The mission's id.
    pub mission: Option<String>,
}

/// Where the subject's native facts come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FactsMap {
    /// One endpoint with all three kinds, in pages.
    Single(SingleFacts),
    /// One unpaged list for each kind.
    Lists(ListedFacts),
}

/// Facts from one paged endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SingleFacts {
    /// Its path.
    pub path: PathTemplate,
    /// Query parameter for the number of entries.
    pub limit: String,
    /// Entries asked for at a time.
    pub page: u32,
    /// Query parameter for the position to read on from.
    pub after: String,
    /// Member path to the position of the next page; absent or null there ends the reading.
    pub next: MemberPath,
    /// Teams.
    pub teams: FactEntries,
    /// Projects.
    pub projects: FactEntries,
    /// Missions.
    pub missions: FactEntries,
}

/// Facts from three lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedFacts {
    /// Teams.
    pub teams: FactList,
    /// Projects.
    pub projects: FactList,
    /// Missions.
    pub missions: FactList,
}

/// One list of facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactList {
    /// Its path.
    pub path: PathTemplate,
    /// Its entries.
    pub entries: FactEntries,
}

/// Entries of one kind of fact in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FactEntries {
    /// Member path to the array; empty when the array is the answer.
    pub rows: MemberPath,
    /// Member that holds the id.
    pub id: String,
    /// Member that holds the team's id.
    pub team: Option<String>,
    /// Member that holds the project's id.
    pub project: Option<String>,
    /// Member that holds the owner's user id.
    pub owner: Option<String>,
}

impl Mapping {
    /// The sources of a resource, in the order they are merged; empty when it is not served.
    #[must_use]
    pub fn sources(&self, resource: Resource) -> &[Arc<SourceMap>] {
        self.sources.get(&resource).map_or(&[], Vec::as_slice)
    }

    /// Whether the gateway can be asked for the resource at all.
    #[must_use]
    pub fn serves(&self, resource: Resource) -> bool {
        resource.is_served() && !self.sources(resource).is_empty()
    }

    /// SHA-256 over the canonical form: equal exactly when two mappings ask the same questions.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let value = serde_json::to_value(self).unwrap_or_default();
        let text = crate::query_hash::canonical_json(&value);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        hash
    }
}

fn sources_form<S: Serializer>(
    sources: &BTreeMap<Resource, Vec<Arc<SourceMap>>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let plain = sources.iter().map(|(resource, list)| {
        let list: Vec<&SourceMap> = list.iter().map(Arc::as_ref).collect();
        (resource, list)
    });
    serializer.collect_map(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn presets_serve_every_served_resource_and_no_sensitive_one() {
        for mapping in [Mapping::internal_v1(), Mapping::mosaic()] {
            for resource in Resource::ALL {
                assert_eq!(mapping.serves(resource), resource.is_served(), "{resource}");
            }
            for (resource, sources) in &mapping.sources {
                for source in sources {
                    assert_eq!(source.list.names_mission(), source.per_mission);
                    assert!(source.get.as_ref().is_none_or(PathTemplate::names_id));
                    for key in source.filters.keys() {
                        assert!(resource.filter_keys().contains(&key.as_str()), "{key}");
                    }
                }
            }
        }
    }

    #[test]
    fn hashes_tell_mappings_apart() {
        let one = Mapping::internal_v1();
        let mut other = one.clone();
        assert_eq!(one.hash(), other.hash());
        assert_ne!(one.hash(), Mapping::mosaic().hash());
        let tasks = other.sources.get_mut(&Resource::Tasks).unwrap();
        Arc::make_mut(tasks.first_mut().unwrap()).fields.owner = None;
        assert_ne!(one.hash(), other.hash());
    }
}
