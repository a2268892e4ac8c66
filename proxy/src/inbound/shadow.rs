//! The shadow of a policy: what a candidate would have decided of each question that was just decided.
//!
//! Invariant: nothing of it reaches an answer. It runs beside the decision, on the facts that the decision had, asks
//! nobody anything, and is one load of a flag when there is no candidate. Memory is bounded: so many grants are kept
//! ready and so many different differences are listed; what comes beyond is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use certs::clock::Clock;
use parking_lot::Mutex;
use policy::decision::Permit;
use policy::deny::Deny;
use policy::evaluate::{Admission, Admitted};
use policy::id::GrantId;
use policy::native::NativeFacts;
use policy::peer::PeerName;
use policy::reach::RowLimit;
use policy::request::AccessRequest;
use policy::shadow::{Difference, admission, permitted, search};
use policy::snapshot::{GrantEntry, Snapshot};
use policy::time::UnixMillis;

use crate::directory::{CandidatePolicy, Directory};
use crate::telemetry::Metrics;

/// Grants kept ready under the candidate.
const MAX_READY: usize = 4_096;
/// Different differences that are listed.
const MAX_LISTED: usize = 1_000;
/// A difference that is new is told in the log at most this often; the list has all.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Compares decisions with those of a candidate, when there is one.
pub struct PolicyShadow {
    is_on: AtomicBool,
    running: ArcSwapOption<Running>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

struct Running {
    candidate: CandidatePolicy,
    since: UnixMillis,
    ready: Mutex<HashMap<GrantId, Ready>>,
    seen: Mutex<Seen>,
}

/// A grant under the candidate, and the entry in force that it was made of.
struct Ready {
    of: Arc<GrantEntry>,
    alone: Arc<Snapshot>,
}

#[derive(Default)]
struct Seen {
    decisions: u64,
    differing: u64,
    listed: HashMap<(GrantId, Difference), Noted>,
    unlisted: u64,
    told_at: Option<u64>,
}

#[derive(Clone)]
struct Noted {
    peer: PeerName,
    count: u64,
    first: UnixMillis,
    last: UnixMillis,
}

/// What a shadow has found.
#[derive(Debug, Clone)]
pub struct ShadowFound {
    /// Names of the candidate's files.
    pub files: Vec<String>,
    /// Hash over them.
    pub hash: String,
    /// Since when it runs.
    pub since: UnixMillis,
    /// Decisions compared.
    pub decisions: u64,
    /// Those that the candidate would have made otherwise.
    pub differing: u64,
    /// The different differences, the most frequent first.
    pub differences: Vec<FoundDifference>,
    /// Decisions whose difference is not in the list, since that is full.
    pub unlisted: u64,
}

/// One difference, and how often it was seen.
#[derive(Debug, Clone)]
pub struct FoundDifference {
    /// The grant.
    pub grant: GrantId,
    /// Its peer.
    pub peer: PeerName,
    /// What differs.
    pub difference: Difference,
    /// How often.
    pub count: u64,
    /// First seen.
    pub first: UnixMillis,
    /// Last seen.
    pub last: UnixMillis,
}

impl PolicyShadow {
    /// None runs yet.
    #[must_use]
    pub fn new(directory: Arc<Directory>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            running: ArcSwapOption::empty(),
            directory,
            clock,
            metrics,
        }
    }

    /// Compares with this candidate from now on; what an earlier one has found is forgotten.
    pub fn start(&self, candidate: CandidatePolicy) {
        tracing::info!(hash = ?candidate.hash, "a candidate policy is compared with the one in force");
        self.running.store(Some(Arc::new(Running {
            candidate,
            since: self.now(),
            ready: Mutex::default(),
            seen: Mutex::default(),
        })));
        self.is_on.store(true, Ordering::Release);
        self.metrics.shadow_runs(true);
    }

    /// Ends the comparison; gives what it has found, if one ran.
    pub fn end(&self) -> Option<ShadowFound> {
        self.is_on.store(false, Ordering::Release);
        self.metrics.shadow_runs(false);
        self.running.swap(None).map(|running| running.found())
    }

    /// Hash of the candidate, if one runs.
    #[must_use]
    pub fn runs(&self) -> Option<String> {
        let running = self.running.load_full()?;
        Some(running.candidate.hash.clone())
    }

    /// What the one that runs has found so far.
    #[must_use]
    pub fn found(&self) -> Option<ShadowFound> {
        self.running.load_full().map(|running| running.found())
    }

    /// Compares what came of a question before its facts.
    pub fn admission(
        &self,
        entry: &Arc<GrantEntry>,
        request: &AccessRequest<'_>,
        decided: Result<&Admission, &Deny>,
    ) {
        // Rows that were admitted are compared when it is known how far.
        if matches!(decided, Ok(Admission::Rows(_))) {
            return;
        }
        self.compare(entry, |alone| {
            Vec::from_iter(admission(alone, request, decided))
        });
    }

    /// Compares what came of a search before its facts.
    pub fn search(
        &self,
        entry: &Arc<GrantEntry>,
        request: &AccessRequest<'_>,
        named: Option<&[String]>,
        decided: Result<&[Admitted], &Deny>,
    ) {
        self.compare(entry, |alone| search(alone, request, named, decided));
    }

    /// Compares a permit; `limit` is what was asked for.
    pub fn permitted(&self, permit: &Permit, limit: Option<RowLimit>, facts: &NativeFacts) {
        let Some(entry) = permit.entry() else {
            return;
        };
        self.compare(entry, |alone| {
            let request = AccessRequest {
                grant: entry.grant.id,
                subject: entry.grant.subject,
                now: self.now(),
                verb: permit.verb().as_str(),
                resource: Some(permit.resource().as_str()),
                limit,
            };
            Vec::from_iter(permitted(alone, &request, facts, permit))
        });
    }

    fn compare(&self, entry: &Arc<GrantEntry>, with: impl FnOnce(&Snapshot) -> Vec<Difference>) {
        if !self.is_on.load(Ordering::Acquire) {
            return;
        }
        let Some(running) = self.running.load_full() else {
            return;
        };
        // A grant in force always holds together.
        if let Some(alone) = running.alone(&self.directory, entry) {
            let differences = with(&alone);
            self.note(&running, entry, differences);
        }
    }

    fn note(&self, running: &Running, entry: &GrantEntry, differences: Vec<Difference>) {
        let (now, at) = (self.now(), self.clock.boot_nanos());
        let mut seen = running.seen.lock();
        seen.decisions = seen.decisions.saturating_add(1);
        if differences.is_empty() {
            self.metrics.shadow_compared("same");
            return;
        }
        seen.differing = seen.differing.saturating_add(1);
        for difference in differences {
            self.metrics.shadow_compared(difference.change.as_str());
            seen.note(entry, difference, now, at);
        }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }
}

impl Seen {
    fn note(&mut self, entry: &GrantEntry, difference: Difference, now: UnixMillis, at: u64) {
        let key = (entry.grant.id, difference);
        if let Some(noted) = self.listed.get_mut(&key) {
            noted.count = noted.count.saturating_add(1);
            noted.last = now;
            return;
        }
        if self.listed.len() >= MAX_LISTED {
            self.unlisted = self.unlisted.saturating_add(1);
            return;
        }
        let difference = &key.1;
        let every = u64::try_from(TELL_EVERY.as_nanos()).unwrap_or(u64::MAX);
        if self
            .told_at
            .is_none_or(|told| at.saturating_sub(told) >= every)
        {
            self.told_at = Some(at);
            tracing::info!(
                grant = %entry.grant.id,
                peer = %entry.peer.name,
                verb = difference.verb.map_or("", |verb| verb.as_str()),
                resource = difference.resource.map_or("", |resource| resource.as_str()),
                now = %difference.now,
                then = %difference.then,
                "the candidate policy would have decided otherwise; `policy shadow` lists what it has found"
            );
        }
        let noted = Noted {
            peer: entry.peer.name.clone(),
            count: 1,
            first: now,
            last: now,
        };
        self.listed.insert(key, noted);
    }
}

impl Running {
    /// The grant under the candidate, made once for each entry that is in force.
    fn alone(&self, directory: &Directory, entry: &Arc<GrantEntry>) -> Option<Arc<Snapshot>> {
        let id = entry.grant.id;
        if let Some(ready) = self.ready.lock().get(&id)
            && Arc::ptr_eq(&ready.of, entry)
        {
            return Some(Arc::clone(&ready.alone));
        }
        let alone = Arc::new(directory.alone(&self.candidate, entry).ok()?);
        let mut ready = self.ready.lock();
        if ready.len() >= MAX_READY && !ready.contains_key(&id) {
            ready.clear();
        }
        let made = Ready {
            of: Arc::clone(entry),
            alone: Arc::clone(&alone),
        };
        ready.insert(id, made);
        Some(alone)
    }

    fn found(&self) -> ShadowFound {
        let seen = self.seen.lock();
        let mut differences: Vec<_> = seen
            .listed
            .iter()
            .map(|((grant, difference), noted)| FoundDifference {
                grant: *grant,
                peer: noted.peer.clone(),
                difference: difference.clone(),
                count: noted.count,
                first: noted.first,
                last: noted.last,
            })
            .collect();
        differences.sort_by(|a, b| {
            b.count
                .cmp(&a.count)
                .then_with(|| (a.first, a.grant).cmp(&(b.first, b.grant)))
                .then_with(|| a.difference.then.cmp(&b.difference.then))
        });
        ShadowFound {
            files: self.candidate.files.clone(),
            hash: self.candidate.hash.clone(),
            since: self.since,
            decisions: seen.decisions,
            differing: seen.differing,
            differences,
            unlisted: seen.unlisted,
        }
    }
}
