//! The JSON Schema of a policy file, for editors and for checking before a reload.
//!
//! Invariant: the schema knows exactly the keys that the parser knows; a test compares them.
//! Elsewhere on purpose: checks that need more than one key or file (`parse.rs`).
#![allow(dead_code, reason = "the fields exist for the derived schema")]

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde_json::Value;

use crate::compat::Compat;
use crate::id::TeamId;
use crate::mapping::{FieldMap, Keyset, MemberPath, Narrow, PathTemplate};
use crate::peer::PeerName;
use crate::rate::RateRule;
use crate::reach::RowLimit;
use crate::resource::Resource;

/// The JSON Schema of one file of `policy.d`.
#[must_use]
pub fn policy_schema() -> Value {
    schemars::schema_for!(PolicyFile).to_value()
}

/// One file of a policy bundle.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PolicyFile {
    /// The version of the format.
    #[schemars(range(min = 1, max = 1))]
    schema: u64,
    /// What every peer can reach at most; once over all files. Without it and without rules of its own, a peer
    /// reaches nothing.
    ceiling: Option<CeilingTable>,
    /// What single peers can reach, within the ceiling; each once over all files.
    #[schemars(default)]
    peers: BTreeMap<PeerName, PeerTable>,
    /// Which members of rows are removed.
    redaction: Option<RedactionTable>,
    /// How a gateway of one's own is asked.
    mapping: Option<MappingTable>,
}

/// What every peer can reach at most.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct CeilingTable {
    /// The resources in reach.
    resources: BTreeSet<Resource>,
    /// The most rows of one answer.
    max_rows_per_query: Option<RowLimit>,
    /// The teams in reach; any when absent.
    teams: Option<BTreeSet<TeamId>>,
    /// Whether rows of no team are in reach of their owner.
    #[schemars(default = "yes")]
    include_personal: bool,
    /// How often each grant may ask; 120 a minute and 30 at once when no rule says anything.
    rate_limit: Option<RateRule>,
    /// Different rows that one grant may see in a UTC day; any number when absent.
    #[schemars(range(min = 1, max = 10_000_000))]
    rows_per_day: Option<u32>,
    /// Whether the peer is suspended when one of its earlier certificates asks for renewal, which only a copy of its keys or
    /// a restored backup does. True in the ceiling counts for every peer.
    #[schemars(default)]
    suspend_on_renewal_conflict: bool,
}

/// What one peer can reach at most.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct PeerTable {
    /// The resources in reach; those of the ceiling when absent.
    resources: Option<BTreeSet<Resource>>,
    /// The most rows of one answer.
    max_rows_per_query: Option<RowLimit>,
    /// The teams in reach; those of the ceiling when absent.
    teams: Option<BTreeSet<TeamId>>,
    /// Whether rows of no team are in reach of their owner.
    #[schemars(default = "yes")]
    include_personal: bool,
    /// How often each grant may ask; 120 a minute and 30 at once when no rule says anything.
    rate_limit: Option<RateRule>,
    /// Different rows that one grant may see in a UTC day; any number when absent.
    #[schemars(range(min = 1, max = 10_000_000))]
    rows_per_day: Option<u32>,
    /// Whether the peer is suspended when one of its earlier certificates asks for renewal, which only a copy of its keys or
    /// a restored backup does. True in the ceiling counts for every peer.
    #[schemars(default)]
    suspend_on_renewal_conflict: bool,
    /// Sensitive resources that a scope for this peer may name.
    #[schemars(default)]
    allow_sensitive: BTreeSet<Resource>,
    /// The older protocol that the peer knows: what came later is neither offered nor answered.
    compat: Option<Compat>,
}

/// Which members of rows are removed.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct RedactionTable {
    /// Paths below the row, by resource.
    #[schemars(default)]
    fields: BTreeMap<Resource, BTreeSet<String>>,
    /// Resource and path of members that stay although their names say secret.
    #[schemars(default)]
    exempt: BTreeSet<String>,
}

/// How a gateway of one's own is asked.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MappingTable {
    /// Whether a search may answer with rows that the gateway's own search found although none of the words occur in
    /// them; never for a resource with redaction rules. May stand alone, with any preset.
    #[schemars(default)]
    semantic: bool,
    /// Where the subject's teams, projects and missions come from.
    facts: Option<FactsTable>,
    /// Tasks.
    tasks: Option<SourceTable>,
    /// Notes.
    notes: Option<SourceTable>,
    /// Memory, one source for each kind.
    memory: Option<MemoryTable>,
    /// Projects.
    projects: Option<SourceTable>,
    /// Missions.
    missions: Option<SourceTable>,
}

/// The sources of memory.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct MemoryTable {
    /// Insights.
    insight: Option<SourceTable>,
    /// Preferences.
    preference: Option<SourceTable>,
}

/// One collection of the gateway.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SourceTable {
    /// Path of the list; holds `{mission}` exactly when `per_mission`.
    list: PathTemplate,
    /// Path of one row, holding `{id}`.
    get: Option<PathTemplate>,
    /// Member path to the rows of a list; empty for the root.
    #[schemars(default)]
    rows: MemberPath,
    /// Member path to the row of a get; empty for the root.
    #[schemars(default)]
    item: MemberPath,
    /// Keyset paging.
    paging: Option<Keyset>,
    /// Narrowing by team.
    narrow: Option<Narrow>,
    /// Which members hold what.
    fields: FieldMap,
    /// Query parameters by filter key.
    #[schemars(default)]
    filters: BTreeMap<String, String>,
    /// Whether the list is asked for once per mission.
    #[schemars(default)]
    per_mission: bool,
    /// A member that must be a non-empty string.
    non_empty: Option<String>,
    /// The gateway's own search in this collection, asked with GET.
    search: Option<SearchTable>,
}

/// A search of the gateway's own.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SearchTable {
    /// Its path, without placeholders.
    path: PathTemplate,
    /// Query parameter for the words.
    query: String,
    /// Query parameter for the number of rows.
    limit: String,
    /// Member path to the rows of the answer; empty for the root.
    #[schemars(default)]
    rows: MemberPath,
    /// Members of its rows in which the gateway says how well they fit; they are not sent.
    #[schemars(default)]
    scores: BTreeSet<String>,
}

/// Where facts come from: one of the two.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FactsTable {
    /// One paged endpoint.
    single: Option<SingleTable>,
    /// One list for each kind.
    lists: Option<ListsTable>,
}

/// Facts from one paged endpoint.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SingleTable {
    /// Its path.
    path: PathTemplate,
    /// Query parameter for the number of entries.
    limit: String,
    /// Entries asked for at a time; 1000 when absent.
    #[schemars(range(min = 1, max = 10000))]
    page: Option<u32>,
    /// Query parameter for the position to read on from.
    after: String,
    /// Member path to the position of the next page.
    next: MemberPath,
    /// Teams.
    teams: EntriesTable,
    /// Projects.
    projects: EntriesTable,
    /// Missions.
    missions: EntriesTable,
}

/// Facts from three lists.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ListsTable {
    /// Teams.
    teams: ListTable,
    /// Projects.
    projects: ListTable,
    /// Missions.
    missions: ListTable,
}

/// Entries of one kind of fact.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct EntriesTable {
    /// Member path to the entries; empty for the root.
    #[schemars(default)]
    rows: MemberPath,
    /// Member that holds the id.
    id: String,
    /// Member that holds the team's id.
    team: Option<String>,
    /// Member that holds the project's id.
    project: Option<String>,
    /// Member that holds the owner's user id.
    owner: Option<String>,
}

/// One list of facts.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ListTable {
    /// Its path.
    path: PathTemplate,
    /// Member path to the entries; empty for the root.
    #[schemars(default)]
    rows: MemberPath,
    /// Member that holds the id.
    id: String,
    /// Member that holds the team's id.
    team: Option<String>,
    /// Member that holds the project's id.
    project: Option<String>,
    /// Member that holds the owner's user id.
    owner: Option<String>,
}

fn yes() -> bool {
    true
}
