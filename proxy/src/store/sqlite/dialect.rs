//! What is SQLite's own: its types, the words that other databases do not know, what its errors mean.
//!
//! Invariant: the names here are those that the files below `sql/` ask of every database.

use sqlx::{Sqlite, SqliteConnection};

use super::super::StoreError;

pub(super) type Db = Sqlite;
pub(super) type DbConnection = SqliteConnection;
pub(super) type DbRow = sqlx::sqlite::SqliteRow;
pub(super) type DbArguments = sqlx::sqlite::SqliteArguments;

/// Begins a transaction that reads everything at one instant.
pub(super) const SNAPSHOT: &str = "BEGIN";

/// The texts of a JSON list, as rows of a column `value`.
macro_rules! elements {
    ($list:literal) => {
        concat!("json_each(", $list, ")")
    };
}
pub(super) use elements;

/// The bytes that a hexadecimal text stands for.
macro_rules! unhex {
    ($text:literal) => {
        concat!("unhex(", $text, ")")
    };
}
pub(super) use unhex;

/// The database's clock: milliseconds since the epoch.
macro_rules! now_ms {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}
pub(super) use now_ms;

/// SQLITE_BUSY and SQLITE_LOCKED: the primary result codes for "another writer is at it".
const BUSY: i64 = 5;
const LOCKED: i64 = 6;
/// SQLITE_CONSTRAINT_TRIGGER: a trigger of ours refused the row, and says why.
const REFUSED: &str = "1811";

/// The store error that a driver error means.
#[allow(clippy::needless_pass_by_value, reason = "used in map_err")]
pub(super) fn driver(error: sqlx::Error) -> StoreError {
    let Some(database) = error.as_database_error() else {
        return StoreError::Unavailable {
            why: error.to_string(),
        };
    };
    if database.is_unique_violation() || database.is_foreign_key_violation() {
        return StoreError::conflict(format!("the database refused it: {}", database.message()));
    }
    if database.code().is_some_and(|code| code == REFUSED) {
        return StoreError::conflict(database.message());
    }
    // Extended result codes keep the primary one in the low byte.
    let primary = database
        .code()
        .and_then(|code| code.parse::<i64>().ok())
        .map(|code| code & 0xff);
    match primary {
        Some(BUSY | LOCKED) => StoreError::Busy,
        _ => StoreError::Unavailable {
            why: database.message().to_owned(),
        },
    }
}
