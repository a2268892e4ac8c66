//! The limits of the serving side, made from the settings, and the task that forgets what is over.
//!
//! Invariant: forgetting changes no decision; it only gives memory back.

use std::sync::Arc;
use std::time::Duration;

use certs::Clock;
use policy::time::UnixMillis;
use tokio::sync::watch;

use super::{Base, StartError};
use crate::config::Tier;
use crate::inbound::budget::today;
use crate::limit::{
    InFlight, Limiter, Limits, LocalLimiter, Quota, SharedLimiter, SourceLimits, SourceQuotas,
    revalidation,
};
use crate::store::{Store, StoreError};
use crate::tier;

/// Between two rounds of forgetting.
const SWEEP: Duration = Duration::from_secs(30);
/// How long a session that is over stays in `session list`, milliseconds.
const SESSIONS_KEPT: i64 = 7 * 86_400_000;
/// Rows of earlier days, or sessions, forgotten in one transaction, so that it holds the writer only briefly.
const FORGOTTEN_AT_ONCE: u32 = 5_000;

/// The limits, and the limiter of this process among them.
///
/// # Errors
/// When the address of the shared limits cannot be used.
pub(super) fn limits(base: &Base) -> Result<(Arc<Limits>, Arc<LocalLimiter>), StartError> {
    let limits = &base.config.limits;
    let quotas = SourceQuotas {
        handshakes: Quota::of(limits.handshakes),
        failures: Quota::of(limits.failed_authentications),
    };
    let sources = |listener| {
        SourceLimits::new(
            listener,
            quotas,
            Arc::clone(&base.clock),
            Arc::clone(&base.metrics),
        )
    };
    let limiter = Arc::new(LocalLimiter::new(Arc::clone(&base.clock)));
    let deciding: Arc<dyn Limiter> = match &base.config.tier {
        Tier::Embedded => Arc::clone(&limiter) as _,
        Tier::Federated(servers) => {
            let options = tier::valkey(&servers.valkey).map_err(StartError::Limits)?;
            Arc::new(SharedLimiter::new(
                options,
                Arc::clone(&limiter),
                Arc::clone(&base.clock),
                Arc::clone(&base.metrics),
            ))
        }
    };
    let limits = Limits {
        limiter: deciding,
        in_flight: InFlight::new(limits.peer_concurrency),
        federation: sources("federation"),
        enrollment: sources("enrollment"),
        revalidation: revalidation(base.config.lease.duration),
    };
    Ok((Arc::new(limits), limiter))
}

/// Forgets grants and addresses that owe nothing, rows seen on earlier days, and sessions that are over, until stopped.
pub(super) async fn sweep(
    limits: Arc<Limits>,
    limiter: Arc<LocalLimiter>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        limiter.sweep();
        limits.federation.sweep();
        limits.enrollment.sweep();
        // Yesterday is kept, so that a clock set back a little finds what it had.
        let before = today(&*clock).saturating_sub(1);
        let rows = || store.forget_rows_seen(before, FORGOTTEN_AT_ONCE);
        forget(&stop, "rows seen on earlier days", rows).await;
        let over = UnixMillis(clock.unix_millis().saturating_sub(SESSIONS_KEPT));
        let sessions = || store.forget_sessions(over, FORGOTTEN_AT_ONCE);
        forget(&stop, "sessions that are over", sessions).await;
    }
}

/// Forgets a part at a time until nothing is left.
async fn forget<F>(stop: &watch::Receiver<bool>, what: &'static str, part: impl Fn() -> F)
where
    F: Future<Output = Result<u64, StoreError>>,
{
    while !*stop.borrow() {
        match part().await {
            Ok(count) if count == u64::from(FORGOTTEN_AT_ONCE) => {}
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, what, "could not be forgotten"),
        }
    }
}
