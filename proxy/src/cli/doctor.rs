//! `doctor` and `healthcheck`: is everything as it should be, and what to do if not.
//!
//! Invariant: nothing is changed. What only the running process knows is asked from it; the rest is checked here,
//! also when no process runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use certs::clock::{Clock, SystemClock};
use http::Method;
use serde_json::{Value, json};

use super::Context;
use super::door::is_live;
use super::failure::CliFailure;
use super::output::{Console, plain};
use super::policy::check_files;
use crate::admin::{CheckOutcome, CheckView};
use crate::config::{Config, SealSource, Tier};
use crate::exit::Exit;
use crate::sealing_secret;
use crate::tier;

/// A clock before this instant (2026-01-01) is wrong: this program is newer.
const NOT_BEFORE_MILLIS: i64 = 1_767_225_600_000;

pub(super) async fn run(
    context: &Context<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let mut checks = Vec::new();
    match context.load() {
        Err(problems) => checks.extend(problems.iter().map(|problem| {
            CheckView::fail(
                "settings",
                problem.to_string(),
                "docs/reference/configuration.md lists every key",
            )
        })),
        Ok(config) => {
            checks.push(CheckView::ok("settings", "no problem"));
            checks.push(policy(&config));
            checks.push(data_dir(&config));
            checks.push(clock());
            checks.extend(process(context, &config).await);
        }
    }
    print(&checks, console)?;
    let failed = checks
        .iter()
        .any(|check| check.outcome == CheckOutcome::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn print(checks: &[CheckView], console: &mut Console<'_>) -> Result<(), CliFailure> {
    if console.json {
        return Ok(console.document(&json!({ "checks": checks }))?);
    }
    for check in checks {
        let mark = match check.outcome {
            CheckOutcome::Ok => "ok  ",
            CheckOutcome::Warn => "warn",
            CheckOutcome::Fail => "FAIL",
        };
        console.line(&format!("{mark}  {}: {}", check.name, plain(&check.found)))?;
        if let Some(remedy) = &check.remedy {
            console.line(&format!("      do: {}", plain(remedy)))?;
        }
    }
    Ok(())
}

fn policy(config: &Config) -> CheckView {
    if !config.roles.serve && !config.policy.dir.exists() {
        return CheckView::ok("policy files", "none, and none needed: nobody is answered");
    }
    match check_files(&config.policy.dir) {
        Ok(files) if files.is_empty() => CheckView::warn(
            "policy files",
            format!(
                "none in {}: everything is denied",
                config.policy.dir.display()
            ),
            "write a [ceiling]; compose/policy.d/10-base.toml is an example",
        ),
        Ok(files) => CheckView::ok("policy files", files.join(", ")),
        Err(problems) => CheckView::fail(
            "policy files",
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
            "correct them; `policy check` lists them",
        ),
    }
}

fn data_dir(config: &Config) -> CheckView {
    let shown = config.data_dir.display();
    match std::fs::metadata(&config.data_dir) {
        Ok(found) if !found.is_dir() => CheckView::fail(
            "data directory",
            format!("{shown} is no directory"),
            "set data_dir",
        ),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let mode = found.permissions().mode() & 0o777;
            CheckView::warn(
                "data directory",
                format!("{shown} has mode {mode:04o}"),
                format!("run `chmod 700 {shown}`"),
            )
        }
        Ok(_) => CheckView::ok("data directory", shown.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => CheckView::warn(
            "data directory",
            format!("{shown} does not exist yet"),
            "it is made at the first start",
        ),
        Err(error) => CheckView::fail(
            "data directory",
            format!("{shown}: {error}"),
            "check its owner and mode",
        ),
    }
}

fn clock() -> CheckView {
    if SystemClock.unix_millis() < NOT_BEFORE_MILLIS {
        CheckView::fail(
            "clock",
            "is before 2026: certificates cannot be checked",
            "set the clock, keep it with NTP",
        )
    } else {
        CheckView::ok("clock", "plausible")
    }
}

/// The running process's own checks, or, without one, what it would meet.
async fn process(context: &Context<'_>, config: &Config) -> Vec<CheckView> {
    let admin = match context.admin() {
        Ok(admin) if admin.is_open().await => admin,
        _ => {
            let mut checks = vec![CheckView::warn(
                "process",
                "not running",
                "start it with `mosaic-federation serve`",
            )];
            checks.push(seal(config));
            if let Tier::Federated(servers) = &config.tier {
                checks.extend(tier::probe(servers).await.into_iter().map(Into::into));
            }
            checks.extend(ports(config));
            return checks;
        }
    };
    match admin
        .ask("running the checks", Method::GET, "/admin/v1/checks", None)
        .await
    {
        Ok(answer) => {
            let items = answer.get("items").cloned().unwrap_or(Value::Null);
            let inside = serde_json::from_value::<Vec<CheckView>>(items).unwrap_or_else(|error| {
                vec![CheckView::fail(
                    "process",
                    format!("its answer cannot be read: {error}"),
                    "restart it: it may be another version",
                )]
            });
            std::iter::once(CheckView::ok("process", "runs"))
                .chain(inside)
                .collect()
        }
        Err(failure) => vec![CheckView::fail(
            "process",
            failure.why,
            failure.remedy.unwrap_or_default(),
        )],
    }
}

fn seal(config: &Config) -> CheckView {
    if let SealSource::Generated(path) = &config.seal
        && !path.exists()
    {
        let found = format!("none set: {} is made at the first start", path.display());
        return CheckView::warn(
            "sealing secret",
            found,
            "set seal.secret_file to keep it apart from the data",
        );
    }
    match sealing_secret::read(&config.seal) {
        Ok(_) => CheckView::ok("sealing secret", "readable"),
        Err(error) => CheckView::fail(
            "sealing secret",
            error,
            "correct [seal] or the file it names",
        ),
    }
}

fn ports(config: &Config) -> Vec<CheckView> {
    let wanted = [
        (
            "federation.listen",
            config.roles.serve.then_some(config.federation.listen),
        ),
        (
            "enrollment.listen",
            config.roles.serve.then_some(config.enrollment.listen),
        ),
        (
            "session.listen",
            config.session.listen.filter(|_| config.roles.ask),
        ),
        ("ops.listen", Some(config.ops.listen)),
    ];
    let open = wanted
        .into_iter()
        .filter_map(|(key, address)| address.map(|address| (key, address)));
    open.map(|(key, address)| match TcpListener::bind(address) {
        Ok(_) => CheckView::ok(key, format!("{address} is free")),
        Err(error) => CheckView::fail(
            key,
            format!("{address}: {error}"),
            "stop what listens there, or choose another",
        ),
    })
    .collect()
}

/// `healthcheck`: for container platforms; silent when all is well.
pub(super) async fn healthcheck(
    context: &Context<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    let address = reachable(context.config()?.ops.listen);
    match is_live(address).await {
        Ok(()) if console.json => console.document(&json!({"live": true}))?,
        Ok(()) => {}
        Err(why) => {
            let why = format!("{address}: {why}");
            return Err(CliFailure::new(
                Exit::Failed,
                "not_live",
                "the sidecar does not live",
                why,
            )
            .remedy("look at its log; `doctor` checks more"));
        }
    }
    Ok(Exit::Done)
}

/// Where to connect for a listener on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
