//! The rules once more, slowly, on parsed trees: what the fast filter is compared with.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::resource::Resource;
use crate::rows::words::says_secret;
use crate::time::{UnixMillis, parse_rfc3339_nanos};

use super::{Key, Rules};

/// JSON with the order and the repetition of members.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// What the rules say about one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    Row(Node),
    Withheld,
    Unmatched,
}

/// The verdict on a row, its key, and the number of members redacted.
pub(super) fn judge(rules: &Rules, row: &Node) -> (Expected, Option<Key>, u64) {
    let Node::Object(members) = row else {
        return (Expected::Withheld, None, 0);
    };
    let map = &rules.map;
    let key = key(rules, members);
    let mut names: Vec<&str> = vec![&map.id, &map.created_at];
    let references = [&map.owner, &map.team, &map.project, &map.mission];
    names.extend(references.into_iter().flatten().map(String::as_str));
    names.extend(rules.equals.iter().map(|(name, _)| *name));
    names.extend(rules.non_empty);
    let twice = names.iter().any(|name| all(members, name).len() > 1);
    let Some(found) = key.clone().filter(|_| !twice && may_pass(rules, members)) else {
        return (Expected::Withheld, key, 0);
    };
    let text = |name: &str| match all(members, name).first() {
        Some(Node::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let matches = rules
        .equals
        .iter()
        .all(|(name, value)| text(name).as_deref() == Some(*value))
        && rules
            .non_empty
            .is_none_or(|name| text(name).is_some_and(|text| !text.is_empty()));
    if !matches {
        return (Expected::Unmatched, key, 0);
    }
    let mut redacted = 0;
    let mut kept = vec![("_source".to_owned(), Node::Text("local".to_owned()))];
    let instant = UnixMillis::from_nanos(found.1).to_string();
    let id = Node::Text(found.2);
    if map.id != "id" {
        kept.push(("id".to_owned(), id.clone()));
    }
    if map.created_at != "createdAt" {
        kept.push(("createdAt".to_owned(), Node::Text(instant.clone())));
    }
    for (name, value) in members {
        let value = match name.as_str() {
            "id" if map.id == "id" => id.clone(),
            "createdAt" if map.created_at == "createdAt" => Node::Text(instant.clone()),
            "id" | "createdAt" => continue,
            name if name.starts_with('_') => continue,
            name if *name == map.id || *name == map.created_at => value.clone(),
            name if references.into_iter().flatten().any(|field| field == name) => value.clone(),
            name if is_removed(rules, name, name) => {
                redacted += 1;
                continue;
            }
            name => redact(rules, name, value, &mut redacted),
        };
        kept.push((name.clone(), value));
    }
    (Expected::Row(Node::Object(kept)), key, redacted)
}

fn all<'a>(members: &'a [(String, Node)], name: &str) -> Vec<&'a Node> {
    members
        .iter()
        .filter(|(found, _)| found == name)
        .map(|(_, value)| value)
        .collect()
}

fn key(rules: &Rules, members: &[(String, Node)]) -> Option<Key> {
    let (ids, instants) = (
        all(members, &rules.map.id),
        all(members, &rules.map.created_at),
    );
    let ([id], [Node::Text(created_at)]) = (ids.as_slice(), instants.as_slice()) else {
        return None;
    };
    let id = match id {
        Node::Text(id) if id.len() <= 256 && !id.is_empty() && id.bytes().all(|b| b >= 32) => {
            id.clone()
        }
        Node::Number(id) if id.is_i64() || id.is_u64() => id.to_string(),
        _ => return None,
    };
    let nanos = parse_rfc3339_nanos(created_at.as_bytes()).ok()?;
    Some((created_at.clone(), nanos, id))
}

fn may_pass(rules: &Rules, members: &[(String, Node)]) -> bool {
    let read = |name: &Option<String>| -> Result<Option<String>, ()> {
        match name
            .as_ref()
            .and_then(|name| all(members, name).first().copied())
        {
            None | Some(Node::Null) => Ok(None),
            Some(Node::Text(id)) => Ok(Some(id.clone())),
            Some(_) => Err(()),
        }
    };
    let map = &rules.map;
    let (Ok(owner), Ok(team), Ok(project), Ok(mission)) = (
        read(&map.owner),
        read(&map.team),
        read(&map.project),
        read(&map.mission),
    ) else {
        return false;
    };
    let find_project = |id: &str| rules.projects.iter().find(|entry| entry.0 == id);
    let find_mission = |id: &str| rules.missions.iter().find(|entry| entry.0 == id);
    let project = project.map(|id| find_project(&id));
    let mission = mission.map(|id| find_mission(&id));
    let missions_project = mission
        .flatten()
        .and_then(|entry| entry.1)
        .map(find_project);
    if [
        project.is_some_and(|p| p.is_none()),
        mission.is_some_and(|m| m.is_none()),
    ]
    .contains(&true)
        || missions_project.is_some_and(|p| p.is_none())
    {
        return false;
    }
    let (project, mission) = (project.flatten(), mission.flatten());
    let missions_project = missions_project.flatten();
    let missions_team = mission
        .and_then(|m| m.2)
        .or(missions_project.and_then(|p| p.1));
    let team = team.or_else(|| {
        project
            .and_then(|p| p.1)
            .or(missions_team)
            .map(str::to_owned)
    });
    let owner = owner.or_else(|| {
        let next = mission.and_then(|m| m.3).or(project.and_then(|p| p.2));
        next.map(str::to_owned)
    });
    let passes = |team: Option<&str>, owner: Option<&str>| match team {
        Some(team) => rules.teams.contains(&team),
        None => rules.include_personal && owner == Some(rules.user),
    };
    let is_subjects = owner.as_deref() == Some(rules.user);
    match rules.resource {
        Resource::Notes => {
            is_subjects
                && mission.is_some_and(|mission| {
                    passes(
                        missions_team,
                        mission.3.or(missions_project.and_then(|p| p.2)),
                    )
                })
        }
        Resource::Memory => is_subjects && rules.include_personal,
        Resource::Tasks | Resource::Projects | Resource::Missions => {
            passes(team.as_deref(), owner.as_deref())
        }
        Resource::Credentials | Resource::ApiKeys => false,
    }
}

fn is_removed(rules: &Rules, path: &str, name: &str) -> bool {
    rules.fields.contains(&path) || (says_secret(name) && !rules.exempt.contains(&path))
}

fn redact(rules: &Rules, path: &str, value: &Node, redacted: &mut u64) -> Node {
    match value {
        Node::Array(items) => Node::Array(
            items
                .iter()
                .map(|item| redact(rules, path, item, redacted))
                .collect(),
        ),
        Node::Object(members) => {
            let mut kept = Vec::new();
            for (name, value) in members {
                let path = format!("{path}.{name}");
                if is_removed(rules, &path, name) {
                    *redacted += 1;
                } else {
                    kept.push((name.clone(), redact(rules, &path, value, redacted)));
                }
            }
            Node::Object(kept)
        }
        other => other.clone(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Number(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
