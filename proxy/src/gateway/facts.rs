//! The subject's native facts: fetched from the gateway as the subject, kept for at most one lease.
//!
//! Invariant: facts are whole or absent. A page that cannot be read, an entry without an id, or too
//! many entries make them unavailable, never fewer (specification, section 5). One fetch serves all
//! requests of a grant that wait for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use policy::decision::{Basis, Permit};
use policy::id::{GrantId, MissionId, ProjectId, SubjectId, TeamId, UserId};
use policy::mapping::{
    FactEntries, FactsMap, ListedFacts, Mapping, MemberPath, SingleFacts, SourceMap,
};
use policy::native::{
    MissionFacts, NativeFacts, NativeFactsBuilder, NativeFactsError, ProjectFacts,
};
use policy::revision::EffectiveRevision;
use policy::rows::{FilterError, RowFilter, RowMatch};
use serde_json::Value;

use crate::message::headers::RequestTag;
use crate::telemetry::Metrics;

use super::client::{Authority, GatewayClient};
use super::credential::SubjectAuth;
use super::error::GatewayError;

/// Largest body of one page of facts, in bytes.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Most pages of facts that are read for one subject.
const MAX_PAGES: usize = 64;

/// Facts as fetched at one time.
#[derive(Debug)]
pub struct FetchedFacts {
    /// The facts.
    pub facts: Arc<NativeFacts>,
    /// Filters compiled from these facts, by the collection they are for.
    filters: Mutex<Vec<(Arc<SourceMap>, Arc<RowFilter>)>>,
    revision: EffectiveRevision,
    /// When the fetch was sent, on the clock that counts suspended time.
    sent_at: u64,
}

impl FetchedFacts {
    /// The filter for the rows of one source under `permit`, which was decided on these facts.
    /// Filters without a match of their own are compiled once.
    ///
    /// # Errors
    /// [`FilterError`] when mapping, redaction and match contradict each other.
    pub fn filter(
        &self,
        permit: &Permit,
        source: &Arc<SourceMap>,
        matching: &RowMatch,
    ) -> Result<Arc<RowFilter>, FilterError> {
        let compile = || {
            RowFilter::new(permit, Arc::clone(&self.facts), &source.fields, matching).map(Arc::new)
        };
        if !matching.equals.is_empty() {
            return compile();
        }
        let mut filters = self.filters.lock();
        if let Some((_, filter)) = filters.iter().find(|(of, _)| Arc::ptr_eq(of, source)) {
            return Ok(Arc::clone(filter));
        }
        let filter = compile()?;
        filters.push((Arc::clone(source), Arc::clone(&filter)));
        Ok(filter)
    }
}

/// Whose facts: of the subject of a grant, or of a user of this side. They are kept apart, so that what a grant is
/// answered with never depends on what somebody else asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactsOf {
    /// The subject of a grant.
    Grant(GrantId),
    /// A user who asks their own gateway.
    Local(SubjectId),
}

impl FactsOf {
    /// Of whoever a question is asked for.
    #[must_use]
    pub fn basis(basis: &Basis) -> Self {
        match basis {
            Basis::Grant(entry) => Self::Grant(entry.grant.id),
            Basis::Local(local) => Self::Local(local.subject()),
        }
    }
}

/// Held while the facts of a grant are fetched, so that one fetch serves all who wait.
type Slot = Arc<tokio::sync::Mutex<()>>;

/// The facts of each grant, and each local user, that was used lately.
pub struct FactsCache {
    slots: Mutex<HashMap<FactsOf, Slot>>,
    recent: Mutex<HashMap<FactsOf, Arc<FetchedFacts>>>,
    keep: Duration,
    clock: Arc<dyn Clock>,
}

/// Grants and users whose facts are kept at most; past that the oldest are dropped.
const MAX_KEPT: usize = 4096;

impl FactsCache {
    /// A cache that keeps facts for `keep`, counted from when they were asked for.
    #[must_use]
    pub fn new(keep: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            slots: Mutex::new(HashMap::new()),
            recent: Mutex::new(HashMap::new()),
            keep,
            clock,
        }
    }

    /// The facts at an effective revision: kept ones while fresh, else `fetch`ed.
    ///
    /// # Errors
    /// What `fetch` fails with.
    pub async fn facts<F>(
        &self,
        of: FactsOf,
        revision: EffectiveRevision,
        metrics: &Metrics,
        fetch: impl FnOnce() -> F,
    ) -> Result<Arc<FetchedFacts>, GatewayError>
    where
        F: Future<Output = Result<NativeFacts, GatewayError>>,
    {
        if let Some(fresh) = self.fresh(of, revision) {
            return Ok(fresh);
        }
        let slot = Arc::clone(self.slots.lock().entry(of).or_default());
        let one = slot.lock().await;
        if let Some(fresh) = self.fresh(of, revision) {
            return Ok(fresh);
        }
        let sent_at = self.clock.boot_nanos();
        let facts = fetch().await?;
        let elapsed = self.clock.boot_nanos().saturating_sub(sent_at);
        metrics.facts_fetched(Duration::from_nanos(elapsed));
        let fetched = Arc::new(FetchedFacts {
            facts: Arc::new(facts),
            filters: Mutex::new(Vec::new()),
            revision,
            sent_at,
        });
        self.keep(of, &fetched);
        drop(one);
        Ok(fetched)
    }

    fn fresh(&self, of: FactsOf, revision: EffectiveRevision) -> Option<Arc<FetchedFacts>> {
        let recent = self.recent.lock();
        let fetched = recent.get(&of)?;
        let age = self.clock.boot_nanos().saturating_sub(fetched.sent_at);
        (fetched.revision == revision && u128::from(age) < self.keep.as_nanos())
            .then(|| Arc::clone(fetched))
    }

    fn keep(&self, of: FactsOf, fetched: &Arc<FetchedFacts>) {
        let mut recent = self.recent.lock();
        if recent.len() >= MAX_KEPT && !recent.contains_key(&of) {
            let now = self.clock.boot_nanos();
            let keep = self.keep.as_nanos();
            recent.retain(|_, kept| u128::from(now.saturating_sub(kept.sent_at)) < keep);
            if recent.len() >= MAX_KEPT {
                recent.clear();
            }
            self.slots
                .lock()
                .retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        recent.insert(of, Arc::clone(fetched));
    }
}

/// Fetches the facts of the subject that `auth` stands for.
///
/// # Errors
/// [`GatewayError`]; facts that are not whole are [`GatewayError::Malformed`].
pub async fn fetch(
    client: &GatewayClient,
    mapping: &Mapping,
    authority: &Authority<'_>,
    auth: &SubjectAuth,
    tag: RequestTag<'_>,
) -> Result<NativeFacts, GatewayError> {
    let fetcher = Fetcher {
        client,
        authority,
        auth,
        tag,
    };
    match &mapping.facts {
        FactsMap::Single(single) => fetcher.single(single).await,
        FactsMap::Lists(lists) => fetcher.lists(lists).await,
    }
}

struct Fetcher<'a> {
    client: &'a GatewayClient,
    authority: &'a Authority<'a>,
    auth: &'a SubjectAuth,
    tag: RequestTag<'a>,
}

impl Fetcher<'_> {
    async fn page(&self, target: &str) -> Result<Value, GatewayError> {
        let answer = self
            .client
            .ask(self.authority, target, self.auth, self.tag)
            .await;
        // An endpoint of facts that is not there is a wrong mapping, not an absent row.
        let answer = answer.map_err(|error| match error {
            GatewayError::NotFound => {
                GatewayError::Malformed(format!("it has no `{}`", path_of(target)))
            }
            other => other,
        })?;
        let body = answer.collect(PAGE_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| malformed("its facts are not JSON"))
    }

    async fn single(&self, map: &SingleFacts) -> Result<NativeFacts, GatewayError> {
        let path = map
            .path
            .fill(None, None)
            .ok_or_else(|| malformed("the path of facts has a placeholder"))?;
        let mut facts = NativeFacts::builder();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut target = format!("{path}?{}={}", map.limit, map.page);
            if let Some(after) = &after {
                let after = utf8_percent_encode(after, NON_ALPHANUMERIC);
                target.push_str(&format!("&{}={after}", map.after));
            }
            let page = self.page(&target).await?;
            add_teams(&mut facts, &map.teams, &page)?;
            add_projects(&mut facts, &map.projects, &page)?;
            add_missions(&mut facts, &map.missions, &page)?;
            after = match member(&page, &map.next) {
                None | Some(Value::Null) => return Ok(facts.build()),
                Some(Value::String(next)) => Some(next.clone()),
                Some(_) => {
                    return Err(malformed(
                        "the position of the next page of facts is no string",
                    ));
                }
            };
        }
        Err(malformed("its facts have too many pages"))
    }

    async fn lists(&self, map: &ListedFacts) -> Result<NativeFacts, GatewayError> {
        let mut facts = NativeFacts::builder();
        for (list, add) in [
            (&map.teams, add_teams as Adder),
            (&map.projects, add_projects),
            (&map.missions, add_missions),
        ] {
            let path = list
                .path
                .fill(None, None)
                .ok_or_else(|| malformed("the path of facts has a placeholder"))?;
            let page = self.page(&path).await?;
            add(&mut facts, &list.entries, &page)?;
        }
        Ok(facts.build())
    }
}

type Adder = fn(&mut NativeFactsBuilder, &FactEntries, &Value) -> Result<(), GatewayError>;

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

fn malformed(what: &str) -> GatewayError {
    GatewayError::Malformed(what.to_owned())
}

fn member<'v>(value: &'v Value, path: &MemberPath) -> Option<&'v Value> {
    path.names().try_fold(value, |value, name| value.get(name))
}

fn entries<'v>(page: &'v Value, map: &FactEntries) -> Result<&'v Vec<Value>, GatewayError> {
    member(page, &map.rows)
        .and_then(Value::as_array)
        .ok_or_else(|| malformed("its facts lack a list that the mapping names"))
}

/// A member as an id: absent and null are none; anything but a usable string spoils the facts.
fn id<T>(
    entry: &Value,
    name: Option<&String>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, GatewayError> {
    match name.and_then(|name| entry.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match parse(text) {
            Some(id) => Ok(Some(id)),
            None => Err(malformed("its facts hold an unusable id")),
        },
        Some(_) => Err(malformed("its facts hold an id that is no string")),
    }
}

fn required<T>(found: Option<T>) -> Result<T, GatewayError> {
    found.ok_or_else(|| malformed("an entry of its facts has no id"))
}

fn refused(error: NativeFactsError) -> GatewayError {
    GatewayError::Malformed(error.to_string())
}

fn add_teams(
    facts: &mut NativeFactsBuilder,
    map: &FactEntries,
    page: &Value,
) -> Result<(), GatewayError> {
    for entry in entries(page, map)? {
        let team = required(id(entry, Some(&map.id), |text| {
            text.parse::<TeamId>().ok()
        })?)?;
        facts.team(team).map_err(refused)?;
    }
    Ok(())
}

fn add_projects(
    facts: &mut NativeFactsBuilder,
    map: &FactEntries,
    page: &Value,
) -> Result<(), GatewayError> {
    for entry in entries(page, map)? {
        let project = required(id(entry, Some(&map.id), |text| {
            text.parse::<ProjectId>().ok()
        })?)?;
        let of = ProjectFacts {
            team: id(entry, map.team.as_ref(), |text| text.parse::<TeamId>().ok())?,
            owner: id(entry, map.owner.as_ref(), |text| {
                text.parse::<UserId>().ok()
            })?,
        };
        facts.project(project, of).map_err(refused)?;
    }
    Ok(())
}

fn add_missions(
    facts: &mut NativeFactsBuilder,
    map: &FactEntries,
    page: &Value,
) -> Result<(), GatewayError> {
    for entry in entries(page, map)? {
        let mission = required(id(entry, Some(&map.id), |text| {
            text.parse::<MissionId>().ok()
        })?)?;
        let of = MissionFacts {
            project: id(entry, map.project.as_ref(), |text| {
                text.parse::<ProjectId>().ok()
            })?,
            team: id(entry, map.team.as_ref(), |text| text.parse::<TeamId>().ok())?,
            owner: id(entry, map.owner.as_ref(), |text| {
                text.parse::<UserId>().ok()
            })?,
        };
        facts.mission(mission, of).map_err(refused)?;
    }
    Ok(())
}
