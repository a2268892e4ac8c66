//! Beginning a chain, and the heads that are noted beside the rows.
//!
//! Invariant: a chain begins in the transaction that writes its first row, which names the newest row of the chain before it; keys
//! that did not exist are stored in the same transaction, so no row is ever linked with a key that is not kept.

use sqlx::{Connection, Row, SqliteConnection};
use uuid::Uuid;

use super::super::{ChainBeginning, Committed, StoreError};
use super::change::{AdminAct, Change};
use super::column::{Columns, driver};
use super::secrets;
use super::writer::{OpenChain, Writer};
use crate::audit::Head;
use crate::audit::chain::{BEGIN_ACTION, NO_HASH, PREDECESSOR, PREDECESSOR_SEQ};

pub(super) async fn begin(
    writer: &mut Writer,
    beginning: &ChainBeginning,
) -> Result<Committed<()>, StoreError> {
    let act = &beginning.act;
    let mut open = OpenChain {
        id: beginning.chain,
        key: beginning.key.clone(),
        last: None,
    };
    writer.check_place()?;
    let tx = writer
        .connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(driver)?;
    let mut change = Change::over(tx, act, Some(&mut open));
    let predecessor = newest(change.conn()).await?;
    sqlx::query(
        "INSERT INTO audit_chains (chain, number, begun_at, predecessor, predecessor_seq, seq, hash) \
         SELECT ?, coalesce(max(number), 0) + 1, ?, ?, ?, 0, ? FROM audit_chains",
    )
    .bind(beginning.chain.as_bytes().as_slice())
    .bind(act.now.0)
    .bind(predecessor.map(|head| head.chain.as_bytes().to_vec()))
    .bind(predecessor.map(|head| i64::try_from(head.seq).unwrap_or(i64::MAX)))
    .bind(predecessor.map_or(NO_HASH, |head| head.hash).as_slice())
    .execute(change.conn())
    .await
    .map_err(driver)?;
    let mut made = Vec::new();
    for secret in &beginning.new_secrets {
        secrets::insert(change.conn(), act, secret).await?;
        made.push(secrets::creation(secret));
    }
    let mut begun = AdminAct::new(BEGIN_ACTION).text("chain", &beginning.chain.to_string());
    if let Some(head) = predecessor {
        begun = begun
            .text(PREDECESSOR, &head.chain.to_string())
            .count(PREDECESSOR_SEQ, head.seq);
    }
    let committed = change.commit_all(begun, made, ()).await?;
    writer.chain = Some(open);
    Ok(committed)
}

/// Every chain's newest row as it is noted, oldest chain first.
pub(super) async fn heads(conn: &mut SqliteConnection) -> Result<Vec<Head>, StoreError> {
    let rows = sqlx::query("SELECT chain, seq, hash FROM audit_chains ORDER BY number")
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(decode).collect()
}

async fn newest(conn: &mut SqliteConnection) -> Result<Option<Head>, StoreError> {
    sqlx::query("SELECT chain, seq, hash FROM audit_chains ORDER BY number DESC LIMIT 1")
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .as_ref()
        .map(decode)
        .transpose()
}

/// The head that is noted for one chain.
pub(super) async fn head(conn: &mut SqliteConnection, chain: Uuid) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT chain, seq, hash FROM audit_chains WHERE chain = ?")
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
pub(super) async fn note_head(conn: &mut SqliteConnection, head: &Head) -> Result<(), StoreError> {
    sqlx::query("UPDATE audit_chains SET seq = ?, hash = ? WHERE chain = ?")
        .bind(i64::try_from(head.seq).unwrap_or(i64::MAX))
        .bind(head.hash.as_slice())
        .bind(head.chain.as_bytes().as_slice())
        .execute(conn)
        .await
        .map(drop)
        .map_err(driver)
}

/// How far a journal has been brought in; 0 when nothing is noted.
pub(super) async fn applied(conn: &mut SqliteConnection, journal: Uuid) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT applied FROM audit_journals WHERE journal = ?")
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
    conn: &mut SqliteConnection,
    journal: Uuid,
    applied: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit_journals (journal, applied) VALUES (?, ?) \
         ON CONFLICT (journal) DO UPDATE SET applied = excluded.applied",
    )
    .bind(journal.as_bytes().as_slice())
    .bind(i64::try_from(applied).unwrap_or(i64::MAX))
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

fn decode(row: &sqlx::sqlite::SqliteRow) -> Result<Head, StoreError> {
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
