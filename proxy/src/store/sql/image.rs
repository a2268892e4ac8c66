//! The revision, and the image a snapshot is built from.
//!
//! Invariant: an image is read inside one transaction and shows one revision; a row that cannot be read fails the
//! whole image, so that nothing is ever decided on part of the truth. What was changed since a revision is told by the rows of
//! the acts that did it, which are written with each change; where they do not account for every revision, it is not told.

use std::collections::BTreeSet;
use std::time::Duration;

use policy::id::GrantId;
use policy::time::UnixMillis;
use sqlx::Connection;
use uuid::Uuid;

use super::column::Columns;
use super::dialect::{DbConnection, SNAPSHOT, driver};
use super::writer::Writer;
use super::{certificates, grants, peers, policy_bundle};
use crate::store::{
    EXPIRED_CERTIFICATE_KEPT_MILLIS, GrantImage, StoreChanges, StoreError, StoreImage,
};

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

/// Rows of the audit log that are looked at for what was changed: each change has its own there, under its revision.
const RECENT: i64 = 1_000;
/// Grants that are read one by one; when more were changed, all are read.
const MOST_CHANGED: usize = 64;

pub(super) async fn load_changes(
    reader: &mut DbConnection,
    since: u64,
    now: UnixMillis,
) -> Result<Option<StoreChanges>, StoreError> {
    let mut tx = reader.begin_with(SNAPSHOT).await.map_err(driver)?;
    let revision = revision(&mut tx).await?;
    let mut grants = Vec::new();
    let Some(changed) = changed_grants(&mut tx, since, revision).await? else {
        tx.rollback().await.map_err(driver)?;
        return Ok(None);
    };
    for id in changed {
        grants.push(grant_image(&mut tx, id, now).await?);
    }
    tx.rollback().await.map_err(driver)?;
    Ok(Some(StoreChanges { revision, grants }))
}

/// The grants that were changed after `since`, up to `revision`; `None` when that is not all that was.
async fn changed_grants(
    conn: &mut DbConnection,
    since: u64,
    revision: u64,
) -> Result<Option<BTreeSet<GrantId>>, StoreError> {
    let Some(changes) = revision.checked_sub(since) else {
        return Ok(None);
    };
    let rows = sqlx::query(
        "SELECT revision, grant_id, action FROM (SELECT revision, grant_id, action, direction FROM federation_audit_log \
         ORDER BY position DESC LIMIT $1) recent WHERE direction = 'admin' AND revision > $2",
    )
    .bind(RECENT)
    .bind(i64::try_from(since).unwrap_or(i64::MAX))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    let (mut revisions, mut grants) = (BTreeSet::new(), BTreeSet::new());
    for row in &rows {
        let columns = Columns {
            table: "federation_audit_log",
            row,
        };
        revisions.insert(columns.count::<u64>("revision")?);
        match columns.opt_blob_uuid("grant_id")? {
            Some(id) => drop(grants.insert(GrantId::from(id))),
            None if is_apart(&columns.opt_text("action")?.unwrap_or_default()) => {}
            // An act on a peer, on the policy, or on something of which nothing is known here.
            None => return Ok(None),
        }
    }
    let known = u64::try_from(revisions.len()).unwrap_or(u64::MAX);
    Ok((known == changes && grants.len() <= MOST_CHANGED).then_some(grants))
}

/// Whether an act without a grant changes nothing that an image holds.
fn is_apart(act: &str) -> bool {
    matches!(
        act,
        "session.create" | "session.end" | "gateway.token" | "secret.create" | "peer.health"
    )
}

async fn grant_image(
    conn: &mut DbConnection,
    id: GrantId,
    now: UnixMillis,
) -> Result<GrantImage, StoreError> {
    let kept_from = UnixMillis(now.0.saturating_sub(EXPIRED_CERTIFICATE_KEPT_MILLIS));
    let certificates = certificates::list_kept_of(conn, id, kept_from).await?;
    let grant = match grants::find(conn, id).await? {
        Some(record) if !record.grant.status.is_final() || !certificates.is_empty() => {
            let peer = peers::load(conn, record.grant.peer).await?;
            Some((record, peer))
        }
        _ => None,
    };
    Ok(GrantImage {
        id,
        grant,
        certificates,
    })
}
