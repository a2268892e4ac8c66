//! Months of the audit log: made before they are needed, emptied by the archive, and never a reason to refuse a record.

use std::sync::Arc;

use super::*;
use crate::audit::{AuditFilter, AuditLog, AuditOutcome, AuditRecord, AuditText, Direction};

/// A record whose id has the time of the record, as those of the program have.
fn record(at: i64, n: u64) -> AuditRecord {
    let high = u64::try_from(at).unwrap() << 16 | 0x7000;
    let id = Uuid::from_u64_pair(high, 0x8000_0000_0000_0000 | n);
    let request = AuditText::short(&id.to_string());
    AuditRecord::new(
        id,
        UnixMillis(at),
        Direction::Inbound,
        AuditOutcome::Allowed,
        request,
    )
}

/// Where the rows are: partition and number of rows.
async fn partitions(place: &Place) -> Vec<(String, i64)> {
    let mut hand = place.connect().await;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(c.relname AS TEXT) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = to_regclass('federation_audit_log') ORDER BY 1",
    )
    .fetch_all(&mut hand)
    .await
    .unwrap();
    let mut found = Vec::new();
    for name in names {
        let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {name}"));
        let rows: i64 = sqlx::query_scalar(count)
            .fetch_one(&mut hand)
            .await
            .unwrap();
        found.push((name, rows));
    }
    found
}

const OCTOBER: i64 = 1_696_900_000_000;
const MONTH: i64 = 30 * 24 * 3_600_000;

#[tokio::test]
async fn months_are_made_and_what_belongs_to_none_is_kept() {
    let Some(place) = place("months_are_made_and_what_belongs_to_none_is_kept") else {
        return;
    };
    let store = place.open().await;
    let mut odd = record(OCTOBER, 3);
    odd.id = Uuid::from_u64_pair(u64::MAX, u64::MAX);
    let records = [
        record(OCTOBER, 1),
        record(OCTOBER + 1, 2),
        record(OCTOBER + MONTH, 4),
        odd,
    ];
    store.append_audit(&records, None).await.unwrap();
    let of = |name: &str, rows| (format!("federation_audit_log_{name}"), rows);
    assert_eq!(
        partitions(&place).await,
        [
            of("2023_10", 2),
            of("2023_11", 1),
            of("2023_12", 0),
            of("other", 1)
        ]
    );
    let rows = store.query_audit(&AuditFilter::default()).await.unwrap();
    assert!(
        rows.iter()
            .map(|row| row.record.id)
            .eq(records.iter().map(|one| one.id))
    );
    place.remove().await;
}

/// The partitions are by id, so that one id cannot be there twice, whatever its time.
#[tokio::test]
async fn an_id_is_there_once_whatever_the_time() {
    let Some(place) = place("an_id_is_there_once_whatever_the_time") else {
        return;
    };
    let store = place.open().await;
    let first = record(OCTOBER, 1);
    let mut again = first.clone();
    again.at = UnixMillis(OCTOBER + MONTH);
    store
        .append_audit(std::slice::from_ref(&first), None)
        .await
        .unwrap();
    let next = record(OCTOBER, 2);
    store
        .append_audit(&[again, next.clone()], None)
        .await
        .unwrap();
    let rows = store.query_audit(&AuditFilter::default()).await.unwrap();
    let kept: Vec<_> = rows.into_iter().map(|row| row.record).collect();
    assert_eq!(kept, [first, next]);
    place.remove().await;
}

#[tokio::test]
async fn a_month_that_cannot_be_made_holds_nothing_up() {
    let Some(place) = place("a_month_that_cannot_be_made_holds_nothing_up") else {
        return;
    };
    let store = place.open().await;
    // Somebody reads the whole log, and goes on for long.
    let mut hand = place.connect().await;
    let mut reading = hand.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM federation_audit_log")
        .execute(&mut *reading)
        .await
        .unwrap();
    store
        .append_audit(&[record(OCTOBER, 1)], None)
        .await
        .unwrap();
    reading.rollback().await.unwrap();
    // Nor afterwards, although rows of the month are somewhere else by now.
    let other = place.open().await;
    other
        .append_audit(&[record(OCTOBER, 2)], None)
        .await
        .unwrap();
    let found = partitions(&place).await;
    let other = found.iter().find(|(name, _)| name.ends_with("_other"));
    assert_eq!(other.map(|(_, rows)| *rows), Some(2), "{found:?}");
    place.remove().await;
}

#[tokio::test]
async fn a_full_audit_batch_is_written_at_once() {
    let Some(place) = place("a_full_audit_batch_is_written_at_once") else {
        return;
    };
    let store: Arc<dyn AuditLog> = Arc::new(place.open().await);
    for round in 0..5u64 {
        let records: Vec<_> = (0..512)
            .map(|n| record(OCTOBER, 10_000 + round * 512 + n))
            .collect();
        let bound = Duration::from_secs(2);
        let written = tokio::time::timeout(bound, store.append_audit(&records, None)).await;
        written.expect("a batch takes too long").unwrap();
    }
    let rows = store.read_audit(0, 10_000).await.unwrap();
    assert!(rows.windows(2).all(|two| two[0].position < two[1].position));
    place.remove().await;
}

#[tokio::test]
async fn months_without_rows_are_dropped_and_others_are_not() {
    let Some(place) = place("months_without_rows_are_dropped_and_others_are_not") else {
        return;
    };
    let store = place.open().await;
    let records = [record(OCTOBER, 1), record(OCTOBER + MONTH, 2)];
    store.append_audit(&records, None).await.unwrap();
    let mut hand = place.connect().await;
    sqlx::query("DELETE FROM federation_audit_log WHERE id = $1")
        .bind(records[0].id.as_bytes().as_slice())
        .execute(&mut hand)
        .await
        .unwrap();
    store
        .write()
        .await
        .unwrap()
        .after_archiving(OCTOBER + 2 * MONTH)
        .await;
    let names: Vec<_> = partitions(&place)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(
        !names.iter().any(|name| name.ends_with("2023_10")),
        "{names:?}"
    );
    assert!(
        names.iter().any(|name| name.ends_with("2023_11")),
        "{names:?}"
    );
    // A straggler of the month that is gone is kept all the same.
    store
        .append_audit(&[record(OCTOBER, 3)], None)
        .await
        .unwrap();
    let rows = store.query_audit(&AuditFilter::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
    place.remove().await;
}
