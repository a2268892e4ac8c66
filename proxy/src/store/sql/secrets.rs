//! Sealed secrets of the store and sealed gateway tokens of users.
//!
//! Invariant: only sealed bytes come in and go out, and none of them reaches the audit log. Sealing is elsewhere.

use policy::id::UserId;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use crate::store::{Act, Committed, SealedSecret, SecretPurpose, StoreError, SubjectToken};

/// Longest id of a secret, bytes.
const ID_MAX: usize = 64;

fn decode(row: &DbRow) -> Result<SealedSecret, StoreError> {
    let columns = Columns {
        table: "secrets",
        row,
    };
    Ok(SealedSecret {
        purpose: columns.member("purpose", SecretPurpose::parse)?,
        id: columns.text("id")?,
        generation: columns.count("generation")?,
        sealed: columns.bytes("sealed")?,
    })
}

pub(super) async fn put_if_absent(
    writer: &mut Writer,
    act: &Act,
    secret: SealedSecret,
) -> Result<Committed<SealedSecret>, StoreError> {
    if secret.id.len() > ID_MAX {
        return Err(StoreError::invalid(format!(
            "the id of a secret has at most {ID_MAX} bytes"
        )));
    }
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let existing = sqlx::query(
        "SELECT purpose, id, generation, sealed FROM secrets WHERE purpose = $1 AND id = $2 AND generation = $3",
    )
    .bind(secret.purpose.as_str())
    .bind(&secret.id)
    .bind(i64::from(secret.generation))
    .fetch_optional(&mut *conn)
    .await
    .map_err(driver)?;
    if let Some(row) = existing {
        let existing = decode(&row)?;
        return change.unchanged(existing).await;
    }
    insert(conn, act, &secret).await?;
    change.commit(creation(&secret), secret).await
}

/// Stores a secret that is not there yet; [`StoreError::Conflict`] when it is.
pub(super) async fn insert(
    conn: &mut DbConnection,
    act: &Act,
    secret: &SealedSecret,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO secrets (purpose, id, generation, sealed, created_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(secret.purpose.as_str())
    .bind(&secret.id)
    .bind(i64::from(secret.generation))
    .bind(&secret.sealed)
    .bind(act.now.0)
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

/// The record of a secret's creation.
pub(super) fn creation(secret: &SealedSecret) -> AdminAct {
    AdminAct::new("secret.create")
        .text("purpose", secret.purpose.as_str())
        .text("id", &secret.id)
        .count("generation", u64::from(secret.generation))
}

pub(super) async fn load(
    conn: &mut DbConnection,
    purpose: SecretPurpose,
) -> Result<Vec<SealedSecret>, StoreError> {
    let rows = sqlx::query(
        "SELECT purpose, id, generation, sealed FROM secrets WHERE purpose = $1 ORDER BY id, generation DESC",
    )
    .bind(purpose.as_str())
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter().map(decode).collect()
}

pub(super) async fn put_subject_token(
    writer: &mut Writer,
    act: &Act,
    token: SubjectToken,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    sqlx::query(
        "INSERT INTO subject_tokens (user_id, sealed, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at",
    )
    .bind(token.user.as_str())
    .bind(&token.sealed)
    .bind(act.now.0)
    .execute(change.conn())
    .await
    .map_err(driver)?;
    let admin = AdminAct::new("gateway.token").text("user", token.user.as_str());
    change.commit(admin, ()).await
}

pub(super) async fn find_subject_token(
    conn: &mut DbConnection,
    user: &UserId,
) -> Result<Option<SubjectToken>, StoreError> {
    let row = sqlx::query("SELECT sealed FROM subject_tokens WHERE user_id = $1")
        .bind(user.as_str())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    row.as_ref()
        .map(|row| {
            let columns = Columns {
                table: "subject_tokens",
                row,
            };
            Ok(SubjectToken {
                user: user.clone(),
                sealed: columns.bytes("sealed")?,
            })
        })
        .transpose()
}

pub(super) async fn list_subject_tokens(
    conn: &mut DbConnection,
) -> Result<Vec<(UserId, UnixMillis)>, StoreError> {
    let rows = sqlx::query("SELECT user_id, created_at FROM subject_tokens ORDER BY user_id")
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = Columns {
                table: "subject_tokens",
                row,
            };
            Ok((columns.parsed("user_id")?, columns.millis("created_at")?))
        })
        .collect()
}
