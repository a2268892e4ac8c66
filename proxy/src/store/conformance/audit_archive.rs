//! Laws of moving audit rows into the archive, and of reading a log of which rows were moved.

use std::sync::Arc;

use policy::id::{GrantId, PeerId};

use super::super::{ChainBeginning, Store, StoreError};
use super::fixture::*;
use crate::audit::archive::{
    ColdFile, ColdWriter, LogReader, Manifest, Manifests, Shelf, query_history,
};
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey, Verifier};
use crate::audit::{
    AuditFilter, AuditLog, AuditOutcome, AuditRecord, AuditRow, AuditText, Direction,
};

fn key() -> Arc<ChainKey> {
    Arc::new(ChainKey::new(&[5; CHAIN_KEY_LEN]))
}

/// The n-th record, n seconds after the start; of three kinds.
fn record(n: u64) -> AuditRecord {
    let text = AuditText::short(&uuid(n).to_string());
    let at = after(i64::try_from(n).unwrap() * 1_000);
    let mut record = AuditRecord::new(
        uuid(n),
        at,
        Direction::ALL[usize::try_from(n % 2).unwrap()],
        AuditOutcome::ALL[usize::try_from(n % 3).unwrap()],
        text,
    );
    record.peer_request_id = n
        .is_multiple_of(5)
        .then(|| AuditText::short(&format!("theirs-{n}")));
    record.grant = n.is_multiple_of(2).then(|| GrantId::new(uuid(7)));
    record.peer = n.is_multiple_of(3).then(|| PeerId::new(uuid(8)));
    record.verb = Some(AuditText::fixed(if n.is_multiple_of(2) {
        "list"
    } else {
        "get"
    }));
    record.resource = (!n.is_multiple_of(4)).then(|| AuditText::fixed("tasks"));
    record.deny_code = (n % 3 == 1).then(|| AuditText::fixed("ceiling"));
    record
}

/// A store with `count` records behind the beginning of its chain.
async fn fill(store: &dyn Store, count: u64) {
    let beginning = ChainBeginning {
        act: act(500),
        chain: uuid(800),
        key: key(),
        new_secrets: Vec::new(),
    };
    let _ = store.begin_chain(&beginning).await.unwrap();
    let records: Vec<_> = (1..=count).map(record).collect();
    store.append_audit(&records, None).await.unwrap();
}

fn shelf(home: &tempfile::TempDir) -> Shelf {
    Shelf {
        dir: home.path().join("archive"),
        store: uuid(0),
    }
}

/// Writes the rows up to a position into the next file, without telling the store.
async fn write(store: &dyn Store, shelf: &Shelf, upto: i64) -> Manifest {
    let lock = shelf.take().unwrap();
    let files = store.cold_files().await.unwrap();
    let number = files.last().map_or(0, |file| file.number) + 1;
    let after = files.last().map_or(i64::MIN, |file| file.last_position);
    let mut writer = ColdWriter::begin(shelf, number).unwrap();
    for row in store.read_audit(after, 10_000).await.unwrap() {
        if row.position <= upto {
            assert!(writer.push(&row).unwrap());
        }
    }
    let finished = writer.finish().unwrap().unwrap();
    finished.rename().unwrap();
    drop(lock);
    finished.manifest().clone()
}

async fn move_upto(store: &dyn Store, shelf: &Shelf, n: u64, upto: i64) {
    let manifest = write(store, shelf, upto).await;
    changed(store.archive_audit(&act_at(n, 0), &manifest).await);
}

async fn whole(store: &Arc<dyn Store>, shelf: &Shelf) -> Vec<AuditRow> {
    let log = Arc::clone(store) as Arc<dyn AuditLog>;
    let mut reader = LogReader::new(log, shelf.clone());
    let mut rows = Vec::new();
    while let Some(page) = reader.next().await.unwrap() {
        rows.extend(page.rows);
    }
    rows
}

pub(super) async fn rows_leave_with_their_manifest_or_stay(store: Arc<dyn Store>) {
    let home = tempfile::tempdir().unwrap();
    let shelf = shelf(&home);
    fill(&*store, 30).await;
    let before = log(&*store).await;
    let manifest = write(&*store, &shelf, before[10].position).await;
    let file = &manifest.file;
    // A manifest that does not fit the rows, or the list, moves nothing.
    for wrong in [
        ColdFile {
            number: 2,
            ..file.clone()
        },
        ColdFile {
            rows: file.rows - 1,
            ..file.clone()
        },
        ColdFile {
            first_position: file.first_position + 1,
            ..file.clone()
        },
        ColdFile {
            last_position: file.last_position + 1,
            ..file.clone()
        },
    ] {
        let chains = manifest.chains.clone();
        let wrong = Manifest {
            file: wrong,
            chains,
        };
        let refused = store.archive_audit(&act(600), &wrong).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(log(&*store).await, before);
    assert_eq!(store.cold_files().await.unwrap(), []);

    let revision = store.revision().await.unwrap();
    changed(store.archive_audit(&act(600), &manifest).await);
    assert_eq!(store.revision().await.unwrap(), revision + 1);
    assert_eq!(
        store.cold_files().await.unwrap(),
        std::slice::from_ref(file)
    );
    let left = log(&*store).await;
    assert_eq!(left[..left.len() - 1], before[11..]);
    assert_eq!(Manifest::of(left.last().unwrap()).as_ref(), Some(&manifest));
    let again = store.archive_audit(&act(601), &manifest).await;
    assert!(
        matches!(again, Err(StoreError::Conflict { .. })),
        "{again:?}"
    );
    // All of it together is the log as it was, and what was added.
    let all = whole(&store, &shelf).await;
    assert_eq!(all[..before.len()], before);
    assert_eq!(all.len(), before.len() + 1);
}

pub(super) async fn a_chain_verifies_through_the_archive(store: Arc<dyn Store>) {
    let home = tempfile::tempdir().unwrap();
    let shelf = shelf(&home);
    fill(&*store, 40).await;
    let rows = log(&*store).await;
    for (n, upto) in [(0, 5), (1, 20), (2, 40)] {
        move_upto(&*store, &shelf, 600 + n, rows[upto].position).await;
    }
    // The manifests of earlier files move in their turn; nothing but the last one is left.
    let last = log(&*store).await.last().unwrap().position;
    move_upto(&*store, &shelf, 700, last).await;
    assert_eq!(log(&*store).await.len(), 1);
    let (key, mut manifests) = (key(), Manifests::default());
    let mut verifier = Verifier::new(&key);
    for head in store.chain_heads().await.unwrap() {
        verifier.expect(head);
    }
    for row in whole(&store, &shelf).await {
        verifier.push(&row);
        manifests.see(&row);
    }
    let report = verifier.finish();
    assert_eq!((report.finding, report.verified), (None, 45));
    let files = store.cold_files().await.unwrap();
    assert_eq!(manifests.disagreement(4, &files), None);
    // What is written now goes on behind it.
    store.append_audit(&[record(99)], None).await.unwrap();
    assert_eq!(whole(&store, &shelf).await.len(), 46);
}

/// Filters of every kind, alone and together.
fn filters() -> Vec<AuditFilter> {
    let any = AuditFilter::default;
    let mut filters = vec![any()];
    for n in [0, 1, 9, 25, 60] {
        let at = Some(after(n * 1_000));
        filters.push(AuditFilter { since: at, ..any() });
        filters.push(AuditFilter { until: at, ..any() });
        let until = Some(after(n * 1_000 + 7_500));
        filters.push(AuditFilter {
            since: at,
            until,
            ..any()
        });
    }
    filters.extend([
        AuditFilter {
            grant: Some(GrantId::new(uuid(7))),
            ..any()
        },
        AuditFilter {
            peer: Some(PeerId::new(uuid(8))),
            ..any()
        },
        AuditFilter {
            verb: Some("get".to_owned()),
            ..any()
        },
        AuditFilter {
            verb: Some("GET".to_owned()),
            ..any()
        },
        AuditFilter {
            resource: Some("tasks".to_owned()),
            ..any()
        },
        AuditFilter {
            code: Some("ceiling".to_owned()),
            ..any()
        },
        AuditFilter {
            request_id: Some(uuid(12).to_string()),
            ..any()
        },
        AuditFilter {
            request_id: Some(uuid(12).to_string().to_uppercase()),
            ..any()
        },
        AuditFilter {
            request_id: Some("theirs-15".to_owned()),
            ..any()
        },
    ]);
    filters.extend(Direction::ALL.map(|one| AuditFilter {
        direction: Some(one),
        ..any()
    }));
    filters.extend(AuditOutcome::ALL.map(|one| AuditFilter {
        outcome: Some(one),
        ..any()
    }));
    let places = [1, 9, 10, 11, 33, 40].map(uuid);
    let alone = filters.clone();
    for filter in &alone {
        for limit in [1, 3, 12] {
            filters.push(AuditFilter {
                limit,
                ..filter.clone()
            });
            let oldest_first = true;
            filters.push(AuditFilter {
                limit,
                oldest_first,
                ..filter.clone()
            });
            for place in places {
                let after = Some(place);
                filters.push(AuditFilter {
                    limit,
                    after,
                    ..filter.clone()
                });
            }
        }
    }
    filters
}

pub(super) async fn history_finds_what_would_be_found_if_nothing_had_been_moved(
    store: Arc<dyn Store>,
) {
    let home = tempfile::tempdir().unwrap();
    let shelf = shelf(&home);
    fill(&*store, 45).await;
    let rows = log(&*store).await;
    let mut expected = Vec::new();
    for filter in filters() {
        let found = store.query_audit(&filter).await.unwrap();
        // What a file is searched by agrees with the statement.
        let all: Vec<_> = rows.iter().filter(|row| filter.matches(row)).collect();
        assert!(found.iter().all(|row| all.contains(&row)), "{filter:?}");
        if filter.after.is_none() {
            let most = usize::try_from(filter.limit).unwrap();
            assert_eq!(found.len(), all.len().min(most), "{filter:?}");
        }
        expected.push((filter, found));
    }
    for (n, upto) in [(0, 9), (1, 10), (2, 33)] {
        move_upto(&*store, &shelf, 600 + n, rows[upto].position).await;
        // Rows that were added meanwhile are later than all of these.
        let newest = rows.last().unwrap().position;
        for (filter, expected) in &expected {
            let wider = AuditFilter {
                limit: filter.limit + 3,
                ..filter.clone()
            };
            let mut found = query_history(&*store, &shelf, &wider).await.unwrap();
            found.retain(|row| row.position <= newest);
            let most = usize::try_from(filter.limit).unwrap();
            if filter.oldest_first || filter.after.is_some() {
                found.truncate(most);
            } else if found.len() > most {
                found.drain(..found.len() - most);
            }
            assert_eq!(&found, expected, "{n}: {filter:?}");
        }
    }
    let lost = AuditFilter {
        after: Some(uuid(4_000)),
        ..AuditFilter::default()
    };
    let refused = query_history(&*store, &shelf, &lost).await.unwrap_err();
    assert!(refused.to_string().contains("no audit record"), "{refused}");
    std::fs::remove_file(shelf.path(2)).unwrap();
    let named = query_history(&*store, &shelf, &AuditFilter::default()).await;
    let named = named.unwrap_err().to_string();
    assert!(named.contains("`00000002.audit.zst` is missing"), "{named}");
}

pub(super) async fn only_what_is_old_is_due(store: Arc<dyn Store>) {
    let at = |seconds: i64| {
        let mut record = record(u64::try_from(seconds.rem_euclid(900)).unwrap() + 1_000);
        record.at = after(seconds * 1_000);
        record
    };
    let due = async |before: i64, now: i64, most: u64| {
        let (before, now) = (after(before * 1_000), after(now * 1_000));
        let upto = store.due_for_archive(before, now, most).await.unwrap();
        let rows = log(&*store).await;
        rows.iter().filter(|row| Some(row.position) <= upto).count()
    };
    assert_eq!(due(100, 100, 10).await, 0, "nothing there");
    // Ends come a little out of order; 700 and 701 were written while the clock was wrong.
    let written = [10, 12, 11, 700, 13, 701, 30, 14, 31, 702];
    let records: Vec<_> = written.into_iter().map(at).collect();
    store.append_audit(&records, None).await.unwrap();
    assert_eq!(due(5, 100, 50).await, 0);
    assert_eq!(due(10, 100, 50).await, 0, "not older");
    assert_eq!(
        due(12, 100, 50).await,
        1,
        "the first that is not old ends it"
    );
    assert_eq!(
        due(20, 100, 50).await,
        5,
        "a time that has not come holds nothing up, nor does it go by itself"
    );
    assert_eq!(due(20, 800, 50).await, 3, "it has come");
    assert_eq!(due(40, 100, 50).await, 9);
    assert_eq!(due(40, 100, 4).await, 3, "so many at once");
    assert_eq!(due(900, 900, 50).await, 10);
}

pub(super) async fn moving_that_is_cut_off_is_whole_or_absent(store: Arc<dyn Store>) {
    let home = tempfile::tempdir().unwrap();
    let shelf = shelf(&home);
    fill(&*store, 300).await;
    let total = log(&*store).await.len();
    let (mut done, mut cut) = (0, 0);
    let mut manifests = 0;
    for n in 0..90_u64 {
        let first = log(&*store).await[0].position;
        let manifest = write(&*store, &shelf, first + 1).await;
        let times = usize::try_from(n % 30).unwrap();
        let act = act(10_000 + n);
        if super::atomic::cut_off(store.archive_audit(&act, &manifest), times).await {
            done += 1;
        } else {
            cut += 1;
        }
        // Takes its turn behind whatever the dropped call left under way.
        store.health().await.unwrap();
        let listed = store.cold_files().await.unwrap();
        manifests = listed.len();
        let archived: u64 = listed.iter().map(|file| file.rows).sum();
        let there = log(&*store).await.len();
        let all = there + usize::try_from(archived).unwrap();
        assert_eq!(all, total + manifests, "cut off after {times}");
    }
    assert!(
        done > 0 && cut > 0,
        "{done} done, {cut} cut off: the law was not tried"
    );
    assert_eq!(whole(&store, &shelf).await.len(), total + manifests);
}
