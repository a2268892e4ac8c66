//! The sidecar as a process: a runtime, signals, and an orderly end.

use std::sync::Arc;

use certs::clock::Clock;
use certs::identity::fingerprint;
use certs::trust::certificate_to_pem;
use policy::time::UnixMillis;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::admin::{self, Control};
use crate::cli::{AuthorityRoot, ServeOptions};
use crate::config::{Config, LandlockMode, LogFormat, LogLevel};
use crate::hand_over;
use crate::hardening::{self, Confinement, Hardening, HardeningError};
use crate::service_manager::{self, Inherited};
use crate::store::{Act, Actor, schemas};
use crate::telemetry::logs::{self, LogForm};

use super::secrets::{self, Secrets};
use super::{Circumstances, SelfAttack, StartError, confinement, make_private_dir, start_with};

fn runtime(config: &Config) -> Result<Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.federation.worker_threads > 0 {
        builder.worker_threads(config.federation.worker_threads);
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {error}"))
}

/// Runs the sidecar until SIGTERM or SIGINT, or until another one has taken over; a second signal ends it at once. SIGHUP reads the
/// policy again. One that upgrades takes over from the one that runs with the same data directory.
///
/// # Errors
/// Why it did not start or did not end well, in words for the operator.
pub fn run(config: Config, clock: Arc<dyn Clock>, options: ServeOptions) -> Result<(), String> {
    let form = match config.log.format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json,
    };
    logs::start(form, level(config.log.level))?;
    let hand_over = config.data_dir.join(hand_over::SOCKET);
    let (inherited, predecessor) = if options.upgrades {
        let (sockets, predecessor) =
            hand_over::receive(&hand_over, &schemas()).map_err(|error| error.to_string())?;
        (Inherited::from_predecessor(sockets)?, Some(predecessor))
    } else {
        (Inherited::from_environment()?, None)
    };
    let circumstances = Circumstances {
        hardening: harden(&config)?,
        self_attack: SelfAttack::Own,
        rollback: options.rollback,
        ..Circumstances::PART
    };
    runtime(&config)?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        let running = start_with(Arc::new(config), clock, circumstances, inherited).await.map_err(|error| explain(&error))?;
        tracing::info!(addresses = ?running.addresses(), "ready");
        let follows = predecessor.is_some();
        if let Some(predecessor) = predecessor {
            match predecessor.take_over() {
                Ok(()) => tracing::info!("took over from the sidecar that ran before"),
                Err(error) => tracing::warn!(%error, "the sidecar that ran before may go on beside this one: stop it"),
            }
            service_manager::taken_over();
        }
        service_manager::ready();
        let (taken, mut was_taken) = mpsc::channel(1);
        let giving = match admin::bind_private(&hand_over, follows).await {
            Ok(socket) => Some(tokio::spawn(hand_over::give(socket, (running.offered(), schemas()), taken))),
            Err(error) => {
                tracing::warn!(%error, "this process cannot be taken over from (serve --upgrade)");
                None
            }
        };
        let alive = tokio::spawn(service_manager::keep_alive());
        let is_followed = loop {
            tokio::select! {
                _ = terminate.recv() => break false,
                _ = interrupt.recv() => break false,
                Some(()) = was_taken.recv() => break true,
                Some(()) = hangup.recv() => drop(tokio::spawn(reload(Arc::clone(&running.control)))),
            }
        };
        if let Some(giving) = giving {
            giving.abort();
        }
        let stop = async {
            if is_followed {
                tracing::info!("another process has taken over: no new connections, draining");
                running.leave().await
            } else {
                tracing::info!("stopping: no new connections, draining");
                service_manager::stopping();
                running.stop().await
            }
        };
        let ended = tokio::select! {
            stopped = stop => stopped.map_err(|error| error.to_string()),
            _ = terminate.recv() => Err("stopped at once by a second signal; the next start finishes the audit log".to_owned()),
            _ = interrupt.recv() => Err("stopped at once by a second signal; the next start finishes the audit log".to_owned()),
        };
        alive.abort();
        ended
    })
}

/// What SIGHUP asks for: the same as `policy reload`.
async fn reload(control: Arc<Control>) {
    service_manager::reloading();
    let read = control.reload_policy(&Actor::Sidecar("hangup")).await;
    service_manager::ready();
    match read {
        Ok(_) => tracing::info!("the policy was read again (SIGHUP)"),
        Err(failure) => tracing::error!(
            error = %failure.message,
            details = ?failure.details,
            "the policy was read again (SIGHUP) and is not in force"
        ),
    }
}

/// Gives up what the sidecar does not need, before the first thread that could use it is started.
fn harden(config: &Config) -> Result<Hardening, String> {
    let refused = |error: HardeningError| error.to_string();
    hardening::protect_memory().map_err(refused)?;
    let files = match config.landlock {
        LandlockMode::Off => Confinement::Off,
        mode => {
            // A directory must be there to be let in.
            make_private_dir(&config.data_dir, "data")
                .and_then(|()| make_private_dir(&config.audit.dir, "audit"))
                .and_then(|()| make_private_dir(&config.audit.archive_dir, "archive"))
                .map_err(|error| explain(&error))?;
            let needs = confinement::needs(config);
            hardening::confine(&needs, mode == LandlockMode::Required).map_err(refused)?
        }
    };
    tracing::info!(landlock = ?files, "core dumps and tracing are off");
    Ok(Hardening {
        memory_protected: true,
        files,
    })
}

fn explain(error: &StartError) -> String {
    use crate::directory::ApplyError;
    match error {
        StartError::Apply(ApplyError::Policy(problems)) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            format!("the policy cannot be loaded:\n  {}", lines.join("\n  "))
        }
        StartError::System { .. } => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            format!(
                "{error}{}",
                cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
            )
        }
        other => other.to_string(),
    }
}

/// Opens the store without a running sidecar and makes the embedded authority unless there is one.
///
/// # Errors
/// In words for the operator.
pub fn init_authority(config: &Config, clock: Arc<dyn Clock>) -> Result<AuthorityRoot, String> {
    let made = runtime(config)?.block_on(async {
        make_private_dir(&config.data_dir, "data")?;
        let sealer = secrets::sealer(&config.seal)?;
        let now = UnixMillis(clock.unix_millis());
        let store = crate::tier::open_store(config, now).await?;
        super::sealing::settle(&*store, &sealer, &config.seal).await?;
        let act = || Act {
            id: Uuid::now_v7(),
            actor: Actor::Sidecar("ca-init"),
            now: UnixMillis(clock.unix_millis()),
        };
        let secrets = Secrets {
            store: &*store,
            sealer: &sealer,
            act: &act,
        };
        super::audit::begin_chain(&*store, &secrets, &act).await?;
        secrets.authority(clock.unix_seconds()).await
    });
    let authority = made.map_err(|error: StartError| explain(&error))?;
    let root = authority.in_force.root();
    Ok(AuthorityRoot {
        pem: certificate_to_pem(root),
        sha256: hex::encode(fingerprint(root)),
    })
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
