//! The one writing connection, with what every transaction on it needs.
//!
//! Invariant: a write goes to the file that was opened: once that file was moved away or replaced, nothing is written to
//! where nobody would find it.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection, Transaction};
use uuid::Uuid;

use super::super::StoreError;
use super::dialect::{Db, driver};
use super::sql::OpenChain;

/// The file as it was when it was opened.
pub(super) struct FilePlace {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl FilePlace {
    pub(super) fn of(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    fn check(&self) -> Result<(), StoreError> {
        let why = match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return Ok(()),
            Ok(_) => "was replaced".to_owned(),
            Err(error) => format!("is not there: {error}"),
        };
        Err(StoreError::Unavailable {
            why: format!("the database file `{}` {why}", self.path.display()),
        })
    }
}

/// The writing connection.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) chain: Option<OpenChain>,
    pub(super) place: FilePlace,
}

impl Writer {
    /// Begins a transaction that writes, and the chain that its records go into.
    pub(super) async fn begin(
        &mut self,
    ) -> Result<(Transaction<'_, Db>, &mut Option<OpenChain>), StoreError> {
        // Writes go where readers look.
        self.place.check()?;
        let tx = self.connection.begin_with("BEGIN IMMEDIATE").await;
        Ok((tx.map_err(driver)?, &mut self.chain))
    }

    /// Sees to it that there is room for records with these ids: there always is.
    #[allow(
        clippy::unused_async,
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "another database has something to do"
    )]
    pub(super) async fn make_room(&mut self, _ids: &[Uuid]) -> Result<(), StoreError> {
        Ok(())
    }

    /// What is replaced is overwritten, on this connection, from now on or no more.
    pub(super) async fn overwrite(&mut self, on: bool) -> Result<(), StoreError> {
        let pragma = if on {
            "PRAGMA secure_delete = ON"
        } else {
            "PRAGMA secure_delete = OFF"
        };
        sqlx::query(pragma)
            .fetch_all(&mut self.connection)
            .await
            .map(drop)
            .map_err(driver)
    }

    /// Empties the write-ahead log behind a commit, and ends overwriting.
    pub(super) async fn forget_replaced(&mut self) {
        // Readers may keep it from being emptied now: later checkpoints write over it.
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_all(&mut self.connection)
            .await;
        if let Err(error) = emptied {
            tracing::warn!(%error, "the write-ahead log was not emptied");
        }
        // Only costs time while it stays on.
        let _ = self.overwrite(false).await;
    }

    /// What is due once the archive has taken rows: nothing, their room is used again.
    #[allow(
        clippy::unused_async,
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "another database has something to do"
    )]
    pub(super) async fn after_archiving(&mut self, _before_ms: i64) {}
}

impl Deref for Writer {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}
