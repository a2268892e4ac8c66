//! What is an alarm and what is not.
#![allow(clippy::unwrap_used)]

use super::*;

fn grant() -> GrantId {
    GrantId::new(Uuid::from_u128(7))
}

fn head(chain: u128, gseq: u64, hash: u8) -> HistoryHead {
    HistoryHead {
        chain: Uuid::from_u128(chain),
        gseq,
        ghash: [hash; 32],
    }
}

fn headers(head: HistoryHead) -> HeaderMap {
    let value = CheckpointHeader { head, signed: None }.value();
    let name = http::HeaderName::from_static(CHECKPOINT);
    HeaderMap::from_iter([(name, value.parse().unwrap())])
}

fn book() -> WitnessBook {
    WitnessBook::new(Arc::new(Metrics::new().unwrap()))
}

/// Hears of `head` at `nanos`, of a question sent at `sent`.
fn hear(book: &WitnessBook, head: HistoryHead, sent: u64, nanos: u64) -> Option<WitnessAlarm> {
    let at = UnixMillis(0);
    let heard = Heard { sent, nanos, at };
    let (shown, alarm) = book.hear(grant(), &headers(head), heard);
    assert_eq!(shown, Some(head));
    alarm.map(|alarm| alarm.kind)
}

#[test]
fn going_on_in_one_chain_or_another_is_no_alarm() {
    let book = book();
    assert_eq!(hear(&book, head(1, 1, 1), 1, 2), None);
    assert_eq!(hear(&book, head(1, 4, 4), 3, 4), None);
    assert_eq!(hear(&book, head(1, 4, 4), 5, 6), None);
    assert_eq!(hear(&book, head(2, 6, 6), 7, 8), None);
    // Another process of the peer that is a little behind.
    assert_eq!(hear(&book, head(1, 5, 5), 9, 10), None);
    let kept = book.take_dirty();
    let places: Vec<_> = kept.iter().map(|one| one.head).collect();
    assert_eq!(places, [head(2, 6, 6), head(1, 5, 5)]);
    assert_eq!(book.state(grant()).newest.unwrap().0, head(2, 6, 6));
    assert!(book.take_dirty().is_empty());
}

#[test]
fn an_answer_that_was_overtaken_is_no_alarm_and_one_asked_for_later_is() {
    let book = book();
    assert_eq!(hear(&book, head(1, 9, 9), 10, 20), None);
    // Sent before the ninth was heard of.
    assert_eq!(hear(&book, head(1, 8, 8), 15, 30), None);
    assert_eq!(
        hear(&book, head(1, 7, 7), 25, 40),
        Some(WitnessAlarm::WentBack)
    );
    // The ninth is still what the next one has to reach.
    assert_eq!(
        hear(&book, head(1, 8, 8), 45, 50),
        Some(WitnessAlarm::WentBack)
    );
    assert_eq!(hear(&book, head(1, 10, 10), 55, 60), None);
}

#[test]
fn two_records_at_one_place_are_an_alarm_in_any_order_and_chain() {
    let book = book();
    assert_eq!(hear(&book, head(1, 5, 5), 1, 2), None);
    for other in [head(1, 5, 6), head(2, 5, 5)] {
        assert_eq!(hear(&book, other, 0, 3), Some(WitnessAlarm::OtherHistory));
    }
}

#[test]
fn what_was_kept_is_compared_with_after_a_restart() {
    let before = book();
    assert_eq!(hear(&before, head(1, 5, 5), 1, 2), None);
    let after = book();
    after.load(before.take_dirty());
    assert_eq!(
        hear(&after, head(1, 4, 4), 1, 2),
        Some(WitnessAlarm::WentBack)
    );
    assert_eq!(
        hear(&after, head(1, 5, 6), 3, 4),
        Some(WitnessAlarm::OtherHistory)
    );
}

#[test]
fn what_cannot_be_read_is_an_alarm_and_acts_are_rare() {
    let book = book();
    let name = http::HeaderName::from_static(CHECKPOINT);
    let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("1.2.3"))]);
    let heard = Heard {
        sent: 1,
        nanos: 2,
        at: UnixMillis(3),
    };
    let (shown, alarm) = book.hear(grant(), &headers, heard);
    assert_eq!(shown, None);
    let alarm = alarm.unwrap();
    assert_eq!(alarm.kind, WitnessAlarm::Malformed);
    let acts: Vec<bool> = [0, 1, ACT_EVERY - 1, ACT_EVERY, ACT_EVERY + 1]
        .into_iter()
        .map(|nanos| book.count(grant(), &alarm, nanos, UnixMillis(0)))
        .collect();
    assert_eq!(acts, [true, false, false, true, false]);
    assert_eq!(book.state(grant()).alarms, 5);
}
