//! Opening the database: file mode, migrations, connections.
//!
//! Invariant: nobody but the owner can read the file, a database newer than the program is never touched, and
//! migrations only go forward. The schema itself is in `migrations/sqlite/`.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::time::UnixMillis;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr, SqliteConnection};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::super::{OpenError, StoreError};
use super::SqliteStore;
use super::beside::Beside;
use super::dialect::driver;
use super::writer::{FilePlace, Writer};

/// All migrations this program knows: version, name, text.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "initial",
        include_str!("../../../../migrations/sqlite/0001_initial.sql"),
    ),
    (
        2,
        "audit chain",
        include_str!("../../../../migrations/sqlite/0002_audit_chain.sql"),
    ),
    (
        3,
        "longest lease",
        include_str!("../../../../migrations/sqlite/0003_longest_lease.sql"),
    ),
    (
        4,
        "audit decision",
        include_str!("../../../../migrations/sqlite/0004_audit_decision.sql"),
    ),
    (
        5,
        "rows seen",
        include_str!("../../../../migrations/sqlite/0005_rows_seen.sql"),
    ),
    (
        6,
        "renewal",
        include_str!("../../../../migrations/sqlite/0006_renewal.sql"),
    ),
    (
        7,
        "grant history",
        include_str!("../../../../migrations/sqlite/0007_grant_history.sql"),
    ),
    (
        8,
        "audit archive",
        include_str!("../../../../migrations/sqlite/0008_audit_archive.sql"),
    ),
    (
        9,
        "sealing",
        include_str!("../../../../migrations/sqlite/0009_sealing.sql"),
    ),
    (
        10,
        "trust",
        include_str!("../../../../migrations/sqlite/0010_trust.sql"),
    ),
    (
        11,
        "revocation",
        include_str!("../../../../migrations/sqlite/0011_revocation.sql"),
    ),
    (
        12,
        "replicas",
        include_str!("../../../../migrations/sqlite/0012_replicas.sql"),
    ),
    (
        13,
        "server_certificates",
        include_str!("../../../../migrations/sqlite/0013_server_certificates.sql"),
    ),
];

/// How long a heartbeat waits for another's lock.
const DIRECT_PATIENCE: Duration = Duration::from_millis(500);

/// Where the store is and what a fresh one starts with.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file; created with mode 0600 when missing, its directory is not.
    pub path: PathBuf,
    /// The id a fresh store gets; ignored by one that exists.
    pub store_id: Uuid,
    /// The time a fresh store is created at.
    pub now: UnixMillis,
    /// How long a statement waits for another process's lock.
    pub busy_timeout: Duration,
    /// Reader connections, at least 1.
    pub readers: u32,
}

impl SqliteOptions {
    /// Five seconds of patience and four readers.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store_id: Uuid, now: UnixMillis) -> Self {
        Self {
            path: path.into(),
            store_id,
            now,
            busy_timeout: Duration::from_secs(5),
            readers: 4,
        }
    }

    fn writer(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // What does not fit in memory would go to a file in a shared directory.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(self.busy_timeout)
    }

    /// For what need not outlive a power cut: a commit does not wait for the disk.
    fn direct(&self) -> SqliteConnectOptions {
        self.writer()
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(DIRECT_PATIENCE)
    }

    fn reader(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(false)
            .read_only(true)
            // Rows are handed over from a thread: in larger lots, so that reading all grants is not a switch for every few.
            .row_buffer_size(1_024)
            .pragma("temp_store", "MEMORY")
            .busy_timeout(self.busy_timeout)
    }
}

/// What bringing the schema up to date did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The newest migration before; `None` for a fresh database.
    pub from: Option<i64>,
    /// The newest migration now.
    pub to: i64,
}

impl SqliteStore {
    /// Opens the store, creating it and bringing its schema up to date where needed.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed in a database that is newer than this program or open to others.
    pub async fn open(options: &SqliteOptions) -> Result<Self, OpenError> {
        let (connection, _) = prepare(options).await?;
        let place = FilePlace::of(&options.path).map_err(|source| OpenError::File {
            path: options.path.clone(),
            source,
        })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .connect_with(options.reader())
            .await
            .map_err(|error| database(&options.path, driver(error)))?;
        Ok(Self {
            writer: Arc::new(Mutex::new(Writer {
                connection,
                chain: None,
                place,
            })),
            readers,
            direct: Arc::default(),
            beside: Arc::new(Beside::new(&options.path, options.direct())),
        })
    }

    /// Brings the schema up to date, forward only, and says what it did.
    ///
    /// # Errors
    /// [`OpenError`], as for [`open`](Self::open).
    pub async fn migrate(options: &SqliteOptions) -> Result<Migrated, OpenError> {
        prepare(options).await.map(|(_, migrated)| migrated)
    }
}

async fn prepare(options: &SqliteOptions) -> Result<(SqliteConnection, Migrated), OpenError> {
    let path = options.path.as_path();
    secure_file(path)?;
    let mut writer = options
        .writer()
        .connect()
        .await
        .map_err(|error| database(path, driver(error)))?;
    let migrated = migrate(&mut writer, path).await?;
    sqlx::query("INSERT INTO meta (one, store_id, revision, created_at) VALUES (1, ?, 0, ?) ON CONFLICT DO NOTHING")
        .bind(options.store_id.to_string())
        .bind(options.now.0)
        .execute(&mut writer)
        .await
        .map_err(|error| database(path, driver(error)))?;
    Ok((writer, migrated))
}

/// Creates the file for the owner only, or refuses one that others can reach. SQLite gives the write-ahead log
/// and its index the mode of the database file.
fn secure_file(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(OpenError::LooseMode {
            path: path.to_owned(),
            mode,
        })
    }
}

/// The newest migration this program knows.
pub(in crate::store) fn known() -> i64 {
    MIGRATIONS
        .iter()
        .map(|(version, ..)| *version)
        .max()
        .unwrap_or(0)
}

async fn migrate(writer: &mut SqliteConnection, path: &Path) -> Result<Migrated, OpenError> {
    let known = known();
    let from = applied(writer)
        .await
        .map_err(|source| database(path, source))?;
    // Looked at before the migrator touches anything, and reported as what it is.
    if let Some(found) = from.filter(|found| *found > known) {
        return Err(OpenError::NewerSchema {
            place: path.display().to_string(),
            found,
            known,
        });
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            let sql = (*sql).into_sql_str();
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(migrations)
        .run_direct(None, writer, false)
        .await
        .map_err(|error| OpenError::Migration {
            place: path.display().to_string(),
            why: error.to_string(),
        })?;
    Ok(Migrated { from, to: known })
}

/// The newest migration the database has, if it has any.
async fn applied(writer: &mut SqliteConnection) -> Result<Option<i64>, StoreError> {
    let table: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'",
    )
    .fetch_optional(&mut *writer)
    .await
    .map_err(driver)?;
    if table.is_none() {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(writer)
        .await
        .map_err(driver)
}

fn database(path: &Path, source: StoreError) -> OpenError {
    OpenError::Database {
        place: path.display().to_string(),
        source,
    }
}
