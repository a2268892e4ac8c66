//! Moving old audit rows into the archive.
//!
//! Invariant: the order of the steps. A file is written under a name nobody reads, synced, read back, given its name, its name synced;
//! then one transaction writes its manifest and removes its rows. Before that transaction the rows are in the database, after it in the file;
//! whatever an earlier run left is removed, or, under the name of a file, proved to be a copy of what the database has. One
//! process at a time moves rows. Time is an argument. When it is done is decided in `archive.rs` and `app/archiving.rs`.

use std::sync::Arc;

use policy::time::UnixMillis;

use crate::audit::AuditLogError;
use crate::audit::archive::{
    ArchiveCounts, ColdError, ColdReader, ColdWriter, Finished, Manifest, ROWS_MAX, Shelf,
    file_name,
};
use crate::store::{Act, Committed, Store, StoreError};

/// Rows read at a time.
const PAGE: u32 = 1_000;
const PAGE_ROWS: usize = 1_000;

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveStep {
    /// Some rows are written, not all.
    Writing,
    /// The file is written to its end.
    Written,
    /// It is on the disk.
    Synced,
    /// It was read back.
    ReadBack,
    /// It has its name.
    Named,
    /// Its name is on the disk.
    NameSynced,
    /// It has its manifest, and the database has its rows no more.
    Recorded,
}

impl ArchiveStep {
    /// Every step, in order.
    pub const ALL: [Self; 7] = [
        Self::Writing,
        Self::Written,
        Self::Synced,
        Self::ReadBack,
        Self::Named,
        Self::NameSynced,
        Self::Recorded,
    ];
}

/// What is done with a file that is written.
type Step = fn(&Finished) -> Result<(), ColdError>;

/// Is told of every step.
pub type Observe = Box<dyn Fn(ArchiveStep) + Send + Sync>;

/// Why rows were not moved. They are where they were.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log, or a file.
    #[error(transparent)]
    Log(#[from] AuditLogError),
    /// The transaction.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of this program.
    #[error("the task that writes the archive ended: {0}")]
    Internal(String),
}

impl From<ColdError> for ArchiveError {
    fn from(error: ColdError) -> Self {
        Self::Log(error.into())
    }
}

/// Which rows are moved, and when that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Rows from before this.
    pub before: UnixMillis,
    /// The present.
    pub now: UnixMillis,
}

/// Moves rows of one store into its archive.
pub struct Archiver {
    store: Arc<dyn Store>,
    shelf: Shelf,
    counts: Arc<ArchiveCounts>,
    observe: Observe,
    /// Runs of this process wait for each other; those of others are refused.
    turn: tokio::sync::Mutex<()>,
}

impl Archiver {
    /// An archiver that tells `observe` of every step.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        shelf: Shelf,
        counts: Arc<ArchiveCounts>,
        observe: Observe,
    ) -> Self {
        Self {
            store,
            shelf,
            counts,
            observe,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Where the files are.
    #[must_use]
    pub const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Moves what is due, one file after the other, until there is no more, `most` files are made, or it `is_stopped`. Returns the files,
    /// and what the last one was committed as.
    ///
    /// # Errors
    /// [`ArchiveError`]; files that were made before are recorded.
    pub async fn run(
        &self,
        due: Due,
        act: &(dyn Fn() -> Act + Sync),
        most: usize,
        is_stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<(Vec<Manifest>, Option<Committed<()>>), ArchiveError> {
        let _turn = self.turn.lock().await;
        let shelf = self.shelf.clone();
        let _lock = blocking(move || shelf.take()).await?;
        let mut made = Vec::new();
        let mut last = None;
        while made.len() < most && !is_stopped() {
            let Some((manifest, committed)) = self.one(due, &act()).await? else {
                break;
            };
            made.push(manifest);
            last = Some(committed);
        }
        Ok((made, last))
    }

    async fn one(
        &self,
        due: Due,
        act: &Act,
    ) -> Result<Option<(Manifest, Committed<()>)>, ArchiveError> {
        let upto = self
            .store
            .due_for_archive(due.before, due.now, ROWS_MAX)
            .await?;
        let Some(upto) = upto else { return Ok(None) };
        let files = self.store.cold_files().await?;
        let number = files.last().map_or(0, |file| file.number).saturating_add(1);
        self.check_left_behind(number).await?;
        let after = files.last().map_or(i64::MIN, |file| file.last_position);
        let Some(finished) = self.write(number, after, upto).await? else {
            return Ok(None);
        };
        let finished = self.publish(finished).await?;
        let manifest = finished.manifest().clone();
        let committed = self.store.archive_audit(act, &manifest).await?;
        self.counts.moved(manifest.file.rows);
        (self.observe)(ArchiveStep::Recorded);
        Ok(Some((manifest, committed)))
    }

    /// A file that no manifest names may be made again if the database has every row of it.
    async fn check_left_behind(&self, number: u64) -> Result<(), ArchiveError> {
        let shelf = self.shelf.clone();
        let opened = blocking(move || {
            ColdReader::open_unlisted(&shelf, number).map_err(|error| foreign(number, error))
        });
        let Some(mut reader) = opened.await? else {
            return Ok(());
        };
        loop {
            let (back, rows) = blocking(move || {
                let rows = reader.rows(PAGE_ROWS);
                Ok((reader, rows.map_err(|error| foreign(number, error))?))
            })
            .await?;
            reader = back;
            let Some(first) = rows.first() else {
                return Ok(());
            };
            let there = self
                .store
                .read_audit(first.position.saturating_sub(1), PAGE)
                .await?;
            if there.get(..rows.len()) != Some(rows.as_slice()) {
                let name = file_name(number);
                return Err(ColdError::Foreign { name }.into());
            }
        }
    }

    /// Writes the rows between two positions, as many as fit.
    async fn write(
        &self,
        number: u64,
        mut after: i64,
        upto: i64,
    ) -> Result<Option<Finished>, ArchiveError> {
        let shelf = self.shelf.clone();
        let mut writer = blocking(move || ColdWriter::begin(&shelf, number)).await?;
        let mut full = false;
        while !full {
            let mut rows = self.store.read_audit(after, PAGE).await?;
            rows.retain(|row| row.position <= upto);
            let Some(last) = rows.last() else { break };
            after = last.position;
            (writer, full) = blocking(move || {
                for row in &rows {
                    if !writer.push(row)? {
                        return Ok((writer, true));
                    }
                }
                Ok((writer, false))
            })
            .await?;
            (self.observe)(ArchiveStep::Writing);
        }
        let finished = blocking(move || writer.finish()).await?;
        (self.observe)(ArchiveStep::Written);
        Ok(finished)
    }

    /// Brings a file to the disk and gives it its name.
    async fn publish(&self, mut finished: Finished) -> Result<Finished, ArchiveError> {
        let steps: [(Step, ArchiveStep); 4] = [
            (Finished::sync, ArchiveStep::Synced),
            (Finished::read_back, ArchiveStep::ReadBack),
            (Finished::rename, ArchiveStep::Named),
            (Finished::sync_name, ArchiveStep::NameSynced),
        ];
        for (step, done) in steps {
            finished = blocking(move || step(&finished).map(|()| finished)).await?;
            (self.observe)(done);
        }
        Ok(finished)
    }
}

impl std::fmt::Debug for Archiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archiver")
            .field("shelf", &self.shelf)
            .finish_non_exhaustive()
    }
}

/// A file that nobody lists and that is not whole is not one of ours.
fn foreign(number: u64, error: ColdError) -> ColdError {
    match error {
        ColdError::Changed { .. } => ColdError::Foreign {
            name: file_name(number),
        },
        other => other,
    }
}

/// Does what may wait for the disk apart from the tasks of requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ColdError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(ArchiveError::Internal(error.to_string())),
    }
}
