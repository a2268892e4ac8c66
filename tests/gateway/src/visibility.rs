//! Which rows a caller is answered, and how they asked for fewer.
//!
//! Invariant: honest unless mode `rows` is in force; narrowing never widens. The SQL is in
//! `store.rs`.

use crate::modes::{Behaviour, Mode};
use crate::store::{Caller, View};

/// A caller's wish to see less: these teams, and personal rows or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Values of `team`.
    pub teams: Vec<String>,
    /// Value of `personal`, if given.
    pub personal: Option<bool>,
}

impl Narrowing {
    fn is_absent(&self) -> bool {
        self.teams.is_empty() && self.personal.is_none()
    }
}

/// What the caller sees. As soon as `team` or `personal` is given, the two are the whole list:
/// only the named teams (of the caller's own) count, and personal rows unless `personal=false`.
#[must_use]
pub fn view(caller: &Caller, narrowing: &Narrowing, behaviour: &Behaviour) -> View {
    if behaviour.is(Mode::Rows) {
        return View::Everyone;
    }
    honest(caller, narrowing)
}

/// What the caller sees of a gateway that does not lie.
#[must_use]
pub fn honest(caller: &Caller, narrowing: &Narrowing) -> View {
    let absent = narrowing.is_absent();
    View::Subject {
        user: caller.id.clone(),
        teams: caller
            .teams
            .iter()
            .filter(|team| absent || narrowing.teams.contains(team))
            .cloned()
            .collect(),
        personal: narrowing.personal.unwrap_or(true),
        narrowed: !absent,
    }
}
