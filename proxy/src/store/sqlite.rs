//! The store on SQLite: one writer connection behind a mutex, a few readers, write-ahead log, full sync.
//!
//! Invariant: every write goes through the one writer in a `BEGIN IMMEDIATE` transaction, so that a change either
//! waits for its turn or fails as busy before it has done anything, and never deadlocks half-way.
//! What is SQLite's own is here and below `sqlite/`; the statements are below `sql/`.

mod beside;
mod dialect;
mod open;
mod writer;

#[path = "sql/mod.rs"]
mod sql;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};

use super::StoreError;
use beside::Beside;
use dialect::driver;
use writer::Writer;

pub(super) use open::known as known_schema;
pub use open::{Migrated, SqliteOptions};

/// A store in one SQLite file. Clones share the connections.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    direct: Arc<Mutex<Option<SqliteConnection>>>,
    beside: Arc<Beside>,
}

/// What the files below `sql/` call their store.
type Handle = SqliteStore;

impl SqliteStore {
    #[allow(
        clippy::unnecessary_wraps,
        reason = "with another database it can fail"
    )]
    async fn write(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        Ok(self.writer.lock().await)
    }

    async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(driver)
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
