//! The journal: one preallocated file through which every record of an exchange goes before it reaches the database.
//!
//! Invariant: when `Journal::intend`, `Journal::settle` or `Journal::refuse` has returned success, the record has been accepted
//! by the kernel, so that the end of this process loses nothing; the file is synced within [`SYNC_EVERY`] of each write, so that a power
//! cut loses no more than that. Frames are in memory order, numbered without a gap, and leave the journal only when the database has them.
//!
//! A record is written by `write(2)` under a short lock: about a microsecond, without a wait for the disk. Space
//! for the end of an exchange is set aside when it begins, so an exchange that began can always be recorded. Requests use
//! at most 90 % of the file; the rest is for acts of the sidecar itself. Above one half, refusals that differ
//! in nothing but time and ids are counted into one record, which is rewritten in place.
//!
//! Below: `frame.rs` bytes of a frame, `segment.rs` which part of the file is free, `counted.rs` counted refusals, `file.rs`
//! the file, `write.rs` what exchanges do, `health.rs` syncing and recovering from failures, `tail.rs` reading for the writer, `replay.rs` what an earlier process left,
//! `attack.rs` its parser for those who attack it.

#[doc(hidden)]
pub mod attack;
mod counted;
mod file;
mod frame;
mod health;
mod open;
mod replay;
mod segment;
mod tail;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use certs::Clock;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use uuid::Uuid;

use counted::Counted;
use open::OpenIntents;
use segment::Segments;

pub use file::{JournalError, JournalFile};
pub use replay::{ReplayError, Replayed, replay};
pub(super) use tail::{Cursor, Taken};

/// The longest time between a write and its sync.
pub const SYNC_EVERY: Duration = Duration::from_millis(50);

/// The smallest journal, bytes.
pub const JOURNAL_BYTES_MIN: u64 = 1024 * 1024;
/// The size of a journal unless told otherwise, bytes.
pub const JOURNAL_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// The largest journal, bytes.
pub const JOURNAL_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes set aside for one exchange: a record is bounded by the bounds of its texts, and it may be written
/// twice more: when it ends, and when its segment is given back before it ends.
const EXCHANGE: u64 = 2 * 1280;

/// The longest frame: a few fit into the smallest segment.
const MAX_FRAME: u64 = 16 * 1024;

/// What happens to a request that cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExhausted {
    /// It is refused.
    #[default]
    Refuse,
    /// It is answered, and counted as not recorded.
    Drop,
}

/// How a journal is made.
#[derive(Debug, Clone)]
pub struct JournalSettings {
    /// The directory it is in.
    pub dir: PathBuf,
    /// Size of the file, bytes.
    pub bytes: u64,
    /// What happens to a request that cannot be recorded.
    pub on_exhausted: OnExhausted,
}

impl JournalSettings {
    /// A journal of the usual size that refuses.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bytes: JOURNAL_BYTES_DEFAULT,
            on_exhausted: OnExhausted::Refuse,
        }
    }
}

/// Why a record was not accepted. The request it belongs to is to be refused with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The database takes records more slowly than they come, or not at all.
    #[error(
        "the audit journal is full: check the disk and the database; requests are refused until it empties"
    )]
    Full,
    /// The journal's file cannot be written or synced.
    #[error(
        "the audit journal cannot be written: check the disk; requests are refused until it can"
    )]
    Failing,
    /// The sidecar is stopping.
    #[error("the audit journal is closed; requests are refused")]
    Stopped,
}

/// Counts since the start. Each is exact; together they are not one instant.
#[derive(Debug, Default)]
pub struct JournalCounts {
    /// Frames written.
    pub appended: AtomicU64,
    /// Frames that the database has, by number.
    pub applied: AtomicU64,
    /// Requests refused because they could not be recorded.
    pub refused: AtomicU64,
    /// Requests answered without a record.
    pub dropped: AtomicU64,
    /// Refusals counted into a record that was there already.
    pub coalesced: AtomicU64,
    /// Writes that failed.
    pub write_failures: AtomicU64,
    /// Syncs that failed.
    pub sync_failures: AtomicU64,
    /// Frames that could not be read back.
    pub damaged: AtomicU64,
}

/// A record that could not be written when its exchange ended; it is tried again until it can.
struct Owed {
    payload: Vec<u8>,
    intent: Option<usize>,
}

struct State {
    segments: Segments,
    /// Number of the next frame.
    next: u64,
    /// Frames up to this number are in the database.
    applied: u64,
    open: OpenIntents,
    counted: Counted,
    owed: Vec<Owed>,
    /// The last write failed.
    failure: Option<String>,
    /// A sync failed: frames up to this number may not be on the disk.
    suspect: Option<u64>,
    /// Something was written since the last sync.
    dirty: bool,
    /// The writer has taken everything and waits.
    drained: bool,
    stopping: bool,
    buffer: Vec<u8>,
}

/// The journal of one process.
pub struct Journal {
    id: Uuid,
    store: Uuid,
    file: Box<dyn JournalFile>,
    path: PathBuf,
    on_exhausted: OnExhausted,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes the thread that syncs.
    work: Condvar,
    /// Wakes the writer.
    filled: Notify,
    reserved: AtomicU64,
    used: AtomicU64,
    usable: AtomicBool,
    /// Requests answered without a record that the log does not say yet.
    unreported: AtomicU64,
    counts: JournalCounts,
    capacity: u64,
}

impl Journal {
    /// Makes the file of a new journal, mode 0600, with all its space, in `settings.dir` (made when missing, mode 0700).
    ///
    /// # Errors
    /// [`JournalError`]: no space, no permission.
    pub fn create(
        settings: &JournalSettings,
        id: Uuid,
        store: Uuid,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, JournalError> {
        let (path, made) = file::create(settings, id)?;
        Ok(Self::over(
            Box::new(made),
            path,
            settings,
            (id, store),
            clock,
        ))
    }

    /// A journal over a file that is there, of at least `settings.bytes` bytes.
    #[must_use]
    pub fn over(
        file: Box<dyn JournalFile>,
        path: PathBuf,
        settings: &JournalSettings,
        (id, store): (Uuid, Uuid),
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let segments = Segments::new(file::segment_size(settings.bytes));
        let capacity = segments.capacity();
        Arc::new(Self {
            id,
            store,
            file,
            path,
            on_exhausted: settings.on_exhausted,
            clock,
            state: Mutex::new(State {
                segments,
                next: 1,
                applied: 0,
                open: OpenIntents::default(),
                counted: Counted::default(),
                owed: Vec::new(),
                failure: None,
                suspect: None,
                dirty: false,
                drained: true,
                stopping: false,
                buffer: Vec::new(),
            }),
            work: Condvar::new(),
            filled: Notify::new(),
            reserved: AtomicU64::new(0),
            used: AtomicU64::new(0),
            usable: AtomicBool::new(true),
            unreported: AtomicU64::new(0),
            counts: JournalCounts::default(),
            capacity,
        })
    }

    /// The journal's id, which is also that of the process's chain.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its counts.
    #[must_use]
    pub const fn counts(&self) -> &JournalCounts {
        &self.counts
    }

    /// Size of the file, bytes.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that hold records, or lie between such, or are set aside.
    #[must_use]
    pub fn occupied(&self) -> u64 {
        let reserved = self.reserved.load(Ordering::Relaxed);
        self.used.load(Ordering::Relaxed).saturating_add(reserved)
    }

    /// Frames that the database does not have yet.
    #[must_use]
    pub fn depth(&self) -> u64 {
        let applied = self.counts.applied.load(Ordering::Relaxed);
        let appended = self.counts.appended.load(Ordering::Relaxed);
        appended.saturating_sub(applied)
    }

    /// Exchanges under way.
    #[must_use]
    pub fn open_exchanges(&self) -> u64 {
        self.reserved.load(Ordering::Acquire) / EXCHANGE
    }

    /// Why it is failing, if it is.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let state = self.state.lock();
        let unsynced = || "it could not be synced to the disk".to_owned();
        state
            .failure
            .clone()
            .or_else(|| state.suspect.map(|_| unsynced()))
    }

    /// Whether requests find no space at the moment.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.occupied().saturating_add(EXCHANGE) > self.for_requests()
    }

    /// Whether more than half of it is used: refusals are counted into one record.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.capacity / 2
    }

    /// What requests may use of the file.
    const fn for_requests(&self) -> u64 {
        self.capacity / 10 * 9
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
