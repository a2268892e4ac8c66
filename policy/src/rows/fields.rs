//! Which member names of a row matter, and what happens to each.
//!
//! Invariant: every name gets exactly one answer from its unescaped spelling and its place; nothing of a value is
//! looked at. Elsewhere on purpose: finding names in bytes (`scan.rs`), the rules of removal (`redact.rs`), what the
//! marked values mean (`filter.rs`).

use std::sync::Arc;

use crate::resource::Resource;

use super::redact::{PathTree, Redaction};

/// Most values of one row that can be marked.
pub(super) const MAX_SLOTS: usize = 24;

/// A place to remember one value of the row in.
pub(super) type Slot = u8;

/// No place: the value is of no interest.
pub(super) const NO_SLOT: Slot = u8::MAX;

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays.
    Keep,
    /// It goes and is counted.
    Redact,
    /// It goes because the sidecar writes a member of this name itself.
    Drop,
}

/// The answer to a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) fate: Fate,
    pub(super) slot: Slot,
    /// The place of the value in the tree of redaction paths.
    pub(super) below: u16,
}

impl Member {
    /// A member inside one that goes anyway.
    pub(super) const PASSED_OVER: Self = Self {
        fate: Fate::Keep,
        slot: NO_SLOT,
        below: PathTree::NOWHERE,
    };
}

#[derive(Clone, Debug)]
struct Marked {
    name: Box<str>,
    // Identity and ownership are exempt from redaction; fields of a filter are not.
    exempt: bool,
}

/// The names that matter in the rows of one answer.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    resource: Resource,
    redaction: Arc<Redaction>,
    marked: Vec<Marked>,
    id: Box<str>,
    created_at: Box<str>,
}

impl Fields {
    pub(super) fn new(
        resource: Resource,
        redaction: Arc<Redaction>,
        id: &str,
        created_at: &str,
    ) -> Self {
        Self {
            resource,
            redaction,
            marked: Vec::new(),
            id: id.into(),
            created_at: created_at.into(),
        }
    }

    /// The place for values of the top-level member `name`, shared by all who ask for that name; `None` when
    /// [`MAX_SLOTS`] are taken.
    pub(super) fn mark(&mut self, name: &str, exempt: bool) -> Option<Slot> {
        if let Some(at) = self.marked.iter().position(|marked| *marked.name == *name) {
            if let Some(marked) = self.marked.get_mut(at) {
                marked.exempt |= exempt;
            }
            return Slot::try_from(at).ok();
        }
        if self.marked.len() >= MAX_SLOTS {
            return None;
        }
        self.marked.push(Marked {
            name: name.into(),
            exempt,
        });
        Slot::try_from(self.marked.len() - 1).ok()
    }

    /// Whether policy names the top-level member `name` for removal.
    pub(super) fn removed_by_policy(&self, name: &str) -> bool {
        self.redaction.names_field(self.resource, name)
    }

    /// Whether a top-level member `name` would not leave as it came.
    pub(super) fn is_removed(&self, name: &str) -> bool {
        self.member(PathTree::ROOT, name).fate != Fate::Keep
    }

    /// The answer to the unescaped `name` of a member of the object at `at` in the tree of redaction paths.
    pub(super) fn member(&self, at: u16, name: &str) -> Member {
        let (removed, below) = self.redaction.tree(self.resource).member(at, name);
        let fate = if removed { Fate::Redact } else { Fate::Keep };
        if at != PathTree::ROOT {
            return Member {
                fate,
                slot: NO_SLOT,
                below,
            };
        }
        let position = self.marked.iter().position(|marked| *marked.name == *name);
        let exempt = position
            .and_then(|at| self.marked.get(at))
            .is_some_and(|marked| marked.exempt);
        let shadowed = (name == "id" && *self.id != *name)
            || (name == "createdAt" && *self.created_at != *name);
        let fate = match fate {
            _ if shadowed || name.starts_with('_') => Fate::Drop,
            _ if exempt => Fate::Keep,
            fate => fate,
        };
        let slot = position
            .and_then(|at| Slot::try_from(at).ok())
            .unwrap_or(NO_SLOT);
        Member { fate, slot, below }
    }

    /// Whether `id` and `createdAt` go by other names at the gateway.
    pub(super) fn renamed(&self) -> bool {
        &*self.id != "id" || &*self.created_at != "createdAt"
    }

    /// As [`Self::renamed`], for the id alone.
    pub(super) fn id_renamed(&self) -> bool {
        &*self.id != "id"
    }

    /// As [`Self::renamed`], for the instant of creation alone.
    pub(super) fn created_at_renamed(&self) -> bool {
        &*self.created_at != "createdAt"
    }
}
