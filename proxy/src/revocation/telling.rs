//! Tells another authority what was revoked here.
//!
//! Invariant: a revocation never waits for the authority and never fails because of it. Until the authority has it, the row
//! of the certificate says that it has not, across restarts; the count of those is in `status`, `doctor` and a metric.

use std::sync::Arc;
use std::time::Duration;

use certs::crl::IssuerKey;
use certs::identity::issued_by;
use certs::{Clock, StepCa};
use policy::time::UnixMillis;
use tokio::sync::watch;
use uuid::Uuid;

use crate::directory::Directory;
use crate::store::{Store, StoreError, UntoldRevocation};
use crate::telemetry::Metrics;

/// How often it is looked for what has yet to be told.
const LOOK: Duration = Duration::from_secs(1);
/// Revocations that are told in one go.
const BATCH: u32 = 64;
/// The longest pause between two tries, milliseconds.
const LONGEST_PAUSE: i64 = 300_000;

/// Tells a step-ca.
pub struct Telling {
    /// Whom.
    pub step: Arc<StepCa>,
    /// The issuer of certificates that the step-ca has not issued: our own authority's.
    pub own: Option<IssuerKey>,
    /// What.
    pub store: Arc<dyn Store>,
    /// When something may have been revoked.
    pub directory: Arc<Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How many are waiting.
    pub metrics: Arc<Metrics>,
}

impl Telling {
    /// Tells until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut revisions = self.directory.revisions();
        loop {
            let told = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                told = self.tell_due() => told,
            };
            match told {
                // There may be more.
                Ok(told) if told == BATCH => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "what the authority has yet to be told could not be read")
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = revisions.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Tells what is due; how many went through.
    async fn tell_due(&self) -> Result<u32, StoreError> {
        let now = self.now();
        let mut told = 0;
        for one in self.store.untold_revocations(now, BATCH).await? {
            if !is_due(&one, self.now()) {
                continue;
            }
            let failure = self.tell(&one).await.err();
            if let Some(why) = &failure {
                if one.tries == 0 {
                    tracing::error!(
                        serial = one.serial,
                        why,
                        "the authority could not be told of a revocation; it holds here, and telling is tried again"
                    );
                }
            } else {
                told += 1;
                tracing::info!(
                    serial = one.serial,
                    "the authority was told of a revocation"
                );
            }
            let at = self.now();
            self.store
                .record_told(&one.fingerprint, at, failure.as_deref())
                .await?;
            if failure.is_some() {
                // The others would fail for the same reason.
                break;
            }
        }
        let left = self.store.count_untold(self.now()).await?;
        self.metrics.revocation.untold(left);
        Ok(told)
    }

    async fn tell(&self, one: &UntoldRevocation) -> Result<(), String> {
        // What cannot be read was never accepted as issued.
        let Some((issuer, serial)) = issued_by(&one.der) else {
            return Ok(());
        };
        if Some(issuer) == self.own {
            return Ok(());
        }
        let now = self.clock.unix_seconds();
        self.step
            .revoke(
                &serial,
                one.reason,
                "revoked by mosaic-federation",
                Uuid::new_v4(),
                now,
            )
            .await
            .map_err(|error| error.to_string())
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }
}

/// Whether it is time for the next try: at once, then with pauses that double.
fn is_due(one: &UntoldRevocation, now: UnixMillis) -> bool {
    let Some(tried_at) = one.tried_at else {
        return true;
    };
    let pause = 1_000_i64
        .checked_shl(one.tries.min(16))
        .map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
    // A clock that was set back must not hold it up.
    now >= tried_at.saturating_add(pause) || now < tried_at
}

#[cfg(test)]
mod tests {
    use certs::crl::RevocationReason;

    use super::*;

    #[test]
    fn pauses_double_and_end_at_five_minutes() {
        let one = |tries, tried_at| UntoldRevocation {
            fingerprint: [0; 32],
            serial: String::new(),
            der: Vec::new(),
            revoked_at: UnixMillis(0),
            reason: RevocationReason::Unspecified,
            tries,
            tried_at: Some(UnixMillis(tried_at)),
            failure: None,
        };
        let t = 1_000_000;
        for (tries, pause) in [
            (1, 2_000),
            (2, 4_000),
            (8, 256_000),
            (9, 300_000),
            (u32::MAX, 300_000),
        ] {
            assert!(
                !is_due(&one(tries, t), UnixMillis(t + pause - 1)),
                "{tries}"
            );
            assert!(is_due(&one(tries, t), UnixMillis(t + pause)), "{tries}");
        }
        assert!(
            is_due(&one(9, t), UnixMillis(t - 1)),
            "the clock was set back"
        );
        let never = UntoldRevocation {
            tried_at: None,
            ..one(0, 0)
        };
        assert!(is_due(&never, UnixMillis(0)));
    }
}
