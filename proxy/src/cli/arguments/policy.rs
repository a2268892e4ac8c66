//! The command line of `policy`.
//!
//! Invariant: as for every command, see `arguments.rs`. What a command does is in its own file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
