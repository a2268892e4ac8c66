//! What an earlier process left in its journal, brought into the database.
//!
//! Invariant: every record that the earlier process had accepted and the database does not have is written, in order and once;
//! an exchange without an outcome is written as `aborted`; only then is the file removed. Ending at any point and beginning
//! again gives the same rows: the database notes how far it has got in the transaction of the rows themselves.
//! After a power cut the database may have an outcome that the journal lost: its exchange is not written again as aborted, since the
//! database has its id.
//! The journal of a process that still lives is locked and left alone.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use policy::time::UnixMillis;
use uuid::Uuid;

use super::super::record::{AuditOutcome, AuditRecord, Direction};
use super::super::text::AuditText;
use super::super::{AuditDetail, AuditLog, AuditLogError, JournalMark, canonical, record_id};
use super::file::EXTENSION;
use super::frame::{self, FrameKind, Step};
use super::segment::{HEAD, SEGMENTS, SegmentHead};

/// The action of the record that says how many frames could not be read back.
pub const DAMAGED_ACTION: &str = "audit.damaged";
/// Records in one transaction.
const BATCH: usize = 1024;

/// What was brought in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Journals that were found.
    pub journals: u64,
    /// Records that the database did not have.
    pub records: u64,
    /// Exchanges that had not ended.
    pub aborted: u64,
    /// Frames that could not be read.
    pub damaged: u64,
}

/// Why a leftover could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file.
    #[error("the audit journal `{}` of an earlier run cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It belongs to another database.
    #[error(
        "the audit journal `{}` belongs to another database: put that database back, or move the journal to where it is kept as evidence",
        path.display()
    )]
    OtherStore {
        /// The file.
        path: PathBuf,
    },
    /// The database.
    #[error(transparent)]
    Log(#[from] AuditLogError),
}

/// Brings every journal of a process that is gone into the log, and removes it.
///
/// # Errors
/// [`ReplayError`]; what was not brought in stays where it is.
pub async fn replay(
    dir: &Path,
    store: Uuid,
    log: &dyn AuditLog,
    now: UnixMillis,
) -> Result<Replayed, ReplayError> {
    let mut replayed = Replayed::default();
    for path in leftovers(dir)? {
        let failed = |source| ReplayError::File {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        if file.try_lock().is_err() {
            continue;
        }
        let leftover = Leftover::open(file).map_err(failed)?;
        if let Some(leftover) = leftover {
            if leftover.store != store {
                return Err(ReplayError::OtherStore { path });
            }
            leftover.write(log, now, &path, &mut replayed).await?;
        }
        std::fs::remove_file(&path).map_err(failed)?;
    }
    Ok(replayed)
}

fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, ReplayError> {
    let failed = |source| ReplayError::File {
        path: dir.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == EXTENSION) {
            found.push(path);
        }
    }
    // Names begin with the time the journal was made.
    found.sort();
    Ok(found)
}

/// A journal nobody writes any more.
struct Leftover {
    file: File,
    journal: Uuid,
    store: Uuid,
    size: u64,
    /// First frame and offset of each segment, in order.
    segments: Vec<(u64, u64)>,
}

impl Leftover {
    /// `None` for a file in which nothing was ever written.
    fn open(file: File) -> io::Result<Option<Self>> {
        let length = file.metadata()?.len();
        let size = length / SEGMENTS;
        let mut found = Vec::new();
        for slot in 0..SEGMENTS {
            let offset = slot.saturating_mul(size);
            let mut head = [0; HEAD];
            if size < u64::try_from(HEAD).unwrap_or(u64::MAX) {
                break;
            }
            FileExt::read_exact_at(&file, &mut head, offset)?;
            if let Some(head) = SegmentHead::decode(&head).filter(|head| head.size == size) {
                found.push((head, offset));
            }
        }
        found.sort_by_key(|(head, _)| head.first);
        let Some((first, _)) = found.first().copied() else {
            return Ok(None);
        };
        Ok(Some(Self {
            file,
            journal: first.journal,
            store: first.store,
            size,
            segments: found
                .into_iter()
                .filter(|(head, _)| head.journal == first.journal)
                .map(|(head, offset)| (head.first, offset))
                .collect(),
        }))
    }

    async fn write(
        &self,
        log: &dyn AuditLog,
        now: UnixMillis,
        path: &Path,
        replayed: &mut Replayed,
    ) -> Result<(), ReplayError> {
        let failed = |source| ReplayError::File {
            path: path.to_owned(),
            source,
        };
        let applied = log.journal_applied(self.journal).await?;
        replayed.journals = replayed.journals.saturating_add(1);
        if applied >= JournalMark::CLOSED {
            return Ok(());
        }
        let mut open = Unfinished::default();
        let mut damaged = 0_u64;
        for (index, _) in self.segments.iter().enumerate() {
            let mut fresh = Fresh {
                applied,
                ..Fresh::default()
            };
            damaged = damaged.saturating_add(
                self.read(index, applied, &mut |number, kind, payload| {
                    open.frame(number, kind, payload);
                    fresh.frame(number, kind, payload);
                })
                .map_err(failed)?,
            );
            damaged = damaged.saturating_add(fresh.unreadable);
            for batch in fresh.records.chunks(BATCH) {
                let upto = batch.last().map_or(applied, |(number, _)| *number);
                let records: Vec<AuditRecord> =
                    batch.iter().map(|(_, record)| record.clone()).collect();
                let mark = JournalMark {
                    journal: self.journal,
                    applied: upto,
                };
                log.append_audit(&records, Some(mark)).await?;
                let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
                replayed.records = replayed.records.saturating_add(count);
            }
        }
        let mut last = open.records();
        replayed.aborted = replayed
            .aborted
            .saturating_add(u64::try_from(last.len()).unwrap_or(u64::MAX));
        replayed.damaged = replayed.damaged.saturating_add(damaged);
        if damaged > 0 {
            last.push(damaged_record(now, damaged, self.journal));
        }
        let mark = JournalMark {
            journal: self.journal,
            applied: JournalMark::CLOSED,
        };
        log.append_audit(&last, Some(mark)).await?;
        Ok(())
    }

    /// Reads the frames of a segment. Returns how many, of those the database does not have, could not be read.
    fn read(
        &self,
        index: usize,
        applied: u64,
        visit: &mut dyn FnMut(u64, FrameKind, &[u8]),
    ) -> io::Result<u64> {
        let Some((first, offset)) = self.segments.get(index).copied() else {
            return Ok(0);
        };
        let next_segment = index
            .checked_add(1)
            .and_then(|next| self.segments.get(next))
            .map(|(first, _)| *first);
        let mut bytes = vec![0; usize::try_from(self.size).unwrap_or(0)];
        FileExt::read_exact_at(&self.file, &mut bytes, offset)?;
        let mut rest = bytes.get(HEAD..).unwrap_or_default();
        let mut number = first;
        let mut damaged = 0_u64;
        loop {
            let size = match frame::read(rest, number) {
                Step::Frame {
                    kind,
                    payload,
                    size,
                } => {
                    visit(number, kind, payload);
                    size
                }
                Step::Damaged { size } => {
                    damaged = damaged.saturating_add(u64::from(number > applied));
                    size
                }
                Step::End => break,
            };
            number = number.saturating_add(1);
            rest = rest.get(size..).unwrap_or_default();
        }
        // In front of a newer segment a torn end is a gap; frames the database has do not count.
        let from = number.max(applied.saturating_add(1));
        let gap = next_segment.map_or(0, |next| next.saturating_sub(from));
        Ok(damaged.saturating_add(gap))
    }
}

/// Outcomes that the database does not have.
#[derive(Default)]
struct Fresh {
    applied: u64,
    records: Vec<(u64, AuditRecord)>,
    unreadable: u64,
}

impl Fresh {
    fn frame(&mut self, number: u64, kind: FrameKind, payload: &[u8]) {
        if kind != FrameKind::Outcome || number <= self.applied {
            return;
        }
        match canonical::decode(payload) {
            Ok(record) => self.records.push((number, record)),
            Err(error) => {
                tracing::error!(%error, number, "a record of an earlier run cannot be read");
                self.unreadable = self.unreadable.saturating_add(1);
            }
        }
    }
}

/// Intents without an outcome, in the order in which they began.
#[derive(Default)]
struct Unfinished {
    began: HashMap<Uuid, (u64, Vec<u8>)>,
}

impl Unfinished {
    fn frame(&mut self, number: u64, kind: FrameKind, payload: &[u8]) {
        let Some(id) = canonical::id_of(payload) else {
            return;
        };
        match kind {
            FrameKind::Intent => {
                self.began.insert(id, (number, payload.to_vec()));
            }
            FrameKind::Outcome => {
                self.began.remove(&id);
            }
            FrameKind::Probe => {}
        }
    }
}

impl Unfinished {
    fn records(self) -> Vec<AuditRecord> {
        let mut began: Vec<_> = self.began.into_values().collect();
        began.sort_by_key(|(number, _)| *number);
        began
            .iter()
            .filter_map(|(_, payload)| canonical::decode(payload).ok())
            .map(|record| AuditRecord {
                outcome: AuditOutcome::Aborted,
                ..record
            })
            .collect()
    }
}

fn damaged_record(at: UnixMillis, frames: u64, journal: Uuid) -> AuditRecord {
    let id = record_id(at);
    let request = AuditText::short(&id.to_string());
    let mut record = AuditRecord::new(id, at, Direction::Admin, AuditOutcome::Error, request);
    record.action = Some(AuditText::fixed(DAMAGED_ACTION));
    record.actor = Some(AuditText::fixed("sidecar:audit"));
    let detail = AuditDetail::new()
        .count("frames", frames)
        .text("journal", &journal.to_string());
    record.detail = Some(detail);
    record
}
