//! The composition root: every part is made here, in the order the others need it.
//!
//! Invariant: nothing listens before everything it needs is in place, and stopping goes the other
//! way round: no new connections, drain, then the audit journal is emptied into the database.

mod archiving;
mod asking;
mod assertion_proof;
mod audit;
mod authority;
mod canary;
mod confinement;
mod listeners;
mod otlp;
mod policy_watch;
mod process;
mod readiness;
mod replicas;
mod revocation;
mod sealing;
pub mod secrets;
mod self_attack;
mod serving;
mod throttle;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::ca::RotatingCa;
use certs::clock::Clock;
use certs::publish::channel;
use certs::{CertificateAuthority, RevokedSet, SealPurpose, Sealer, TrustAnchors};
use http::HeaderValue;
use parking_lot::Mutex;
use policy::id::UserId;
use policy::mapping::Mapping;
use policy::time::UnixMillis;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::admin::{self, Addresses, Archiver, Canary, Control, RESEAL_BATCH, Resealer, Rotation};
use crate::audit::archive::Shelf;
use crate::audit::history::HistoryPublisher;
use crate::audit::{AuditLog, AuditState, AuditWriter, DrainError};
use crate::config::{Config, GatewayAuth, Preset};
use crate::directory::{ApplyError, Directory, DirectoryParts, LeaseTerms};
use crate::gateway::assertion::AssertionSigner;
use crate::gateway::credential::{SubjectCredentials, bearer};
use crate::gateway::facts::FactsCache;
use crate::gateway::{Gateway, GatewayClient, GatewayLimits, Origin, TurnLimits, Turns};
use crate::hand_over::{Leaving, Offered, at_path};
use crate::hardening::Hardening;
use crate::inbound::authenticate::Authenticator;
use crate::inbound::finish::Recorder;
use crate::inbound::renew::{RenewalParts, Renewals};
use crate::inbound::service::{AnswerLimits, Inbound};
use crate::inbound::shadow::PolicyShadow;
use crate::outbound::{Deadlines, OutboundParts, OwnGateway};
use crate::replicas::{Job, MarkError, Rollback};
use crate::server_certificate::{KEPT_CERTIFICATE, KeptCertificate};
use crate::service_manager::Inherited;
use crate::store::{Act, Actor, Store, StoreError};
use crate::telemetry::ops::{self, Readiness as _};
use crate::telemetry::{Metrics, steps};
use crate::tier::{self, TierError};
use crate::transport::{PauseWatch, ServeFence};

use asking::{ask, reaches};
use authority::Authorities;
use listeners::{listen, offer};
use policy_watch::PolicyWatch;
pub use process::{init_authority, run};
use replicas::{Following, Replica};
use revocation::Revocation;
use secrets::Secrets;
pub use self_attack::SelfAttack;
use serving::{Serving, ServingParts, serve, server_certificate};

/// Longest wait for the database to have every audit record at the end.
const AUDIT_DRAIN: Duration = Duration::from_secs(20);

/// For how long a replica that writes down what has expired goes on doing so.
const EXPIRY_TURN: Duration = Duration::from_secs(15);

/// Why the sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory or a socket.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The sealing secret or a sealed secret.
    #[error("{0}")]
    Seal(String),
    /// The journal of the audit log.
    #[error("{0}")]
    Audit(String),
    /// What traces and metrics are sent with.
    #[error("[otlp]: {0}")]
    Otlp(String),
    /// The database, or a server beside it.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The mark of how far the store had got.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The store is older than it was.
    #[error(
        "the store is at revision {found}, but had got to {mark}: an older state was restored, and what was revoked since is back. See docs/runbooks/restore.md; `serve --accept-rollback` starts on it with every peer suspended"
    )]
    RolledBack {
        /// The revision that it has.
        found: u64,
        /// The revision that it had.
        mark: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The policy or the store's content.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Who signs for peers.
    #[error("the certificate authority of [ca]: {0}")]
    Authority(String),
    /// The server certificate.
    #[error("no server certificate: {0}")]
    Certificate(String),
    /// The gateway's settings, or what it proved to be.
    #[error("gateway: {0}")]
    Gateway(String),
    /// The federation listener let an attack of this process through.
    #[error(
        "the federation listener at {address} let through what it must refuse: {through}; nothing is served. See what answers there, and report it: a listener of this program refuses these"
    )]
    SelfAttack {
        /// Where the attack went.
        address: std::net::SocketAddr,
        /// What got through, and what it got.
        through: String,
    },
    /// The server of the shared limits.
    #[error("[valkey] {0}")]
    Limits(String),
    /// A socket handed over by the service manager.
    #[error("{0}")]
    Inherited(String),
    /// A defect of this program.
    #[error("{0}")]
    Internal(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::System {
        what: what.into(),
        source,
    }
}

/// A sidecar that runs.
pub struct Running {
    /// What operators do.
    pub control: Arc<Control>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    replica: Replica,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
    audit: AuditWriter,
    checkpoints: Arc<audit::Checkpoints>,
    telemetry: otlp::Sending,
    offered: Arc<Offered>,
    leaving: Leaving,
}

/// The database did not get every audit record in time; the journal has the rest.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AuditLeft(#[from] DrainError);

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.control.addresses
    }

    /// The listening sockets, for a process that is to take over.
    #[must_use]
    pub fn offered(&self) -> Arc<Offered> {
        Arc::clone(&self.offered)
    }

    /// As [`stop`](Self::stop) when another process has taken over: connections without a request are ended by their next answer
    /// instead of at once.
    ///
    /// # Errors
    /// [`AuditLeft`].
    pub async fn leave(self) -> Result<(), AuditLeft> {
        self.leaving.leave();
        self.stop().await
    }

    /// Stops accepting, drains what is under way, empties the audit journal into the database.
    ///
    /// # Errors
    /// [`AuditLeft`].
    pub async fn stop(mut self) -> Result<(), AuditLeft> {
        self.offered.withdraw();
        let _ = self.stop.send(true);
        while self.listeners.join_next().await.is_some() {}
        self.replica.leave().await;
        let drained = self.audit.drain(AUDIT_DRAIN).await;
        self.checkpoints.keep().await;
        self.telemetry.end().await;
        Ok(drained?)
    }
}

/// What is common to both roles.
struct Base {
    config: Arc<Config>,
    serving_pauses: Arc<PauseWatch>,
    /// Until when this process may answer.
    fence: Arc<ServeFence>,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    metrics: Arc<Metrics>,
    circumstances: Circumstances,
    inherited: Inherited,
    offered: Arc<Offered>,
    leaving: Leaving,
}

/// How a sidecar is started, besides its settings.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// What the process has given up.
    pub hardening: Hardening,
    /// Whether it attacks its own federation listener before it is ready.
    pub self_attack: SelfAttack,
    /// What is done with a store that is older than it was.
    pub rollback: Rollback,
    /// Is told of the steps of renewals.
    pub told: steps::Told,
}

impl Circumstances {
    /// As a part of another process: nothing was given up, nothing is attacked.
    pub const PART: Self = Self {
        hardening: Hardening::NONE,
        self_attack: SelfAttack::Off,
        rollback: Rollback::Refuse,
        told: steps::log,
    };
}

impl Base {
    fn act(&self) -> Act {
        Act {
            id: Uuid::now_v7(),
            actor: Actor::Sidecar("start"),
            now: UnixMillis(self.clock.unix_millis()),
        }
    }
}

/// Starts a sidecar. When this returns, every listener accepts.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: Arc<Config>, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    start_under(config, clock, Circumstances::PART).await
}

/// As [`start`], under these circumstances.
///
/// # Errors
/// As [`start`]; [`StartError::SelfAttack`].
pub async fn start_under(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    circumstances: Circumstances,
) -> Result<Running, StartError> {
    start_with(config, clock, circumstances, Inherited::none()).await
}

/// As [`start_under`], on sockets that were handed over.
///
/// # Errors
/// As [`start_under`]; [`StartError::Inherited`].
pub async fn start_with(
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    circumstances: Circumstances,
    inherited: Inherited,
) -> Result<Running, StartError> {
    make_private_dir(&config.data_dir, "data")?;
    let sealer = Arc::new(secrets::sealer(&config.seal)?);
    let now = UnixMillis(clock.unix_millis());
    let store = tier::open_store(&config, now).await?;
    sealing::settle(&*store, &sealer, &config.seal).await?;
    let metrics = Metrics::new().map_err(|error| StartError::Internal(error.to_string()))?;
    let fence = ServeFence::closed();
    let base = Base {
        store: Arc::clone(&store),
        sealer,
        metrics: Arc::new(metrics),
        serving_pauses: PauseWatch::fenced(Arc::clone(&clock), Arc::clone(&fence)),
        fence,
        config,
        clock,
        circumstances,
        inherited,
        offered: Arc::default(),
        leaving: Leaving::default(),
    };
    let log: Arc<dyn AuditLog> = store;
    let audit::Started {
        sink,
        writer,
        checkpoints,
        state,
        histories,
    } = audit::start(&base, log).await?;
    let mut telemetry = otlp::start(&base).await?;
    let recorder = Recorder {
        audit: sink,
        metrics: Arc::clone(&base.metrics),
        spans: telemetry.spans(),
        clock: Arc::clone(&base.clock),
    };
    let (stop, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    listeners.spawn(Arc::clone(&checkpoints).run(base.config.audit.checkpoint, stopped.clone()));
    listeners.spawn(Arc::clone(&histories).run(stopped.clone()));
    let audit = AuditParts { state, histories };
    let (checks, replica) = compose(&base, recorder, audit, &mut listeners, &stopped).await?;
    let control = Arc::clone(&checks.control);
    telemetry.send_metrics(Box::new(move || checks.before_scrape()));
    Ok(Running {
        control,
        replica,
        metrics: base.metrics,
        stop,
        listeners,
        audit: writer,
        checkpoints,
        telemetry,
        offered: base.offered,
        leaving: base.leaving,
    })
}

/// What others need of the audit log besides the way into it.
struct AuditParts {
    state: AuditState,
    histories: Arc<HistoryPublisher>,
}

/// Makes every part and starts the listeners.
async fn compose(
    base: &Base,
    recorder: Recorder,
    audit: AuditParts,
    listeners: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
) -> Result<(Arc<readiness::Checks>, Replica), StartError> {
    let config = &base.config;
    let act = || base.act();
    let secrets = Secrets {
        store: &*base.store,
        sealer: &base.sealer,
        act: &act,
    };
    let roots = secrets.authority(base.clock.unix_seconds()).await?;
    let embedded = Arc::new(RotatingCa::new(roots.signing()));
    let Authorities {
        servers: authority,
        clients,
        step,
        listeners: own_step,
    } = Authorities::open(&config.ca, &config.tls, embedded, Arc::clone(&base.clock))?;
    let generation = roots.state.generation;
    let trusted = |roots| {
        TrustAnchors::new(generation, roots)
            .map_err(|error| StartError::Authority(format!("its root cannot be trusted: {error}")))
    };
    let anchors = trusted(clients.anchors())?;
    if let Some(expiry) = anchors.earliest_not_after() {
        base.metrics.certificate_expiry("ca", "", expiry);
    }
    let (revoked_publisher, revoked) = channel(RevokedSet::default());
    let high_water = replicas::guard(base).await?;
    let member = replicas::join(base).await?;
    let directory = Directory::open(
        DirectoryParts {
            fence: Arc::clone(&base.fence),
            others: member.others(),
            store: Arc::clone(&base.store),
            clock: Arc::clone(&base.clock),
            revision_key: secrets.revision_key().await?,
            preset: preset(config.gateway.preset),
            policy_dir: policy_dir(config),
            lease: LeaseTerms {
                duration: config.lease.duration,
                wait: config.lease.wait,
            },
            revoked: revoked_publisher,
            metrics: Arc::clone(&base.metrics),
        },
        &base.act(),
    )
    .await?;
    let replica = Replica::begin(member, &directory).await?;
    let origin = Origin::parse(&config.gateway.url).map_err(StartError::Gateway)?;
    let client = Arc::new(gateway_client(
        config,
        origin.clone(),
        Arc::clone(&base.clock),
    )?);
    let credentials = Arc::new(subject_credentials(base, &secrets, &origin).await?);
    let turns = TurnLimits {
        at_once: config.gateway.max_requests,
        waiting: config.gateway.max_waiting,
        patience: config.gateway.connect_timeout,
    };
    let gateway = Arc::new(Gateway {
        client: Arc::clone(&client),
        credentials: Arc::clone(&credentials),
        facts: FactsCache::new(config.limits.facts_cache, Arc::clone(&base.clock)),
        turns: Turns::new(turns),
        own_turns: Turns::new(turns),
        metrics: Arc::clone(&base.metrics),
    });
    let (trust_publisher, trust) = channel(anchors.clone());
    let Revocation {
        lists,
        receiver,
        published,
    } = Revocation::open(
        base,
        &authority,
        step.as_ref(),
        &directory,
        trust.clone(),
        listeners,
        stopped,
    )
    .await?;
    let rotating = Arc::clone(&authority);
    let authority: Arc<dyn CertificateAuthority> = authority;
    let peers_authority = Arc::clone(&clients);
    let mut addresses = Addresses::default();
    let mut serving = None;
    let mut attacked = None;
    let mut canary = None;
    self_attack::expect(base);
    let reaches = Arc::new(reaches(base));
    let (limits, limiter) = throttle::limits(base)?;
    listeners.spawn(throttle::sweep(
        Arc::clone(&limits),
        limiter,
        Arc::clone(&base.store),
        Arc::clone(&base.clock),
        stopped.clone(),
    ));
    let cursors = secrets.cursors().await?;
    let kept = Arc::new(KeptCertificate::new(
        config.data_dir.join(KEPT_CERTIFICATE),
        Arc::clone(&base.sealer),
    ));
    let shadow = Arc::new(PolicyShadow::new(
        Arc::clone(&directory),
        Arc::clone(&base.clock),
        Arc::clone(&base.metrics),
    ));
    if config.roles.serve {
        let server = server_certificate(base, &authority, own_step, Arc::clone(&kept)).await?;
        let told = Arc::clone(&server);
        let heard = Arc::clone(&reaches);
        let inbound = Arc::new(Inbound {
            directory: Arc::clone(&directory),
            authenticator: Authenticator {
                trust: trust.clone(),
                revoked: revoked.clone(),
                lists: receiver.clone(),
                clock: Arc::clone(&base.clock),
            },
            gateway: Arc::clone(&gateway),
            cursors: cursors.clone(),
            recorder: recorder.clone(),
            limits: AnswerLimits {
                max_answer_bytes: config.limits.max_answer_bytes,
                lease: config.lease.duration,
                search_rows: config.limits.search_rows,
                head: config.federation.header_timeout,
            },
            contacted: Box::new(move |peer| heard.contacted(peer)),
            store: Arc::clone(&base.store),
            throttle: Arc::clone(&limits),
            shadow: Arc::clone(&shadow),
            renewals: Renewals::new(RenewalParts {
                store: Arc::clone(&base.store),
                authority: Arc::clone(&clients),
                directory: Arc::clone(&directory),
                replicas: Arc::clone(&replica.replicas),
                trust: trust.clone(),
                server_anchors_pem: Box::new(move || told.current().roots_pem()),
                lifetime: config.limits.client_certificate,
                overlap: config.limits.renewal_overlap,
                clock: Arc::clone(&base.clock),
                metrics: Arc::clone(&base.metrics),
                told: base.circumstances.told,
            }),
            histories: audit.histories,
            leaving: base.leaving.clone(),
        });
        let parts = ServingParts {
            inbound,
            replicas: Arc::clone(&replica.replicas),
            clients,
            server: Arc::clone(&server),
            trust,
            revoked,
            lists: receiver,
            embedded: Arc::clone(&rotating),
            published: published.clone(),
            checkpoint_key: audit.state.checkpoint_key,
        };
        let served = serve(base, parts, listeners, stopped, &mut addresses).await?;
        if let Some(listens) = addresses.federation {
            let target = self_attack::Target {
                listens,
                server: &server,
                authority: step.is_none().then(|| rotating.roots().peers),
                directory: &directory,
            };
            attacked = self_attack::demand(base, base.circumstances.self_attack, target).await?;
        }
        canary = Some(Canary::new(
            Arc::clone(&served.redeemer),
            Arc::clone(&base.metrics),
            config.revocation_canary,
        ));
        serving = Some(served);
    }
    let outbound = if config.roles.ask {
        let local = OwnGateway {
            directory: Arc::clone(&directory),
            gateway,
            cursors: cursors.clone(),
            search_rows: config.limits.search_rows,
            clock: Arc::clone(&base.clock),
        };
        let parts = OutboundParts {
            store: Arc::clone(&base.store),
            sealer: Arc::clone(&base.sealer),
            clock: Arc::clone(&base.clock),
            audit: recorder.audit.clone(),
            spans: recorder.spans.clone(),
            deadlines: Deadlines {
                connect: config.timeouts.connect,
                tls: config.timeouts.tls,
                first_byte: config.timeouts.first_byte,
                total: config.timeouts.total,
            },
            fanout_deadline: config.timeouts.fanout,
            session_users: config.session.users.clone(),
            cache_bytes: config.cache.max_bytes,
            local: Arc::new(local),
            cursors,
            reaches,
            told: base.circumstances.told,
        };
        {
            let replicas = Arc::clone(&replica.replicas);
            Some(ask(base, parts, replicas, listeners, stopped, &mut addresses).await?)
        }
    } else {
        None
    };
    let ops_listener = listen(base, "ops", config.ops.listen).await?;
    addresses.ops = ops_listener.local_addr().ok();
    let control = Arc::new(Control {
        config: Arc::clone(config),
        store: Arc::clone(&base.store),
        archiver: archiver(base, &audit.state).await?,
        audit: audit.state,
        directory: Arc::clone(&directory),
        replicas: Arc::clone(&replica.replicas),
        followed: Mutex::default(),
        high_water,
        clock: Arc::clone(&base.clock),
        sealer: Arc::clone(&base.sealer),
        resealer: Resealer::new(
            Arc::clone(&base.store),
            Arc::clone(&base.sealer),
            kept,
            RESEAL_BATCH,
            Box::new(|step| tracing::debug!(?step, "changing the sealing secret")),
        ),
        ca: authority,
        rotation: Rotation::new(rotating, peers_authority, trust_publisher),
        step,
        published,
        lists,
        gateway: client,
        credentials,
        outbound,
        addresses,
        enrollment_url: serving
            .as_ref()
            .map(|serving: &Serving| serving.enrollment_url.clone()),
        limits,
        shadow,
        server_certificate: serving.map(|serving| serving.server),
        policy_failure: Mutex::new(None),
        hardening: base.circumstances.hardening,
        self_attack: attacked,
        canary,
    });
    replica
        .replicas
        .follow(Arc::new(Following(Arc::downgrade(&control))));
    // What others changed while the parts were made.
    control.follow_others().await;
    assertion_proof::demand(&control).await?;
    let socket = &config.admin.socket;
    let socket = match base.inherited.take_unix("admin", socket) {
        Ok(Some(socket)) => socket,
        Ok(None) => admin::bind(socket)
            .await
            .map_err(|error| StartError::Internal(error.to_string()))?,
        Err(why) => return Err(StartError::Inherited(why)),
    };
    offer(base, at_path("admin", &config.admin.socket), &socket)?;
    let left = base.inherited.left();
    if !left.is_empty() {
        return Err(StartError::Inherited(format!(
            "{left:?} were handed over, for which there is no listener: a service manager names sockets federation, enrollment or ops, and only those whose role is on; a sidecar that takes over has the listeners of the one before"
        )));
    }
    let routes = admin::router(Arc::clone(&control));
    let stop = stopped.clone();
    listeners.spawn(async move {
        if let Err(error) = admin::serve(socket, routes, stop).await {
            tracing::error!(%error, "the admin socket failed");
        }
    });
    let checks = Arc::new(readiness::Checks {
        control: Arc::clone(&control),
        metrics: Arc::clone(&base.metrics),
        serving_pauses: Arc::clone(&base.serving_pauses),
        stopped: stopped.clone(),
    });
    let ready: Arc<dyn ops::Readiness> = Arc::clone(&checks) as _;
    let routes = ops::router(Arc::clone(&base.metrics), ready);
    let mut stop = stopped.clone();
    listeners.spawn(async move {
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        if let Err(error) = axum::serve(ops_listener, routes)
            .with_graceful_shutdown(stopped)
            .await
        {
            tracing::error!(%error, "the ops listener failed");
        }
    });
    if let Some(dir) = policy_dir(config) {
        let settings = &config.policy;
        let control = Arc::clone(&control);
        let looks_after = PolicyWatch::new(control, dir, settings.poll, settings.watch);
        listeners.spawn(looks_after.run(stopped.clone()));
    }
    listeners.spawn(replicas::mark(Arc::clone(&control), stopped.clone()));
    listeners.spawn(expire_grants(Arc::clone(&control), stopped.clone()));
    if config.roles.serve {
        let every = config.revocation_canary;
        listeners.spawn(canary::keep(Arc::clone(&control), every, stopped.clone()));
    }
    listeners.spawn(archiving::daily(control, stopped.clone()));
    Ok((checks, replica))
}

/// What moves old rows of the audit log away.
async fn archiver(base: &Base, audit: &AuditState) -> Result<Archiver, StartError> {
    let shelf = Shelf {
        dir: base.config.audit.archive_dir.clone(),
        store: base.store.store_id().await?,
    };
    make_private_dir(&shelf.dir, "archive")?;
    Ok(Archiver::new(
        Arc::clone(&base.store),
        shelf,
        Arc::clone(&audit.archive),
        Box::new(|step| tracing::debug!(?step, "moving audit rows into the archive")),
    ))
}

/// Writes down what has expired, so that `status` and the snapshot agree with the clock. Requests do
/// not depend on it: they compare the end of a grant with the clock themselves.
async fn expire_grants(control: Arc<Control>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        let act = Act {
            id: Uuid::now_v7(),
            actor: Actor::Sidecar("expiry"),
            now: control.now(),
        };
        if control.directory.is_behind()
            && let Err(error) = control.directory.refresh().await
        {
            tracing::error!(%error, "the directory could not be brought up to date");
        }
        if !control.replicas.does(Job::Expiry, EXPIRY_TURN).await {
            continue;
        }
        let expired = match control.store.expire_grants(&act).await {
            Ok(committed) => committed.changed,
            Err(error) => {
                tracing::warn!(%error, "expired grants could not be written down");
                false
            }
        };
        if expired && let Err(error) = control.directory.refresh().await {
            tracing::error!(%error, "the directory could not be brought up to date");
        }
        if let Err(error) = control.directory.forget_earlier_leases().await {
            tracing::warn!(%error, "the longest lease could not be recorded");
        }
    }
}

/// Makes a directory for the owner only, unless it is there; `what` names it in a failure.
fn make_private_dir(dir: &Path, what: &str) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(system(format!(
            "the {what} directory `{}` cannot be made",
            dir.display()
        )))
}

/// Where policy files are. A process that only asks needs none, but what they redact counts for its own gateway too.
fn policy_dir(config: &Config) -> Option<PathBuf> {
    let dir = &config.policy.dir;
    (config.roles.serve || dir.is_dir()).then(|| dir.clone())
}

fn preset(preset: Preset) -> Option<Arc<Mapping>> {
    match preset {
        Preset::Mosaic => Some(Arc::new(Mapping::mosaic())),
        Preset::InternalV1 => Some(Arc::new(Mapping::internal_v1())),
        Preset::Mapped => None,
    }
}

fn gateway_client(
    config: &Config,
    origin: Origin,
    clock: Arc<dyn Clock>,
) -> Result<GatewayClient, StartError> {
    let limits = GatewayLimits {
        connect: config.gateway.connect_timeout,
        read: config.gateway.read_timeout,
        idle: Duration::from_secs(60),
    };
    GatewayClient::new(origin, limits, clock).map_err(StartError::Gateway)
}

async fn subject_credentials(
    base: &Base,
    secrets: &Secrets<'_>,
    origin: &Origin,
) -> Result<SubjectCredentials, StartError> {
    match &base.config.gateway.auth {
        GatewayAuth::SubjectToken => {
            let mut tokens: HashMap<UserId, HeaderValue> = HashMap::new();
            for (user, _) in base.store.list_subject_tokens().await? {
                let Some(stored) = base.store.find_subject_token(&user).await? else {
                    continue;
                };
                let token = base
                    .sealer
                    .unseal(SealPurpose::SubjectToken, user.as_str(), &stored.sealed)
                    .map_err(|error| {
                        StartError::Seal(format!(
                            "the gateway token of `{user}` does not open: {error}"
                        ))
                    })?;
                let token = std::str::from_utf8(&token).map_err(|_| {
                    StartError::Seal(format!("the gateway token of `{user}` is damaged"))
                })?;
                tokens.insert(user, bearer(token).map_err(StartError::Gateway)?);
            }
            Ok(SubjectCredentials::per_subject(tokens))
        }
        GatewayAuth::ServiceToken {
            token_file,
            audience,
            jwks_file,
        } => {
            let text = std::fs::read_to_string(token_file).map_err(system(format!(
                "the service token `{}` cannot be read",
                token_file.display()
            )))?;
            let token = bearer(text.trim()).map_err(StartError::Gateway)?;
            let key = secrets.assertion_key().await?;
            let issuer = format!("mosaic-federation:{}", base.store.store_id().await?);
            let signer = AssertionSigner::new(
                &key,
                &issuer,
                audience,
                &origin.url(),
                Arc::clone(&base.clock),
            )
            .map_err(StartError::Gateway)?;
            std::fs::write(jwks_file, signer.jwks().to_string()).map_err(system(format!(
                "the key set `{}` cannot be written",
                jwks_file.display()
            )))?;
            Ok(SubjectCredentials::Service {
                token,
                signer: Arc::new(signer),
            })
        }
    }
}
