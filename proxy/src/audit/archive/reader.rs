//! The whole log in order: the files of the archive, then what is in the database.
//!
//! Invariant: every row comes once and in the order of the log, also when rows are moved into the archive meanwhile; one page of rows is in
//! memory at a time. Files are read apart from the tasks of requests.

use std::sync::Arc;

use super::super::query::AuditRow;
use super::super::{AuditLog, AuditLogError};
use super::{ColdError, ColdFile, ColdReader, Shelf};

/// Rows read at a time.
const PAGE: u32 = 1_000;
const PAGE_ROWS: usize = 1_000;

/// Some rows, in order.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Vec<AuditRow>,
    /// The file they are from; `None` for rows of the database.
    pub file: Option<String>,
}

/// Reads a log from its beginning to its end.
pub struct LogReader {
    log: Arc<dyn AuditLog>,
    shelf: Shelf,
    after: i64,
    open: Option<(ColdFile, ColdReader)>,
}

impl LogReader {
    /// Begins with the first row.
    #[must_use]
    pub fn new(log: Arc<dyn AuditLog>, shelf: Shelf) -> Self {
        Self::behind(log, shelf, i64::MIN)
    }

    /// Begins behind a position.
    #[must_use]
    pub const fn behind(log: Arc<dyn AuditLog>, shelf: Shelf, after: i64) -> Self {
        Self {
            log,
            shelf,
            after,
            open: None,
        }
    }

    /// The next rows; `None` behind the last one.
    ///
    /// # Errors
    /// [`AuditLogError`]: of a file in its turn, when the rows in front of the fault have been given out.
    pub async fn next(&mut self) -> Result<Option<Page>, AuditLogError> {
        loop {
            if let Some((file, reader)) = self.open.take() {
                let (reader, rows) = blocking(reader, |reader| reader.rows(PAGE_ROWS)).await?;
                if rows.is_empty() {
                    self.after = file.last_position;
                    continue;
                }
                let name = file.name();
                self.open = Some((file, reader));
                let rows: Vec<_> = self.unread(rows);
                if rows.is_empty() {
                    continue;
                }
                return Ok(Some(Page {
                    rows,
                    file: Some(name),
                }));
            }
            if let Some(file) = self.log.next_cold_file(self.after).await? {
                self.start(file).await?;
                continue;
            }
            let rows = self.log.read_audit(self.after, PAGE).await?;
            // Rows that were moved since are in a file now, and in front of those that were found.
            if let Some(file) = self.log.next_cold_file(self.after).await? {
                self.start(file).await?;
                continue;
            }
            let Some(last) = rows.last() else {
                return Ok(None);
            };
            self.after = last.position;
            return Ok(Some(Page { rows, file: None }));
        }
    }

    fn unread(&self, mut rows: Vec<AuditRow>) -> Vec<AuditRow> {
        rows.retain(|row| row.position > self.after);
        rows
    }

    async fn start(&mut self, file: ColdFile) -> Result<(), AuditLogError> {
        let reader = open(&self.shelf, &file).await?;
        self.open = Some((file, reader));
        Ok(())
    }
}

/// Opens a file, apart from the tasks of requests.
pub(super) async fn open(shelf: &Shelf, file: &ColdFile) -> Result<ColdReader, AuditLogError> {
    let (shelf, file) = (shelf.clone(), file.clone());
    let opened = tokio::task::spawn_blocking(move || ColdReader::open(&shelf, &file)).await;
    opened
        .map_err(|error| ended(&error))?
        .map_err(AuditLogError::Cold)
}

/// Reads apart from the tasks of requests.
pub(super) async fn blocking<T: Send + 'static>(
    mut reader: ColdReader,
    read: impl FnOnce(&mut ColdReader) -> Result<T, ColdError> + Send + 'static,
) -> Result<(ColdReader, T), AuditLogError> {
    let done = tokio::task::spawn_blocking(move || {
        let value = read(&mut reader)?;
        Ok((reader, value))
    });
    let done = done.await.map_err(|error| ended(&error))?;
    done.map_err(AuditLogError::Cold)
}

fn ended(error: &tokio::task::JoinError) -> AuditLogError {
    AuditLogError::Unavailable {
        why: error.to_string(),
    }
}
