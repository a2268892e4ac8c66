//! `audit archive`: moving old audit rows into the archive now.
//!
//! Invariant: rows are moved when they are old, never in advance, some files in one call; whoever asked may go away in the middle.
//! How it is done is in `archiver.rs`.

use std::sync::Arc;
use std::time::Duration;

use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::archiver::{ArchiveError, Due};
use super::{AdminCode, AdminFailure, Control};
use crate::audit::AuditLogError;
use crate::audit::archive::{ColdError, ColdFile};
use crate::directory::Touched;
use crate::store::Actor;

/// Files made in one call; the answer says whether there is more to do.
const FILES_AT_ONCE: usize = 8;

impl From<ArchiveError> for AdminFailure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Log(AuditLogError::Cold(ColdError::Busy)) => {
                Self::new(AdminCode::Conflict, ColdError::Busy.to_string())
            }
            ArchiveError::Log(error) => error.into(),
            ArchiveError::Store(error) => error.into(),
            ArchiveError::Internal(_) => Self::new(AdminCode::Unavailable, error.to_string()),
        }
    }
}

/// Which rows to move: one of the two, or neither for those that the settings say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveAudit {
    /// Rows from before this.
    pub before: Option<UnixMillis>,
    /// Rows older than so many seconds.
    pub older_than_s: Option<u32>,
}

/// What was moved.
#[derive(Debug, Serialize)]
pub struct ArchivedAudit {
    /// Rows from before this were to be moved.
    pub before: UnixMillis,
    /// The files they are in now.
    pub files: Vec<ArchivedFile>,
    /// Whether there may be more to move.
    pub more: bool,
}

/// A file that was made.
#[derive(Debug, Serialize)]
pub struct ArchivedFile {
    /// Its name.
    pub file: String,
    /// Rows in it.
    pub rows: u64,
    /// The earliest time of a row in it.
    pub earliest: UnixMillis,
    /// The latest.
    pub latest: UnixMillis,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

impl From<&ColdFile> for ArchivedFile {
    fn from(file: &ColdFile) -> Self {
        Self {
            file: file.name(),
            rows: file.rows,
            earliest: file.earliest,
            latest: file.latest,
            bytes: file.bytes,
            sha256: hex::encode(file.sha256),
        }
    }
}

impl Control {
    /// `audit archive`: moves rows into the archive now, a few files in one call.
    ///
    /// # Errors
    /// Times that make no sense; [`ArchiveError`].
    pub async fn archive_audit(
        self: Arc<Self>,
        actor: &Actor,
        asked: ArchiveAudit,
    ) -> Result<ArchivedAudit, AdminFailure> {
        let now = self.now();
        let ago = |age: Duration| now.saturating_add(millis(age).saturating_neg());
        let before = match (asked.before, asked.older_than_s) {
            (Some(_), Some(_)) => {
                return Err(AdminFailure::invalid(
                    "`before` and `older_than_s` exclude each other",
                ));
            }
            (Some(before), None) => before,
            (None, Some(seconds)) => ago(Duration::from_secs(seconds.into())),
            (None, None) => ago(self.config.audit.archive_after.ok_or_else(|| {
                AdminFailure::invalid("`audit.archive_after_days` is 0, which says no age")
                    .hint("say which rows: --before or --older-than")
            })?),
        };
        if before > now {
            return Err(AdminFailure::invalid(format!("{before} is not past yet"))
                .hint("rows are moved when they are old, not in advance"));
        }
        let actor = actor.clone();
        // On its own: whoever asked may go away in the middle.
        let run = tokio::spawn(async move {
            let due = Due { before, now };
            self.move_rows(due, &actor, &|| false).await
        });
        match run.await {
            Ok(made) => Ok(made?),
            Err(error) => Err(AdminFailure::new(AdminCode::Unavailable, error.to_string())),
        }
    }

    /// Moves what is due, as far as a few files hold it.
    pub(crate) async fn move_rows(
        &self,
        due: Due,
        actor: &Actor,
        is_stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<ArchivedAudit, AdminFailure> {
        let act = || self.act(actor);
        let run = self.archiver.run(due, &act, FILES_AT_ONCE, is_stopped);
        let (made, last) = match run.await {
            Ok(done) => done,
            Err(error) => {
                self.audit.archive.failed(error.to_string());
                // Files that were made before are committed.
                if let Err(error) = self.directory.refresh().await {
                    tracing::error!(%error, "the directory could not be brought up to date");
                }
                return Err(error.into());
            }
        };
        if let Some(committed) = last {
            self.apply(committed, Touched::All).await?;
        }
        let more = made.len() == FILES_AT_ONCE;
        let age = self.config.audit.archive_after.map(millis);
        if !more && age.is_some_and(|age| due.now.since(due.before) <= age) {
            self.audit.archive.succeeded(due.now);
        }
        Ok(ArchivedAudit {
            before: due.before,
            files: made
                .iter()
                .map(|one| ArchivedFile::from(&one.file))
                .collect(),
            more,
        })
    }
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}
