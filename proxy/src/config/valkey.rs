//! Where the shared limits of the federated tier are: one server, one that sentinels know, or a cluster.
//!
//! Invariant: a form that is not understood is refused; nothing behind it is guessed. What is refused repeats no part of the text,
//! because any part may be a password by mistake.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::database::{Password, is_loopback, split_port};

/// The port of Valkey, and that of its sentinels.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Where the shared limits are.
#[derive(Clone, PartialEq, Eq)]
pub struct Valkey {
    /// The servers as the URL names them.
    pub servers: ValkeyUrl,
    /// As whom the sentinels are asked, where they know users.
    pub sentinel_user: Option<String>,
    /// Where the password of the sentinels is.
    pub sentinel_password_file: Option<PathBuf>,
    /// The roots that the chain of a server must lead to, PEM; those of the system when absent.
    pub roots: Option<PathBuf>,
    /// Whether other hosts must not be reached: nothing is encrypted, and that is allowed on this host only.
    pub only_this_host: bool,
    /// How long a decision may take.
    pub timeout: Duration,
}

impl fmt::Debug for Valkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Valkey").field(&self.servers).finish()
    }
}

/// How the servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValkeyKind {
    /// There is one.
    Single,
    /// Sentinels say which one is the master of this service.
    Sentinel {
        /// The name that the sentinels watch it under.
        service: String,
    },
    /// Each has a part of the keys.
    Cluster,
}

/// What a URL of Valkey says.
#[derive(Clone, PartialEq, Eq)]
pub struct ValkeyUrl {
    /// How the servers are found.
    pub kind: ValkeyKind,
    /// Whether they are reached with TLS.
    pub encrypted: bool,
    /// The nodes it names: the server, its sentinels, or some of the cluster.
    pub nodes: Vec<ValkeyNode>,
    /// A URL with the user, password and database of the server that the sentinels name; of the others, that of the first node.
    pub server: Password,
}

impl fmt::Debug for ValkeyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValkeyUrl")
            .field("kind", &self.kind)
            .field("encrypted", &self.encrypted)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// A node that a URL names.
#[derive(Clone, PartialEq, Eq)]
pub struct ValkeyNode {
    /// A URL of the `redis` kind; it may hold a password.
    pub url: Password,
    /// Host and port, to be shown.
    pub place: String,
    /// Whether it is on this host.
    pub local: bool,
}

impl fmt::Debug for ValkeyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Sentinel,
    Cluster,
}

impl ValkeyUrl {
    /// Parses one of
    ///
    /// - `redis://[user:password@]host[:port][/database]`
    /// - `redis-sentinel://[user:password@]host[:port],host[:port].../service[/database]`
    /// - `redis-cluster://[user:password@]host[:port],host[:port]...`
    ///
    /// or the same with `rediss` for TLS. User and password are those of the server, never of the sentinels.
    ///
    /// # Errors
    /// What is wrong with the text, without any of it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const UNKNOWN: &str = "does not begin with redis://, redis-sentinel:// or redis-cluster://, or these with rediss";
        let (scheme, rest) = text.split_once("://").ok_or(UNKNOWN)?;
        let (encrypted, form) = match scheme {
            "redis" => (false, Form::Single),
            "rediss" => (true, Form::Single),
            "redis-sentinel" => (false, Form::Sentinel),
            "rediss-sentinel" => (true, Form::Sentinel),
            "redis-cluster" => (false, Form::Cluster),
            "rediss-cluster" => (true, Form::Cluster),
            _ => return Err(UNKNOWN),
        };
        if rest.contains('#') {
            return Err("holds a #, which has to be written %23");
        }
        if form != Form::Single && rest.contains('?') {
            return Err("has something behind a `?`");
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (credentials, addresses) = match authority.rsplit_once('@') {
            Some((credentials, addresses)) => (format!("{credentials}@"), addresses),
            None => (String::new(), authority),
        };
        let scheme = if encrypted { "rediss" } else { "redis" };
        let url = |text: String| Password::new(Zeroizing::new(text));
        let port = match form {
            Form::Sentinel => SENTINEL_PORT,
            Form::Single | Form::Cluster => PORT,
        };
        let mut nodes: Vec<ValkeyNode> = Vec::new();
        for address in addresses.split(',') {
            let (host, port) =
                split_port(address, port).map_err(|_| "has an address or a port that is none")?;
            if host.is_empty() || host.contains(['@', '/', ' ']) {
                return Err("names no host");
            }
            let local = is_loopback(host);
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            let place = format!("{host}:{port}");
            if nodes.iter().any(|node| node.place == place) {
                return Err("names a server twice");
            }
            nodes.push(ValkeyNode {
                url: match form {
                    // Its own words, with whatever else stands behind the address.
                    Form::Single => url(format!("{scheme}://{rest}")),
                    Form::Sentinel => url(format!("{scheme}://{place}")),
                    Form::Cluster => url(format!("{scheme}://{credentials}{place}")),
                },
                place,
                local,
            });
        }
        let first = nodes.first().ok_or("names no host")?;
        let (kind, server) = match form {
            Form::Single if nodes.len() > 1 => {
                return Err(
                    "names several servers, which takes redis-sentinel:// or redis-cluster://",
                );
            }
            Form::Single => (ValkeyKind::Single, first.url.clone()),
            Form::Cluster if !matches!(path, "" | "/") => {
                return Err("names a database, of which a cluster has one only");
            }
            Form::Cluster => (ValkeyKind::Cluster, first.url.clone()),
            Form::Sentinel => {
                let (service, database) = service(path)?;
                let server = url(format!(
                    "{scheme}://{credentials}{}/{database}",
                    first.place
                ));
                (ValkeyKind::Sentinel { service }, server)
            }
        };
        Ok(Self {
            kind,
            encrypted,
            nodes,
            server,
        })
    }

    /// The nodes, to be shown.
    #[must_use]
    pub fn place(&self) -> String {
        let places: Vec<&str> = self.nodes.iter().map(|node| node.place.as_str()).collect();
        places.join(", ")
    }
}

/// `/service` or `/service/database`.
fn service(path: &str) -> Result<(String, u32), &'static str> {
    const NONE: &str = "does not end with the name that the sentinels watch the service under";
    let path = path.strip_prefix('/').ok_or(NONE)?;
    let (service, database) = path.split_once('/').unwrap_or((path, "0"));
    // The characters that a name in the file of a sentinel may have.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if service.is_empty() || !service.bytes().all(plain) {
        return Err(NONE);
    }
    let database = database
        .parse()
        .map_err(|_| "has a database that is no number")?;
    Ok((service.to_owned(), database))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn each_form_says_which_servers_there_are() {
        let one = ValkeyUrl::parse("rediss://:p%40ss@limits.example/3").unwrap();
        assert_eq!(
            (one.kind.clone(), one.encrypted),
            (ValkeyKind::Single, true)
        );
        assert_eq!(one.place(), "limits.example:6379");
        assert_eq!(one.server.expose(), "rediss://:p%40ss@limits.example/3");

        let watched =
            ValkeyUrl::parse("redis-sentinel://me:secret@[::1]:1,127.0.0.1,s3.example:3/limits/2")
                .unwrap();
        let service = "limits".to_owned();
        assert_eq!(watched.kind, ValkeyKind::Sentinel { service });
        assert_eq!(watched.place(), "[::1]:1, 127.0.0.1:26379, s3.example:3");
        let urls: Vec<&str> = watched.nodes.iter().map(|node| node.url.expose()).collect();
        // No sentinel is told the password of the server.
        assert_eq!(
            urls,
            [
                "redis://[::1]:1",
                "redis://127.0.0.1:26379",
                "redis://s3.example:3"
            ]
        );
        assert_eq!(watched.server.expose(), "redis://me:secret@[::1]:1/2");
        let local: Vec<bool> = watched.nodes.iter().map(|node| node.local).collect();
        assert_eq!(local, [true, true, false]);

        let cluster = ValkeyUrl::parse("rediss-cluster://:secret@a,b:7").unwrap();
        assert_eq!(
            (cluster.kind.clone(), cluster.encrypted),
            (ValkeyKind::Cluster, true)
        );
        assert_eq!(cluster.nodes[1].url.expose(), "rediss://:secret@b:7");
        for url in [one, watched, cluster] {
            let shown = format!("{url:?}");
            assert!(
                !shown.contains("secret") && !shown.contains("p%40ss"),
                "{shown}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_without_any_of_it() {
        for text in [
            "",
            "geheim",
            "http://geheim",
            "redis+sentinel://geheim/x",
            "redis://",
            "redis://geheim@",
            "redis://geheim:0",
            "redis://geheim:port",
            "redis://geheim,other",
            "redis://host/#geheim",
            "redis-sentinel://geheim",
            "redis-sentinel://geheim/",
            "redis-sentinel://geheim/a b",
            "redis-sentinel://geheim/service/x",
            "redis-sentinel://geheim/service/1/2",
            "redis-sentinel://geheim,/service",
            "redis-sentinel://geheim,geheim:26379/service",
            "redis-sentinel://geheim/service?db=1",
            "redis-cluster://geheim/1",
            "redis-cluster://geheim,,b",
            "redis-cluster://geheim?x",
        ] {
            let refused = ValkeyUrl::parse(text).unwrap_err();
            assert!(!refused.contains("geheim"), "{text}: {refused}");
        }
    }
}
