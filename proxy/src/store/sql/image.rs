//! The revision, and the image a snapshot is built from.
//!
//! Invariant: an image is read inside one transaction and shows one revision; a row that cannot be read fails the
//! whole image, so that nothing is ever decided on part of the truth.

use std::time::Duration;

use policy::time::UnixMillis;
use sqlx::Connection;
use uuid::Uuid;

use super::column::Columns;
use super::dialect::{DbConnection, SNAPSHOT, driver};
use super::writer::Writer;
use super::{certificates, grants, peers, policy_bundle};
use crate::store::{EXPIRED_CERTIFICATE_KEPT_MILLIS, StoreError, StoreImage};

pub(super) async fn revision(conn: &mut DbConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT revision FROM meta WHERE one = 1")
        .fetch_one(conn)
        .await
        .map_err(driver)?;
    Columns {
        table: "meta",
        row: &row,
    }
    .count("revision")
}

pub(super) async fn store_id(conn: &mut DbConnection) -> Result<Uuid, StoreError> {
    let row = sqlx::query("SELECT store_id FROM meta WHERE one = 1")
        .fetch_one(conn)
        .await
        .map_err(driver)?;
    Columns {
        table: "meta",
        row: &row,
    }
    .uuid("store_id")
}

pub(super) async fn raise_revision(conn: &mut DbConnection) -> Result<u64, StoreError> {
    let row =
        sqlx::query("UPDATE meta SET revision = revision + 1 WHERE one = 1 RETURNING revision")
            .fetch_one(conn)
            .await
            .map_err(driver)?;
    Columns {
        table: "meta",
        row: &row,
    }
    .count("revision")
}

pub(super) async fn longest_lease(conn: &mut DbConnection) -> Result<Duration, StoreError> {
    let row = sqlx::query("SELECT longest_lease_ms FROM meta WHERE one = 1")
        .fetch_one(conn)
        .await
        .map_err(driver)?;
    let columns = Columns {
        table: "meta",
        row: &row,
    };
    Ok(Duration::from_millis(columns.count("longest_lease_ms")?))
}

pub(super) async fn record_longest_lease(
    writer: &mut Writer,
    longest: Duration,
) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    let millis = i64::try_from(longest.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    sqlx::query("UPDATE meta SET longest_lease_ms = $1 WHERE one = 1")
        .bind(millis)
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    tx.commit().await.map_err(driver)
}

pub(super) async fn load(
    reader: &mut DbConnection,
    now: UnixMillis,
) -> Result<StoreImage, StoreError> {
    let mut tx = reader.begin_with(SNAPSHOT).await.map_err(driver)?;
    let kept_from = UnixMillis(now.0.saturating_sub(EXPIRED_CERTIFICATE_KEPT_MILLIS));
    let image = StoreImage {
        revision: revision(&mut tx).await?,
        peers: peers::list(&mut tx).await?,
        grants: grants::list_kept(&mut tx, kept_from).await?,
        certificates: certificates::list_kept(&mut tx, kept_from).await?,
        policy: policy_bundle::current(&mut tx).await?,
    };
    tx.rollback().await.map_err(driver)?;
    Ok(image)
}
