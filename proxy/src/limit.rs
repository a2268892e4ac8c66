//! How much may be asked: the rate of a grant, the requests of a peer under way, the handshakes and
//! failed authentications of a source address.
//!
//! Invariant: a request that is refused here has taken nothing, and its wait is exact. Nothing that
//! one grant, peer or address does counts against another one.
//!
//! [`Limiter`] is what a limiter shared by several replicas implements too: it takes all buckets of
//! a decision at once, so that one script decides; its answer is in spans and not in instants, so
//! that only its own clock counts; and it may wait. Distinct rows a day are counted in the store,
//! see `inbound/budget.rs`.

pub mod flight;
pub mod gcra;
pub mod local;
pub mod shared;
pub mod source;
pub mod valkey;

use std::future::Ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use policy::deny::DenyCode;
use policy::id::GrantId;
use policy::rate::Rate;
use policy::snapshot::GrantEntry;

pub use flight::{InFlight, Slot};
pub use gcra::{Quota, Standing};
pub use local::LocalLimiter;
pub use shared::SharedLimiter;
pub use source::{SourceLimits, SourceQuotas};
pub use valkey::ValkeyOptions;

/// Calls for `capabilities` that a lease pays for by itself (specification, section 7).
const REVALIDATIONS: u32 = 2;
/// Renewals of certificates that a grant may ask for at once, and in each [`RENEWAL_WINDOW`]. One is enough for most of a
/// life; further ones are repeats after a lost answer.
const RENEWALS: u32 = 10;
const RENEWAL_WINDOW: Duration = Duration::from_secs(60);
/// What a peer is told when too many of its requests are under way (specification, section 7).
const CONCURRENCY_WAIT: Duration = Duration::from_secs(1);

/// What a bucket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Questions of every kind.
    Questions,
    /// `capabilities`, by which a lease is renewed.
    Revalidation,
    /// `renew`, by which a certificate is renewed.
    Renewal,
}

/// Whose bucket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketKey {
    /// The grant.
    pub grant: GrantId,
    /// What it is for.
    pub purpose: Purpose,
}

/// A bucket and its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Whose.
    pub key: BucketKey,
    /// How much it holds.
    pub quota: Quota,
}

/// What drawing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The bucket that gave, by its place in the list; `None` when none had one to give.
    pub from: Option<usize>,
    /// How the last bucket of the list stands now.
    pub standing: Standing,
    /// How long until one of the buckets has one to give; zero when one gave.
    pub retry_in: Duration,
}

/// An answer that is there, or is waited for.
pub type Deciding<'a, T> = Either<Ready<T>, BoxFuture<'a, T>>;

/// Keeps the buckets of grants.
pub trait Limiter: Send + Sync {
    /// Draws one from the first of these buckets that has one to give, atomically for each bucket;
    /// when none has, nothing is taken from any.
    fn draw<'a>(&'a self, limits: &'a [Limited]) -> Deciding<'a, Drawn>;

    /// How a bucket stands, without taking anything.
    fn look(&self, limit: Limited) -> Deciding<'_, Standing>;

    /// Buckets kept in this process.
    fn keys(&self) -> usize;
}

/// The limits of the serving side.
pub struct Limits {
    /// Buckets of grants.
    pub limiter: Arc<dyn Limiter>,
    /// Requests of peers under way.
    pub in_flight: Arc<InFlight>,
    /// Addresses that connect to the federation listener.
    pub federation: Arc<SourceLimits>,
    /// Addresses that connect to the enrollment listener.
    pub enrollment: Arc<SourceLimits>,
    /// What renewing leases may take by itself.
    pub revalidation: Quota,
}

/// A request that may go on.
#[derive(Debug)]
pub struct Entered {
    /// Counts as one of its peer's until dropped.
    pub slot: Slot,
    /// How the grant's bucket stands after it.
    pub standing: Standing,
}

/// A request that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: DenyCode,
    /// After how long the next one is accepted.
    pub retry_in: Duration,
    /// How the grant's bucket stands; `None` when it was not looked at.
    pub standing: Option<Standing>,
}

impl Limits {
    /// Lets in one request of an authenticated grant, or refuses it and takes nothing.
    ///
    /// `capabilities` ([`Purpose::Revalidation`]) has a bucket of its own first, `renew` ([`Purpose::Renewal`]) only one
    /// of its own: questions must not keep a certificate from being renewed, nor renewals take from them.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn enter(&self, entry: &GrantEntry, purpose: Purpose) -> Result<Entered, Refused> {
        // The slot comes first, since it can be given back.
        let Some(slot) = self.in_flight.enter(entry.peer.id) else {
            return Err(Refused {
                code: DenyCode::ConcurrencyExceeded,
                retry_in: CONCURRENCY_WAIT,
                standing: None,
            });
        };
        let grant = entry.grant.id;
        let own = |purpose, quota| Limited {
            key: BucketKey { grant, purpose },
            quota,
        };
        let limits = [
            own(Purpose::Revalidation, self.revalidation),
            questions(grant, entry.limits.rate),
            own(
                Purpose::Renewal,
                Quota::per_window(RENEWALS, RENEWAL_WINDOW),
            ),
        ];
        let range = match purpose {
            Purpose::Revalidation => 0..2,
            Purpose::Questions => 1..2,
            Purpose::Renewal => 2..3,
        };
        let drawn = self
            .limiter
            .draw(limits.get(range).unwrap_or_default())
            .await;
        match drawn.from {
            Some(_) => Ok(Entered {
                slot,
                standing: drawn.standing,
            }),
            None => Err(Refused {
                code: DenyCode::RateExceeded,
                retry_in: drawn.retry_in,
                standing: Some(drawn.standing),
            }),
        }
    }

    /// Requests a grant may make at once at this moment.
    pub async fn remaining(&self, grant: GrantId, rate: Rate) -> u32 {
        self.limiter.look(questions(grant, rate)).await.remaining
    }
}

/// The bucket that every question draws from.
fn questions(grant: GrantId, rate: Rate) -> Limited {
    Limited {
        key: BucketKey {
            grant,
            purpose: Purpose::Questions,
        },
        quota: Quota::of(rate),
    }
}

/// What renewing leases of this length may take by itself.
#[must_use]
pub fn revalidation(lease: Duration) -> Quota {
    Quota::per_window(REVALIDATIONS, lease)
}

/// A wait in whole seconds, rounded up and never 0.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    let up = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(up).max(1)
}

#[cfg(test)]
mod tests;
