//! Which rows a grant has seen on a day, and how many.
//!
//! Invariant: the count of a grant and day is the number of its rows, both change in one transaction, and neither goes
//! over the budget that came with the call. Rows that were seen before cost a read and no write.

use std::collections::HashSet;

use policy::id::GrantId;

use super::dialect::{DbConnection, driver, elements, unhex};
use super::writer::Writer;
use crate::store::{RowMark, RowsBooked, StoreError};

/// Which of `rows` the grant has seen on `day`.
async fn known(
    conn: &mut DbConnection,
    grant: GrantId,
    day: i64,
    rows: &[RowMark],
) -> Result<HashSet<RowMark>, StoreError> {
    let found: Vec<Vec<u8>> = sqlx::query_scalar(concat!(
        "SELECT \"row\" FROM rows_seen WHERE day = $1 AND grant_id = $2 AND \"row\" IN (SELECT ",
        unhex!("value"),
        " FROM ",
        elements!("$3"),
        ")"
    ))
    .bind(day)
    .bind(grant.as_bytes().as_slice())
    .bind(list(rows))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    Ok(found
        .into_iter()
        .filter_map(|row| RowMark::try_from(row).ok())
        .collect())
}

/// A JSON list of hexadecimal texts: one statement for any number of rows.
fn list(rows: &[RowMark]) -> String {
    let texts: Vec<String> = rows.iter().map(hex::encode).collect();
    format!("[\"{}\"]", texts.join("\",\""))
}

/// How many different rows the grant has seen on `day`.
pub(super) async fn count(
    conn: &mut DbConnection,
    grant: GrantId,
    day: i64,
) -> Result<u32, StoreError> {
    let count: Option<i64> =
        sqlx::query_scalar("SELECT rows FROM row_counts WHERE day = $1 AND grant_id = $2")
            .bind(day)
            .bind(grant.as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(driver)?;
    Ok(u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX))
}

/// As much of `rows`, from the first on, as the grant has seen already; a read.
pub(super) async fn seen(
    conn: &mut DbConnection,
    grant: GrantId,
    day: i64,
    rows: &[RowMark],
) -> Result<RowsBooked, StoreError> {
    let known = known(conn, grant, day, rows).await?;
    let admitted = rows.iter().take_while(|row| known.contains(*row)).count();
    let seen = count(conn, grant, day).await?;
    Ok(RowsBooked { admitted, seen })
}

/// Books rows in order until the budget is used up.
pub(super) async fn book(
    writer: &mut Writer,
    grant: GrantId,
    day: i64,
    budget: u32,
    rows: &[RowMark],
) -> Result<RowsBooked, StoreError> {
    let (mut tx, _) = writer.begin().await?;
    let mut known = known(&mut tx, grant, day, rows).await?;
    let mut seen = count(&mut tx, grant, day).await?;
    let mut new = Vec::new();
    let mut admitted = 0_usize;
    for row in rows {
        if !known.contains(row) {
            if seen >= budget {
                break;
            }
            seen = seen.saturating_add(1);
            known.insert(*row);
            new.push(*row);
        }
        admitted = admitted.saturating_add(1);
    }
    if new.is_empty() {
        tx.rollback().await.map_err(driver)?;
        return Ok(RowsBooked { admitted, seen });
    }
    sqlx::query(concat!(
        "INSERT INTO rows_seen (day, grant_id, \"row\") SELECT $1, $2, ",
        unhex!("value"),
        " FROM ",
        elements!("$3")
    ))
    .bind(day)
    .bind(grant.as_bytes().as_slice())
    .bind(list(&new))
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    sqlx::query(
        "INSERT INTO row_counts (day, grant_id, rows) VALUES ($1, $2, $3) \
         ON CONFLICT (day, grant_id) DO UPDATE SET rows = excluded.rows",
    )
    .bind(day)
    .bind(grant.as_bytes().as_slice())
    .bind(i64::from(seen))
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)?;
    Ok(RowsBooked { admitted, seen })
}

/// The counts of all grants on `day`.
pub(super) async fn counts(
    conn: &mut DbConnection,
    day: i64,
) -> Result<Vec<(GrantId, u32)>, StoreError> {
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("SELECT grant_id, rows FROM row_counts WHERE day = $1")
            .bind(day)
            .fetch_all(conn)
            .await
            .map_err(driver)?;
    Ok(rows
        .into_iter()
        .filter_map(|(grant, count)| {
            let grant = uuid::Uuid::from_slice(&grant).ok()?;
            Some((grant.into(), u32::try_from(count).unwrap_or(u32::MAX)))
        })
        .collect())
}

/// Forgets at most `most` rows of days before `day`, and their counts once no row is left; how many rows.
pub(super) async fn forget(writer: &mut Writer, day: i64, most: u32) -> Result<u64, StoreError> {
    let (mut tx, _) = writer.begin().await?;
    let rows = sqlx::query(
        "DELETE FROM rows_seen WHERE (day, grant_id, \"row\") IN \
         (SELECT day, grant_id, \"row\" FROM rows_seen WHERE day < $1 ORDER BY day, grant_id, \"row\" LIMIT $2)",
    )
    .bind(day)
    .bind(i64::from(most))
    .execute(&mut *tx)
    .await
    .map_err(driver)?
    .rows_affected();
    if rows < u64::from(most) {
        sqlx::query("DELETE FROM row_counts WHERE day < $1")
            .bind(day)
            .execute(&mut *tx)
            .await
            .map_err(driver)?;
    }
    tx.commit().await.map_err(driver)?;
    Ok(rows)
}
