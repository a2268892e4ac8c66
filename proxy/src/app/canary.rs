//! The task that sends the revocation canary every now and then.
//!
//! Invariant: what a killed process left is ended at the start, also when the canary is off by now. A round that a stop cuts
//! off is ended by the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::Control;
use crate::replicas::Job;

/// For how long a replica that sends it goes on doing so.
const TURN: Duration = Duration::from_secs(60);
/// How often another one asks.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until stopped; cleans up only, where `every` is `None`.
pub(super) async fn keep(
    control: Arc<Control>,
    every: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) {
    // One replica's is enough: it tries them all, since its act returns when the others are done.
    tokio::select! {
        () = turn(&control) => {}
        _ = stop.wait_for(|stop| *stop) => return,
    }
    tokio::select! {
        cleaned = control.clean_up_canary() => {
            if let Err(error) = cleaned {
                tracing::warn!(%error, "what the revocation canary left could not be ended");
            }
        }
        _ = stop.wait_for(|stop| *stop) => return,
    }
    let Some(every) = every else {
        return;
    };
    loop {
        tokio::select! {
            () = turn(&control) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        tokio::select! {
            // The outcome is counted, logged and shown by itself.
            _ = control.run_canary() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(every, stopped).await.is_ok() {
            return;
        }
    }
}

/// Waits until it is this replica's.
async fn turn(control: &Control) {
    while !control.replicas.does(Job::Canary, TURN).await {
        tokio::time::sleep(LOOK).await;
    }
}
