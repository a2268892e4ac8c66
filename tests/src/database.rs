//! The database that the sidecars of the tests keep their state in: SQLite in their data directory, or a schema on the PostgreSQL
//! server of `MOSAIC_TEST_POSTGRES` when `MOSAIC_TEST_STORE` is `postgres`.
//!
//! Invariant: a data directory always has the same database, so a sidecar that is started again finds what it had.

use std::path::Path;
use std::time::Duration;

use policy::time::UnixMillis;
use proxy::config::{Config, Tier};
use proxy::tier;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};

/// The settings of the store for a sidecar whose files are in `dir`: keys before any section, and whole sections. The limits of grants
/// are kept in the Valkey at this URL, if that is not the one of `MOSAIC_TEST_VALKEY`.
///
/// # Panics
/// When PostgreSQL is asked for and no server is named.
#[must_use]
pub fn settings(dir: &Path, valkey: Option<String>) -> (String, String) {
    if !is_postgres() {
        return (String::new(), String::new());
    }
    let named =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} names no server"));
    let postgres = named("MOSAIC_TEST_POSTGRES");
    let valkey = valkey.unwrap_or_else(|| named("MOSAIC_TEST_VALKEY"));
    let schema = schema(dir);
    let sections = format!(
        "[database]\nurl = \"{postgres}\"\nschema = \"{schema}\"\nmax_connections = 4\n\
         acquire_timeout_ms = 30000\nstatement_timeout_ms = 30000\nlock_timeout_ms = 20000\n\
         [valkey]\nurl = \"{valkey}\"\ntimeout_ms = 1000\n"
    );
    ("tier = \"federated\"\n".to_owned(), sections)
}

/// The schema of a sidecar whose files are in `dir`.
#[must_use]
pub fn schema(dir: &Path) -> String {
    // The directory has a name of its own; a schema's has fewer characters to choose from.
    let name = dir.file_name().unwrap().to_string_lossy();
    let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("w_{name}")
}

/// Settings of a sidecar whose clock is moved by hand, which moves it faster than heartbeats come: the longest fence there is.
pub const FENCE_BY_HAND: &str = "[replicas]\nfence_ms = 60000\n";

/// Whether sidecars of this run are to be on PostgreSQL.
#[must_use]
pub fn is_postgres() -> bool {
    match std::env::var("MOSAIC_TEST_STORE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("MOSAIC_TEST_STORE is {other}, not sqlite or postgres"),
    }
}

/// A connection to a sidecar's database, behind its back.
pub enum Database {
    /// The file.
    Sqlite(SqliteConnection),
    /// The schema.
    Postgres(PgConnection),
}

/// A value of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Value<'v> {
    /// A text.
    Text(&'v str),
    /// Bytes.
    Bytes(&'v [u8]),
    /// A number.
    Number(i64),
}

impl Database {
    /// Connects to the database of a sidecar with these settings.
    pub async fn open(config: &Config) -> Self {
        match &config.tier {
            Tier::Embedded => {
                let options = SqliteConnectOptions::new()
                    .filename(config.data_dir.join("federation.db"))
                    .busy_timeout(Duration::from_secs(10));
                Self::Sqlite(options.connect().await.unwrap())
            }
            Tier::Federated(servers) => {
                let options = tier::postgres(&servers.database, UnixMillis(0)).unwrap();
                Self::Postgres(options.by_hand().connect().await.unwrap())
            }
        }
    }

    /// Runs a statement with `$1` and so on for its values; how many rows it changed.
    pub async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> u64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let mut bound = SqliteArguments::default();
                for value in values {
                    match value {
                        Value::Text(text) => Arguments::add(&mut bound, *text),
                        Value::Bytes(bytes) => Arguments::add(&mut bound, *bytes),
                        Value::Number(number) => Arguments::add(&mut bound, *number),
                    }
                    .unwrap();
                }
                let query = sqlx::query_with(sql, bound);
                query.execute(connection).await.unwrap().rows_affected()
            }
            Self::Postgres(connection) => {
                let mut bound = PgArguments::default();
                for value in values {
                    match value {
                        Value::Text(text) => Arguments::add(&mut bound, *text),
                        Value::Bytes(bytes) => Arguments::add(&mut bound, *bytes),
                        Value::Number(number) => Arguments::add(&mut bound, *number),
                    }
                    .unwrap();
                }
                let query = sqlx::query_with(sql, bound);
                query.execute(connection).await.unwrap().rows_affected()
            }
        }
    }

    /// As [`execute`](Self::execute), and the store's revision says that something was changed.
    pub async fn commit(&mut self, sql: &str, values: &[Value<'_>]) -> u64 {
        let changed = self.execute(sql, values).await;
        let counted = "UPDATE meta SET revision = revision + 1 WHERE one = 1";
        assert_eq!(self.execute(counted, &[]).await, 1);
        changed
    }

    /// Ends the connection.
    pub async fn close(self) {
        match self {
            Self::Sqlite(connection) => connection.close().await.unwrap(),
            Self::Postgres(connection) => connection.close().await.unwrap(),
        }
    }
}
