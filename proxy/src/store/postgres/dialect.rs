//! What is PostgreSQL's own: its types, the words that other databases do not know, what its errors mean.
//!
//! Invariant: the names here are those that the files below `sql/` ask of every database. No error of the driver is passed on
//! with a value in it: the server's main message names tables and constraints, its details are left out.

use sqlx::{Connection, PgConnection, Postgres};

use super::super::StoreError;

pub(super) type Db = Postgres;
pub(super) type DbConnection = PgConnection;
pub(super) type DbRow = sqlx::postgres::PgRow;
pub(super) type DbArguments = sqlx::postgres::PgArguments;

/// Begins a transaction that reads everything at one instant.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The texts of a JSON list, as rows of a column `value`.
macro_rules! elements {
    ($list:literal) => {
        concat!("jsonb_array_elements_text(CAST(", $list, " AS JSONB))")
    };
}
pub(super) use elements;

/// The bytes that a hexadecimal text stands for.
macro_rules! unhex {
    ($text:literal) => {
        concat!("decode(", $text, ", 'hex')")
    };
}
pub(super) use unhex;

/// The database's clock: milliseconds since the epoch.
macro_rules! now_ms {
    () => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    };
}
pub(super) use now_ms;

/// The store error that a driver error means.
#[allow(clippy::needless_pass_by_value, reason = "used in map_err")]
pub(super) fn driver(error: sqlx::Error) -> StoreError {
    let Some(database) = error.as_database_error() else {
        return StoreError::Unavailable {
            why: match error {
                sqlx::Error::PoolTimedOut => "no connection became free in time".to_owned(),
                other => other.to_string(),
            },
        };
    };
    if database.is_unique_violation() || database.is_foreign_key_violation() {
        return StoreError::conflict(format!("the database refused it: {}", database.message()));
    }
    match database.code().as_deref() {
        // Raised by a trigger of ours, which says why.
        Some("MF001") => StoreError::conflict(database.message()),
        // Not given the lock in time; chosen to end a deadlock; had to be tried again.
        Some("55P03" | "40P01" | "40001") => StoreError::Busy,
        // Text that PostgreSQL has no place for: U+0000.
        Some("22021") => StoreError::invalid("a text with a zero character cannot be stored"),
        _ => StoreError::Unavailable {
            why: database.message().to_owned(),
        },
    }
}

/// Ends whatever transaction is open on the connection; whether it is still of use.
pub(super) async fn roll_back(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(connection).await?;
    Ok(true)
}

/// Whether the connection still works.
pub(super) async fn alive(connection: &mut PgConnection) -> bool {
    connection.ping().await.is_ok()
}
