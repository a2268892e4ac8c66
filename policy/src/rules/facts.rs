//! The facts section of a mapping: where the subject's teams, projects and missions come from.
//!
//! Invariant: all three kinds are described or the section is refused, and a field that would not be used is a problem.
//! Elsewhere on purpose: the collections of rows (`mapping.rs`).

use super::reader::{Reader, Section, name};
use crate::mapping::{
    FactEntries, FactList, FactsMap, ListedFacts, MemberPath, PathTemplate, SingleFacts,
};

pub(super) const SINGLE_KEYS: [&str; 8] = [
    "path", "limit", "page", "after", "next", "teams", "projects", "missions",
];
pub(super) const LISTS_KEYS: [&str; 3] = ["teams", "projects", "missions"];
pub(super) const ENTRY_KEYS: [&str; 5] = ["rows", "id", "team", "project", "owner"];

/// Reads `[mapping.facts]`.
pub(super) fn read(reader: &mut Reader<'_>, section: Section<'_>) -> Option<FactsMap> {
    reader.only_keys(section, &["single", "lists"]);
    if section.table.len() != 1 {
        let message = "mapping.facts has either single or lists";
        reader.problem(section.span(), message, "keep one of the two");
        return None;
    }
    if let Some(table) = reader.table(section, "single", "mapping.facts.single") {
        return single_facts(reader, table).map(FactsMap::Single);
    }
    let table = reader.table(section, "lists", "mapping.facts.lists")?;
    reader.only_keys(table, &LISTS_KEYS);
    let [teams, projects, missions] = LISTS_KEYS.map(|kind| {
        let entries = fact_table(reader, table, kind)?;
        let known: Vec<_> = ["path"].into_iter().chain(ENTRY_KEYS).collect();
        reader.only_keys(entries, &known);
        let path = fixed_path(reader, entries);
        let entries = fact_entries(reader, entries, kind);
        Some(FactList {
            path: path?,
            entries: entries?,
        })
    });
    Some(FactsMap::Lists(ListedFacts {
        teams: teams?,
        projects: projects?,
        missions: missions?,
    }))
}

fn single_facts(reader: &mut Reader<'_>, section: Section<'_>) -> Option<SingleFacts> {
    reader.only_keys(section, &SINGLE_KEYS);
    let path = fixed_path(reader, section);
    let [limit, after] = ["limit", "after"].map(|key| reader.required(section, key, name));
    let next = reader.required(section, "next", |text| {
        MemberPath::parse(text)
            .ok()
            .filter(|path| !path.is_root())
            .ok_or("name a member")
    });
    let page = reader
        .integer(section, "page", 1, 10_000)
        .and_then(|page| u32::try_from(page).ok())
        .unwrap_or(1000);
    let [teams, projects, missions] = LISTS_KEYS.map(|kind| {
        let entries = fact_table(reader, section, kind)?;
        reader.only_keys(entries, &ENTRY_KEYS);
        fact_entries(reader, entries, kind)
    });
    Some(SingleFacts {
        path: path?,
        limit: limit?,
        page,
        after: after?,
        next: next?,
        teams: teams?,
        projects: projects?,
        missions: missions?,
    })
}

fn fact_table<'t>(
    reader: &mut Reader<'_>,
    section: Section<'t>,
    kind: &'t str,
) -> Option<Section<'t>> {
    if !section.table.contains_key(kind) {
        reader.missing(section, kind);
    }
    reader.table(section, kind, kind)
}

/// A path without placeholders.
fn fixed_path(reader: &mut Reader<'_>, section: Section<'_>) -> Option<PathTemplate> {
    reader.required(section, "path", |text| {
        let path = PathTemplate::parse(text).map_err(|error| error.to_string())?;
        if path.names_id() || path.names_mission() {
            return Err("the path of facts has no placeholders".to_owned());
        }
        Ok(path)
    })
}

fn fact_entries(reader: &mut Reader<'_>, section: Section<'_>, kind: &str) -> Option<FactEntries> {
    let rows = reader
        .parsed(section, "rows", MemberPath::parse)
        .unwrap_or_default();
    let id = reader.required(section, "id", name);
    let [team, project, owner] =
        ["team", "project", "owner"].map(|key| reader.parsed(section, key, name));
    let without_effect = match kind {
        "teams" => team.is_some() || project.is_some() || owner.is_some(),
        "projects" => project.is_some(),
        _ => false,
    };
    if without_effect {
        let hint = "teams have id; projects id, team, owner; missions id, project, team, owner";
        reader.problem(
            section.span(),
            format!("{kind} name a field that is not used"),
            hint,
        );
    }
    let entries = FactEntries {
        rows,
        id: id?,
        team,
        project,
        owner,
    };
    Some(entries)
}
