//! A serving side: reference gateway, sidecar, and the keys of its authority.
//!
//! Invariant: the sidecar is the product's, started by the function that `serve` uses; what a test
//! knows more than a peer could is only the authority's key, put into the store before the start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::ca::CaMaterial;
use certs::testing::{ManualClock, Mint, TestCa};
use certs::{Clock, SealPurpose, SystemClock};
use policy::time::UnixMillis;
use proxy::admin::Control;
use proxy::app::{Circumstances, Running, StartError, secrets};
use proxy::config::Config;
use proxy::store::{Act, Actor, SealedSecret, SecretPurpose};
use reference_gateway::authenticate::{Service, unix_seconds};
use reference_gateway::store::seed::Data;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use uuid::Uuid;

use crate::database;
use crate::gateway::GatewayProcess;
use crate::replicas::{Balancer, Beside};
use crate::valkey::ManualValkey;

/// A policy under which the five ordinary resources are open, two fields of a task are removed, and no test that is not about
/// rates meets one.
pub const POLICY: &str = r#"
schema = 1
[ceiling]
resources = ["tasks", "notes", "memory", "projects", "missions"]
max_rows_per_query = 10000
rate_limit = { per_minute = 1000000, burst = 100000 }
[redaction]
fields.tasks = ["internalNote", "meta.cost"]
"#;

/// Leases so short that a revocation soon after the start does not wait for long, and so long that a busy machine
/// passes answers on within three quarters of one.
pub const LEASE: &str = "duration_ms = 1000";

/// A serving side in the making.
#[derive(Debug)]
pub struct WorldBuilder {
    data: Data,
    preset: String,
    policy: String,
    manual: bool,
    own_limits: bool,
    alone: bool,
    federation: String,
    enrollment: String,
    gateway: String,
    service: bool,
    lease: String,
    policy_lines: String,
    roles: &'static str,
    settings: String,
    ca: Option<TestCa>,
}

impl WorldBuilder {
    /// The gateway's data; the plan unless told otherwise.
    #[must_use]
    pub fn data(mut self, data: Data) -> Self {
        self.data = data;
        self
    }

    /// How the gateway is asked: `internal-v1` (unless told otherwise) or `mosaic`.
    #[must_use]
    pub fn preset(mut self, preset: &str) -> Self {
        preset.clone_into(&mut self.preset);
        self
    }

    /// The text of the one policy file; [`POLICY`] unless told otherwise.
    #[must_use]
    pub fn policy(mut self, text: &str) -> Self {
        text.clone_into(&mut self.policy);
        self
    }

    /// Has no replicas beside it, also where several are asked for: what is tested is what one process keeps to itself.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The sidecar's time moves only when told to: see [`World::clock`].
    #[must_use]
    pub fn manual_clock(mut self) -> Self {
        self.manual = true;
        self
    }

    /// The same, and the limits of grants go by that time too, as [`World::pass`] moves it: on PostgreSQL they are kept in a
    /// Valkey of its own. Where there can be none, which [`missing`](crate::valkey::missing) says, it does not start.
    #[must_use]
    pub fn manual_limits(mut self) -> Self {
        self.own_limits = true;
        self.manual_clock()
    }

    /// More lines of the section `[federation]`.
    #[must_use]
    pub fn federation(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.federation);
        self
    }

    /// More lines of the section `[enrollment]`.
    #[must_use]
    pub fn enrollment(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.enrollment);
        self
    }

    /// More lines of the section `[gateway]`.
    #[must_use]
    pub fn gateway(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.gateway);
        self
    }

    /// The gateway is asked with one service token and a signed statement of the subject.
    #[must_use]
    pub fn service_token(mut self) -> Self {
        self.service = true;
        self
    }

    /// The lines of the section `[lease]`; leases of [`LEASE`] unless told otherwise.
    #[must_use]
    pub fn lease(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.lease);
        self
    }

    /// How the policy files are looked after; unless told otherwise not at all, so that a test decides when they are read.
    #[must_use]
    pub fn policy_lines(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.policy_lines);
        self
    }

    /// It also asks: its own gateway and its peers, through a session door on the unix socket and on TCP.
    #[must_use]
    pub fn asks(mut self) -> Self {
        self.roles = "ask = true";
        self.settings
            .push_str("[session]\nlisten = \"127.0.0.1:0\"\n");
        self
    }

    /// It only asks, and serves nobody.
    #[must_use]
    pub fn asks_only(mut self) -> Self {
        self = self.asks();
        self.roles = "serve = false";
        self
    }

    /// With this root as its authority.
    #[must_use]
    pub fn authority(mut self, ca: &TestCa) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// More settings: whole sections of `federation.toml` other than those the harness writes
    /// (`roles`, `federation`, `enrollment`, `ops`, `gateway`, `policy`, `lease`).
    #[must_use]
    pub fn settings(mut self, text: &str) -> Self {
        self.settings.push_str(text);
        self
    }

    /// Starts gateway and sidecar.
    pub async fn start(self) -> World {
        let dir = tempfile::tempdir().unwrap();
        let service = self.service.then(|| service(dir.path()));
        let gateway = GatewayProcess::start(dir.path(), self.data, service).await;
        let policy_dir = dir.path().join("policy.d");
        std::fs::create_dir(&policy_dir).unwrap();
        std::fs::write(policy_dir.join("policy.toml"), &self.policy).unwrap();
        let now = SystemClock.unix_millis();
        let valkey = if self.own_limits && database::is_postgres() {
            Some(ManualValkey::start(now).await)
        } else {
            None
        };
        let url = valkey.as_ref().map(ManualValkey::url);
        let (tier, servers) = database::settings(dir.path(), url);
        let replicas = if self.manual {
            database::FENCE_BY_HAND
        } else {
            ""
        };
        let file = dir.path().join("federation.toml");
        let serves = self.roles != "serve = false";
        let mut beside = if serves && !self.alone {
            Beside::expected(file.clone()).await
        } else {
            None
        };
        let public = |balancer: &Balancer, lines: &str| {
            let url = format!("public_url = \"https://{}\"", balancer.address);
            if lines.contains("public_url") {
                String::new()
            } else {
                url
            }
        };
        let (at_federation, at_enrollment) = match &beside {
            Some(beside) => (
                public(&beside.federation, &self.federation),
                public(&beside.enrollment, &self.enrollment),
            ),
            None => (String::new(), String::new()),
        };
        let settings = format!(
            "data_dir = \"data\"\n{tier}\
             {servers}{replicas}\
             [roles]\n{}\n\
             [federation]\nlisten = \"127.0.0.1:0\"\ndrain_s = 1\n{at_federation}\n{}\n\
             [enrollment]\nlisten = \"127.0.0.1:0\"\n{at_enrollment}\n{}\n\
             [ops]\nlisten = \"127.0.0.1:0\"\n\
             [gateway]\nurl = \"{}\"\npreset = \"{}\"\n{}\n{}\n\
             [policy]\ndir = \"policy.d\"\n{}\n\
             [lease]\n{}\n{}",
            self.roles,
            self.federation,
            self.enrollment,
            gateway.url(),
            self.preset,
            self.gateway,
            if self.service { SERVICE_KEYS } else { "" },
            self.policy_lines,
            self.lease,
            with_room(&self.settings)
        );
        std::fs::write(&file, &settings).unwrap();
        let config = Arc::new(configuration(file, &settings));
        let manual = self.manual.then(|| Arc::new(ManualClock::at_millis(now)));
        let ca = self.ca.unwrap_or_else(|| TestCa::root("work authority"));
        plant_authority(&config, &ca, now).await;
        // Boxed: a test that holds several of them would need a larger stack.
        let start = Box::pin(proxy::app::start(
            Arc::clone(&config),
            clock(manual.as_ref()),
        ));
        let sidecar = start.await.unwrap();
        if let Some(beside) = &mut beside {
            let clock = || clock(manual.as_ref());
            beside.start(&sidecar, clock, Circumstances::PART).await;
        }
        let world = World {
            gateway,
            sidecar,
            ca,
            config,
            manual,
            valkey,
            beside,
            dir,
        };
        if world.manual.is_some() {
            // Past the longest lease that an earlier process might have given: acts would wait for a clock that stands.
            world.pass(std::time::Duration::from_secs(10)).await;
        }
        world
    }
}

/// Limits of peers and source addresses that no test meets that is not about them: there is mostly one of each.
const ROOM: [(&str, u32); 5] = [
    ("peer_concurrency", 10_000),
    ("handshakes_per_minute", 1_000_000),
    ("handshake_burst", 100_000),
    ("failed_authentications_per_minute", 1_000_000),
    ("failed_authentication_burst", 100_000),
];

/// Settings with [`ROOM`] for what they do not say themselves.
fn with_room(settings: &str) -> String {
    let missing: String = ROOM
        .iter()
        .filter(|(key, _)| !settings.contains(key))
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    let section = "[limits]\n";
    if settings.contains(section) {
        settings.replacen(section, &format!("{section}{missing}"), 1)
    } else {
        format!("{settings}\n{section}{missing}")
    }
}

/// Keys of `[gateway]` for a service token.
const SERVICE_KEYS: &str = r#"auth = "service_token"
service_token_file = "service-token"
assertion = "v1"
audience = "work-gateway"
jwks_file = "jwks.json""#;

/// The service that a gateway in `dir` knows, its token written where the sidecar looks for it.
fn service(dir: &Path) -> Service {
    let token = "one-token-for-the-service";
    std::fs::write(dir.join("service-token"), token).unwrap();
    let (audience, jwks) = ("work-gateway".to_owned(), dir.join("jwks.json"));
    Service::new(token.to_owned(), audience, jwks, unix_seconds)
}

fn clock(manual: Option<&Arc<ManualClock>>) -> Arc<dyn Clock> {
    match manual {
        Some(manual) => Arc::clone(manual) as Arc<dyn Clock>,
        None => Arc::new(SystemClock),
    }
}

/// Settings as they would be read from a file at `path`.
#[must_use]
pub fn configuration(path: PathBuf, text: &str) -> Config {
    proxy::config::parse(Some((&path, text)), &[], &[])
        .unwrap_or_else(|problems| panic!("{problems:?}\n{text}"))
}

/// Puts the authority into the store before the sidecar would make its own.
async fn plant_authority(config: &Config, ca: &TestCa, now: i64) {
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let sealer = secrets::sealer(&config.seal).unwrap();
    let plain = CaMaterial::encode(ca.root_der(), &ca.private_key()).unwrap();
    let id = "embedded";
    let sealed = sealer.seal(SealPurpose::CaKey, id, &plain).unwrap();
    let now = UnixMillis(now);
    let store = proxy::tier::open_store(config, now).await.unwrap();
    let act = Act {
        id: Uuid::now_v7(),
        actor: Actor::Sidecar("test"),
        now,
    };
    let secret = SealedSecret {
        purpose: SecretPurpose::CaKey,
        id: id.to_owned(),
        generation: 1,
        sealed,
    };
    let planted = store.put_secret_if_absent(&act, secret).await.unwrap();
    assert!(planted.changed);
}

/// A serving side that runs.
pub struct World {
    /// Its gateway.
    pub gateway: GatewayProcess,
    /// The sidecar.
    pub sidecar: Running,
    /// Its authority: root of its own server certificate and of everything it issues.
    pub ca: TestCa,
    /// Its settings.
    pub config: Arc<Config>,
    manual: Option<Arc<ManualClock>>,
    /// Where the limits of grants go by the clock that is moved.
    valkey: Option<ManualValkey>,
    /// Its other replicas, where several were asked for.
    pub beside: Option<Beside>,
    /// Settings, policy and databases.
    pub dir: TempDir,
}

impl World {
    /// A serving side in the making.
    #[must_use]
    pub fn builder() -> WorldBuilder {
        WorldBuilder {
            data: Data::Plan,
            preset: "internal-v1".to_owned(),
            policy: POLICY.to_owned(),
            manual: false,
            own_limits: false,
            alone: false,
            federation: String::new(),
            enrollment: String::new(),
            gateway: String::new(),
            service: false,
            lease: LEASE.to_owned(),
            policy_lines: "watch = false\npoll_s = 86400".to_owned(),
            roles: "ask = false",
            settings: String::new(),
            ca: None,
        }
    }

    /// The usual one: plan data, preset `internal-v1`, [`POLICY`], the system's clock.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// What operators do.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.sidecar.control
    }

    /// Every replica; mostly there is one.
    pub fn replicas(&self) -> impl Iterator<Item = &Running> {
        let beside = self.beside.iter().flat_map(|beside| &beside.replicas);
        std::iter::once(&self.sidecar).chain(beside)
    }

    /// What operators do, at each replica.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.replicas().map(|replica| &*replica.control)
    }

    /// What the replicas have counted together, by name and labels.
    #[must_use]
    pub fn counted(&self, line: &str) -> u64 {
        let line = format!("mosaic_federation_{line} ");
        let counts = self.replicas().filter_map(|replica| {
            let text = String::from_utf8(replica.metrics.render().unwrap()).unwrap();
            let count = text.lines().find_map(|one| one.strip_prefix(&line))?;
            Some(count.parse::<u64>().unwrap())
        });
        counts
            .reduce(|one, other| one + other)
            .unwrap_or_else(|| panic!("no replica counts {line}"))
    }

    /// Has what is in the store in force at every replica.
    pub async fn refresh(&self) {
        for control in self.controls() {
            control.directory.refresh().await.unwrap();
        }
    }

    /// The clock, when it is a manual one.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        self.manual.as_ref().expect("built with manual_clock()")
    }

    /// Lets time pass, and every replica hear of its store at the new time: it serves nothing before where others may have it too.
    pub async fn pass(&self, time: std::time::Duration) {
        self.clock().advance(time);
        if let Some(valkey) = &self.valkey {
            valkey.advance(time);
        }
        hear(self.controls()).await;
    }

    /// Changes a part of its settings, at every replica, from the next start on.
    pub fn change_settings(&mut self, from: &str, to: &str) {
        let file = self.dir.path().join("federation.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from}: {text}");
        let text = text.replace(from, to);
        std::fs::write(&file, &text).unwrap();
        self.config = Arc::new(configuration(file, &text));
    }

    /// Has it listen where it does now when it is started again. Balancers stay where they are anyway.
    pub fn keep_address(&mut self) {
        if self.beside.is_none() {
            let mut config = Config::clone(&self.config);
            config.federation.listen = self.federation();
            self.config = Arc::new(config);
        }
    }

    /// The same, for another sidecar to go by.
    #[must_use]
    pub fn shared_clock(&self) -> Arc<ManualClock> {
        Arc::clone(self.manual.as_ref().expect("built with manual_clock()"))
    }

    /// Where the federation listener is, or the balancer before those of all replicas.
    #[must_use]
    pub fn federation(&self) -> SocketAddr {
        match &self.beside {
            Some(beside) => beside.federation.address,
            None => self.sidecar.addresses().federation.unwrap(),
        }
    }

    /// Where the enrollment listener is, or the balancer before those of all replicas.
    #[must_use]
    pub fn enrollment(&self) -> SocketAddr {
        match &self.beside {
            Some(beside) => beside.enrollment.address,
            None => self.sidecar.addresses().enrollment.unwrap(),
        }
    }

    /// The root of its server certificate.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.ca.root_der()
    }

    /// A good client certificate in the making, valid by the sidecar's clock.
    #[must_use]
    pub fn mint(&self, grant: Uuid, subject: Uuid) -> Mint {
        Mint::client(grant, subject)
    }

    /// Replaces the policy file, without reloading it.
    pub fn write_policy(&self, text: &str) {
        std::fs::write(self.config.policy.dir.join("policy.toml"), text).unwrap();
    }

    /// Replaces the policy file and reloads it; it must be a good one.
    pub async fn reload_policy(&self, text: &str) {
        self.write_policy(text);
        self.control().reload_policy(&operator()).await.unwrap();
    }

    /// Stops the gateway: nothing answers at its address any more.
    pub async fn stop_gateway(&mut self) {
        self.gateway.stop().await;
    }

    /// Stops the sidecar, every replica of it, and starts it again on what it kept.
    pub async fn restart(self) -> Self {
        self.restart_under(Circumstances::PART).await.unwrap()
    }

    /// The same, under these circumstances.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn restart_under(mut self, circumstances: Circumstances) -> Result<Self, StartError> {
        if let Some(beside) = &mut self.beside {
            beside.stop().await;
        }
        self.sidecar.stop().await.unwrap();
        let clock = || clock(self.manual.as_ref());
        let config = Arc::clone(&self.config);
        let sidecar = Box::pin(proxy::app::start_under(config, clock(), circumstances)).await?;
        if let Some(beside) = &mut self.beside {
            beside.start(&sidecar, clock, circumstances).await;
        }
        Ok(Self { sidecar, ..self })
    }

    /// Stops the sidecar, then the gateway.
    pub async fn stop(mut self) {
        let others = async {
            if let Some(beside) = &mut self.beside {
                beside.stop().await;
            }
        };
        let (stopped, ()) = tokio::join!(self.sidecar.stop(), others);
        stopped.unwrap();
        self.gateway.stop().await;
    }
}

/// Has sidecars whose clock was moved by hand hear of their store, and waits until they serve again.
pub async fn hear(controls: impl Iterator<Item = &Control>) {
    let controls: Vec<_> = controls.collect();
    for control in &controls {
        control.replicas.hear_now();
    }
    for control in controls {
        while control.directory.is_fenced() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// The operator on whose behalf tests act.
#[must_use]
pub const fn operator() -> Actor {
    Actor::Operator { uid: 1000 }
}
