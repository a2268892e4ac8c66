//! Jobs that one replica does for all.
//!
//! Invariant: a job is with one replica at a time, by the database's clock; who does not ask again in time, or leaves, has given it up,
//! and whoever asks next has it. It keeps work from being done twice; whatever must not happen twice is guarded by the store itself.

use std::time::Duration;

use super::{Replicas, millis};

/// What one replica does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Moving old rows of the audit log into the archive.
    Archive,
    /// Writing down what has expired, and forgetting what is long over.
    Expiry,
    /// Renewing the credentials that peers are asked with.
    Renewal,
    /// The revocation canary.
    Canary,
}

impl Job {
    /// Its name in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Expiry => "expiry",
            Self::Renewal => "renewal",
            Self::Canary => "canary",
        }
    }
}

/// How often a job that another replica does is asked for, at least.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What is known of a job until a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    ours: bool,
    until: u64,
}

impl Replicas {
    /// Whether this replica is to do `job` now, and for so long. It is not while it does not know.
    pub async fn does(&self, job: Job, period: Duration) -> bool {
        if self.is_alone() {
            return true;
        }
        if self.directory.is_fenced() {
            return false;
        }
        let member = &self.member;
        let now = member.clock.boot_nanos();
        let known = self.jobs.lock().get(job.as_str()).copied();
        if let Some(Turn { ours, until }) = known
            && now < until
        {
            return ours;
        }
        let taking = member
            .store
            .take_job(job.as_str(), member.id, millis(period));
        match tokio::time::timeout(member.terms.fence, taking).await {
            Ok(Ok(ours)) => {
                // Ours for half of the time that it was given for; another's until it may have ended.
                let again = if ours {
                    period / 2
                } else {
                    (period / 4).min(ASK_AGAIN)
                };
                let again = u64::try_from(again.as_nanos()).unwrap_or(u64::MAX);
                let until = now.saturating_add(again);
                self.jobs.lock().insert(job.as_str(), Turn { ours, until });
                ours
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, job = job.as_str(), "whose job it is could not be asked");
                false
            }
            Err(_) => false,
        }
    }
}
