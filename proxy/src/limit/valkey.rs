//! The servers of the shared limits: how one is connected to, how the master is found through sentinels, and whether each is there.
//!
//! Invariant: nothing is sent in the clear to another host unless the settings allow it, wherever a sentinel or a cluster points.
//! The password of the server is sent to no sentinel.

mod link;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates,
    cmd,
};
use tokio::time::timeout;

pub(super) use link::{Call, Link};

use crate::config::{Password, Valkey, ValkeyKind};

/// For making a connection, and for one answer outside a decision; requests do not wait for it.
const CONNECT: Duration = Duration::from_secs(2);
/// Tries of one command in a cluster whose slots have moved.
const REDIRECTS: u32 = 3;

/// How the servers are reached.
#[derive(Clone)]
pub struct ValkeyOptions {
    kind: ValkeyKind,
    nodes: Vec<Node>,
    scheme: &'static str,
    /// User, password and database of the server that sentinels name.
    server: RedisConnectionInfo,
    certificates: Option<TlsCertificates>,
    only_this_host: bool,
    /// For a decision.
    pub(super) patience: Duration,
}

#[derive(Clone)]
struct Node {
    info: ConnectionInfo,
    place: String,
}

/// What was found of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// That it answers and where, or why it is of no use.
    pub found: Result<String, String>,
    /// Whether nothing goes on without it.
    pub needed: bool,
}

impl ValkeyOptions {
    /// The servers of the settings; `roots` is PEM.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(
        valkey: &Valkey,
        sentinel_password: Option<&Password>,
        roots: Option<Vec<u8>>,
    ) -> RedisResult<Self> {
        let certificates = roots.map(|roots| TlsCertificates {
            client_tls: None,
            root_cert: Some(roots),
        });
        let servers = &valkey.servers;
        let mut nodes = Vec::with_capacity(servers.nodes.len());
        for node in &servers.nodes {
            let mut info = info(node.url.expose(), certificates.as_ref())?;
            if let Some(password) = sentinel_password {
                let mut told = info
                    .redis_settings()
                    .clone()
                    .set_password(password.expose());
                if let Some(user) = &valkey.sentinel_user {
                    told = told.set_username(user);
                }
                info = info.set_redis_settings(told);
            }
            let place = node.place.clone();
            nodes.push(Node { info, place });
        }
        let server = info(servers.server.expose(), None)?;
        Ok(Self {
            kind: servers.kind.clone(),
            nodes,
            scheme: if servers.encrypted { "rediss" } else { "redis" },
            server: server.redis_settings().clone(),
            certificates,
            only_this_host: valkey.only_this_host,
            patience: valkey.timeout,
        })
    }

    /// The nodes that the settings name, to be shown.
    fn place(&self) -> String {
        let places: Vec<&str> = self.nodes.iter().map(|node| node.place.as_str()).collect();
        places.join(", ")
    }

    /// Connects to what decides now.
    async fn open(&self) -> RedisResult<Connection> {
        match &self.kind {
            ValkeyKind::Single => {
                let node = self.nodes.first().ok_or_else(nobody)?;
                Ok(Connection::One(self.connect(&node.info).await?))
            }
            ValkeyKind::Sentinel { service } => {
                let (connection, _) = self.master(service).await?;
                Ok(Connection::One(connection))
            }
            ValkeyKind::Cluster => {
                let nodes = self.nodes.iter().map(|node| node.info.clone());
                let mut builder = ClusterClient::builder(nodes)
                    .connection_timeout(CONNECT)
                    .response_timeout(CONNECT)
                    .retries(REDIRECTS);
                if let Some(certificates) = &self.certificates {
                    builder = builder.certs(certificates.clone());
                }
                if self.only_this_host {
                    builder = builder.async_dns_resolver(OnlyThisHost);
                }
                let client = builder.build()?;
                // Its bounds are those of one node.
                let made = timeout(CONNECT.saturating_mul(2), client.get_async_connection()).await;
                Ok(Connection::Cluster(made.map_err(|_| late())??))
            }
        }
    }

    async fn connect(&self, info: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        let mut settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        if self.only_this_host {
            settings = settings.set_dns_resolver(OnlyThisHost);
        }
        Client::open(info.clone())?
            .get_multiplexed_async_connection_with_config(&settings)
            .await
    }

    /// A connection to the master of the service, and its place: by the sentinel that is first to name one that says so itself. All
    /// are asked at once, because one of them may be gone, and another not know yet.
    async fn master(&self, service: &str) -> RedisResult<(MultiplexedConnection, String)> {
        let asked = self.nodes.iter().map(|sentinel| {
            async move {
                let (info, place) = self.named_by(sentinel, service).await?;
                let mut connection = self.connect(&info).await?;
                let role: Vec<redis::Value> = cmd("ROLE").query_async(&mut connection).await?;
                let role: String = redis::from_redis_value_ref(role.first().ok_or_else(nobody)?)?;
                if role != "master" {
                    let why = (
                        ErrorKind::Client,
                        "the server that the sentinels name is no master",
                    );
                    return Err(RedisError::from(why));
                }
                Ok((connection, place))
            }
            .boxed()
        });
        let (found, _) = select_ok(asked).await?;
        Ok(found)
    }

    /// Which server a sentinel names as the master of the service.
    async fn named_by(
        &self,
        sentinel: &Node,
        service: &str,
    ) -> RedisResult<(ConnectionInfo, String)> {
        let mut connection = self.connect(&sentinel.info).await?;
        let named: Option<(String, u16)> = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(service)
            .query_async(&mut connection)
            .await?;
        let (host, port) = named.ok_or_else(|| {
            RedisError::from((
                ErrorKind::MasterNameNotFoundBySentinel,
                "knows no such service",
            ))
        })?;
        let place = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let address = info(
            &format!("{}://{place}", self.scheme),
            self.certificates.as_ref(),
        )?;
        Ok((address.set_redis_settings(self.server.clone()), place))
    }

    /// Asks every part whether it is there, all at once.
    pub async fn parts(&self) -> Vec<Part> {
        let answers = |node: &Node| {
            let node = node.clone();
            async move {
                let mut connection = self.connect(&node.info).await?;
                let pong: String = cmd("PING").query_async(&mut connection).await?;
                Ok::<_, RedisError>((connection, pong))
            }
        };
        let of = |node: &Node, found: Result<String, RedisError>| match found {
            Ok(found) => Ok(format!("{} {found}", node.place)),
            Err(why) => Err(format!("{}: {why}", node.place)),
        };
        match &self.kind {
            ValkeyKind::Single => {
                let mut parts = Vec::new();
                for node in &self.nodes {
                    let found = answers(node).await.map(|_| "answers".to_owned());
                    parts.push(part("Valkey", of(node, found), true));
                }
                parts
            }
            ValkeyKind::Sentinel { service } => {
                let sentinels = self.nodes.iter().map(|node| async move {
                    let named = self.named_by(node, service).await;
                    let found = named.map(|(_, place)| format!("names {place}"));
                    part("Valkey sentinel", of(node, found), false)
                });
                let sentinels = futures_util::future::join_all(sentinels);
                let (mut parts, master) = tokio::join!(sentinels, self.master(service));
                let found = match master {
                    Ok((_, place)) => Ok(format!("{place} is the master of {service}")),
                    Err(why) => Err(format!(
                        "no master of {service} through the sentinels {}: {why}",
                        self.place()
                    )),
                };
                parts.push(part("Valkey", found, true));
                parts
            }
            ValkeyKind::Cluster => {
                let nodes = self.nodes.iter().map(|node| async move {
                    let found = async {
                        let (mut connection, _) = answers(node).await?;
                        let state: String = cmd("CLUSTER")
                            .arg("INFO")
                            .query_async(&mut connection)
                            .await?;
                        if state.lines().any(|line| line.trim() == "cluster_state:ok") {
                            return Ok("answers, and the cluster is whole".to_owned());
                        }
                        let why = "the cluster is not whole: CLUSTER INFO says so";
                        Err(RedisError::from((ErrorKind::Client, why)))
                    };
                    part("Valkey node", of(node, found.await), false)
                });
                let mut parts = futures_util::future::join_all(nodes).await;
                let found = if parts.iter().any(|part| part.found.is_ok()) {
                    Ok(format!("the cluster at {}", self.place()))
                } else {
                    Err(format!(
                        "no node of the cluster at {} is of use",
                        self.place()
                    ))
                };
                parts.push(part("Valkey", found, true));
                parts
            }
        }
    }
}

fn part(name: &'static str, found: Result<String, String>, needed: bool) -> Part {
    Part {
        name,
        found,
        needed,
    }
}

fn nobody() -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "there is no server"))
}

fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}

/// How a URL is connected to.
fn info(url: &str, certificates: Option<&TlsCertificates>) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    match certificates {
        None => Ok(info),
        Some(certificates) => {
            let client = Client::build_with_tls(info, certificates.clone())?;
            Ok(client.get_connection_info().clone())
        }
    }
}

/// A connection, shared by all who ask.
#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn query<T: FromRedisValue>(&mut self, asked: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => asked.query_async(connection).await,
            Self::Cluster(connection) => asked.query_async(connection).await,
        }
    }
}

/// Resolves names to addresses of this host only: where others may not be reached in the clear, a sentinel or a node of a cluster
/// on this host must not lead there either.
struct OnlyThisHost;

impl AsyncDNSResolver for OnlyThisHost {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
                .await?
                .filter(|address| address.ip().is_loopback())
                .collect();
            if found.is_empty() {
                let why = "it is on another host, which valkey.url reaches with rediss only";
                return Err(RedisError::from((ErrorKind::InvalidClientConfig, why)));
            }
            let found: Box<dyn Iterator<Item = SocketAddr> + Send + 'a> =
                Box::new(found.into_iter());
            Ok(found)
        }
        .boxed()
    }
}
