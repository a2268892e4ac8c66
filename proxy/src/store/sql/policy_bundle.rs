//! The published policy.
//!
//! Invariant: a bundle and the raised edit counters of the grants it touches become visible together; old bundles
//! are kept. Whether a bundle is valid has been decided before it comes here.

use std::collections::BTreeSet;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver, elements};
use super::writer::Writer;
use crate::store::{Act, Committed, PolicyBundle, PolicyPublication, StoreError};

pub(super) async fn current(conn: &mut DbConnection) -> Result<Option<PolicyBundle>, StoreError> {
    newest(conn, i64::MAX).await
}

/// The bundle that was in force at a revision.
pub(super) async fn at(
    conn: &mut DbConnection,
    revision: u64,
) -> Result<Option<PolicyBundle>, StoreError> {
    newest(conn, i64::try_from(revision).unwrap_or(i64::MAX)).await
}

async fn newest(conn: &mut DbConnection, upto: i64) -> Result<Option<PolicyBundle>, StoreError> {
    let row = sqlx::query(
        "SELECT files, sha256, applied_at FROM policy_bundles WHERE revision <= $1 \
         ORDER BY revision DESC LIMIT 1",
    )
    .bind(upto)
    .fetch_optional(conn)
    .await
    .map_err(driver)?;
    let Some(row) = row else {
        return Ok(None);
    };
    let columns = Columns {
        table: "policy_bundles",
        row: &row,
    };
    let files = serde_json::from_str(&columns.text("files")?)
        .map_err(|error| StoreError::corrupt("policy_bundles", format!("files: {error}")))?;
    Ok(Some(PolicyBundle {
        files,
        sha256: columns.digest("sha256")?,
        applied_at: columns.millis("applied_at")?,
    }))
}

pub(super) async fn publish(
    writer: &mut Writer,
    act: &Act,
    publication: PolicyPublication,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    if current(conn)
        .await?
        .is_some_and(|bundle| bundle.sha256 == publication.sha256)
    {
        return change.unchanged(()).await;
    }
    let files = serde_json::to_string(&publication.files)
        .map_err(|error| StoreError::invalid(format!("the files have no JSON form: {error}")))?;
    // Numbered by the revision this change will commit as.
    sqlx::query(
        "INSERT INTO policy_bundles (revision, files, sha256, applied_at) \
         SELECT revision + 1, $1, $2, $3 FROM meta WHERE one = 1",
    )
    .bind(files)
    .bind(publication.sha256.as_slice())
    .bind(act.now.0)
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    let touched: BTreeSet<String> = publication
        .touched
        .iter()
        .map(ToString::to_string)
        .collect();
    let raised = raise(conn, &touched).await?;
    let admin = AdminAct::new("policy.publish")
        .text("sha256", &hex::encode(publication.sha256))
        .count("grants", raised);
    change.commit(admin, ()).await
}

/// Raises the edit counters of all of `touched`, in one statement whatever their number.
async fn raise(conn: &mut DbConnection, touched: &BTreeSet<String>) -> Result<u64, StoreError> {
    let ids = serde_json::to_string(touched).map_err(|error| {
        StoreError::invalid(format!("the grant ids have no JSON form: {error}"))
    })?;
    let done = sqlx::query(concat!(
        "UPDATE grants SET edit = edit + 1 WHERE id IN (SELECT value FROM ",
        elements!("$1"),
        ")"
    ))
    .bind(ids)
    .execute(conn)
    .await
    .map_err(driver)?;
    let raised = done.rows_affected();
    if usize::try_from(raised) != Ok(touched.len()) {
        return Err(StoreError::conflict(format!(
            "the policy touches {} grants of which {raised} exist",
            touched.len()
        )));
    }
    Ok(raised)
}
