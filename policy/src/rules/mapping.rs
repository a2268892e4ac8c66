//! The mapping sections of policy: how a gateway of one's own is asked.
//!
//! Invariant: a mapping is whole or refused. Facts are required, each resource is described in one place, and no
//! member or query parameter plays two parts.
//! Elsewhere on purpose: the built-in mappings (`crate::mapping`), whether the gateway's preset is `mapped` at all
//! (the proxy's settings).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts;
use super::reader::{Place, Reader, Section, name};
use crate::mapping::{
    FactsMap, FieldMap, Keyset, Mapping, MemberPath, Narrow, NativeSearch, PathTemplate, SourceMap,
};
use crate::resource::Resource;

pub(super) const SOURCE_KEYS: [&str; 11] = [
    "list",
    "get",
    "rows",
    "item",
    "paging",
    "narrow",
    "fields",
    "filters",
    "per_mission",
    "non_empty",
    "search",
];
pub(super) const SEARCH_KEYS: [&str; 5] = ["path", "query", "limit", "rows", "scores"];
pub(super) const FIELD_KEYS: [&str; 6] =
    ["id", "created_at", "owner", "team", "project", "mission"];
pub(super) const MEMORY_KINDS: [&str; 2] = ["insight", "preference"];

/// What the files say about the mapping so far.
#[derive(Default)]
pub(super) struct MappingParts {
    facts: Option<FactsMap>,
    sources: BTreeMap<Resource, Vec<Arc<SourceMap>>>,
    place: Option<Place>,
    facts_seen: bool,
    pub(super) semantic: Option<bool>,
}

/// Reads the `[mapping]` table of one file.
pub(super) fn read(reader: &mut Reader<'_>, parts: &mut MappingParts, section: Section<'_>) {
    if section.table.contains_key("semantic") {
        if parts.semantic.is_some() {
            reader.problem(
                section.span(),
                "mapping.semantic is in another file already",
                "keep one",
            );
        }
        parts.semantic = reader.boolean(section, "semantic");
    }
    if section.table.is_empty() {
        parts.place.get_or_insert((reader.file, section.span()));
    }
    for (key, value) in section.table.iter() {
        let name: &str = key.get_ref();
        if name == "semantic" {
            continue;
        }
        parts.place.get_or_insert((reader.file, section.span()));
        let Some(table) = reader.as_table("the mapping", key.span(), value) else {
            continue;
        };
        if name == "facts" {
            if parts.facts_seen {
                reader.problem(
                    key.span(),
                    "mapping.facts is in another file already",
                    "keep one",
                );
            }
            parts.facts_seen = true;
            parts.facts = facts::read(reader, table);
            continue;
        }
        match Resource::parse(name) {
            Ok(resource) if !resource.is_served() => {
                reader.problem(
                    key.span(),
                    format!("{resource} is not served in this version"),
                    "remove it",
                );
            }
            Ok(resource) if parts.sources.contains_key(&resource) => {
                let message = format!("mapping.{resource} is in another file already");
                reader.problem(key.span(), message, "keep one");
            }
            Ok(resource) => {
                let sources = sources(reader, resource, table);
                parts.sources.insert(resource, sources);
            }
            Err(error) => reader.problem(
                key.span(),
                format!("{name:?}: {error}"),
                "or `facts` or `semantic`",
            ),
        }
    }
}

/// The whole mapping, once all files are read; `None` when no file has one.
pub(super) fn complete(reader: &mut Reader<'_>, parts: MappingParts) -> Option<Mapping> {
    let place = parts.place?;
    if !parts.facts_seen {
        let hint = "add [mapping.facts.single] or [mapping.facts.lists]";
        reader.problem_at(place.clone(), "the mapping has no facts", hint);
    }
    if parts.sources.is_empty() {
        reader.problem_at(
            place,
            "the mapping has no resources",
            "add [mapping.tasks] or another",
        );
    }
    Some(Mapping {
        facts: parts.facts?,
        sources: parts.sources,
    })
}

/// Memory has a source for each kind, every other resource has one.
fn sources(reader: &mut Reader<'_>, resource: Resource, table: Section<'_>) -> Vec<Arc<SourceMap>> {
    if resource != Resource::Memory {
        return source(reader, resource, None, table)
            .into_iter()
            .map(Arc::new)
            .collect();
    }
    reader.only_keys(table, &MEMORY_KINDS);
    let mut found = Vec::new();
    for kind in MEMORY_KINDS {
        if let Some(section) = reader.table(table, kind, "the mapping of memory") {
            found.extend(source(reader, resource, Some(kind), section).map(Arc::new));
        }
    }
    if table.table.is_empty() {
        reader.problem(
            table.span(),
            "mapping.memory is empty",
            "add insight or preference, or both",
        );
    }
    found
}

fn source(
    reader: &mut Reader<'_>,
    resource: Resource,
    kind: Option<&str>,
    section: Section<'_>,
) -> Option<SourceMap> {
    reader.only_keys(section, &SOURCE_KEYS);
    let per_mission = reader.boolean(section, "per_mission").unwrap_or(false);
    let list = reader.required(section, "list", PathTemplate::parse);
    let get = reader.parsed(section, "get", PathTemplate::parse);
    let rows = reader
        .parsed(section, "rows", MemberPath::parse)
        .unwrap_or_default();
    let item = reader
        .parsed(section, "item", MemberPath::parse)
        .unwrap_or_default();
    let paging = pair(reader, section, "paging", ["limit", "before"])
        .map(|[limit, before]| Keyset { limit, before });
    let narrow = pair(reader, section, "narrow", ["team", "personal"])
        .map(|[team, personal]| Narrow { team, personal });
    let fields = fields(reader, resource, section);
    let filters = filters(reader, resource, section);
    let non_empty = reader.parsed(section, "non_empty", name);
    let search = search(reader, section);
    check_templates(reader, section, per_mission, list.as_ref(), get.as_ref());
    if paging.is_some() && per_mission {
        reader.problem(
            section.span(),
            "a source asked per mission cannot be paged",
            "remove paging",
        );
    }
    let source = SourceMap {
        kind: kind.map(str::to_owned),
        list: list?,
        get,
        rows,
        item,
        paging,
        narrow,
        fields: fields?,
        filters,
        per_mission,
        non_empty,
        search,
    };
    check_parameters(reader, section, &source);
    check_scores(reader, section, &source);
    Some(source)
}

fn check_templates(
    reader: &mut Reader<'_>,
    section: Section<'_>,
    per_mission: bool,
    list: Option<&PathTemplate>,
    get: Option<&PathTemplate>,
) {
    if list.is_some_and(|list| list.names_mission() != per_mission || list.names_id()) {
        let hint = "list holds {mission} exactly when per_mission is true, and never {id}";
        reader.problem(section.span(), "the placeholders of list do not fit", hint);
    }
    if get.is_some_and(|get| !get.names_id() || get.names_mission()) {
        let hint = "get holds {id} and nothing else";
        reader.problem(section.span(), "the placeholders of get do not fit", hint);
    }
}

/// What a search's rows are stripped of may not be what says which row one is, and whose.
fn check_scores(reader: &mut Reader<'_>, section: Section<'_>, source: &SourceMap) {
    let fields = &source.fields;
    let references = [
        &fields.owner,
        &fields.team,
        &fields.project,
        &fields.mission,
    ];
    let kept: Vec<&str> = ["id", "createdAt", &fields.id, &fields.created_at]
        .into_iter()
        .chain(references.into_iter().flatten().map(String::as_str))
        .collect();
    let scores = source.search.iter().flat_map(|search| &search.scores);
    for score in scores.filter(|score| kept.contains(&score.as_str())) {
        let message = format!("{score:?} says which row it is or whose, and cannot be a score");
        reader.problem(section.span(), message, "take it off search.scores");
    }
}

/// No query parameter may be written for two purposes.
fn check_parameters(reader: &mut Reader<'_>, section: Section<'_>, source: &SourceMap) {
    let paging = source
        .paging
        .iter()
        .flat_map(|keyset| [&keyset.limit, &keyset.before]);
    let narrow = source
        .narrow
        .iter()
        .flat_map(|narrow| [&narrow.team, &narrow.personal]);
    let mut names: Vec<_> = paging
        .chain(narrow)
        .chain(source.filters.values())
        .collect();
    names.sort();
    if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
        let message = format!("the query parameter {twice:?} is used for two things");
        reader.problem(section.span(), message, "give each its own");
    }
}

/// The gateway's own search in a collection.
fn search(reader: &mut Reader<'_>, section: Section<'_>) -> Option<NativeSearch> {
    let table = reader.table(section, "search", "search")?;
    reader.only_keys(table, &SEARCH_KEYS);
    let path = reader.required(table, "path", PathTemplate::parse);
    if path
        .as_ref()
        .is_some_and(|path| path.names_id() || path.names_mission())
    {
        let hint = "a search is one path for all rows";
        reader.problem(
            table.span(),
            "the path of a search has no placeholders",
            hint,
        );
    }
    let [query, limit] = ["query", "limit"].map(|key| reader.required(table, key, name));
    let rows = reader
        .parsed(table, "rows", MemberPath::parse)
        .unwrap_or_default();
    let scores = reader.list(table, "scores", name).unwrap_or_default();
    if query.is_some() && query == limit {
        let message = "one query parameter is used for two things";
        reader.problem(table.span(), message, "give each its own");
    }
    Some(NativeSearch {
        path: path?,
        query: query?,
        limit: limit?,
        rows,
        scores: scores.into_iter().map(|(score, _)| score).collect(),
    })
}

/// A table with exactly these two names in it.
fn pair<'t>(
    reader: &mut Reader<'_>,
    section: Section<'t>,
    key: &'t str,
    keys: [&str; 2],
) -> Option<[String; 2]> {
    let table = reader.table(section, key, key)?;
    reader.only_keys(table, &keys);
    let [first, second] = keys.map(|key| reader.required(table, key, name));
    Some([first?, second?])
}

fn fields(reader: &mut Reader<'_>, resource: Resource, section: Section<'_>) -> Option<FieldMap> {
    let Some(table) = reader.table(section, "fields", "fields") else {
        if !section.table.contains_key("fields") {
            reader.missing(section, "fields");
        }
        return None;
    };
    reader.only_keys(table, &FIELD_KEYS);
    let id = reader.required(table, "id", name);
    let created_at = reader.required(table, "created_at", name);
    let [owner, team, project, mission] =
        ["owner", "team", "project", "mission"].map(|key| reader.parsed(table, key, name));
    let fields = FieldMap {
        id: id?,
        created_at: created_at?,
        owner,
        team,
        project,
        mission,
    };
    let ownership = [
        &fields.owner,
        &fields.team,
        &fields.project,
        &fields.mission,
    ];
    let mut names: Vec<_> = ownership.into_iter().flatten().collect();
    if names.is_empty() {
        let message = "no field says whose a row is, so every row would be withheld";
        reader.problem(
            table.span(),
            message,
            "name owner, team, project or mission",
        );
    }
    names.extend([&fields.id, &fields.created_at]);
    names.sort();
    if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
        let message = format!("the member {twice:?} is used for two things");
        reader.problem(table.span(), message, "give each its own");
    }
    if resource == Resource::Memory && fields.owner.is_none() {
        reader.problem(
            table.span(),
            "a row of memory is shown to its owner only",
            "name owner",
        );
    }
    if resource == Resource::Notes && fields.mission.is_none() {
        reader.problem(
            table.span(),
            "a note is shown only within its mission",
            "name mission",
        );
    }
    Some(fields)
}

fn filters(
    reader: &mut Reader<'_>,
    resource: Resource,
    section: Section<'_>,
) -> BTreeMap<String, String> {
    let Some(table) = reader.table(section, "filters", "filters") else {
        return BTreeMap::new();
    };
    // `kind` chooses a source and is never passed on.
    let keys: Vec<_> = resource
        .filter_keys()
        .iter()
        .copied()
        .filter(|key| *key != "kind")
        .collect();
    reader.only_keys(table, &keys);
    keys.into_iter()
        .filter_map(|key| Some((key.to_owned(), reader.parsed(table, key, name)?)))
        .collect()
}
