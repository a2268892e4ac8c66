//! The list of the archive's files, and moving rows into one.
//!
//! Invariant: rows leave the table in the transaction that writes the manifest of their file and puts it onto the list, and only
//! if they are as many as the file has, between the same positions. Writing the file is elsewhere.

use futures_util::TryStreamExt;
use policy::time::UnixMillis;
use sqlx::Row;

use super::audit::stored;
use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use crate::audit::archive::{ColdFile, MANIFEST_ACTION, Manifest};
use crate::store::{Act, Committed, StoreError};

const ALL: &str = "SELECT number, rows, first_position, last_position, earliest, latest, bytes, sha256 \
                   FROM audit_archives ORDER BY number";
const NEXT: &str = "SELECT number, rows, first_position, last_position, earliest, latest, bytes, sha256 \
                    FROM audit_archives WHERE last_position > $1 ORDER BY last_position LIMIT 1";

pub(super) async fn archive(
    writer: &mut Writer,
    act: &Act,
    manifest: &Manifest,
) -> Result<Committed<()>, StoreError> {
    let file = &manifest.file;
    let mut change = Change::begin(writer, act).await?;
    let newest: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM audit_archives")
        .fetch_one(change.conn())
        .await
        .map_err(driver)?;
    if stored(file.number) != newest.unwrap_or(0).saturating_add(1) {
        return Err(StoreError::conflict(format!(
            "`{}` is not the next file of the archive",
            file.name()
        )));
    }
    let found = sqlx::query(
        "SELECT count(*), min(position), max(position) FROM federation_audit_log WHERE position <= $1",
    )
    .bind(file.last_position)
    .fetch_one(change.conn())
    .await
    .map_err(driver)?;
    let there: (i64, Option<i64>, Option<i64>) = (
        found.try_get(0).map_err(driver)?,
        found.try_get(1).map_err(driver)?,
        found.try_get(2).map_err(driver)?,
    );
    let (first, last) = (Some(file.first_position), Some(file.last_position));
    if there != (stored(file.rows), first, last) {
        return Err(StoreError::conflict(format!(
            "the rows in the database are not those of `{}`",
            file.name()
        )));
    }
    sqlx::query("DELETE FROM federation_audit_log WHERE position <= $1")
        .bind(file.last_position)
        .execute(change.conn())
        .await
        .map_err(driver)?;
    sqlx::query(
        "INSERT INTO audit_archives \
         (number, rows, first_position, last_position, earliest, latest, bytes, sha256) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(stored(file.number))
    .bind(stored(file.rows))
    .bind(file.first_position)
    .bind(file.last_position)
    .bind(file.earliest.0)
    .bind(file.latest.0)
    .bind(stored(file.bytes))
    .bind(file.sha256.as_slice())
    .execute(change.conn())
    .await
    .map_err(driver)?;
    let told = AdminAct {
        detail: manifest.detail(),
        ..AdminAct::new(MANIFEST_ACTION)
    };
    let committed = change.commit(told, ()).await?;
    writer.after_archiving(file.latest.0).await;
    Ok(committed)
}

pub(super) async fn files(conn: &mut DbConnection) -> Result<Vec<ColdFile>, StoreError> {
    sqlx::query(ALL)
        .fetch_all(conn)
        .await
        .map_err(driver)?
        .iter()
        .map(decode)
        .collect()
}

pub(super) async fn next_file(
    conn: &mut DbConnection,
    after: i64,
) -> Result<Option<ColdFile>, StoreError> {
    sqlx::query(NEXT)
        .bind(after)
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .as_ref()
        .map(decode)
        .transpose()
}

pub(super) async fn due(
    conn: &mut DbConnection,
    before: UnixMillis,
    now: UnixMillis,
    most: u64,
) -> Result<Option<i64>, StoreError> {
    let mut rows =
        sqlx::query("SELECT position, at FROM federation_audit_log ORDER BY position LIMIT $1")
            .bind(stored(most))
            .fetch(conn);
    let mut last = None;
    while let Some(row) = rows.try_next().await.map_err(driver)? {
        let position: i64 = row.try_get(0).map_err(driver)?;
        let at = UnixMillis(row.try_get(1).map_err(driver)?);
        if at < before {
            last = Some(position);
        } else if at <= now {
            break;
        }
    }
    Ok(last)
}

fn decode(row: &DbRow) -> Result<ColdFile, StoreError> {
    let columns = Columns {
        table: "audit_archives",
        row,
    };
    Ok(ColdFile {
        number: columns.count("number")?,
        rows: columns.count("rows")?,
        first_position: columns.integer("first_position")?,
        last_position: columns.integer("last_position")?,
        earliest: columns.millis("earliest")?,
        latest: columns.millis("latest")?,
        bytes: columns.count("bytes")?,
        sha256: columns.hash("sha256")?,
    })
}
