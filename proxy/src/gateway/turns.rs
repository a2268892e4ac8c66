//! How many requests ask the gateway at once, and how many wait for their turn.
//!
//! Invariant: a request takes one turn for all its questions, before the first of them, so that requests that hold one never wait
//! for another: what waits always gets on or is told so. A gateway that slows down costs a bounded number of requests and no memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::GatewayError;

/// Bounds of the turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnLimits {
    /// Requests that ask at once.
    pub at_once: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Longest wait.
    pub patience: Duration,
}

/// The turns of one gateway.
#[derive(Debug)]
pub struct Turns {
    free: Semaphore,
    waiting: AtomicUsize,
    limits: TurnLimits,
}

/// The right of one request to ask; dropping it lets the next one ask.
#[derive(Debug)]
pub struct Turn<'t>(#[allow(dead_code, reason = "held for its end")] SemaphorePermit<'t>);

/// One that waits.
struct Waiting<'t>(&'t AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Turns {
    /// All of them, free.
    #[must_use]
    pub fn new(limits: TurnLimits) -> Self {
        Self {
            free: Semaphore::new(limits.at_once.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            limits,
        }
    }

    /// A turn, first come, first served.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] when too many wait already, or it took too long.
    pub async fn take(&self) -> Result<Turn<'_>, GatewayError> {
        if let Ok(turn) = self.free.try_acquire() {
            return Ok(Turn(turn));
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.limits.waiting {
            return Err(GatewayError::Busy);
        }
        let turn = tokio::time::timeout(self.limits.patience, self.free.acquire()).await;
        drop(waiting);
        match turn {
            Ok(Ok(turn)) => Ok(Turn(turn)),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(GatewayError::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;

    fn turns(at_once: usize, waiting: usize, patience: Duration) -> Arc<Turns> {
        Arc::new(Turns::new(TurnLimits {
            at_once,
            waiting,
            patience,
        }))
    }

    #[tokio::test]
    async fn so_many_ask_so_many_wait_and_no_more() {
        let turns = turns(2, 1, Duration::from_secs(60));
        let (one, _two) = (turns.take().await.unwrap(), turns.take().await.unwrap());
        let third = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take().await.map(drop) }
        });
        while turns.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            assert_eq!(turns.take().await.unwrap_err(), GatewayError::Busy);
        }
        drop(one);
        assert_eq!(third.await.unwrap(), Ok(()));
        turns.take().await.unwrap();
        assert_eq!(turns.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_who_gives_up_leaves_its_place() {
        let turns = turns(1, 1, Duration::from_millis(1));
        let kept = turns.take().await.unwrap();
        assert_eq!(turns.take().await.unwrap_err(), GatewayError::Busy);
        drop(tokio::time::timeout(Duration::ZERO, turns.take()).await);
        assert_eq!(turns.waiting.load(Ordering::Acquire), 0);
        drop(kept);
        turns.take().await.unwrap();
    }
}
