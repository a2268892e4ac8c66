//! Every shape of scope and ceiling, and what each must come to.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::truth::{Reach, Truth};

/// The resources that can be granted.
pub const RESOURCES: [&str; 5] = ["tasks", "notes", "memory", "projects", "missions"];
/// Policy removes the labels of tasks, which the generator gives to every task.
pub const BASE_POLICY: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "notes", "memory", "projects", "missions"]
max_rows_per_query = 10000
rate_limit = { per_minute = 1000000, burst = 100000 }
[redaction]
fields.tasks = ["labels"]
"#;

/// Which teams a scope or a ceiling names.
#[derive(Debug, Clone)]
pub struct Teams {
    /// Of the user's own, by position.
    own: [bool; 3],
    /// Of all, by number: most of them are foreign.
    any: Vec<u64>,
}

impl Teams {
    pub fn names(&self, truth: &Truth, user: u64) -> BTreeSet<String> {
        let own = truth.teams_of(user).into_iter().zip(self.own);
        own.filter(|(_, is_named)| *is_named)
            .map(|(team, _)| team)
            .chain(self.any.iter().map(|team| truth.world.team(*team).id))
            .collect()
    }
}

#[derive(Debug, Clone)]
pub struct Ceiling {
    resources: [bool; 5],
    teams: Option<Teams>,
    personal: bool,
    pub cap: Option<u16>,
}

/// One grant, one ceiling, one way of asking.
#[derive(Debug, Clone)]
pub struct Case {
    pub user: u64,
    granted: [bool; 5],
    excluded: [bool; 5],
    filters: [Option<(Teams, bool)>; 5],
    pub cap: u16,
    ceiling: Option<Ceiling>,
    /// In how many pages a list is read, at least.
    pub pages: usize,
    pub wire: bool,
}

pub fn teams() -> impl Strategy<Value = Teams> {
    let foreign = proptest::collection::vec(0_u64..40, 0..3);
    (any::<[bool; 3]>(), foreign).prop_map(|(own, any)| Teams { own, any })
}

pub fn ceilings() -> impl Strategy<Value = Ceiling> {
    let resources = proptest::array::uniform5(proptest::bool::weighted(0.8));
    let teams = proptest::option::of(teams());
    let cap = proptest::option::of(1_u16..10_000);
    (resources, teams, any::<bool>(), cap).prop_map(|(resources, teams, personal, cap)| Ceiling {
        resources,
        teams,
        personal,
        cap,
    })
}

pub fn cases() -> impl Strategy<Value = Case> {
    let granted = proptest::array::uniform5(proptest::bool::weighted(0.7))
        .prop_filter("a scope names a resource", |granted| {
            granted.contains(&true)
        });
    let filter = || proptest::option::weighted(0.8, (teams(), any::<bool>()));
    let filters = [filter(), filter(), filter(), filter(), filter()];
    // The last of every hundred users is banned.
    let user = (0_u64..1_000).prop_filter("not banned", |user| user % 100 != 99);
    let cap = prop_oneof![Just(10_000_u16), 40_u16..400];
    (
        (
            user,
            granted,
            proptest::array::uniform5(proptest::bool::weighted(0.1)),
        ),
        filters,
        (cap, proptest::option::weighted(0.6, ceilings())),
        (1_usize..4, any::<bool>()),
    )
        .prop_map(
            |((user, granted, excluded), filters, (cap, ceiling), (pages, wire))| Case {
                user,
                granted,
                excluded,
                filters,
                cap,
                ceiling,
                pages,
                wire,
            },
        )
}

impl Case {
    pub fn named(&self, resource: usize) -> bool {
        self.granted[resource]
    }

    pub fn is_excluded(&self, resource: usize) -> bool {
        self.excluded[resource] && !self.granted[resource]
    }

    pub fn scope(&self, truth: &Truth) -> Value {
        let mut filters = serde_json::Map::new();
        for (index, filter) in self.filters.iter().enumerate() {
            if let (true, Some((teams, personal))) = (self.named(index), filter) {
                let teams = teams.names(truth, self.user);
                let filter = json!({"include_teams": teams, "include_personal": personal});
                filters.insert(RESOURCES[index].to_owned(), filter);
            }
        }
        let pick = |chosen: &dyn Fn(usize) -> bool| -> Vec<&str> {
            (0..5)
                .filter(|at| chosen(*at))
                .map(|at| RESOURCES[at])
                .collect()
        };
        json!({
            "resources": pick(&|at| self.named(at)),
            "excluded_resources": pick(&|at| self.is_excluded(at)),
            "filters": filters,
            "max_rows_per_query": self.cap,
        })
    }

    pub fn policy(&self, truth: &Truth) -> String {
        let Some(ceiling) = &self.ceiling else {
            return BASE_POLICY.to_owned();
        };
        let resources: Vec<&str> = (0..5)
            .filter(|at| ceiling.resources[*at])
            .map(|at| RESOURCES[at])
            .collect();
        let mut text = format!("{BASE_POLICY}\n[peers.home]\nresources = {resources:?}\n");
        text += &format!("include_personal = {}\n", ceiling.personal);
        if let Some(teams) = &ceiling.teams {
            text += &format!(
                "teams = {:?}\n",
                Vec::from_iter(teams.names(truth, self.user))
            );
        }
        if let Some(cap) = ceiling.cap {
            text += &format!("max_rows_per_query = {cap}\n");
        }
        text
    }

    /// What the grant reaches of a resource; `None` when it must be refused.
    pub fn reach(&self, truth: &Truth, resource: usize) -> Option<Reach> {
        let closed = |ceiling: &Ceiling| !ceiling.resources[resource];
        if !self.named(resource) || self.ceiling.as_ref().is_some_and(closed) {
            return None;
        }
        let (mut teams, mut personal) = match &self.filters[resource] {
            Some((teams, personal)) => (teams.names(truth, self.user), *personal),
            None => (BTreeSet::new(), true),
        };
        let own = truth.teams_of(self.user);
        teams.retain(|team| own.contains(team));
        if let Some(ceiling) = &self.ceiling {
            personal &= ceiling.personal;
            if let Some(named) = &ceiling.teams {
                let named = named.names(truth, self.user);
                teams.retain(|team| named.contains(team));
            }
        }
        Some(Reach { teams, personal })
    }

    pub fn row_cap(&self) -> usize {
        let ceiling = self.ceiling.as_ref().and_then(|ceiling| ceiling.cap);
        usize::from(ceiling.map_or(self.cap, |cap| cap.min(self.cap)))
    }
}
