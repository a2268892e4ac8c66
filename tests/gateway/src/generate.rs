//! Data set 2: a large, deterministic company as pure functions of an index.
//!
//! Invariant: `World::row(index)` depends on the parameters and the index only, so a test can
//! compute the truth about every row without asking the gateway. Every row names its owner, its
//! team or a parent that does. Inserting the rows is in `store/seed.rs`.

use uuid::Builder;

use crate::record::{Collection, Membership, Record, Team, User, rfc3339};

/// 2026-01-01T00:00:00Z in milliseconds since the epoch.
const EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// The parameters of a generated data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Changes every draw.
    pub seed: u64,
    /// Number of users, at least 1.
    pub users: u64,
    /// Number of teams, at least 1.
    pub teams: u64,
    /// Number of rows over all collections.
    pub rows: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            seed: 0x6d6f_7361_6963,
            users: 1_000,
            teams: 40,
            rows: 200_000,
        }
    }
}

impl World {
    /// A world of the default seed and team count, with at least one user.
    #[must_use]
    pub fn sized(users: u64, rows: u64) -> Self {
        Self {
            users: users.max(1),
            rows,
            ..Self::default()
        }
    }

    /// Rows per collection, in the order of [`Collection::ALL`]; they add up to `rows`.
    #[must_use]
    pub fn counts(&self) -> [(Collection, u64); 8] {
        let share = |percent: u64| self.rows * percent / 100;
        let projects = share(1).max(1).min(self.rows);
        let missions = share(2).max(1).min(self.rows - projects);
        let smaller = [share(20), share(15), share(10), share(1), share(1)];
        let tasks = self.rows - projects - missions - smaller.iter().sum::<u64>();
        let [notes, insights, preferences, credentials, api_keys] = smaller;
        [
            (Collection::Projects, projects),
            (Collection::Missions, missions),
            (Collection::Tasks, tasks),
            (Collection::Notes, notes),
            (Collection::Insights, insights),
            (Collection::Preferences, preferences),
            (Collection::Credentials, credentials),
            (Collection::ApiKeys, api_keys),
        ]
    }

    /// User number `index`. Even ones have a UUID for an id, odd ones their handle; the last of
    /// every hundred is banned.
    #[must_use]
    pub fn user(&self, index: u64) -> User {
        let handle = format!("u{index:04}");
        User {
            id: self.user_id(index),
            name: format!("Employee {index}"),
            banned: index % 100 == 99,
            handle,
        }
    }

    fn user_id(&self, index: u64) -> String {
        if index.is_multiple_of(2) {
            self.uuid(1, index)
        } else {
            format!("u{index:04}")
        }
    }

    /// Team number `index`.
    #[must_use]
    pub fn team(&self, index: u64) -> Team {
        Team {
            id: team_id(index),
            name: format!("Team {index}"),
        }
    }

    /// The teams of user number `index`, without duplicates: none for one user in ten, else one
    /// to three.
    #[must_use]
    pub fn teams_of(&self, index: u64) -> Vec<Membership> {
        if index % 10 == 9 {
            return Vec::new();
        }
        let mut teams = vec![index % self.teams];
        for extra in 0..self.draw(2, index, 0) % 3 {
            teams.push(self.draw(2, index, extra + 1) % self.teams);
        }
        teams.sort_unstable();
        teams.dedup();
        teams
            .into_iter()
            .map(|team| Membership {
                user_id: self.user_id(index),
                team_id: team_id(team),
            })
            .collect()
    }

    /// Row number `index` over all collections, parents first; `None` from `rows` on.
    #[must_use]
    pub fn row(&self, index: u64) -> Option<Record> {
        let mut first = 0;
        for (collection, count) in self.counts() {
            if index < first + count {
                return Some(self.row_of(collection, index - first));
            }
            first += count;
        }
        None
    }

    /// Every row, parents first.
    pub fn all_rows(self) -> impl Iterator<Item = Record> + Send {
        (0..self.rows).filter_map(move |index| self.row(index))
    }

    fn row_of(&self, collection: Collection, index: u64) -> Record {
        let mut row = self.blank(collection, index);
        match collection {
            Collection::Projects => self.shape_project(&mut row, index),
            Collection::Missions => self.shape_mission(&mut row, index),
            Collection::Tasks => self.shape_task(&mut row, index),
            Collection::Notes => self.shape_note(&mut row, index),
            Collection::Insights | Collection::Preferences => {
                row.owner = Some(self.any_user(collection, index));
                row.text = Some(format!("{} {index}", self.words(collection, index)));
            }
            Collection::Credentials | Collection::ApiKeys => {
                row.owner = Some(self.any_user(collection, index));
                row.text = Some(format!("leak-canary-{}", self.uuid(99, index)));
            }
        }
        row
    }

    fn blank(&self, collection: Collection, index: u64) -> Record {
        let salt = collection_salt(collection);
        // Few distinct instants, so that many rows share one and the id has to break the tie.
        let instants = (self.rows / 5).max(1);
        let created = EPOCH_MILLIS + self.draw(salt, index, 0) % instants * 190_123;
        Record::new(
            collection,
            self.uuid(salt, index),
            rfc3339(created),
            format!("{} {index}", self.words(collection, index)),
        )
    }

    fn shape_project(&self, row: &mut Record, index: u64) {
        row.status = Some(pick(&PROJECT_STATUS, self.draw(11, index, 1)).to_owned());
        row.text = Some(self.words(Collection::Notes, index));
        let (team, owner) = self.project_ownership(index);
        row.team = team;
        row.owner = Some(owner);
    }

    /// Team and owner of project number `index`: half belong to a team.
    fn project_ownership(&self, index: u64) -> (Option<String>, String) {
        let team = self
            .draw(11, index, 2)
            .is_multiple_of(2)
            .then(|| team_id(self.draw(11, index, 3) % self.teams));
        (team, self.user_id(self.draw(11, index, 4) % self.users))
    }

    fn shape_mission(&self, row: &mut Record, index: u64) {
        row.status = Some(pick(&PROJECT_STATUS, self.draw(12, index, 1)).to_owned());
        row.text = Some(self.words(Collection::Tasks, index));
        let mission = self.mission(index);
        row.project = mission.project.map(|project| self.uuid(11, project));
        row.team = mission.own_team;
        row.owner = mission.own_owner;
    }

    fn mission(&self, index: u64) -> Mission {
        let (_, projects) = self.counts()[0];
        let owner = self.user_id(self.draw(12, index, 3) % self.users);
        match self.draw(12, index, 2) % 10 {
            0..=4 => {
                let project = self.draw(12, index, 4) % projects;
                let (team, project_owner) = self.project_ownership(project);
                // A fifth of the missions leave their owner to the project.
                let silent = self.draw(12, index, 5).is_multiple_of(5);
                Mission {
                    project: Some(project),
                    own_team: None,
                    own_owner: (!silent).then(|| project_owner.clone()),
                    team,
                    owner: project_owner,
                }
            }
            5..=7 => Mission {
                project: None,
                own_team: None,
                own_owner: Some(owner.clone()),
                team: None,
                owner,
            },
            _ => {
                let team = Some(team_id(self.draw(12, index, 6) % self.teams));
                Mission {
                    project: None,
                    own_team: team.clone(),
                    own_owner: Some(owner.clone()),
                    team,
                    owner,
                }
            }
        }
    }

    fn shape_task(&self, row: &mut Record, index: u64) {
        let (_, projects) = self.counts()[0];
        let (_, missions) = self.counts()[1];
        let someone = self.any_user(Collection::Tasks, index);
        row.status = Some(pick(&TASK_STATUS, self.draw(13, index, 1)).to_owned());
        row.text = Some(self.words(Collection::Insights, index));
        row.extra = Some(task_extra(self.draw(13, index, 7)));
        match self.draw(13, index, 2) % 10 {
            0..=2 => {
                let project = self.draw(13, index, 3) % projects;
                let (team, owner) = self.project_ownership(project);
                row.project = Some(self.uuid(11, project));
                row.owner = self.task_owner(index, team.is_some(), someone, owner);
            }
            kind @ 3..=5 if missions > 0 => {
                let number = self.draw(13, index, 4) % missions;
                let mission = self.mission(number);
                row.mission = Some(self.uuid(12, number));
                if kind == 5 {
                    row.project = mission.project.map(|project| self.uuid(11, project));
                }
                row.owner = self.task_owner(index, mission.team.is_some(), someone, mission.owner);
            }
            6 => {
                row.team = Some(team_id(self.draw(13, index, 5) % self.teams));
                row.owner = Some(someone);
            }
            _ => row.owner = Some(someone),
        }
    }

    /// Owner of a task under a parent: anybody for a team's, the parent's owner for a personal
    /// one; one in ten leaves it to the parent.
    fn task_owner(
        &self,
        index: u64,
        is_team: bool,
        someone: String,
        parent: String,
    ) -> Option<String> {
        if self.draw(13, index, 6).is_multiple_of(10) {
            None
        } else if is_team {
            Some(someone)
        } else {
            Some(parent)
        }
    }

    fn shape_note(&self, row: &mut Record, index: u64) {
        let (_, missions) = self.counts()[1];
        let number = self.draw(14, index, 2) % missions.max(1);
        let mission = self.mission(number);
        row.mission = Some(self.uuid(12, number));
        row.status = Some(pick(&TASK_STATUS, self.draw(14, index, 1)).to_owned());
        // A third of the notes are by somebody who may have no access to the mission.
        let stranger = self.draw(14, index, 3).is_multiple_of(3);
        row.owner = Some(if stranger || mission.team.is_some() {
            self.any_user(Collection::Notes, index)
        } else {
            mission.owner
        });
        // One mission task in ten has no note on it.
        if !self.draw(14, index, 4).is_multiple_of(10) {
            row.text = Some(format!("{} {index}", self.words(Collection::Notes, index)));
        }
    }

    fn any_user(&self, collection: Collection, index: u64) -> String {
        self.user_id(self.draw(collection_salt(collection), index, 100) % self.users)
    }

    fn words(&self, collection: Collection, index: u64) -> String {
        let salt = collection_salt(collection) + 50;
        let word = |n| pick(&WORDS, self.draw(salt, index, n));
        format!("{} {} {}", word(0), word(1), word(2))
    }

    fn uuid(&self, salt: u64, index: u64) -> String {
        let high = self.draw(salt, index, 1_000);
        let low = self.draw(salt, index, 1_001);
        let bits = (u128::from(high) << 64) | u128::from(low);
        Builder::from_random_bytes(bits.to_be_bytes())
            .into_uuid()
            .to_string()
    }

    fn draw(&self, salt: u64, index: u64, nth: u64) -> u64 {
        splitmix64(splitmix64(splitmix64(self.seed ^ salt) ^ index) ^ nth)
    }
}

/// What a mission refers to and what it resolves to.
struct Mission {
    project: Option<u64>,
    own_team: Option<String>,
    own_owner: Option<String>,
    team: Option<String>,
    owner: String,
}

const WORDS: [&str; 16] = [
    "ledger", "harbour", "quartz", "meadow", "signal", "copper", "atlas", "lantern", "orchard",
    "pivot", "ripple", "summit", "timber", "velvet", "willow", "zenith",
];
const TASK_STATUS: [&str; 4] = ["open", "in_progress", "done", "cancelled"];
const PROJECT_STATUS: [&str; 4] = ["active", "paused", "completed", "archived"];

const fn collection_salt(collection: Collection) -> u64 {
    match collection {
        Collection::Projects => 11,
        Collection::Missions => 12,
        Collection::Tasks => 13,
        Collection::Notes => 14,
        Collection::Insights => 15,
        Collection::Preferences => 16,
        Collection::Credentials => 17,
        Collection::ApiKeys => 18,
    }
}

fn team_id(index: u64) -> String {
    format!("team-{index:02}")
}

fn task_extra(draw: u64) -> String {
    format!(
        r#""priority":{},"labels":["{}","{}"],"usage":{{"tokenCount":{}}}"#,
        draw % 4,
        pick(&WORDS, draw >> 8),
        pick(&WORDS, draw >> 16),
        draw % 10_000
    )
}

fn pick<'a, const N: usize>(from: &[&'a str; N], draw: u64) -> &'a str {
    let length = u64::try_from(N).unwrap_or(1);
    let index = usize::try_from(draw % length).unwrap_or(0);
    from.get(index).copied().unwrap_or_default()
}

/// The `SplitMix64` output function (Steele, Lea, Flood 2014).
#[must_use]
pub const fn splitmix64(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
