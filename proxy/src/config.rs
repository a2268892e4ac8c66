//! Static settings: `federation.toml`, overridden by `MOSAIC_FEDERATION_<SECTION>__<KEY>`, overridden by flags.
//!
//! Invariant: a [`Config`] is complete and consistent: every address, URL and path is parsed, every relation
//! between keys holds, and nothing in it was accepted without being used. Everything that is wrong is reported
//! at once. Secrets are not in it, only where they are found. Policy lives apart, in `policy.d`.

mod database;
mod problem;
mod range;
mod reference;
mod schema;
mod settings;
mod tier;
mod tree;
mod url;
mod validate;
mod valkey;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::id::UserId;
use policy::rate::Rate;

pub use database::{
    Database, Password, PasswordSource, PostgresHost, PostgresTls, PostgresUrl, SslMode,
    is_schema_name,
};
pub use problem::{ConfigProblem, Source};
pub use range::IpRange;
pub use reference::settings_reference;
pub use schema::settings_schema;
pub use settings::{LandlockMode, LogFormat, LogLevel, Preset};
pub use tier::{Federated, Tier};
pub use url::PublicUrl;
pub use valkey::{Valkey, ValkeyKind, ValkeyNode, ValkeyUrl};

/// Where the settings file is looked for when none is named, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["federation.toml", "/etc/mosaic-federation/federation.toml"];

/// The settings of one process. Relative paths are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of database, sockets and keys.
    pub data_dir: PathBuf,
    /// Which servers it relies on.
    pub tier: Tier,
    /// Which roles this process plays.
    pub roles: Roles,
    /// The listener enrolled peers ask on.
    pub federation: Federation,
    /// The listener enrollment tokens are redeemed on.
    pub enrollment: Enrollment,
    /// The door for local sessions.
    pub session: Session,
    /// The door for operators.
    pub admin: Admin,
    /// Metrics and health.
    pub ops: Ops,
    /// The local gateway.
    pub gateway: Gateway,
    /// Where the rules are.
    pub policy: Policy,
    /// Where the sealing secret is.
    pub seal: SealSource,
    /// The embedded server certificate.
    pub tls: Tls,
    /// Who signs the certificates of peers.
    pub ca: Ca,
    /// Revocation lists of others.
    pub revocation: Revocation,
    /// Bounds and lifetimes.
    pub limits: Limits,
    /// Leases on answers.
    pub lease: Lease,
    /// The processes of one store.
    pub replicas: Replicas,
    /// The cache of the asking side.
    pub cache: Cache,
    /// Deadlines for asking a peer.
    pub timeouts: Timeouts,
    /// The journal of the audit log, and its archive.
    pub audit: Audit,
    /// How far the process is confined to the files it needs.
    pub landlock: LandlockMode,
    /// When a failing peer is not asked.
    pub breaker: Breaker,
    /// Between two rounds of the revocation canary; `None` when it is off.
    pub revocation_canary: Option<Duration>,
    /// Where traces and metrics are sent; `None` when nowhere.
    pub otlp: Option<Otlp>,
    /// The log.
    pub log: Log,
}

/// Where traces and metrics are sent, by OTLP over HTTP; at least one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Origin of the collector, `http://` or `https://`.
    pub endpoint: String,
    /// With https: file with the roots that its chain must lead to.
    pub root_file: Option<PathBuf>,
    /// File with the value of the `Authorization` header.
    pub authorization_file: Option<PathBuf>,
    /// How spans are made, if they are.
    pub traces: Option<OtlpTraces>,
    /// How often the metrics are sent, if they are.
    pub metrics: Option<Duration>,
}

/// How spans are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtlpTraces {
    /// Of a hundred requests that nobody has decided on, how many are recorded.
    pub sample_percent: u8,
    /// Whether a peer's trace is continued; else it is linked.
    pub join_peers: bool,
}

/// Which roles a process plays; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Answer peers.
    pub serve: bool,
    /// Ask peers for local sessions.
    pub ask: bool,
}

/// The listener enrolled peers ask on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federation {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where peers reach it; `Some` whenever `roles.serve` is on. Derived from a loopback `listen`, it carries
    /// that port, also when it is 0: see [`PublicUrl::with_port`].
    pub public_url: Option<PublicUrl>,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// How long requests in flight may take after SIGTERM.
    pub drain: Duration,
    /// Threads that serve the listener; 0 means one per core.
    pub worker_threads: usize,
    /// Load balancers, whose connections begin with a PROXY header of version 2.
    pub balancers: Vec<IpRange>,
}

/// The listener enrollment tokens are redeemed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where peers reach it; as for [`Federation::public_url`].
    pub public_url: Option<PublicUrl>,
    /// As for [`Federation::balancers`].
    pub balancers: Vec<IpRange>,
}

/// The door for local sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The unix socket.
    pub socket: PathBuf,
    /// A loopback address, when TCP is on.
    pub listen: Option<SocketAddr>,
    /// Local users by uid of the process at the other end of the socket.
    pub users: BTreeMap<u32, UserId>,
}

/// The door for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The unix socket.
    pub socket: PathBuf,
}

/// Metrics and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ops {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
}

/// The local gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its origin: `http://host:port`, `https://host:port` or `unix:/path`; of that shape.
    pub url: String,
    /// How it is asked.
    pub preset: Preset,
    /// As whom it is asked.
    pub auth: GatewayAuth,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long it may be silent.
    pub read_timeout: Duration,
    /// Federated requests that ask it at once.
    pub max_requests: usize,
    /// Federated requests that wait for that.
    pub max_waiting: usize,
}

/// As whom the gateway is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayAuth {
    /// Each user's own registered token.
    SubjectToken,
    /// One service token and a signed statement of the subject (`gateway.assertion = "v1"`).
    ServiceToken {
        /// File with the service token.
        token_file: PathBuf,
        /// Audience of the statement.
        audience: String,
        /// Where the public keys are written for the gateway.
        jwks_file: PathBuf,
    },
}

/// Where the rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Directory of `*.toml` files.
    pub dir: PathBuf,
    /// Whether the file system is asked to tell of changes.
    pub watch: bool,
    /// How often the files are read in any case.
    pub poll: Duration,
}

/// Where the sealing secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealSource {
    /// A file of the operator's.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
    /// A credential of the service manager, by name: a file in the directory that `CREDENTIALS_DIRECTORY` names.
    Credential(String),
    /// A file that is made with a random secret at the first start.
    Generated(PathBuf),
}

impl SealSource {
    /// Where the next secret lies while the sealing secret is being changed: beside it, with a name that says so.
    #[must_use]
    pub fn next(&self) -> Self {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".next");
            Self::File(PathBuf::from(name))
        };
        match self {
            Self::File(path) | Self::Generated(path) => beside(path),
            Self::Environment(name) => Self::Environment(format!("{name}_NEXT")),
            Self::Credential(name) => Self::Credential(format!("{name}.next")),
        }
    }
}

impl fmt::Display for SealSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Generated(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "variable {name}"),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// The server certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Host names and addresses it is valid for, without duplicates: those of the public URLs and
    /// `tls.server_names`.
    pub server_names: Vec<String>,
    /// Where it is, when it is in files.
    pub files: Option<TlsFiles>,
    /// Who issues it, when that is the step-ca of the settings. With neither it is the embedded authority.
    pub step: Option<TlsStep>,
}

/// The provisioner of a step-ca that issues the server certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsStep {
    /// Its name.
    pub provisioner: String,
    /// File with its key.
    pub key_file: PathBuf,
    /// File with the password of that key.
    pub password_file: Option<PathBuf>,
}

/// A server certificate in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The roots that peers are given.
    pub roots: Option<PathBuf>,
    /// The root of the chain, when that does not end with it.
    pub root: Option<PathBuf>,
}

/// Who signs the certificates of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ca {
    /// This process, with a key that its store holds sealed.
    Embedded,
    /// A step-ca.
    Step {
        /// `https://host[:port]`, without a slash at the end.
        origin: String,
        /// File with its root certificate.
        root_file: PathBuf,
        /// Name of the JWK provisioner.
        provisioner: String,
        /// File with the provisioner's key.
        key_file: PathBuf,
        /// File with the password of that key.
        password_file: Option<PathBuf>,
    },
}

/// Revocation lists of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Files and directories of files with lists.
    pub files: Vec<PathBuf>,
    /// Addresses of lists.
    pub urls: Vec<ListUrl>,
    /// The root of the servers at those addresses; that of the step-ca when absent.
    pub root_file: Option<PathBuf>,
    /// Certificates of issuers of lists.
    pub issuers_file: Option<PathBuf>,
    /// Whether peers are refused whose authority has no list.
    pub required: bool,
    /// How often addresses are read.
    pub refresh: Duration,
    /// For how long a list counts after its nextUpdate.
    pub grace: Duration,
}

/// An https URL of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListUrl {
    origin: String,
    path: String,
}

/// Bounds and lifetimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long native facts of a subject are reused.
    pub facts_cache: Duration,
    /// Most bytes of one answer to a peer.
    pub max_answer_bytes: u64,
    /// Requests of one peer under way at once.
    pub peer_concurrency: u32,
    /// Connections from one source address.
    pub handshakes: Rate,
    /// Failed authentications from one source address.
    pub failed_authentications: Rate,
    /// Rows of one resource that one search looks through.
    pub search_rows: u32,
    /// Default life of an enrollment token.
    pub enrollment_token_ttl: Duration,
    /// Life of an issued client certificate.
    pub client_certificate: Duration,
    /// For how long the certificate before is good beside a renewed one.
    pub renewal_overlap: Duration,
    /// Requests to one peer at once.
    pub peer_requests: usize,
}

/// Leases on answers (the specification, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How long an answer may be served from a peer's cache.
    pub duration: Duration,
    /// How long a command waits for leases to end.
    pub wait: Duration,
}

/// The processes of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The name of this one, if the settings give it one.
    pub name: Option<String>,
    /// How long it serves without having heard of the store.
    pub fence: Duration,
}

/// The cache of the asking side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Most bytes; 0 means no cache.
    pub max_bytes: usize,
}

/// Deadlines for asking a peer (the specification, section 9.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting.
    pub connect: Duration,
    /// TLS handshake.
    pub tls: Duration,
    /// Question to first byte.
    pub first_byte: Duration,
    /// Question to end.
    pub total: Duration,
    /// Question to end for peers, when all sources are asked at once.
    pub fanout: Duration,
}

/// The journal of the audit log, and its archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Where it and the checkpoints are.
    pub dir: PathBuf,
    /// Its size.
    pub journal_bytes: u64,
    /// Whether a request that cannot be recorded is refused; else it is answered and counted.
    pub refuse_unrecorded: bool,
    /// Between two checkpoints.
    pub checkpoint: Duration,
    /// How old rows are when they are moved into the archive by themselves; `None`: never.
    pub archive_after: Option<Duration>,
    /// Where the archive is.
    pub archive_dir: PathBuf,
}

/// When a failing peer is not asked for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it is open the first time.
    pub open: Duration,
    /// What doubling ends at.
    pub open_max: Duration,
}

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe line that is written.
    pub level: LogLevel,
}

/// One `--set KEY=VALUE`, or another flag that stands for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag as written, for messages.
    pub flag: String,
    /// The key with its section.
    pub key: String,
    /// The value as text.
    pub value: String,
}

/// Reads the settings: `path` if given, then `environment`, then `overrides`.
///
/// # Errors
/// Every problem of all sources, in order of file position.
pub fn load(
    path: Option<&Path>,
    environment: &[(String, String)],
    overrides: &[Override],
) -> Result<Config, Vec<ConfigProblem>> {
    let Some(path) = path else {
        return parse(None, environment, overrides);
    };
    match std::fs::read_to_string(path) {
        Ok(text) => parse(Some((path, &text)), environment, overrides),
        Err(error) => Err(vec![ConfigProblem {
            source: Source::File {
                path: path.to_owned(),
                line: 0,
                column: 0,
            },
            key: String::new(),
            message: format!("cannot be read: {error}"),
            hint: Some("name an existing file with --config".to_owned()),
        }]),
    }
}

/// [`load`] on a text that is already read; `file` is its path and contents. Reads nothing else.
///
/// # Errors
/// As [`load`].
pub fn parse(
    file: Option<(&Path, &str)>,
    environment: &[(String, String)],
    overrides: &[Override],
) -> Result<Config, Vec<ConfigProblem>> {
    let schema = settings_schema();
    let mut tree = tree::Tree::new(&schema);
    if let Some((path, text)) = file {
        tree.read_file(path, text);
    }
    tree.read_environment(environment);
    for one in overrides {
        tree.read_text(&one.key, &one.value, &Source::Flag(one.flag.clone()));
    }
    let base = file
        .and_then(|(path, _)| path.parent())
        .unwrap_or_else(|| Path::new(""));
    validate::config(tree, base)
}

/// The settings file to use when none is named: the first of [`DEFAULT_FILES`] that exists.
#[must_use]
pub fn find_default_file() -> Option<PathBuf> {
    DEFAULT_FILES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}
