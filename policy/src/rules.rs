//! What the operator's policy says: ceilings, redaction, the mapping of the gateway.
//!
//! Invariant: a `RuleSet` comes from all files of a bundle together or not at all, and one without any rule denies
//! everything. A rule about a peer can only narrow the common ceiling.
//! Elsewhere on purpose: reading and watching files (the proxy), the texts (`rules/parse.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::compat::Compat;
use crate::mapping::Mapping;
use crate::peer::PeerName;
use crate::query_hash::canonical_json;
use crate::rate::Allowance;
use crate::reach::{Reach, TeamSet};
use crate::resource::Resource;
use crate::revision::LengthPrefixed;
use crate::rows::redact::Redaction;

mod facts;
mod mapping;
mod parse;
pub(crate) mod reader;
mod schema;

pub use schema::policy_schema;

/// One thing wrong with a policy bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named to the parser.
    pub file: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead; empty when the message says it all.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            hint,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if hint.is_empty() {
            Ok(())
        } else {
            write!(f, " ({hint})")
        }
    }
}

/// The rules of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PeerRules {
    /// Its ceiling, met with the common one already.
    ceiling: Arc<Reach>,
    /// Its allowance, met likewise.
    allowance: Allowance,
    /// The sensitive resources its scopes may name.
    allow_sensitive: Vec<Resource>,
    /// The older protocol it is treated by.
    compat: Option<Compat>,
    /// Whether it is suspended on a renewal conflict, by its own rules.
    suspend_on_renewal_conflict: bool,
}

/// The section of one peer, before its ceiling meets the common one.
struct PeerPart {
    reach: Reach,
    allowance: Allowance,
    allow_sensitive: BTreeSet<Resource>,
    compat: Option<Compat>,
    suspend_on_renewal_conflict: bool,
}

/// What all files say together.
#[derive(Default)]
struct Parts {
    ceiling: Option<(Reach, Allowance)>,
    suspend_on_renewal_conflict: bool,
    peers: BTreeMap<PeerName, PeerPart>,
    redaction: Redaction,
    fields: Paths,
    exempt: Paths,
    mapping: Option<Mapping>,
    semantic: bool,
}

/// Paths below a row, by resource.
type Paths = BTreeMap<Resource, Vec<String>>;

/// A whole checked policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    ceiling: Arc<Reach>,
    allowance: Allowance,
    suspend_on_renewal_conflict: bool,
    peers: BTreeMap<PeerName, PeerRules>,
    redaction: Arc<Redaction>,
    mapping: Option<Arc<Mapping>>,
    semantic: bool,
    redaction_hash: [u8; 32],
    hash: [u8; 32],
}

impl RuleSet {
    /// Checks the files of a bundle together. Order and names of the files do not matter to the result.
    ///
    /// # Errors
    /// Every problem in every file, sorted by file and place.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Vec<Problem>> {
        parse::bundle(files)
    }

    /// No rule at all: everything is denied.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::assemble(Parts::default())
    }

    /// The ceiling of a peer: the common one, met with its own rules where it has some.
    #[must_use]
    pub fn ceiling_for(&self, peer: &PeerName) -> Arc<Reach> {
        let own = self.peers.get(peer).map(|rules| &rules.ceiling);
        Arc::clone(own.unwrap_or(&self.ceiling))
    }

    /// How often grants of a peer may ask and how many rows a day each may see: the common allowance, met with the
    /// peer's own where it has some.
    #[must_use]
    pub fn allowance_for(&self, peer: &PeerName) -> Allowance {
        self.peers
            .get(peer)
            .map_or(self.allowance, |rules| rules.allowance)
    }

    /// The sensitive resources that a scope of this peer may name.
    #[must_use]
    pub fn allow_sensitive(&self, peer: &PeerName) -> &[Resource] {
        self.peers
            .get(peer)
            .map_or(&[], |rules| rules.allow_sensitive.as_slice())
    }

    /// Whether there are rules for this peer alone; all others have the common ones.
    #[must_use]
    pub(crate) fn has_own(&self, peer: &PeerName) -> bool {
        self.peers.contains_key(peer)
    }

    /// The older protocol that a peer is treated by, if any.
    #[must_use]
    pub fn compat_for(&self, peer: &PeerName) -> Option<Compat> {
        self.peers.get(peer).and_then(|rules| rules.compat)
    }

    /// Whether a peer is suspended when one of its earlier certificates asks for renewal: by the common rule, or its own.
    #[must_use]
    pub fn suspends_on_renewal_conflict(&self, peer: &PeerName) -> bool {
        let own = self.peers.get(peer);
        self.suspend_on_renewal_conflict
            || own.is_some_and(|rules| rules.suspend_on_renewal_conflict)
    }

    /// The peers that have rules of their own.
    pub fn peers(&self) -> impl Iterator<Item = &PeerName> {
        self.peers.keys()
    }

    /// Which members of rows are removed.
    #[must_use]
    pub const fn redaction(&self) -> &Arc<Redaction> {
        &self.redaction
    }

    /// The mapping written in policy, if there is one.
    #[must_use]
    pub const fn mapping(&self) -> Option<&Arc<Mapping>> {
        self.mapping.as_ref()
    }

    /// Whether a search may answer with rows that the gateway's own search found although none of the words occur in
    /// them.
    #[must_use]
    pub const fn semantic(&self) -> bool {
        self.semantic
    }

    /// SHA-256 over the redaction rules alone.
    #[must_use]
    pub const fn redaction_hash(&self) -> &[u8; 32] {
        &self.redaction_hash
    }

    /// SHA-256 over everything the rules say, whatever way they are written down.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    fn assemble(parts: Parts) -> Self {
        let Parts {
            ceiling,
            suspend_on_renewal_conflict,
            peers,
            redaction,
            fields,
            exempt,
            mapping,
            semantic,
        } = parts;
        let redaction_form =
            json!({ "fields": paths_form(&fields), "exempt": paths_form(&exempt) });
        let form = json!({
            "ceiling": ceiling
                .as_ref()
                .map(|(reach, allowance)| json!({ "reach": reach_form(reach), "allowance": allowance })),
            "suspend_on_renewal_conflict": suspend_on_renewal_conflict,
            "peers": peers
                .iter()
                .map(|(name, part)| (name.to_string(), peer_form(part)))
                .collect::<BTreeMap<_, _>>(),
            "redaction": redaction_form,
            "mapping": mapping.as_ref().map(|mapping| hex::encode(mapping.hash())),
            "semantic": semantic,
        });
        let peers = peers
            .into_iter()
            .map(|(name, part)| {
                let (reach, allowance) = match &ceiling {
                    Some((reach, allowance)) => {
                        (reach.meet(&part.reach), allowance.meet(part.allowance))
                    }
                    None => (part.reach, part.allowance),
                };
                let rules = PeerRules {
                    ceiling: Arc::new(reach),
                    allowance,
                    allow_sensitive: part.allow_sensitive.into_iter().collect(),
                    compat: part.compat,
                    suspend_on_renewal_conflict: part.suspend_on_renewal_conflict,
                };
                (name, rules)
            })
            .collect();
        let (reach, allowance) =
            ceiling.unwrap_or_else(|| (Reach::nothing(), Allowance::default()));
        Self {
            ceiling: Arc::new(reach),
            allowance,
            suspend_on_renewal_conflict,
            peers,
            redaction: Arc::new(redaction),
            mapping: mapping.map(Arc::new),
            semantic,
            redaction_hash: hash_of(&redaction_form),
            hash: hash_of(&form),
        }
    }
}

fn peer_form(part: &PeerPart) -> Value {
    json!({
        "reach": reach_form(&part.reach),
        "allowance": part.allowance,
        "allow_sensitive": part.allow_sensitive,
        "compat": part.compat,
        "suspend_on_renewal_conflict": part.suspend_on_renewal_conflict,
    })
}

fn hash_of(form: &Value) -> [u8; 32] {
    let mut input = LengthPrefixed::default();
    input.push(canonical_json(form).as_bytes());
    input.sha256()
}

fn paths_form(paths: &Paths) -> Value {
    let sorted: BTreeMap<_, BTreeSet<_>> = paths
        .iter()
        .filter(|(_, paths)| !paths.is_empty())
        .map(|(resource, paths)| (resource.as_str(), paths.iter().collect()))
        .collect();
    json!(sorted)
}

/// A reach as JSON, for hashing.
pub(crate) fn reach_form(reach: &Reach) -> Value {
    let resources: BTreeMap<_, _> = reach
        .resources
        .iter()
        .map(|(resource, reach)| {
            let teams = match &reach.teams {
                TeamSet::Any => Value::Null,
                TeamSet::Only(teams) => json!(teams),
            };
            let form = json!({ "teams": teams, "include_personal": reach.include_personal });
            (resource.as_str(), form)
        })
        .collect();
    json!({ "resources": resources, "max_rows_per_query": reach.max_rows_per_query })
}

#[cfg(test)]
mod tests;
