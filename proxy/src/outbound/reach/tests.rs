//! Reaching a peer: places, waits and the breaker together.
#![allow(clippy::unwrap_used)]

use super::super::reaches::Reaches;
use super::*;
use certs::SystemClock;
use certs::testing::ManualClock;

fn reach(places: usize) -> (Reaches, Arc<PeerReach>) {
    let rules = ReachRules {
        places,
        ..ReachRules::default()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let reaches = Reaches::new(rules, Arc::new(SystemClock), metrics);
    let work = reaches.of(&name("work"));
    (reaches, work)
}

fn name(text: &str) -> PeerName {
    PeerName::parse(text).unwrap()
}

fn within(time: Duration) -> u64 {
    SystemClock.boot_nanos() + u64::try_from(time.as_nanos()).unwrap()
}

fn soon() -> u64 {
    within(Duration::from_secs(30))
}

async fn fail(reach: &Arc<PeerReach>) {
    let mut admission = reach.admit(Quota::Rows, soon()).await.unwrap();
    assert!(admission.settle(Verdict::Failed).is_some());
}

async fn open(reach: &Arc<PeerReach>) {
    for _ in 0..5 {
        fail(reach).await;
    }
}

#[tokio::test]
async fn an_open_breaker_answers_at_once() {
    let (_, work) = reach(1);
    open(&work).await;
    let barrier = work.admit(Quota::Rows, soon()).await.unwrap_err();
    assert!(matches!(barrier, Barrier::Open(open) if open.outage == 1));
    assert!(matches!(work.state().breaker, BreakerState::Open(_)));
    work.reset();
    assert!(work.admit(Quota::Rows, soon()).await.is_ok());
}

#[tokio::test]
async fn places_are_bounded_given_back_and_waited_for_until_the_deadline() {
    let (_, work) = reach(2);
    let first = work.admit(Quota::Rows, soon()).await.unwrap();
    let _second = work.admit(Quota::Rows, soon()).await.unwrap();
    assert_eq!(work.state().in_flight, 2);
    let late = work.admit(Quota::Rows, within(Duration::from_millis(20)));
    assert_eq!(late.await.unwrap_err(), Barrier::Busy);
    let waiting = tokio::spawn({
        let work = Arc::clone(&work);
        async move { work.admit(Quota::Rows, soon()).await.map(drop) }
    });
    drop(first);
    assert_eq!(waiting.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn those_who_wait_for_a_place_are_let_go_when_the_breaker_opens() {
    let (_, work) = reach(5);
    let mut out = Vec::new();
    for _ in 0..5 {
        out.push(work.admit(Quota::Rows, soon()).await.unwrap());
    }
    let waiting = tokio::spawn({
        let work = Arc::clone(&work);
        async move { work.admit(Quota::Rows, soon()).await.map(drop) }
    });
    // Only once it waits: a semaphore with waiters has no other sign than that the task has run.
    tokio::task::yield_now().await;
    for admission in &mut out {
        let _ = admission.settle(Verdict::Failed);
    }
    let answered = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(matches!(answered.unwrap().unwrap(), Err(Barrier::Open(_))));
}

#[tokio::test]
async fn a_dropped_probe_makes_room_for_the_next() {
    let clock = Arc::new(ManualClock::at_millis(0));
    let metrics = Arc::new(Metrics::new().unwrap());
    let shared = Arc::clone(&clock) as Arc<dyn Clock>;
    let reaches = Reaches::new(ReachRules::default(), shared, metrics);
    let work = reaches.of(&name("work"));
    open(&work).await;
    clock.advance(Duration::from_secs(15));
    let probe = work.admit(Quota::Rows, u64::MAX).await.unwrap();
    for _ in 0..3 {
        let barrier = work.admit(Quota::Rows, u64::MAX).await.unwrap_err();
        assert!(matches!(barrier, Barrier::Open(open) if open.wait == Duration::ZERO));
    }
    drop(probe);
    let mut probe = work.admit(Quota::Rows, u64::MAX).await.unwrap();
    assert_eq!(probe.settle(Verdict::Answered), None);
    assert!(work.is_closed());
}

#[tokio::test]
async fn a_wait_is_kept_to_and_one_waits() {
    let (_, work) = reach(4);
    let told = SystemClock.boot_nanos();
    work.told_to_wait(Quota::Rows, Duration::from_millis(300));
    let waiter = tokio::spawn({
        let work = Arc::clone(&work);
        async move {
            let admission = work.admit(Quota::Rows, soon()).await;
            admission.map(|_| SystemClock.boot_nanos())
        }
    });
    while !work.rows.lock().has_waiter() {
        tokio::task::yield_now().await;
    }
    // The others are answered at once, and `capabilities` has a limit of its own.
    for _ in 0..3 {
        let refused = work.admit(Quota::Rows, soon()).await.unwrap_err();
        assert!(matches!(refused, Barrier::Limited(after) if after.seconds() == 1));
    }
    assert!(work.admit(Quota::Capabilities, soon()).await.is_ok());
    let went = waiter.await.unwrap().unwrap();
    assert!(
        went >= told + 300_000_000,
        "early by {}",
        told + 300_000_000 - went
    );
    assert!(work.admit(Quota::Rows, soon()).await.is_ok());
}

#[tokio::test]
async fn a_waiter_that_leaves_gives_its_place_up() {
    let (_, work) = reach(4);
    work.told_to_wait(Quota::Rows, Duration::from_secs(20));
    let left = tokio::time::timeout(Duration::from_millis(20), work.admit(Quota::Rows, soon()));
    assert!(left.await.is_err());
    assert!(!work.rows.lock().has_waiter());
    // Who cannot wait that long is not made to.
    let near = work.admit(Quota::Rows, within(Duration::from_secs(1)));
    let refused = near.await.unwrap_err();
    assert!(matches!(refused, Barrier::Limited(after) if after.seconds() >= 19));
}

#[tokio::test]
async fn the_contact_of_one_peer_is_not_that_of_another() {
    let (reaches, work) = reach(4);
    reaches.contacted(&name("work"));
    open(&work).await;
    let other = reaches.of(&name("other"));
    open(&other).await;
    reaches.contacted(&name("nobody"));
    reaches.contacted(&name("other"));
    assert!(other.is_closed() && !work.is_closed());
    reaches.retain(|kept| *kept == name("other"));
    assert!(
        reaches.of(&name("work")).is_closed(),
        "a peer that went is forgotten"
    );
}

#[tokio::test]
async fn those_without_patience_are_let_go_when_it_is_asked_for() {
    let (_, work) = reach(1);
    let due = within(Duration::from_secs(10));
    let waiting = tokio::spawn({
        let work = Arc::clone(&work);
        async move { work.outlasted(Quota::Rows, due).await }
    });
    // There is patience for this, and the other limit is another matter.
    work.told_to_wait(Quota::Rows, Duration::from_secs(2));
    work.told_to_wait(Quota::Capabilities, Duration::from_secs(60));
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished() && work.is_limited(Quota::Rows));
    work.told_to_wait(Quota::Rows, Duration::from_secs(60));
    assert!(matches!(waiting.await.unwrap(), Barrier::Limited(after) if after.seconds() >= 50));
    let barrier = work.outlasted(Quota::Rows, due).await;
    assert!(matches!(barrier, Barrier::Limited(_)), "known before");
}
