//! Opening the database: connections and what is set on each, the schema, migrations.
//!
//! Invariant: nothing is taken from the environment that libpq reads or from a password file; a database newer than the program is
//! never touched, and migrations only go forward. The password is in no message and no `Debug`. The schema itself is in
//! `migrations/postgres/`.

use std::sync::Arc;
use std::time::Duration;

use policy::time::UnixMillis;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqlSafeStr};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::super::sqlite::Migrated;
use super::super::{OpenError, StoreError};
use super::PostgresStore;
use super::beside::Beside;
use super::dialect::{alive, driver, roll_back};
use super::writer::Months;
use crate::config::{Password, PostgresHost, PostgresTls};

/// All migrations this program knows: version, name, text.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (
        1,
        "initial",
        include_str!("../../../../migrations/postgres/0001_initial.sql"),
    ),
    (
        2,
        "replicas",
        include_str!("../../../../migrations/postgres/0002_replicas.sql"),
    ),
    (
        3,
        "server_certificates",
        include_str!("../../../../migrations/postgres/0003_server_certificates.sql"),
    ),
];

/// How long a migration may take, and wait for others.
const MIGRATION: Duration = Duration::from_secs(600);
/// The table that is there while a store is moved into the schema: until it is gone, nobody opens that.
pub(super) const MARK: &str = "store_move";
/// A connection that was idle for longer is tried before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// How long a writer may do nothing in its turn.
const TURN: Duration = Duration::from_secs(1);
/// As many statements are kept prepared on a connection as this program has.
const PREPARED: usize = 400;
/// With the number of the schema it makes the key of the lock that writers take.
pub(super) const LOCK_SPACE: i64 = 0x6d6f_7361;

/// Where the store is and what a fresh one starts with.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where the server listens.
    pub host: PostgresHost,
    /// Its port, of a socket too.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The password, if one is needed.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// The schema in it that is ours alone; made when it is not there.
    pub schema: String,
    /// How the connection is protected.
    pub tls: PostgresTls,
    /// The id a fresh store gets; ignored by one that exists.
    pub store_id: Uuid,
    /// The time a fresh store is created at.
    pub now: UnixMillis,
    /// Connections at once, at least 2: one writes.
    pub max_connections: u32,
    /// How long a connection may take to be made, or to become free.
    pub acquire_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a statement waits for another's lock.
    pub lock_timeout: Duration,
}

impl PostgresOptions {
    /// The database as it is named to people: no user and no password.
    #[must_use]
    pub fn place(&self) -> String {
        let host = match &self.host {
            PostgresHost::Network(host) if host.contains(':') => format!("[{host}]"),
            PostgresHost::Network(host) => host.clone(),
            PostgresHost::Socket(directory) => directory.display().to_string(),
        };
        let Self {
            port,
            database,
            schema,
            ..
        } = self;
        format!("{database} at {host}:{port}, schema {schema}")
    }

    pub(super) fn connect(
        &self,
        read_only: bool,
        statement: Duration,
        lock: Duration,
    ) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass();
        options = match &self.host {
            PostgresHost::Network(host) => options.host(host),
            PostgresHost::Socket(directory) => options.socket(directory),
        };
        options = match &self.tls {
            PostgresTls::Off => options.ssl_mode(PgSslMode::Disable),
            PostgresTls::Unverified => options.ssl_mode(PgSslMode::Require),
            PostgresTls::Verified { roots: None } => options.ssl_mode(PgSslMode::VerifyFull),
            PostgresTls::Verified { roots: Some(roots) } => {
                options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(roots)
            }
        };
        // An empty one where none is needed: the environment's is not wanted.
        let password = self.password.as_ref().map_or("", Password::expose);
        let settings = [
            ("search_path", self.schema.clone()),
            // Not that there was nothing to roll back.
            ("client_min_messages", "error".to_owned()),
            ("statement_timeout", millis(statement)),
            ("lock_timeout", millis(lock)),
            ("idle_in_transaction_session_timeout", millis(statement)),
            ("default_transaction_isolation", "read committed".to_owned()),
            (
                "default_transaction_read_only",
                if read_only { "on" } else { "off" }.to_owned(),
            ),
        ];
        options
            .port(self.port)
            .username(&self.user)
            .password(password)
            .database(&self.database)
            .application_name("mosaic-federation")
            .statement_cache_capacity(PREPARED)
            .options(settings)
            .disable_statement_logging()
    }

    /// How to connect to it for statements of one's own, in its schema.
    #[must_use]
    pub fn by_hand(&self) -> PgConnectOptions {
        self.connect(false, self.statement_timeout, self.lock_timeout)
    }

    fn pool(&self, connections: u32) -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(self.acquire_timeout)
            .test_before_acquire(false)
            // A call that was dropped while its transaction began has left it open, unknown to the driver: whoever had the connection
            // next would read an old state, or hold the lock of the writers.
            .after_release(|connection, _| Box::pin(roll_back(connection)))
            .before_acquire(|connection, found| {
                Box::pin(async move { Ok(found.idle_for < IDLE || alive(connection).await) })
            })
    }
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version, to be shown.
    pub version: String,
    /// The same, to be compared.
    pub version_number: i64,
    /// Whether it only follows another.
    pub in_recovery: bool,
    /// The version of the extension `vector`, where it is there to be installed.
    pub vector: Option<String>,
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

impl PostgresStore {
    /// Opens the store, creating it and bringing its schema up to date where needed.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed in a database that is newer than this program.
    pub async fn open(options: &PostgresOptions) -> Result<Self, OpenError> {
        let (lock, _) = prepare(options).await?;
        let connect =
            |read_only| options.connect(read_only, options.statement_timeout, options.lock_timeout);
        let failed = |error| database(options, driver(error));
        // Whoever is stopped while it has the turn of writers does not keep it from the others.
        let paused = [(
            "idle_in_transaction_session_timeout",
            millis(TURN.min(options.statement_timeout)),
        )];
        let writer = connect(false).options(paused);
        let writers = options.pool(1).connect_with(writer).await;
        let readers = options
            .pool(options.max_connections.max(2).saturating_sub(1))
            .connect_with(connect(true))
            .await;
        Ok(Self {
            writers: writers.map_err(failed)?,
            readers: readers.map_err(failed)?,
            begin: format!("BEGIN READ WRITE; SELECT pg_advisory_xact_lock({lock})").into(),
            chain: Arc::new(Mutex::new(None)),
            months: Arc::new(Mutex::new(Months::default())),
            direct: Arc::default(),
            beside: Arc::new(Beside::new(options)),
        })
    }

    /// What the server is, asked on a connection of its own that changes nothing.
    ///
    /// # Errors
    /// When it does not answer, or refuses us.
    pub async fn facts(options: &PostgresOptions) -> Result<ServerFacts, StoreError> {
        let mut connection = options
            .connect(true, options.statement_timeout, options.lock_timeout)
            .connect()
            .await
            .map_err(driver)?;
        let row = sqlx::query(
            "SELECT current_setting('server_version'), CAST(current_setting('server_version_num') AS BIGINT), \
             pg_is_in_recovery(), (SELECT coalesce(installed_version, default_version) FROM pg_available_extensions \
             WHERE name = 'vector')",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(driver)?;
        let facts = ServerFacts {
            version: row.try_get(0).map_err(driver)?,
            version_number: row.try_get(1).map_err(driver)?,
            in_recovery: row.try_get(2).map_err(driver)?,
            vector: row.try_get(3).map_err(driver)?,
        };
        connection.close().await.map_err(driver)?;
        Ok(facts)
    }

    /// Brings the schema up to date, forward only, and says what it did.
    ///
    /// # Errors
    /// [`OpenError`], as for [`open`](Self::open).
    pub async fn migrate(options: &PostgresOptions) -> Result<Migrated, OpenError> {
        prepare(options).await.map(|(_, migrated)| migrated)
    }
}

/// The key of the schema's lock, and what was done to the schema.
async fn prepare(options: &PostgresOptions) -> Result<(i64, Migrated), OpenError> {
    let failed = |error| database(options, driver(error));
    let (mut connection, schema, migrated) = prepare_at(options, options.now).await?;
    let moving: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(MARK)
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    connection.close().await.map_err(failed)?;
    if moving {
        let why = "a store is being moved into it; let `store migrate` end".to_owned();
        return Err(database(options, StoreError::Unavailable { why }));
    }
    Ok((LOCK_SPACE << 32 | schema, migrated))
}

/// A connection to the schema, which is made and brought up to date, its number, and what was done.
pub(super) async fn prepare_at(
    options: &PostgresOptions,
    now: UnixMillis,
) -> Result<(PgConnection, i64, Migrated), OpenError> {
    let failed = |error| database(options, driver(error));
    let connecting = options.connect(false, MIGRATION, MIGRATION);
    let connecting = tokio::time::timeout(options.acquire_timeout, connecting.connect());
    let mut connection = connecting
        .await
        .map_err(|_| {
            database(
                options,
                StoreError::Unavailable {
                    why: "it did not answer in time".to_owned(),
                },
            )
        })?
        .map_err(failed)?;
    let schema = make_schema(&mut connection, options)
        .await
        .map_err(failed)?;
    let migrated = migrate(&mut connection, options).await?;
    sqlx::query("INSERT INTO meta (one, store_id, revision, created_at) VALUES (1, $1, 0, $2) ON CONFLICT DO NOTHING")
        .bind(options.store_id.to_string())
        .bind(now.0)
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    Ok((connection, schema, migrated))
}

/// Makes the schema unless it is there; its number. Asking first, because a role that may not make one may well use one.
async fn make_schema(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<i64, sqlx::Error> {
    const FIND: &str = "SELECT CAST(oid AS BIGINT) FROM pg_namespace WHERE nspname = $1";
    let found: Option<i64> = sqlx::query_scalar(FIND)
        .bind(&options.schema)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(found) = found {
        return Ok(found);
    }
    let make = format!(
        "CREATE SCHEMA IF NOT EXISTS \"{}\"",
        options.schema.replace('"', "\"\"")
    );
    let made = sqlx::raw_sql(AssertSqlSafe(make))
        .execute(&mut *connection)
        .await;
    let found = sqlx::query_scalar(FIND)
        .bind(&options.schema)
        .fetch_optional(connection)
        .await?;
    // Another process may have made it just now.
    match (found, made) {
        (Some(found), _) => Ok(found),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(sqlx::Error::RowNotFound),
    }
}

/// The newest migration this program knows.
pub(in crate::store) fn known() -> i64 {
    MIGRATIONS
        .iter()
        .map(|(version, ..)| *version)
        .max()
        .unwrap_or(0)
}

async fn migrate(
    connection: &mut PgConnection,
    options: &PostgresOptions,
) -> Result<Migrated, OpenError> {
    let known = known();
    let from = applied(connection)
        .await
        .map_err(|error| database(options, driver(error)))?;
    // Looked at before the migrator touches anything, and reported as what it is.
    if let Some(found) = from.filter(|found| *found > known) {
        return Err(OpenError::NewerSchema {
            place: options.place(),
            found,
            known,
        });
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            let sql = (*sql).into_sql_str();
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(migrations)
        .run_direct(None, connection, false)
        .await
        .map_err(|error| OpenError::Migration {
            place: options.place(),
            why: error.to_string(),
        })?;
    Ok(Migrated { from, to: known })
}

/// The newest migration the schema has, if it has any.
async fn applied(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    let table: Option<String> =
        sqlx::query_scalar("SELECT CAST(to_regclass('_sqlx_migrations') AS TEXT)")
            .fetch_one(&mut *connection)
            .await?;
    if table.is_none() {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
}

fn database(options: &PostgresOptions, source: StoreError) -> OpenError {
    OpenError::Database {
        place: options.place(),
        source,
    }
}
