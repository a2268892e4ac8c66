//! Laws of the rows that grants have seen.

use std::collections::BTreeSet;

use super::super::*;
use super::fixture::*;

fn mark(number: u32) -> RowMark {
    let mut mark = [0; 16];
    mark[..4].copy_from_slice(&number.to_be_bytes());
    mark
}

fn marks(numbers: impl IntoIterator<Item = u32>) -> Vec<RowMark> {
    numbers.into_iter().map(mark).collect()
}

pub(super) async fn a_budget_counts_different_rows_exactly(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    let book = async |budget: u32, rows: &[u32]| {
        let rows = marks(rows.iter().copied());
        let booked = store
            .book_rows(grant_id(1), 5, budget, &rows)
            .await
            .unwrap();
        (booked.admitted, booked.seen)
    };
    assert_eq!(store.rows_seen(grant_id(1), 5).await.unwrap(), 0);
    assert_eq!(book(4, &[]).await, (0, 0));
    // A row twice in one answer is one row.
    assert_eq!(book(4, &[1, 2, 1]).await, (3, 2));
    assert_eq!(book(4, &[2, 1]).await, (2, 2));
    // The first one over the budget ends the answer, whatever comes behind it.
    assert_eq!(book(4, &[1, 3, 4, 5, 1, 2]).await, (3, 4));
    assert_eq!(book(4, &[5]).await, (0, 4));
    assert_eq!(book(4, &[4, 3, 6]).await, (2, 4));
    // More room later, and less than was used already.
    assert_eq!(book(5, &[4, 6, 7]).await, (2, 5));
    assert_eq!(book(1, &[6, 7]).await, (1, 5));
    assert_eq!(store.rows_seen(grant_id(1), 5).await.unwrap(), 5);
    assert_eq!(store.revision().await.unwrap(), before);
}

pub(super) async fn grants_and_days_have_budgets_of_their_own(store: &dyn Store) {
    for (grant, day, rows) in [(1, 5, 3), (2, 5, 2), (1, 6, 1)] {
        let rows = marks(0..rows);
        let booked = store
            .book_rows(grant_id(grant), day, 3, &rows)
            .await
            .unwrap();
        assert_eq!(booked.admitted, rows.len());
    }
    let counts: BTreeSet<_> = store
        .rows_seen_by_grant(5)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(counts, [(grant_id(1), 3), (grant_id(2), 2)].into());
    // Days before are forgotten bit by bit; the day itself and later ones stay.
    let mut forgotten = 0;
    loop {
        let some = store.forget_rows_seen(6, 2).await.unwrap();
        assert!(some <= 2);
        forgotten += some;
        if some == 0 {
            break;
        }
    }
    assert_eq!(forgotten, 5);
    assert!(store.rows_seen_by_grant(5).await.unwrap().is_empty());
    assert_eq!(store.rows_seen(grant_id(1), 6).await.unwrap(), 1);
}

pub(super) async fn answers_at_the_same_time_do_not_go_over_the_budget(store: &dyn Store) {
    let answers = (0..8).map(|answer| async move {
        let rows = marks((0..40).map(|row| answer * 25 + row));
        let mut shown = BTreeSet::new();
        for part in rows.chunks(10) {
            let booked = store.book_rows(grant_id(1), 1, 100, part).await.unwrap();
            shown.extend(part[..booked.admitted].iter().copied());
            if booked.admitted < part.len() {
                break;
            }
        }
        shown
    });
    let shown: BTreeSet<RowMark> = futures_util::future::join_all(answers)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(shown.len(), 100);
    assert_eq!(store.rows_seen(grant_id(1), 1).await.unwrap(), 100);
}

pub(super) async fn a_whole_page_is_booked_at_once(store: &dyn Store) {
    let rows = marks(0..10_001);
    let booked = store
        .book_rows(grant_id(1), 1, 10_000, &rows)
        .await
        .unwrap();
    assert_eq!((booked.admitted, booked.seen), (10_000, 10_000));
}
