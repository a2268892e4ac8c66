//! What peers that are asked have said of the histories of our grants there.
//!
//! Invariant: of each chain the newest statement is kept, and the newest that was signed; neither is ever replaced by an earlier
//! one. The number of chains kept of a grant is bounded.

use policy::id::GrantId;
use policy::time::UnixMillis;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::super::{SignedWitness, StoreError, WITNESSED_CHAINS, WitnessedCheckpoint};
use super::column::{Columns, driver};
use crate::audit::HistoryHead;
use crate::audit::history::HeaderSignature;

/// All of them, by grant, newest first.
pub(super) async fn list(
    conn: &mut SqliteConnection,
) -> Result<Vec<WitnessedCheckpoint>, StoreError> {
    let rows = sqlx::query(
        "SELECT grant_id, chain, gseq, ghash, heard_at, signed_gseq, signed_ghash, signed_at, signature \
         FROM witnessed_checkpoints ORDER BY grant_id, heard_at DESC, gseq DESC",
    )
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter().map(decode).collect()
}

/// Keeps what is newer, in one transaction.
pub(super) async fn record(
    conn: &mut SqliteConnection,
    heard: &[WitnessedCheckpoint],
) -> Result<(), StoreError> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(driver)?;
    for one in heard {
        keep(&mut tx, one).await?;
        prune(&mut tx, one.grant).await?;
    }
    tx.commit().await.map_err(driver)
}

async fn keep(conn: &mut SqliteConnection, one: &WitnessedCheckpoint) -> Result<(), StoreError> {
    let signed = one.signed.as_ref();
    sqlx::query(
        "INSERT INTO witnessed_checkpoints \
         (grant_id, chain, gseq, ghash, heard_at, signed_gseq, signed_ghash, signed_at, signature) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (grant_id, chain) DO UPDATE SET \
         ghash = iif(excluded.gseq > gseq, excluded.ghash, ghash), \
         heard_at = iif(excluded.gseq > gseq, excluded.heard_at, heard_at), \
         gseq = max(excluded.gseq, gseq), \
         signed_ghash = iif(excluded.signed_gseq > coalesce(signed_gseq, 0), excluded.signed_ghash, signed_ghash), \
         signed_at = iif(excluded.signed_gseq > coalesce(signed_gseq, 0), excluded.signed_at, signed_at), \
         signature = iif(excluded.signed_gseq > coalesce(signed_gseq, 0), excluded.signature, signature), \
         signed_gseq = iif(excluded.signed_gseq > coalesce(signed_gseq, 0), excluded.signed_gseq, signed_gseq)",
    )
    .bind(one.grant.as_bytes().as_slice())
    .bind(one.head.chain.as_bytes().as_slice())
    .bind(number(one.head.gseq))
    .bind(one.head.ghash.as_slice())
    .bind(one.heard_at.0)
    .bind(signed.map(|signed| number(signed.gseq)))
    .bind(signed.map(|signed| signed.ghash.as_slice()))
    .bind(signed.map(|signed| signed.signature.at.0))
    .bind(signed.map(|signed| signed.signature.signature.as_slice()))
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

async fn prune(conn: &mut SqliteConnection, grant: GrantId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM witnessed_checkpoints WHERE grant_id = ?1 AND chain NOT IN \
         (SELECT chain FROM witnessed_checkpoints WHERE grant_id = ?1 ORDER BY heard_at DESC, gseq DESC LIMIT ?2)",
    )
    .bind(grant.as_bytes().as_slice())
    .bind(i64::from(WITNESSED_CHAINS))
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

fn number(gseq: u64) -> i64 {
    i64::try_from(gseq).unwrap_or(i64::MAX)
}

fn decode(row: &SqliteRow) -> Result<WitnessedCheckpoint, StoreError> {
    let table = "witnessed_checkpoints";
    let columns = Columns { table, row };
    let signed = match columns.opt_count::<u64>("signed_gseq")? {
        None => None,
        Some(gseq) => {
            let signature = columns.bytes("signature")?;
            Some(SignedWitness {
                gseq,
                ghash: columns.hash("signed_ghash")?,
                signature: HeaderSignature {
                    at: UnixMillis(columns.integer("signed_at")?),
                    signature: signature
                        .as_slice()
                        .try_into()
                        .map_err(|_| StoreError::corrupt(table, "signature: not 64 bytes"))?,
                },
            })
        }
    };
    Ok(WitnessedCheckpoint {
        grant: GrantId::new(columns.blob_uuid("grant_id")?),
        head: HistoryHead {
            chain: columns.blob_uuid("chain")?,
            gseq: columns.count("gseq")?,
            ghash: columns.hash("ghash")?,
        },
        heard_at: columns.millis("heard_at")?,
        signed,
    })
}
