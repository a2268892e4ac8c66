//! The archive: rows that have left the database, in compressed files, each with a manifest that is a row of the log itself.
//!
//! Invariant: a row is in the database or in a file that a manifest names, never in neither and never in both. A file gets its
//! manifest only when it is whole, on the disk under its name and read back; the transaction that writes the manifest is the one that
//! removes its rows; and a file with a manifest is never written again. So ending at any point leaves nothing to repair: a file
//! without a manifest is made again.
//!
//! # Form of a file
//!
//! `NNNNNNNN.audit.zst`, numbered from 1 without a gap, mode 0600: one Zstandard frame with a checksum over
//!
//! - a head: `MFCOLD01`, the store's id (16 bytes), the file's number (8 bytes);
//! - for each row, in the order of the log: length of what follows (4 bytes), position (8 bytes), 1 and the link (chain, number, previous
//!   hash, hash: 16, 8, 32, 32 bytes) or 0 for a row from before there were chains, the canonical bytes of the record (`canonical.rs`);
//! - an end: length 0 (4 bytes), how many rows (8 bytes).
//!
//! Numbers are little-endian. The manifest is the act `audit.archive`; its detail names file, rows, positions, times, bytes, SHA-256 of the file,
//! and of each chain the first and last number and the hash of the last. It stands in the log behind the rows it is about, and moves into a later file in its turn.
//!
//! Below: `frame.rs` the bytes, `write.rs` and `read.rs` files, `manifest.rs` manifests and whether the log and the store's list agree on
//! them, `reader.rs` the whole log in order, `history.rs` looking for rows in all of it. Moving rows is in `admin/archiver.rs`.

mod frame;
mod history;
mod manifest;
mod read;
mod reader;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use policy::time::UnixMillis;
use uuid::Uuid;

pub use history::query_history;
pub use manifest::{ChainSpan, MANIFEST_ACTION, Manifest, Manifests};
pub use read::ColdReader;
pub use reader::{LogReader, Page};
pub use write::{ColdWriter, Finished, ROWS_MAX};

/// How names of files end.
const ENDING: &str = ".audit.zst";
/// How a file is named that is not whole yet.
const PART: &str = ".part";
/// Log 2 of the bytes that compressing and decompressing keep.
const WINDOW_LOG: u32 = 20;

/// A file of the archive, as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdFile {
    /// Counts from 1 without a gap.
    pub number: u64,
    /// Rows in it.
    pub rows: u64,
    /// Position of its first row.
    pub first_position: i64,
    /// Position of its last row.
    pub last_position: i64,
    /// The earliest time of a row in it.
    pub earliest: UnixMillis,
    /// The latest time of a row in it.
    pub latest: UnixMillis,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
}

impl ColdFile {
    /// The name of the file.
    #[must_use]
    pub fn name(&self) -> String {
        file_name(self.number)
    }
}

/// The name of the file with that number.
#[must_use]
pub fn file_name(number: u64) -> String {
    format!("{number:08}{ENDING}")
}

/// What is wrong with a file of the archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColdError {
    /// It is not there.
    #[error("the archive file `{name}` is missing: put it back into `audit.archive_dir`")]
    Missing {
        /// The file.
        name: String,
    },
    /// The system does not give or take it.
    #[error(
        "the archive file `{name}` cannot be read or written: {why}; check the disk and `audit.archive_dir`"
    )]
    Unavailable {
        /// The file.
        name: String,
        /// What the system said.
        why: String,
    },
    /// It is not what was written.
    #[error("the archive file `{name}` is not what was written: {why}; put a copy of it back")]
    Changed {
        /// The file.
        name: String,
        /// Where it shows.
        why: String,
    },
    /// A file that no manifest names stands where the next one would be, with rows that the database does not have.
    #[error(
        "the archive file `{name}` is in no list of this store and has other rows than its database: move it to where it is kept as evidence"
    )]
    Foreign {
        /// The file.
        name: String,
    },
    /// Another process is at it.
    #[error("another process moves rows into the archive at the moment: wait for it to finish")]
    Busy,
}

impl ColdError {
    /// The file, unless it is not about one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Missing { name }
            | Self::Unavailable { name, .. }
            | Self::Changed { name, .. }
            | Self::Foreign { name } => Some(name),
            Self::Busy => None,
        }
    }

    fn unavailable(name: &str, error: &io::Error) -> Self {
        Self::Unavailable {
            name: name.to_owned(),
            why: error.to_string(),
        }
    }

    fn changed(name: &str, why: impl Into<String>) -> Self {
        Self::Changed {
            name: name.to_owned(),
            why: why.into(),
        }
    }
}

/// Where the files of a store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// The directory.
    pub dir: PathBuf,
    /// The store they belong to.
    pub store: Uuid,
}

impl Shelf {
    /// The path of a file.
    #[must_use]
    pub fn path(&self, number: u64) -> PathBuf {
        self.dir.join(file_name(number))
    }

    /// Makes the directory, mode 0700, removes what was not finished, and keeps other processes from doing the same while the
    /// value lives.
    ///
    /// # Errors
    /// [`ColdError::Busy`] when another process is at it; what the system said.
    pub fn take(&self) -> Result<ShelfLock, ColdError> {
        ShelfLock::take(&self.dir)
    }
}

/// Nobody else moves rows onto the shelf.
#[derive(Debug)]
pub struct ShelfLock(#[allow(dead_code, reason = "locked while it is open")] std::fs::File);

impl ShelfLock {
    fn take(dir: &Path) -> Result<Self, ColdError> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let failed = |error: io::Error| ColdError::unavailable(&dir.display().to_string(), &error);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let lock = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(ColdError::Busy),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.to_string_lossy().ends_with(&format!("{ENDING}{PART}")) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(Self(lock))
    }
}

/// How the archive of this process does, for `status`, `doctor` and metrics.
#[derive(Debug, Default)]
pub struct ArchiveCounts {
    rows: AtomicU64,
    failures: AtomicU64,
    last_success: AtomicI64,
    failing: Mutex<Option<String>>,
}

impl ArchiveCounts {
    /// Rows were moved.
    pub fn moved(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Everything that was due has been moved.
    pub fn succeeded(&self, at: UnixMillis) {
        self.last_success.store(at.0, Ordering::Relaxed);
        *self.failing.lock() = None;
    }

    /// It could not be moved.
    pub fn failed(&self, why: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.failing.lock() = Some(why);
    }

    /// Rows moved since the start.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Failed runs since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// When everything due was last moved, milliseconds since the epoch; 0 before the first time.
    #[must_use]
    pub fn last_success(&self) -> i64 {
        self.last_success.load(Ordering::Relaxed)
    }

    /// Why the last run failed, if it did.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().clone()
    }
}

#[cfg(test)]
mod tests;
