//! `demo`: two gateways and two sidecars as processes of this machine, onboarded and asked by commands as a user
//! types them.
//!
//! Invariant: everything that is shown is checked, and nothing is left behind: processes and files end with the
//! demo, also when it fails or is interrupted. What is shown is the table in `steps.rs`; the processes and their
//! files are in `stage.rs`. Apart from the data path: only the command line calls it.

mod directory;
mod play;
mod stage;
mod steps;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};

use play::Play;
use stage::{Side, Stage};

/// What a demo is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// This program; it is run as both sidecars and for every command.
    pub program: PathBuf,
    /// The program that stands in for both gateways.
    pub gateway_binary: PathBuf,
    /// Whether all of it stays until a signal ends it.
    pub keep: bool,
}

/// Why a demo did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoFailure {
    /// A directory or file of the demo.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A process did not become ready.
    #[error("{process} did not become ready: {why}")]
    NotReady {
        /// Which one.
        process: String,
        /// What was seen.
        why: String,
    },
    /// Something else than expected was seen.
    #[error("step {number} failed: `{what}` {why}")]
    Step {
        /// The number that is printed before the step.
        number: usize,
        /// The command or act.
        what: String,
        /// What was expected, and what was seen.
        why: String,
    },
    /// A signal came before the end.
    #[error("it was interrupted by {0}; its processes and files are gone")]
    Interrupted(&'static str),
}

fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> DemoFailure {
    let what = what.to_string();
    move |source| DemoFailure::System { what, source }
}

fn printing(source: io::Error) -> DemoFailure {
    system("the output could not be written")(source)
}

/// Runs the demo and prints it to `out`. Blocks, with a runtime of its own.
///
/// # Errors
/// In words for the person at the terminal: which step failed, and what was seen instead. The last lines of the
/// processes' logs have been printed then.
pub fn run(options: &DemoOptions, out: &mut dyn Write) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {error}"))?;
    runtime
        .block_on(perform(options, out))
        .map_err(|failure| failure.to_string())
}

async fn perform(options: &DemoOptions, out: &mut dyn Write) -> Result<(), DemoFailure> {
    let mut signals = Signals::new().map_err(system("signals cannot be received"))?;
    let mut stage = Stage::make(options)?;
    let mut ended = tokio::select! {
        biased;
        name = signals.any() => Err(DemoFailure::Interrupted(name)),
        shown = show(&mut stage, options, out) => shown,
    };
    if ended.is_ok() && options.keep {
        ended = tokio::select! {
            // Asked to stay, it ends well when it is told to end.
            _ = signals.any() => ended,
            died = stage.any_end() => Err(died),
        };
    }
    if !matches!(ended, Ok(_) | Err(DemoFailure::Interrupted(_))) {
        // The failure itself matters more than a terminal that is gone.
        let _ = stage.write_log_tails(out);
    }
    let closed = stage.close().await;
    let steps = ended?;
    closed?;
    writeln!(
        out,
        "All {steps} steps showed what they say. The processes and their files are gone again{}",
        if options.keep {
            "."
        } else {
            "; `--keep` leaves them\nrunning, to be tried."
        }
    )
    .map_err(printing)
}

/// Everything up to the last step; gives the number of steps.
async fn show(
    stage: &mut Stage,
    options: &DemoOptions,
    out: &mut dyn Write,
) -> Result<usize, DemoFailure> {
    stage.start().await?;
    introduce(stage, out).map_err(printing)?;
    let mut play = Play::new(stage, out);
    for step in steps::STEPS {
        play.step(step).await?;
    }
    let steps = play.numbered();
    if options.keep {
        invite(stage, options, out).map_err(printing)?;
    }
    Ok(steps)
}

fn introduce(stage: &Stage, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Two sides run on this machine for as long as this demo, each a gateway with a sidecar beside it:\n\
         \n  work   holds the data of three employees in two teams; its gateway is {}\n  \
         home   is where Amira's agent works in the evening; its gateway is {}\n\
         \n`work$` and `home$` say on whose side a command is typed. Each one is run for real, and what it prints\n\
         is checked.\n",
        stage.gateway_url(Side::Work),
        stage.gateway_url(Side::Home),
    )
}

fn invite(stage: &Stage, options: &DemoOptions, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "Everything keeps running until Ctrl-C. To try it, in another terminal:\n\
         \n  alias mosaic-federation={program}\n  \
         cd {work}\n  \
         mosaic-federation status\n  \
         mosaic-federation grant create --user {user} --peer home --scope scope.json\n  \
         mosaic-federation grant token GRANT\n  \
         cd {home}\n  \
         mosaic-federation peer add URL --user amira --name work-again\n  \
         mosaic-federation query list tasks --peer work-again --user amira\n\
         \nLet the work gateway give away too much, or secrets too, or end that:\n\
         \n  curl -X PUT {control}/_control -d '{{\"over_share\":[\"rows\"]}}'\n  \
         curl -X PUT {control}/_control -d '{{\"over_share\":[\"rows\",\"secrets\"]}}'\n  \
         curl -X PUT {control}/_control -d '{{}}'\n",
        program = options.program.display(),
        user = steps::WORK_USER,
        work = stage.directory(Side::Work).display(),
        home = stage.directory(Side::Home).display(),
        control = stage.control_url(),
    )?;
    out.flush()
}

/// The signals that end a demo.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them and names it.
    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
