//! Waiting with a limit.
//!
//! Invariant: nothing that was ready is ever late. The timer is only made when there is something to wait for, since most
//! of what is waited for here has arrived already.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Sleep;

/// The limit passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

/// What `future` comes to, if it does within `limit`.
///
/// # Errors
/// [`Late`]; the future was dropped.
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Late> {
    let mut future = pin!(future);
    let mut timer = pin!(None::<Sleep>);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| Err(Late)),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_ready_is_never_late_and_what_never_is_is() {
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Ok(1));
        let soon = tokio::task::yield_now();
        assert_eq!(within(Duration::from_secs(60), soon).await, Ok(()));
        let never = std::future::pending::<()>();
        assert_eq!(within(Duration::from_millis(1), never).await, Err(Late));
    }
}
