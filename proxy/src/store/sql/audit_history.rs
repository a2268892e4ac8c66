//! The histories of grants: the places of their records, and how far each has got.
//!
//! Invariant: a place is given, and the note of how far its history has got is changed, in the transaction that writes the row; so
//! the places of a grant are a line without a gap, whichever process writes.

use std::collections::{HashMap, HashSet};

use policy::id::GrantId;
use uuid::Uuid;

use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver, elements, unhex};
use crate::audit::history::grant_of;
use crate::audit::{AuditRecord, HistoryHead, HistoryPlace};
use crate::store::StoreError;

/// The places of `records`, which `chain` writes down in this order, and how far their histories get with them.
pub(super) async fn extend(
    conn: &mut DbConnection,
    chain: Uuid,
    records: &[AuditRecord],
) -> Result<(Vec<Option<HistoryPlace>>, Vec<(GrantId, HistoryHead)>), StoreError> {
    let grants: HashSet<GrantId> = records.iter().filter_map(grant_of).collect();
    let mut places = vec![None; records.len()];
    if grants.is_empty() {
        return Ok((places, Vec::new()));
    }
    let mut heads = heads(conn, &grants).await?;
    let mut buffer = Vec::new();
    for (record, place) in records.iter().zip(&mut places) {
        if let Some(grant) = grant_of(record) {
            let head = heads.entry(grant).or_insert(HistoryHead::NONE);
            *head = head.next(grant, chain, record, &mut buffer);
            *place = Some(head.place());
        }
    }
    let heads: Vec<(GrantId, HistoryHead)> = heads.into_iter().collect();
    note(conn, &heads).await?;
    Ok((places, heads))
}

/// How far the history of a grant has got.
pub(super) async fn head(
    conn: &mut DbConnection,
    grant: GrantId,
) -> Result<Option<HistoryHead>, StoreError> {
    sqlx::query("SELECT chain, gseq, ghash FROM audit_histories WHERE grant_id = $1")
        .bind(grant.as_bytes().as_slice())
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .as_ref()
        .map(decode)
        .transpose()
}

/// One statement for any number of grants.
async fn heads(
    conn: &mut DbConnection,
    grants: &HashSet<GrantId>,
) -> Result<HashMap<GrantId, HistoryHead>, StoreError> {
    let texts: Vec<String> = grants.iter().map(|id| hex::encode(id.as_bytes())).collect();
    let rows = sqlx::query(concat!(
        "SELECT grant_id, chain, gseq, ghash FROM audit_histories WHERE grant_id IN (SELECT ",
        unhex!("value"),
        " FROM ",
        elements!("$1"),
        ")"
    ))
    .bind(format!("[\"{}\"]", texts.join("\",\"")))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let grant = columns(row).blob_uuid("grant_id")?;
            Ok((GrantId::new(grant), decode(row)?))
        })
        .collect()
}

/// One statement for any number of grants: each is one text of its id, chain and hash, of fixed width, and its number.
async fn note(conn: &mut DbConnection, heads: &[(GrantId, HistoryHead)]) -> Result<(), StoreError> {
    let texts: Vec<String> = heads
        .iter()
        .map(|(grant, head)| {
            let (grant, chain) = (hex::encode(grant.as_bytes()), head.chain.simple());
            format!("\"{grant}{chain}{}{}\"", hex::encode(head.ghash), head.gseq)
        })
        .collect();
    sqlx::query(concat!(
        "INSERT INTO audit_histories (grant_id, chain, gseq, ghash) SELECT ",
        unhex!("substr(value, 1, 32)"),
        ", ",
        unhex!("substr(value, 33, 32)"),
        ", CAST(substr(value, 129) AS BIGINT), ",
        unhex!("substr(value, 65, 64)"),
        " FROM ",
        elements!("$1"),
        " WHERE true ON CONFLICT (grant_id) DO UPDATE \
             SET chain = excluded.chain, gseq = excluded.gseq, ghash = excluded.ghash"
    ))
    .bind(format!("[{}]", texts.join(",")))
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

const fn columns(row: &DbRow) -> Columns<'_> {
    Columns {
        table: "audit_histories",
        row,
    }
}

fn decode(row: &DbRow) -> Result<HistoryHead, StoreError> {
    let columns = columns(row);
    Ok(HistoryHead {
        chain: columns.blob_uuid("chain")?,
        gseq: columns.count("gseq")?,
        ghash: columns.hash("ghash")?,
    })
}
