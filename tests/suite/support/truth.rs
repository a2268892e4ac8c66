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

/// Everything a gateway with generated data holds.
pub struct Truth {
    pub world: World,
    rows: Rows,
}

/// Everything a gateway holds.
pub struct Rows {
    rows: Vec<Placed>,
    missions: HashMap<String, Placed>,
}

/// A row with what its references lead to.
#[derive(Clone)]
struct Placed {
    row: Record,
    team: Option<String>,
    /// Its own, else its mission's, else its project's: one step each, as the specification has it.
    owner: Option<String>,
}

/// What one resource of a grant reaches, every narrowing taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    pub teams: BTreeSet<String>,
    pub personal: bool,
}

impl Truth {
    pub fn of(world: World) -> Self {
        Self {
            world,
            rows: Rows::of(world.all_rows()),
        }
    }

    /// The teams of user number `index`.
    pub fn teams_of(&self, index: u64) -> BTreeSet<String> {
        let memberships = self.world.teams_of(index).into_iter();
        memberships.map(|membership| membership.team_id).collect()
    }

    /// As [`Rows::granted`].
    pub fn granted(&self, resource: &str, user: &User, reach: &Reach) -> Vec<Key> {
        self.rows.granted(resource, user, reach)
    }

    /// As [`Rows::everybodys`].
    pub fn everybodys(&self, resource: &str) -> usize {
        self.rows.everybodys(resource)
    }
}

impl Rows {
    /// Takes rows, parents first.
    pub fn of(rows: impl IntoIterator<Item = Record>) -> Self {
        let mut parents = Parents::default();
        let mut owners: HashMap<String, Option<String>> = HashMap::new();
        let mut missions = HashMap::new();
        let rows = rows
            .into_iter()
            .map(|row| {
                let Resolved { team, .. } = parents.resolve(&row).unwrap();
                let of = |id: &Option<String>| id.as_ref().and_then(|id| owners[id].clone());
                let own = row.owner.clone();
                let owner = own
                    .or_else(|| of(&row.mission))
                    .or_else(|| of(&row.project));
                let placed = Placed {
                    row: row.clone(),
                    team,
                    owner,
                };
                if matches!(row.collection, Collection::Projects | Collection::Missions) {
                    owners.insert(row.id.clone(), row.owner);
                }
                if row.collection == Collection::Missions {
                    missions.insert(row.id, placed.clone());
                }
                placed
            })
            .collect();
        Self { rows, missions }
    }

    /// The rows of `resource` that `reach` opens to `user`, newest first.
    pub fn granted(&self, resource: &str, user: &User, reach: &Reach) -> Vec<Key> {
        let collections = collections(resource);
        let mut keys: Vec<Key> = self
            .rows
            .iter()
            .filter(|placed| collections.contains(&placed.row.collection))
            .filter(|placed| self.passes(placed, user, reach))
            .map(|placed| (placed.row.created_at.clone(), placed.row.id.clone()))
            .collect();
        keys.sort_unstable_by(|left, right| right.cmp(left));
        keys
    }

    /// How many rows the collections of `resource` hold, whoever they belong to.
    pub fn everybodys(&self, resource: &str) -> usize {
        let collections = collections(resource);
        self.rows
            .iter()
            .map(|placed| &placed.row)
            .filter(|row| collections.contains(&row.collection))
            .filter(|row| row.collection != Collection::Notes || row.text.is_some())
            .count()
    }

    fn passes(&self, placed: &Placed, user: &User, reach: &Reach) -> bool {
        let row = &placed.row;
        let is_own = placed.owner.as_ref() == Some(&user.id);
        let opens = |team: Option<&String>, is_own: bool| match team {
            Some(team) => reach.teams.contains(team),
            None => reach.personal && is_own,
        };
        match row.collection {
            Collection::Tasks | Collection::Projects | Collection::Missions => {
                opens(placed.team.as_ref(), is_own)
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
