//! The command line of `audit`.
//!
//! Invariant: as for every command, see `arguments.rs`. What a command does is in its own file.

use clap::{Args, Subcommand};

use super::duration;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Print the last rows, and with -f the next ones as they come
    Tail {
        /// Go on as rows come
        #[arg(short, long)]
        follow: bool,
        /// Rows to begin with
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u32,
    },
    /// Look for rows
    Query(AuditLook),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditLook {
    /// Only of this long ago or later: 1h, 30d
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(in crate::cli) since: Option<u32>,
    /// Grant id
    #[arg(long)]
    pub(in crate::cli) grant: Option<String>,
    /// Local name of the peer
    #[arg(long)]
    pub(in crate::cli) peer: Option<String>,
    /// allowed, denied, error or aborted
    #[arg(long)]
    pub(in crate::cli) outcome: Option<String>,
    /// Verb
    #[arg(long)]
    pub(in crate::cli) verb: Option<String>,
    /// Resource
    #[arg(long)]
    pub(in crate::cli) resource: Option<String>,
    /// Request id, ours or the peer's
    #[arg(long)]
    pub(in crate::cli) request_id: Option<String>,
    /// Rows at most, the last ones
    #[arg(long, default_value_t = 100)]
    pub(in crate::cli) limit: u32,
}
