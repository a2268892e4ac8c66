//! Everything a decision looks up, frozen under one store revision.
//!
//! Invariant: all or nothing. One entry that does not hold together rejects the whole snapshot, and the caller keeps
//! the last good one; so a request never sees half of a change.
//! Elsewhere on purpose: loading rows and swapping snapshots (the proxy).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::compat::Compat;
use crate::grant::Grant;
use crate::id::{GrantId, PeerId, SubjectId, UserId};
use crate::mapping::Mapping;
use crate::peer::{Peer, PeerName};
use crate::query_hash::canonical_json;
use crate::rate::{Allowance, GrantLimits};
use crate::reach::Reach;
use crate::resource::Resource;
use crate::revision::{EffectiveRevision, LengthPrefixed, RevisionKey};
use crate::rows::redact::Redaction;
use crate::rules::{RuleSet, reach_form};
use crate::scope::Scope;
use crate::shards::Shards;

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
    grants: Shards<GrantId, Arc<GrantEntry>>,
    peers: Arc<HashMap<PeerId, Arc<Peer>>>,
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
        let mut forms = Forms::new(&rules, &mapping_hash, key);
        let mut entries = Shards::default();
        for grant in grants {
            let id = grant.id;
            problems.extend(wrong_subject(&grant));
            let Some(peer) = peers.get(&grant.peer) else {
                problems.push(SnapshotProblem::PeerMissing {
                    grant: id,
                    peer: grant.peer,
                });
                continue;
            };
            let entry = forms.entry(grant, Arc::clone(peer));
            if entries.insert(id, Arc::new(entry)).is_some() {
                problems.push(SnapshotProblem::GrantTwice(id));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        entries.shrink();
        let mut local = LengthPrefixed::default();
        local.push(rules.redaction_hash());
        local.push(&mapping_hash);
        Ok(Self {
            revision,
            grants: entries,
            peers: Arc::new(peers),
            local_revision: EffectiveRevision::local(key, &local.sha256()),
            rules,
            mapping,
        })
    }

    /// The same under `revision`, with one grant as it is now, or without it; it costs the same however many there are.
    /// `None` when more than that grant differs: its peer is not as it was, and others' may have changed with it.
    ///
    /// # Errors
    /// What does not hold together; then there is no snapshot.
    pub fn with_grant(
        &self,
        revision: u64,
        id: GrantId,
        now: Option<(Grant, &Peer)>,
        key: &RevisionKey,
    ) -> Result<Option<Self>, SnapshotProblem> {
        let mut next = self.clone();
        next.revision = revision;
        let Some((grant, peer)) = now else {
            next.grants.remove(&id);
            return Ok(Some(next));
        };
        if let Some(problem) = wrong_subject(&grant) {
            return Err(problem);
        }
        let known = match self.peers.get(&grant.peer) {
            Some(known) if **known == *peer => Arc::clone(known),
            known => {
                let shared = match known {
                    Some(_) => self
                        .grants()
                        .any(|entry| entry.peer.id == peer.id && entry.grant.id != id),
                    None => self.peers.values().any(|known| known.name == peer.name),
                };
                if shared || grant.peer != peer.id {
                    return Ok(None);
                }
                let made = Arc::new(peer.clone());
                Arc::make_mut(&mut next.peers).insert(peer.id, Arc::clone(&made));
                made
            }
        };
        let mapping_hash = self.mapping.hash();
        let entry = Forms::new(&self.rules, &mapping_hash, key).entry(grant, known);
        next.grants.insert(id, Arc::new(entry));
        Ok(Some(next))
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
) -> HashMap<PeerId, Arc<Peer>> {
    let mut names = BTreeSet::new();
    let mut index = HashMap::new();
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

fn wrong_subject(grant: &Grant) -> Option<SnapshotProblem> {
    let expected = SubjectId::of_user(&grant.user);
    (grant.subject != expected).then_some(SnapshotProblem::SubjectWrong {
        grant: grant.id,
        found: grant.subject,
        expected,
    })
}

/// What rules come to for grants, made once for all that it holds for.
struct Forms<'r> {
    rules: &'r RuleSet,
    mapping_hash: &'r [u8; 32],
    key: &'r RevisionKey,
    /// For peers with rules of their own, and for all others.
    of_peers: HashMap<Option<PeerName>, Arc<PeerForm>>,
    /// Equal scopes are kept once.
    scopes: HashSet<Scope>,
    /// What scopes come to, by the rules for their peer.
    reaches: HashMap<(Option<PeerName>, Scope), Reached>,
}

/// What a scope comes to under the rules for a peer.
struct Reached {
    effective: Arc<Reach>,
    limits: GrantLimits,
    /// Of all that decides what it reaches. The texts it is made of are not kept: they are larger than a grant.
    sha256: [u8; 32],
}

/// What the rules for a peer come to.
struct PeerForm {
    ceiling: Arc<Reach>,
    ceiling_form: String,
    allowed: BTreeSet<Resource>,
    allowance: Allowance,
    compat: Option<Compat>,
    told: String,
}

impl<'r> Forms<'r> {
    fn new(rules: &'r RuleSet, mapping_hash: &'r [u8; 32], key: &'r RevisionKey) -> Self {
        Self {
            rules,
            mapping_hash,
            key,
            of_peers: HashMap::new(),
            scopes: HashSet::new(),
            reaches: HashMap::new(),
        }
    }

    fn entry(&mut self, mut grant: Grant, peer: Arc<Peer>) -> GrantEntry {
        let rules = self.rules;
        let own = rules.has_own(&peer.name).then(|| peer.name.clone());
        let form = self
            .of_peers
            .entry(own.clone())
            .or_insert_with(|| Arc::new(PeerForm::of(rules, &peer.name)));
        match self.scopes.get(&grant.scope) {
            Some(known) => grant.scope = known.clone(),
            None => drop(self.scopes.insert(grant.scope.clone())),
        }
        let reached = self
            .reaches
            .entry((own, grant.scope.clone()))
            .or_insert_with(|| form.reached(&grant.scope, rules, self.mapping_hash));
        let effective_revision =
            EffectiveRevision::of(self.key, grant.id, grant.edit, &reached.sha256);
        GrantEntry {
            effective: Arc::clone(&reached.effective),
            ceiling: Arc::clone(&form.ceiling),
            redaction: Arc::clone(rules.redaction()),
            limits: reached.limits,
            compat: form.compat,
            semantic: rules.semantic(),
            effective_revision,
            grant,
            peer,
        }
    }
}

impl PeerForm {
    fn of(rules: &RuleSet, peer: &PeerName) -> Self {
        let ceiling = rules.ceiling_for(peer);
        let compat = rules.compat_for(peer);
        let told = serde_json::json!({ "compat": compat, "semantic": rules.semantic() });
        Self {
            ceiling_form: canonical_json(&reach_form(&ceiling)),
            ceiling,
            allowed: rules.allow_sensitive(peer).iter().copied().collect(),
            allowance: rules.allowance_for(peer),
            compat,
            told: canonical_json(&told),
        }
    }

    fn reached(&self, scope: &Scope, rules: &RuleSet, mapping_hash: &[u8; 32]) -> Reached {
        let mut effective = scope.reach().meet(&self.ceiling);
        effective
            .resources
            .retain(|resource, _| !resource.is_sensitive() || self.allowed.contains(resource));
        let limits = self.allowance.for_scope(scope.rate_limit());
        let mut input = LengthPrefixed::default();
        input.push(canonical_json(&serde_json::to_value(scope).unwrap_or_default()).as_bytes());
        input.push(self.ceiling_form.as_bytes());
        input.push(canonical_json(&reach_form(&effective)).as_bytes());
        // A lower budget narrows what leaves; a lower rate does not, and is left out.
        input.push(&limits.rows_per_day.unwrap_or_default().to_be_bytes());
        input.push(rules.redaction_hash());
        input.push(mapping_hash);
        input.push(self.told.as_bytes());
        Reached {
            effective: Arc::new(effective),
            limits,
            sha256: input.sha256(),
        }
    }
}

#[cfg(test)]
mod tests;
