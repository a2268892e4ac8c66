//! What is noted beside the audit rows: the head of each chain, and how far each journal has been brought in.
//!
//! Invariant: a note is only ever written in the transaction of the rows it is about.

use sqlx::Row;
use uuid::Uuid;

use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use crate::audit::Head;
use crate::store::StoreError;

/// Every chain's newest row as it is noted, oldest chain first.
pub(super) async fn heads(conn: &mut DbConnection) -> Result<Vec<Head>, StoreError> {
    let rows = sqlx::query("SELECT chain, seq, hash FROM audit_chains ORDER BY number")
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(decode).collect()
}

/// The newest row of the newest chain.
pub(super) async fn newest(conn: &mut DbConnection) -> Result<Option<Head>, StoreError> {
    sqlx::query("SELECT chain, seq, hash FROM audit_chains ORDER BY number DESC LIMIT 1")
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .as_ref()
        .map(decode)
        .transpose()
}

/// The head that is noted for one chain.
pub(super) async fn head(conn: &mut DbConnection, chain: Uuid) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT chain, seq, hash FROM audit_chains WHERE chain = $1")
        .bind(chain.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    let row = row.ok_or_else(|| {
        StoreError::corrupt(
            "audit_chains",
            "the chain of this process is not there any more",
        )
    })?;
    decode(&row)
}

/// Notes the newest row of a chain.
pub(super) async fn note_head(conn: &mut DbConnection, head: &Head) -> Result<(), StoreError> {
    sqlx::query("UPDATE audit_chains SET seq = $1, hash = $2 WHERE chain = $3")
        .bind(i64::try_from(head.seq).unwrap_or(i64::MAX))
        .bind(head.hash.as_slice())
        .bind(head.chain.as_bytes().as_slice())
        .execute(conn)
        .await
        .map(drop)
        .map_err(driver)
}

/// How far a journal has been brought in; 0 when nothing is noted.
pub(super) async fn applied(conn: &mut DbConnection, journal: Uuid) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT applied FROM audit_journals WHERE journal = $1")
        .bind(journal.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    let Some(row) = row else { return Ok(0) };
    let applied: i64 = row
        .try_get("applied")
        .map_err(|error| StoreError::corrupt("audit_journals", error.to_string()))?;
    u64::try_from(applied)
        .map_err(|_| StoreError::corrupt("audit_journals", "applied: out of range"))
}

/// Notes how far a journal has been brought in.
pub(super) async fn note_applied(
    conn: &mut DbConnection,
    journal: Uuid,
    applied: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_journals (journal, applied) VALUES ($1, $2) \
         ON CONFLICT (journal) DO UPDATE SET applied = excluded.applied",
    )
    .bind(journal.as_bytes().as_slice())
    .bind(i64::try_from(applied).unwrap_or(i64::MAX))
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

fn decode(row: &DbRow) -> Result<Head, StoreError> {
    let columns = Columns {
        table: "audit_chains",
        row,
    };
    Ok(Head {
        chain: columns.blob_uuid("chain")?,
        seq: columns.count("seq")?,
        hash: columns.hash("hash")?,
    })
}
