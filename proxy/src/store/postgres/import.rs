//! Moving a store from its SQLite file into a schema on PostgreSQL, while no sidecar runs on either.
//!
//! Invariant: a schema that a move has begun to fill is opened by nobody until the move has ended, and it ends only when every table
//! has as many rows as in the file and the same SHA-256 over them. A move that was cut off goes on where it was: each batch is one
//! transaction, in the order of the table's key, so what is there says what is missing. The file is read only, and locked.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use policy::time::UnixMillis;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteLockingMode, SqliteRow};
use sqlx::{
    Arguments, AssertSqlSafe, Column, ConnectOptions, Connection, PgConnection, Row,
    SqliteConnection, TypeInfo, ValueRef,
};
use uuid::Uuid;

use super::dialect::driver;
use super::open::{LOCK_SPACE, MARK, prepare_at};
use super::writer::{make, time_of};
use super::{PostgresOptions, PostgresStore};
use crate::store::sqlite;
use crate::store::{OpenError, StoreError};

/// Rows of a transaction.
const BATCH: i64 = 500;

/// Every table with its key, those that others refer to first. `sealing` comes behind everything that is sealed: from then on only what its
/// secret has sealed is taken. `meta` ends the move.
const TABLES: [(&str, &[&str]); 26] = [
    ("peers", &["id"]),
    ("grants", &["id"]),
    ("certificates", &["fingerprint"]),
    ("enrollment_tokens", &["sha256"]),
    ("issue_intents", &["id"]),
    ("outbound_credentials", &["id"]),
    ("outbound_renewals", &["credential_id"]),
    ("sessions", &["token_sha256"]),
    ("subject_tokens", &["user_id"]),
    ("secrets", &["purpose", "id", "generation"]),
    ("policy_bundles", &["revision"]),
    ("rows_seen", &["day", "grant_id", "row"]),
    ("row_counts", &["day", "grant_id"]),
    ("audit_chains", &["chain"]),
    ("audit_journals", &["journal"]),
    ("audit_histories", &["grant_id"]),
    ("witnessed_checkpoints", &["grant_id", "chain"]),
    ("audit_archives", &["number"]),
    ("federation_audit_log", &["position"]),
    ("trust_acknowledgements", &["grant_id"]),
    ("revocation_list", &["one"]),
    ("kept_revocation_lists", &["source", "sha256"]),
    ("server_certificates", &["fingerprint"]),
    ("trust", &["one"]),
    ("sealing", &["one"]),
    ("meta", &["one"]),
];
/// Tables in which a fresh schema has its one row.
const FILLED: [&str; 2] = ["trust", "meta"];

/// Tables about processes that run: none does, so they stay empty.
const OF_PROCESSES: [&str; 2] = ["replicas", "runners"];

/// A table that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedTable {
    /// Its name.
    pub table: &'static str,
    /// Rows, here and there.
    pub rows: u64,
    /// SHA-256 over them, here and there.
    pub sha256: [u8; 32],
}

/// Why a store was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The file.
    #[error("the file {0}")]
    Source(String),
    /// The schema.
    #[error("the schema {0}")]
    Target(String),
    /// The schema cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Either database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there is not what was read.
    #[error(
        "{table} is not there as it is in the file: {found} rows instead of {expected}, or with other values; drop the schema and begin again"
    )]
    Different {
        /// The table.
        table: &'static str,
        /// Rows in the file.
        expected: u64,
        /// Rows there.
        found: u64,
    },
}

/// A value as both databases have it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Null,
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    fn hash(&self, into: &mut Context) {
        let mut part = |tag: u8, bytes: &[u8]| {
            into.update(&[tag]);
            into.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            into.update(bytes);
        };
        match self {
            Self::Null => part(0, &[]),
            Self::Number(number) => part(1, &number.to_be_bytes()),
            Self::Text(text) => part(2, text.as_bytes()),
            Self::Bytes(bytes) => part(3, bytes),
        }
    }
}

fn of_sqlite(row: &SqliteRow) -> Result<Vec<Cell>, sqlx::Error> {
    (0..row.len())
        .map(|at| {
            let value = row.try_get_raw(at)?;
            if value.is_null() {
                return Ok(Cell::Null);
            }
            Ok(match value.type_info().name() {
                "INTEGER" => Cell::Number(row.try_get(at)?),
                "TEXT" => Cell::Text(row.try_get(at)?),
                _ => Cell::Bytes(row.try_get(at)?),
            })
        })
        .collect()
}

fn of_postgres(row: &PgRow) -> Result<Vec<Cell>, sqlx::Error> {
    row.columns()
        .iter()
        .enumerate()
        .map(|(at, column)| {
            Ok(match column.type_info().name() {
                "INT8" => row
                    .try_get::<Option<i64>, _>(at)?
                    .map_or(Cell::Null, Cell::Number),
                "TEXT" => row
                    .try_get::<Option<String>, _>(at)?
                    .map_or(Cell::Null, Cell::Text),
                _ => row
                    .try_get::<Option<Vec<u8>>, _>(at)?
                    .map_or(Cell::Null, Cell::Bytes),
            })
        })
        .collect()
}

/// A null has to have a type on PostgreSQL: that of its column.
fn bind_postgres(to: &mut PgArguments, cell: &Cell, kind: &str) -> Result<(), StoreError> {
    match (cell, kind) {
        (Cell::Null, "bigint") => Arguments::add(to, None::<i64>),
        (Cell::Null, "text") => Arguments::add(to, None::<String>),
        (Cell::Null, _) => Arguments::add(to, None::<Vec<u8>>),
        (Cell::Number(number), _) => Arguments::add(to, *number),
        (Cell::Text(text), _) => Arguments::add(to, text),
        (Cell::Bytes(bytes), _) => Arguments::add(to, bytes),
    }
    .map_err(|error| driver(sqlx::Error::Encode(error)))
}

fn bind_sqlite(to: &mut SqliteArguments, cell: &Cell) -> Result<(), StoreError> {
    match cell {
        Cell::Null => Arguments::add(to, None::<i64>),
        Cell::Number(number) => Arguments::add(to, *number),
        Cell::Text(text) => Arguments::add(to, text.as_str()),
        Cell::Bytes(bytes) => Arguments::add(to, bytes.as_slice()),
    }
    .map_err(|error| driver(sqlx::Error::Encode(error)))
}

/// A table with its columns, as both databases have them.
struct Shape {
    table: &'static str,
    key: &'static [&'static str],
    /// Name and type on PostgreSQL.
    columns: Vec<(String, String)>,
}

impl Shape {
    fn names(&self) -> String {
        quoted(self.columns.iter().map(|(name, _)| name.as_str()))
    }

    /// The rows behind a key, of the first ones, in order.
    fn select(&self, behind: bool) -> String {
        let key = quoted(self.key.iter().copied());
        let behind = if behind {
            let marks: Vec<String> = (1..=self.key.len()).map(|at| format!("${at}")).collect();
            format!(" WHERE ({key}) > ({})", marks.join(", "))
        } else {
            String::new()
        };
        let (names, table) = (self.names(), self.table);
        format!("SELECT {names} FROM {table}{behind} ORDER BY {key} LIMIT {BATCH}")
    }

    fn key_of(&self, row: &[Cell]) -> Vec<Cell> {
        self.key
            .iter()
            .filter_map(|key| {
                let at = self.columns.iter().position(|(name, _)| name == key)?;
                row.get(at).cloned()
            })
            .collect()
    }

    fn kind_of(&self, name: &str) -> &str {
        self.columns
            .iter()
            .find(|(column, _)| column == name)
            .map_or("bytea", |(_, kind)| kind)
    }
}

fn quoted<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}

impl PostgresStore {
    /// Moves the store in `file` into a schema that is empty, or that the same move has begun to fill.
    ///
    /// # Errors
    /// [`MoveError`]; the file stays as it is, and so does a schema that was not empty.
    pub async fn move_from(
        file: &Path,
        to: &PostgresOptions,
    ) -> Result<Vec<MovedTable>, MoveError> {
        let mut source = open_source(file).await?;
        // Nobody else gets in until the connection is closed.
        let mut reading = source
            .begin_with("BEGIN EXCLUSIVE")
            .await
            .map_err(|_| in_use(file))?;
        let (store_id, revision) = identity(&mut reading, file).await?;
        let options = PostgresOptions {
            store_id,
            ..to.clone()
        };
        let mut target = begin(&options, revision).await?;
        let shapes = shapes(&mut reading, &mut target).await?;
        let mut moved = Vec::new();
        for shape in &shapes {
            copy(shape, &mut reading, &mut target).await?;
            moved.push(compare(shape, &mut reading, &mut target).await?);
        }
        finish(&mut reading, &mut target).await?;
        reading.rollback().await.map_err(driver)?;
        source.close().await.map_err(driver)?;
        target.close().await.map_err(driver)?;
        Ok(moved)
    }
}

fn in_use(file: &Path) -> MoveError {
    MoveError::Source(format!(
        "{} is in use: stop the sidecar that runs on it",
        file.display()
    ))
}

async fn open_source(file: &Path) -> Result<SqliteConnection, MoveError> {
    if !file.is_file() {
        return Err(MoveError::Source(format!(
            "{} is not there",
            file.display()
        )));
    }
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        // Fails as long as anybody else has the file open.
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::from_secs(1))
        .connect()
        .await
        .map_err(|_| in_use(file))
}

/// Id and revision of the store in the file, which has to have the schema of this program.
async fn identity(conn: &mut SqliteConnection, file: &Path) -> Result<(Uuid, i64), MoveError> {
    let broken = |why: &dyn std::fmt::Display| {
        MoveError::Source(format!("{} cannot be read: {why}", file.display()))
    };
    let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *conn)
        .await
        .map_err(|error| broken(&error))?;
    if version != Some(sqlite::known_schema()) {
        return Err(MoveError::Source(format!(
            "{} has the schema of another version: start and stop this version on it once",
            file.display()
        )));
    }
    let (id, revision): (String, i64) =
        sqlx::query_as("SELECT store_id, revision FROM meta WHERE one = 1")
            .fetch_one(conn)
            .await
            .map_err(|error| broken(&error))?;
    let id = Uuid::try_parse(&id).map_err(|error| broken(&error))?;
    Ok((id, revision))
}

/// A connection with the lock of the schema, which is empty but for the mark of this move.
async fn begin(options: &PostgresOptions, revision: i64) -> Result<PgConnection, MoveError> {
    let (mut target, schema, _) = prepare_at(options, UnixMillis(0)).await?;
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK_SPACE << 32 | schema)
        .fetch_one(&mut target)
        .await
        .map_err(driver)?;
    let place = options.place();
    if !locked {
        return Err(MoveError::Target(format!(
            "({place}) is in use: stop the sidecars that run on it"
        )));
    }
    let (id, own, chains, marked): (String, i64, i64, bool) = sqlx::query_as(
        "SELECT store_id, revision, (SELECT count(*) FROM audit_chains) + (SELECT count(*) FROM sealing), \
         to_regclass($1) IS NOT NULL FROM meta WHERE one = 1",
    )
    .bind(MARK)
    .fetch_one(&mut target)
    .await
    .map_err(driver)?;
    if marked {
        let (from, at): (String, i64) = sqlx::query_as("SELECT store_id, revision FROM store_move")
            .fetch_one(&mut target)
            .await
            .map_err(driver)?;
        if (from, at) != (options.store_id.to_string(), revision) {
            return Err(MoveError::Target(format!(
                "({place}) was being filled from another store, or from an earlier state of this one: drop it and begin again"
            )));
        }
        return Ok(target);
    }
    if own != 0 || chains != 0 || id != options.store_id.to_string() {
        return Err(MoveError::Target(format!(
            "({place}) has a store already: choose another"
        )));
    }
    let mut tx = target.begin().await.map_err(driver)?;
    sqlx::query("CREATE TABLE store_move (store_id TEXT NOT NULL, revision BIGINT NOT NULL)")
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    sqlx::query("INSERT INTO store_move (store_id, revision) VALUES ($1, $2)")
        .bind(options.store_id.to_string())
        .bind(revision)
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    for table in FILLED {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}")))
            .execute(&mut *tx)
            .await
            .map_err(driver)?;
    }
    // What says that this is a store and whose, until its own row comes at the end.
    sqlx::query("INSERT INTO meta (one, store_id, revision, created_at) VALUES (1, $1, 0, 0)")
        .bind(options.store_id.to_string())
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    tx.commit().await.map_err(driver)?;
    Ok(target)
}

/// Every table, if both databases have the same ones with the same columns.
async fn shapes(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
) -> Result<Vec<Shape>, MoveError> {
    let there: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *source)
    .await
    .map_err(driver)?;
    let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
    let known: BTreeSet<&str> = TABLES
        .iter()
        .map(|(table, _)| *table)
        .chain(OF_PROCESSES)
        .collect();
    if there != known {
        return Err(MoveError::Source(
            "has other tables than this program moves".to_owned(),
        ));
    }
    let mut shapes = Vec::new();
    for (table, key) in TABLES {
        let columns: Vec<(String, String)> = sqlx::query_as(
            "SELECT CAST(a.attname AS TEXT), format_type(a.atttypid, NULL) FROM pg_attribute a \
             WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1",
        )
        .bind(table)
        .fetch_all(&mut *target)
        .await
        .map_err(driver)?;
        let mut in_file: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info($1)")
            .bind(table)
            .fetch_all(&mut *source)
            .await
            .map_err(driver)?;
        in_file.sort();
        if !columns.iter().map(|(name, _)| name).eq(&in_file) {
            return Err(MoveError::Source(format!(
                "has other columns in {table} than PostgreSQL"
            )));
        }
        shapes.push(Shape {
            table,
            key,
            columns,
        });
    }
    Ok(shapes)
}

/// Reads one batch of a table behind a key.
async fn read_source(
    shape: &Shape,
    source: &mut SqliteConnection,
    behind: Option<&[Cell]>,
) -> Result<Vec<Vec<Cell>>, StoreError> {
    let mut key = SqliteArguments::default();
    for cell in behind.unwrap_or_default() {
        bind_sqlite(&mut key, cell)?;
    }
    let select = AssertSqlSafe(shape.select(behind.is_some()));
    let rows = sqlx::query_with(select, key).fetch_all(source).await;
    let cells = rows.map_err(driver)?;
    cells
        .iter()
        .map(|row| of_sqlite(row).map_err(driver))
        .collect()
}

async fn read_target(
    shape: &Shape,
    target: &mut PgConnection,
    behind: Option<&[Cell]>,
) -> Result<Vec<Vec<Cell>>, StoreError> {
    let mut key = PgArguments::default();
    for (cell, name) in behind.unwrap_or_default().iter().zip(shape.key) {
        bind_postgres(&mut key, cell, shape.kind_of(name))?;
    }
    let select = AssertSqlSafe(shape.select(behind.is_some()));
    let rows = sqlx::query_with(select, key).fetch_all(target).await;
    let cells = rows.map_err(driver)?;
    cells
        .iter()
        .map(|row| of_postgres(row).map_err(driver))
        .collect()
}

/// The last key that is there already.
async fn last_key(
    shape: &Shape,
    target: &mut PgConnection,
) -> Result<Option<Vec<Cell>>, StoreError> {
    let backwards: Vec<String> = shape
        .key
        .iter()
        .map(|key| format!("\"{key}\" DESC"))
        .collect();
    let select = format!(
        "SELECT {} FROM {} ORDER BY {} LIMIT 1",
        quoted(shape.key.iter().copied()),
        shape.table,
        backwards.join(", ")
    );
    let row = sqlx::query(AssertSqlSafe(select))
        .fetch_optional(target)
        .await
        .map_err(driver)?;
    row.as_ref()
        .map(|row| of_postgres(row).map_err(driver))
        .transpose()
}

async fn copy(
    shape: &Shape,
    source: &mut SqliteConnection,
    target: &mut PgConnection,
) -> Result<(), MoveError> {
    if shape.table == "meta" {
        sqlx::query("DELETE FROM meta")
            .execute(&mut *target)
            .await
            .map_err(driver)?;
    }
    let mut behind = last_key(shape, target).await?;
    let marks: Vec<String> = (1..=shape.columns.len())
        .map(|at| format!("${at}"))
        .collect();
    let insert = format!(
        "INSERT INTO {} ({}) VALUES ({})",
        shape.table,
        shape.names(),
        marks.join(", ")
    );
    let mut months: Vec<(i64, i64)> = Vec::new();
    loop {
        let rows = read_source(shape, source, behind.as_deref()).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        behind = Some(shape.key_of(last));
        if shape.table == "federation_audit_log" {
            make_months(shape, &rows, &mut months, target).await?;
        }
        let mut tx = target.begin().await.map_err(driver)?;
        for row in &rows {
            let mut values = PgArguments::default();
            for (cell, (_, kind)) in row.iter().zip(&shape.columns) {
                bind_postgres(&mut values, cell, kind)?;
            }
            sqlx::query_with(AssertSqlSafe(insert.clone()), values)
                .execute(&mut *tx)
                .await
                .map_err(driver)?;
        }
        tx.commit().await.map_err(driver)?;
    }
}

async fn make_months(
    shape: &Shape,
    rows: &[Vec<Cell>],
    months: &mut Vec<(i64, i64)>,
    target: &mut PgConnection,
) -> Result<(), StoreError> {
    let Some(at) = shape.columns.iter().position(|(name, _)| name == "id") else {
        return Ok(());
    };
    for row in rows {
        let Some(Cell::Bytes(id)) = row.get(at) else {
            continue;
        };
        let Some(ms) = Uuid::from_slice(id).ok().and_then(time_of) else {
            continue;
        };
        if !months
            .iter()
            .any(|(from, until)| (*from..*until).contains(&ms))
        {
            months.push(make(target, ms).await?);
        }
    }
    Ok(())
}

/// Both sides of a table, read to the end.
async fn compare(
    shape: &Shape,
    source: &mut SqliteConnection,
    target: &mut PgConnection,
) -> Result<MovedTable, MoveError> {
    let (mut here, mut there) = (Context::new(&SHA256), Context::new(&SHA256));
    let (mut expected, mut found) = (0u64, 0u64);
    let mut behind: Option<Vec<Cell>> = None;
    loop {
        let rows = read_source(shape, source, behind.as_deref()).await?;
        rows.iter().flatten().for_each(|cell| cell.hash(&mut here));
        expected = expected.saturating_add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        match rows.last() {
            Some(last) => behind = Some(shape.key_of(last)),
            None => break,
        }
    }
    behind = None;
    loop {
        let rows = read_target(shape, target, behind.as_deref()).await?;
        rows.iter().flatten().for_each(|cell| cell.hash(&mut there));
        found = found.saturating_add(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        match rows.last() {
            Some(last) => behind = Some(shape.key_of(last)),
            None => break,
        }
    }
    let (here, there) = (here.finish(), there.finish());
    let table = shape.table;
    match <[u8; 32]>::try_from(here.as_ref()) {
        Ok(sha256) if expected == found && here.as_ref() == there.as_ref() => Ok(MovedTable {
            table,
            rows: expected,
            sha256,
        }),
        _ => Err(MoveError::Different {
            table,
            expected,
            found,
        }),
    }
}

/// Goes on counting positions where the file was, and lets everybody in.
async fn finish(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
) -> Result<(), StoreError> {
    let last: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'federation_audit_log'")
            .fetch_optional(source)
            .await
            .map_err(driver)?;
    let mut tx = target.begin().await.map_err(driver)?;
    if let Some(last) = last.filter(|last| *last > 0) {
        sqlx::query("SELECT setval('federation_audit_log_position', $1)")
            .bind(last)
            .execute(&mut *tx)
            .await
            .map_err(driver)?;
    }
    sqlx::query("DROP TABLE store_move")
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    tx.commit().await.map_err(driver)
}
