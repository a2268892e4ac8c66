//! Laws of the audit log.

use policy::id::{GrantId, PeerId, SubjectId};
use policy::recorded::RecordedDecision;
use uuid::Uuid;

use super::super::Store;
use super::fixture::*;
use crate::audit::{
    AuditDetail, AuditFilter, AuditLogError, AuditOutcome, AuditRecord, AuditText, Direction,
    JournalMark,
};

fn record(n: u64) -> AuditRecord {
    let request = AuditText::short(&format!("request-{n}"));
    let at = after(i64::try_from(n).unwrap());
    AuditRecord::new(
        uuid(n),
        at,
        Direction::Inbound,
        AuditOutcome::Allowed,
        request,
    )
}

fn full(n: u64) -> AuditRecord {
    AuditRecord {
        direction: Direction::Admin,
        outcome: AuditOutcome::RateLimited,
        count: 12,
        peer_request_id: Some(AuditText::short("theirs\n")),
        attempt: 2,
        trace_id: Some(AuditText::short("0af7651916cd43dd8448eb211c80319c")),
        peer: Some(PeerId::new(uuid(1))),
        grant: Some(GrantId::new(uuid(2))),
        subject: Some(SubjectId::new(uuid(3))),
        cert_serial: Some(AuditText::short("0a")),
        verb: Some(AuditText::fixed("list")),
        resource: Some(AuditText::fixed("tasks")),
        query_hash: Some(digest(1)),
        deny_stage: Some(AuditText::fixed("scope")),
        deny_code: Some(AuditText::fixed("resource_excluded")),
        http_status: Some(403),
        rows_returned: 3,
        rows_withheld: 4,
        bytes_out: 5,
        latency_us: 6,
        revision: Some(7),
        action: Some(AuditText::fixed("grant.revoke")),
        actor: Some(AuditText::fixed("uid:0")),
        decision: Some(RecordedDecision::from_bytes(vec![1, 0, 9]).unwrap()),
        detail: Some(
            AuditDetail::new()
                .text("reason", "\"left\"\r\n")
                .count("grants", 1),
        ),
        ..record(n)
    }
}

async fn ids(store: &dyn Store, filter: AuditFilter) -> Vec<Uuid> {
    let rows = store.query_audit(&filter).await.unwrap();
    assert!(
        rows.windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
    rows.iter().map(|row| row.record.id).collect()
}

pub(super) async fn records_come_back_as_they_went_in(store: &dyn Store) {
    let records = [record(1), full(2)];
    store.append_audit(&records, None).await.unwrap();
    store.append_audit(&[], None).await.unwrap();
    let back: Vec<_> = log(store).await.into_iter().map(|row| row.record).collect();
    assert_eq!(back, records);
    assert_eq!(
        store.revision().await.unwrap(),
        0,
        "traffic is not a change"
    );
}

pub(super) async fn each_filter_narrows(store: &dyn Store) {
    store
        .append_audit(&[record(1), full(2), record(3)], None)
        .await
        .unwrap();
    let any = AuditFilter::default;
    let only_second = [
        AuditFilter {
            grant: Some(GrantId::new(uuid(2))),
            ..any()
        },
        AuditFilter {
            peer: Some(PeerId::new(uuid(1))),
            ..any()
        },
        AuditFilter {
            direction: Some(Direction::Admin),
            ..any()
        },
        AuditFilter {
            outcome: Some(AuditOutcome::RateLimited),
            ..any()
        },
        AuditFilter {
            verb: Some("list".to_owned()),
            ..any()
        },
        AuditFilter {
            resource: Some("tasks".to_owned()),
            ..any()
        },
        AuditFilter {
            code: Some("resource_excluded".to_owned()),
            ..any()
        },
        AuditFilter {
            request_id: Some("request-2".to_owned()),
            ..any()
        },
        AuditFilter {
            request_id: Some("theirs\\u{a}".to_owned()),
            ..any()
        },
        AuditFilter {
            since: Some(after(2)),
            until: Some(after(3)),
            ..any()
        },
        AuditFilter {
            after: Some(uuid(1)),
            limit: 1,
            ..any()
        },
    ];
    for filter in only_second {
        assert_eq!(ids(store, filter.clone()).await, [uuid(2)], "{filter:?}");
    }
    let nothing = AuditFilter {
        verb: Some("' OR 1 --".to_owned()),
        ..any()
    };
    assert!(ids(store, nothing).await.is_empty());
    let first = AuditFilter {
        oldest_first: true,
        limit: 2,
        ..any()
    };
    assert_eq!(
        ids(store, first).await,
        [uuid(1), uuid(2)],
        "the first ones"
    );
    let last = AuditFilter { limit: 2, ..any() };
    assert_eq!(
        ids(store, last).await,
        [uuid(2), uuid(3)],
        "the last ones, in order"
    );
}

pub(super) async fn following_misses_nothing_and_repeats_nothing(store: &dyn Store) {
    // Records are written when requests end: their ids, drawn at the start, come out of order.
    let written = [5u64, 2, 9, 1, 7, 3];
    store.append_audit(&[record(4)], None).await.unwrap();
    let mut last = uuid(4);
    let mut seen = Vec::new();
    for pair in written.chunks(2) {
        let records: Vec<_> = pair.iter().map(|n| record(*n)).collect();
        store.append_audit(&records, None).await.unwrap();
        loop {
            let next = AuditFilter {
                after: Some(last),
                limit: 1,
                ..AuditFilter::default()
            };
            let Some(id) = ids(store, next).await.pop() else {
                break;
            };
            last = id;
            seen.push(id);
        }
    }
    assert_eq!(seen, written.map(uuid));
    let lost = AuditFilter {
        after: Some(uuid(99)),
        ..AuditFilter::default()
    };
    let refused = store.query_audit(&lost).await;
    assert_eq!(
        refused,
        Err(AuditLogError::UnknownPosition { id: uuid(99) })
    );
}

pub(super) async fn a_batch_is_written_once_however_often_it_is_tried(store: &dyn Store) {
    let journal = uuid(70);
    let batch = |range: std::ops::RangeInclusive<u64>| range.map(record).collect::<Vec<_>>();
    let mark = |applied| Some(JournalMark { journal, applied });
    assert_eq!(store.journal_applied(journal).await.unwrap(), 0);
    store
        .append_audit(&batch(1..=100), mark(100))
        .await
        .unwrap();
    store
        .append_audit(&batch(1..=100), mark(100))
        .await
        .unwrap();
    store.append_audit(&batch(51..=60), mark(60)).await.unwrap();
    store
        .append_audit(&batch(101..=150), mark(150))
        .await
        .unwrap();
    store.append_audit(&[], mark(160)).await.unwrap();
    assert_eq!(store.journal_applied(journal).await.unwrap(), 160);
    assert_eq!(store.journal_applied(uuid(71)).await.unwrap(), 0);
    let rows = log(store).await;
    let found: Vec<_> = rows.iter().map(|row| row.record.id).collect();
    assert_eq!(found, (1..=150).map(uuid).collect::<Vec<_>>());
    // An id that is there already holds nothing up, whatever it is there for.
    store
        .append_audit(&batch(149..=152), mark(170))
        .await
        .unwrap();
    let rows = log(store).await;
    assert_eq!(rows.len(), 152);
}

pub(super) async fn extreme_records_are_accepted(store: &dyn Store) {
    let nothing_known = AuditRecord {
        direction: Direction::Admin,
        request_id: AuditText::short(""),
        ..record(1)
    };
    let everything_huge = AuditRecord {
        attempt: u32::MAX,
        http_status: Some(u16::MAX),
        rows_returned: u64::MAX,
        rows_withheld: u64::MAX,
        bytes_out: u64::MAX,
        latency_us: u64::MAX,
        revision: Some(u64::MAX),
        verb: Some(AuditText::long(&"\u{0}".repeat(5000))),
        at: policy::time::UnixMillis(i64::MIN),
        ..full(2)
    };
    store
        .append_audit(&[nothing_known, everything_huge], None)
        .await
        .unwrap();
    let rows = log(store).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1].record.bytes_out, u64::try_from(i64::MAX).unwrap());
}
