//! The task that sends the revocation canary every now and then.
//!
//! Invariant: what a killed process left is ended at the start, also when the canary is off by now. A round that a stop cuts
//! off is ended by the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::admin::Control;

/// Runs until stopped; cleans up only, where `every` is `None`.
pub(super) async fn keep(
    control: Arc<Control>,
    every: Option<Duration>,
    mut stop: watch::Receiver<bool>,
) {
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
