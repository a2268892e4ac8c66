//! `store`: moving the state from one database to another.
//!
//! Invariant: another host is reached by a verified connection only; no password is in what is said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::time::UnixMillis;
use serde_json::json;
use uuid::Uuid;

use super::arguments::StoreCommand;
use super::failure::CliFailure;
use super::output::Console;
use crate::config::{PostgresTls, PostgresUrl, SslMode, is_schema_name};
use crate::exit::Exit;
use crate::store::{PostgresOptions, PostgresStore};
use crate::tier::read_password;

const WHAT: &str = "the store was not moved";

pub(super) async fn run(
    command: StoreCommand,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let StoreCommand::Migrate {
        from,
        to,
        schema,
        password_file,
        root_file,
    } = command;
    let usage = |why: String| CliFailure::new(Exit::Usage, "usage", WHAT, why);
    let file = from
        .strip_prefix("sqlite:")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| usage("--from is not of the form sqlite:PATH".to_owned()))?;
    let options = target(&to, schema, password_file.as_deref(), root_file).map_err(usage)?;
    let moved = PostgresStore::move_from(Path::new(file), &options)
        .await
        .map_err(|error| {
            CliFailure::new(Exit::Failed, "store_migrate", WHAT, error.to_string())
                .remedy("the file is as it was; run the same command again to go on")
        })?;
    let rows: Vec<_> = moved
        .iter()
        .map(|one| {
            json!({ "table": one.table, "rows": one.rows, "sha256": hex::encode(one.sha256) })
        })
        .collect();
    if console.json {
        console.document(&json!({ "to": options.place(), "tables": rows }))?;
        return Ok(Exit::Done);
    }
    console.table(
        &[
            ("table", "/table"),
            ("rows", "/rows"),
            ("sha256", "/sha256"),
        ],
        &rows,
    )?;
    console.line(&format!(
        "moved to {}: every table has the same rows as {file}. Set tier = \"federated\" and [database]; do not start a sidecar on the file again",
        options.place()
    ))?;
    Ok(Exit::Done)
}

fn target(
    url: &str,
    schema: String,
    password_file: Option<&Path>,
    roots: Option<PathBuf>,
) -> Result<PostgresOptions, String> {
    let url = PostgresUrl::parse(url).map_err(|why| format!("--to {why}"))?;
    let local = url.host.is_local();
    let mode = url.mode.unwrap_or(if local {
        SslMode::Disable
    } else {
        SslMode::VerifyFull
    });
    if mode != SslMode::VerifyFull && !local {
        return Err("--to reaches another host without a verified connection".to_owned());
    }
    if roots.is_some() && mode != SslMode::VerifyFull {
        return Err("--root-file is of no use without sslmode=verify-full".to_owned());
    }
    if !is_schema_name(&schema) {
        return Err(
            "--schema is not of at most 40 lower case letters, digits and underscores".to_owned(),
        );
    }
    let password = match (url.password, password_file) {
        (Some(_), Some(_)) => {
            return Err("--to holds a password, and so does --password-file".to_owned());
        }
        (in_url, None) => in_url,
        (None, Some(file)) => Some(read_password(file)?),
    };
    Ok(PostgresOptions {
        host: url.host,
        port: url.port,
        user: url.user,
        password,
        database: url.database,
        schema,
        tls: match mode {
            SslMode::Disable => PostgresTls::Off,
            SslMode::Require => PostgresTls::Unverified,
            SslMode::VerifyFull => PostgresTls::Verified { roots },
        },
        // The file has its own.
        store_id: Uuid::nil(),
        now: UnixMillis(0),
        max_connections: 2,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(600),
        lock_timeout: Duration::from_secs(60),
    })
}
