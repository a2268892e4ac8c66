//! Grants whose end has come.
//!
//! Invariant: writing an expiry down never ends a grant early: it uses the same end that decisions use
//! ([`Grant::ends_at`](policy::grant::Grant::ends_at), stored when the grant was created).

use policy::id::GrantId;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{grants, image, tokens};
use crate::store::{Act, Committed, StoreError};

const DUE: &str = "SELECT id FROM grants WHERE ends_at IS NOT NULL AND ends_at <= $1 \
                   AND status IN ('pending', 'active') ORDER BY ends_at, id";

/// The revision, when no grant is due; `None` when one is.
pub(super) async fn nothing_due(
    conn: &mut DbConnection,
    now: UnixMillis,
) -> Result<Option<u64>, StoreError> {
    if due(conn, now).await?.is_empty() {
        image::revision(conn).await.map(Some)
    } else {
        Ok(None)
    }
}

pub(super) async fn expire(
    writer: &mut Writer,
    act: &Act,
) -> Result<Committed<Vec<GrantId>>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let expired = due(conn, act.now).await?;
    let mut acts = Vec::with_capacity(expired.len());
    for id in &expired {
        sqlx::query("UPDATE grants SET status = 'expired', edit = edit + 1 WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *conn)
            .await
            .map_err(driver)?;
        tokens::withdraw(conn, *id, act.now).await?;
        let record = grants::load(conn, *id).await?;
        acts.push(AdminAct::on_grant("grant.expire", &record.grant));
    }
    let mut acts = acts.into_iter();
    match acts.next() {
        Some(first) => change.commit_all(first, acts.collect(), expired).await,
        None => change.unchanged(expired).await,
    }
}

async fn due(conn: &mut DbConnection, now: UnixMillis) -> Result<Vec<GrantId>, StoreError> {
    let rows = sqlx::query(DUE)
        .bind(now.0)
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter()
        .map(|row| {
            Columns {
                table: "grants",
                row,
            }
            .parsed("id")
        })
        .collect()
}
