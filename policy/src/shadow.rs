//! What another policy would have made of a question that was just decided: the shadow of the decision.
//!
//! Invariant: the candidate decides by the functions that requests go through, on the facts that the decision had; no
//! more is asked for. What is told of a difference comes from closed sets, the grant and the two policies, never from
//! what the peer wrote, so that one grant can show a bounded number of different ones.
//! Elsewhere on purpose: making the candidate's snapshot and counting (the proxy); how often a grant may ask (`replay`).

use crate::decision::{Basis, Permit};
use crate::deny::{Deny, DenyCode};
use crate::evaluate::{Admission, Admitted, Capabilities, admit, admit_search};
use crate::native::NativeFacts;
use crate::reach::RowLimit;
use crate::request::AccessRequest;
use crate::resource::Resource;
use crate::snapshot::{GrantEntry, Snapshot};
use crate::verb::Verb;

/// What kind of difference there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// Let through now, refused by the candidate.
    Refused,
    /// Refused now, let through by the candidate.
    Allowed,
    /// Refused by both, for different reasons.
    RefusedOtherwise,
    /// Let through by both, with other rows or members.
    Otherwise,
}

impl Change {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Refused,
        Self::Allowed,
        Self::RefusedOtherwise,
        Self::Otherwise,
    ];

    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::RefusedOtherwise => "refused_otherwise",
            Self::Otherwise => "otherwise",
        }
    }
}

/// A difference between a decision and its shadow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Difference {
    /// Its kind.
    pub change: Change,
    /// What was asked; none for a verb that nobody knows.
    pub verb: Option<Verb>,
    /// For what; none for capabilities and for a resource that nobody knows.
    pub resource: Option<Resource>,
    /// What was decided.
    pub now: String,
    /// What the candidate decides.
    pub then: String,
}

impl Difference {
    fn of(
        asked: (Option<Verb>, Option<Resource>),
        now: Result<(), DenyCode>,
        then: Result<(), DenyCode>,
    ) -> Option<Self> {
        let change = match (now, then) {
            (Ok(()), Ok(())) => return None,
            (Err(now), Err(then)) if now == then => return None,
            (Ok(()), Err(_)) => Change::Refused,
            (Err(_), Ok(())) => Change::Allowed,
            (Err(_), Err(_)) => Change::RefusedOtherwise,
        };
        let text = |outcome: Result<(), DenyCode>| match outcome {
            Ok(()) => "let through".to_owned(),
            Err(code) => format!("refused, {code}"),
        };
        Some(Self {
            change,
            verb: asked.0,
            resource: asked.1,
            now: text(now),
            then: text(then),
        })
    }

    /// Both let the question through; what differs in how far, in pairs of now and then.
    fn otherwise(
        asked: (Verb, Option<Resource>),
        parts: impl IntoIterator<Item = (String, String)>,
    ) -> Option<Self> {
        let (now, then): (Vec<_>, Vec<_>) =
            parts.into_iter().filter(|(now, then)| now != then).unzip();
        (!now.is_empty()).then(|| Self {
            change: Change::Otherwise,
            verb: Some(asked.0),
            resource: asked.1,
            now: now.join("; "),
            then: then.join("; "),
        })
    }
}

/// The shadow of a question that was admitted, refused or answered with capabilities. What came of rows that were
/// admitted is told by [`permitted`].
#[must_use]
pub fn admission(
    candidate: &Snapshot,
    request: &AccessRequest<'_>,
    decided: Result<&Admission, &Deny>,
) -> Option<Difference> {
    let verb = Verb::parse(request.verb).ok();
    let resource = request.resource.and_then(|name| Resource::parse(name).ok());
    let now = match decided {
        Ok(Admission::Rows(_)) => return None,
        Ok(Admission::Capabilities(_)) => Ok(()),
        Err(deny) => Err(deny.code()),
    };
    let then = admit(candidate, request);
    if let (Ok(Admission::Capabilities(now)), Ok(Admission::Capabilities(then))) = (decided, &then)
    {
        return Difference::otherwise((Verb::Capabilities, None), capabilities(now, then));
    }
    let then = then.map(|_| ()).map_err(|deny| deny.code());
    Difference::of((verb, resource), now, then)
}

/// The shadow of a search for what it names, or for all that is open: refusals, and resources that only the candidate
/// would search. What came of those that were admitted is told by [`permitted`].
#[must_use]
pub fn search(
    candidate: &Snapshot,
    request: &AccessRequest<'_>,
    named: Option<&[String]>,
    decided: Result<&[Admitted], &Deny>,
) -> Vec<Difference> {
    let then = admit_search(candidate, request, named);
    let now = match decided {
        Ok(now) => now,
        Err(deny) => {
            let then = then.map(|_| ()).map_err(|deny| deny.code());
            let asked = (Some(Verb::Search), deny.resource());
            return Vec::from_iter(Difference::of(asked, Err(deny.code()), then));
        }
    };
    let known = |resource| now.iter().any(|admitted| admitted.resource() == resource);
    let then = then.unwrap_or_default();
    let more = then.iter().map(Admitted::resource);
    more.filter(|resource| !known(*resource))
        .map(|resource| Difference {
            change: Change::Otherwise,
            verb: Some(Verb::Search),
            resource: Some(resource),
            now: "not searched".to_owned(),
            then: "searched".to_owned(),
        })
        .collect()
}

/// The shadow of a permit, on the facts that it was decided on. A user's own question has none.
#[must_use]
pub fn permitted(
    candidate: &Snapshot,
    request: &AccessRequest<'_>,
    facts: &NativeFacts,
    permit: &Permit,
) -> Option<Difference> {
    let Basis::Grant(now) = permit.basis() else {
        return None;
    };
    let asked = (permit.verb(), permit.resource());
    let then = match admit(candidate, request) {
        Ok(Admission::Rows(admitted)) => admitted.decide(facts),
        // A verb of rows is not answered with capabilities.
        Ok(Admission::Capabilities(_)) => return None,
        Err(deny) => {
            let asked = (Some(asked.0), Some(asked.1));
            return Difference::of(asked, Ok(()), Err(deny.code()));
        }
    };
    let Basis::Grant(after) = then.basis() else {
        return None;
    };
    let mut parts = vec![
        (teams(permit), teams(&then)),
        (
            personal(permit.include_personal()),
            personal(then.include_personal()),
        ),
    ];
    if asked.0 != Verb::Get && permit.row_limit() != then.row_limit() {
        // The caps, not what was asked for: a peer could make up as many differences as it likes.
        parts.push((at_most(permit.row_cap()), at_most(then.row_cap())));
    }
    if asked.0 == Verb::Search {
        parts.push((hits(permit.semantic()), hits(then.semantic())));
    }
    parts.extend(members(now, after, asked.1));
    Difference::otherwise((asked.0, Some(asked.1)), parts)
}

fn teams(permit: &Permit) -> String {
    if permit.teams().is_empty() {
        return "no team".to_owned();
    }
    let names: Vec<_> = permit.teams().iter().map(|team| team.as_str()).collect();
    format!("teams {}", names.join(" "))
}

fn personal(include: bool) -> String {
    if include {
        "personal rows"
    } else {
        "no personal rows"
    }
    .to_owned()
}

fn at_most(rows: RowLimit) -> String {
    format!("at most {} rows", rows.rows())
}

fn hits(semantic: bool) -> String {
    if semantic {
        "also hits without its words"
    } else {
        "only hits with its words"
    }
    .to_owned()
}

/// Which members policy names to remove, and to keep.
fn members(now: &GrantEntry, then: &GrantEntry, resource: Resource) -> [(String, String); 2] {
    let (now_removed, now_kept) = now.redaction.paths(resource);
    let (removed, kept) = then.redaction.paths(resource);
    let text = |what: &str, paths: &[String]| match paths {
        [] => format!("{what} nothing by name"),
        paths => format!("{what} {}", paths.join(" ")),
    };
    [
        (text("removes", &now_removed), text("removes", &removed)),
        (text("keeps", &now_kept), text("keeps", &kept)),
    ]
}

fn capabilities(now: &Capabilities, then: &Capabilities) -> Vec<(String, String)> {
    let pair = |text: fn(&Capabilities) -> String| (text(now), text(then));
    let mut pairs = vec![
        pair(|said| {
            let names: Vec<_> = said.resources.iter().map(|name| name.as_str()).collect();
            match &*names {
                [] => "no resource".to_owned(),
                names => names.join(" "),
            }
        }),
        pair(|said| at_most(said.max_rows_per_query)),
        pair(|said| {
            let names: Vec<_> = said
                .supported_verbs
                .iter()
                .map(|verb| verb.as_str())
                .collect();
            names.join(" ")
        }),
        pair(|said| match said.rate_limit {
            None => "any rate".to_owned(),
            Some(rate) => format!("{} a minute, {} at once", rate.per_minute(), rate.burst()),
        }),
        pair(|said| match said.rows_per_day {
            None => "any number of rows a day".to_owned(),
            Some(rows) => format!("{rows} rows a day"),
        }),
    ];
    for (resource, filter) in &now.filters {
        let Some(other) = then.filters.get(resource) else {
            continue;
        };
        let text = |filter: &crate::scope::ScopeFilter| {
            let names: Vec<_> = filter
                .include_teams
                .iter()
                .map(|team| team.as_str())
                .collect();
            let names = if names.is_empty() {
                "no team".to_owned()
            } else {
                format!("teams {}", names.join(" "))
            };
            format!("{resource}: {names}, {}", personal(filter.include_personal))
        };
        pairs.push((text(filter), text(other)));
    }
    pairs
}

#[cfg(test)]
mod tests;
