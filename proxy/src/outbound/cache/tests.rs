//! The cache keeps its bound, its times and its keys apart.
#![allow(clippy::unwrap_used)]

use policy::revision::RevisionKey;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn revision(edit: u64) -> EffectiveRevision {
    let key = RevisionKey::new(&[3; 32]);
    EffectiveRevision::of(&key, GrantId::from(Uuid::from_u128(1)), edit, &[0; 32])
}

fn key(n: u64) -> QuestionKey {
    let mut query = [0; 32];
    query[..8].copy_from_slice(&n.to_be_bytes());
    QuestionKey {
        peer: PeerId::new(Uuid::from_u128(1)),
        credential: [0; 32],
        grant: GrantId::from(Uuid::from_u128(2)),
        verb: Verb::List,
        resource: Resource::Tasks,
        query,
    }
}

fn answer(length: usize, sent: u64) -> KeptAnswer {
    KeptAnswer::new(vec![7; length], 1, revision(1), sent)
}

#[test]
fn ten_thousand_questions_stay_within_the_bound() {
    let cache = AnswerCache::new(1 << 20);
    for n in 0..10_000 {
        cache.keep(key(n), answer(3_000, n));
        assert!(cache.figures().bytes <= 1 << 20);
    }
    let figures = cache.figures();
    assert!(
        figures.entries > 250 && figures.bytes > 900_000,
        "{figures:?}"
    );
    assert!(cache.find(&key(9_999), revision(1), 9_999).is_some());
    assert!(cache.find(&key(0), revision(1), 9_999).is_none());
}

#[test]
fn what_is_used_stays_and_what_is_not_makes_room() {
    let cache = AnswerCache::new(3 * (1_000 + OVERHEAD));
    for n in 0..3 {
        cache.keep(key(n), answer(1_000, 0));
    }
    assert!(cache.find(&key(0), revision(1), 0).is_some());
    cache.keep(key(3), answer(1_000, 0));
    assert!(cache.find(&key(0), revision(1), 0).is_some());
    assert!(cache.find(&key(1), revision(1), 0).is_none());
}

#[test]
fn an_answer_is_good_for_thirty_seconds_and_one_revision() {
    let cache = AnswerCache::new(1 << 20);
    let end = 5 + u64::try_from(TTL.as_nanos()).unwrap();
    cache.keep(key(1), answer(10, 5));
    assert!(cache.find(&key(1), revision(1), end - 1).is_some());
    assert!(cache.find(&key(1), revision(1), end).is_none());
    assert_eq!(cache.figures().entries, 0, "it is gone, not only hidden");
    cache.keep(key(1), answer(10, 5));
    assert!(cache.find(&key(1), revision(2), 6).is_none());
    assert_eq!(cache.figures().entries, 0);
    cache.keep(key(1), answer(10, 5));
    cache.sweep(end - 1);
    assert_eq!(cache.figures().entries, 1);
    cache.sweep(end);
    assert_eq!((cache.figures().entries, cache.figures().bytes), (0, 0));
}

#[test]
fn every_part_of_the_key_tells_questions_apart() {
    let cache = AnswerCache::new(1 << 20);
    let one = key(1);
    cache.keep(one, answer(10, 0));
    let others = [
        QuestionKey {
            peer: PeerId::new(Uuid::from_u128(9)),
            ..one
        },
        QuestionKey {
            credential: [1; 32],
            ..one
        },
        QuestionKey {
            grant: GrantId::from(Uuid::from_u128(9)),
            ..one
        },
        QuestionKey {
            verb: Verb::Get,
            ..one
        },
        QuestionKey {
            resource: Resource::Notes,
            ..one
        },
        key(2),
    ];
    for other in others {
        assert!(cache.find(&other, revision(1), 0).is_none(), "{other:?}");
    }
    assert!(cache.find(&one, revision(1), 0).is_some());
    cache.flush(PeerId::new(Uuid::from_u128(9)));
    assert!(cache.find(&one, revision(1), 0).is_some());
    cache.flush(one.peer);
    assert!(cache.find(&one, revision(1), 0).is_none());
}

#[test]
fn what_is_too_large_or_switched_off_is_not_kept() {
    let cache = AnswerCache::new(1 << 30);
    cache.keep(key(1), answer(MAX_ENTRY + 1, 0));
    assert_eq!(cache.figures().entries, 0);
    cache.keep(key(1), answer(MAX_ENTRY, 0));
    assert_eq!(cache.figures().entries, 1);
    let off = AnswerCache::new(0);
    assert!(!off.is_on());
    off.keep(key(1), answer(0, 0));
    assert_eq!(off.figures().entries, 0);
}

proptest! {
    #[test]
    fn the_books_agree_whatever_happens(
        acts in prop::collection::vec((0_u64..12, 0_usize..3_000, 0_u8..6), 1..200),
    ) {
        let cache = AnswerCache::new(12_000);
        for (n, length, act) in acts {
            match act {
                0..=2 => cache.keep(key(n), answer(length, n)),
                3 | 4 => { cache.find(&key(n), revision(1), n); }
                _ => cache.retain(|key, _| key.query[7] != u8::try_from(n).unwrap()),
            }
            let shelf = cache.shelf.lock();
            let bytes: usize = shelf.entries.values().map(|entry| entry.answer.size()).sum();
            prop_assert_eq!(shelf.bytes, bytes);
            prop_assert!(bytes <= 12_000);
            prop_assert_eq!(shelf.entries.len(), shelf.order.len());
        }
    }
}
