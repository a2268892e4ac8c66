//! Reading audit rows.
//!
//! Invariant: every value of a filter is bound, none is part of a statement's text. Rows come in the order of writing.

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::super::StoreError;
use super::audit::{COLUMNS, unavailable};
use super::column::{Columns, driver};
use crate::audit::{
    AuditDetail, AuditFilter, AuditLogError, AuditOutcome, AuditRecord, AuditRow, AuditText,
    Direction, QUERY_LIMIT_MAX,
};

pub(super) async fn rows(
    conn: &mut SqliteConnection,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, AuditLogError> {
    let after = match filter.after {
        Some(id) => Some(position(conn, id).await?),
        None => None,
    };
    let rows = statement(filter, after)
        .build()
        .fetch_all(conn)
        .await
        .map_err(|error| unavailable(driver(error)))?;
    let mut rows = rows
        .iter()
        .map(decode)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| AuditLogError::Corrupt {
            why: error.to_string(),
        })?;
    if after.is_none() {
        rows.reverse();
    }
    Ok(rows)
}

async fn position(conn: &mut SqliteConnection, id: Uuid) -> Result<i64, AuditLogError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT position FROM federation_audit_log WHERE id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(conn)
            .await
            .map_err(|error| unavailable(driver(error)))?;
    found.ok_or(AuditLogError::UnknownPosition { id })
}

/// With a place to continue from, the rows behind it in order; else the last rows, newest first.
fn statement(filter: &AuditFilter, after: Option<i64>) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(format!(
        "SELECT position, {} FROM federation_audit_log WHERE 1",
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
        sql.push(" AND grant_id = ").push_bind(grant.to_string());
    }
    if let Some(peer) = filter.peer {
        sql.push(" AND peer_id = ").push_bind(peer.to_string());
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
    if let Some(request) = &filter.request_id {
        sql.push(" AND (request_id = ").push_bind(request.clone());
        sql.push(" OR peer_request_id = ")
            .push_bind(request.clone());
        sql.push(")");
    }
    let order = if after.is_some() { "ASC" } else { "DESC" };
    sql.push(format_args!(" ORDER BY position {order} LIMIT "));
    sql.push_bind(i64::from(filter.limit.min(QUERY_LIMIT_MAX)));
    sql
}

fn decode(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    let columns = Columns {
        table: "federation_audit_log",
        row,
    };
    let opt_text = |column| Ok::<_, StoreError>(columns.opt_text(column)?.map(AuditText::stored));
    let record = AuditRecord {
        id: id(columns)?,
        at: columns.millis("at")?,
        direction: columns.member("direction", Direction::parse)?,
        outcome: columns.member("outcome", AuditOutcome::parse)?,
        request_id: AuditText::stored(columns.text("request_id")?),
        peer_request_id: opt_text("peer_request_id")?,
        attempt: columns.count("attempt")?,
        trace_id: opt_text("trace_id")?,
        peer: columns.opt_parsed("peer_id")?,
        grant: columns.opt_parsed("grant_id")?,
        subject: columns.opt_parsed("subject_user_id")?,
        cert_serial: opt_text("cert_serial")?,
        verb: opt_text("verb")?,
        resource: opt_text("resource")?,
        query_hash: query_hash(columns)?,
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
    };
    Ok(AuditRow {
        position: columns.integer("position")?,
        record,
    })
}

fn id(columns: Columns<'_>) -> Result<Uuid, StoreError> {
    Uuid::from_slice(&columns.bytes("id")?)
        .map_err(|error| StoreError::corrupt(columns.table, format!("id: {error}")))
}

fn query_hash(columns: Columns<'_>) -> Result<Option<[u8; 32]>, StoreError> {
    columns
        .opt_bytes("query_hash")?
        .map(|bytes| {
            <[u8; 32]>::try_from(bytes.as_slice())
                .map_err(|_| StoreError::corrupt(columns.table, "query_hash: not 32 bytes"))
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
