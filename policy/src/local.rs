//! What a user may see of their own gateway through the session door of their own side.
//!
//! A local session asks peers and its own gateway with one question (`source = "all"`), and rows of both must obey
//! one rule: rows of the user's teams and the user's own, secrets removed. So the local gateway is asked under a permit
//! too, and what it answers is filtered by the same code. There is no grant to decide from, because nobody else asks:
//! [`admit_local`] and `Admitted::decide_local` are the only way to a permit without one.
//!
//! Invariant: such a permit speaks for exactly one user, reaches every team of that user and their personal rows, and
//! never a sensitive resource, whatever policy says: ceilings are about peers. Redaction is the same as towards peers.
//! Elsewhere on purpose: whose session it is (the session door), who the user is to a decision (`snapshot.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decision::{Basis, Permit, PermitParts};
use crate::deny::{Deny, DenyCode};
use crate::evaluate::{Admission, Admitted, Capabilities};
use crate::id::UserId;
use crate::native::NativeFacts;
use crate::reach::RowLimit;
use crate::resource::{Resource, ResourceError};
use crate::snapshot::Snapshot;
use crate::verb::Verb;

/// The steps before the native facts for a question of `user` to their own gateway: verb, resource.
///
/// # Errors
/// The first step that refuses: a sensitive resource as one that is not granted.
pub fn admit_local(
    snapshot: &Snapshot,
    user: &UserId,
    verb: &str,
    resource: Option<&str>,
    limit: Option<RowLimit>,
) -> Result<Admission, Deny> {
    let verb = Verb::parse(verb).map_err(|_| Deny::new(DenyCode::UnknownVerb))?;
    if verb == Verb::Capabilities {
        return Ok(Admission::Capabilities(capabilities(snapshot)));
    }
    let resource = admit_resource(snapshot, resource)
        .map_err(|(code, resource)| Deny::new(code).asking(Some(verb), resource))?;
    Ok(Admission::Rows(Admitted {
        basis: Basis::Local(Arc::new(snapshot.local_user(user))),
        verb,
        resource,
        limit,
        store_revision: snapshot.revision(),
    }))
}

/// The same for a search: each resource that is `named` must be one that a list would be answered for; when none is
/// named, all those are searched.
///
/// # Errors
/// As [`admit_local`], for the first resource that is refused.
pub fn admit_local_search(
    snapshot: &Snapshot,
    user: &UserId,
    named: Option<&[String]>,
    limit: Option<RowLimit>,
) -> Result<Vec<Admitted>, Deny> {
    let local = Arc::new(snapshot.local_user(user));
    let verb = Verb::Search;
    let admitted = |resource| Admitted {
        basis: Basis::Local(Arc::clone(&local)),
        verb,
        resource,
        limit,
        store_revision: snapshot.revision(),
    };
    let Some(named) = named else {
        let open = Resource::SERVED
            .into_iter()
            .filter(|resource| admit_resource(snapshot, Some(resource.as_str())).is_ok());
        return Ok(open.map(admitted).collect());
    };
    named
        .iter()
        .map(|name| match admit_resource(snapshot, Some(name)) {
            Ok(resource) => Ok(admitted(resource)),
            Err((code, resource)) => Err(Deny::new(code).asking(Some(verb), resource)),
        })
        .collect()
}

fn admit_resource(
    snapshot: &Snapshot,
    name: Option<&str>,
) -> Result<Resource, (DenyCode, Option<Resource>)> {
    let resource = Resource::parse(name.unwrap_or_default()).map_err(|error| match error {
        ResourceError::Reserved => (DenyCode::ReservedResource, None),
        ResourceError::Unknown => (DenyCode::UnknownResource, None),
    })?;
    if resource.is_sensitive() {
        return Err((DenyCode::ResourceNotGranted, Some(resource)));
    }
    if !snapshot.mapping().serves(resource) {
        return Err((DenyCode::ResourceUnsupported, Some(resource)));
    }
    Ok(resource)
}

fn capabilities(snapshot: &Snapshot) -> Capabilities {
    let reached =
        |resource: &Resource| !resource.is_sensitive() && snapshot.mapping().serves(*resource);
    Capabilities {
        resources: Resource::ALL.into_iter().filter(reached).collect(),
        excluded_resources: Vec::new(),
        max_rows_per_query: RowLimit::MAX,
        supported_verbs: Verb::ALL.to_vec(),
        filters: BTreeMap::new(),
        order: "created_desc",
        rate_limit: None,
        rows_per_day: None,
    }
}

impl Admitted {
    /// The last steps for a user's own gateway: every team of the user, personal rows, and as many rows as asked for.
    pub(crate) fn decide_local(self, facts: &NativeFacts) -> Permit {
        Permit::issue(PermitParts {
            verb: self.verb,
            resource: self.resource,
            facts: facts.counts(),
            teams: facts.teams().iter().cloned().collect(),
            include_personal: true,
            row_limit: self.limit.unwrap_or(RowLimit::DEFAULT),
            row_cap: RowLimit::MAX,
            store_revision: self.store_revision,
            basis: self.basis,
        })
    }
}

#[cfg(test)]
mod tests;
