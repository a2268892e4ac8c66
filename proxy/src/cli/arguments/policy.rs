//! The command line of `policy`.
//!
//! Invariant: as for every command, see `arguments.rs`. What a command does is in its own file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::value::{Instant, instant};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Check the policy files without a running sidecar
    Check {
        /// Directory [default: as in the settings]
        dir: Option<PathBuf>,
    },
    /// Run the test cases of a policy without a running sidecar, and say which rules they hold
    Test(PolicyTest),
    /// Explain what a grant would be answered, step by step
    Explain(PolicyExplain),
    /// Show for each grant what a candidate policy would change
    Diff {
        /// Directory of the candidate's files
        #[arg(required_unless_present = "candidate", conflicts_with = "candidate")]
        dir: Option<PathBuf>,
        /// The same, as `policy replay` has it
        #[arg(long, value_name = "DIR")]
        candidate: Option<PathBuf>,
        /// Exit with status 1 when something would change
        #[arg(long)]
        exit_code: bool,
    },
    /// Run a candidate policy beside the one in force, and list what it would have decided otherwise
    Shadow(PolicyShadow),
    /// List the recorded decisions that a candidate policy would change
    Replay(PolicyReplay),
    /// Read the policy files again; all apply together or none does
    Reload,
    /// Print the JSON Schema of a policy file
    Schema {
        /// Of federation.toml instead
        #[arg(long)]
        settings: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyExplain {
    /// Grant id
    #[arg(long)]
    pub(in crate::cli) grant: String,
    /// list, get or capabilities
    #[arg(long)]
    pub(in crate::cli) verb: String,
    /// Resource
    #[arg(long)]
    pub(in crate::cli) resource: Option<String>,
    /// Rows asked for
    #[arg(long)]
    pub(in crate::cli) limit: Option<u64>,
    /// Without asking the gateway: as if the user had no teams
    #[arg(long = "static")]
    pub(in crate::cli) without_facts: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyTest {
    /// Directory of the policy files [default: as in the settings]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Directory of the test cases [default: `tests` in that of the policy files]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) tests: Option<PathBuf>,
    /// Fail when the test cases hold fewer of the rules than this, in percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(in crate::cli) min_coverage: Option<u8>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyShadow {
    /// Directory of the candidate's files; without it, what the one that runs has found
    pub(in crate::cli) dir: Option<PathBuf>,
    /// End it
    #[arg(long, conflicts_with = "dir")]
    pub(in crate::cli) off: bool,
    /// Exit with status 1 when a decision would have been made otherwise
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PolicyReplay {
    /// Directory of the candidate's files
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) candidate: PathBuf,
    /// Decisions of this long ago or later, or of this instant or later: 1h, 30d, 2026-01-02T03:04:05Z
    #[arg(long, value_parser = instant, value_name = "DURATION|TIME", default_value = "7d")]
    pub(in crate::cli) since: Instant,
    /// Only of this grant
    #[arg(long)]
    pub(in crate::cli) grant: Option<String>,
    /// Print each request, not only how many there are of a kind
    #[arg(long)]
    pub(in crate::cli) each: bool,
    /// Exit with status 1 when a decision would change
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
}
