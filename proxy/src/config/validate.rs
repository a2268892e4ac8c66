//! What the values mean, and which go together.
//!
//! Invariant: every relation between keys is checked here, once, and all of it even when the first check
//! fails; a problem points at the place of the key that has to change.

mod authority;
mod database;
mod doors;
mod gateway;
mod otlp;
mod revocation;
mod seal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::rate::Rate;
use serde_json::Value;

use super::problem::{ConfigProblem, Source};
use super::settings::{self, Settings};
use super::tree::Tree;
use super::url::PublicUrl;
use super::{
    Admin, Audit, Breaker, Cache, Config, Enrollment, Federation, IpRange, Lease, Limits, Log, Ops,
    Policy, Replicas, Roles, Timeouts, Tls, TlsFiles,
};

/// The least time between two rounds of the revocation canary, seconds.
const CANARY_LEAST_S: u32 = 60;
/// The longest path a unix socket can have, bytes, without the closing zero (`sun_path` on Linux).
const SOCKET_PATH_MAX: usize = 107;

/// The settings of a merged tree. `base` is the directory of the settings file: relative paths written there,
/// and defaults, are relative to it; those from environment and flags to the working directory.
pub(super) fn config(tree: Tree<'_>, base: &Path) -> Result<Config, Vec<ConfigProblem>> {
    let Tree {
        values,
        sources,
        mut problems,
        ..
    } = tree;
    let settings: Settings = match serde_json::from_value(Value::Object(values)) {
        Ok(settings) => settings,
        Err(error) => {
            problems.push(ConfigProblem {
                source: Source::Default,
                key: String::new(),
                message: format!("the settings cannot be read: {error}"),
                hint: None,
            });
            return Err(problems);
        }
    };
    // The variable that holds the sealing secret may carry our prefix without being a key.
    let sealing = settings.seal.secret_env.clone();
    // So may the one with the secret that is to follow.
    let following = sealing.as_ref().map(|name| format!("{name}_NEXT"));
    problems.retain(|problem| !matches!(&problem.source, Source::Environment(name) if Some(name) == sealing.as_ref() || Some(name) == following.as_ref()));
    let mut check = Check {
        base,
        sources: &sources,
        problems,
    };
    let config = check.whole(settings);
    match (config, check.problems.is_empty()) {
        (Some(config), true) => Ok(config),
        _ => {
            check.problems.sort_by_key(|problem| place(&problem.source));
            Err(check.problems)
        }
    }
}

fn place(source: &Source) -> (u8, usize, usize) {
    match source {
        Source::File { line, column, .. } => (0, *line, *column),
        Source::Environment(_) => (1, 0, 0),
        Source::Flag(_) => (2, 0, 0),
        Source::Default => (3, 0, 0),
    }
}

struct Check<'a> {
    base: &'a Path,
    sources: &'a BTreeMap<String, Source>,
    problems: Vec<ConfigProblem>,
}

impl Check<'_> {
    /// `None` only together with at least one problem.
    fn whole(&mut self, settings: Settings) -> Option<Config> {
        let data_dir = self.path("data_dir", &settings.data_dir);
        let tier = self.tier(settings.tier, settings.database, &settings.valkey);
        let roles = self.roles(&settings.roles);
        let federation = self.federation(&settings.federation, roles);
        let enrollment = self.enrollment(&settings.enrollment, roles);
        let files = self.tls_files(&settings.tls, settings.enrollment.root.as_deref());
        let step = self.tls_step(&settings.tls, &settings.ca, roles.serve);
        let session = self.session(settings.session, &data_dir);
        let admin_socket = self.socket(
            "admin.socket",
            settings.admin.socket,
            &data_dir,
            "admin.sock",
        );
        let ops = self.address("ops.listen", &settings.ops.listen);
        let gateway = self.gateway(settings.gateway);
        let seal = self.seal(settings.seal, &data_dir);
        let ca = self.ca(&settings.ca);
        let has_root = settings.ca.root_file.is_some();
        let revocation = self.revocation(&settings.revocation, has_root, roles);
        let policy_dir = self.path("policy.dir", &settings.policy.dir);
        self.timeouts(&settings.timeouts);
        let audit = self.audit(&settings.audit, &data_dir);
        let replicas = self.replicas(settings.replicas);
        self.breaker(&settings.breaker);
        let revocation_canary = self.revocation_canary(&settings.revocation_canary, roles);
        let otlp = self.otlp(&settings.otlp);
        self.client_certificate(&settings.limits);
        let (federation, enrollment, session) = (federation?, enrollment?, session?);
        let (ops, gateway, seal, ca) = (ops?, gateway?, seal?, ca?);
        let tier = tier?;
        let revocation = revocation?;
        self.listeners_apart(&[
            (
                "federation.listen",
                roles.serve.then_some(federation.listen),
            ),
            (
                "enrollment.listen",
                roles.serve.then_some(enrollment.listen),
            ),
            ("session.listen", session.listen.filter(|_| roles.ask)),
            ("ops.listen", Some(ops)),
        ]);
        let tls = Tls {
            files,
            step,
            ..self.tls(
                settings.tls,
                [&federation.public_url, &enrollment.public_url],
            )
        };
        if session.socket == admin_socket {
            let message = "is the same socket as admin.socket".to_owned();
            self.add(
                "session.socket",
                message,
                "give each door a path of its own",
            );
        }
        Some(Config {
            data_dir,
            tier,
            roles,
            federation,
            enrollment,
            session,
            admin: Admin {
                socket: admin_socket,
            },
            ops: Ops { listen: ops },
            gateway,
            policy: Policy {
                dir: policy_dir,
                watch: settings.policy.watch,
                poll: Duration::from_secs(settings.policy.poll_s),
            },
            seal,
            tls,
            ca,
            revocation,
            limits: limits(&settings.limits, &settings.lease),
            lease: lease(&settings.lease),
            replicas,
            cache: Cache {
                max_bytes: usize::try_from(settings.cache.max_bytes).unwrap_or(usize::MAX),
            },
            timeouts: timeouts(&settings.timeouts),
            audit,
            breaker: breaker(&settings.breaker),
            revocation_canary,
            otlp,
            log: Log {
                format: settings.log.format,
                level: settings.log.level,
            },
            landlock: settings.hardening.landlock,
        })
    }

    fn client_certificate(&mut self, limits: &settings::Limits) {
        let days = self.sources.contains_key("limits.client_certificate_days");
        if days && limits.client_certificate_s.is_some() {
            self.add(
                "limits.client_certificate_s",
                "the life of client certificates is given twice".to_owned(),
                "keep this key or client_certificate_days",
            );
        }
    }

    fn roles(&mut self, roles: &settings::Roles) -> Roles {
        if !roles.serve && !roles.ask {
            self.add(
                "roles.serve",
                "both roles are off".to_owned(),
                "turn `serve` or `ask` on",
            );
        }
        Roles {
            serve: roles.serve,
            ask: roles.ask,
        }
    }

    fn federation(&mut self, section: &settings::Federation, roles: Roles) -> Option<Federation> {
        let listen = self.address("federation.listen", &section.listen);
        let public_url = self.public_url(
            "federation.public_url",
            section.public_url.as_deref(),
            listen,
            roles,
        );
        Some(Federation {
            listen: listen?,
            public_url,
            handshake_timeout: Duration::from_millis(section.handshake_timeout_ms),
            header_timeout: Duration::from_millis(section.header_timeout_ms),
            max_connections: count(section.max_connections),
            drain: Duration::from_secs(section.drain_s),
            worker_threads: count(section.worker_threads),
            balancers: self.ranges(
                "federation.proxy_protocol_from",
                &section.proxy_protocol_from,
                roles,
            ),
        })
    }

    fn enrollment(&mut self, section: &settings::Enrollment, roles: Roles) -> Option<Enrollment> {
        let listen = self.address("enrollment.listen", &section.listen);
        let public_url = self.public_url(
            "enrollment.public_url",
            section.public_url.as_deref(),
            listen,
            roles,
        );
        Some(Enrollment {
            listen: listen?,
            public_url,
            balancers: self.ranges(
                "enrollment.proxy_protocol_from",
                &section.proxy_protocol_from,
                roles,
            ),
        })
    }

    /// The ranges that parse; each other one is a problem.
    fn ranges(&mut self, key: &str, written: &[String], roles: Roles) -> Vec<IpRange> {
        if !written.is_empty() && !roles.serve {
            let message = "has no effect without roles.serve: nothing listens there".to_owned();
            self.add(key, message, "remove it, or switch roles.serve on");
        }
        let mut ranges = Vec::with_capacity(written.len());
        for text in written {
            match IpRange::parse(text) {
                Ok(range) => ranges.push(range),
                Err(why) => {
                    let message = format!("\"{}\" {why}", text.escape_debug());
                    self.add(key, message, "write an address, or a range as 10.0.0.0/24");
                }
            }
        }
        ranges
    }

    /// `None` when it is not needed, or is a problem.
    fn public_url(
        &mut self,
        key: &str,
        text: Option<&str>,
        listen: Option<SocketAddr>,
        roles: Roles,
    ) -> Option<PublicUrl> {
        if let Some(text) = text {
            return match PublicUrl::parse(text) {
                Ok(url) => Some(url),
                Err(message) => {
                    self.add(key, message, "write it as https://host:port");
                    None
                }
            };
        }
        match listen {
            Some(address) if address.ip().is_loopback() => Some(PublicUrl::of_address(address)),
            Some(_) if roles.serve => {
                let message =
                    "is required when the listener is not on a loopback address".to_owned();
                self.add(
                    key,
                    message,
                    "set it to the URL peers reach this server by, as https://host:port",
                );
                None
            }
            _ => None,
        }
    }

    fn tls(&mut self, section: settings::Tls, urls: [&Option<PublicUrl>; 2]) -> Tls {
        let mut server_names: Vec<String> = Vec::new();
        for name in urls
            .into_iter()
            .flatten()
            .map(|url| url.host().to_owned())
            .chain(section.server_names)
        {
            let name = name.to_ascii_lowercase();
            if rustls_pki_types::ServerName::try_from(name.as_str()).is_err() {
                let message = format!(
                    "\"{}\" is neither a host name nor an address",
                    name.escape_debug()
                );
                self.add(
                    "tls.server_names",
                    message,
                    "write names without port or scheme",
                );
            } else if !server_names.contains(&name) {
                server_names.push(name);
            }
        }
        Tls {
            server_names,
            files: None,
            step: None,
        }
    }

    /// Certificate and key go together; what only goes with them has no effect alone.
    fn tls_files(&mut self, section: &settings::Tls, root: Option<&str>) -> Option<TlsFiles> {
        match (&section.certificate_file, &section.key_file) {
            (Some(certificate), Some(key)) => {
                let mut optional =
                    |name: &str, file: Option<&str>| file.map(|file| self.path(name, file));
                let (roots, root) = (
                    optional("tls.roots_file", section.roots_file.as_deref()),
                    optional("enrollment.root", root),
                );
                Some(TlsFiles {
                    certificate: self.path("tls.certificate_file", certificate),
                    key: self.path("tls.key_file", key),
                    roots,
                    root,
                })
            }
            (None, None) => {
                for (key, is_set) in [
                    ("tls.roots_file", section.roots_file.is_some()),
                    ("enrollment.root", root.is_some()),
                ] {
                    if is_set {
                        let message = "has no effect without tls.certificate_file".to_owned();
                        self.add(key, message, "remove it, or name certificate and key");
                    }
                }
                None
            }
            (Some(_), None) => {
                let message = "is set without tls.key_file".to_owned();
                self.add("tls.certificate_file", message, "name both, or neither");
                None
            }
            (None, Some(_)) => {
                let message = "is set without tls.certificate_file".to_owned();
                self.add("tls.key_file", message, "name both, or neither");
                None
            }
        }
    }

    fn timeouts(&mut self, section: &settings::Timeouts) {
        for (key, value) in [
            ("timeouts.connect_ms", section.connect_ms),
            ("timeouts.tls_ms", section.tls_ms),
            ("timeouts.first_byte_ms", section.first_byte_ms),
            ("timeouts.fanout_ms", section.fanout_ms),
        ] {
            if value > section.total_ms {
                let message = format!(
                    "{value} is longer than timeouts.total_ms = {}",
                    section.total_ms
                );
                self.add(
                    key,
                    message,
                    "the total would end it first: lower it or raise the total",
                );
            }
        }
    }

    fn audit(&mut self, section: &settings::Audit, data_dir: &Path) -> Audit {
        let dir = match &section.dir {
            Some(text) => self.path("audit.dir", text),
            None => data_dir.join("audit"),
        };
        let days = u64::from(section.archive_after_days);
        Audit {
            archive_dir: match &section.archive_dir {
                Some(text) => self.path("audit.archive_dir", text),
                None => dir.join("archive"),
            },
            archive_after: (days > 0).then(|| Duration::from_secs(days * 86_400)),
            dir,
            journal_bytes: section.journal_bytes,
            refuse_unrecorded: section.on_exhausted == settings::OnExhausted::Refuse,
            checkpoint: Duration::from_secs(section.checkpoint_s.into()),
        }
    }

    fn breaker(&mut self, section: &settings::Breaker) {
        if section.open_ms > section.open_max_ms {
            let message = format!(
                "{} is longer than breaker.open_max_ms = {}",
                section.open_ms, section.open_max_ms
            );
            self.add("breaker.open_ms", message, "lower it or raise the maximum");
        }
    }

    fn revocation_canary(
        &mut self,
        section: &settings::RevocationCanary,
        roles: Roles,
    ) -> Option<Duration> {
        let key = "revocation_canary.every_s";
        let every = section.every_s;
        if (1..CANARY_LEAST_S).contains(&every) {
            let message = format!("{every} s is too often: each round is a change of the store");
            self.add(key, message, "use 60 or more, or 0 to switch it off");
        }
        if every > 0 && !roles.serve {
            let message = "needs roles.serve: this process answers nobody".to_owned();
            self.add(key, message, "set it to 0 or switch roles.serve on");
        }
        (every > 0).then(|| Duration::from_secs(every.into()))
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let message = format!("\"{}\" is not an address with a port", text.escape_debug());
            self.add(key, message, "write it as 127.0.0.1:8443 or [::1]:8443");
        }
        parsed
    }

    fn socket(
        &mut self,
        key: &str,
        written: Option<String>,
        data_dir: &Path,
        name: &str,
    ) -> PathBuf {
        let path = written.map_or_else(|| data_dir.join(name), |text| self.path(key, &text));
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let message = format!(
                "{} has {length} bytes; a unix socket path has at most {SOCKET_PATH_MAX}",
                path.display()
            );
            self.add(key, message, "choose a shorter path or a shorter data_dir");
        }
        path
    }

    fn replicas(&mut self, section: settings::Replicas) -> Replicas {
        let name = section.name.filter(|name| {
            let fits =
                (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
            if !fits {
                let message =
                    "is not a name of 1 to 100 printable characters without spaces".to_owned();
                self.add("replicas.name", message, "choose another, or leave it out");
            }
            fits
        });
        Replicas {
            name,
            fence: Duration::from_millis(section.fence_ms),
        }
    }

    fn path(&mut self, key: &str, text: &str) -> PathBuf {
        if text.is_empty() || text.contains('\0') {
            self.add(key, "is not a path".to_owned(), "name a file or directory");
        }
        match self.sources.get(key) {
            Some(Source::Environment(_) | Source::Flag(_)) => PathBuf::from(text),
            _ => self.base.join(text),
        }
    }

    fn add(&mut self, key: &str, message: String, hint: &str) {
        self.problems.push(ConfigProblem {
            source: self.sources.get(key).cloned().unwrap_or(Source::Default),
            key: key.to_owned(),
            message,
            hint: Some(hint.to_owned()),
        });
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A rate of figures whose bounds the schema has checked.
fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate::new(per_minute, burst).unwrap_or(Rate::DEFAULT)
}

fn lease(section: &settings::Lease) -> Lease {
    Lease {
        duration: Duration::from_millis(section.duration_ms),
        wait: Duration::from_millis(section.wait_ms),
    }
}

fn limits(section: &settings::Limits, lease: &settings::Lease) -> Limits {
    Limits {
        // Changes inside the gateway take effect within one lease (the specification, section 5).
        facts_cache: Duration::from_millis(section.facts_cache_ms.min(lease.duration_ms)),
        max_answer_bytes: section.max_answer_bytes,
        peer_concurrency: section.peer_concurrency,
        handshakes: rate(section.handshakes_per_minute, section.handshake_burst),
        failed_authentications: rate(
            section.failed_authentications_per_minute,
            section.failed_authentication_burst,
        ),
        search_rows: section.search_rows,
        enrollment_token_ttl: Duration::from_secs(section.enrollment_token_ttl_s.into()),
        client_certificate: Duration::from_secs(section.client_certificate_s.map_or_else(
            || u64::from(section.client_certificate_days) * 86_400,
            u64::from,
        )),
        renewal_overlap: Duration::from_secs(section.renewal_overlap_s.into()),
        peer_requests: count(section.peer_requests),
    }
}

fn timeouts(section: &settings::Timeouts) -> Timeouts {
    Timeouts {
        connect: Duration::from_millis(section.connect_ms),
        tls: Duration::from_millis(section.tls_ms),
        first_byte: Duration::from_millis(section.first_byte_ms),
        total: Duration::from_millis(section.total_ms),
        fanout: Duration::from_millis(section.fanout_ms),
    }
}

fn breaker(section: &settings::Breaker) -> Breaker {
    Breaker {
        failures: section.failures,
        open: Duration::from_millis(section.open_ms),
        open_max: Duration::from_millis(section.open_max_ms),
    }
}
