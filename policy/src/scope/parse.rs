//! A JSON value in, a scope or every problem out.
//!
//! Invariant: nothing is skipped. An unknown key, a value of the wrong kind or a doubled list entry is a problem.
//! Elsewhere on purpose: JSON text and doubled member names (`strict_json.rs`).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Scope, ScopeError, ScopeFilter, ScopeProblem, Written};
use crate::flat::{FlatMap, FlatSet};
use crate::id::TeamId;
use crate::rate::{RateError, RateRule};
use crate::reach::RowLimit;
use crate::resource::{Resource, ResourceSet};
use crate::time::UnixMillis;

/// The keys of a scope.
const KEYS: [&str; 6] = [
    "resources",
    "excluded_resources",
    "filters",
    "max_rows_per_query",
    "rate_limit",
    "expires_at",
];

#[derive(Default)]
struct Problems(Vec<ScopeProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<Cow<'static, str>>) {
        self.0.push(ScopeProblem {
            path: path.into(),
            message: message.into(),
        });
    }
}

pub(super) fn scope(value: &Value, allow_sensitive: &[Resource]) -> Result<Scope, ScopeError> {
    let mut problems = Problems::default();
    let empty = Map::new();
    let members = value.as_object().unwrap_or_else(|| {
        problems.add("", "a scope is a JSON object");
        &empty
    });
    let resources = resource_list(members, "resources", &mut problems);
    if resources.is_empty() && value.is_object() && !problems_at(&problems, "resources") {
        problems.add("resources", "name at least one resource");
    }
    for resource in resources.iter() {
        if resource.is_sensitive() && !allow_sensitive.contains(resource) {
            let message = format!(
                "{resource} is sensitive: policy must allow it for this peer (allow_sensitive)"
            );
            problems.add("resources", message);
        }
    }
    let excluded_resources = resource_list(members, "excluded_resources", &mut problems);
    for resource in resources.intersection(excluded_resources).iter() {
        let message = format!("{resource} is in resources as well: keep it in one of the two");
        problems.add("excluded_resources", message);
    }
    let filters = filters(members, resources, &mut problems);
    let max_rows_per_query = row_cap(members, &mut problems);
    let rate_limit = rate_limit(members, &mut problems);
    let expires_at = expiry(members, &mut problems);
    for key in members.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let message = format!("unknown key: a scope has {}", KEYS.join(", "));
        problems.add(key.escape_debug().to_string(), message);
    }
    if !problems.0.is_empty() {
        return Err(ScopeError {
            problems: problems.0,
        });
    }
    Ok(Scope(Arc::new(Written {
        resources,
        excluded_resources,
        filters,
        max_rows_per_query,
        rate_limit,
        expires_at,
    })))
}

fn problems_at(problems: &Problems, path: &str) -> bool {
    problems
        .0
        .iter()
        .any(|problem| problem.path.starts_with(path))
}

/// A list of resource names without doubles.
fn resource_list(
    members: &Map<String, Value>,
    key: &'static str,
    problems: &mut Problems,
) -> ResourceSet {
    let mut found = ResourceSet::default();
    let Some(value) = members.get(key) else {
        return found;
    };
    let Some(list) = value.as_array() else {
        problems.add(key, "must be a list of resource names");
        return found;
    };
    for (position, entry) in list.iter().enumerate() {
        let path = format!("{key}[{position}]");
        let Some(name) = entry.as_str() else {
            problems.add(path, "must be a resource name");
            continue;
        };
        match Resource::parse(name) {
            Ok(resource) => {
                if !found.insert(resource) {
                    problems.add(path, "named twice: remove one");
                }
            }
            Err(error) => problems.add(path, error.to_string()),
        }
    }
    found
}

fn filters(
    members: &Map<String, Value>,
    resources: ResourceSet,
    problems: &mut Problems,
) -> FlatMap<Resource, ScopeFilter> {
    let mut found = Vec::new();
    let Some(value) = members.get("filters") else {
        return FlatMap::default();
    };
    let Some(entries) = value.as_object() else {
        problems.add("filters", "must be an object with resource names as keys");
        return FlatMap::default();
    };
    for (name, entry) in entries {
        let path = format!("filters.{}", name.escape_debug());
        match Resource::parse(name) {
            Ok(resource) if resources.contains(&resource) => {
                found.push((resource, filter(entry, &path, problems)));
            }
            Ok(_) => problems.add(
                path,
                "the resource is not in resources: add it there or remove the filter",
            ),
            Err(error) => problems.add(path, error.to_string()),
        }
    }
    // A member name occurs once, so no two of them are for one resource.
    found.into_iter().collect()
}

fn filter(value: &Value, path: &str, problems: &mut Problems) -> ScopeFilter {
    let mut filter = ScopeFilter::default();
    let Some(members) = value.as_object() else {
        problems.add(
            path,
            "must be an object with include_teams and include_personal",
        );
        return filter;
    };
    for (key, value) in members {
        let at = format!("{path}.{}", key.escape_debug());
        match key.as_str() {
            "include_teams" => filter.include_teams = team_list(value, &at, problems),
            "include_personal" => match value.as_bool() {
                Some(yes) => filter.include_personal = yes,
                None => problems.add(at, "must be true or false"),
            },
            _ => problems.add(
                at,
                "unknown key: a filter has include_teams and include_personal",
            ),
        }
    }
    filter
}

fn team_list(value: &Value, path: &str, problems: &mut Problems) -> FlatSet<TeamId> {
    let mut found = BTreeSet::new();
    let Some(list) = value.as_array() else {
        problems.add(path, "must be a list of team ids");
        return FlatSet::default();
    };
    for (position, entry) in list.iter().enumerate() {
        let at = format!("{path}[{position}]");
        let Some(text) = entry.as_str() else {
            problems.add(at, "must be a team id");
            continue;
        };
        match TeamId::parse(text) {
            Ok(team) => {
                if !found.insert(team) {
                    problems.add(at, "named twice: remove one");
                }
            }
            Err(error) => problems.add(at, error.to_string()),
        }
    }
    found.into()
}

fn row_cap(members: &Map<String, Value>, problems: &mut Problems) -> RowLimit {
    let Some(value) = members.get("max_rows_per_query") else {
        return RowLimit::DEFAULT;
    };
    value
        .as_u64()
        .and_then(|rows| RowLimit::new(rows).ok())
        .unwrap_or_else(|| {
            problems.add(
                "max_rows_per_query",
                "must be a whole number from 1 to 10000",
            );
            RowLimit::DEFAULT
        })
}

fn rate_limit(members: &Map<String, Value>, problems: &mut Problems) -> Option<RateRule> {
    let value = members.get("rate_limit")?;
    let Some(figures) = value.as_object().filter(|figures| !figures.is_empty()) else {
        problems.add(
            "rate_limit",
            "must be an object with per_minute, burst or both",
        );
        return None;
    };
    for key in figures.keys() {
        if !["per_minute", "burst"].contains(&key.as_str()) {
            let at = format!("rate_limit.{}", key.escape_debug());
            problems.add(at, "unknown key: a rate has per_minute and burst");
        }
    }
    // Anything but a whole number is as good as 0, which no figure may be.
    let figure = |key: &str| figures.get(key).map(|value| value.as_u64().unwrap_or(0));
    match RateRule::new(figure("per_minute"), figure("burst")) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let at = match error {
                RateError::PerMinute => "rate_limit.per_minute",
                RateError::Burst => "rate_limit.burst",
            };
            problems.add(at, error.to_string());
            None
        }
    }
}

fn expiry(members: &Map<String, Value>, problems: &mut Problems) -> Option<UnixMillis> {
    match members.get("expires_at") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let instant = value.as_str().and_then(|text| text.parse().ok());
            if instant.is_none() {
                let message = "must be an RFC 3339 date-time, like 2026-12-31T00:00:00Z";
                problems.add("expires_at", message);
            }
            instant
        }
    }
}
