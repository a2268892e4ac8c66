//! What a decision comes to: a permit, or a refusal.
//!
//! Invariant: a [`Permit`] can only be made by the decision itself (`evaluate.rs`), and whatever asks the gateway or
//! lets a row through is built from one; so no path can skip the decision.
//! Elsewhere on purpose: how it comes about (`evaluate.rs`), how it is told (`explain.rs`).

use std::sync::Arc;

use crate::deny::Deny;
use crate::id::{GrantId, PeerId, SubjectId, TeamId, UserId};
use crate::native::FactCounts;
use crate::peer::PeerName;
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::revision::EffectiveRevision;
use crate::rows::redact::Redaction;
use crate::snapshot::GrantEntry;
use crate::verb::Verb;

/// The outcome of a decision about rows.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The question may be asked, within the permit.
    Allow(Permit),
    /// It may not.
    Deny(Deny),
}

/// Proof that a question may be asked, and how far.
#[derive(Clone, Debug)]
pub struct Permit {
    entry: Arc<GrantEntry>,
    verb: Verb,
    resource: Resource,
    facts: FactCounts,
    teams: Arc<[TeamId]>,
    include_personal: bool,
    row_limit: RowLimit,
    row_cap: RowLimit,
    store_revision: u64,
}

/// What `evaluate.rs` has found out.
pub(crate) struct PermitParts {
    pub(crate) entry: Arc<GrantEntry>,
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
            entry,
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
            entry,
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

    /// The grant used.
    #[must_use]
    pub fn grant(&self) -> GrantId {
        self.entry.grant.id
    }

    /// The peer that asks.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.entry.peer.id
    }

    /// Its local name.
    #[must_use]
    pub fn peer_name(&self) -> &PeerName {
        &self.entry.peer.name
    }

    /// The subject, as the certificate names them.
    #[must_use]
    pub fn subject(&self) -> SubjectId {
        self.entry.grant.subject
    }

    /// The subject, as the gateway names them.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.entry.grant.user
    }

    /// The verb: list or get.
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
        &self.entry.redaction
    }

    /// The effective revision under which it was decided.
    #[must_use]
    pub fn effective_revision(&self) -> EffectiveRevision {
        self.entry.effective_revision
    }

    /// The store revision under which it was decided.
    #[must_use]
    pub const fn store_revision(&self) -> u64 {
        self.store_revision
    }

    /// The grant with its scope, peer and ceiling.
    #[must_use]
    pub const fn entry(&self) -> &Arc<GrantEntry> {
        &self.entry
    }
}
