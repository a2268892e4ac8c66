//! What peers that are asked have said of the histories of our grants there.
//!
//! Invariant: of each chain the newest statement is kept, and the newest that was signed; neither is ever replaced by an earlier
//! one. The number of chains kept of a grant is bounded.

use policy::id::GrantId;
use policy::time::UnixMillis;

use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use crate::audit::HistoryHead;
use crate::audit::history::HeaderSignature;
use crate::store::{SignedWitness, StoreError, WITNESSED_CHAINS, WitnessedCheckpoint};

/// All of them, by grant, newest first.
pub(super) async fn list(conn: &mut DbConnection) -> Result<Vec<WitnessedCheckpoint>, StoreError> {
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
    writer: &mut Writer,
    heard: &[WitnessedCheckpoint],
) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    for one in heard {
        keep(&mut tx, one).await?;
        prune(&mut tx, one.grant).await?;
    }
    tx.commit().await.map_err(driver)
}

/// Takes the column over if the number that goes with it is a later one. The expressions see the row as it was before.
macro_rules! newer {
    ($number:literal of $column:literal) => {
        concat!(
            $column,
            " = CASE WHEN excluded.",
            $number,
            " > coalesce(kept.",
            $number,
            ", 0) THEN excluded.",
            $column,
            " ELSE kept.",
            $column,
            " END"
        )
    };
}

async fn keep(conn: &mut DbConnection, one: &WitnessedCheckpoint) -> Result<(), StoreError> {
    let signed = one.signed.as_ref();
    sqlx::query(concat!(
        "INSERT INTO witnessed_checkpoints AS kept \
         (grant_id, chain, gseq, ghash, heard_at, signed_gseq, signed_ghash, signed_at, signature) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (grant_id, chain) DO UPDATE SET ",
        newer!("gseq" of "ghash"),
        ", ",
        newer!("gseq" of "heard_at"),
        ", ",
        newer!("gseq" of "gseq"),
        ", ",
        newer!("signed_gseq" of "signed_ghash"),
        ", ",
        newer!("signed_gseq" of "signed_at"),
        ", ",
        newer!("signed_gseq" of "signature"),
        ", ",
        newer!("signed_gseq" of "signed_gseq"),
    ))
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

async fn prune(conn: &mut DbConnection, grant: GrantId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM witnessed_checkpoints WHERE grant_id = $1 AND chain NOT IN \
         (SELECT chain FROM witnessed_checkpoints WHERE grant_id = $1 ORDER BY heard_at DESC, gseq DESC LIMIT $2)",
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

fn decode(row: &DbRow) -> Result<WitnessedCheckpoint, StoreError> {
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
