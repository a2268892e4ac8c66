//! What a decision comes to: a permit, or a refusal.
//!
//! Invariant: a [`Permit`] can only be made by the decision itself (`evaluate.rs`, and `local.rs` for a user's own
//! gateway), and whatever asks the gateway or lets a row through is built from one; so no path can skip the decision.
//! Elsewhere on purpose: how it comes about (`evaluate.rs`, `local.rs`), how it is told (`explain.rs`).

use std::sync::Arc;

use crate::deny::Deny;
use crate::id::{GrantId, SubjectId, TeamId, UserId};
use crate::native::FactCounts;
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::revision::EffectiveRevision;
use crate::rows::redact::Redaction;
use crate::snapshot::{GrantEntry, LocalUser};
use crate::verb::Verb;

/// The outcome of a decision about rows.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The question may be asked, within the permit.
    Allow(Permit),
    /// It may not.
    Deny(Deny),
}

/// By what right a question is asked.
#[derive(Clone, Debug)]
pub enum Basis {
    /// A peer asks under a grant.
    Grant(Arc<GrantEntry>),
    /// A user of this side asks their own gateway.
    Local(Arc<LocalUser>),
}

impl Basis {
    /// The user whose rows are asked for, as the gateway names them.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            Self::Grant(entry) => &entry.grant.user,
            Self::Local(local) => local.user(),
        }
    }

    /// The same user as certificates name them.
    #[must_use]
    pub fn subject(&self) -> SubjectId {
        match self {
            Self::Grant(entry) => entry.grant.subject,
            Self::Local(local) => local.subject(),
        }
    }

    /// The grant, when there is one.
    #[must_use]
    pub fn grant(&self) -> Option<GrantId> {
        match self {
            Self::Grant(entry) => Some(entry.grant.id),
            Self::Local(_) => None,
        }
    }

    /// The effective revision of what it reaches.
    #[must_use]
    pub fn effective_revision(&self) -> EffectiveRevision {
        match self {
            Self::Grant(entry) => entry.effective_revision,
            Self::Local(local) => local.effective_revision(),
        }
    }
}

/// Proof that a question may be asked, and how far.
#[derive(Clone, Debug)]
pub struct Permit {
    basis: Basis,
    verb: Verb,
    resource: Resource,
    facts: FactCounts,
    teams: Arc<[TeamId]>,
    include_personal: bool,
    row_limit: RowLimit,
    row_cap: RowLimit,
    store_revision: u64,
}

/// What the decision has found out.
pub(crate) struct PermitParts {
    pub(crate) basis: Basis,
    pub(crate) verb: Verb,
    pub(crate) resource: Resource,
    pub(crate) facts: FactCounts,
    pub(crate) teams: Arc<[TeamId]>,
    pub(crate) include_personal: bool,
    pub(crate) row_limit: RowLimit,
    pub(crate) row_cap: RowLimit,
    pub(crate) store_revision: u64,
}

impl Permit {
    /// The only constructor; called by the decision and nothing else.
    pub(crate) fn issue(parts: PermitParts) -> Self {
        let PermitParts {
            basis,
            verb,
            resource,
            facts,
            teams,
            include_personal,
            row_limit,
            row_cap,
            store_revision,
        } = parts;
        Self {
            basis,
            verb,
            resource,
            facts,
            teams,
            include_personal,
            row_limit,
            row_cap,
            store_revision,
        }
    }

    /// By what right it was given.
    #[must_use]
    pub const fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The grant used; none for a user's own gateway.
    #[must_use]
    pub fn grant(&self) -> Option<GrantId> {
        self.basis.grant()
    }

    /// The subject, as the certificate names them.
    #[must_use]
    pub fn subject(&self) -> SubjectId {
        self.basis.subject()
    }

    /// The subject, as the gateway names them.
    #[must_use]
    pub fn user(&self) -> &UserId {
        self.basis.user()
    }

    /// The verb: list, get or search.
    #[must_use]
    pub const fn verb(&self) -> Verb {
        self.verb
    }

    /// The resource.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// How many facts it was decided on.
    #[must_use]
    pub const fn facts(&self) -> FactCounts {
        self.facts
    }

    /// The teams whose rows may pass: those in reach of which the subject is a member, sorted.
    #[must_use]
    pub const fn teams(&self) -> &Arc<[TeamId]> {
        &self.teams
    }

    /// Whether rows of no team that the subject owns may pass.
    #[must_use]
    pub const fn include_personal(&self) -> bool {
        self.include_personal
    }

    /// Whether no row at all can pass; the answer is empty without asking the gateway.
    #[must_use]
    pub fn reaches_nothing(&self) -> bool {
        self.teams.is_empty() && !self.include_personal
    }

    /// The rows of this answer: what was asked for, at most the cap.
    #[must_use]
    pub const fn row_limit(&self) -> RowLimit {
        self.row_limit
    }

    /// The cap of scope and policy.
    #[must_use]
    pub const fn row_cap(&self) -> RowLimit {
        self.row_cap
    }

    /// Which members of rows are removed.
    #[must_use]
    pub fn redaction(&self) -> &Arc<Redaction> {
        match &self.basis {
            Basis::Grant(entry) => &entry.redaction,
            Basis::Local(local) => local.redaction(),
        }
    }

    /// Whether a search may answer with rows in which none of its words occur.
    #[must_use]
    pub fn semantic(&self) -> bool {
        match &self.basis {
            Basis::Grant(entry) => entry.semantic,
            Basis::Local(local) => local.semantic(),
        }
    }

    /// The effective revision under which it was decided.
    #[must_use]
    pub fn effective_revision(&self) -> EffectiveRevision {
        self.basis.effective_revision()
    }

    /// The store revision under which it was decided.
    #[must_use]
    pub const fn store_revision(&self) -> u64 {
        self.store_revision
    }

    /// The grant with its scope, peer and ceiling; none for a user's own gateway.
    #[must_use]
    pub const fn entry(&self) -> Option<&Arc<GrantEntry>> {
        match &self.basis {
            Basis::Grant(entry) => Some(entry),
            Basis::Local(_) => None,
        }
    }
}
