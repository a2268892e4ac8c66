//! Deciding a case under a set of rules, and what differs from what was expected.
//!
//! Invariant: decided once, by `evaluate.rs`; the differences compare its result and decide nothing.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use super::{Allowed, Expect, Gateway, PolicyCase};
use crate::decision::{Decision, Permit};
use crate::evaluate::{Admission, Capabilities, admit, evaluate};
use crate::grant::Grant;
use crate::id::{GrantId, PeerId, SubjectId};
use crate::mapping::Mapping;
use crate::native::NativeFacts;
use crate::peer::Peer;
use crate::request::AccessRequest;
use crate::resource::Resource;
use crate::revision::RevisionKey;
use crate::rules::RuleSet;
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::time::UnixMillis;

/// What came of a case.
#[derive(Clone, Debug)]
pub struct CaseVerdict {
    /// What is not as expected; empty for a case that passes.
    pub differences: Vec<String>,
    /// How the decision came about, a step a line; empty when no grant could be made.
    pub trace: String,
}

impl CaseVerdict {
    /// Whether everything is as expected.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.differences.is_empty()
    }
}

/// What a case comes to.
enum Outcome {
    ScopeRefused(String),
    Capabilities(Capabilities),
    Decided(Decision),
    /// The world of the case does not hold together.
    Impossible(String),
}

impl PolicyCase {
    /// Decides the case under these rules.
    #[must_use]
    pub fn run(&self, rules: &Arc<RuleSet>) -> CaseVerdict {
        let outcome = self.outcome(rules);
        let trace = match &outcome {
            Outcome::Decided(decision) => decision.trace().render(),
            Outcome::Capabilities(_) | Outcome::ScopeRefused(_) | Outcome::Impossible(_) => {
                String::new()
            }
        };
        CaseVerdict {
            differences: self.differences(&outcome),
            trace,
        }
    }

    fn outcome(&self, rules: &Arc<RuleSet>) -> Outcome {
        let given = &self.given;
        let scope = match Scope::parse(&given.scope, rules.allow_sensitive(&given.peer)) {
            Ok(scope) => scope,
            Err(error) => return Outcome::ScopeRefused(error.to_string()),
        };
        let peer = Peer {
            id: PeerId::new(uuid::Uuid::from_u128(1)),
            name: given.peer.clone(),
            state: given.peer_state,
        };
        let subject = SubjectId::of_user(&given.user);
        let now = UnixMillis(0);
        let grant = Grant {
            id: GrantId::new(uuid::Uuid::from_u128(2)),
            peer: peer.id,
            user: given.user.clone(),
            subject,
            scope,
            status: given.grant,
            edit: 0,
            created_at: now,
            expires_at: None,
        };
        let request = AccessRequest {
            grant: grant.id,
            subject,
            now,
            verb: &self.when.verb,
            resource: self.when.resource.as_deref(),
            limit: self.when.limit,
        };
        let mut facts = NativeFacts::builder();
        for team in &given.teams {
            if let Err(error) = facts.team(team.clone()) {
                return Outcome::Impossible(error.to_string());
            }
        }
        let key = RevisionKey::new(&[0; 32]);
        let mapping = self.mapping(rules);
        let rules = Arc::clone(rules);
        match Snapshot::build(1, [peer], [grant], rules, mapping, &key) {
            Ok(snapshot) => match admit(&snapshot, &request) {
                Ok(Admission::Capabilities(capabilities)) => Outcome::Capabilities(capabilities),
                _ => Outcome::Decided(evaluate(&snapshot, &request, &facts.build())),
            },
            Err(problems) => {
                let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
                Outcome::Impossible(texts.join("; "))
            }
        }
    }

    fn mapping(&self, rules: &RuleSet) -> Arc<Mapping> {
        match (self.given.gateway, rules.mapping()) {
            (Gateway::Mosaic, _) => Arc::new(Mapping::mosaic()),
            (Gateway::OfPolicy, Some(mapping)) => Arc::clone(mapping),
            (Gateway::OfPolicy | Gateway::InternalV1, _) => Arc::new(Mapping::internal_v1()),
        }
    }

    fn differences(&self, outcome: &Outcome) -> Vec<String> {
        match (&self.expect, outcome) {
            (Expect::ScopeRefused, Outcome::ScopeRefused(_)) => Vec::new(),
            (Expect::Deny(code), Outcome::Decided(Decision::Deny(deny)))
                if deny.code() == *code =>
            {
                Vec::new()
            }
            (Expect::Allow(allowed), Outcome::Decided(Decision::Allow(permit))) => {
                permit_differences(allowed, permit)
            }
            (Expect::Allow(allowed), Outcome::Capabilities(found)) => {
                capabilities_differences(allowed, found)
            }
            (expect, outcome) => vec![differs("decision", expected(expect), found(outcome))],
        }
    }
}

fn expected(expect: &Expect) -> String {
    match expect {
        Expect::ScopeRefused => "scope_refused".to_owned(),
        Expect::Deny(code) => format!("deny {code}"),
        Expect::Allow(_) => "allow".to_owned(),
    }
}

fn found(outcome: &Outcome) -> String {
    match outcome {
        Outcome::ScopeRefused(why) => format!("scope_refused ({why})"),
        Outcome::Capabilities(_) | Outcome::Decided(Decision::Allow(_)) => "allow".to_owned(),
        Outcome::Decided(Decision::Deny(deny)) => format!("deny {deny}"),
        Outcome::Impossible(why) => format!("no decision: {why}"),
    }
}

fn differs(what: &str, expected: impl Display, found: impl Display) -> String {
    format!("{what}: expected {expected}, found {found}")
}

fn permit_differences(allowed: &Allowed, permit: &Permit) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(teams) = &allowed.teams
        && !teams.iter().eq(permit.teams().iter())
    {
        differences.push(differs("teams", names(teams), names(permit.teams().iter())));
    }
    if let Some(personal) = allowed.include_personal
        && personal != permit.include_personal()
    {
        let found = permit.include_personal();
        differences.push(differs("include_personal", personal, found));
    }
    if let Some(rows) = allowed.max_rows
        && rows != permit.row_limit()
    {
        differences.push(differs("max_rows", rows.rows(), permit.row_limit().rows()));
    }
    let removes = |path: &str| {
        let names: Vec<&str> = path.split('.').collect();
        permit.redaction().removes(permit.resource(), &names)
    };
    for path in allowed.removes.iter().filter(|path| !removes(path)) {
        differences.push(differs("removes", format!("{path} removed"), "kept"));
    }
    for path in allowed.keeps.iter().filter(|path| removes(path)) {
        differences.push(differs("keeps", format!("{path} kept"), "removed"));
    }
    differences
}

fn capabilities_differences(allowed: &Allowed, found: &Capabilities) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(resources) = &allowed.resources {
        let shown: BTreeSet<Resource> = found.resources.iter().copied().collect();
        if *resources != shown {
            differences.push(differs("resources", names(resources), names(&shown)));
        }
    }
    if let Some(rows) = allowed.max_rows
        && rows != found.max_rows_per_query
    {
        let shown = found.max_rows_per_query.rows();
        differences.push(differs("max_rows", rows.rows(), shown));
    }
    differences
}

fn names<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = all.into_iter().map(|one| one.to_string()).collect();
    format!("[{}]", names.join(", "))
}
