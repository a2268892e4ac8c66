//! Writing audit rows.
//!
//! Invariant: rows of a batch are written in order in one transaction; a row whose id is there already is left
//! alone, which makes trying again harmless. No record that the program can build is refused by the schema, so one
//! bad record can never hold up those behind it. Reading is in `audit_query.rs`.

use std::sync::LazyLock;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Connection, Sqlite, SqliteConnection};

use super::super::StoreError;
use super::column::driver;
use crate::audit::{AuditLogError, AuditRecord, AuditText};

/// Columns in the order they are bound.
pub(super) const COLUMNS: [&str; 26] = [
    "id",
    "at",
    "request_id",
    "peer_request_id",
    "attempt",
    "trace_id",
    "direction",
    "peer_id",
    "grant_id",
    "subject_user_id",
    "cert_serial",
    "verb",
    "resource",
    "query_hash",
    "outcome",
    "deny_stage",
    "deny_code",
    "http_status",
    "rows_returned",
    "rows_withheld",
    "bytes_out",
    "latency_us",
    "revision",
    "action",
    "actor",
    "detail",
];

/// Rows in one statement: a few fixed sizes, so that prepared statements are used again.
const WIDE: usize = 32;

static INSERT_WIDE: LazyLock<String> = LazyLock::new(|| statement(WIDE));
static INSERT_ONE: LazyLock<String> = LazyLock::new(|| statement(1));

fn statement(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS.len()].join(", "));
    format!(
        "INSERT INTO federation_audit_log ({}) VALUES {} ON CONFLICT (id) DO NOTHING",
        COLUMNS.join(", "),
        vec![row; rows].join(", ")
    )
}

pub(super) async fn append(
    writer: &mut SqliteConnection,
    records: &[AuditRecord],
) -> Result<(), AuditLogError> {
    let failed = |error| unavailable(driver(error));
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    insert(&mut tx, records).await.map_err(unavailable)?;
    tx.commit().await.map_err(failed)
}

pub(super) async fn insert(
    conn: &mut SqliteConnection,
    records: &[AuditRecord],
) -> Result<(), StoreError> {
    let mut chunks = records.chunks_exact(WIDE);
    for chunk in chunks.by_ref() {
        let mut query = sqlx::query(INSERT_WIDE.as_str());
        for record in chunk {
            query = bind(query, record);
        }
        query.execute(&mut *conn).await.map_err(driver)?;
    }
    for record in chunks.remainder() {
        bind(sqlx::query(INSERT_ONE.as_str()), record)
            .execute(&mut *conn)
            .await
            .map_err(driver)?;
    }
    Ok(())
}

fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    record: &'q AuditRecord,
) -> Query<'q, Sqlite, SqliteArguments> {
    query
        .bind(record.id.as_bytes().as_slice())
        .bind(record.at.0)
        .bind(record.request_id.as_str())
        .bind(text(record.peer_request_id.as_ref()))
        .bind(i64::from(record.attempt))
        .bind(text(record.trace_id.as_ref()))
        .bind(record.direction.as_str())
        .bind(record.peer.map(|id| id.to_string()))
        .bind(record.grant.map(|id| id.to_string()))
        .bind(record.subject.map(|id| id.to_string()))
        .bind(text(record.cert_serial.as_ref()))
        .bind(text(record.verb.as_ref()))
        .bind(text(record.resource.as_ref()))
        .bind(record.query_hash.as_ref().map(<[u8; 32]>::as_slice))
        .bind(record.outcome.as_str())
        .bind(text(record.deny_stage.as_ref()))
        .bind(text(record.deny_code.as_ref()))
        .bind(record.http_status.map(i64::from))
        .bind(stored(record.rows_returned))
        .bind(stored(record.rows_withheld))
        .bind(stored(record.bytes_out))
        .bind(stored(record.latency_us))
        .bind(record.revision.map(stored))
        .bind(text(record.action.as_ref()))
        .bind(text(record.actor.as_ref()))
        .bind(
            record
                .detail
                .as_ref()
                .map(crate::audit::AuditDetail::to_json),
        )
}

fn text(text: Option<&AuditText>) -> Option<&str> {
    text.map(AuditText::as_str)
}

/// SQLite has no unsigned integers; what does not fit is written as the largest that does.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn unavailable(error: StoreError) -> AuditLogError {
    AuditLogError::Unavailable {
        why: error.to_string(),
    }
}
