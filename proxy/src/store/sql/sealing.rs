//! The sealing secret in force, and rows that are sealed again. What the calls promise is in `store/sealing.rs`.
//!
//! Invariant: bytes sealed with an earlier secret do not stay behind where a change was finished; how is the database's own
//! (`overwrite` and `forget_replaced` of its writer).

use async_trait::async_trait;
use certs::seal::KeyId;

use super::Handle;
use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use crate::store::{
    Act, Committed, NextSecret, ResealedRow, SealStore, SealedCount, SealedKind, SealedRow,
    SealingState, SecretPurpose, StoreError,
};

const TABLE: &str = "sealing";

#[async_trait]
impl SealStore for Handle {
    async fn sealing(&self) -> Result<Option<SealingState>, StoreError> {
        state(&mut *self.read().await?).await
    }

    async fn adopt_sealing(&self, key_id: &KeyId) -> Result<(), StoreError> {
        adopt(&mut *self.write().await?, key_id).await
    }

    async fn sealed_counts(&self) -> Result<Vec<SealedCount>, StoreError> {
        counts(&mut *self.read().await?).await
    }

    async fn begin_reseal(
        &self,
        act: &Act,
        present: &KeyId,
        next: NextSecret,
    ) -> Result<Committed<()>, StoreError> {
        begin(&mut *self.write().await?, act, present, next).await
    }

    async fn rows_sealed_otherwise(
        &self,
        key_id: &KeyId,
        most: u32,
    ) -> Result<Vec<SealedRow>, StoreError> {
        otherwise(&mut *self.read().await?, key_id, most).await
    }

    async fn put_resealed(
        &self,
        act: &Act,
        rows: &[ResealedRow],
    ) -> Result<Committed<u64>, StoreError> {
        put(&mut *self.write().await?, act, rows).await
    }

    async fn finish_reseal(&self, act: &Act) -> Result<Committed<()>, StoreError> {
        finish(&mut *self.write().await?, act).await
    }
}

fn key_id(columns: &Columns<'_>, column: &'static str) -> Result<KeyId, StoreError> {
    KeyId::try_from(columns.bytes(column)?.as_slice())
        .map_err(|_| StoreError::corrupt(columns.table, format!("{column}: not 8 bytes")))
}

async fn state(conn: &mut DbConnection) -> Result<Option<SealingState>, StoreError> {
    let row =
        sqlx::query("SELECT key_id, next_key_id, former, begun_at FROM sealing WHERE one = 1")
            .fetch_optional(conn)
            .await
            .map_err(driver)?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns {
        table: TABLE,
        row: &row,
    };
    let next = match columns.opt_bytes("next_key_id")? {
        None => None,
        Some(_) => Some(NextSecret {
            key_id: key_id(&columns, "next_key_id")?,
            former: columns.bytes("former")?,
            begun_at: columns.millis("begun_at")?,
        }),
    };
    Ok(Some(SealingState {
        key_id: key_id(&columns, "key_id")?,
        next,
    }))
}

/// Not an act, and no new revision: it notes what the rows say already.
async fn adopt(writer: &mut Writer, present: &KeyId) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    let conflict = || {
        StoreError::conflict(format!(
            "the store is not sealed with the secret {}",
            hex::encode(present)
        ))
    };
    sqlx::query(
        "INSERT INTO sealing (one, key_id) SELECT 1, $1 \
         WHERE NOT EXISTS (SELECT 1 FROM sealed_rows WHERE substr(sealed, 5, 8) <> $1) ON CONFLICT DO NOTHING",
    )
    .bind(present.as_slice())
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    match state(&mut tx).await? {
        Some(state) if state.key_id == *present => tx.commit().await.map_err(driver),
        _ => Err(conflict()),
    }
}

fn kind(columns: &Columns<'_>) -> Result<SealedKind, StoreError> {
    Ok(match columns.text("kind")?.as_str() {
        "credential" => SealedKind::Credential,
        "renewal" => SealedKind::Renewal,
        "subject_token" => SealedKind::SubjectToken,
        _ => SealedKind::Secret(columns.member("purpose", SecretPurpose::parse)?),
    })
}

async fn counts(conn: &mut DbConnection) -> Result<Vec<SealedCount>, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, purpose, substr(sealed, 5, 8) AS key_id, count(*) AS found FROM sealed_rows \
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    let decode = |row: &DbRow| {
        let columns = Columns {
            table: "sealed_rows",
            row,
        };
        Ok(SealedCount {
            kind: kind(&columns)?,
            key_id: key_id(&columns, "key_id")?,
            rows: columns.count("found")?,
        })
    };
    rows.iter().map(decode).collect()
}

async fn begin(
    writer: &mut Writer,
    act: &Act,
    present: &KeyId,
    next: NextSecret,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let begun = sqlx::query(
        "UPDATE sealing SET next_key_id = $1, former = $2, begun_at = $3 WHERE key_id = $4 AND next_key_id IS NULL",
    )
    .bind(next.key_id.as_slice())
    .bind(&next.former)
    .bind(next.begun_at.0)
    .bind(present.as_slice())
    .execute(change.conn())
    .await
    .map_err(driver)?;
    if begun.rows_affected() == 0 {
        return Err(StoreError::conflict(
            "the sealing secret is being changed already, or is another one by now",
        ));
    }
    let admin = AdminAct::new("keys.reseal")
        .text("from", &hex::encode(present))
        .text("to", &hex::encode(next.key_id));
    change.commit(admin, ()).await
}

async fn otherwise(
    conn: &mut DbConnection,
    present: &KeyId,
    most: u32,
) -> Result<Vec<SealedRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT kind, purpose, id, generation, sealed FROM sealed_rows WHERE substr(sealed, 5, 8) <> $1 LIMIT $2",
    )
    .bind(present.as_slice())
    .bind(i64::from(most))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    let decode = |row: &DbRow| {
        let columns = Columns {
            table: "sealed_rows",
            row,
        };
        Ok(SealedRow {
            kind: kind(&columns)?,
            id: columns.text("id")?,
            generation: columns.count("generation")?,
            sealed: columns.bytes("sealed")?,
        })
    };
    rows.iter().map(decode).collect()
}

async fn put(
    writer: &mut Writer,
    act: &Act,
    rows: &[ResealedRow],
) -> Result<Committed<u64>, StoreError> {
    writer.overwrite(true).await?;
    let mut change = Change::begin(writer, act).await?;
    let mut done = 0;
    for resealed in rows {
        done += put_one(change.conn(), resealed).await?;
    }
    if done == 0 {
        return change.unchanged(0).await;
    }
    let admin = AdminAct::new("keys.reseal.rows").count("rows", done);
    change.commit(admin, done).await
}

async fn put_one(
    conn: &mut DbConnection,
    ResealedRow { row, sealed }: &ResealedRow,
) -> Result<u64, StoreError> {
    let query = match row.kind {
        SealedKind::Secret(purpose) => sqlx::query(
            "UPDATE secrets SET sealed = $1 WHERE id = $2 AND sealed = $3 AND purpose = $4 AND generation = $5",
        )
        .bind(sealed)
        .bind(&row.id)
        .bind(&row.sealed)
        .bind(purpose.as_str())
        .bind(i64::from(row.generation)),
        SealedKind::Credential => sqlx::query(
            "UPDATE outbound_credentials SET sealed_key = $1 WHERE id = $2 AND sealed_key = $3",
        )
        .bind(sealed)
        .bind(&row.id)
        .bind(&row.sealed),
        SealedKind::Renewal => sqlx::query(
            "UPDATE outbound_renewals SET sealed_key = $1 WHERE id = $2 AND sealed_key = $3",
        )
        .bind(sealed)
        .bind(&row.id)
        .bind(&row.sealed),
        SealedKind::SubjectToken => sqlx::query(
            "UPDATE subject_tokens SET sealed = $1 WHERE user_id = $2 AND sealed = $3",
        )
        .bind(sealed)
        .bind(&row.id)
        .bind(&row.sealed),
    };
    let done = query.execute(conn).await.map_err(driver)?;
    Ok(done.rows_affected())
}

async fn finish(writer: &mut Writer, act: &Act) -> Result<Committed<()>, StoreError> {
    writer.overwrite(true).await?;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let next = state(conn).await?.and_then(|state| state.next);
    let next =
        next.ok_or_else(|| StoreError::conflict("the sealing secret is not being changed"))?;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sealed_rows WHERE substr(sealed, 5, 8) <> $1")
            .bind(next.key_id.as_slice())
            .fetch_one(&mut *conn)
            .await
            .map_err(driver)?;
    if left > 0 {
        return Err(StoreError::conflict(format!(
            "{left} row(s) are still sealed with the secret before"
        )));
    }
    sqlx::query(
        "UPDATE sealing SET key_id = next_key_id, next_key_id = NULL, former = NULL, begun_at = NULL",
    )
    .execute(conn)
    .await
    .map_err(driver)?;
    let admin = AdminAct::new("keys.reseal.finish").text("to", &hex::encode(next.key_id));
    let committed = change.commit(admin, ()).await?;
    writer.forget_replaced().await;
    Ok(committed)
}
