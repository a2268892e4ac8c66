//! What only a store in a file can get wrong: its mode, its schema, a second process, a crash.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod migration;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use policy::id::{GrantId, PeerId, UserId};
use policy::scope::Scope;
use policy::time::UnixMillis;
use sqlx::Connection;
use uuid::Uuid;

use super::*;
use crate::audit::{AuditFilter, AuditLog, AuditRecord};
use crate::store::{Act, Actor, ChainBeginning, NewGrant, NewToken, OpenError, Store, TokenClaim};

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn uuid(n: u64) -> Uuid {
    Uuid::from_u64_pair(0x018b_cfe5_6800_7000, 0x8000_0000_0000_0000 | n << 20)
}

fn act(n: u64) -> Act {
    Act {
        id: uuid(1000 + n),
        actor: Actor::Sidecar("test"),
        now: NOW,
    }
}

fn grant(n: u64) -> NewGrant {
    NewGrant {
        id: GrantId::new(uuid(100 + n)),
        peer_name: "home".parse().unwrap(),
        peer_id: PeerId::new(uuid(200)),
        user: UserId::parse("amira").unwrap(),
        scope: Scope::parse(&serde_json::json!({"resources": ["tasks"]}), &[]).unwrap(),
        expires_at: None,
    }
}

fn options(path: &Path) -> SqliteOptions {
    let mut options = SqliteOptions::new(path, uuid(1), NOW);
    options.busy_timeout = Duration::from_millis(50);
    options
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    (home, path)
}

#[tokio::test]
async fn nobody_else_can_read_any_file_of_the_store() {
    let (home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 2, "the write-ahead log is looked at too");
}

#[tokio::test]
async fn a_file_that_others_can_read_is_refused() {
    let (_home, path) = home();
    drop(SqliteStore::open(&options(&path)).await.unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = SqliteStore::open(&options(&path)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::LooseMode { mode: 0o640, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let (home, _) = home();
    let path = home.path().join("missing/store.db");
    let refused = SqliteStore::open(&options(&path)).await.unwrap_err();
    assert!(matches!(refused, OpenError::File { .. }), "{refused}");
    assert!(refused.to_string().contains("missing/store.db"));
}

#[tokio::test]
async fn the_schema_goes_forward_only() {
    let (_home, path) = home();
    let to = open::known();
    let first = SqliteStore::migrate(&options(&path)).await.unwrap();
    assert_eq!(first, Migrated { from: None, to });
    let again = SqliteStore::migrate(&options(&path)).await.unwrap();
    let from = Some(to);
    assert_eq!(again, Migrated { from, to });

    let store = SqliteStore::open(&options(&path)).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (?, 'later', 1, x'00', 0)",
    )
    .bind(to + 1)
    .execute(&mut store.write().await.unwrap().connection)
    .await
    .unwrap();
    let refused = SqliteStore::open(&options(&path)).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerSchema { found, known, .. } if (found, known) == (to + 1, to)),
        "{refused}"
    );
}

#[tokio::test]
async fn a_migration_that_was_changed_afterwards_is_refused() {
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET checksum = x'00'")
        .execute(&mut store.write().await.unwrap().connection)
        .await
        .unwrap();
    let refused = SqliteStore::open(&options(&path)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Migration { .. }), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_home, path) = home();
    std::fs::write(
        &path,
        "a letter to a friend, long enough to be looked at ".repeat(20),
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&options(&path)).await.unwrap_err();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let record = store.create_grant(&act(1), grant(1)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), record.revision);
    assert_eq!(store.grant(grant(1).id).await.unwrap(), record.value);
}

/// The files as a crash would leave them, in the middle of a change.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_change_leaves_the_state_before() {
    let (home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    let crashed = home.path().join("crashed.db");
    {
        let mut writer = store.write().await.unwrap();
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::query("UPDATE meta SET revision = revision + 1")
            .execute(&mut *tx)
            .await
            .unwrap();
        // Larger than the page cache, so that half of the change is in the log on disk.
        sqlx::query("PRAGMA cache_size = 2")
            .execute(&mut *tx)
            .await
            .unwrap();
        for generation in 0..40 {
            sqlx::query("INSERT INTO secrets VALUES ('ca_key', 'x', ?, zeroblob(65536), 0)")
                .bind(generation)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        let log = std::fs::metadata(format!("{}-wal", path.display())).unwrap();
        assert!(log.len() > 1 << 20, "the change never reached the disk");
        for suffix in ["", "-wal"] {
            let from = format!("{}{suffix}", path.display());
            std::fs::copy(from, format!("{}{suffix}", crashed.display())).unwrap();
        }
        tx.commit().await.unwrap();
    }
    assert_eq!(store.revision().await.unwrap(), 2);
    let after = SqliteStore::open(&options(&crashed)).await.unwrap();
    assert_eq!(after.revision().await.unwrap(), 1);
    assert_eq!(after.list_grants().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_second_writer_is_busy_not_broken_and_readers_go_on() {
    let (_home, path) = home();
    let (one, two) = (
        SqliteStore::open(&options(&path)).await.unwrap(),
        SqliteStore::open(&options(&path)).await.unwrap(),
    );
    let mut writer = one.write().await.unwrap();
    let tx = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(
        two.create_grant(&act(1), grant(1)).await.unwrap_err(),
        StoreError::Busy
    );
    assert_eq!(two.health().await, Err(StoreError::Busy));
    assert_eq!(two.revision().await.unwrap(), 0);
    tx.rollback().await.unwrap();
    drop(writer);
    two.health().await.unwrap();
    let committed = two.create_grant(&act(1), grant(1)).await.unwrap();
    assert_eq!((committed.revision, one.revision().await.unwrap()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claims_over_two_processes_one_wins() {
    let (_home, path) = home();
    let mut patient = options(&path);
    patient.busy_timeout = Duration::from_secs(20);
    let stores = [
        SqliteStore::open(&patient).await.unwrap(),
        SqliteStore::open(&patient).await.unwrap(),
    ];
    let _ = stores[0].create_grant(&act(1), grant(1)).await.unwrap();
    let token = NewToken {
        grant: grant(1).id,
        sha256: [3; 32],
        prefix: "03030303".to_owned(),
        expires_at: UnixMillis(NOW.0 + 900_000),
    };
    let _ = stores[0].create_token(&act(2), token).await.unwrap();
    let claims = (0..64).map(|n| {
        let store = stores[n % 2].clone();
        let act = act(10 + u64::try_from(n).unwrap());
        tokio::spawn(async move { store.claim_token(&act, &[3; 32]).await.unwrap().value })
    });
    let claims: Vec<_> = join_all(claims)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let won = claims
        .iter()
        .filter(|claim| matches!(claim, TokenClaim::Claimed(_)));
    assert_eq!(won.count(), 1);
    let used = claims.iter().filter(|claim| **claim == TokenClaim::Used);
    assert_eq!(used.count(), 63);
}

#[tokio::test]
async fn a_row_edited_by_hand_fails_the_whole_image() {
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    let _ = store.create_grant(&act(2), grant(2)).await.unwrap();
    sqlx::query("UPDATE grants SET scope = '{\"resources\":[\"everything\"]}' WHERE id = ?")
        .bind(grant(2).id.to_string())
        .execute(&mut store.write().await.unwrap().connection)
        .await
        .unwrap();
    let refused = store.load(NOW).await.unwrap_err();
    assert!(
        matches!(
            refused,
            StoreError::Corrupt {
                table: "grants",
                ..
            }
        ),
        "{refused}"
    );
    store.grant(grant(1).id).await.unwrap();
}

#[tokio::test]
async fn readers_cannot_write() {
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let mut reader = store.read().await.unwrap();
    let refused = sqlx::query("UPDATE meta SET revision = 9")
        .execute(&mut *reader)
        .await;
    assert!(refused.is_err());
    assert_eq!(store.revision().await.unwrap(), 0);
}

#[tokio::test]
async fn every_setting_of_the_writer_is_in_force() {
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let mut writer = store.write().await.unwrap();
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut writer.connection)
        .await
        .unwrap();
    assert_eq!(journal, "wal");
    let numbers = [
        ("PRAGMA synchronous", 2i64),
        ("PRAGMA foreign_keys", 1),
        ("PRAGMA busy_timeout", 50),
    ];
    for (pragma, expected) in numbers {
        let value: i64 = sqlx::query_scalar(pragma)
            .fetch_one(&mut writer.connection)
            .await
            .unwrap();
        assert_eq!(value, expected, "{pragma}");
    }
}

#[tokio::test]
async fn a_full_audit_batch_holds_the_writer_only_briefly() {
    use crate::audit::{AuditOutcome, AuditText, Direction};
    let (_home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let mut in_time = 0;
    for round in 0..5u64 {
        let records: Vec<_> = (0..512)
            .map(|n| {
                let id = uuid(10_000 + round * 512 + n);
                let request = AuditText::short(&id.to_string());
                let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
                let mut record = AuditRecord::new(id, NOW, inbound, allowed, request);
                record.grant = Some(grant(1).id);
                record.verb = Some(AuditText::fixed("list"));
                record.query_hash = Some([1; 32]);
                record
            })
            .collect();
        // Measured at 5 ms; the rest is room for a slow disk and a busy machine, which may hold up some of them.
        let bound = Duration::from_millis(500);
        let written = tokio::time::timeout(bound, store.append_audit(&records, None)).await;
        in_time += u32::from(written.is_ok_and(|written| written.is_ok()));
    }
    assert!(in_time >= 2, "{in_time} of 5 in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_record_becomes_visible_by_itself() {
    use crate::audit::{AuditOutcome, AuditText, Direction, fixture};
    let (home, path) = home();
    let store = SqliteStore::open(&options(&path)).await.unwrap();
    let log: Arc<dyn AuditLog> = Arc::new(store.clone());
    let (sink, writer) = fixture::writer_in(home.path(), Arc::clone(&log));
    let request = AuditText::fixed("request");
    let (inbound, allowed) = (Direction::Inbound, AuditOutcome::Allowed);
    let record = AuditRecord::new(uuid(1), NOW, inbound, allowed, request);
    sink.reserve().unwrap().settle(&record);
    let visible = async {
        while log
            .query_audit(&AuditFilter::default())
            .await
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    // How soon is shown by `tests/suite/audit_visible.rs`.
    tokio::time::timeout(Duration::from_secs(20), visible)
        .await
        .expect("not visible in time");
    // Changes and batches share the writer without harm.
    let _ = store.create_grant(&act(1), grant(1)).await.unwrap();
    writer.drain(Duration::from_secs(5)).await.unwrap();
    let rows = log.query_audit(&AuditFilter::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
}
