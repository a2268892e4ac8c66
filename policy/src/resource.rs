//! The closed set of resources, which of them are sensitive, and which are served.
//!
//! Invariant: a name is known, reserved or unknown, and only a known and served one can ever reach the gateway.
//! Elsewhere on purpose: how a resource is asked for (`mapping.rs`), who may see its rows (`rows`).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of row that a scope can name (specification, section 5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Tasks of projects, missions and persons.
    Tasks,
    /// Notes a user wrote on a mission's tasks.
    Notes,
    /// Insights and preferences of a user, merged.
    Memory,
    /// Projects of teams and persons.
    Projects,
    /// Missions of projects, teams and persons.
    Missions,
    /// Stored credentials; sensitive, not served in this version.
    Credentials,
    /// API keys; sensitive, not served in this version.
    ApiKeys,
}

/// Why a name is not a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Kept free for a later version: there is no rule yet that says who may see such a row.
    #[error(
        "the resource name is reserved: it has no row rule yet and cannot be granted; remove it"
    )]
    Reserved,
    /// Not a resource at all.
    #[error(
        "unknown resource: use tasks, notes, memory, projects, missions, credentials or api_keys"
    )]
    Unknown,
}

impl Resource {
    /// Every resource, in declaration order.
    pub const ALL: [Self; 7] = [
        Self::Tasks,
        Self::Notes,
        Self::Memory,
        Self::Projects,
        Self::Missions,
        Self::Credentials,
        Self::ApiKeys,
    ];

    /// The resources this version can answer for.
    pub const SERVED: [Self; 5] = [
        Self::Tasks,
        Self::Notes,
        Self::Memory,
        Self::Projects,
        Self::Missions,
    ];

    /// Parses the wire name; case matters.
    ///
    /// # Errors
    /// [`ResourceError::Reserved`] for `conversations`, `teams` and `users`, else [`ResourceError::Unknown`].
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        match text {
            "tasks" => Ok(Self::Tasks),
            "notes" => Ok(Self::Notes),
            "memory" => Ok(Self::Memory),
            "projects" => Ok(Self::Projects),
            "missions" => Ok(Self::Missions),
            "credentials" => Ok(Self::Credentials),
            "api_keys" => Ok(Self::ApiKeys),
            "conversations" | "teams" | "users" => Err(ResourceError::Reserved),
            _ => Err(ResourceError::Unknown),
        }
    }

    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Notes => "notes",
            Self::Memory => "memory",
            Self::Projects => "projects",
            Self::Missions => "missions",
            Self::Credentials => "credentials",
            Self::ApiKeys => "api_keys",
        }
    }

    /// Whether a scope may name it only where policy says `allow_sensitive`.
    #[must_use]
    pub const fn is_sensitive(self) -> bool {
        matches!(self, Self::Credentials | Self::ApiKeys)
    }

    /// Whether this version can answer for it.
    #[must_use]
    pub const fn is_served(self) -> bool {
        !self.is_sensitive()
    }

    /// The keys accepted in `params.filter`: equality on strings.
    #[must_use]
    pub const fn filter_keys(self) -> &'static [&'static str] {
        match self {
            Self::Tasks => &["missionId", "projectId", "status"],
            Self::Notes => &["missionId"],
            Self::Memory => &["kind"],
            Self::Projects => &["status"],
            Self::Missions => &["projectId", "status"],
            Self::Credentials | Self::ApiKeys => &[],
        }
    }
}

/// A set of resources.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ResourceSet(u8);

/// One bit for each.
const _: () = assert!(Resource::ALL.len() <= 8);

impl ResourceSet {
    const fn bit(resource: Resource) -> u8 {
        1 << resource as u8
    }

    /// Puts a resource in; whether it was not there.
    pub fn insert(&mut self, resource: Resource) -> bool {
        let is_new = !self.contains(&resource);
        self.0 |= Self::bit(resource);
        is_new
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, resource: &Resource) -> bool {
        self.0 & Self::bit(*resource) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its resources, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = &'static Resource> {
        Resource::ALL
            .iter()
            .filter(move |resource| self.contains(resource))
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl FromIterator<Resource> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut set = Self::default();
        for resource in resources {
            set.insert(resource);
        }
        set
    }
}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for ResourceSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl std::str::FromStr for Resource {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_round_trip() {
        for resource in Resource::ALL {
            assert_eq!(Resource::parse(resource.as_str()), Ok(resource));
            assert_eq!(resource.is_served(), Resource::SERVED.contains(&resource));
        }
    }

    #[test]
    fn reserved_names_have_their_own_answer() {
        for name in ["conversations", "teams", "users"] {
            assert_eq!(Resource::parse(name), Err(ResourceError::Reserved));
        }
        for name in ["task", "Tasks", "", "api-keys", "notes\0"] {
            assert_eq!(Resource::parse(name), Err(ResourceError::Unknown));
        }
    }

    proptest::proptest! {
        #[test]
        fn a_set_is_a_set(
            one in proptest::collection::btree_set(proptest::sample::select(Resource::ALL.to_vec()), 0..8),
            other in proptest::collection::btree_set(proptest::sample::select(Resource::ALL.to_vec()), 0..8),
        ) {
            let of = |tree: &BTreeSet<Resource>| tree.iter().copied().collect::<ResourceSet>();
            let tree = |set: ResourceSet| set.iter().copied().collect::<BTreeSet<_>>();
            let (a, b) = (of(&one), of(&other));
            proptest::prop_assert!(a.iter().eq(&one));
            proptest::prop_assert_eq!(a.is_empty(), one.is_empty());
            proptest::prop_assert_eq!(a == b, one == other);
            proptest::prop_assert_eq!(tree(a.intersection(b)), one.intersection(&other).copied().collect());
            proptest::prop_assert_eq!(tree(a.difference(b)), one.difference(&other).copied().collect());
            for resource in Resource::ALL {
                proptest::prop_assert_eq!(a.contains(&resource), one.contains(&resource));
                let mut more = a;
                proptest::prop_assert_eq!(more.insert(resource), !one.contains(&resource));
                proptest::prop_assert!(more.contains(&resource));
            }
            proptest::prop_assert_eq!(serde_json::to_value(a).ok(), serde_json::to_value(&one).ok());
        }
    }

    #[test]
    fn sensitive_resources_are_not_served() {
        let sensitive: Vec<_> = Resource::ALL
            .into_iter()
            .filter(|r| r.is_sensitive())
            .collect();
        assert_eq!(sensitive, [Resource::Credentials, Resource::ApiKeys]);
    }
}
