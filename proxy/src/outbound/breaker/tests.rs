//! The laws of the breaker, against random histories and a plain reading of the specification.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const RULES: BreakerRules = BreakerRules {
    failures: 5,
    open: Duration::from_secs(15),
    open_max: Duration::from_secs(120),
};

fn fail(breaker: &mut Breaker, now: u64) -> Settled {
    let pass = breaker.admit(now).unwrap();
    breaker.settle(pass, Verdict::Failed, now + 1)
}

fn answer(breaker: &mut Breaker, now: u64) -> Settled {
    let pass = breaker.admit(now).unwrap();
    breaker.settle(pass, Verdict::Answered, now + 1)
}

fn opened(now: u64) -> Breaker {
    let mut breaker = Breaker::new(RULES);
    for _ in 0..5 {
        let _ = fail(&mut breaker, now);
    }
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_four_do_not() {
    let mut breaker = Breaker::new(RULES);
    for round in 0..3 {
        for _ in 0..4 {
            assert_eq!(fail(&mut breaker, round * 10).change, None);
        }
        assert_eq!(answer(&mut breaker, round * 10 + 5).change, None);
    }
    for _ in 0..4 {
        let _ = fail(&mut breaker, 100);
    }
    let change = fail(&mut breaker, 100).change;
    assert_eq!(change, Some(Change::Opened(Duration::from_secs(15))));
    assert!(breaker.admit(101).is_err());
}

#[test]
fn half_of_the_last_twenty_open_it_and_fewer_results_say_nothing() {
    let mut breaker = Breaker::new(RULES);
    // Every second one fails: never five in a row. The window is whole with the twentieth result, a failure.
    for at in 0..19_u64 {
        let settled = if at % 2 == 1 {
            fail(&mut breaker, at * 10)
        } else {
            answer(&mut breaker, at * 10)
        };
        assert_eq!(settled.change, None, "result {at}");
    }
    assert_eq!(
        fail(&mut breaker, 190).change,
        Some(Change::Opened(Duration::from_secs(15)))
    );
    // Nine of twenty do not.
    let mut breaker = Breaker::new(RULES);
    for at in 0..400_u64 {
        let settled = if matches!(at % 20, 1 | 3 | 5 | 7 | 9 | 11 | 13 | 15 | 17) {
            fail(&mut breaker, at * 10)
        } else {
            answer(&mut breaker, at * 10)
        };
        assert_eq!(settled.change, None, "result {at}");
    }
}

#[test]
fn open_times_double_up_to_the_longest_and_an_answer_ends_that() {
    let mut breaker = opened(0);
    let mut now = 1;
    for seconds in [15, 30, 60, 120, 120, 120] {
        let wait = Duration::from_secs(seconds);
        assert_eq!(breaker.state(now), BreakerState::Open(wait));
        let until = now + seconds * SECOND;
        assert!(breaker.admit(until - 1).is_err());
        assert_eq!(breaker.state(until), BreakerState::HalfOpen);
        let probe = breaker.admit(until).unwrap();
        let _ = breaker.settle(probe, Verdict::Failed, until);
        now = until;
    }
    now += 120 * SECOND;
    assert_eq!(answer(&mut breaker, now).change, Some(Change::Closed));
    for _ in 0..4 {
        assert_eq!(fail(&mut breaker, now + 10).change, None);
    }
    assert_eq!(
        fail(&mut breaker, now + 10).change,
        Some(Change::Opened(Duration::from_secs(15)))
    );
}

#[test]
fn one_probe_at_a_time_and_one_that_is_dropped_makes_room_for_the_next() {
    let mut breaker = opened(0);
    let now = 20 * SECOND;
    let probe = breaker.admit(now).unwrap();
    for _ in 0..100 {
        assert_eq!(breaker.admit(now).unwrap_err().wait, Duration::ZERO);
    }
    assert_eq!(breaker.settle(probe, Verdict::Nothing, now).change, None);
    let probe = breaker.admit(now).unwrap();
    assert!(breaker.admit(now).is_err());
    let settled = breaker.settle(probe, Verdict::Answered, now);
    assert_eq!(settled.change, Some(Change::Closed));
    assert!(breaker.admit(now).is_ok() && breaker.admit(now).is_ok());
}

#[test]
fn stragglers_move_nothing() {
    let mut breaker = Breaker::new(RULES);
    let (late_answer, late_failure) = (breaker.admit(0).unwrap(), breaker.admit(0).unwrap());
    for _ in 0..5 {
        let _ = fail(&mut breaker, 1);
    }
    let open = breaker.clone();
    assert_eq!(
        breaker.settle(late_answer, Verdict::Answered, 3).change,
        None
    );
    assert_eq!(
        breaker, open,
        "an answer from before the outage ends nothing"
    );
    let probe = breaker.admit(20 * SECOND).unwrap();
    let straggled = breaker.settle(late_failure, Verdict::Failed, 20 * SECOND);
    assert_eq!(straggled.change, None);
    let settled = breaker.settle(probe, Verdict::Answered, 20 * SECOND + 1);
    assert_eq!(settled.change, Some(Change::Closed));
}

#[test]
fn an_outage_lasts_from_a_failure_to_an_answer_asked_for_after_it() {
    let mut breaker = Breaker::new(RULES);
    let early = breaker.admit(0).unwrap();
    assert_eq!(fail(&mut breaker, 1).outage, Some(1));
    let _ = breaker.settle(early, Verdict::Answered, 5);
    assert_eq!(breaker.outage(), Some(1), "that was asked before it failed");
    assert_eq!(fail(&mut breaker, 6).outage, Some(1));
    let _ = answer(&mut breaker, 10);
    assert_eq!(breaker.outage(), None);
    assert_eq!(fail(&mut breaker, 11).outage, Some(2));
    let _ = breaker.reset();
    assert_eq!(
        fail(&mut breaker, 12).outage,
        Some(2),
        "a reset ends no outage"
    );
}

#[test]
fn a_reset_by_the_operator_forgets_failures_and_back_off() {
    let mut breaker = opened(0);
    let probe = breaker.admit(15 * SECOND + 1).unwrap();
    let _ = breaker.settle(probe, Verdict::Failed, 16 * SECOND);
    assert_eq!(breaker.reset(), Some(Change::Closed));
    assert_eq!(breaker.reset(), None);
    for _ in 0..4 {
        assert_eq!(fail(&mut breaker, 17 * SECOND).change, None);
    }
    let change = fail(&mut breaker, 17 * SECOND).change;
    assert_eq!(change, Some(Change::Opened(Duration::from_secs(15))));
}

#[test]
fn a_contact_closes_it_for_as_long_as_nothing_fails() {
    let mut breaker = opened(0);
    assert_eq!(breaker.contacted(SECOND), Some(Change::Closed));
    let change = fail(&mut breaker, 2 * SECOND).change;
    assert_eq!(change, Some(Change::Opened(Duration::from_secs(15))));
    // A peer that reaches us and is not reached does not keep it closed.
    for second in 3..16 {
        assert_eq!(breaker.contacted(second * SECOND), None, "second {second}");
    }
    assert_eq!(breaker.contacted(16 * SECOND), Some(Change::Closed));
    // An answer proves that it is reached: the next outage is one of its own.
    let _ = answer(&mut breaker, 17 * SECOND);
    for _ in 0..5 {
        let _ = fail(&mut breaker, 18 * SECOND);
    }
    assert_eq!(breaker.contacted(19 * SECOND), Some(Change::Closed));
    assert_eq!(
        breaker.contacted(19 * SECOND),
        None,
        "closed ones stay as they are"
    );
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    Ask,
    Settle(usize, Verdict),
    Pass(u64),
    Reset,
    Contact,
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = prop_oneof![
        3 => Just(Verdict::Failed),
        2 => Just(Verdict::Answered),
        1 => Just(Verdict::Nothing),
    ];
    prop_oneof![
        8 => Just(Event::Ask),
        8 => (0..8_usize, verdict).prop_map(|(which, verdict)| Event::Settle(which, verdict)),
        4 => (0..20 * SECOND).prop_map(Event::Pass),
        1 => Just(Event::Reset),
        1 => Just(Event::Contact),
    ]
}

proptest! {
    /// Whatever happens: nothing passes while it is open, never two probes, every opening lasts between the
    /// shortest and the longest time, and outages are counted upwards.
    #[test]
    fn laws_of_every_history(events in prop::collection::vec(event(), 1..300)) {
        let mut breaker = Breaker::new(RULES);
        let (mut now, mut passes) = (0_u64, Vec::new());
        let (mut closed_until, mut outage) = (None::<u64>, 0);
        let mut probe: Option<Pass> = None;
        for event in events {
            let mut change = None;
            match event {
                Event::Ask => {
                    let before = breaker.state(now);
                    let asked = breaker.admit(now);
                    if let Some(until) = closed_until {
                        prop_assert!(now >= until || asked.is_err(), "passed while open");
                    }
                    match (before, asked) {
                        (BreakerState::Closed, asked) => prop_assert!(asked.is_ok()),
                        (BreakerState::Open(left), asked) => {
                            prop_assert_eq!(asked.unwrap_err().wait, left);
                        }
                        (BreakerState::HalfOpen, Ok(pass)) => {
                            prop_assert!(probe.is_none(), "two probes");
                            probe = Some(pass);
                        }
                        (BreakerState::HalfOpen, Err(refused)) => {
                            prop_assert!(probe.is_some());
                            prop_assert_eq!(refused.wait, Duration::ZERO);
                        }
                    }
                    passes.extend(asked.ok());
                }
                Event::Settle(which, verdict) if !passes.is_empty() => {
                    let pass = passes.swap_remove(which % passes.len());
                    let was_open = matches!(breaker.state(now), BreakerState::Open(_));
                    let settled = breaker.settle(pass, verdict, now);
                    change = settled.change;
                    prop_assert!(!was_open || change.is_none(), "a straggler moved an open one");
                    if probe == Some(pass) {
                        probe = None;
                    }
                    prop_assert_eq!(settled.outage.is_some(), verdict == Verdict::Failed);
                    if let Some(number) = settled.outage {
                        prop_assert!(number == outage || number == outage + 1);
                        outage = number;
                    }
                }
                Event::Settle(..) => {}
                Event::Pass(nanos) => now += nanos,
                Event::Reset => change = breaker.reset(),
                Event::Contact => change = breaker.contacted(now),
            }
            match change {
                Some(Change::Opened(length)) => {
                    prop_assert!(length >= RULES.open && length <= RULES.open_max);
                    closed_until = Some(now + u64::try_from(length.as_nanos()).unwrap());
                    probe = None;
                }
                Some(Change::Closed) => (closed_until, probe) = (None, None),
                None => {}
            }
        }
    }
}
