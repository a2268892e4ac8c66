//! Scopes: what one grant covers, as the operator wrote it.
//!
//! Invariant: a `Scope` is complete (every default filled in) and consistent (specification, section 5); reading its
//! own JSON gives the same scope. Every problem of a text is reported, not just the first.
//! Elsewhere on purpose: narrowing by policy (`reach.rs`, `rules.rs`), the decision (`evaluate.rs`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::flat::{FlatMap, FlatSet};
use crate::id::TeamId;
use crate::rate::RateRule;
use crate::reach::{Reach, ResourceReach, RowLimit, TeamSet};
use crate::resource::{Resource, ResourceSet};
use crate::strict_json::StrictValue;
use crate::time::UnixMillis;

mod parse;

/// Which rows of one resource a scope covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ScopeFilter {
    /// Teams whose rows are covered, as far as the subject is a member; none by default.
    #[schemars(default)]
    pub include_teams: FlatSet<TeamId>,
    /// Whether the subject's own rows that belong to no team are covered; true by default.
    #[schemars(default = "yes")]
    pub include_personal: bool,
}

fn yes() -> bool {
    true
}

impl Default for ScopeFilter {
    fn default() -> Self {
        Self {
            include_teams: FlatSet::default(),
            include_personal: true,
        }
    }
}

/// What a grant covers. A clone shares its memory: most grants have one of a few scopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Arc<Written>);

/// What a scope says, complete.
#[derive(Debug, PartialEq, Eq, Hash, Serialize)]
struct Written {
    resources: ResourceSet,
    excluded_resources: ResourceSet,
    filters: FlatMap<Resource, ScopeFilter>,
    max_rows_per_query: RowLimit,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<UnixMillis>,
}

/// One thing wrong with a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeProblem {
    /// Where: a path of member names and positions, empty for the whole.
    pub path: String,
    /// What is wrong and what to write instead.
    pub message: Cow<'static, str>,
}

impl fmt::Display for ScopeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Everything wrong with a scope; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeError {
    /// The problems, in the order of the keys.
    pub problems: Vec<ScopeProblem>,
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the scope is not valid: ")?;
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ScopeError {}

impl Scope {
    /// Checks a JSON value and fills in the defaults. `allow_sensitive` are the sensitive resources that policy lets
    /// a scope of this peer name.
    ///
    /// # Errors
    /// [`ScopeError`] with every problem found. A value made by a lenient parser has lost its doubled names already:
    /// for texts use [`Scope::parse_text`].
    pub fn parse(value: &Value, allow_sensitive: &[Resource]) -> Result<Self, ScopeError> {
        parse::scope(value, allow_sensitive)
    }

    /// As [`Scope::parse`], from JSON text, in which no member name may occur twice.
    ///
    /// # Errors
    /// [`ScopeError`] with every problem found, or the one place where the text is not JSON.
    pub fn parse_text(text: &str, allow_sensitive: &[Resource]) -> Result<Self, ScopeError> {
        let value = crate::strict_json::parse(text).map_err(|error| ScopeError {
            problems: vec![ScopeProblem {
                path: String::new(),
                message: format!("not JSON: {error}").into(),
            }],
        })?;
        Self::parse(&value, allow_sensitive)
    }

    /// The resources covered; never empty.
    #[must_use]
    pub fn resources(&self) -> ResourceSet {
        self.0.resources
    }

    /// The resources named as not covered; none of them is in [`Scope::resources`].
    #[must_use]
    pub fn excluded_resources(&self) -> ResourceSet {
        self.0.excluded_resources
    }

    /// The filters as written; see [`Scope::filter`] for the default.
    #[must_use]
    pub fn filters(&self) -> &FlatMap<Resource, ScopeFilter> {
        &self.0.filters
    }

    /// The filter of a resource; no teams and the subject's own rows where none is written.
    #[must_use]
    pub fn filter(&self, resource: Resource) -> ScopeFilter {
        self.0.filters.get(&resource).cloned().unwrap_or_default()
    }

    /// The most rows of one answer.
    #[must_use]
    pub fn max_rows_per_query(&self) -> RowLimit {
        self.0.max_rows_per_query
    }

    /// What the scope says about the rate; it only lowers what policy allows.
    #[must_use]
    pub fn rate_limit(&self) -> Option<RateRule> {
        self.0.rate_limit
    }

    /// When the scope ends, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<UnixMillis> {
        self.0.expires_at
    }

    /// What the scope reaches before policy narrows it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let resources = self
            .resources()
            .difference(self.excluded_resources())
            .iter()
            .map(|&resource| {
                let filter = self.filter(resource);
                let reach = ResourceReach {
                    teams: TeamSet::Only(filter.include_teams),
                    include_personal: filter.include_personal,
                };
                (resource, reach)
            })
            .collect();
        Reach {
            resources,
            max_rows_per_query: self.max_rows_per_query(),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    /// Reads a scope that was checked when it was stored: sensitive resources are let through here, because policy
    /// narrows every scope again when a snapshot is built.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let StrictValue(value) = StrictValue::deserialize(deserializer)?;
        Self::parse(&value, &Resource::ALL).map_err(D::Error::custom)
    }
}

/// The document a scope is written in; only its schema is used.
#[derive(JsonSchema)]
#[schemars(rename = "Scope", deny_unknown_fields)]
#[allow(dead_code, reason = "the fields exist for the derived schema")]
struct ScopeDocument {
    /// Resources covered.
    #[schemars(length(min = 1))]
    resources: BTreeSet<Resource>,
    /// Resources named as not covered; must not overlap `resources`.
    #[schemars(default)]
    excluded_resources: BTreeSet<Resource>,
    /// Filters by resource; each key must be in `resources`.
    #[schemars(default)]
    filters: BTreeMap<Resource, ScopeFilter>,
    /// The most rows of one answer; 100 by default.
    #[schemars(default = "default_cap")]
    max_rows_per_query: RowLimit,
    /// How often the grant may ask, where that is less than policy allows.
    #[schemars(default)]
    rate_limit: Option<RateRule>,
    /// When the scope ends.
    #[schemars(default)]
    expires_at: Option<UnixMillis>,
}

fn default_cap() -> RowLimit {
    RowLimit::DEFAULT
}

impl JsonSchema for Scope {
    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ScopeDocument::json_schema(generator)
    }
}

#[cfg(test)]
pub(crate) mod tests;
