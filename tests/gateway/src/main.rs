//! Command line of the reference gateway.
//!
//! Invariant: standard output carries the `listening on` and `control on` lines (or the tokens),
//! everything else goes to standard error. The server itself is in `server.rs`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use reference_gateway::authenticate::{Service, unix_seconds};
use reference_gateway::generate::World;
use reference_gateway::modes::{Behaviour, Mode};
use reference_gateway::server::{Settings, start};
use reference_gateway::store::seed::Data;
use tokio::signal::unix::{SignalKind, signal};

/// A stand-in gateway with its own SQLite file, for the demo and the tests.
#[derive(Parser, Debug)]
#[command(
    name = "reference-gateway",
    version,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print the users of a data set: handle, user id, token, `banned` or nothing; by tabs.
    Tokens(DataChoice),
}

#[derive(Args, Debug)]
struct DataChoice {
    /// What an empty database is filled with.
    #[arg(long, value_enum, default_value_t = DataName::Plan)]
    data: DataName,
    /// Number of users, with `--data generated`.
    #[arg(long, default_value_t = World::default().users, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    users: u64,
    /// Number of rows over all collections, with `--data generated`.
    #[arg(long, default_value_t = World::default().rows, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    rows: u64,
}

#[derive(Args, Debug)]
struct Serve {
    /// Where the API listens; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the control listener listens; without it there is none.
    #[arg(long)]
    control: Option<SocketAddr>,
    /// The SQLite file.
    #[arg(long, default_value = "reference-gateway.db")]
    db: PathBuf,
    #[command(flatten)]
    data: DataChoice,
    /// Faults to start with: rows, limit, secrets, truncate, garbage, oversize, slow, status500,
    /// hang, facts_status500, facts_hang, facts_garbage.
    #[arg(long, value_delimiter = ',')]
    over_share: Vec<Mode>,
    /// Token of the service that may ask on behalf of users with X-Mosaic-Assertion.
    #[arg(long, requires_all = ["jwks", "audience"])]
    service_token: Option<String>,
    /// The service's published keys (JWKS, Ed25519); read again when it changes.
    #[arg(long, requires = "service_token")]
    jwks: Option<PathBuf>,
    /// What `aud` has to be in an assertion.
    #[arg(long, requires = "service_token")]
    audience: Option<String>,
    /// A file that is written, with the same lines as standard output, when the gateway is ready.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DataName {
    /// Three employees, two teams, the plan of a federation.
    Plan,
    /// One person at home.
    Home,
    /// As many users and rows as asked for.
    Generated,
    /// Nothing.
    None,
}

impl DataChoice {
    fn data(&self) -> Data {
        match self.data {
            DataName::Plan => Data::Plan,
            DataName::Home => Data::Home,
            DataName::Generated => Data::Generated(World::sized(self.users, self.rows)),
            DataName::None => Data::None,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Tokens(choice)) => print_tokens(choice.data()),
        None => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(serve(cli.serve))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reference-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn print_tokens(data: Data) -> Outcome {
    let mut out = std::io::stdout().lock();
    for user in data.users() {
        let banned = if user.banned { "banned" } else { "" };
        let token = user.token();
        writeln!(out, "{}\t{}\t{token}\t{banned}", user.handle, user.id)?;
    }
    Ok(())
}

async fn serve(arguments: Serve) -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let service = match (arguments.service_token, arguments.audience, arguments.jwks) {
        (Some(token), Some(audience), Some(jwks)) => {
            Some(Service::new(token, audience, jwks, unix_seconds))
        }
        _ => None,
    };
    let running = start(Settings {
        listen: arguments.listen,
        control: arguments.control,
        db: arguments.db,
        data: arguments.data.data(),
        behaviour: Behaviour {
            over_share: arguments.over_share.into_iter().collect(),
            ..Behaviour::default()
        },
        service,
    })
    .await?;
    let mut lines = String::new();
    if let Some(control) = running.control {
        lines.push_str(&format!("control on http://{control}\n"));
    }
    lines.push_str(&format!("listening on {}\n", running.url()));
    if let Some(file) = arguments.ready_file {
        let unfinished = file.with_extension("unfinished");
        std::fs::write(&unfinished, &lines)?;
        std::fs::rename(&unfinished, &file)?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    out.flush()?;
    drop(out);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await;
    Ok(())
}
