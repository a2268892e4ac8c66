//! Reading audit rows.
//!
//! Invariant: every value of a filter is bound, none is part of a statement's text. Rows come in the order of writing.

use futures_util::TryStreamExt;
use policy::recorded::RecordedDecision;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::audit::{COLUMNS, log_error};
use super::column::Columns;
use super::dialect::{Db, DbConnection, DbRow, driver};
use crate::audit::{
    AuditDetail, AuditFilter, AuditLogError, AuditOutcome, AuditRecord, AuditRow, AuditText,
    Direction, HistoryHead, HistoryPlace, Link, QUERY_LIMIT_MAX,
};
use crate::store::StoreError;

pub(super) async fn rows(
    conn: &mut DbConnection,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let after = match filter.after {
        Some(id) => Some(position(conn, id).await?),
        None => None,
    };
    let mut rows = fetch(conn, statement(filter, after)).await?;
    if after.is_none() && !filter.oldest_first {
        rows.reverse();
    }
    Ok(rows)
}

/// The first rows behind a position.
pub(super) async fn behind(
    conn: &mut DbConnection,
    after: i64,
    limit: u32,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let filter = AuditFilter {
        limit,
        ..AuditFilter::default()
    };
    fetch(conn, statement(&filter, Some(after))).await
}

async fn fetch(
    conn: &mut DbConnection,
    mut statement: QueryBuilder<Db>,
) -> Result<Vec<AuditRow>, AuditLogError> {
    // Taken one by one: what the driver keeps of a row is several times the row.
    let mut found = statement.build().fetch(conn);
    let mut rows = Vec::new();
    while let Some(row) = found
        .try_next()
        .await
        .map_err(|error| log_error(driver(error)))?
    {
        let row = decode(&row).map_err(|error| AuditLogError::Corrupt {
            why: error.to_string(),
        })?;
        rows.push(row);
    }
    Ok(rows)
}

async fn position(conn: &mut DbConnection, id: Uuid) -> Result<i64, AuditLogError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT position FROM federation_audit_log WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(|error| log_error(driver(error)))?;
    found.ok_or(AuditLogError::UnknownPosition { id })
}

/// With a place to continue from, the rows behind it in order; else the last rows, newest first, or the first ones.
fn statement(filter: &AuditFilter, after: Option<i64>) -> QueryBuilder<Db> {
    let mut sql = QueryBuilder::new(format!(
        "SELECT position, {} FROM federation_audit_log WHERE true",
        COLUMNS.join(", ")
    ));
    if let Some(after) = after {
        sql.push(" AND position > ").push_bind(after);
    }
    if let Some(since) = filter.since {
        sql.push(" AND at >= ").push_bind(since.0);
    }
    if let Some(until) = filter.until {
        sql.push(" AND at < ").push_bind(until.0);
    }
    if let Some(grant) = filter.grant {
        sql.push(" AND grant_id = ")
            .push_bind(grant.as_bytes().to_vec());
    }
    if let Some(peer) = filter.peer {
        sql.push(" AND peer_id = ")
            .push_bind(peer.as_bytes().to_vec());
    }
    if let Some(direction) = filter.direction {
        sql.push(" AND direction = ").push_bind(direction.as_str());
    }
    if let Some(outcome) = filter.outcome {
        sql.push(" AND outcome = ").push_bind(outcome.as_str());
    }
    if let Some(verb) = &filter.verb {
        sql.push(" AND verb = ").push_bind(verb.clone());
    }
    if let Some(resource) = &filter.resource {
        sql.push(" AND resource = ").push_bind(resource.clone());
    }
    if let Some(code) = &filter.code {
        sql.push(" AND deny_code = ").push_bind(code.clone());
    }
    if let Some(request) = &filter.request_id {
        sql.push(" AND (request_id = ").push_bind(request.clone());
        if let Some(id) = own_id(request) {
            sql.push(" OR (request_id IS NULL AND id = ");
            sql.push_bind(id.as_bytes().to_vec()).push(")");
        }
        sql.push(" OR peer_request_id = ")
            .push_bind(request.clone());
        sql.push(")");
    }
    let ascending = after.is_some() || filter.oldest_first;
    let order = if ascending { "ASC" } else { "DESC" };
    sql.push(format_args!(" ORDER BY position {order} LIMIT "));
    sql.push_bind(i64::from(filter.limit.min(QUERY_LIMIT_MAX)));
    sql
}

/// The record id that a request id may be.
fn own_id(request: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(request).ok()?;
    (id.to_string() == request).then_some(id)
}

fn decode(row: &DbRow) -> Result<AuditRow, StoreError> {
    let columns = Columns {
        table: "federation_audit_log",
        row,
    };
    let opt_text = |column| Ok::<_, StoreError>(columns.opt_text(column)?.map(AuditText::stored));
    let id = columns.blob_uuid("id")?;
    let request_id = columns
        .opt_text("request_id")?
        .unwrap_or_else(|| id.to_string());
    let record = AuditRecord {
        id,
        at: columns.millis("at")?,
        direction: columns.member("direction", Direction::parse)?,
        outcome: columns.member("outcome", AuditOutcome::parse)?,
        count: columns.count("count")?,
        request_id: AuditText::stored(request_id),
        peer_request_id: opt_text("peer_request_id")?,
        attempt: columns.count("attempt")?,
        trace_id: opt_text("trace_id")?,
        peer: columns.opt_blob_uuid("peer_id")?.map(Into::into),
        grant: columns.opt_blob_uuid("grant_id")?.map(Into::into),
        subject: columns.opt_blob_uuid("subject_user_id")?.map(Into::into),
        cert_serial: opt_text("cert_serial")?,
        verb: opt_text("verb")?,
        resource: opt_text("resource")?,
        query_hash: columns.opt_hash("query_hash")?,
        deny_stage: opt_text("deny_stage")?,
        deny_code: opt_text("deny_code")?,
        http_status: columns.opt_count("http_status")?,
        rows_returned: columns.count("rows_returned")?,
        rows_withheld: columns.count("rows_withheld")?,
        bytes_out: columns.count("bytes_out")?,
        latency_us: columns.count("latency_us")?,
        revision: columns.opt_count("revision")?,
        action: opt_text("action")?,
        actor: opt_text("actor")?,
        detail: detail(columns)?,
        decision: decision(columns)?,
        witnessed: witnessed(columns)?,
    };
    Ok(AuditRow {
        position: columns.integer("position")?,
        record,
        link: link(columns)?,
        history: history(columns)?,
    })
}

fn history(columns: Columns<'_>) -> Result<Option<HistoryPlace>, StoreError> {
    let (gseq, ghash) = (columns.opt_count("gseq")?, columns.opt_hash("ghash")?);
    Ok(gseq
        .zip(ghash)
        .map(|(gseq, ghash)| HistoryPlace { gseq, ghash }))
}

fn witnessed(columns: Columns<'_>) -> Result<Option<HistoryHead>, StoreError> {
    columns
        .opt_bytes("witnessed")?
        .map(|bytes| {
            HistoryHead::from_bytes(&bytes)
                .ok_or_else(|| StoreError::corrupt(columns.table, "witnessed: no place"))
        })
        .transpose()
}

fn link(columns: Columns<'_>) -> Result<Option<Link>, StoreError> {
    let Some(chain) = columns.opt_blob_uuid("chain")? else {
        return Ok(None);
    };
    Ok(Some(Link {
        chain,
        seq: columns.count("seq")?,
        prev_hash: columns.hash("prev_hash")?,
        hash: columns.hash("hash")?,
    }))
}

fn decision(columns: Columns<'_>) -> Result<Option<RecordedDecision>, StoreError> {
    columns
        .opt_bytes("decision")?
        .map(|bytes| {
            RecordedDecision::from_bytes(bytes)
                .map_err(|error| StoreError::corrupt(columns.table, format!("decision: {error}")))
        })
        .transpose()
}

fn detail(columns: Columns<'_>) -> Result<Option<AuditDetail>, StoreError> {
    columns
        .opt_text("detail")?
        .map(|json| {
            AuditDetail::stored(&json)
                .map_err(|error| StoreError::corrupt(columns.table, format!("detail: {error}")))
        })
        .transpose()
}
