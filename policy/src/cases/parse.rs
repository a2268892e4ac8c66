//! Texts of test cases in, cases or every problem out.
//!
//! Invariant: as for policy files, all files are read together, an unknown key is a problem, and so is an expectation
//! that the case could never look at.
//! Elsewhere on purpose: the mechanics of tables (`rules/reader.rs`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::{Allowed, Expect, Gateway, Given, PolicyCase, When};
use crate::deny::DenyCode;
use crate::grant::GrantStatus;
use crate::id::{TeamId, UserId};
use crate::peer::{PeerName, PeerState};
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::rules::Problem;
use crate::rules::reader::{Place, Reader, Section, name};
use crate::scope::Scope;
use crate::verb::Verb;

/// The version of the format; every file says it.
const SCHEMA: u64 = 1;
const FILE_KEYS: [&str; 2] = ["schema", "test"];
const CASE_KEYS: [&str; 4] = ["name", "given", "when", "expect"];
const GIVEN_KEYS: [&str; 7] = [
    "peer",
    "peer_state",
    "user",
    "scope",
    "grant",
    "teams",
    "gateway",
];
const WHEN_KEYS: [&str; 3] = ["verb", "resource", "limit"];
const EXPECT_KEYS: [&str; 8] = [
    "decision",
    "code",
    "teams",
    "include_personal",
    "max_rows",
    "resources",
    "removes",
    "keeps",
];

/// The refusals a decision can come to; the others fall before or behind it.
const DECIDED: [DenyCode; 12] = [
    DenyCode::PeerSuspended,
    DenyCode::PeerUnknown,
    DenyCode::GrantPending,
    DenyCode::GrantRevoked,
    DenyCode::GrantExpired,
    DenyCode::UnknownVerb,
    DenyCode::UnknownResource,
    DenyCode::ReservedResource,
    DenyCode::ResourceExcluded,
    DenyCode::ResourceNotGranted,
    DenyCode::ResourceUnsupported,
    DenyCode::Ceiling,
];

pub(super) fn cases(files: &[(&str, &str)]) -> Result<Vec<PolicyCase>, Vec<Problem>> {
    let mut reader = Reader::new(files);
    let mut cases = Vec::new();
    let mut names: BTreeMap<String, Place> = BTreeMap::new();
    for (number, (_, text)) in files.iter().enumerate() {
        let Some(root) = reader.open(number, text) else {
            continue;
        };
        let file = Section::new("the file", root.get_ref(), &(0..0));
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
        for section in reader.tables(file, "test", "test") {
            let Some(case) = read_case(&mut reader, section) else {
                continue;
            };
            let place = (number, section.span());
            if let Some(first) = names.insert(case.name.clone(), place.clone()) {
                let (file, line, _) = reader.locate(&first);
                let message = format!("a test at {file}:{line} is called {:?} too", case.name);
                reader.problem_at(place, message, "give each test a name of its own");
            }
            cases.push(case);
        }
    }
    let problems = reader.finish();
    if problems.is_empty() {
        Ok(cases)
    } else {
        Err(problems)
    }
}

fn read_case(reader: &mut Reader<'_>, section: Section<'_>) -> Option<PolicyCase> {
    reader.only_keys(section, &CASE_KEYS);
    let name = reader.required(section, "name", name);
    let [given, when, expect] = ["given", "when", "expect"].map(|key| {
        if !section.table.contains_key(key) {
            reader.missing(section, key);
        }
        reader.table(section, key, key)
    });
    let given = given.and_then(|given| read_given(reader, given));
    let when = when.and_then(|when| read_when(reader, when));
    let rows = when
        .as_ref()
        .is_none_or(|when| when.verb != Verb::Capabilities.as_str());
    let expect = expect.and_then(|expect| read_expect(reader, expect, rows));
    let (file, line, _) = reader.locate(&(reader.file, section.span()));
    Some(PolicyCase {
        file: file.to_owned(),
        line,
        name: name?,
        given: given?,
        when: when?,
        expect: expect?,
    })
}

fn read_given(reader: &mut Reader<'_>, section: Section<'_>) -> Option<Given> {
    reader.only_keys(section, &GIVEN_KEYS);
    let peer = reader.required(section, "peer", PeerName::parse);
    let peer_state = reader.parsed(section, "peer_state", str::parse::<PeerState>);
    let user = match section.table.contains_key("user") {
        true => reader.parsed(section, "user", UserId::parse),
        false => UserId::parse("user").ok(),
    };
    let grant = reader.parsed(section, "grant", str::parse::<GrantStatus>);
    let gateway = reader.parsed(section, "gateway", |text| match text {
        "internal-v1" => Ok(Gateway::InternalV1),
        "mosaic" => Ok(Gateway::Mosaic),
        _ => Err("use internal-v1 or mosaic, or leave it out for the policy's own mapping"),
    });
    let teams = reader
        .list(section, "teams", TeamId::parse)
        .unwrap_or_default();
    let scope = read_scope(reader, section);
    Some(Given {
        peer: peer?,
        peer_state: peer_state.unwrap_or(PeerState::Active),
        user: user?,
        scope: scope?,
        grant: grant.unwrap_or(GrantStatus::Active),
        teams: teams.into_iter().map(|(team, _)| team).collect(),
        gateway: gateway.unwrap_or_default(),
    })
}

/// The scope, which must be a good one for some peer; whether for this one is for the rules to say.
fn read_scope(reader: &mut Reader<'_>, section: Section<'_>) -> Option<Value> {
    let Some((key, value)) = section.table.get_key_value("scope") else {
        reader.missing(section, "scope");
        return None;
    };
    let table = reader.as_table("scope", key.span(), value)?;
    let scope = json_table(table.table);
    match Scope::parse(&scope, &Resource::ALL) {
        Ok(_) => Some(scope),
        Err(error) => {
            for problem in error.problems {
                reader.problem(table.span(), format!("scope: {problem}"), "");
            }
            None
        }
    }
}

fn json_table(table: &DeTable<'_>) -> Value {
    let members = table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
    Value::Object(members.collect::<Map<_, _>>())
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or_else(|_| Value::from(digits.as_str()), Value::from),
        DeValue::Float(digits) => Value::from(digits.as_str()),
        DeValue::Datetime(instant) => Value::from(instant.to_string()),
        DeValue::Array(entries) => entries.iter().map(|entry| json(entry.get_ref())).collect(),
        DeValue::Table(table) => json_table(table),
    }
}

fn read_when(reader: &mut Reader<'_>, section: Section<'_>) -> Option<When> {
    reader.only_keys(section, &WHEN_KEYS);
    let text = |text: &str| Ok::<_, std::convert::Infallible>(text.to_owned());
    let verb = reader.required(section, "verb", text);
    let resource = reader.parsed(section, "resource", text);
    let most = u64::from(RowLimit::MAX.rows());
    let limit = reader
        .integer(section, "limit", 1, most)
        .and_then(|rows| RowLimit::new(rows).ok());
    Some(When {
        verb: verb?,
        resource,
        limit,
    })
}

fn read_expect(reader: &mut Reader<'_>, section: Section<'_>, rows: bool) -> Option<Expect> {
    reader.only_keys(section, &EXPECT_KEYS);
    let decision = reader.required(section, "decision", |text| match text {
        "allow" | "deny" | "scope_refused" => Ok(text.to_owned()),
        _ => Err("use allow, deny or scope_refused"),
    })?;
    let used: &[&str] = match (decision.as_str(), rows) {
        ("allow", true) => &["teams", "include_personal", "max_rows", "removes", "keeps"],
        ("allow", false) => &["resources", "max_rows"],
        ("deny", _) => &["code"],
        _ => &[],
    };
    for key in section.table.keys() {
        let name: &str = key.get_ref();
        if name != "decision" && EXPECT_KEYS.contains(&name) && !used.contains(&name) {
            let message = format!("{name} has no effect with this decision and verb");
            reader.problem(key.span(), message, "remove it");
        }
    }
    match decision.as_str() {
        "allow" => Some(Expect::Allow(read_allowed(reader, section))),
        "deny" => reader.required(section, "code", decided).map(Expect::Deny),
        _ => Some(Expect::ScopeRefused),
    }
}

fn decided(text: &str) -> Result<DenyCode, String> {
    let known = DECIDED.iter().find(|code| code.as_str() == text).copied();
    known.ok_or_else(|| {
        let names: Vec<_> = DECIDED.iter().map(|code| code.as_str()).collect();
        format!(
            "no decision refuses with it; use one of: {}",
            names.join(", ")
        )
    })
}

fn read_allowed(reader: &mut Reader<'_>, section: Section<'_>) -> Allowed {
    let path = |text: &str| match text.split('.').any(str::is_empty) {
        true => Err("write the names of members, like meta.cost"),
        false => Ok(text.to_owned()),
    };
    let mut paths = |key| {
        let list = reader.list(section, key, path).unwrap_or_default();
        list.into_iter().map(|(path, _)| path).collect()
    };
    let (removes, keeps) = (paths("removes"), paths("keeps"));
    let most = u64::from(RowLimit::MAX.rows());
    Allowed {
        removes,
        keeps,
        teams: reader
            .list(section, "teams", TeamId::parse)
            .map(|list| list.into_iter().map(|(team, _)| team).collect()),
        resources: reader
            .list(section, "resources", Resource::parse)
            .map(|list| list.into_iter().map(|(resource, _)| resource).collect()),
        include_personal: reader.boolean(section, "include_personal"),
        max_rows: reader
            .integer(section, "max_rows", 1, most)
            .and_then(|rows| RowLimit::new(rows).ok()),
    }
}
