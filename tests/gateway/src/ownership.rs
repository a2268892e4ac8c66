//! Whose a row is: the team and the owner that its references resolve to.
//!
//! Invariant: a reference that cannot be resolved is an error, never "nobody's". The order is the
//! specification's (section 6.3): team = own, else the project's, else the mission's, else the
//! mission's project's; owner = own, else the mission's, else the project's.

use std::collections::HashMap;

use crate::record::{Collection, Record};

/// The team and the owner of a row, once every reference has been followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The team the row belongs to; `None` makes it personal.
    pub team: Option<String>,
    /// The person the row belongs to.
    pub owner: Option<String>,
}

/// A row refers to a project or mission that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {id} is referred to but was not stored before the row that refers to it")]
pub struct Dangling {
    /// `project` or `mission`.
    pub kind: &'static str,
    /// The identifier that is missing.
    pub id: String,
}

/// The projects and missions seen so far, with what they resolve to.
#[derive(Clone, Debug, Default)]
pub struct Parents {
    projects: HashMap<String, Resolved>,
    missions: HashMap<String, Resolved>,
}

impl Parents {
    /// Resolve a row and, if it is a project or a mission, remember it for the rows under it.
    ///
    /// # Errors
    /// [`Dangling`] when the row refers to a parent that was not resolved before.
    pub fn resolve(&mut self, row: &Record) -> Result<Resolved, Dangling> {
        let project = parent(&self.projects, row.project.as_ref(), "project")?;
        let mission = parent(&self.missions, row.mission.as_ref(), "mission")?;
        let resolved = if row.collection.is_shared() {
            Resolved {
                team: first([row.team.as_ref(), team(project), team(mission)]),
                owner: first([row.owner.as_ref(), owner(mission), owner(project)]),
            }
        } else {
            Resolved {
                team: None,
                owner: row.owner.clone(),
            }
        };
        match row.collection {
            Collection::Projects => self.projects.insert(row.id.clone(), resolved.clone()),
            Collection::Missions => self.missions.insert(row.id.clone(), resolved.clone()),
            _ => None,
        };
        Ok(resolved)
    }
}

fn parent<'a>(
    known: &'a HashMap<String, Resolved>,
    id: Option<&String>,
    kind: &'static str,
) -> Result<Option<&'a Resolved>, Dangling> {
    id.map(|id| {
        known.get(id).ok_or_else(|| Dangling {
            kind,
            id: id.clone(),
        })
    })
    .transpose()
}

fn team(of: Option<&Resolved>) -> Option<&String> {
    of.and_then(|resolved| resolved.team.as_ref())
}

fn owner(of: Option<&Resolved>) -> Option<&String> {
    of.and_then(|resolved| resolved.owner.as_ref())
}

fn first(candidates: [Option<&String>; 3]) -> Option<String> {
    candidates.into_iter().flatten().next().cloned()
}
