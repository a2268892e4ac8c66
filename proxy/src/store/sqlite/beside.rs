//! What a process has beside its connections: one for heartbeats, and a lock that says whether other processes have the store too.
//!
//! Invariant: a process is alone only while it holds the lock for itself, and the system gives that to one process at most and takes
//! it back when the process ends, however it ends. Every process of the store holds it, for itself or with others, before it
//! serves.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::Notify;

use super::super::{Store, StoreError};
use super::SqliteStore;
use super::dialect::driver;

/// How often the revision is read where nobody tells of changes.
const POLL: Duration = Duration::from_millis(50);

/// The lock, and how the connection for heartbeats is made.
pub(super) struct Beside {
    path: PathBuf,
    /// Who wants the lock for itself has this one meanwhile: the system gives up a shared lock before it tries for more.
    turn: PathBuf,
    lock: Mutex<Option<File>>,
    direct: SqliteConnectOptions,
}

impl Beside {
    /// For the database at `database`.
    pub(super) fn new(database: &Path, direct: SqliteConnectOptions) -> Self {
        let beside = |ending: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        Self {
            path: beside("-replicas"),
            turn: beside("-replicas-turn"),
            lock: Mutex::new(None),
            direct,
        }
    }

    fn alone(&self) -> Result<bool, StoreError> {
        let turn = open(&self.turn)?;
        if !is_given(&self.turn, turn.try_lock())? {
            return Ok(false);
        }
        let mut held = self.lock.lock();
        let before = held.is_some();
        let file = match held.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let alone = is_given(&self.path, file.try_lock())?;
        if alone || (before && is_given(&self.path, file.try_lock_shared())?) {
            *held = Some(file);
        }
        Ok(alone)
    }

    fn shared(&self) -> Result<bool, StoreError> {
        let mut held = self.lock.lock();
        let file = match held.take() {
            Some(file) => file,
            None => open(&self.path)?,
        };
        let shared = is_given(&self.path, file.try_lock_shared())?;
        if shared {
            *held = Some(file);
        }
        Ok(shared)
    }
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable {
        why: format!("`{}`: {error}", path.display()),
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(path, &error))
}

fn is_given(path: &Path, asked: Result<(), TryLockError>) -> Result<bool, StoreError> {
    match asked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(failed(path, &error)),
    }
}

impl SqliteStore {
    pub(super) async fn connect_direct(
        &self,
        held: Option<SqliteConnection>,
    ) -> Result<SqliteConnection, StoreError> {
        match held {
            Some(connection) => Ok(connection),
            None => self.beside.direct.connect().await.map_err(driver),
        }
    }

    /// Looks for commits, since SQLite tells nobody.
    pub(super) async fn hear(&self, told: &Notify) -> StoreError {
        let mut before = None;
        loop {
            match self.revision().await {
                Ok(revision) if before != Some(revision) => {
                    before = Some(revision);
                    told.notify_one();
                }
                Ok(_) => {}
                Err(error) => return error,
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) fn lock_alone(&self) -> Result<bool, StoreError> {
        self.beside.alone()
    }

    pub(super) fn lock_shared(&self) -> Result<bool, StoreError> {
        self.beside.shared()
    }

    pub(super) fn unlock(&self) {
        *self.beside.lock.lock() = None;
    }
}
