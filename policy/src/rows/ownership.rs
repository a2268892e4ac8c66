//! May this row pass: the team and the owner of a row, and what the permit says about them.
//!
//! Invariant: a row passes only on facts. Every reference it carries must be known to the gateway's own facts about
//! the subject, whether or not it decides anything, and what cannot be resolved is withheld, never guessed.
//! Elsewhere on purpose: reading the references out of a row (`filter.rs`), which teams are granted (the permit).
//!
//! Team of a row: its own, else its project's, else its mission's, else that of its mission's project. Owner of a
//! row: its own, else its mission's, else its project's (specification, section 6.3; a mission's own team, which
//! only some gateways report, stands before that of its project).

use std::sync::Arc;

use crate::id::{TeamId, UserId};
use crate::native::NativeFacts;
use crate::resource::Resource;

use super::memo::Memo;

/// What a permit says about rows.
#[derive(Clone, Debug)]
pub(super) struct RowAccess {
    pub(super) resource: Resource,
    pub(super) user: UserId,
    /// In ascending order.
    pub(super) teams: Arc<[TeamId]>,
    pub(super) include_personal: bool,
}

/// What one row says about whom it belongs to; absent and null are the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct References<'a> {
    pub(super) owner: Option<&'a [u8]>,
    pub(super) team: Option<&'a [u8]>,
    pub(super) project: Option<&'a [u8]>,
    pub(super) mission: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Team {
    Granted,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Subject,
    Other,
}

/// What a known project or mission gives to the rows that refer to it.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    team: Option<Team>,
    owner: Option<Owner>,
    /// For a mission: whether it passes by itself, so that the subject's notes on it do.
    passes: bool,
}

/// The rule of one answer. Cheap to make: facts are looked up when a row refers to them.
#[derive(Clone, Debug)]
pub(super) struct Ownership {
    access: RowAccess,
    facts: Arc<NativeFacts>,
}

/// Places already looked up; `None` for those the facts do not know.
#[derive(Debug)]
pub(super) struct Places {
    teams: Memo<Team>,
    projects: Memo<Option<Place>>,
    missions: Memo<Option<Place>>,
}

impl Places {
    pub(super) const fn new() -> Self {
        Self {
            teams: Memo::new(),
            projects: Memo::new(),
            missions: Memo::new(),
        }
    }
}

impl Ownership {
    pub(super) const fn new(access: RowAccess, facts: Arc<NativeFacts>) -> Self {
        Self { access, facts }
    }

    pub(super) const fn resource(&self) -> Resource {
        self.access.resource
    }

    /// Whether a row with these references passes.
    #[inline]
    pub(super) fn passes(&self, row: References<'_>, places: &mut Places) -> bool {
        let Ok(project) = known(row.project, &mut places.projects, |id| self.project(id)) else {
            return false;
        };
        let Ok(mission) = known(row.mission, &mut places.missions, |id| self.mission(id)) else {
            return false;
        };
        let owner = row
            .owner
            .map(|id| self.owner(id))
            .or(mission.owner)
            .or(project.owner);
        let is_subjects = owner == Some(Owner::Subject);
        match self.access.resource {
            // A mission opens the subject's own notes on it and nobody else's.
            Resource::Notes => is_subjects && mission.passes,
            Resource::Memory => is_subjects && self.access.include_personal,
            Resource::Tasks | Resource::Projects | Resource::Missions => {
                let team = row
                    .team
                    .map(|id| self.team(id, places))
                    .or(project.team)
                    .or(mission.team);
                self.permits(team, owner)
            }
            // They have no rule yet, so nothing of them passes.
            Resource::Credentials | Resource::ApiKeys => false,
        }
    }

    #[inline]
    fn permits(&self, team: Option<Team>, owner: Option<Owner>) -> bool {
        match team {
            Some(team) => team == Team::Granted,
            None => self.access.include_personal && owner == Some(Owner::Subject),
        }
    }

    #[inline]
    fn owner(&self, id: &[u8]) -> Owner {
        if self.access.user.as_str().as_bytes() == id {
            Owner::Subject
        } else {
            Owner::Other
        }
    }

    #[inline]
    fn team(&self, id: &[u8], places: &mut Places) -> Team {
        if let Some(team) = places.teams.find(0, id) {
            return team;
        }
        let team = self.look_up_team(id);
        places.teams.store(0, id, team);
        team
    }

    fn look_up_team(&self, id: &[u8]) -> Team {
        let granted = self
            .access
            .teams
            .binary_search_by(|team| team.as_str().as_bytes().cmp(id));
        if granted.is_ok() {
            Team::Granted
        } else {
            Team::Other
        }
    }

    fn project(&self, id: &str) -> Option<Place> {
        let facts = self.facts.projects().get(id)?;
        Some(Place {
            team: facts
                .team
                .as_ref()
                .map(|team| self.look_up_team(team.as_str().as_bytes())),
            owner: facts
                .owner
                .as_ref()
                .map(|owner| self.owner(owner.as_str().as_bytes())),
            passes: false,
        })
    }

    /// A mission whose own project is unknown is itself unknown: its team cannot be told.
    fn mission(&self, id: &str) -> Option<Place> {
        let facts = self.facts.missions().get(id)?;
        let project = match &facts.project {
            Some(project) => self.project(project.as_str())?,
            None => Place::default(),
        };
        let team = match &facts.team {
            Some(team) => Some(self.look_up_team(team.as_str().as_bytes())),
            None => project.team,
        };
        let owner = facts
            .owner
            .as_ref()
            .map(|owner| self.owner(owner.as_str().as_bytes()));
        Some(Place {
            team,
            owner,
            passes: self.permits(team, owner.or(project.owner)),
        })
    }
}

/// A reference present in a row but unknown to the facts.
struct Unresolved;

#[inline]
fn known(
    id: Option<&[u8]>,
    memo: &mut Memo<Option<Place>>,
    look_up: impl Fn(&str) -> Option<Place>,
) -> Result<Place, Unresolved> {
    let Some(id) = id else {
        return Ok(Place::default());
    };
    let place = match memo.find(0, id) {
        Some(place) => place,
        None => {
            let place = std::str::from_utf8(id).ok().and_then(look_up);
            memo.store(0, id, place);
            place
        }
    };
    place.ok_or(Unresolved)
}
