//! The command line.
//!
//! Invariant: data goes to standard output, notes and failures to standard error, and the exit status means what
//! `exit.rs` says. Commands talk to a running sidecar through its sockets; only `serve`, `demo`, `ca init`, `policy check`,
//! `policy schema`, `doctor` and `completions` do something without one.
//!
//! What serving is, is given by the caller ([`EntryPoints`]), so that the layers below stay below.

mod arguments;
mod audit;
mod authority;
mod certificate;
mod demo;
mod doctor;
mod door;
mod failure;
mod gateway;
mod grant;
mod import;
mod keys;
mod mcp;
mod output;
mod peer;
mod policy;
mod query;
mod session;
mod status;
mod store;
mod user;
mod value;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{self, Config, Override};
use crate::demo::DemoOptions;
use crate::exit::Exit;
use crate::replicas::Rollback;
use arguments::{Cli, Command};
use door::Door;
use failure::CliFailure;
use output::Console;

/// The root of an embedded authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityRoot {
    /// The root certificate, PEM.
    pub pem: String,
    /// Its SHA-256 (DER), lower-case hex.
    pub sha256: String,
}

/// How the sidecar is started, besides its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServeOptions {
    /// What is done with a store that is older than it was.
    pub rollback: Rollback,
    /// Whether it takes over from the one that runs with the same data directory.
    pub upgrades: bool,
}

/// What a command does that is more than asking a running sidecar. All block, with a runtime of their own, and
/// fail with words for the operator: what failed and what to do.
pub struct EntryPoints<'a> {
    /// Runs the sidecar until it is told to stop.
    pub serve: &'a dyn Fn(Config, ServeOptions) -> Result<(), String>,
    /// Opens the store without a running sidecar and makes the authority unless there is one.
    pub init_authority: &'a dyn Fn(&Config) -> Result<AuthorityRoot, String>,
    /// Shows the demo on the given output.
    pub demo: &'a dyn Fn(DemoOptions, &mut dyn Write) -> Result<(), String>,
}

/// Runs one invocation: `arguments` with the program's name first, `environment` as the process has it.
pub fn run(
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    points: &EntryPoints<'_>,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> Exit {
    let wants_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(refused) => return usage(&refused, wants_json, out, errors),
    };
    let json = cli.json;
    match execute(
        cli,
        environment,
        points,
        &mut Console::new(json, out, errors),
    ) {
        Ok(exit) => exit,
        // Whoever read our output has seen enough.
        Err(failure) if failure.exit == Exit::Done => Exit::Done,
        Err(failure) => {
            // Without standard error there is nobody to tell; the exit status still does.
            let _ = failure.write(json, errors);
            failure.exit
        }
    }
}

/// Under the name `mosaic` the first word is `federation`, so that `mosaic federation status` works.
fn parse(mut arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let is_mosaic = arguments
        .first()
        .and_then(|name| Path::new(name).file_stem())
        .is_some_and(|name| name == "mosaic");
    if is_mosaic {
        if arguments.get(1).is_none_or(|word| word != "federation") {
            let message = "under the name `mosaic`, the first word is `federation`: mosaic federation COMMAND\n";
            return Err(Cli::command().error(clap::error::ErrorKind::InvalidSubcommand, message));
        }
        arguments.remove(1);
    }
    Cli::try_parse_from(arguments)
}

fn usage(refused: &clap::Error, json: bool, out: &mut dyn Write, errors: &mut dyn Write) -> Exit {
    use clap::error::ErrorKind as K;
    let text = refused.render().to_string();
    if matches!(refused.kind(), K::DisplayHelp | K::DisplayVersion) {
        let _ = out.write_all(text.as_bytes());
        return Exit::Done;
    }
    if json && refused.kind() != K::DisplayHelpOnMissingArgumentOrSubcommand {
        let why = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        let failure = CliFailure::new(Exit::Usage, "usage", "the command line cannot be used", why)
            .remedy("`mosaic-federation help` shows the commands");
        let _ = failure.write(true, errors);
    } else {
        let _ = errors.write_all(text.as_bytes());
    }
    Exit::Usage
}

/// What every command may need, found when it is.
struct Context<'a> {
    config_file: Option<PathBuf>,
    admin_socket: Option<PathBuf>,
    environment: Vec<(String, String)>,
    overrides: Vec<Override>,
    loaded: std::cell::OnceCell<Config>,
    points: &'a EntryPoints<'a>,
}

impl Context<'_> {
    /// The settings.
    fn config(&self) -> Result<&Config, CliFailure> {
        if let Some(config) = self.loaded.get() {
            return Ok(config);
        }
        let config = self
            .load()
            .map_err(|problems| CliFailure::settings(&problems))?;
        Ok(self.loaded.get_or_init(|| config))
    }

    fn load(&self) -> Result<Config, Vec<config::ConfigProblem>> {
        let file = self.config_file.clone().or_else(config::find_default_file);
        config::load(file.as_deref(), &self.environment, &self.overrides)
    }

    /// The admin door; a socket that is given needs no settings.
    fn admin(&self) -> Result<Door, CliFailure> {
        match &self.admin_socket {
            Some(socket) => Ok(Door::admin(socket.clone())),
            None => Ok(Door::admin(self.config()?.admin.socket.clone())),
        }
    }
}

fn execute(
    cli: Cli,
    environment: Vec<(String, String)>,
    points: &EntryPoints<'_>,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    if let Command::Demo {
        gateway_binary,
        keep,
    } = cli.command
    {
        let names_file = |(name, _): &(String, String)| name == "MOSAIC_FEDERATION_CONFIG";
        let file = cli.config.is_some() && !environment.iter().any(names_file);
        let settings = file || cli.admin_socket.is_some() || !cli.overrides.is_empty();
        demo::refuse_settings(settings || cli.json)?;
        return demo::run(gateway_binary, keep, points, console);
    }
    let overrides = cli.overrides.into_iter().map(|(key, value)| Override {
        flag: format!("--set {key}"),
        key,
        value,
    });
    let mut overrides: Vec<Override> = overrides.collect();
    if let (Some(socket), Command::Serve { .. }) = (&cli.admin_socket, &cli.command) {
        let value = socket.display().to_string();
        overrides.push(Override {
            flag: "--admin-socket".to_owned(),
            key: "admin.socket".to_owned(),
            value,
        });
    }
    let context = Context {
        config_file: cli.config,
        admin_socket: cli.admin_socket,
        environment,
        overrides,
        loaded: std::cell::OnceCell::new(),
        points,
    };
    match cli.command {
        Command::Serve {
            accept_rollback,
            upgrade,
        } => {
            let options = ServeOptions {
                rollback: if accept_rollback {
                    Rollback::Accept
                } else {
                    Rollback::Refuse
                },
                upgrades: upgrade,
            };
            let config = context.config()?.clone();
            let served = (points.serve)(config, options);
            served.map(|()| Exit::Done).map_err(|why| {
                CliFailure::new(Exit::Failed, "serve", "the sidecar could not go on", why)
                    .remedy("`mosaic-federation doctor` checks settings, policy and surroundings")
            })
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "mosaic-federation", &mut script);
            console.line(String::from_utf8_lossy(&script).trim_end())?;
            Ok(Exit::Done)
        }
        Command::Ca(arguments::CaCommand::Init) => authority::init(&context, console),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| {
                CliFailure::new(
                    Exit::Failed,
                    "runtime",
                    "the command could not be started",
                    error.to_string(),
                )
            })?;
            runtime.block_on(ask(&context, command, console))
        }
    }
}

async fn ask(
    context: &Context<'_>,
    command: Command,
    console: &mut Console<'_>,
) -> Result<Exit, CliFailure> {
    match command {
        Command::Doctor => doctor::run(context, console).await,
        Command::Status { watch, every } => {
            let every = watch.then(|| Duration::from_secs(every.into()));
            status::run(context, every, console).await
        }
        Command::Grant(command) => grant::run(context, command, console).await,
        Command::Peer(command) => peer::run(context, command, console).await,
        Command::Cert(command) => certificate::run(context, command, console).await,
        Command::User(command) => user::run(context, command, console).await,
        Command::Session(command) => session::run(context, command, console).await,
        Command::Query(command) => query::run(context, command, console).await,
        Command::Audit(command) => audit::run(context, command, console).await,
        Command::Policy(command) => policy::run(context, command, console).await,
        Command::Gateway(command) => gateway::run(context, command, console).await,
        Command::Keys(command) => keys::run(context, command, console).await,
        Command::Ca(arguments::CaCommand::Rotate(command)) => {
            authority::rotate(context, command, console).await
        }
        Command::Ca(_) => authority::export(context, console).await,
        Command::Store(command) => store::run(command, console).await,
        Command::Mcp(at) => mcp::run(context, at, console).await,
        Command::Healthcheck => doctor::healthcheck(context, console).await,
        // Done before a runtime is needed.
        Command::Serve { .. } | Command::Demo { .. } | Command::Completions { .. } => {
            Ok(Exit::Done)
        }
    }
}

/// A path segment of the admin API.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests;
