//! The task that moves old audit rows into the archive once a day.
//!
//! Invariant: it moves only rows that are older than the settings say, by the clock of the process; a run that fails is tried again
//! within the hour and shows in `status`, `doctor` and a metric.

use std::sync::Arc;
use std::time::Duration;

use policy::time::UnixMillis;
use tokio::sync::watch;

use crate::admin::{Control, Due};
use crate::replicas::Job;
use crate::store::Actor;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(3600);
/// For how long a replica that moves rows goes on doing so.
const TURN: Duration = Duration::from_secs(5400);
/// Between two runs, milliseconds.
const DAY: i64 = 86_400_000;

/// Runs at once and then once a day until stopped; not at all when the settings name no age.
pub(super) async fn daily(control: Arc<Control>, mut stop: watch::Receiver<bool>) {
    let Some(age) = control.config.audit.archive_after else {
        return;
    };
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    loop {
        let now = control.now();
        // Another replica's rows are these rows: it has done for all what is done here otherwise.
        if control.replicas.does(Job::Archive, TURN).await
            && is_due(control.audit.archive.last_success(), now)
        {
            let due = Due {
                before: now.saturating_add(age.saturating_neg()),
                now,
            };
            run(&control, due, &stop).await;
        }
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(LOOK, stopped).await.is_ok() {
            return;
        }
    }
}

/// Whether a day has passed since the last run, or the clock was set back.
fn is_due(last: i64, now: UnixMillis) -> bool {
    !(0..DAY).contains(&now.since(UnixMillis(last)))
}

async fn run(control: &Control, due: Due, stop: &watch::Receiver<bool>) {
    let is_stopped = || *stop.borrow();
    let mut rows = 0_u64;
    while !is_stopped() {
        match control
            .move_rows(due, &Actor::Sidecar("archive"), &is_stopped)
            .await
        {
            Ok(moved) => {
                let these: u64 = moved.files.iter().map(|file| file.rows).sum();
                rows = rows.saturating_add(these);
                if !moved.more {
                    break;
                }
            }
            Err(error) => {
                return tracing::error!(%error, "old audit rows could not be moved into the archive; trying again within the hour");
            }
        }
    }
    if rows > 0 {
        tracing::info!(rows, before = %due.before, "old audit rows were moved into the archive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_due_after_a_day_and_when_the_clock_was_set_back() {
        let now = UnixMillis(10 * DAY);
        assert!(is_due(0, now), "never ran");
        assert!(!is_due(now.0, now));
        assert!(!is_due(now.0 - DAY + 1, now));
        assert!(is_due(now.0 - DAY, now));
        assert!(is_due(now.0 + 1, now));
    }
}
