//! A schema of its own for each test, on the server that `MOSAIC_TEST_POSTGRES` names.

use std::time::Duration;

use policy::time::UnixMillis;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};
use uuid::Uuid;

use super::super::{PostgresOptions, PostgresStore};
use crate::config::{PostgresTls, PostgresUrl};

/// The variable with the URL of a server on which schemas may be made.
const VARIABLE: &str = "MOSAIC_TEST_POSTGRES";

/// A schema of one test.
pub(in crate::store) struct Place {
    pub(in crate::store) options: PostgresOptions,
}

impl Place {
    /// A place for a test, or `None` and a line that says that it was skipped.
    pub(in crate::store) fn find(test: &str, store_id: Uuid, now: UnixMillis) -> Option<Self> {
        use std::io::Write;
        let Ok(url) = std::env::var(VARIABLE) else {
            let mut out = std::io::stdout().lock();
            writeln!(
                out,
                "\nSKIPPED {test} on PostgreSQL: {VARIABLE} names no server"
            )
            .unwrap();
            return None;
        };
        let url = PostgresUrl::parse(&url).unwrap();
        let options = PostgresOptions {
            host: url.host,
            port: url.port,
            user: url.user,
            password: url.password,
            database: url.database,
            schema: format!("t_{}", Uuid::new_v4().simple()),
            tls: PostgresTls::Off,
            store_id,
            now,
            max_connections: 4,
            acquire_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(20),
        };
        Some(Self { options })
    }

    pub(in crate::store) async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.options).await.unwrap()
    }

    /// A connection that may do everything, in the schema.
    pub(in crate::store) async fn connect(&self) -> PgConnection {
        self.options
            .connect(false, Duration::from_secs(30), Duration::from_secs(30))
            .connect()
            .await
            .unwrap()
    }

    /// A pool of such connections.
    pub(in crate::store) async fn pool(&self) -> PgPool {
        let options = self
            .options
            .connect(false, Duration::from_secs(30), Duration::from_secs(30));
        PgPool::connect_with(options).await.unwrap()
    }

    /// Leaves nothing behind.
    pub(in crate::store) async fn remove(self) {
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.options.schema);
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await
            .unwrap();
    }
}
