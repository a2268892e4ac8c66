//! When a stored credential is renewed: the schedule of `certs::rotation` on what the store knows of it.

use certs::rotation::{Jitter, Life, Next, Tries};
use policy::time::UnixMillis;

use crate::store::{OutboundCredential, RenewalTries};

/// When a credential is renewed.
#[derive(Debug, Clone, Copy)]
pub struct RenewalPlan {
    life: Life,
    jitter: Jitter,
}

impl RenewalPlan {
    /// The plan for a stored credential. Its jitter is drawn from its id, so that a restart does not draw another.
    #[must_use]
    pub fn of(credential: &OutboundCredential) -> Self {
        let stored = credential.created_at.saturating_add(credential.skew_ms);
        let [.., a, b, c, d] = *credential.id.as_bytes();
        Self {
            life: Life {
                begins: credential.began_at.unwrap_or(stored).0,
                ends: credential.not_after.0,
            },
            jitter: Jitter::new(u32::from_be_bytes([a, b, c, d])),
        }
    }

    /// Whether another try at `now`, by the peer's clock, leaves the last one behind long enough, due or not.
    #[must_use]
    pub fn may_try(&self, tries: &RenewalTries, now: i64) -> bool {
        let Some(last) = tries.tried_at.filter(|_| tries.failures > 0) else {
            return true;
        };
        let wait = self.life.back_off(tries.failures, self.jitter);
        now >= last.0.min(now).saturating_add(wait)
    }

    /// When it is tried next, after these tries, by the peer's clock, which shows `now`; `None` when it is too late.
    #[must_use]
    pub fn next(&self, tries: &RenewalTries, now: i64) -> Option<UnixMillis> {
        let tries = Tries {
            failures: tries.failures,
            last_at: tries.tried_at.map(|at| at.0),
        };
        match self.life.next(tries, self.jitter, now) {
            Next::At(at) => Some(UnixMillis(at)),
            Next::Over => None,
        }
    }
}
