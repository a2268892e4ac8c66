//! The servers that the tier of the settings relies on: probed, and the store opened on them.
//!
//! Invariant: the federated tier starts on PostgreSQL with pgvector and on Valkey, or not at all; everything that is missing is
//! named at once, in a few seconds. No password is in what is said.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use policy::time::UnixMillis;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::{Config, Database, Federated, Password, PasswordSource, Tier, Valkey};
use crate::limit::ValkeyOptions;
use crate::sealing_secret::credential_file;
use crate::store::{OpenError, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store};

/// How long a server may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// The oldest PostgreSQL that the schema is made for, as the server numbers its versions.
const POSTGRES_LEAST: i64 = 150_000;

/// What was found of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which server, or part of it.
    pub name: &'static str,
    /// What it is, or why it is of no use.
    pub found: Result<String, String>,
    /// What to do if it is of no use.
    pub remedy: &'static str,
    /// Whether nothing starts without it.
    pub needed: bool,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Ok(found) => write!(f, "{}: {found}", self.name),
            Err(why) => write!(f, "{}: {why}; {}", self.name, self.remedy),
        }
    }
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// Servers that are missing, or of no use.
    #[error("tier = \"federated\" needs what is missing:{}", .0.iter().zip(1..).map(|(probe, number)| format!(" ({number}) {probe}")).collect::<String>())]
    Missing(Vec<Probe>),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Opens the store of the settings, making one where there is none.
///
/// # Errors
/// [`TierError`].
pub async fn open_store(config: &Config, now: UnixMillis) -> Result<Arc<dyn Store>, TierError> {
    match &config.tier {
        Tier::Embedded => {
            let database = config.data_dir.join("federation.db");
            let options = SqliteOptions::new(database, Uuid::new_v4(), now);
            Ok(Arc::new(SqliteStore::open(&options).await?))
        }
        Tier::Federated(servers) => {
            let failed = probe(servers)
                .await
                .into_iter()
                .filter(|probe| probe.found.is_err());
            let (missing, spare): (Vec<Probe>, Vec<Probe>) = failed.partition(|probe| probe.needed);
            for probe in spare {
                tracing::warn!(missing = %probe, "a server of the tier is of no use; what is left of its kind goes on without it");
            }
            if !missing.is_empty() {
                return Err(TierError::Missing(missing));
            }
            let options = postgres(&servers.database, now)
                .map_err(|why| TierError::Missing(vec![no_password(why)]))?;
            Ok(Arc::new(PostgresStore::open(&options).await?))
        }
    }
}

/// Asks every server whether it is there, all at once.
pub async fn probe(servers: &Federated) -> Vec<Probe> {
    let (mut probes, valkey) = tokio::join!(
        probe_postgres(&servers.database),
        probe_valkey(&servers.valkey)
    );
    probes.extend(valkey);
    probes
}

fn no_password(why: String) -> Probe {
    Probe {
        name: "PostgreSQL",
        found: Err(why),
        remedy: "correct [database]",
        needed: true,
    }
}

async fn probe_postgres(database: &Database) -> Vec<Probe> {
    let server = |found| Probe {
        name: "PostgreSQL",
        found,
        remedy: "start it, or correct [database]",
        needed: true,
    };
    let vector = |found| Probe {
        name: "pgvector",
        found,
        remedy: "install the extension `vector` for this server (Debian: postgresql-NN-pgvector)",
        needed: true,
    };
    let options = match postgres(database, UnixMillis(0)) {
        Ok(options) => options,
        Err(why) => return vec![no_password(why)],
    };
    let place = options.place();
    let facts = match tokio::time::timeout(PATIENCE, PostgresStore::facts(&options)).await {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => {
            let unknown = "unknown while PostgreSQL does not answer".to_owned();
            return vec![
                server(Err(format!("{place}: {error}"))),
                vector(Err(unknown)),
            ];
        }
        Err(_) => {
            let silent = format!("{place}: no answer in {} s", PATIENCE.as_secs());
            let unknown = "unknown while PostgreSQL does not answer".to_owned();
            return vec![server(Err(silent)), vector(Err(unknown))];
        }
    };
    let version = format!("{place}: version {}", facts.version);
    let found = if facts.version_number < POSTGRES_LEAST {
        Err(format!("{version}; it has to be 15 or later"))
    } else if facts.in_recovery {
        Err(format!("{version}; it is a standby, which takes no writes"))
    } else {
        Ok(version)
    };
    let extension = facts
        .vector
        .map(|version| format!("version {version}"))
        .ok_or_else(|| format!("{place} does not have it"));
    vec![server(found), vector(extension)]
}

async fn probe_valkey(valkey: &Valkey) -> Vec<Probe> {
    let probe = |name, found, needed| Probe {
        name,
        found,
        remedy: "start it, or correct [valkey]",
        needed,
    };
    let place = valkey.servers.place();
    let options = match self::valkey(valkey) {
        Ok(options) => options,
        Err(why) => return vec![probe("Valkey", Err(format!("{place}: {why}")), true)],
    };
    match tokio::time::timeout(PATIENCE, options.parts()).await {
        Ok(parts) => parts
            .into_iter()
            .map(|part| probe(part.name, part.found, part.needed))
            .collect(),
        Err(_) => {
            let silent = format!("{place}: no answer in {} s", PATIENCE.as_secs());
            vec![probe("Valkey", Err(silent), true)]
        }
    }
}

/// How the shared limits are reached.
///
/// # Errors
/// Why a file cannot be read, or an address not be used; neither repeats the URL.
pub fn valkey(valkey: &Valkey) -> Result<ValkeyOptions, String> {
    let password = valkey
        .sentinel_password_file
        .as_deref()
        .map(read_password)
        .transpose()?;
    let roots = valkey
        .roots
        .as_deref()
        .map(|path| {
            let shown = path.display();
            std::fs::read(path).map_err(|error| format!("{shown} could not be read: {error}"))
        })
        .transpose()?;
    ValkeyOptions::new(valkey, password.as_ref(), roots).map_err(|error| error.to_string())
}

/// How the database is opened.
///
/// # Errors
/// Why the password cannot be read.
pub fn postgres(database: &Database, now: UnixMillis) -> Result<PostgresOptions, String> {
    let password = match &database.password {
        PasswordSource::None => None,
        PasswordSource::Url(password) => Some(password.clone()),
        PasswordSource::File(path) => Some(read_password(path)?),
        PasswordSource::Credential(name) => {
            let path = credential_file(name).ok_or_else(|| {
                format!("its password is to be the credential {name}, but the service manager has given none")
            })?;
            Some(read_password(&path)?)
        }
    };
    Ok(PostgresOptions {
        host: database.host.clone(),
        port: database.port,
        user: database.user.clone(),
        password,
        database: database.name.clone(),
        schema: database.schema.clone(),
        tls: database.tls.clone(),
        store_id: Uuid::new_v4(),
        now,
        max_connections: database.max_connections,
        acquire_timeout: database.acquire_timeout,
        statement_timeout: database.statement_timeout,
        lock_timeout: database.lock_timeout,
    })
}

/// The password in a file, without the end of its line.
///
/// # Errors
/// Why it cannot be read, or may not.
pub fn read_password(path: &Path) -> Result<Password, String> {
    let shown = path.display();
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("its password file {shown} could not be read: {error}"))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o027 != 0 {
        return Err(format!(
            "its password file {shown} has mode {mode:03o}: others may touch it; run `chmod 600` on it"
        ));
    }
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| format!("its password file {shown} could not be read: {error}"))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    if password.is_empty() || password.contains(['\n', '\0']) {
        return Err(format!("its password file {shown} does not hold one line"));
    }
    Ok(Password::new(Zeroizing::new(password.to_owned())))
}

#[cfg(test)]
mod tests;
