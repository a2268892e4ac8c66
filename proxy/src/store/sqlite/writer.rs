//! The one writing connection, with what every transaction on it needs.
//!
//! Invariant: a write goes to the file that was opened: once that file was moved away or replaced, nothing is written to
//! where nobody would find it; and it continues the chain exactly where this process left it.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::StoreError;
use crate::audit::Head;
use crate::audit::chain::ChainKey;

/// The chain that this process writes.
pub(super) struct OpenChain {
    pub(super) id: Uuid,
    pub(super) key: Arc<ChainKey>,
    /// The newest row this process knows to be committed.
    pub(super) last: Option<Head>,
}

impl OpenChain {
    /// Compares the head that the database has with what was written.
    pub(super) fn check(&self, found: &Head) -> Result<(), StoreError> {
        let moved = self.last.is_some_and(|last| {
            found.seq < last.seq || (found.seq == last.seq && found.hash != last.hash)
        });
        if moved {
            return Err(StoreError::corrupt(
                "audit_chains",
                "the head of the chain is not where this process left it: the log was changed or set back",
            ));
        }
        Ok(())
    }
}

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
    /// Whether writes go where readers look.
    pub(super) fn check_place(&self) -> Result<(), StoreError> {
        self.place.check()
    }
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
