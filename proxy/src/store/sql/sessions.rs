//! Sessions of local users.
//!
//! Invariant: a session is found by the SHA-256 of its token and only while it is live; the token is not here.

use policy::time::UnixMillis;
use uuid::Uuid;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use crate::store::{Act, Committed, NewSession, SessionRecord, Sha256, StoreError};

macro_rules! select_sessions {
    ($tail:literal) => {
        concat!(
            "SELECT id, local_user, created_at, expires_at, ended_at FROM sessions ",
            $tail
        )
    };
}

fn decode(row: &DbRow) -> Result<SessionRecord, StoreError> {
    let columns = Columns {
        table: "sessions",
        row,
    };
    Ok(SessionRecord {
        id: columns.uuid("id")?,
        local_user: columns.parsed("local_user")?,
        created_at: columns.millis("created_at")?,
        expires_at: columns.millis("expires_at")?,
        ended_at: columns.opt_millis("ended_at")?,
    })
}

pub(super) async fn create(
    writer: &mut Writer,
    act: &Act,
    new: NewSession,
) -> Result<Committed<SessionRecord>, StoreError> {
    if new.expires_at <= act.now {
        return Err(StoreError::invalid(
            "the session would end before it begins",
        ));
    }
    let mut change = Change::begin(writer, act).await?;
    sqlx::query(
        "INSERT INTO sessions (token_sha256, id, local_user, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(new.token_sha256.as_slice())
    .bind(new.id.to_string())
    .bind(new.local_user.as_str())
    .bind(act.now.0)
    .bind(new.expires_at.0)
    .execute(change.conn())
    .await
    .map_err(driver)?;
    let admin = AdminAct::new("session.create")
        .text("session", &new.id.to_string())
        .text("user", new.local_user.as_str());
    let record = SessionRecord {
        id: new.id,
        local_user: new.local_user,
        created_at: act.now,
        expires_at: new.expires_at,
        ended_at: None,
    };
    change.commit(admin, record).await
}

pub(super) async fn find(
    conn: &mut DbConnection,
    token: &Sha256,
    now: UnixMillis,
) -> Result<Option<SessionRecord>, StoreError> {
    let row = sqlx::query(select_sessions!("WHERE token_sha256 = $1"))
        .bind(token.as_slice())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    let record = row.as_ref().map(decode).transpose()?;
    Ok(record.filter(|session| session.is_live(now)))
}

pub(super) async fn list(conn: &mut DbConnection) -> Result<Vec<SessionRecord>, StoreError> {
    let rows = sqlx::query(select_sessions!("ORDER BY created_at DESC, id DESC"))
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(decode).collect()
}

/// Forgets sessions that were over before an instant, oldest first.
pub(super) async fn forget(
    writer: &mut Writer,
    before: UnixMillis,
    most: u32,
) -> Result<u64, StoreError> {
    let (mut tx, _) = writer.begin().await?;
    let done = sqlx::query(
        "DELETE FROM sessions WHERE token_sha256 IN (SELECT token_sha256 FROM sessions \
         WHERE (expires_at < $1 OR ended_at < $1) ORDER BY created_at LIMIT $2)",
    )
    .bind(before.0)
    .bind(i64::from(most))
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)?;
    Ok(done.rows_affected())
}

pub(super) async fn end(
    writer: &mut Writer,
    act: &Act,
    id: Uuid,
) -> Result<Committed<SessionRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let row = sqlx::query(select_sessions!("WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(&mut *conn)
        .await
        .map_err(driver)?
        .ok_or_else(|| StoreError::not_found("session", id))?;
    let before = decode(&row)?;
    if before.ended_at.is_some() {
        return change.unchanged(before).await;
    }
    sqlx::query("UPDATE sessions SET ended_at = $1 WHERE id = $2")
        .bind(act.now.0)
        .bind(id.to_string())
        .execute(conn)
        .await
        .map_err(driver)?;
    let admin = AdminAct::new("session.end")
        .text("session", &id.to_string())
        .text("user", before.local_user.as_str());
    let after = SessionRecord {
        ended_at: Some(act.now),
        ..before
    };
    change.commit(admin, after).await
}
