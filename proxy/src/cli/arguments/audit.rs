//! The command line of `audit`.
//!
//! Invariant: as for every command, see `arguments.rs`. What a command does is in its own file.

use std::path::PathBuf;

use ::policy::time::UnixMillis;
use clap::{Args, Subcommand};

use super::super::value::{Instant, instant, time};
use super::duration;

/// A duration, or `0s`.
fn settle(text: &str) -> Result<u32, String> {
    if text == "0s" { Ok(0) } else { duration(text) }
}

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
    /// Tell how a recorded request came to its answer, step by step
    Explain {
        /// Request id, ours or the peer's
        request_id: String,
        /// Look in the archive too
        #[arg(long)]
        historical: bool,
    },
    /// Prove that no row was changed, removed or moved: of the log with its archive, or of an export
    Verify(AuditVerify),
    /// Compare what a peer exported of our grant there with our own record of what we asked
    Reconcile(AuditReconcile),
    /// Write the log to a file that can be verified without the database
    Export {
        /// Only the history of this grant, with no more than its peer may know: for `audit reconcile` there
        #[arg(long, value_name = "GRANT")]
        grant: Option<String>,
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Move old rows from the database into compressed files now, as is done once a day
    Archive(AuditArchive),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditLook {
    /// Only of this long ago or later, or of this instant or later: 1h, 30d, 2026-01-02T03:04:05Z
    #[arg(long, value_parser = instant, value_name = "DURATION|TIME")]
    pub(in crate::cli) since: Option<Instant>,
    /// Only of before this long ago, or before this instant: 1h, 30d, 2026-01-02T03:04:05Z
    #[arg(long, value_parser = instant, value_name = "DURATION|TIME")]
    pub(in crate::cli) until: Option<Instant>,
    /// Grant id
    #[arg(long)]
    pub(in crate::cli) grant: Option<String>,
    /// Local name of the peer
    #[arg(long)]
    pub(in crate::cli) peer: Option<String>,
    /// allowed, denied, rate_limited, error or aborted
    #[arg(long)]
    pub(in crate::cli) outcome: Option<String>,
    /// Code of a refusal; docs/reasons/ has all of them
    #[arg(long)]
    pub(in crate::cli) code: Option<String>,
    /// inbound, outbound or admin
    #[arg(long)]
    pub(in crate::cli) direction: Option<String>,
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
    /// Also rows that were moved into the archive
    #[arg(long)]
    pub(in crate::cli) historical: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArchive {
    /// Rows of before this instant: 2026-01-02T03:04:05Z [default: by `audit.archive_after_days`]
    #[arg(long, value_parser = time, value_name = "TIME", conflicts_with = "older_than")]
    pub(in crate::cli) before: Option<UnixMillis>,
    /// Rows older than this: 12h, 90d
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(in crate::cli) older_than: Option<u32>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditReconcile {
    /// File that `audit export --grant` wrote on the side that serves; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) export: PathBuf,
    /// Local name of the peer that the export has to be of
    #[arg(long)]
    pub(in crate::cli) peer: Option<String>,
    /// Public key that signed the export, hex [default: the one that the peer gave at enrollment]
    #[arg(long, value_name = "HEX")]
    pub(in crate::cli) key: Option<String>,
    /// How long a request may take to be in both logs, and clocks may differ
    #[arg(long, value_parser = settle, value_name = "DURATION", default_value = "60s")]
    pub(in crate::cli) settle: u32,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditVerify {
    /// File that `audit export` wrote; - for standard input [default: the log of the running sidecar]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Public key that signed the export, hex, as `status` shows it on the side that exported
    #[arg(long, value_name = "HEX", requires = "file")]
    pub(in crate::cli) key: Option<String>,
    /// File with the sealing secret of the side that exported: verifies what each row says as well
    #[arg(long, value_name = "FILE", requires = "file")]
    pub(in crate::cli) secret_file: Option<PathBuf>,
}
