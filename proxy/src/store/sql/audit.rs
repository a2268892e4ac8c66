//! Writing audit rows.
//!
//! Invariant: rows of a batch are written and linked in order in one transaction, together with the head of the chain and the mark of the
//! journal they come from; a batch that is there already is left alone, which makes trying again harmless.
//! No record that the program can build is refused by the schema, so one bad record can never hold up those behind it.
//! Reading is in `audit_query.rs`, heads and marks in `audit_heads.rs`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use policy::id::GrantId;
use policy::recorded::RecordedDecision;
use sqlx::{Arguments, Encode, Type};
use uuid::Uuid;

use super::dialect::{Db, DbArguments, DbConnection, driver};
use super::open_chain::OpenChain;
use super::writer::Writer;
use super::{audit_heads, audit_history};
use crate::audit::{
    AuditDetail, AuditLogError, AuditRecord, AuditText, Head, HistoryHead, HistoryPlace,
    JournalMark, Link,
};
use crate::store::StoreError;

/// Columns in the order they are bound.
pub(super) const COLUMNS: [&str; 35] = [
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
    "decision",
    "count",
    "chain",
    "seq",
    "prev_hash",
    "hash",
    "gseq",
    "ghash",
    "witnessed",
];

/// Rows in one statement: a few fixed sizes, so that prepared statements are used again. Each costs a turn of two threads,
/// so the largest is as large as SQLite's 32,766 parameters allow without being unwieldy.
static INSERTS: LazyLock<[(usize, String); 3]> =
    LazyLock::new(|| [128, 16, 1].map(|rows| (rows, statement(rows))));

fn statement(rows: usize) -> String {
    let row = |first: usize| {
        let values: Vec<String> = (1..=COLUMNS.len())
            .map(|column| {
                format!(
                    "${}",
                    first.saturating_mul(COLUMNS.len()).saturating_add(column)
                )
            })
            .collect();
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO federation_audit_log ({}) VALUES {}",
        COLUMNS.join(", "),
        rows.join(", ")
    )
}

pub(super) async fn append(
    writer: &mut Writer,
    records: &[AuditRecord],
    mark: Option<JournalMark>,
) -> Result<Vec<(GrantId, HistoryHead)>, AuditLogError> {
    let written = write(writer, records, mark).await;
    let conflict = matches!(written, Err(StoreError::Conflict { .. }));
    if !conflict {
        return written.map_err(log_error);
    }
    // An id that is there already: not of this journal's doing, and no reason to hold up the others.
    let fresh = absent(writer, records).await.map_err(log_error)?;
    tracing::error!(
        records = records.len() - fresh.len(),
        "audit records with ids that the log has already were left out"
    );
    write(writer, &fresh, mark).await.map_err(log_error)
}

async fn write(
    writer: &mut Writer,
    records: &[AuditRecord],
    mark: Option<JournalMark>,
) -> Result<Vec<(GrantId, HistoryHead)>, StoreError> {
    let ids: Vec<Uuid> = records.iter().map(|record| record.id).collect();
    writer.make_room(&ids).await?;
    let (mut tx, chain) = writer.begin().await?;
    if let Some(mark) = mark {
        if audit_heads::applied(&mut tx, mark.journal).await? >= mark.applied {
            tx.rollback().await.map_err(driver)?;
            return Ok(Vec::new());
        }
        audit_heads::note_applied(&mut tx, mark.journal, mark.applied).await?;
    }
    let Inserted { head, histories } = insert(&mut tx, chain.as_ref(), records).await?;
    tx.commit().await.map_err(driver)?;
    if let (Some(chain), Some(head)) = (chain, head) {
        chain.last = Some(head);
    }
    Ok(histories)
}

/// The records whose ids the log does not have, each id once.
async fn absent(
    conn: &mut DbConnection,
    records: &[AuditRecord],
) -> Result<Vec<AuditRecord>, StoreError> {
    let mut fresh: Vec<AuditRecord> = Vec::new();
    for record in records {
        let known = sqlx::query("SELECT 1 FROM federation_audit_log WHERE id = $1")
            .bind(record.id.as_bytes().as_slice())
            .fetch_optional(&mut *conn)
            .await
            .map_err(driver)?;
        if known.is_none() && fresh.iter().all(|one| one.id != record.id) {
            fresh.push(record.clone());
        }
    }
    Ok(fresh)
}

/// What inserting came to.
#[derive(Default)]
pub(super) struct Inserted {
    /// The new head of the chain, where there is one.
    pub(super) head: Option<Head>,
    /// How far the histories of grants have got that records were added to.
    pub(super) histories: Vec<(GrantId, HistoryHead)>,
}

/// Writes records at the end of the log, of the chain, and of the histories of their grants.
pub(super) async fn insert(
    conn: &mut DbConnection,
    chain: Option<&OpenChain>,
    records: &[AuditRecord],
) -> Result<Inserted, StoreError> {
    let mut inserted = Inserted::default();
    let mut links = vec![None; records.len()];
    let mut places = vec![None; records.len()];
    if let Some(chain) = chain {
        let mut at = audit_heads::head(conn, chain.id).await?;
        chain.check(&at)?;
        let mut buffer = Vec::new();
        for (record, link) in records.iter().zip(&mut links) {
            *link = Some(chain.key.link(&mut at, record, &mut buffer));
        }
        audit_heads::note_head(conn, &at).await?;
        inserted.head = Some(at);
        (places, inserted.histories) = audit_history::extend(conn, chain.id, records).await?;
    }
    let rows: Vec<_> = records.iter().zip(links.iter().zip(&places)).collect();
    let mut texts = Texts::default();
    let mut rest = rows.as_slice();
    for (size, statement) in INSERTS.iter() {
        let chunks = rest.chunks_exact(*size);
        rest = chunks.remainder();
        for chunk in chunks {
            let mut values = DbArguments::default();
            values.reserve(chunk.len().saturating_mul(COLUMNS.len()), 0);
            for (record, (link, place)) in chunk {
                let at = (link.as_ref(), place.as_ref());
                add(&mut values, &mut texts, record, at)?;
            }
            let query = sqlx::query_with(statement.as_str(), values);
            query.execute(&mut *conn).await.map_err(driver)?;
        }
    }
    Ok(inserted)
}

/// Texts that most rows of a batch have in common, each made once.
#[derive(Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn shared(&mut self, text: Option<&str>) -> Option<Arc<str>> {
        let text = text?;
        if let Some(known) = self.0.get(text) {
            return Some(Arc::clone(known));
        }
        let made: Arc<str> = Arc::from(text);
        self.0.insert(text.to_owned(), Arc::clone(&made));
        Some(made)
    }
}

/// Adds the values of one row in the order of [`COLUMNS`].
fn add(
    to: &mut DbArguments,
    texts: &mut Texts,
    record: &AuditRecord,
    (link, place): (Option<&Link>, Option<&HistoryPlace>),
) -> Result<(), StoreError> {
    let mut shared = |value: Option<&AuditText>| texts.shared(value.map(AuditText::as_str));
    let (serial, verb, resource) = (
        shared(record.cert_serial.as_ref()),
        shared(record.verb.as_ref()),
        shared(record.resource.as_ref()),
    );
    let (deny_stage, deny_code) = (
        shared(record.deny_stage.as_ref()),
        shared(record.deny_code.as_ref()),
    );
    let direction = texts.shared(Some(record.direction.as_str()));
    let outcome = texts.shared(Some(record.outcome.as_str()));
    put(to, record.id.as_bytes().as_slice())?;
    put(to, record.at.0)?;
    put(to, own_request_id(record))?;
    put(to, text(record.peer_request_id.as_ref()))?;
    put(to, i64::from(record.attempt))?;
    put(to, text(record.trace_id.as_ref()))?;
    put(to, direction)?;
    put(to, record.peer.as_ref().map(|id| id.as_bytes().as_slice()))?;
    put(to, record.grant.as_ref().map(|id| id.as_bytes().as_slice()))?;
    put(
        to,
        record.subject.as_ref().map(|id| id.as_bytes().as_slice()),
    )?;
    put(to, serial)?;
    put(to, verb)?;
    put(to, resource)?;
    put(to, record.query_hash.as_ref().map(<[u8; 32]>::as_slice))?;
    put(to, outcome)?;
    put(to, deny_stage)?;
    put(to, deny_code)?;
    put(to, record.http_status.map(i64::from))?;
    put(to, stored(record.rows_returned))?;
    put(to, stored(record.rows_withheld))?;
    put(to, stored(record.bytes_out))?;
    put(to, stored(record.latency_us))?;
    put(to, record.revision.map(stored))?;
    put(to, text(record.action.as_ref()))?;
    put(to, text(record.actor.as_ref()))?;
    put(to, record.detail.as_ref().map(AuditDetail::to_json))?;
    put(to, record.decision.as_ref().map(RecordedDecision::as_bytes))?;
    put(to, stored(record.count))?;
    put(to, link.map(|link| link.chain.as_bytes().as_slice()))?;
    put(to, link.map(|link| stored(link.seq)))?;
    put(to, link.map(|link| link.prev_hash.as_slice()))?;
    put(to, link.map(|link| link.hash.as_slice()))?;
    put(to, place.map(|place| stored(place.gseq)))?;
    put(to, place.map(|place| place.ghash.as_slice()))?;
    put(to, record.witnessed.map(|head| head.to_bytes().to_vec()))
}

fn put<'t, T>(to: &mut DbArguments, value: T) -> Result<(), StoreError>
where
    T: Encode<'t, Db> + Type<Db>,
{
    to.add(value)
        .map_err(|error| driver(sqlx::Error::Encode(error)))
}

/// The request id, unless it is the record's own id.
fn own_request_id(record: &AuditRecord) -> Option<&str> {
    let mut text = Uuid::encode_buffer();
    let id: &str = record.id.as_hyphenated().encode_lower(&mut text);
    Some(record.request_id.as_str()).filter(|request| *request != id)
}

fn text(text: Option<&AuditText>) -> Option<&str> {
    text.map(AuditText::as_str)
}

/// There are no unsigned integers; what does not fit is written as the largest that does.
pub(super) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn log_error(error: StoreError) -> AuditLogError {
    let why = error.to_string();
    match error {
        StoreError::Corrupt { .. } => AuditLogError::Corrupt { why },
        _ => AuditLogError::Unavailable { why },
    }
}
