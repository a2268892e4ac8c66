//! Policy texts in, a rule set or every problem out.
//!
//! Invariant: all files are read together; one problem anywhere means no rule set. Nothing is skipped, defaulted or
//! overridden: an unknown key, a section that occurs in two files and a rule without effect are problems.
//! Elsewhere on purpose: the mechanics of tables (`reader.rs`), the mapping sections (`mapping.rs`).

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::mapping::{self, MappingParts};
use super::reader::{Place, Reader, Section};
use super::{Parts, Paths, PeerPart, Problem, RuleSet};
use crate::compat::Compat;
use crate::id::TeamId;
use crate::peer::PeerName;
use crate::rate::{Allowance, BURST_MAX, PER_MINUTE_MAX, ROWS_PER_DAY_MAX, RateRule};
use crate::reach::{Reach, ResourceReach, RowLimit, TeamSet};
use crate::resource::Resource;
use crate::rows::redact::{Redaction, RedactionError};

/// The version of the format; every file says it.
pub(super) const SCHEMA: u64 = 1;
pub(super) const FILE_KEYS: [&str; 5] = ["schema", "ceiling", "peers", "redaction", "mapping"];
pub(super) const CEILING_KEYS: [&str; 7] = [
    "resources",
    "max_rows_per_query",
    "teams",
    "include_personal",
    "rate_limit",
    "rows_per_day",
    "suspend_on_renewal_conflict",
];
pub(super) const PEER_KEYS: [&str; 9] = [
    "resources",
    "max_rows_per_query",
    "teams",
    "include_personal",
    "rate_limit",
    "rows_per_day",
    "suspend_on_renewal_conflict",
    "allow_sensitive",
    "compat",
];
pub(super) const RATE_KEYS: [&str; 2] = ["per_minute", "burst"];
pub(super) const REDACTION_KEYS: [&str; 2] = ["fields", "exempt"];

/// A peer's section before it meets the ceiling.
struct PeerSection {
    part: PeerPart,
    names_resources: bool,
    place: Place,
}

/// What the files say so far.
#[derive(Default)]
struct Bundle {
    ceiling: Option<(Reach, Allowance, Place)>,
    suspend_on_renewal_conflict: bool,
    peers: BTreeMap<PeerName, PeerSection>,
    fields: BTreeMap<Resource, Vec<(String, Place)>>,
    exempt: BTreeMap<Resource, Vec<(String, Place)>>,
    mapping: MappingParts,
}

pub(super) fn bundle(files: &[(&str, &str)]) -> Result<RuleSet, Vec<Problem>> {
    let mut reader = Reader::new(files);
    let mut bundle = Bundle::default();
    for (number, (_, text)) in files.iter().enumerate() {
        if let Some(root) = reader.open(number, text) {
            read_file(&mut reader, &mut bundle, root.get_ref());
        }
    }
    let redaction = compile_redaction(&mut reader, &bundle);
    let semantic = bundle.mapping.semantic.unwrap_or(false);
    let mapping = mapping::complete(&mut reader, std::mem::take(&mut bundle.mapping));
    for (name, peer) in &bundle.peers {
        if !peer.names_resources && bundle.ceiling.is_none() {
            let message =
                format!("peers.{name} names no resources and there is no [ceiling] to narrow");
            reader.problem_at(
                peer.place.clone(),
                message,
                "add resources here, or a [ceiling]",
            );
        }
    }
    let problems = reader.finish();
    if !problems.is_empty() {
        return Err(problems);
    }
    let peers = bundle
        .peers
        .into_iter()
        .map(|(name, peer)| (name, peer.part))
        .collect();
    Ok(RuleSet::assemble(Parts {
        ceiling: bundle
            .ceiling
            .map(|(reach, allowance, _)| (reach, allowance)),
        suspend_on_renewal_conflict: bundle.suspend_on_renewal_conflict,
        peers,
        redaction: redaction.unwrap_or_default(),
        fields: plain(&bundle.fields),
        exempt: plain(&bundle.exempt),
        mapping,
        semantic,
    }))
}

fn plain(paths: &BTreeMap<Resource, Vec<(String, Place)>>) -> Paths {
    paths
        .iter()
        .map(|(resource, paths)| {
            (
                *resource,
                paths.iter().map(|(path, _)| path.clone()).collect(),
            )
        })
        .collect()
}

fn read_file<'t>(reader: &mut Reader<'_>, bundle: &mut Bundle, root: &'t DeTable<'t>) {
    let file = Section::new("the file", root, &(0..0));
    reader.only_keys(file, &FILE_KEYS);
    if file.table.contains_key("schema") {
        reader.integer(file, "schema", SCHEMA, SCHEMA);
    } else {
        reader.problem(
            0..0,
            "the file does not say its schema",
            "begin it with `schema = 1`",
        );
    }
    if let Some(section) = reader.table(file, "ceiling", "ceiling") {
        read_ceiling(reader, bundle, section);
    }
    if let Some(peers) = reader.table(file, "peers", "peers") {
        for (key, value) in peers.table.iter() {
            let name: &str = key.get_ref();
            match PeerName::parse(name) {
                Ok(peer) => {
                    if let Some(section) = reader.as_table("the peer", key.span(), value) {
                        read_peer(reader, bundle, peer, section);
                    }
                }
                Err(error) => reader.problem(key.span(), format!("{name:?}: {error}"), ""),
            }
        }
    }
    if let Some(section) = reader.table(file, "redaction", "redaction") {
        read_redaction(reader, bundle, section);
    }
    if let Some(section) = reader.table(file, "mapping", "mapping") {
        mapping::read(reader, &mut bundle.mapping, section);
    }
}

fn read_ceiling(reader: &mut Reader<'_>, bundle: &mut Bundle, section: Section<'_>) {
    reader.only_keys(section, &CEILING_KEYS);
    if !section.table.contains_key("resources") {
        reader.missing(section, "resources");
    }
    let (reach, _) = read_reach(reader, section);
    let allowance = read_allowance(reader, section);
    let suspend = read_suspend(reader, section);
    if bundle.ceiling.is_some() {
        reader.problem(
            section.span(),
            "there is a [ceiling] in another file already",
            "keep one",
        );
    } else {
        bundle.ceiling = Some((reach, allowance, (reader.file, section.span())));
        bundle.suspend_on_renewal_conflict = suspend;
    }
}

fn read_peer(reader: &mut Reader<'_>, bundle: &mut Bundle, name: PeerName, section: Section<'_>) {
    reader.only_keys(section, &PEER_KEYS);
    let (reach, names_resources) = read_reach(reader, section);
    let allowance = read_allowance(reader, section);
    let mut allow_sensitive = BTreeSet::new();
    for (resource, span) in reader
        .list(section, "allow_sensitive", Resource::parse)
        .unwrap_or_default()
    {
        if resource.is_sensitive() {
            allow_sensitive.insert(resource);
        } else {
            reader.problem(
                span,
                format!("{resource} is not sensitive"),
                "a scope can name it anyway: remove it",
            );
        }
    }
    let compat = reader.parsed(section, "compat", Compat::parse);
    let suspend_on_renewal_conflict = read_suspend(reader, section);
    if bundle.peers.contains_key(&name) {
        let message = format!("peers.{name} is in another file already");
        reader.problem(section.span(), message, "keep one");
        return;
    }
    let place = (reader.file, section.span());
    bundle.peers.insert(
        name,
        PeerSection {
            part: PeerPart {
                reach,
                allowance,
                allow_sensitive,
                compat,
                suspend_on_renewal_conflict,
            },
            names_resources,
            place,
        },
    );
}

/// The reach of a section, and whether it names its resources; without a list it reaches all of them.
fn read_reach(reader: &mut Reader<'_>, section: Section<'_>) -> (Reach, bool) {
    let resources = reader.list(section, "resources", Resource::parse);
    let names_resources = resources.is_some();
    let resources = resources.map_or_else(
        || Resource::ALL.to_vec(),
        |list| list.into_iter().map(|(resource, _)| resource).collect(),
    );
    let max_rows_per_query = reader
        .integer(
            section,
            "max_rows_per_query",
            1,
            u64::from(RowLimit::MAX.rows()),
        )
        .and_then(|rows| RowLimit::new(rows).ok())
        .unwrap_or(RowLimit::MAX);
    let teams = reader
        .list(section, "teams", TeamId::parse)
        .map_or(TeamSet::Any, |list| {
            TeamSet::Only(list.into_iter().map(|(team, _)| team).collect())
        });
    let include_personal = reader.boolean(section, "include_personal").unwrap_or(true);
    let each = ResourceReach {
        teams,
        include_personal,
    };
    let reach = Reach {
        resources: resources
            .into_iter()
            .map(|resource| (resource, each.clone()))
            .collect(),
        max_rows_per_query,
    };
    (reach, names_resources)
}

/// Whether a peer is suspended when one of its earlier certificates asks for renewal.
fn read_suspend(reader: &mut Reader<'_>, section: Section<'_>) -> bool {
    let said = reader.boolean(section, "suspend_on_renewal_conflict");
    said.unwrap_or(false)
}

/// The rate and the rows a day of a section.
fn read_allowance(reader: &mut Reader<'_>, section: Section<'_>) -> Allowance {
    let rows_per_day = reader
        .integer(section, "rows_per_day", 1, ROWS_PER_DAY_MAX.into())
        .and_then(|rows| u32::try_from(rows).ok());
    let mut rate = RateRule::default();
    if let Some(table) = reader.table(section, "rate_limit", "rate_limit") {
        reader.only_keys(table, &RATE_KEYS);
        if table.table.is_empty() {
            let hint = "name per_minute, burst or both, or remove it";
            reader.problem(table.span(), "rate_limit says nothing", hint);
        }
        let per_minute = reader.integer(table, "per_minute", 1, PER_MINUTE_MAX.into());
        let burst = reader.integer(table, "burst", 1, BURST_MAX.into());
        // Both are within their bounds already.
        rate = RateRule::new(per_minute, burst).unwrap_or_default();
    }
    Allowance { rate, rows_per_day }
}

fn read_redaction(reader: &mut Reader<'_>, bundle: &mut Bundle, section: Section<'_>) {
    reader.only_keys(section, &REDACTION_KEYS);
    let file = reader.file;
    for ((resource, path), span) in reader
        .list(section, "exempt", exempt_path)
        .unwrap_or_default()
    {
        bundle
            .exempt
            .entry(resource)
            .or_default()
            .push((path, (file, span)));
    }
    let Some(fields) = reader.table(section, "fields", "redaction.fields") else {
        return;
    };
    for key in fields.table.keys() {
        let name: &str = key.get_ref();
        match Resource::parse(name) {
            Ok(resource) if !resource.is_served() => {
                let message = format!("{resource} is not served in this version");
                reader.problem(key.span(), message, "remove it");
            }
            Ok(resource) => {
                let text = |path: &str| Ok::<_, std::convert::Infallible>(path.to_owned());
                for (path, span) in reader.list(fields, name, text).unwrap_or_default() {
                    bundle
                        .fields
                        .entry(resource)
                        .or_default()
                        .push((path, (file, span)));
                }
            }
            Err(error) => reader.problem(key.span(), format!("{name:?}: {error}"), ""),
        }
    }
}

/// `tasks.usage.tokenCount`: a resource and a path below its rows.
fn exempt_path(text: &str) -> Result<(Resource, String), &'static str> {
    let (name, path) = text
        .split_once('.')
        .ok_or("write the resource and the path, like tasks.usage.tokenCount")?;
    let resource = Resource::parse(name)
        .ok()
        .filter(|resource| resource.is_served())
        .ok_or("begin with a resource that is served, like tasks.usage.tokenCount")?;
    Ok((resource, path.to_owned()))
}

/// Compiles the redaction rules; one that is refused is reported where it stands, and the rest is tried without it,
/// so that one round names them all.
fn compile_redaction(reader: &mut Reader<'_>, bundle: &Bundle) -> Option<Redaction> {
    let (mut fields, mut exempt) = (bundle.fields.clone(), bundle.exempt.clone());
    loop {
        let error = match Redaction::new(plain(&fields), plain(&exempt)) {
            Ok(redaction) => return Some(redaction),
            Err(error) => error,
        };
        let (resource, path) = match &error {
            RedactionError::NotAPath { resource, path }
            | RedactionError::NamedTwice { resource, path }
            | RedactionError::AlwaysKept { resource, path }
            | RedactionError::Unreachable { resource, path, .. } => (*resource, path),
            _ => {
                reader.problem_at((0, 0..0), &error, "");
                return None;
            }
        };
        // The later of two equal paths is the one at fault.
        let taken = take_last(&mut exempt, resource, path)
            .or_else(|| take_last(&mut fields, resource, path));
        let Some(place) = taken else {
            reader.problem_at((0, 0..0), &error, "");
            return None;
        };
        reader.problem_at(place, &error, "");
    }
}

fn take_last(
    paths: &mut BTreeMap<Resource, Vec<(String, Place)>>,
    resource: Resource,
    path: &str,
) -> Option<Place> {
    let list = paths.get_mut(&resource)?;
    let at = list.iter().rposition(|(known, _)| known == path)?;
    Some(list.remove(at).1)
}
