//! The local limiter and the entrance, under a clock that moves when told to. Elsewhere on purpose:
//! the laws of one bucket (`gcra.rs`), the limits on the wire (`tests/suite/rate.rs`).
#![allow(clippy::unwrap_used)]

use certs::testing::ManualClock;
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn grant(number: u8) -> GrantId {
    GrantId::from(Uuid::from_bytes([number; 16]))
}

fn limiter() -> (LocalLimiter, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_millis(0));
    (LocalLimiter::new(Arc::clone(&clock) as _), clock)
}

fn draw(limiter: &LocalLimiter, limits: &[Limited]) -> Drawn {
    // The local limiter never waits.
    limiter.draw(limits).now_or_never().unwrap()
}

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate::new(per_minute, burst).unwrap()
}

#[derive(Debug, Clone)]
struct Step {
    wait: u64,
    grant: u8,
    revalidates: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u64..400, 0u8..3, any::<bool>());
    let steps = step.prop_map(|(wait, grant, revalidates)| Step {
        wait,
        grant,
        revalidates,
    });
    vec(steps, 1..200)
}

proptest! {
    /// Whatever the others do, a grant fares as if it were alone.
    #[test]
    fn two_grants_never_share_a_bucket(steps in steps()) {
        let quota = |grant: u8| questions(self::grant(grant), rate(600 * (u32::from(grant) + 1), 5));
        let (together, clock) = limiter();
        let alone: Vec<_> = (0..3).map(|_| limiter()).collect();
        for Step { wait, grant, .. } in steps {
            let wait = Duration::from_millis(wait);
            clock.advance(wait);
            alone.iter().for_each(|(_, clock)| clock.advance(wait));
            let (own, _) = alone.get(usize::from(grant)).unwrap();
            let limits = [quota(grant)];
            prop_assert_eq!(draw(&together, &limits), draw(own, &limits));
        }
    }

    /// Sweeping at any moment changes no decision.
    #[test]
    fn forgetting_full_buckets_is_not_noticed(steps in steps()) {
        let (swept, first) = limiter();
        let (kept, second) = limiter();
        for Step { wait, grant, revalidates } in steps {
            first.advance(Duration::from_millis(wait));
            second.advance(Duration::from_millis(wait));
            if revalidates {
                swept.sweep();
            }
            let limits = [questions(self::grant(grant), rate(600, 3))];
            prop_assert_eq!(draw(&swept, &limits), draw(&kept, &limits));
        }
        first.advance(Duration::from_secs(60));
        swept.sweep();
        prop_assert_eq!(swept.keys(), 0);
    }

    /// A list of buckets gives what its buckets give one after the other.
    #[test]
    fn the_first_bucket_that_has_one_gives(steps in steps()) {
        let (limiter, clock) = limiter();
        let (model, model_clock) = self::limiter();
        for Step { wait, revalidates, .. } in steps {
            clock.advance(Duration::from_millis(wait));
            model_clock.advance(Duration::from_millis(wait));
            let key = BucketKey { grant: grant(1), purpose: Purpose::Revalidation };
            let own = Limited { key, quota: revalidation(Duration::from_secs(2)) };
            let question = questions(grant(1), rate(60, 2));
            let limits = if revalidates { vec![own, question] } else { vec![question] };
            let drawn = draw(&limiter, &limits);
            let mut expected = None;
            let mut waits = Vec::new();
            for (place, limit) in limits.iter().enumerate() {
                let one = draw(&model, &[*limit]);
                if one.from.is_some() {
                    expected = Some(place);
                    break;
                }
                waits.push(one.retry_in);
            }
            prop_assert_eq!(drawn.from, expected);
            let standing = model.look(question).now_or_never().unwrap();
            prop_assert_eq!(drawn.standing, standing);
            let wait = if expected.is_some() { Duration::ZERO } else { waits.into_iter().min().unwrap() };
            prop_assert_eq!(drawn.retry_in, wait);
        }
    }
}

#[test]
fn looking_takes_nothing_and_leaves_no_key() {
    let (limiter, _) = limiter();
    let limit = questions(grant(1), Rate::DEFAULT);
    for _ in 0..100 {
        let standing = limiter.look(limit).now_or_never().unwrap();
        assert_eq!(standing.remaining, 30);
    }
    assert_eq!(limiter.keys(), 0);
}

#[test]
fn a_hundred_thousand_idle_keys_are_forgotten() {
    let (limiter, clock) = limiter();
    for number in 0..100_000_u128 {
        let limits = [questions(
            GrantId::from(Uuid::from_u128(number)),
            Rate::DEFAULT,
        )];
        assert!(draw(&limiter, &limits).from.is_some());
    }
    assert_eq!(limiter.keys(), 100_000);
    // A key and its bucket; the table is at least half full after its last growth.
    assert!(limiter.capacity() < 2 * 100_000 + 64 * 1024);
    assert!(size_of::<(BucketKey, gcra::Bucket)>() <= 32);
    limiter.sweep();
    assert_eq!(limiter.keys(), 100_000, "half a second of debt is kept");
    clock.advance(Duration::from_millis(500));
    limiter.sweep();
    assert_eq!((limiter.keys(), limiter.capacity()), (0, 0));
}

#[test]
fn growing_forgets_full_buckets_first() {
    let (limiter, clock) = limiter();
    for number in 0..1_000_000_u128 {
        let limits = [questions(
            GrantId::from(Uuid::from_u128(number)),
            Rate::DEFAULT,
        )];
        let _ = draw(&limiter, &limits);
        clock.advance(Duration::from_millis(5));
    }
    // A bucket is full again after half a second, so a hundred are in use at any time.
    assert!(limiter.capacity() < 10_000, "{}", limiter.capacity());
}

#[test]
fn seconds_are_rounded_up_and_never_0() {
    let table = [
        (0, 1),
        (1, 1),
        (999_999_999, 1),
        (1_000_000_000, 1),
        (1_000_000_001, 2),
    ];
    for (nanos, seconds) in table {
        assert_eq!(whole_seconds(Duration::from_nanos(nanos)), seconds);
    }
}

#[test]
fn slots_are_given_back() {
    let in_flight = InFlight::new(2);
    let peer = policy::id::PeerId::new(Uuid::nil());
    let other = policy::id::PeerId::new(Uuid::from_u128(16));
    let (one, two) = (in_flight.enter(peer), in_flight.enter(peer));
    assert!(one.is_some() && two.is_some());
    assert!(in_flight.enter(peer).is_none());
    let third = in_flight.enter(other);
    assert!(third.is_some(), "another peer of the same shard");
    drop(one);
    let again = in_flight.enter(peer);
    assert!(again.is_some());
    assert!(in_flight.enter(peer).is_none());
    drop((two, third, again));
    assert_eq!(in_flight.peers(), 0);
}
