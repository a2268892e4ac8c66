//! What the gateway itself says about the subject: teams, projects, missions.
//!
//! Invariant: an input of the decision, never its result. A set of facts holds at most [`NativeFacts::MAX_ENTRIES`]
//! entries and says one thing about each; a gateway that contradicts itself gives no facts at all.
//! Elsewhere on purpose: fetching them, and for how long they stand (the gateway client).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{MissionId, ProjectId, TeamId, UserId};

/// Who a project belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectFacts {
    /// Its team; `None` when it belongs to no team.
    pub team: Option<TeamId>,
    /// Its owner.
    pub owner: Option<UserId>,
}

/// Who a mission belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissionFacts {
    /// Its project.
    pub project: Option<ProjectId>,
    /// Its own team; `None` when it has none of its own.
    pub team: Option<TeamId>,
    /// Its owner.
    pub owner: Option<UserId>,
}

/// What the gateway says about one subject, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NativeFacts {
    teams: BTreeSet<TeamId>,
    projects: BTreeMap<ProjectId, ProjectFacts>,
    missions: BTreeMap<MissionId, MissionFacts>,
}

/// How many facts of each kind a decision had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactCounts {
    /// Teams.
    pub teams: u16,
    /// Projects.
    pub projects: u16,
    /// Missions.
    pub missions: u16,
}

/// Why facts cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NativeFactsError {
    /// More entries than one subject may have.
    #[error(
        "the gateway names more than 10000 teams, projects and missions for one user: narrow what it reports"
    )]
    TooMany,
    /// Two entries for one project that differ.
    #[error("the gateway says two different things about project {0}: its facts cannot be used")]
    ProjectConflict(ProjectId),
    /// Two entries for one mission that differ.
    #[error("the gateway says two different things about mission {0}: its facts cannot be used")]
    MissionConflict(MissionId),
}

impl NativeFacts {
    /// The most entries of teams, projects and missions together (specification, section 5).
    pub const MAX_ENTRIES: usize = 10_000;

    /// A builder without entries.
    #[must_use]
    pub fn builder() -> NativeFactsBuilder {
        NativeFactsBuilder::default()
    }

    /// The teams the subject is a member of.
    #[must_use]
    pub const fn teams(&self) -> &BTreeSet<TeamId> {
        &self.teams
    }

    /// The projects the subject can see.
    #[must_use]
    pub const fn projects(&self) -> &BTreeMap<ProjectId, ProjectFacts> {
        &self.projects
    }

    /// The missions the subject can see.
    #[must_use]
    pub const fn missions(&self) -> &BTreeMap<MissionId, MissionFacts> {
        &self.missions
    }

    /// Entries of all three kinds.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.teams.len() + self.projects.len() + self.missions.len()
    }

    /// How many there are of each kind.
    #[must_use]
    pub fn counts(&self) -> FactCounts {
        // At most MAX_ENTRIES, so the fallback is never taken.
        let count = |entries: usize| u16::try_from(entries).unwrap_or(u16::MAX);
        FactCounts {
            teams: count(self.teams.len()),
            projects: count(self.projects.len()),
            missions: count(self.missions.len()),
        }
    }
}

/// Collects facts page by page. Entries that were seen before count only once.
#[derive(Clone, Debug, Default)]
pub struct NativeFactsBuilder {
    facts: NativeFacts,
}

impl NativeFactsBuilder {
    /// Adds a team.
    ///
    /// # Errors
    /// [`NativeFactsError::TooMany`].
    pub fn team(&mut self, team: TeamId) -> Result<&mut Self, NativeFactsError> {
        self.facts.teams.insert(team);
        self.bounded()
    }

    /// Adds a project.
    ///
    /// # Errors
    /// [`NativeFactsError::TooMany`], or [`NativeFactsError::ProjectConflict`] when it is known as something else.
    pub fn project(
        &mut self,
        id: ProjectId,
        facts: ProjectFacts,
    ) -> Result<&mut Self, NativeFactsError> {
        match self.facts.projects.entry(id) {
            Entry::Vacant(slot) => {
                slot.insert(facts);
            }
            Entry::Occupied(known) if *known.get() == facts => {}
            Entry::Occupied(known) => {
                return Err(NativeFactsError::ProjectConflict(known.key().clone()));
            }
        }
        self.bounded()
    }

    /// Adds a mission.
    ///
    /// # Errors
    /// [`NativeFactsError::TooMany`], or [`NativeFactsError::MissionConflict`] when it is known as something else.
    pub fn mission(
        &mut self,
        id: MissionId,
        facts: MissionFacts,
    ) -> Result<&mut Self, NativeFactsError> {
        match self.facts.missions.entry(id) {
            Entry::Vacant(slot) => {
                slot.insert(facts);
            }
            Entry::Occupied(known) if *known.get() == facts => {}
            Entry::Occupied(known) => {
                return Err(NativeFactsError::MissionConflict(known.key().clone()));
            }
        }
        self.bounded()
    }

    /// The facts collected.
    #[must_use]
    pub fn build(self) -> NativeFacts {
        self.facts
    }

    fn bounded(&mut self) -> Result<&mut Self, NativeFactsError> {
        if self.facts.entries() > NativeFacts::MAX_ENTRIES {
            return Err(NativeFactsError::TooMany);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn owned_by(user: &str) -> ProjectFacts {
        ProjectFacts {
            team: None,
            owner: Some(UserId::parse(user).unwrap()),
        }
    }

    #[test]
    fn the_same_fact_twice_counts_once_and_a_different_one_is_refused() {
        let id = ProjectId::parse("p").unwrap();
        let mut builder = NativeFacts::builder();
        builder.project(id.clone(), owned_by("a")).unwrap();
        builder.project(id.clone(), owned_by("a")).unwrap();
        let conflict = builder.clone().project(id.clone(), owned_by("b")).err();
        assert_eq!(conflict, Some(NativeFactsError::ProjectConflict(id)));
        let mission = MissionId::parse("m").unwrap();
        builder
            .mission(mission.clone(), MissionFacts::default())
            .unwrap();
        let other = MissionFacts {
            team: Some(TeamId::parse("t").unwrap()),
            ..MissionFacts::default()
        };
        let conflict = builder.clone().mission(mission.clone(), other).err();
        assert_eq!(conflict, Some(NativeFactsError::MissionConflict(mission)));
        assert_eq!(builder.build().entries(), 2);
    }

    #[test]
    fn ten_thousand_entries_are_the_most() {
        let mut builder = NativeFacts::builder();
        for number in 0..NativeFacts::MAX_ENTRIES {
            builder
                .team(TeamId::parse(&format!("t{number}")).unwrap())
                .unwrap();
        }
        assert!(builder.clone().team(TeamId::parse("t0").unwrap()).is_ok());
        let over = builder.team(TeamId::parse("one more").unwrap()).err();
        assert_eq!(over, Some(NativeFactsError::TooMany));
    }
}
