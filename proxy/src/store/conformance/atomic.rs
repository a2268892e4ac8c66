//! A change that is cut off is whole or absent.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::super::Store;
use super::fixture::*;

/// Runs a future until it is done or has been pending `times` times, then drops it; whether it was done.
pub(in crate::store) async fn cut_off<F: Future>(future: F, times: usize) -> bool {
    let mut future = pin!(future);
    let mut pending = 0;
    poll_fn(|context| {
        if future.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        pending += 1;
        if pending > times {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}

pub(super) async fn a_call_cut_off_anywhere_is_whole_or_absent(store: &dyn Store) {
    let (mut done, mut cut) = (0, 0);
    for n in 0..120u64 {
        let times = usize::try_from(n % 30).unwrap();
        let act = act(n);
        if cut_off(store.create_grant(&act, new_grant(n)), times).await {
            done += 1;
        } else {
            cut += 1;
        }
        // Takes its turn behind whatever the dropped call left under way.
        store.health().await.unwrap();
        let image = store.load(START).await.unwrap();
        let acts = acts(store).await;
        assert_eq!(image.grants.len(), acts.len(), "cut off after {times}");
        assert_eq!(image.revision, u64::try_from(acts.len()).unwrap());
        assert!(acts.iter().map(|act| act.0).eq(1..=image.revision));
        assert_eq!(image.peers.len(), usize::from(!image.grants.is_empty()));
    }
    assert!(
        done > 0 && cut > 0,
        "{done} done, {cut} cut off: the law was not tried"
    );
}
