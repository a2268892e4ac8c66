//! What a sidecar keeps, wherever it does: the files of its data directory, and its database where that is none of them.

use std::path::Path;

use futures_util::TryStreamExt;
use proxy::config::Config;
use sqlx::AssertSqlSafe;
use tests::database::Database;

use super::enroll::files;

/// The rows of every table of a sidecar with these settings, in the binary form of the server: texts and bytes stand in it as they are.
/// On SQLite none: the database is a file.
pub async fn tables(config: &Config) -> Vec<(String, Vec<u8>)> {
    let Database::Postgres(mut connection) = Database::open(config).await else {
        return Vec::new();
    };
    let of = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = current_schema() AND c.relkind = 'r' ORDER BY 1";
    let names: Vec<String> = sqlx::query_scalar(AssertSqlSafe(of))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(names.len() > 10, "{names:?}");
    let mut tables = Vec::new();
    for name in names {
        let order = format!("COPY \"{name}\" TO STDOUT (FORMAT binary)");
        let parts = connection.copy_out_raw(&order).await.unwrap();
        let parts: Vec<_> = parts.try_collect().await.unwrap();
        tables.push((format!("table {name}"), parts.concat()));
    }
    tables
}

/// The same with every file of its data directory, the sealing secret left out.
pub async fn kept(config: &Config) -> Vec<(String, Vec<u8>)> {
    let mut all = files(&config.data_dir);
    all.extend(tables(config).await);
    all
}

/// Writes the tables into a directory, for what looks into files.
pub async fn write_tables(config: &Config, dir: &Path) {
    for (name, bytes) in tables(config).await {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}
