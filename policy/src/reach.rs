//! How far a question can reach: the lattice on which scopes and ceilings meet.
//!
//! Invariant: there is a meet and no join. A meet is idempotent, commutative and associative, and its result is
//! contained in both sides, so no order of rules and no added rule can widen what a grant reaches.
//! Elsewhere on purpose: where reaches come from (`scope.rs`, `rules.rs`) and where they end (`evaluate.rs`).

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::flat::{FlatMap, FlatSet};
use crate::id::TeamId;
use crate::resource::Resource;

/// A number of rows from 1 to 10,000: a cap, or a limit asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RowLimit(u16);

/// The number is not a row limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a number of rows must be from 1 to 10000")]
pub struct RowLimitError;

impl RowLimit {
    /// One row.
    pub const MIN: Self = Self(1);
    /// Ten thousand rows, the most any answer can hold.
    pub const MAX: Self = Self(10_000);
    /// The cap of a scope that names none.
    pub const DEFAULT: Self = Self(100);

    /// A limit of `rows`.
    ///
    /// # Errors
    /// [`RowLimitError`] outside 1..=10,000.
    pub fn new(rows: u64) -> Result<Self, RowLimitError> {
        u16::try_from(rows)
            .ok()
            .filter(|rows| (Self::MIN.0..=Self::MAX.0).contains(rows))
            .map(Self)
            .ok_or(RowLimitError)
    }

    /// The number of rows.
    #[must_use]
    pub const fn rows(self) -> u16 {
        self.0
    }
}

impl<'de> Deserialize<'de> for RowLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = u64::deserialize(deserializer)?;
        Self::new(rows).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RowLimit {
    fn schema_name() -> Cow<'static, str> {
        "RowLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 10000 })
    }
}

/// Which teams' rows are in reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeamSet {
    /// Every team; what a rule without a team list says.
    Any,
    /// These teams and no others; possibly none.
    Only(FlatSet<TeamId>),
}

impl TeamSet {
    /// The teams in both sets.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, set) | (set, Self::Any) => set.clone(),
            (Self::Only(a), Self::Only(b)) => Self::Only(a.intersection(b)),
        }
    }

    /// Whether `team` is in the set.
    #[must_use]
    pub fn contains(&self, team: &TeamId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(teams) => teams.contains(team),
        }
    }

    /// Whether every team of this set is in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Any) => true,
            (Self::Any, Self::Only(_)) => false,
            (Self::Only(a), Self::Only(b)) => a.is_subset(b),
        }
    }
}

/// How far one resource is in reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceReach {
    /// The teams whose rows may be seen, before the subject's membership narrows them.
    pub teams: TeamSet,
    /// Whether rows of no team that the subject owns may be seen.
    pub include_personal: bool,
}

impl ResourceReach {
    fn meet(&self, other: &Self) -> Self {
        Self {
            teams: self.teams.meet(&other.teams),
            include_personal: self.include_personal && other.include_personal,
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        self.teams.is_within(&other.teams) && (!self.include_personal || other.include_personal)
    }
}

/// What can be reached at all: resources, each with its teams and personal rows, and a cap on the rows per answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The resources in reach; a resource that is not here is denied.
    pub resources: FlatMap<Resource, ResourceReach>,
    /// The most rows one answer holds.
    pub max_rows_per_query: RowLimit,
}

impl Reach {
    /// Nothing at all: where every decision starts.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            resources: FlatMap::default(),
            max_rows_per_query: RowLimit::MIN,
        }
    }

    /// What is in reach of both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let resources = self
            .resources
            .iter()
            .filter_map(|(resource, reach)| {
                let with = other.resources.get(resource)?;
                Some((*resource, reach.meet(with)))
            })
            .collect();
        Self {
            resources,
            max_rows_per_query: self.max_rows_per_query.min(other.max_rows_per_query),
        }
    }

    /// Whether everything in this reach is also in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.max_rows_per_query <= other.max_rows_per_query
            && self.resources.iter().all(|(resource, reach)| {
                other
                    .resources
                    .get(resource)
                    .is_some_and(|with| reach.is_within(with))
            })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    pub(crate) fn any_team() -> impl Strategy<Value = TeamId> {
        "[a-d]".prop_map(|name| TeamId::parse(&name).unwrap())
    }

    fn any_resource_reach() -> impl Strategy<Value = ResourceReach> {
        let teams = prop_oneof![
            Just(TeamSet::Any),
            btree_set(any_team(), 0..4).prop_map(|teams| TeamSet::Only(teams.into()))
        ];
        (teams, any::<bool>()).prop_map(|(teams, include_personal)| ResourceReach {
            teams,
            include_personal,
        })
    }

    pub(crate) fn any_reach() -> impl Strategy<Value = Reach> {
        let resource = proptest::sample::select(Resource::ALL.to_vec());
        let resources = btree_map(resource, any_resource_reach(), 0..6);
        (resources, 1u64..=10_000).prop_map(|(resources, rows)| Reach {
            resources: resources.into_iter().collect(),
            max_rows_per_query: RowLimit::new(rows).unwrap(),
        })
    }

    #[test]
    fn row_limits_have_ends() {
        for bad in [0, 10_001, 65_536, 65_537, u64::MAX] {
            assert_eq!(RowLimit::new(bad), Err(RowLimitError));
        }
        assert_eq!(RowLimit::new(1), Ok(RowLimit::MIN));
        assert_eq!(RowLimit::new(10_000), Ok(RowLimit::MAX));
    }

    proptest! {
        #[test]
        fn meet_is_idempotent(a in any_reach()) {
            prop_assert_eq!(a.meet(&a), a);
        }

        #[test]
        fn meet_is_commutative(a in any_reach(), b in any_reach()) {
            prop_assert_eq!(a.meet(&b), b.meet(&a));
        }

        #[test]
        fn meet_is_associative(a in any_reach(), b in any_reach(), c in any_reach()) {
            prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
        }

        #[test]
        fn meet_never_widens(a in any_reach(), b in any_reach()) {
            let both = a.meet(&b);
            prop_assert!(both.is_within(&a));
            prop_assert!(both.is_within(&b));
        }

        #[test]
        fn meet_is_the_greatest_within_both(a in any_reach(), b in any_reach(), c in any_reach()) {
            if c.is_within(&a) && c.is_within(&b) {
                prop_assert!(c.is_within(&a.meet(&b)));
            }
        }

        #[test]
        fn meet_with_nothing_reaches_nothing(a in any_reach()) {
            prop_assert!(a.meet(&Reach::nothing()).resources.is_empty());
        }
    }
}
