//! The trace a decision leaves, told step by step.
//!
//! Invariant: a trace is made from the very values that decided, never by deciding again. It costs nothing until it is
//! asked for. A decision just made and one read back from a record are told by the same code.
//! Elsewhere on purpose: what is kept with a record (`recorded.rs`), the commands that print traces (the proxy).

use std::fmt::{self, Write as _};

use crate::decision::{Decision, Permit};
use crate::deny::{Deny, DenyCode, DenyStage};
use crate::id::TeamId;
use crate::native::FactCounts;
use crate::reach::{Reach, RowLimit, TeamSet};
use crate::resource::Resource;
use crate::snapshot::GrantEntry;
use crate::verb::Verb;

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

    pub(crate) fn step(
        &mut self,
        name: &'static str,
        input: impl Into<String>,
        outcome: impl Into<String>,
    ) {
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
        let Some(entry) = self.entry() else {
            return self.local_trace();
        };
        let figures = PermitFigures {
            facts: self.facts(),
            teams: self.teams(),
            unnamed: 0,
            include_personal: self.include_personal(),
            row_cap: self.row_cap(),
            row_limit: self.row_limit(),
        };
        let told = Told::of(entry);
        let mut trace = told.admitted(self.verb().as_str(), self.resource());
        told.permitted(&mut trace, self.resource(), &figures);
        trace
    }

    /// How the permit of a user's own gateway came about.
    fn local_trace(&self) -> Trace {
        let mut trace = Trace::default();
        let (user, resource) = (self.user(), self.resource().as_str());
        trace.step("identity", format!("a local session of {user}"), "in force");
        trace.step("verb", self.verb().as_str(), "known");
        trace.step("resource", resource, "ordinary, served");
        trace.step("native facts", format!("user {user}"), "known");
        let teams = teams_text(self.teams().iter());
        let reached = format!("{teams}; personal rows yes");
        trace.step("teams and personal rows", "all of the user's own", reached);
        let rows = self.row_limit().rows();
        trace.step(
            "row cap",
            "of the session door",
            format!("allowed: at most {rows} rows"),
        );
        trace
    }
}

impl Deny {
    /// How it came about, as far as it got.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let told = match self.entry() {
            Some(entry) => Told::of(entry),
            None => Told::default(),
        };
        let verb = self.verb().map_or("not a verb", |verb| verb.as_str());
        let resource = self.resource().map_or("not a resource", Resource::as_str);
        told.refused(self.code(), verb, resource, self.resource())
    }
}

/// What a permit holds, besides its grant and resource.
pub(crate) struct PermitFigures<'a> {
    pub(crate) facts: FactCounts,
    pub(crate) teams: &'a [TeamId],
    /// Teams of which no name was kept.
    pub(crate) unnamed: u64,
    pub(crate) include_personal: bool,
    pub(crate) row_cap: RowLimit,
    pub(crate) row_limit: RowLimit,
}

/// What is known of the grant that a decision was made under.
#[derive(Clone, Default)]
pub(crate) struct Told<'a> {
    /// Who asked; absent where even the grant was not known.
    pub(crate) asker: Option<String>,
    /// Scope, ceiling and redaction as they were; absent where they cannot be had any more.
    pub(crate) entry: Option<&'a GrantEntry>,
}

impl<'a> Told<'a> {
    fn of(entry: &'a GrantEntry) -> Self {
        let (grant, peer) = (&entry.grant, &entry.peer);
        let asker = format!(
            "grant {} ({}) of peer {} ({}) for user {}",
            grant.id, grant.status, peer.name, peer.state, grant.user
        );
        Self {
            asker: Some(asker),
            entry: Some(entry),
        }
    }

    fn identity(&self, trace: &mut Trace, outcome: &str) {
        if let Some(asker) = &self.asker {
            trace.step("identity", asker.as_str(), outcome);
        }
    }

    /// The steps before the native facts, all passed.
    pub(crate) fn admitted(&self, verb: &str, resource: Resource) -> Trace {
        let mut trace = Trace::default();
        self.identity(&mut trace, "in force");
        trace.step("verb", verb, "known");
        trace.step(
            "resource",
            resource.as_str(),
            "in the scope, not excluded, served",
        );
        let input = self.entry.map_or_else(
            || resource.to_string(),
            |entry| ceiling_text(entry, resource),
        );
        trace.step("ceiling", input, "in reach");
        trace
    }

    /// The steps from the native facts on.
    pub(crate) fn permitted(
        &self,
        trace: &mut Trace,
        resource: Resource,
        figures: &PermitFigures<'_>,
    ) {
        let FactCounts {
            teams,
            projects,
            missions,
        } = figures.facts;
        let facts = format!("{teams} teams, {projects} projects, {missions} missions of the user");
        trace.step("native facts", facts, "known");
        let mut teams = teams_text(figures.teams);
        if figures.unnamed > 0 {
            // Writing to a String cannot fail.
            let _ = write!(teams, " and {} more", figures.unnamed);
        }
        let input = self.entry.map_or_else(
            || resource.to_string(),
            |entry| reach_text(&entry.effective, resource),
        );
        let personal = yes_no(figures.include_personal);
        trace.step(
            "teams and personal rows",
            input,
            format!("{teams}; personal rows {personal}"),
        );
        if let Some(entry) = self.entry {
            trace.step(
                "redaction",
                resource.as_str(),
                redaction_text(entry, resource),
            );
        }
        trace.step(
            "row cap",
            format!("scope and policy allow {}", figures.row_cap.rows()),
            format!("allowed: at most {} rows", figures.row_limit.rows()),
        );
    }

    /// The steps of a refusal, as far as it got. The resource is as asked, and parsed where it is one.
    pub(crate) fn refused(
        &self,
        code: DenyCode,
        verb: &str,
        name: &str,
        resource: Option<Resource>,
    ) -> Trace {
        let mut trace = Trace::default();
        let refused = refusal_text(code);
        let stage = code.stage();
        if stage == DenyStage::Identity && self.asker.is_some() {
            self.identity(&mut trace, &refused);
            return trace;
        }
        self.identity(&mut trace, "in force");
        if matches!(
            stage,
            DenyStage::Identity | DenyStage::Rate | DenyStage::Request
        ) {
            trace.step(stage.as_str(), "the request", refused);
            return trace;
        }
        if stage == DenyStage::Verb {
            trace.step("verb", verb, refused);
            return trace;
        }
        trace.step("verb", verb, "known");
        if stage == DenyStage::Resource {
            trace.step("resource", self.scope_text(name), refused);
            return trace;
        }
        trace.step("resource", name, "in the scope, not excluded, served");
        if stage == DenyStage::Ceiling {
            let input = match (self.entry, resource) {
                (Some(entry), Some(resource)) => ceiling_text(entry, resource),
                _ => name.to_owned(),
            };
            trace.step("ceiling", input, refused);
            return trace;
        }
        trace.step("ceiling", name, "in reach");
        trace.step(stage.as_str(), name, refused);
        trace
    }

    /// The steps of a question for what the grant allows, and of one that was cut off before its facts.
    pub(crate) fn unfinished(&self, verb: &str) -> Trace {
        let mut trace = Trace::default();
        self.identity(&mut trace, "in force");
        trace.step("verb", verb, "known");
        if verb == Verb::Capabilities.as_str() {
            trace.step("capabilities", "what scope and ceiling allow", "allowed");
        }
        trace
    }

    fn scope_text(&self, resource: &str) -> String {
        let mut text = resource.to_owned();
        if let Some(entry) = self.entry {
            let names = |set: crate::resource::ResourceSet| -> String {
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

/// A refusal as the outcome of its step.
pub(crate) fn refusal_text(code: DenyCode) -> String {
    format!("denied, {code}: {} {}", code.meaning(), code.remedy())
}

/// The ceiling of the peer, and for a sensitive resource whether policy lets this peer have it.
fn ceiling_text(entry: &GrantEntry, resource: Resource) -> String {
    let reach = reach_text(&entry.ceiling, resource);
    let sensitive = match (
        resource.is_sensitive(),
        entry.effective.resources.contains_key(&resource),
    ) {
        (false, _) => "",
        (true, true) => "; sensitive, allowed for this peer",
        (true, false) => "; sensitive, not allowed for this peer unless allow_sensitive names it",
    };
    format!("peer {}: {reach}{sensitive}", entry.peer.name)
}

fn redaction_text(entry: &GrantEntry, resource: Resource) -> String {
    let (removed, exempt) = entry.redaction.paths(resource);
    let mut text = "names that say secret are removed".to_owned();
    // Writing to a String cannot fail.
    if !removed.is_empty() {
        let _ = write!(text, ", and {}", removed.join(" "));
    }
    if !exempt.is_empty() {
        let _ = write!(text, ", but not {}", exempt.join(" "));
    }
    text
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
