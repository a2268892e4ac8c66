//! Where the database of the federated tier is, and how it is reached.
//!
//! Invariant: a database on another host is reached by a verified connection, or the operator has said in so many words that it
//! need not be. A password that stands in a URL is shown by nothing.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// The port of PostgreSQL.
const PORT: u16 = 5432;

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where the server listens.
    pub host: PostgresHost,
    /// Its port, of a socket too.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The database.
    pub name: String,
    /// The schema in it that is the sidecar's alone.
    pub schema: String,
    /// Where the password is.
    pub password: PasswordSource,
    /// How the connection is protected.
    pub tls: PostgresTls,
    /// Connections at once.
    pub max_connections: u32,
    /// How long a connection may take to be made, or to become free.
    pub acquire_timeout: Duration,
    /// How long one statement may take.
    pub statement_timeout: Duration,
    /// How long a statement waits for another's lock.
    pub lock_timeout: Duration,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresHost {
    /// A name or an address.
    Network(String),
    /// The directory of its unix socket.
    Socket(PathBuf),
}

impl PostgresHost {
    /// Whether nobody else hears what is said.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Network(host) => is_loopback(host),
        }
    }
}

/// The longest name of a schema: with what stands before it, the name of a channel.
const SCHEMA_MAX: usize = 40;

/// Whether a schema may have that name: nothing in it has to be quoted, and the server keeps none like it for itself.
#[must_use]
pub fn is_schema_name(name: &str) -> bool {
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..=SCHEMA_MAX).contains(&name.len())
        && !name.starts_with("pg_")
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(plain)
}

/// Whether that host is this one.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// How the connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresTls {
    /// Not at all.
    Off,
    /// Encrypted, with whoever answers.
    Unverified,
    /// Encrypted, with a server whose certificate leads to a root and bears its name.
    Verified {
        /// The roots, PEM; the public ones when absent.
        roots: Option<PathBuf>,
    },
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PasswordSource {
    /// Nowhere: none is needed.
    None,
    /// In the URL itself.
    Url(Password),
    /// In a file.
    File(PathBuf),
    /// A credential of the service manager, by name.
    Credential(String),
}

/// A password; shown as what it is by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    #[must_use]
    pub const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The password itself, for whoever connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a password)")
    }
}

/// What a URL of PostgreSQL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Where the server listens.
    pub host: PostgresHost,
    /// Its port.
    pub port: u16,
    /// As whom.
    pub user: String,
    /// The password, if it is there.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// `sslmode`, if it is there.
    pub mode: Option<SslMode>,
}

/// The values of `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// In the clear.
    Disable,
    /// Encrypted, unverified.
    Require,
    /// Encrypted and verified.
    VerifyFull,
}

impl PostgresUrl {
    /// Parses `postgres://user[:password]@host[:port]/database[?sslmode=...]`, or `postgres://user@/database?host=/directory` for a
    /// socket.
    ///
    /// # Errors
    /// What is wrong with the text, without any of it that may be secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or("does not begin with postgres://")?;
        if rest.contains('#') {
            return Err("holds a #, which has to be written %23".to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').ok_or("names no database")?;
        let (user, address) = authority.rsplit_once('@').ok_or("names no user")?;
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (user, None),
        };
        let (host, port) = split_port(address, PORT)?;
        let mut host = PostgresHost::Network(decoded(host)?.to_ascii_lowercase());
        let mut mode = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match (key, value.as_str()) {
                ("sslmode", "disable") => mode = Some(SslMode::Disable),
                ("sslmode", "require") => mode = Some(SslMode::Require),
                ("sslmode", "verify-full") => mode = Some(SslMode::VerifyFull),
                ("sslmode", _) => {
                    return Err(
                        "has an sslmode other than disable, require or verify-full".to_owned()
                    );
                }
                ("host", directory) if directory.starts_with('/') => {
                    if host != PostgresHost::Network(String::new()) {
                        return Err("has two hosts".to_owned());
                    }
                    host = PostgresHost::Socket(PathBuf::from(directory));
                }
                ("host", _) => {
                    return Err(
                        "has a host that is no directory of a socket behind the `?`".to_owned()
                    );
                }
                _ => {
                    return Err(
                        "has something else than sslmode and host behind the `?`".to_owned()
                    );
                }
            }
        }
        if host == PostgresHost::Network(String::new()) {
            return Err("names no host".to_owned());
        }
        let (user, database) = (decoded(user)?, decoded(database)?);
        if user.is_empty() || database.is_empty() || database.contains('/') {
            return Err("names no user or no database".to_owned());
        }
        let password = password
            .map(|password| decoded(password).map(|text| Password::new(Zeroizing::new(text))))
            .transpose()?;
        Ok(Self {
            host,
            port,
            user,
            password,
            database,
            mode,
        })
    }
}

/// Host and port of an address, without the brackets of one of version 6.
pub(super) fn split_port(address: &str, default: u16) -> Result<(&str, u16), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or("has an address without its end")?;
            (host, rest.strip_prefix(':'))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    match port {
        None => Ok((host, default)),
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => Err("has a port out of range".to_owned()),
            Ok(port) => Ok((host, port)),
        },
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| "holds bytes that are not UTF-8")?;
    if text.contains('\0') {
        return Err("holds a zero character".to_owned());
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_says_where_the_database_is() {
        let url = PostgresUrl::parse(
            "postgres://mosaic:p%40ss@db.example:6432/federation?sslmode=verify-full",
        )
        .unwrap();
        assert_eq!(url.host, PostgresHost::Network("db.example".to_owned()));
        assert_eq!(
            (url.port, url.user.as_str(), url.database.as_str()),
            (6432, "mosaic", "federation")
        );
        assert_eq!(url.password.as_ref().map(Password::expose), Some("p@ss"));
        assert_eq!(url.mode, Some(SslMode::VerifyFull));
        assert!(!format!("{url:?}").contains("p@ss"));
        let url = PostgresUrl::parse("postgresql://me@[::1]/x").unwrap();
        assert_eq!(
            (url.host.is_local(), url.port, url.password),
            (true, 5432, None)
        );
        let url = PostgresUrl::parse("postgres://me@/x?host=/run/postgresql").unwrap();
        assert_eq!(url.host, PostgresHost::Socket("/run/postgresql".into()));
        assert!(url.host.is_local());
        assert!(
            !PostgresUrl::parse("postgres://me@db/x")
                .unwrap()
                .host
                .is_local()
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_without_the_password() {
        for text in [
            "",
            "mysql://me@db/x",
            "postgres://db/x",
            "postgres://me:geheim@db",
            "postgres://me:geheim@db/",
            "postgres://me:geheim@/x",
            "postgres://:geheim@db/x",
            "postgres://me:geheim@db:0/x",
            "postgres://me:geheim@db:99999/x",
            "postgres://me:geheim@db/x?sslmode=prefer",
            "postgres://me:geheim@db/x?options=-c%20x",
            "postgres://me:geheim@db/x?host=/run",
            "postgres://me:geheim@/x?host=run",
            "postgres://me:geheim%00@db/x",
            "postgres://me:geheim%ff@db/x",
            "postgres://me:geheim#@db/x",
            "postgres://me:geheim@db/x/y",
        ] {
            let refused = PostgresUrl::parse(text).unwrap_err();
            assert!(!refused.contains("geheim"), "{text}: {refused}");
        }
    }
}
