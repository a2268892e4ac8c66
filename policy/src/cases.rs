//! Test cases of a policy: what is given, what is asked, what must come of it; and which rules they hold in place.
//!
//! Invariant: a case is decided by the one decision function on a snapshot built as every other, so a case that passes
//! says what requests will meet. A rule counts as covered only if some case fails without it.
//! Elsewhere on purpose: reading files and printing (the proxy).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::deny::DenyCode;
use crate::grant::GrantStatus;
use crate::id::{TeamId, UserId};
use crate::peer::{PeerName, PeerState};
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::rules::Problem;

mod coverage;
mod parse;
mod run;

pub use coverage::{Coverage, RuleEntry, coverage};
pub use run::CaseVerdict;

/// One case.
#[derive(Clone, Debug)]
pub struct PolicyCase {
    /// Its name; no two cases share one.
    pub name: String,
    /// The file it is in.
    pub file: String,
    /// The line it begins on.
    pub line: usize,
    given: Given,
    when: When,
    expect: Expect,
}

impl PolicyCase {
    /// Checks the files of a set of cases together.
    ///
    /// # Errors
    /// Every problem in every file, sorted by file and place.
    pub fn parse(files: &[(&str, &str)]) -> Result<Vec<Self>, Vec<Problem>> {
        parse::cases(files)
    }
}

/// The world a case is decided in.
#[derive(Clone, Debug)]
struct Given {
    peer: PeerName,
    peer_state: PeerState,
    user: UserId,
    /// JSON, since whether a scope may name sensitive resources depends on the rules.
    scope: Value,
    grant: GrantStatus,
    teams: BTreeSet<TeamId>,
    gateway: Gateway,
}

/// Which mapping says what the gateway serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gateway {
    /// The policy's own if it has one, else that of `internal-v1`.
    #[default]
    OfPolicy,
    InternalV1,
    Mosaic,
}

/// The question, as a peer would write it.
#[derive(Clone, Debug)]
struct When {
    verb: String,
    resource: Option<String>,
    limit: Option<RowLimit>,
}

/// What must come of it.
#[derive(Clone, Debug)]
enum Expect {
    /// No such grant can be made: the scope is refused.
    ScopeRefused,
    /// Refused with this code.
    Deny(DenyCode),
    /// Allowed, this far.
    Allow(Allowed),
}

/// How far a question must be allowed; what is absent may be anything.
#[derive(Clone, Debug, Default)]
struct Allowed {
    teams: Option<BTreeSet<TeamId>>,
    include_personal: Option<bool>,
    max_rows: Option<RowLimit>,
    /// Of capabilities.
    resources: Option<BTreeSet<Resource>>,
    /// Paths below a row.
    removes: Vec<String>,
    keeps: Vec<String>,
}

#[cfg(test)]
mod tests;
