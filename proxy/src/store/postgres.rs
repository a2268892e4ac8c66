//! The store on PostgreSQL: a pool of readers, and one connection that writes, for any number of processes.
//!
//! Invariant: every transaction that writes first takes one advisory lock of the schema and keeps it until its end, in whatever
//! process it is. So writers take turns as with SQLite's `BEGIN IMMEDIATE`: revisions have no gaps, positions in the audit
//! log are in the order of commits, and statements that look before they write see what nobody else can change meanwhile.
//! What is PostgreSQL's own is here and below `postgres/`; the statements are below `sql/`.

mod beside;
mod dialect;
mod import;
mod open;
mod writer;

#[path = "sql/mod.rs"]
mod sql;

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::Mutex;

use super::StoreError;
use beside::Beside;
use dialect::driver;
use sql::OpenChain;
use writer::{Months, Writer};

pub use import::{MoveError, MovedTable};
pub(super) use open::known as known_schema;
pub use open::{PostgresOptions, ServerFacts};

/// A store in one schema of a PostgreSQL database. Clones share the connections.
#[derive(Clone)]
pub struct PostgresStore {
    writers: PgPool,
    readers: PgPool,
    /// Begins a transaction that writes: a statement with the number of the schema's lock in it.
    begin: Arc<str>,
    chain: Arc<Mutex<Option<OpenChain>>>,
    months: Arc<Mutex<Months>>,
    direct: Arc<Mutex<Option<PgConnection>>>,
    beside: Arc<Beside>,
}

/// What the files below `sql/` call their store.
type Handle = PostgresStore;

impl PostgresStore {
    /// The writer of this process. The connection is tried before it is handed out when it was idle, so that one that the server
    /// has closed is replaced.
    async fn write(&self) -> Result<Box<Writer>, StoreError> {
        let chain = Arc::clone(&self.chain).lock_owned().await;
        let connection = self.writers.acquire().await.map_err(driver)?;
        Ok(Box::new(Writer::new(
            connection,
            chain,
            Arc::clone(&self.months),
            Arc::clone(&self.begin),
        )))
    }

    async fn read(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.readers.acquire().await.map_err(driver)
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}
