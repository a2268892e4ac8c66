//! What a grant may show, worked out from the generator of the data and nothing else.
//!
//! Invariant: no code of the sidecar takes part, so an error of its row rule cannot hide here. The
//! rule is that of the specification, section 6.3, written down a second time.

use std::collections::{BTreeSet, HashMap};

use reference_gateway::generate::World;
use reference_gateway::ownership::{Parents, Resolved};
use reference_gateway::record::{Collection, Record, User};

/// The place of a row in an answer: `(createdAt, id)`.
pub type Key = (String, String);

/// Everything the gateway holds.
pub struct Truth {
    pub world: World,
    rows: Vec<(Record, Resolved)>,
    missions: HashMap<String, Resolved>,
}

/// What one resource of a grant reaches, every narrowing taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub teams: BTreeSet<String>,
    pub personal: bool,
}

impl Truth {
    pub fn of(world: World) -> Self {
        let mut parents = Parents::default();
        let mut missions = HashMap::new();
        let rows = world
            .all_rows()
            .map(|row| {
                let resolved = parents.resolve(&row).unwrap();
                if row.collection == Collection::Missions {
                    missions.insert(row.id.clone(), resolved.clone());
                }
                (row, resolved)
            })
            .collect();
        Self {
            world,
            rows,
            missions,
        }
    }

    /// The teams of user number `index`.
    pub fn teams_of(&self, index: u64) -> BTreeSet<String> {
        let memberships = self.world.teams_of(index).into_iter();
        memberships.map(|membership| membership.team_id).collect()
    }

    /// The rows of `resource` that `reach` opens to `user`, newest first.
    pub fn granted(&self, resource: &str, user: &User, reach: &Reach) -> Vec<Key> {
        let collections = collections(resource);
        let mut keys: Vec<Key> = self
            .rows
            .iter()
            .filter(|(row, _)| collections.contains(&row.collection))
            .filter(|(row, resolved)| self.passes(row, resolved, user, reach))
            .map(|(row, _)| (row.created_at.clone(), row.id.clone()))
            .collect();
        keys.sort_unstable_by(|left, right| right.cmp(left));
        keys
    }

    /// How many rows the collections of `resource` hold, whoever they belong to.
    pub fn everybodys(&self, resource: &str) -> usize {
        let collections = collections(resource);
        self.rows
            .iter()
            .filter(|(row, _)| collections.contains(&row.collection))
            .filter(|(row, _)| row.collection != Collection::Notes || row.text.is_some())
            .count()
    }

    fn passes(&self, row: &Record, resolved: &Resolved, user: &User, reach: &Reach) -> bool {
        let is_own = resolved.owner.as_ref() == Some(&user.id);
        let opens = |team: Option<&String>, is_own: bool| match team {
            Some(team) => reach.teams.contains(team),
            None => reach.personal && is_own,
        };
        match row.collection {
            Collection::Tasks | Collection::Projects | Collection::Missions => {
                opens(resolved.team.as_ref(), is_own)
            }
            Collection::Notes => {
                let mission = &self.missions[row.mission.as_ref().unwrap()];
                let own_mission = mission.owner.as_ref() == Some(&user.id);
                is_own && row.text.is_some() && opens(mission.team.as_ref(), own_mission)
            }
            Collection::Insights | Collection::Preferences => is_own && reach.personal,
            Collection::Credentials | Collection::ApiKeys => false,
        }
    }
}

fn collections(resource: &str) -> &'static [Collection] {
    match resource {
        "tasks" => &[Collection::Tasks],
        "notes" => &[Collection::Notes],
        "memory" => &[Collection::Insights, Collection::Preferences],
        "projects" => &[Collection::Projects],
        "missions" => &[Collection::Missions],
        other => panic!("{other} has no rows"),
    }
}
