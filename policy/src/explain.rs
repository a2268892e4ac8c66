//! The trace a decision leaves, told step by step.
//!
//! Invariant: a trace is made from the very values that decided, never by deciding again. It costs nothing until it is
//! asked for.
//! Elsewhere on purpose: the command that prints it (the proxy).

use std::fmt::{self, Write as _};

use crate::decision::{Decision, Permit};
use crate::deny::{Deny, DenyStage};
use crate::id::TeamId;
use crate::reach::{Reach, TeamSet};
use crate::resource::Resource;
use crate::snapshot::GrantEntry;

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStep {
    /// Its name.
    pub name: &'static str,
    /// What it looked at.
    pub input: String,
    /// What came of it.
    pub outcome: String,
}

/// The steps of a decision, in order; the last one decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps.
    pub steps: Vec<TraceStep>,
}

impl Trace {
    /// The numbered steps, one a line.
    #[must_use]
    pub fn render(&self) -> String {
        self.to_string()
    }

    fn step(&mut self, name: &'static str, input: impl Into<String>, outcome: impl Into<String>) {
        self.steps.push(TraceStep {
            name,
            input: input.into(),
            outcome: outcome.into(),
        });
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            number,
            TraceStep {
                name,
                input,
                outcome,
            },
        ) in self.steps.iter().enumerate()
        {
            if number > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{}. {name}: {input} -> {outcome}", number + 1)?;
        }
        Ok(())
    }
}

impl Decision {
    /// How it came about.
    #[must_use]
    pub fn trace(&self) -> Trace {
        match self {
            Self::Allow(permit) => permit.trace(),
            Self::Deny(deny) => deny.trace(),
        }
    }
}

impl Permit {
    /// How it came about.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        let (entry, resource) = (self.entry(), self.resource());
        identity_step(&mut trace, entry, "in force");
        trace.step("verb", self.verb().as_str(), "known");
        trace.step(
            "resource",
            resource.as_str(),
            "in the scope, not excluded, served",
        );
        let reach = reach_text(&entry.ceiling, resource);
        trace.step(
            "ceiling",
            format!("peer {}: {reach}", self.peer_name()),
            "in reach",
        );
        let teams = teams_text(self.teams().iter());
        trace.step("native facts", format!("user {}", self.user()), "known");
        trace.step(
            "teams and personal rows",
            reach_text(&entry.effective, resource),
            format!("{teams}; personal rows {}", yes_no(self.include_personal())),
        );
        trace.step(
            "row cap",
            format!("scope and policy allow {}", self.row_cap().rows()),
            format!("allowed: at most {} rows", self.row_limit().rows()),
        );
        trace
    }
}

impl Deny {
    /// How it came about, as far as it got.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        let refused = format!(
            "denied, {}: {} {}",
            self.code(),
            self.reason(),
            self.code().remedy()
        );
        let stage = self.stage();
        match (self.entry(), stage) {
            (Some(entry), DenyStage::Identity) => {
                identity_step(&mut trace, entry, &refused);
                return trace;
            }
            (Some(entry), _) => identity_step(&mut trace, entry, "in force"),
            (None, _) => {}
        }
        let verb = self.verb().map_or("not a verb", |verb| verb.as_str());
        let resource = self.resource().map_or("not a resource", Resource::as_str);
        if matches!(stage, DenyStage::Identity | DenyStage::Request) {
            trace.step(stage.as_str(), "the request", refused);
            return trace;
        }
        if stage == DenyStage::Verb {
            trace.step("verb", verb, refused);
            return trace;
        }
        trace.step("verb", verb, "known");
        if stage == DenyStage::Resource {
            trace.step("resource", self.scope_text(resource), refused);
            return trace;
        }
        trace.step("resource", resource, "in the scope, not excluded, served");
        if let (DenyStage::Ceiling, Some(entry)) = (stage, self.entry()) {
            let reach = self
                .resource()
                .map_or_else(String::new, |resource| reach_text(&entry.ceiling, resource));
            trace.step(
                "ceiling",
                format!("peer {}: {reach}", entry.peer.name),
                refused,
            );
            return trace;
        }
        trace.step("ceiling", resource, "in reach");
        trace.step(stage.as_str(), resource, refused);
        trace
    }

    fn scope_text(&self, resource: &str) -> String {
        let mut text = resource.to_owned();
        if let Some(entry) = self.entry() {
            let names = |set: &std::collections::BTreeSet<Resource>| -> String {
                let names: Vec<_> = set.iter().map(|resource| resource.as_str()).collect();
                names.join(" ")
            };
            let scope = &entry.grant.scope;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "; scope: {}; excluded: {}",
                names(scope.resources()),
                or_none(&names(scope.excluded_resources()))
            );
        }
        text
    }
}

fn identity_step(trace: &mut Trace, entry: &GrantEntry, outcome: &str) {
    let (grant, peer) = (&entry.grant, &entry.peer);
    let input = format!(
        "grant {} ({}) of peer {} ({}) for user {}",
        grant.id, grant.status, peer.name, peer.state, grant.user
    );
    trace.step("identity", input, outcome);
}

fn reach_text(reach: &Reach, resource: Resource) -> String {
    let Some(found) = reach.resources.get(&resource) else {
        let names: Vec<_> = reach
            .resources
            .keys()
            .map(|resource| resource.as_str())
            .collect();
        return format!("{resource} is not among {}", or_none(&names.join(" ")));
    };
    let teams = match &found.teams {
        TeamSet::Any => "any team".to_owned(),
        TeamSet::Only(teams) => teams_text(teams),
    };
    let personal = yes_no(found.include_personal);
    format!(
        "{resource}, {teams}, personal rows {personal}, {} rows",
        reach.max_rows_per_query.rows()
    )
}

fn teams_text<'a>(teams: impl IntoIterator<Item = &'a TeamId>) -> String {
    let names: Vec<_> = teams.into_iter().map(TeamId::as_str).collect();
    format!("teams {}", or_none(&names.join(" ")))
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

const fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}
