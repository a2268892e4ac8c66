//! Audit rows from before there were chains: what the first schema held is read by this program as it was written.

use policy::id::{PeerId, SubjectId};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, SqlSafeStr};

use super::super::open::MIGRATIONS;
use super::*;
use crate::audit::archive::{ColdWriter, LogReader, Manifests, Shelf};
use crate::audit::chain::{ChainKey, Report, Verifier};
use crate::audit::{AuditDetail, AuditOutcome, AuditText, Direction};

/// A database as the first version left it, with these statements run on it.
async fn first_version(path: &Path, statements: &str) {
    std::fs::write(path, "").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut database = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path)
        .connect()
        .await
        .unwrap();
    let (version, name, sql) = MIGRATIONS[0];
    let first = Migration::new(
        version,
        name.into(),
        MigrationType::Simple,
        sql.into_sql_str(),
        false,
    );
    Migrator::with_migrations(vec![first])
        .run_direct(None, &mut database, false)
        .await
        .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned()))
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
}

/// A statement that writes a record as the first version did: ids of others as text, no count, no chain.
fn insert(position: i64, record: &AuditRecord) -> String {
    let text = |text: Option<String>| text.map_or("NULL".to_owned(), |text| format!("'{text}'"));
    let words = |text: &Option<AuditText>| text.as_ref().map(|text| text.as_str().to_owned());
    let number =
        |number: Option<u64>| number.map_or("NULL".to_owned(), |number| number.to_string());
    let values = [
        position.to_string(),
        format!("x'{}'", record.id.simple()),
        record.at.0.to_string(),
        text(Some(record.request_id.as_str().to_owned())),
        text(words(&record.peer_request_id)),
        record.attempt.to_string(),
        text(Some(record.direction.as_str().to_owned())),
        text(record.peer.map(|id| id.to_string())),
        text(record.grant.map(|id| id.to_string())),
        text(record.subject.map(|id| id.to_string())),
        text(words(&record.verb)),
        text(words(&record.resource)),
        record.query_hash.map_or("NULL".to_owned(), |hash| {
            format!("x'{}'", hex::encode(hash))
        }),
        text(Some(record.outcome.as_str().to_owned())),
        text(words(&record.deny_stage)),
        text(words(&record.deny_code)),
        number(record.http_status.map(u64::from)),
        record.rows_returned.to_string(),
        record.rows_withheld.to_string(),
        record.bytes_out.to_string(),
        record.latency_us.to_string(),
        number(record.revision),
        text(words(&record.action)),
        text(words(&record.actor)),
        text(record.detail.as_ref().map(AuditDetail::to_json)),
    ];
    format!(
        "INSERT INTO federation_audit_log (position, id, at, request_id, peer_request_id, attempt, direction, peer_id, \
         grant_id, subject_user_id, verb, resource, query_hash, outcome, deny_stage, deny_code, http_status, \
         rows_returned, rows_withheld, bytes_out, latency_us, revision, action, actor, detail) VALUES ({});\n",
        values.join(", ")
    )
}

/// Records of each kind that the first version wrote.
fn records() -> Vec<AuditRecord> {
    let of = |n: u64, direction, outcome, request: &str| {
        AuditRecord::new(uuid(n), NOW, direction, outcome, AuditText::short(request))
    };
    let own = uuid(1).to_string();
    let mut allowed = of(1, Direction::Inbound, AuditOutcome::Allowed, &own);
    allowed.peer_request_id = Some(AuditText::fixed("theirs"));
    allowed.attempt = 2;
    allowed.peer = Some(PeerId::new(uuid(10)));
    allowed.grant = Some(GrantId::new(uuid(11)));
    allowed.subject = Some(SubjectId::new(uuid(12)));
    allowed.verb = Some(AuditText::fixed("list"));
    allowed.resource = Some(AuditText::fixed("tasks"));
    allowed.query_hash = Some([9; 32]);
    allowed.http_status = Some(200);
    allowed.rows_returned = 20;
    allowed.rows_withheld = 1;
    allowed.bytes_out = 4096;
    allowed.latency_us = 700;
    allowed.revision = Some(3);
    let mut denied = of(2, Direction::Outbound, AuditOutcome::Denied, "ours");
    denied.deny_stage = Some(AuditText::fixed("scope"));
    denied.deny_code = Some(AuditText::fixed("ceiling"));
    denied.http_status = Some(403);
    let mut act = of(
        3,
        Direction::Admin,
        AuditOutcome::Allowed,
        &uuid(3).to_string(),
    );
    act.action = Some(AuditText::fixed("grant.revoke"));
    act.actor = Some(AuditText::fixed("uid:0"));
    act.detail = Some(
        AuditDetail::new()
            .text("reason", "left")
            .count("certificates", 1),
    );
    // An id that only looks like the record's own.
    let upper = uuid(4).to_string().to_uppercase();
    let failed = of(4, Direction::Inbound, AuditOutcome::Error, &upper);
    let other = uuid(1).to_string();
    let aborted = of(5, Direction::Inbound, AuditOutcome::Aborted, &other);
    vec![allowed, denied, act, failed, aborted]
}

async fn verified(store: &SqliteStore, shelf: &Shelf, key: &ChainKey) -> (Report, Manifests) {
    let (mut verifier, mut manifests) = (Verifier::new(key), Manifests::default());
    for head in store.chain_heads().await.unwrap() {
        verifier.expect(head);
    }
    let mut reader = LogReader::new(Arc::new(store.clone()), shelf.clone());
    while let Some(page) = reader.next().await.unwrap() {
        for row in &page.rows {
            verifier.push(row);
            manifests.see(row);
        }
    }
    (verifier.finish(), manifests)
}

#[tokio::test]
async fn rows_from_before_the_chain_are_kept_counted_and_moved() {
    let (home, path) = home();
    let records = records();
    let positions = [1, 2, 5, 6, 9];
    let statements: String = positions
        .iter()
        .zip(&records)
        .map(|(position, record)| insert(*position, record))
        .collect();
    first_version(&path, &statements).await;
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let rows = store.read_audit(i64::MIN, 100).await.unwrap();
    let kept: Vec<_> = rows.iter().map(|row| row.record.clone()).collect();
    assert_eq!(kept, records);
    assert!(rows.iter().map(|row| row.position).eq(positions));
    assert!(rows.iter().all(|row| row.link.is_none()));
    // They are found by every id they had.
    for (request, ids) in [
        (uuid(1).to_string(), vec![uuid(1), uuid(5)]),
        ("theirs".to_owned(), vec![uuid(1)]),
        ("ours".to_owned(), vec![uuid(2)]),
        (uuid(3).to_string(), vec![uuid(3)]),
        (uuid(4).to_string(), vec![]),
        (uuid(4).to_string().to_uppercase(), vec![uuid(4)]),
    ] {
        let filter = AuditFilter {
            request_id: Some(request.clone()),
            ..AuditFilter::default()
        };
        let found = store.query_audit(&filter).await.unwrap();
        let found: Vec<_> = found.iter().map(|row| row.record.id).collect();
        assert_eq!(found, ids, "{request}");
    }
    let filter = AuditFilter {
        grant: Some(GrantId::new(uuid(11))),
        peer: Some(PeerId::new(uuid(10))),
        ..AuditFilter::default()
    };
    assert_eq!(store.query_audit(&filter).await.unwrap().len(), 1);

    // What is written from now on is in a chain; of what is older, only that it is there can be said.
    let key = Arc::new(ChainKey::new(&[5; 32]));
    let beginning = ChainBeginning {
        act: act(1),
        chain: uuid(800),
        key: Arc::clone(&key),
        new_secrets: Vec::new(),
    };
    let _ = store.begin_chain(&beginning).await.unwrap();
    let _ = store.create_grant(&act(2), grant(1)).await.unwrap();
    let shelf = Shelf {
        dir: home.path().join("archive"),
        store: uuid(1),
    };
    let (report, _) = verified(&store, &shelf, &key).await;
    assert_eq!(report.finding, None);
    assert_eq!((report.unlinked, report.verified), (5, 2));

    // In the archive they are under the protection of a manifest.
    let lock = shelf.take().unwrap();
    let mut writer = ColdWriter::begin(&shelf, 1).unwrap();
    for row in &store.read_audit(i64::MIN, 6).await.unwrap() {
        assert!(writer.push(row).unwrap());
    }
    let finished = writer.finish().unwrap().unwrap();
    finished.rename().unwrap();
    drop(lock);
    let _ = store
        .archive_audit(&act(3), finished.manifest())
        .await
        .unwrap();
    let (report, manifests) = verified(&store, &shelf, &key).await;
    assert_eq!(report.finding, None);
    assert_eq!((report.unlinked, report.verified), (5, 3));
    let files = store.cold_files().await.unwrap();
    assert_eq!(manifests.disagreement(1, &files), None);
}
