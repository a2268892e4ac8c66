//! The settings as they are written: one type per section, with the words, defaults and bounds that the
//! JSON Schema and the reference page are made of.
//!
//! Invariant: this is the only list of keys. Reading (`tree.rs`), environment variables, the schema and
//! `docs/reference/configuration.md` are all derived from it, so they cannot disagree.
//! What a value means, and which values go together, is decided in `validate.rs`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Static settings of the sidecar, read once at start from `federation.toml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Directory of everything the sidecar keeps: database, sockets, keys. Created with mode 0700.
    pub data_dir: String,
    /// Which servers it relies on. `embedded` needs none: the store is SQLite in `data_dir`, limits are kept in the process. With
    /// `federated` the store is PostgreSQL, and nothing starts without it, pgvector in it, and Valkey.
    pub tier: TierName,
    /// The PostgreSQL database of the federated tier.
    pub database: Database,
    /// The Valkey or Redis server of the federated tier.
    pub valkey: Valkey,
    /// Which roles this process plays.
    pub roles: Roles,
    /// The listener that enrolled peers ask on (TLS 1.3, client certificate required).
    pub federation: Federation,
    /// The listener where a peer redeems an enrollment token (TLS 1.3, no client certificate).
    pub enrollment: Enrollment,
    /// The local door for agent sessions.
    pub session: Session,
    /// The door for operators and this command line.
    pub admin: Admin,
    /// Metrics and health.
    pub ops: Ops,
    /// The local gateway, the source of all rows.
    pub gateway: Gateway,
    /// Where the rules are.
    pub policy: Policy,
    /// The secret that seals keys and tokens in the database. With no key set, a random one is made
    /// at the first start and kept in `<data_dir>/sealing.key` (mode 0600).
    pub seal: Seal,
    /// The server certificate of both TLS listeners: issued by the embedded authority, or from files.
    pub tls: Tls,
    /// Who signs the certificates of enrolled peers.
    pub ca: Ca,
    /// Revocation lists of other authorities that are obeyed. The list of the embedded authority is always published, and the one
    /// of a step-ca always read.
    pub revocation: Revocation,
    /// Bounds and lifetimes.
    pub limits: Limits,
    /// For how long answers may be served from a cache, and what revoking waits for.
    pub lease: Lease,
    /// The processes that serve from one store.
    pub replicas: Replicas,
    /// The cache of the asking side, in memory only.
    pub cache: Cache,
    /// Deadlines for asking a peer.
    pub timeouts: Timeouts,
    /// The audit log: its journal, through which every record goes first, and its archive.
    pub audit: Audit,
    /// When a peer that fails is not asked for a while.
    pub breaker: Breaker,
    /// A grant of the sidecar's own that is used and revoked every now and then, to see that revoking works.
    pub revocation_canary: RevocationCanary,
    /// Where traces and metrics are sent (OTLP over HTTP); nowhere without an endpoint.
    pub otlp: Otlp,
    /// The log, written to standard error.
    pub log: Log,
    /// What the process gives up at the start. Core dumps and tracing are always off.
    pub hardening: Hardening,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "./mosaic-federation-data".to_owned(),
            tier: TierName::Embedded,
            database: Database::default(),
            valkey: Valkey::default(),
            roles: Roles::default(),
            federation: Federation::default(),
            enrollment: Enrollment::default(),
            session: Session::default(),
            admin: Admin::default(),
            ops: Ops::default(),
            gateway: Gateway::default(),
            policy: Policy::default(),
            seal: Seal::default(),
            tls: Tls::default(),
            ca: Ca::default(),
            revocation: Revocation::default(),
            limits: Limits::default(),
            lease: Lease::default(),
            replicas: Replicas::default(),
            cache: Cache::default(),
            timeouts: Timeouts::default(),
            audit: Audit::default(),
            breaker: Breaker::default(),
            revocation_canary: RevocationCanary::default(),
            otlp: Otlp::default(),
            log: Log::default(),
            hardening: Hardening::default(),
        }
    }
}

/// Which servers the sidecar relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TierName {
    /// None.
    Embedded,
    /// PostgreSQL with pgvector, and Valkey or Redis.
    Federated,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Database {
    /// `postgres://user@host[:port]/database`, or `postgres://user@/database?host=/directory` for a unix socket. A database on another
    /// host is reached with `sslmode=verify-full`; behind `?sslmode=` may stand `disable`, `require` or `verify-full`. The environment
    /// that libpq reads, and `.pgpass`, are not looked at.
    pub url: Option<String>,
    /// The schema that is the sidecar's alone; made when it is not there. Lower case letters, digits and `_`.
    pub schema: String,
    /// File with the password; not readable by others. It may also stand in the URL, less well kept.
    pub password_file: Option<String>,
    /// The same as a credential of the service manager (`LoadCredential=`), by name.
    pub password_credential: Option<String>,
    /// File with the root certificates that the chain of the server must lead to, PEM; without it, the public ones.
    pub root_file: Option<String>,
    /// Allow a connection to another host that is not encrypted or not verified.
    pub allow_unverified: bool,
    /// Connections at once; one of them writes.
    #[schemars(range(min = 2, max = 1_000))]
    pub max_connections: u32,
    /// How long a connection may take to be made or to become free, milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub acquire_timeout_ms: u64,
    /// How long one statement may take, milliseconds.
    #[schemars(range(min = 100, max = 600_000))]
    pub statement_timeout_ms: u64,
    /// How long a statement waits for what another has locked, milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub lock_timeout_ms: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            schema: "mosaic_federation".to_owned(),
            password_file: None,
            password_credential: None,
            root_file: None,
            allow_unverified: false,
            max_connections: 8,
            acquire_timeout_ms: 5_000,
            statement_timeout_ms: 10_000,
            lock_timeout_ms: 5_000,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Valkey {
    /// One server: `redis://host[:port]`, where needed with `/database`. A server that sentinels watch:
    /// `redis-sentinel://host[:port],host[:port],.../service`, where needed with `/database`; the hosts are the sentinels (port 26379).
    /// A cluster: `redis-cluster://host[:port],host[:port],...`; the hosts are some of its nodes. With `rediss` in place of `redis`
    /// every connection is a verified TLS connection, those to sentinels too. User and password of the server stand before the hosts,
    /// as in `user:password@`.
    pub url: Option<String>,
    /// As whom the sentinels are asked, where they know users.
    pub sentinel_user: Option<String>,
    /// File with the password of the sentinels; not readable by others. Without it they are asked without one.
    pub sentinel_password_file: Option<String>,
    /// File with the root certificates that the chain of each server must lead to, PEM; without it, those of the system.
    pub root_file: Option<String>,
    /// Allow a connection to another host that is not encrypted.
    pub allow_unverified: bool,
    /// How long a decision on a rate may take, milliseconds. Beyond it this process decides by itself, by half of each rate.
    #[schemars(range(min = 1, max = 1_000))]
    pub timeout_ms: u64,
}

impl Default for Valkey {
    fn default() -> Self {
        Self {
            url: None,
            sentinel_user: None,
            sentinel_password_file: None,
            root_file: None,
            allow_unverified: false,
            timeout_ms: 20,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Roles {
    /// Answer peers: federation and enrollment listeners.
    pub serve: bool,
    /// Ask peers for local sessions: the session door.
    pub ask: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            serve: true,
            ask: true,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Federation {
    /// Address and port to listen on. Port 0 lets the system choose.
    pub listen: String,
    /// The https URL under which peers reach this listener, without a path. Derived from `listen` when that
    /// is a loopback address; otherwise required when `roles.serve` is on.
    pub public_url: Option<String>,
    /// How long a TLS handshake may take, milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub handshake_timeout_ms: u64,
    /// How long the head of a request may take from its first byte on, milliseconds; then the connection is closed. In HTTP/2, how
    /// long the client may take to begin; a connection on which nothing is asked is closed after 75 s.
    #[schemars(range(min = 100, max = 60_000))]
    pub header_timeout_ms: u64,
    /// Connections open at once; further ones wait in the kernel's backlog.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// How long requests in flight may take after SIGTERM, seconds.
    #[schemars(range(min = 0, max = 600))]
    pub drain_s: u64,
    /// Threads that serve the listener; 0 means one per core.
    #[schemars(range(min = 0, max = 1024))]
    pub worker_threads: u32,
    /// Addresses of load balancers in front of this listener, as in "10.0.0.7" or "10.0.0.0/24". A connection from one of them has to
    /// begin with a PROXY header of version 2, whose source is the one that limits and records know; nobody else's is read.
    pub proxy_protocol_from: Vec<String>,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8443".to_owned(),
            public_url: None,
            handshake_timeout_ms: 5_000,
            header_timeout_ms: 10_000,
            max_connections: 10_000,
            drain_s: 30,
            worker_threads: 0,
            proxy_protocol_from: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Enrollment {
    /// Address and port to listen on. Port 0 lets the system choose.
    pub listen: String,
    /// The https URL under which peers reach this listener, without a path. Derived like
    /// `federation.public_url`.
    pub public_url: Option<String>,
    /// File with the self-signed root of `tls.certificate_file`, PEM, when the chain there does not end with it: peers enroll by
    /// its hash.
    pub root: Option<String>,
    /// As `federation.proxy_protocol_from`, for this listener.
    pub proxy_protocol_from: Vec<String>,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8444".to_owned(),
            public_url: None,
            root: None,
            proxy_protocol_from: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Session {
    /// Path of the unix socket; `<data_dir>/session.sock` when absent.
    pub socket: Option<String>,
    /// Loopback address and port for programs that cannot use the socket; off when absent.
    pub listen: Option<String>,
    /// Local users by numeric uid: a process with that uid needs no session token on the socket.
    pub users: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    /// Path of the unix socket (mode 0600); `<data_dir>/admin.sock` when absent.
    pub socket: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ops {
    /// Address and port of `/metrics`, `/livez` and `/readyz`. No authentication: keep it private.
    pub listen: String,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9464".to_owned(),
        }
    }
}

/// How the gateway is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The REST interface of an unchanged Mosaic gateway.
    Mosaic,
    /// A gateway with the narrow read-only interface under `/internal/v1`.
    #[serde(rename = "internal-v1")]
    InternalV1,
    /// As described by `[mapping.*]` in the policy files.
    Mapped,
}

impl Preset {
    /// The name as written in the settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mosaic => "mosaic",
            Self::InternalV1 => "internal-v1",
            Self::Mapped => "mapped",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auth {
    /// Each user's own token, registered with `gateway token set`.
    SubjectToken,
    /// One service token, and a signed statement of the subject with each question.
    ServiceToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Assertion {
    /// `X-Mosaic-Assertion`: an EdDSA-signed JWT, valid 30 seconds.
    V1,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gateway {
    /// Origin of the gateway: `http://host:port`, `https://host:port` or `unix:/path`.
    pub url: String,
    /// How it is asked.
    pub preset: Preset,
    /// As whom it is asked.
    pub auth: Auth,
    /// File with the service token; required with `auth = "service_token"`.
    pub service_token_file: Option<String>,
    /// Form of the signed statement; required with `auth = "service_token"`.
    pub assertion: Option<Assertion>,
    /// Audience of the signed statement; required with `auth = "service_token"`.
    pub audience: Option<String>,
    /// Where the public keys of the signed statement are written for the gateway (JWKS, RFC 7517);
    /// required with `auth = "service_token"`.
    pub jwks_file: Option<String>,
    /// How long connecting may take, milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub connect_timeout_ms: u64,
    /// How long the gateway may be silent, milliseconds.
    #[schemars(range(min = 10, max = 300_000))]
    pub read_timeout_ms: u64,
    /// Federated requests that ask the gateway at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_requests: u32,
    /// Federated requests that wait for others to be done with the gateway, at most as long as `connect_timeout_ms`; further ones are
    /// answered 503 `gateway_busy`.
    #[schemars(range(min = 0, max = 100_000))]
    pub max_waiting: u32,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:14242".to_owned(),
            preset: Preset::Mosaic,
            auth: Auth::SubjectToken,
            service_token_file: None,
            assertion: None,
            audience: None,
            jwks_file: None,
            connect_timeout_ms: 2_000,
            read_timeout_ms: 10_000,
            max_requests: 256,
            max_waiting: 256,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    /// Directory whose `*.toml` files are read together, in the order of their names.
    pub dir: String,
    /// Whether changes of the files are put in force as the file system tells of them. They are read every `poll_s` in any case.
    pub watch: bool,
    /// Seconds between two looks at the files that nothing has told of.
    #[schemars(range(min = 1, max = 86_400))]
    pub poll_s: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            dir: "policy.d".to_owned(),
            watch: true,
            poll_s: 10,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Seal {
    /// File with the sealing secret, at least 32 bytes, readable by its owner only.
    pub secret_file: Option<String>,
    /// Name of the environment variable with the sealing secret.
    pub secret_env: Option<String>,
    /// Name of the systemd credential with the sealing secret (`LoadCredential=` or `LoadCredentialEncrypted=`).
    pub secret_credential: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Host names or addresses in the certificate besides those of the public URLs.
    pub server_names: Vec<String>,
    /// File with the certificate chain of both TLS listeners, leaf first, PEM. With it and `key_file` the embedded authority
    /// issues none. Read again when it changes.
    pub certificate_file: Option<String>,
    /// File with the private key of that certificate, PEM, readable by its owner only.
    pub key_file: Option<String>,
    /// File with the roots that peers are to know that certificate by, PEM; the root of the chain when absent.
    pub roots_file: Option<String>,
    /// Name of a JWK provisioner of the step-ca of `[ca]` that the certificate of both TLS listeners comes from, another one than
    /// that for peers. With it the embedded authority issues none. The first start needs the step-ca.
    pub step_ca_provisioner: Option<String>,
    /// File with the private key of that provisioner: a JWK, or one encrypted as JWE.
    pub step_ca_key_file: Option<String>,
    /// File with the password of that key, when it is encrypted.
    pub step_ca_password_file: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ca {
    /// `embedded` keeps its key, sealed, in the database; `step-ca` asks a step-ca over HTTPS, for which the other keys are needed.
    pub backend: CaBackend,
    /// Origin of the step-ca, such as `https://ca.example:9000`.
    pub url: Option<String>,
    /// File with the self-signed root certificate of the step-ca, PEM: the only one its server certificate and those of peers
    /// may lead to.
    pub root_file: Option<String>,
    /// Name of the JWK provisioner; `mosaic-fed` unless set.
    pub provisioner: Option<String>,
    /// File with the private key of the provisioner: a JWK, or one encrypted as JWE.
    pub key_file: Option<String>,
    /// File with the password of an encrypted key.
    pub password_file: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CaBackend {
    #[default]
    Embedded,
    StepCa,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Revocation {
    /// Files with revocation lists, PEM or DER, any number in each; or directories of such files. Looked at twice a second.
    pub files: Vec<String>,
    /// Addresses of revocation lists, such as `https://ca.example/root.crl`.
    pub urls: Vec<String>,
    /// File with the root certificate, PEM, that the servers of `urls` must lead to; `ca.root_file` when absent.
    pub root_file: Option<String>,
    /// File with certificates of issuers that sign lists, PEM: those between the trust anchor and the certificates of peers. They
    /// count only if they lead to the anchor. A step-ca shows its own.
    pub issuers_file: Option<String>,
    /// Whether peers are refused while their authority has no list here; true when `files` or `urls` is set, unless said otherwise.
    pub required: Option<bool>,
    /// Seconds between two readings of an address, and of the list of a step-ca.
    #[schemars(range(min = 1, max = 86_400))]
    pub refresh_s: u64,
    /// For how long a list still counts, loudly, once the next one was due, seconds. After that peers of its issuer are refused.
    #[schemars(range(min = 0, max = 2_592_000))]
    pub grace_s: u64,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            urls: Vec::new(),
            root_file: None,
            issuers_file: None,
            required: None,
            refresh_s: 60,
            grace_s: 86_400,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How long what a subject may natively see is reused before the gateway is asked again, milliseconds; never
    /// longer than `lease.duration_ms`.
    #[schemars(range(min = 0, max = 10_000))]
    pub facts_cache_ms: u64,
    /// Most bytes of one answer to a peer.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub max_answer_bytes: u64,
    /// Most requests of one peer under way at once; further ones are answered 429.
    #[schemars(range(min = 1, max = 10_000))]
    pub peer_concurrency: u32,
    /// Connections that one source address may open in a minute, on each of the two public listeners, in the long run. An IPv6
    /// address counts by its /64. Further ones are closed before TLS.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub handshakes_per_minute: u32,
    /// Connections that one source address may open at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub handshake_burst: u32,
    /// Failed authentications of one source address in a minute, on each of the two public listeners, in the long run. An
    /// address that has used them up is not accepted until the next one is due.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub failed_authentications_per_minute: u32,
    /// Failed authentications of one source address at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failed_authentication_burst: u32,
    /// Rows of one resource that one search looks through; beyond it the answer says that it is truncated.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub search_rows: u32,
    /// How long an enrollment token lives unless told otherwise, seconds.
    #[schemars(range(min = 1, max = 900))]
    pub enrollment_token_ttl_s: u32,
    /// How long an issued client certificate lives, days.
    #[schemars(range(min = 1, max = 825))]
    pub client_certificate_days: u32,
    /// The same in seconds, instead of days. Peers renew by themselves when a third is left, at most seven days before the end.
    #[schemars(range(min = 300, max = 71_280_000))]
    pub client_certificate_s: Option<u32>,
    /// For how long a certificate is good beside the one that took its place, from the first use of that one, seconds.
    #[schemars(range(min = 0, max = 604_800))]
    pub renewal_overlap_s: u32,
    /// Requests to one peer that are out at once; further ones wait for a place within their deadline.
    #[schemars(range(min = 1, max = 10_000))]
    pub peer_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            facts_cache_ms: 2_000,
            max_answer_bytes: 268_435_456,
            peer_concurrency: 32,
            handshakes_per_minute: 600,
            handshake_burst: 200,
            failed_authentications_per_minute: 30,
            failed_authentication_burst: 30,
            search_rows: 20_000,
            enrollment_token_ttl_s: 900,
            client_certificate_days: 90,
            client_certificate_s: None,
            renewal_overlap_s: 3_600,
            peer_requests: 32,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lease {
    /// How long a peer may serve an answer from its cache without asking again, milliseconds. Revoking a grant
    /// waits for the leases that are out, so this is also the longest that a revocation takes.
    #[schemars(range(min = 20, max = 10_000))]
    pub duration_ms: u64,
    /// How long a command that takes something away waits for leases before it reports, as exit status 5, that
    /// the change is committed but not yet effective, milliseconds.
    #[schemars(range(min = 0, max = 60_000))]
    pub wait_ms: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            duration_ms: 2_000,
            wait_ms: 15_000,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Replicas {
    /// What `status` and what waits for this process call it; host name and process id unless set.
    pub name: Option<String>,
    /// How long this process goes on serving without having heard of the store, milliseconds, once others may change what is in
    /// it: always in the federated tier, else while another process has the data directory too. Longer than the
    /// database is ever away, or requests are refused meanwhile; a revocation waits that long for a replica that is silent.
    #[schemars(range(min = 200, max = 60_000))]
    pub fence_ms: u64,
}

impl Default for Replicas {
    fn default() -> Self {
        Self {
            name: None,
            fence_ms: 2_000,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cache {
    /// Most bytes of peers' answers that are kept in memory; 0 switches the cache off.
    #[schemars(range(min = 0, max = 4_294_967_295_u64))]
    pub max_bytes: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: 67_108_864,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// Connecting to a peer, milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub connect_ms: u64,
    /// TLS handshake with a peer, milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub tls_ms: u64,
    /// From the question to the first byte of the answer, milliseconds.
    #[schemars(range(min = 10, max = 300_000))]
    pub first_byte_ms: u64,
    /// From the question to the end of the answer, milliseconds.
    #[schemars(range(min = 10, max = 600_000))]
    pub total_ms: u64,
    /// How long peers may take when all sources are asked at once (`source = "all"`), milliseconds; a later one is
    /// left out of the answer.
    #[schemars(range(min = 10, max = 600_000))]
    pub fanout_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_ms: 2_000,
            tls_ms: 3_000,
            first_byte_ms: 10_000,
            total_ms: 30_000,
            fanout_ms: 2_000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnExhausted {
    /// A request that cannot be recorded is refused with 503.
    Refuse,
    /// A request that cannot be recorded is answered, and counted as not recorded.
    Drop,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// Directory of the journal and of the checkpoints; `<data_dir>/audit` when absent. Created with mode 0700.
    pub dir: Option<String>,
    /// Size of the journal, which is taken from the disk at start, bytes. It holds what the database does not
    /// have yet: about 500 bytes a request while the database is away.
    #[schemars(range(min = 1_048_576, max = 4_294_967_296_u64))]
    pub journal_bytes: u64,
    /// What happens to a request that cannot be recorded because the journal is full or failing.
    pub on_exhausted: OnExhausted,
    /// How often the head of the chain is signed and kept beside the journal, seconds.
    #[schemars(range(min = 1, max = 3600))]
    pub checkpoint_s: u32,
    /// After how many days rows are moved from the database into compressed files, once a day; 0 leaves them in the
    /// database until `audit archive` is told to move them.
    #[schemars(range(min = 0, max = 36_500))]
    pub archive_after_days: u32,
    /// Directory of those files; `<audit.dir>/archive` when absent. Created with mode 0700.
    pub archive_dir: Option<String>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            dir: None,
            journal_bytes: 67_108_864,
            on_exhausted: OnExhausted::Refuse,
            checkpoint_s: 60,
            archive_after_days: 90,
            archive_dir: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Breaker {
    /// Failures in a row that open a peer's breaker. Half of the last 20 failing opens it too.
    #[schemars(range(min = 1, max = 1_000))]
    pub failures: u32,
    /// How long it stays open the first time, milliseconds; doubled with each probe that fails.
    #[schemars(range(min = 10, max = 600_000))]
    pub open_ms: u64,
    /// What the doubling ends at, milliseconds.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub open_max_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open_ms: 15_000,
            open_max_ms: 120_000,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RevocationCanary {
    /// Between two rounds, seconds, at least 60; 0 switches it off. A round enrolls a grant that opens nothing, asks with it,
    /// revokes it, and fails loudly if anything is answered afterwards.
    #[schemars(range(min = 0, max = 86_400))]
    pub every_s: u32,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Otlp {
    /// Origin of the collector, `http://host:port` or `https://host:port`; `/v1/traces` and `/v1/metrics` are added. Off when absent.
    pub endpoint: Option<String>,
    /// File with the root certificates that the chain of an https collector must lead to, PEM.
    pub root_file: Option<String>,
    /// File with the value of the `Authorization` header, as in `Bearer ...`. Only over https or to a loopback address.
    pub authorization_file: Option<String>,
    /// Send a span for each request.
    pub traces: bool,
    /// Of a hundred requests that no local caller's trace decides on, how many have their span recorded. What a peer has decided is
    /// never taken over.
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: u8,
    /// Continue the trace that a peer names, instead of linking it: for sides that belong to the same people, since the id of a trace
    /// then decides on both whether it is recorded.
    pub join_peers: bool,
    /// Send the metrics that `/metrics` shows.
    pub metrics: bool,
    /// Between two sendings of the metrics, seconds.
    #[schemars(range(min = 1, max = 3_600))]
    pub metrics_every_s: u32,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            root_file: None,
            authorization_file: None,
            traces: true,
            sample_percent: 100,
            join_peers: false,
            metrics: true,
            metrics_every_s: 60,
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The least severe line that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Only what needs an operator.
    Error,
    /// Also what may come to need one.
    Warn,
    /// Also what happened.
    Info,
    /// Also how.
    Debug,
    /// Everything.
    Trace,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least severe line that is written.
    pub level: LogLevel,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
        }
    }
}

/// How far the process is confined to the files it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LandlockMode {
    /// Not at all.
    Off,
    /// As far as the kernel can; `status` and `doctor` say how far.
    BestEffort,
    /// Wholly, or the start is refused.
    Required,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hardening {
    /// Confinement to the data directory, sockets, policy and what resolving names takes (Landlock).
    pub landlock: LandlockMode,
}

impl Default for Hardening {
    fn default() -> Self {
        Self {
            landlock: LandlockMode::BestEffort,
        }
    }
}
