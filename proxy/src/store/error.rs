//! What can go wrong with a store, as a caller has to tell it apart.
//!
//! Invariant: no variant carries a stored secret, token or sealed byte. Which HTTP status or exit code
//! follows from an error is decided by the callers.

use std::path::PathBuf;

/// Why a store operation did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no {what} {id}; list what exists and check the id")]
    NotFound {
        /// What kind of object was asked for.
        what: &'static str,
        /// The id or name asked for.
        id: String,
    },
    /// The change contradicts the present state; nothing was written.
    #[error("{what}; nothing was changed")]
    Conflict {
        /// The contradiction, as a clause.
        what: String,
    },
    /// An argument is out of its bounds; nothing was written.
    #[error("{what}; nothing was changed")]
    Invalid {
        /// The argument and its bound, as a clause.
        what: String,
    },
    /// Another writer kept the database locked for longer than the busy timeout; worth another try.
    #[error("the database stayed locked by another writer; try again")]
    Busy,
    /// The database failed: disk, file or driver.
    #[error("the database failed: {why}; check that it runs and has room")]
    Unavailable {
        /// The driver's message.
        why: String,
    },
    /// A stored row is not what this program writes.
    #[error("a row of {table} cannot be read: {why}; restore the database from a backup")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column and the fault, without the stored value.
        why: String,
    },
}

impl StoreError {
    pub(super) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            what,
            id: id.to_string(),
        }
    }

    pub(super) fn conflict(what: impl Into<String>) -> Self {
        Self::Conflict { what: what.into() }
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(super) fn corrupt(table: &'static str, why: impl ToString) -> Self {
        Self::Corrupt {
            table,
            why: why.to_string(),
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database was written by a newer program.
    #[error(
        "the database {place} has schema {found}, this program knows up to {known}: install the newer program, there is no way back"
    )]
    NewerSchema {
        /// The database: its file, or where it is.
        place: String,
        /// The newest migration the database has.
        found: i64,
        /// The newest migration this program has.
        known: i64,
    },
    /// Others than the owner may read or write the database file.
    #[error(
        "the database {} has mode {mode:04o}: others may reach it; run `chmod 600` on it after checking who read it",
        path.display()
    )]
    LooseMode {
        /// The database file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be created or inspected.
    #[error("the database file {} cannot be used: {source}; check the directory and its owner", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A migration could not be applied, or one already applied was changed.
    #[error(
        "the database {place} could not be brought up to date: {why}; restore a backup or report it"
    )]
    Migration {
        /// The database: its file, or where it is.
        place: String,
        /// The driver's message.
        why: String,
    },
    /// The database cannot be opened or read.
    #[error("the database {place} cannot be opened: {source}")]
    Database {
        /// The database: its file, or where it is.
        place: String,
        /// What the first statements failed with.
        source: StoreError,
    },
}
