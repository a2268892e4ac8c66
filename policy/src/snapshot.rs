//! Everything a decision looks up, frozen under one store revision.
//!
//! Invariant: all or nothing. One entry that does not hold together rejects the whole snapshot, and the caller keeps
//! the last good one; so a request never sees half of a change.
//! Elsewhere on purpose: loading rows and swapping snapshots (the proxy).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::compat::Compat;
use crate::grant::Grant;
use crate::id::{GrantId, PeerId, SubjectId, UserId};
use crate::mapping::Mapping;
use crate::peer::{Peer, PeerName};
use crate::query_hash::canonical_json;
use crate::rate::GrantLimits;
use crate::reach::Reach;
use crate::revision::{EffectiveRevision, LengthPrefixed, RevisionKey};
use crate::rows::redact::Redaction;
use crate::rules::{RuleSet, reach_form};

/// One grant with everything that decides what it reaches.
#[derive(Clone, Debug)]
pub struct GrantEntry {
    /// The grant as stored.
    pub grant: Grant,
    /// Its peer.
    pub peer: Arc<Peer>,
    /// The policy ceiling of its peer.
    pub ceiling: Arc<Reach>,
    /// What the grant reaches: its scope met with the ceiling.
    pub effective: Arc<Reach>,
    /// Which members of rows are removed.
    pub redaction: Arc<Redaction>,
    /// How often it may ask, and how many rows it may see in a day.
    pub limits: GrantLimits,
    /// The older protocol that its peer is treated by, if any.
    pub compat: Option<Compat>,
    /// Whether a search may answer with rows in which none of its words occur.
    pub semantic: bool,
    /// Changes whenever what the grant reaches may have changed.
    pub effective_revision: EffectiveRevision,
}

/// A user of this side with everything that decides what they see of their own gateway.
#[derive(Clone, Debug)]
pub struct LocalUser {
    user: UserId,
    redaction: Arc<Redaction>,
    semantic: bool,
    effective_revision: EffectiveRevision,
}

impl LocalUser {
    /// The user, as the gateway names them.
    #[must_use]
    pub const fn user(&self) -> &UserId {
        &self.user
    }

    /// The user, as certificates would name them.
    #[must_use]
    pub fn subject(&self) -> SubjectId {
        SubjectId::of_user(&self.user)
    }

    /// Which members of rows are removed.
    #[must_use]
    pub const fn redaction(&self) -> &Arc<Redaction> {
        &self.redaction
    }

    /// Whether a search may answer with rows in which none of its words occur.
    #[must_use]
    pub const fn semantic(&self) -> bool {
        self.semantic
    }

    /// Changes whenever redaction or mapping do; the same for every user.
    #[must_use]
    pub const fn effective_revision(&self) -> EffectiveRevision {
        self.effective_revision
    }
}

/// Why a snapshot cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotProblem {
    /// Two peers have one id.
    #[error("two peers have the id {0}: the store is damaged")]
    PeerTwice(PeerId),
    /// Two peers have one name.
    #[error("two peers are called {0}: rename one")]
    NameTwice(PeerName),
    /// Two grants have one id.
    #[error("two grants have the id {0}: the store is damaged")]
    GrantTwice(GrantId),
    /// The peer of a grant is missing.
    #[error("grant {grant} belongs to peer {peer}, which does not exist: revoke the grant")]
    PeerMissing {
        /// The grant.
        grant: GrantId,
        /// The peer it names.
        peer: PeerId,
    },
    /// The subject of a grant is not that of its user.
    #[error(
        "grant {grant} names subject {found}, but its user is subject {expected}: the store is damaged"
    )]
    SubjectWrong {
        /// The grant.
        grant: GrantId,
        /// The subject stored.
        found: SubjectId,
        /// The subject of the user.
        expected: SubjectId,
    },
}

/// Grants, rules and mapping under one revision; cheap to look up, never changed.
#[derive(Clone)]
pub struct Snapshot {
    revision: u64,
    grants: HashMap<GrantId, Arc<GrantEntry>>,
    rules: Arc<RuleSet>,
    mapping: Arc<Mapping>,
    local_revision: EffectiveRevision,
}

impl Snapshot {
    /// Builds a snapshot of a store's content under `revision`, with the mapping of the gateway in use.
    ///
    /// # Errors
    /// Every problem found; then there is no snapshot.
    pub fn build(
        revision: u64,
        peers: impl IntoIterator<Item = Peer>,
        grants: impl IntoIterator<Item = Grant>,
        rules: Arc<RuleSet>,
        mapping: Arc<Mapping>,
        key: &RevisionKey,
    ) -> Result<Self, Vec<SnapshotProblem>> {
        let mut problems = Vec::new();
        let peers = index_peers(peers, &mut problems);
        let mapping_hash = mapping.hash();
        let mut entries = HashMap::new();
        for grant in grants {
            let id = grant.id;
            let expected = SubjectId::of_user(&grant.user);
            if grant.subject != expected {
                let found = grant.subject;
                problems.push(SnapshotProblem::SubjectWrong {
                    grant: id,
                    found,
                    expected,
                });
            }
            let Some((peer, ceiling)) = peers
                .get(&grant.peer)
                .map(|peer| (peer, rules.ceiling_for(&peer.name)))
            else {
                problems.push(SnapshotProblem::PeerMissing {
                    grant: id,
                    peer: grant.peer,
                });
                continue;
            };
            let entry = entry(grant, Arc::clone(peer), ceiling, &rules, &mapping_hash, key);
            if entries.insert(id, Arc::new(entry)).is_some() {
                problems.push(SnapshotProblem::GrantTwice(id));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut local = LengthPrefixed::default();
        local.push(rules.redaction_hash());
        local.push(&mapping_hash);
        Ok(Self {
            revision,
            grants: entries,
            local_revision: EffectiveRevision::local(key, &local.sha256()),
            rules,
            mapping,
        })
    }

    /// The store revision it shows.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The entry of a grant, whatever its status.
    #[must_use]
    pub fn grant(&self, id: GrantId) -> Option<&Arc<GrantEntry>> {
        self.grants.get(&id)
    }

    /// All grants, in no order.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<GrantEntry>> {
        self.grants.values()
    }

    /// A user of this side who asks their own gateway (`local.rs`).
    #[must_use]
    pub fn local_user(&self, user: &UserId) -> LocalUser {
        LocalUser {
            user: user.clone(),
            redaction: Arc::clone(self.rules.redaction()),
            semantic: self.rules.semantic(),
            effective_revision: self.local_revision,
        }
    }

    /// The rules in force.
    #[must_use]
    pub const fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The mapping in force.
    #[must_use]
    pub const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("grants", &self.grants.len())
            .finish_non_exhaustive()
    }
}

fn index_peers(
    peers: impl IntoIterator<Item = Peer>,
    problems: &mut Vec<SnapshotProblem>,
) -> BTreeMap<PeerId, Arc<Peer>> {
    let mut names = BTreeSet::new();
    let mut index = BTreeMap::new();
    for peer in peers {
        let id = peer.id;
        if !names.insert(peer.name.clone()) {
            problems.push(SnapshotProblem::NameTwice(peer.name.clone()));
        }
        if index.insert(id, Arc::new(peer)).is_some() {
            problems.push(SnapshotProblem::PeerTwice(id));
        }
    }
    index
}

fn entry(
    grant: Grant,
    peer: Arc<Peer>,
    ceiling: Arc<Reach>,
    rules: &RuleSet,
    mapping_hash: &[u8; 32],
    key: &RevisionKey,
) -> GrantEntry {
    let mut effective = grant.scope.reach().meet(&ceiling);
    let allowed = rules.allow_sensitive(&peer.name);
    let limits = rules
        .allowance_for(&peer.name)
        .for_scope(grant.scope.rate_limit());
    effective
        .resources
        .retain(|resource, _| !resource.is_sensitive() || allowed.contains(resource));
    let mut input = LengthPrefixed::default();
    let scope = serde_json::to_value(&grant.scope).unwrap_or_default();
    input.push(canonical_json(&scope).as_bytes());
    input.push(canonical_json(&reach_form(&ceiling)).as_bytes());
    input.push(canonical_json(&reach_form(&effective)).as_bytes());
    // A lower budget narrows what leaves; a lower rate does not, and is left out.
    input.push(&limits.rows_per_day.unwrap_or_default().to_be_bytes());
    input.push(rules.redaction_hash());
    input.push(mapping_hash);
    let compat = rules.compat_for(&peer.name);
    let told = serde_json::json!({ "compat": compat, "semantic": rules.semantic() });
    input.push(canonical_json(&told).as_bytes());
    let effective_revision = EffectiveRevision::of(key, grant.id, grant.edit, &input.sha256());
    GrantEntry {
        grant,
        peer,
        ceiling,
        effective: Arc::new(effective),
        redaction: Arc::clone(rules.redaction()),
        limits,
        compat,
        semantic: rules.semantic(),
        effective_revision,
    }
}

#[cfg(test)]
mod tests;
