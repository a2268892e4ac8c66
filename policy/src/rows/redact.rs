//! Which members of a row are removed: the fields policy names, and names that say secret.
//!
//! Invariant: a rule that could not take effect is refused when it is loaded, never ignored: a path that is always
//! kept cannot be named for removal, and an exemption below a removed member is an error.
//! Elsewhere on purpose: what says secret (`words.rs`), cutting members out of bytes (`scan.rs`), and the exemption
//! of `id`, `createdAt` and the ownership fields of a mapping (`filter.rs`), which policy texts do not know.

use std::collections::BTreeMap;

use crate::resource::Resource;

use super::words::says_secret;

/// Members every row keeps (specification, section 3).
const KEPT: [&str; 2] = ["id", "createdAt"];

/// The redaction rules of all resources, compiled. The default removes only names that say secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    trees: BTreeMap<Resource, PathTree>,
    empty: PathTree,
}

/// Why redaction rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedactionError {
    /// The path is empty or has an empty name in it.
    #[error("{resource}: {path:?} is not a path of member names: write it as meta.cost")]
    NotAPath {
        /// Where the path was named.
        resource: Resource,
        /// The path as written.
        path: String,
    },
    /// The path is named twice, or both for removal and as exempt.
    #[error("{resource}: {path:?} is named twice: keep one, under fields or under exempt")]
    NamedTwice {
        /// Where the path was named.
        resource: Resource,
        /// The path as written.
        path: String,
    },
    /// Every row carries this member, so it cannot be removed.
    #[error("{resource}: {path:?} cannot be removed, every row carries it: take it off the list")]
    AlwaysKept {
        /// Where the path was named.
        resource: Resource,
        /// The path as written.
        path: String,
    },
    /// A member above the exempt one is removed, so the exemption would do nothing.
    #[error("{resource}: exempting {path:?} does nothing, {above:?} is removed: exempt that too")]
    Unreachable {
        /// Where the path was named.
        resource: Resource,
        /// The path as written.
        path: String,
        /// The member above it that is removed.
        above: String,
    },
    /// More than 65,534 names in the paths of one resource.
    #[error("{resource}: too many redaction paths: name fewer than 65,000")]
    TooMany {
        /// Where the paths were named.
        resource: Resource,
    },
}

impl Redaction {
    /// Compiles rules: per resource the paths to remove and the paths exempt from the rule about names that say
    /// secret. A path is member names joined by `.`, below the row; arrays on the way are passed through.
    ///
    /// # Errors
    /// [`RedactionError`] for the first path that is malformed, contradictory, or could not take effect.
    pub fn new(
        fields: BTreeMap<Resource, Vec<String>>,
        exempt: BTreeMap<Resource, Vec<String>>,
    ) -> Result<Self, RedactionError> {
        let mut trees: BTreeMap<Resource, PathTree> = BTreeMap::new();
        for (resource, paths) in fields {
            let tree = trees.entry(resource).or_default();
            for path in paths {
                if KEPT.contains(&path.as_str()) {
                    return Err(RedactionError::AlwaysKept { resource, path });
                }
                tree.insert(resource, &path, Rule::Remove)?;
            }
        }
        for (&resource, paths) in &exempt {
            let tree = trees.entry(resource).or_default();
            for path in paths {
                tree.insert(resource, path, Rule::Exempt)?;
            }
        }
        for (&resource, paths) in &exempt {
            for path in paths {
                if let Some(above) = trees
                    .get(&resource)
                    .and_then(|tree| tree.removed_above(path))
                {
                    return Err(RedactionError::Unreachable {
                        resource,
                        path: path.clone(),
                        above,
                    });
                }
            }
        }
        Ok(Self {
            trees,
            empty: PathTree::default(),
        })
    }

    /// Whether the member at `path` (names from the row down) is removed, the exemption of mapped fields aside.
    #[must_use]
    pub fn removes(&self, resource: Resource, path: &[&str]) -> bool {
        let tree = self.tree(resource);
        let mut at = PathTree::ROOT;
        path.iter().any(|name| {
            let (removed, below) = tree.member(at, name);
            at = below;
            removed
        })
    }

    /// Whether policy itself names the top-level member `name` for removal.
    #[must_use]
    pub fn names_field(&self, resource: Resource, name: &str) -> bool {
        let tree = self.tree(resource);
        tree.rule(tree.child(PathTree::ROOT, name)) == Some(Rule::Remove)
    }

    /// The paths that policy removes from rows of a resource, and those it exempts, each sorted.
    #[must_use]
    pub fn paths(&self, resource: Resource) -> (Vec<String>, Vec<String>) {
        let tree = self.tree(resource);
        let (mut removed, mut exempt) = (Vec::new(), Vec::new());
        let mut open = vec![(PathTree::ROOT, String::new())];
        while let Some((at, path)) = open.pop() {
            match tree.rule(at) {
                Some(Rule::Remove) => removed.push(path.clone()),
                Some(Rule::Exempt) => exempt.push(path.clone()),
                None => {}
            }
            let node = tree.nodes.get(usize::from(at));
            for (name, below) in node.into_iter().flat_map(|node| &node.below) {
                let dot = if path.is_empty() { "" } else { "." };
                open.push((*below, format!("{path}{dot}{name}")));
            }
        }
        removed.sort();
        exempt.sort();
        (removed, exempt)
    }

    /// Whether policy names any member of `resource` for removal.
    #[must_use]
    pub fn names_any(&self, resource: Resource) -> bool {
        let rules = self.tree(resource).nodes.iter().map(|node| node.rule);
        rules.into_iter().any(|rule| rule == Some(Rule::Remove))
    }

    pub(super) fn tree(&self, resource: Resource) -> &PathTree {
        self.trees.get(&resource).unwrap_or(&self.empty)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Remove,
    Exempt,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    below: BTreeMap<Box<str>, u16>,
    rule: Option<Rule>,
}

/// The paths of one resource, as a tree of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PathTree {
    // The root is implied when empty, so that the default allocates nothing.
    nodes: Vec<Node>,
}

impl PathTree {
    /// The row itself.
    pub(super) const ROOT: u16 = 0;
    /// A place no path leads to.
    pub(super) const NOWHERE: u16 = u16::MAX;

    /// Whether a member of the object at `at` is removed, and the place of its value.
    pub(super) fn member(&self, at: u16, name: &str) -> (bool, u16) {
        let below = self.child(at, name);
        let removed = match self.rule(below) {
            Some(Rule::Remove) => true,
            Some(Rule::Exempt) => false,
            None => says_secret(name) || self.dotted_is_removed(at, name),
        };
        (removed, below)
    }

    /// A member may itself be called `meta.cost`; the path of that spelling removes it too.
    fn dotted_is_removed(&self, at: u16, name: &str) -> bool {
        at != Self::NOWHERE
            && name.contains('.')
            && self.rule(name.split('.').fold(at, |at, part| self.child(at, part)))
                == Some(Rule::Remove)
    }

    fn child(&self, at: u16, name: &str) -> u16 {
        self.nodes
            .get(usize::from(at))
            .and_then(|node| node.below.get(name))
            .copied()
            .unwrap_or(Self::NOWHERE)
    }

    fn rule(&self, at: u16) -> Option<Rule> {
        self.nodes.get(usize::from(at)).and_then(|node| node.rule)
    }

    fn insert(&mut self, resource: Resource, path: &str, rule: Rule) -> Result<(), RedactionError> {
        if path.split('.').any(str::is_empty) {
            return Err(RedactionError::NotAPath {
                resource,
                path: path.to_owned(),
            });
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = Self::ROOT;
        for name in path.split('.') {
            let mut below = self.child(at, name);
            if below == Self::NOWHERE {
                below = u16::try_from(self.nodes.len())
                    .ok()
                    .filter(|new| *new != Self::NOWHERE)
                    .ok_or(RedactionError::TooMany { resource })?;
                self.nodes.push(Node::default());
                if let Some(node) = self.nodes.get_mut(usize::from(at)) {
                    node.below.insert(name.into(), below);
                }
            }
            at = below;
        }
        match self.nodes.get_mut(usize::from(at)) {
            Some(node) if node.rule.is_none() => node.rule = Some(rule),
            _ => {
                return Err(RedactionError::NamedTwice {
                    resource,
                    path: path.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// The member above the one at `path` that is removed, if any.
    fn removed_above(&self, path: &str) -> Option<String> {
        // Members with this prefix never leave, whatever policy says about them.
        if path.starts_with('_') {
            return Some(path.split('.').next().unwrap_or_default().to_owned());
        }
        let (above, _) = path.rsplit_once('.')?;
        let mut at = Self::ROOT;
        let mut passed = String::new();
        for name in above.split('.') {
            passed.push_str(if passed.is_empty() { "" } else { "." });
            passed.push_str(name);
            let (removed, below) = self.member(at, name);
            if removed {
                return Some(passed);
            }
            at = below;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(fields: &[&str], exempt: &[&str]) -> Result<Redaction, RedactionError> {
        let of = |paths: &[&str]| {
            BTreeMap::from([(
                Resource::Tasks,
                paths.iter().map(|path| (*path).to_owned()).collect(),
            )])
        };
        Redaction::new(of(fields), of(exempt))
    }

    #[test]
    fn paths_are_given_back_as_they_were_named() {
        let rules = rules(&["meta.cost", "a", "meta.b.c"], &["usage.tokenCount"]).unwrap();
        let removed = ["a", "meta.b.c", "meta.cost"].map(str::to_owned).to_vec();
        let exempt = vec!["usage.tokenCount".to_owned()];
        assert_eq!(rules.paths(Resource::Tasks), (removed, exempt));
        assert_eq!(rules.paths(Resource::Notes), (Vec::new(), Vec::new()));
    }

    #[test]
    fn named_fields_and_secret_names_are_removed() {
        let rules = rules(&["internalNote", "meta.cost"], &["usage.tokenCount"]).unwrap();
        let removes = |path: &[&str]| rules.removes(Resource::Tasks, path);
        assert!(removes(&["internalNote"]));
        assert!(removes(&["internalNote", "anything"]));
        assert!(removes(&["meta", "cost"]));
        assert!(removes(&["meta.cost"]));
        assert!(!removes(&["cost"]));
        assert!(!removes(&["meta"]));
        assert!(!removes(&["other", "meta", "cost"]));
        assert!(!removes(&["usage", "tokenCount"]));
        assert!(removes(&["tokenCount"]));
        assert!(removes(&["usage.tokenCount"]));
        assert!(removes(&["usage", "tokens"]));
        assert!(removes(&["deep", "down", "apiKey"]));
        assert!(!rules.removes(Resource::Notes, &["internalNote"]));
        assert!(rules.names_any(Resource::Tasks));
        assert!(!rules.names_any(Resource::Notes));
    }

    #[test]
    fn an_exempt_member_does_not_exempt_what_is_in_it() {
        let rules = rules(&[], &["tokens"]).unwrap();
        assert!(!rules.removes(Resource::Tasks, &["tokens"]));
        assert!(!rules.names_any(Resource::Tasks));
        assert!(rules.removes(Resource::Tasks, &["tokens", "secret"]));
    }

    #[test]
    fn rules_without_effect_are_refused() {
        let kinds = [
            rules(&["a..b"], &[]),
            rules(&[""], &[]),
            rules(&["a", "a"], &[]),
            rules(&["token"], &["token"]),
            rules(&["id"], &[]),
            rules(&["createdAt"], &[]),
            rules(&[], &["tokens.count"]),
            rules(&["meta"], &["meta.token"]),
            rules(&[], &["_links.token"]),
        ];
        for kind in kinds {
            assert!(kind.is_err(), "{kind:?}");
        }
        assert!(rules(&[], &["tokens", "tokens.secretCount"]).is_ok());
        assert!(rules(&["meta.id"], &[]).is_ok());
    }
}
