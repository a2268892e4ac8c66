//! The journal: one preallocated file through which every record of an exchange goes before it reaches the database.
//!
//! Invariant: when [`Journal::intend`], [`Journal::settle`] or [`Journal::refuse`] has returned success, the record has been accepted
//! by the kernel, so that the end of this process loses nothing; the file is synced within [`SYNC_EVERY`] of each write, so that a power
//! cut loses no more than that. Frames are in memory order, numbered without a gap, and leave the journal only when the database has them.
//!
//! A record is written by `write(2)` under a short lock: about a microsecond, without a wait for the disk. Space
//! for the end of an exchange is set aside when it begins, so an exchange that began can always be recorded. Requests use
//! at most 90 % of the file; the rest is for acts of the sidecar itself. Above one half, refusals that differ
//! in nothing but time and ids are counted into one record, which is rewritten in place.
//!
//! Below: `frame.rs` bytes of a frame, `segment.rs` which part of the file is free, `counted.rs` counted refusals, `file.rs`
//! the file, `health.rs` syncing and recovering from failures, `tail.rs` reading for the writer, `replay.rs` what an earlier process left.

mod counted;
mod file;
mod frame;
mod health;
mod open;
mod replay;
mod segment;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use certs::Clock;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use uuid::Uuid;

use super::canonical;
use super::record::{AuditOutcome, AuditRecord};
use counted::Counted;
use frame::FrameKind;
use open::OpenIntents;
use segment::{Place, SegmentHead, Segments};

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

    /// Sets space aside for one exchange. False: it may be answered, but is not recorded.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: the request must not be answered.
    pub(super) fn admit(&self) -> Result<bool, AuditUnavailable> {
        let ours = self.reserved.fetch_add(EXCHANGE, Ordering::AcqRel);
        let reserved = ours.saturating_add(EXCHANGE);
        let room =
            self.used.load(Ordering::Relaxed).saturating_add(reserved) <= self.for_requests();
        let why = if !self.usable.load(Ordering::Relaxed) {
            self.why_unusable()
        } else if room {
            return Ok(true);
        } else {
            AuditUnavailable::Full
        };
        self.release();
        self.exhausted(why).map(|()| false)
    }

    /// Gives the space of an exchange back.
    pub(super) fn release(&self) {
        self.reserved.fetch_sub(EXCHANGE, Ordering::AcqRel);
    }

    fn why_unusable(&self) -> AuditUnavailable {
        if self.state.lock().stopping {
            AuditUnavailable::Stopped
        } else {
            AuditUnavailable::Failing
        }
    }

    /// A request cannot be recorded: refused, or counted.
    fn exhausted(&self, why: AuditUnavailable) -> Result<(), AuditUnavailable> {
        if self.on_exhausted == OnExhausted::Drop && why != AuditUnavailable::Stopped {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.unreported.fetch_add(1, Ordering::Relaxed);
            self.work.notify_one();
            return Ok(());
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Err(why)
    }

    /// Writes what is known of an exchange, before anything of it is shown outside. `None`: it may be answered,
    /// but is not recorded.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: nothing may be shown.
    pub(super) fn intend(&self, record: &AuditRecord) -> Result<Option<usize>, AuditUnavailable> {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        match self.append(&mut state, FrameKind::Intent, &payload) {
            Ok(place) => Ok(Some(state.open.add(place, payload))),
            Err(why) => {
                drop(state);
                self.exhausted(why).map(|()| None)
            }
        }
    }

    /// Writes how an exchange ended after something of it was shown. A record that cannot be written is kept
    /// and tried again; until it is written no further request is admitted.
    pub(super) fn settle(&self, record: &AuditRecord, intent: Option<usize>) {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        if self
            .append(&mut state, FrameKind::Outcome, &payload)
            .is_ok()
        {
            if let Some(intent) = intent {
                state.open.close(intent);
            }
            return;
        }
        state.owed.push(Owed { payload, intent });
        self.usable.store(false, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Writes a refusal, before anything of it is shown. While the journal is filling it may only be counted.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: there is no record of it.
    pub(super) fn refuse(&self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let countable = matches!(
            record.outcome,
            AuditOutcome::Denied | AuditOutcome::RateLimited
        );
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        let written = if countable && self.is_filling() {
            self.count(&mut state, record)
        } else {
            self.append(&mut state, FrameKind::Outcome, &payload)
                .map(drop)
        };
        drop(state);
        written.or_else(|why| self.exhausted(why))
    }

    /// Writes an act of the sidecar itself. Its space is kept free of requests.
    ///
    /// # Errors
    /// [`AuditUnavailable`].
    pub(super) fn act(&self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        self.append(&mut state, FrameKind::Outcome, &payload)
            .map(drop)
    }

    /// Counts a refusal into the record of one like it, or begins such a record.
    fn count(&self, state: &mut State, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let key = Counted::key(record);
        let mut buffer = std::mem::take(&mut state.buffer);
        let rewritten = state.counted.find(&key, record.at).map(|entry| {
            entry.raise(&mut buffer);
            let written = self.file.write_all_at(&buffer, entry.place.offset);
            written.inspect_err(|_| entry.lower())
        });
        state.buffer = buffer;
        match rewritten {
            Some(Ok(())) => {
                self.touched(state);
                self.counts.coalesced.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(Err(error)) => return Err(self.failed(state, &error.to_string())),
            None => {}
        }
        let payload = Counted::payload(record);
        let number = state.next;
        let place = self.append(state, FrameKind::Outcome, &payload)?;
        state.counted.add(key, record, place, number);
        Ok(())
    }

    /// Writes the next frame.
    fn append(
        &self,
        state: &mut State,
        kind: FrameKind,
        payload: &[u8],
    ) -> Result<Place, AuditUnavailable> {
        let size = u64::try_from(frame::size(payload.len())).unwrap_or(u64::MAX);
        if size > MAX_FRAME {
            return Err(AuditUnavailable::Full);
        }
        let place = match state.segments.place(size) {
            Some(place) => place,
            None => {
                self.open_segment(state)?;
                state.segments.place(size).ok_or(AuditUnavailable::Full)?
            }
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        frame::encode(kind, state.next, payload, &mut buffer);
        let written = self.file.write_all_at(&buffer, place.offset);
        state.buffer = buffer;
        if let Err(error) = written {
            return Err(self.failed(state, &error.to_string()));
        }
        state.segments.wrote(size);
        state.next = state.next.saturating_add(1);
        state.failure = None;
        self.used.store(state.segments.used(), Ordering::Relaxed);
        self.counts.appended.fetch_add(1, Ordering::Relaxed);
        self.touched(state);
        if state.drained {
            state.drained = false;
            self.filled.notify_one();
        }
        Ok(place)
    }

    fn open_segment(&self, state: &mut State) -> Result<(), AuditUnavailable> {
        let slot = state.segments.next_slot().ok_or(AuditUnavailable::Full)?;
        let head = SegmentHead {
            journal: self.id,
            store: self.store,
            first: state.next,
            size: self.capacity / segment::SEGMENTS,
        };
        let offset = state.segments.base(slot);
        if let Err(error) = self.file.write_all_at(&head.encode(), offset) {
            return Err(self.failed(state, &error.to_string()));
        }
        state.segments.open(state.next);
        Ok(())
    }

    /// Something was written: it is synced soon.
    fn touched(&self, state: &mut State) {
        if !state.dirty {
            state.dirty = true;
            self.work.notify_one();
        }
    }

    fn failed(&self, state: &mut State, why: &str) -> AuditUnavailable {
        if state.failure.is_none() {
            tracing::error!(error = why, path = %self.path.display(), "the audit journal cannot be written");
        }
        state.failure = Some(why.to_owned());
        self.usable.store(false, Ordering::Relaxed);
        self.counts.write_failures.fetch_add(1, Ordering::Relaxed);
        self.work.notify_one();
        AuditUnavailable::Failing
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
