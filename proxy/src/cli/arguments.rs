//! The command line as it is written.
//!
//! Invariant: no argument takes a secret that a variable, a file or standard input can carry instead, except
//! `query --token`, which has the variable as its usual form. What a command does is in its own file.

mod audit;
mod keys;
mod policy;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::value::{duration, key_value, loopback_url};
use crate::admin::REVOKE_REASONS;
use ::policy::time::UnixMillis;
use certs::crl::RevocationReason;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use audit::{AuditArchive, AuditCommand, AuditLook, AuditReconcile, AuditVerify};
pub(super) use keys::{KeysCommand, ResealCommand};
pub(super) use policy::{PolicyCommand, PolicyExplain, PolicyReplay, PolicyShadow, PolicyTest};
pub(super) use store::StoreCommand;

/// Federation between gateways: what peers may see of ours, and what we see of theirs.
#[derive(Debug, Parser)]
#[command(
    name = "mosaic-federation",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(super) struct Cli {
    /// Settings file [default: ./federation.toml, then /etc/mosaic-federation/federation.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MOSAIC_FEDERATION_CONFIG",
        hide_env_values = true
    )]
    pub(super) config: Option<PathBuf>,
    /// Override one key of the settings; may be repeated
    #[arg(long = "set", global = true, value_name = "SECTION.KEY=VALUE", value_parser = key_value)]
    pub(super) overrides: Vec<(String, String)>,
    /// Admin socket of the running sidecar [default: as in the settings]
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) admin_socket: Option<PathBuf>,
    /// Print one JSON document instead of tables; errors too, on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the sidecar
    Serve {
        /// Start on a store that is older than it was, with every peer suspended
        #[arg(long)]
        accept_rollback: bool,
        /// Take over the listening sockets of the sidecar that runs with this data directory, which ends when this one is ready
        #[arg(long)]
        upgrade: bool,
    },
    /// Show two gateways and two sidecars on this machine, from onboarding to revocation
    Demo {
        /// Program that stands in for both gateways [default: reference-gateway beside this program]
        #[arg(long, value_name = "FILE")]
        gateway_binary: Option<PathBuf>,
        /// Leave everything running until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
    /// Check settings, policy and a running sidecar; say what to do
    Doctor,
    /// Show listeners, policy, peers and grants
    Status {
        /// Show it again and again, until Ctrl-C
        #[arg(long)]
        watch: bool,
        /// How often, with --watch: 2s, 1m
        #[arg(long, default_value = "2s", value_parser = duration, requires = "watch")]
        every: u32,
    },
    /// What peers may see of ours
    #[command(subcommand)]
    Grant(GrantCommand),
    /// The other sides
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Certificates: ours, and those we issued
    #[command(subcommand)]
    Cert(CertCommand),
    /// Users of this side whom peers may ask as
    #[command(subcommand)]
    User(UserCommand),
    /// Local sessions that may ask peers
    #[command(subcommand)]
    Session(SessionCommand),
    /// Ask the own gateway and peers through the session door
    #[command(subcommand)]
    Query(QueryCommand),
    /// Read the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The rules
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The local gateway
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// The secret that everything else is sealed with
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Where the state is
    #[command(subcommand)]
    Store(StoreCommand),
    /// The embedded certificate authority
    #[command(subcommand)]
    Ca(CaCommand),
    /// Serve the session door to an agent as a Model Context Protocol server on standard input and output
    Mcp(McpDoor),
    /// Ask the ops listener whether the sidecar lives
    Healthcheck,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GrantCommand {
    /// Make a pending grant and print its id
    Create(GrantCreate),
    /// List all grants
    List,
    /// Show one grant with its scope and certificates
    Show {
        /// Grant id
        id: String,
    },
    /// Give a grant another scope; returns when nothing is answered under the old one any more
    Edit {
        /// Grant id
        id: String,
        /// File with the whole new scope, JSON; - for standard input
        #[arg(long, value_name = "FILE")]
        scope: PathBuf,
    },
    /// Revoke a grant; returns when nothing is answered under it any more
    Revoke {
        /// Grant id
        id: String,
        /// Why, kept with the grant
        #[arg(long)]
        reason: Option<String>,
    },
    /// Print an enrollment URL for a grant
    Token {
        /// Grant id
        id: String,
        /// Life of the token, seconds [default: as in the settings]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=900))]
        ttl: Option<u32>,
        /// Revoke the grant's certificates and enroll anew
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct GrantCreate {
    /// Local user whose data it opens, as the gateway names them
    #[arg(long)]
    pub(super) user: String,
    /// Local name of the peer; made when new
    #[arg(long, value_name = "NAME")]
    pub(super) peer: String,
    /// File with the scope, JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) scope: PathBuf,
    /// When it ends, RFC 3339
    #[arg(long, value_name = "INSTANT", conflicts_with = "expires_in")]
    pub(super) expires: Option<UnixMillis>,
    /// When it ends, from now: 30d, 12h, 15m, 900s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) expires_in: Option<u32>,
}

/// Which side asks.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Direction {
    /// It asks us
    Inbound,
    /// We ask it
    Outbound,
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Redeem an enrollment URL, so that the peer can be asked
    Add(PeerAdd),
    /// Take over peers of an upstream gateway, with the keys it has sealed
    Import(PeerImport),
    /// List all peers
    List,
    /// Show one peer with its credentials or grants
    Show(PeerNamed),
    /// Answer and ask a peer nothing until it is resumed
    Suspend(PeerNamed),
    /// End a suspension
    Resume(PeerNamed),
    /// End a peer for good: revoke its grants, or forget the keys it gave us; its name is free again
    Remove {
        /// Which
        #[command(flatten)]
        peer: PeerNamed,
        /// Why, kept with each grant
        #[arg(long)]
        reason: Option<String>,
    },
    /// Ask a peer again at once, although its breaker is open
    Reset {
        /// Local name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Revoke every grant in which a user is the subject; returns when nothing is answered under them any more
    Forget {
        /// The user, as the gateway names them
        user: String,
        /// Why, kept with each grant
        #[arg(long)]
        reason: Option<String>,
    },
}

/// The reasons for which a certificate may be revoked.
fn revoke_reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(REVOKE_REASONS.map(RevocationReason::as_str))
}

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// List the server's, the authority's, those we ask with and those we issued
    List,
    /// Renew those we ask with now, instead of when they are due
    Renew {
        /// Only for this peer
        #[arg(long, value_name = "NAME")]
        peer: Option<String>,
    },
    /// Revoke one that we issued; returns when nothing is answered under it any more
    Revoke {
        /// Serial number
        serial: String,
        /// Why, as revocation lists and OCSP say it [default: not said]
        #[arg(long, value_parser = revoke_reasons())]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct PeerNamed {
    /// Local name
    pub(super) name: String,
    /// Which of two peers with that name
    #[arg(long, value_enum)]
    pub(super) direction: Option<Direction>,
}

#[derive(Debug, Args)]
pub(super) struct PeerAdd {
    /// Enrollment URL; - reads it from standard input
    pub(super) url: String,
    /// Local user who will ask
    #[arg(long)]
    pub(super) user: String,
    /// Local name for the peer
    #[arg(long)]
    pub(super) name: String,
    /// Where to ask it, when not on the host of the enrollment URL
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,
    /// SHA-256 of the enrollment listener's root, for a URL without it
    #[arg(long, value_name = "HEX", conflicts_with = "trust_root")]
    pub(super) fingerprint: Option<String>,
    /// File with that root, PEM
    #[arg(long, value_name = "FILE")]
    pub(super) trust_root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PeerImport {
    /// Export of the table federation_peers, CSV with a header or JSON; - for standard input
    pub(super) file: PathBuf,
    /// Local user who will ask
    #[arg(long)]
    pub(super) user: String,
    /// File with the root that the peers' servers are known by, PEM
    #[arg(long, value_name = "FILE")]
    pub(super) trust_root: PathBuf,
    /// File with the gateway's BETTER_AUTH_SECRET
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    pub(super) secret_file: Option<PathBuf>,
    /// Environment variable with it
    #[arg(long, value_name = "NAME")]
    pub(super) secret_env: Option<String>,
    /// Local name of one of them [default: its common name]; may be repeated
    #[arg(long = "name", value_name = "COMMON_NAME=NAME", value_parser = key_value)]
    pub(super) names: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Make a session and print its token once
    Create {
        /// Local user it acts for
        #[arg(long)]
        user: String,
        /// Life of the session: 12h, 15m, 900s
        #[arg(long, default_value = "12h", value_parser = duration)]
        ttl: u32,
    },
    /// List sessions, newest first; those that are over too with --all
    List {
        /// Also those that were ended or have expired
        #[arg(long)]
        all: bool,
    },
    /// End a session; its token is refused from the next request on
    End {
        /// Session id
        id: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Asker {
    /// Who is asked: local, all, or federated:PEER
    #[arg(long, default_value = "all")]
    pub(super) source: String,
    /// Short for --source federated:NAME
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    pub(super) peer: Option<String>,
    /// Session token
    #[arg(
        long,
        env = "MOSAIC_SESSION_TOKEN",
        hide_env_values = true,
        conflicts_with = "user"
    )]
    pub(super) token: Option<String>,
    /// Ask as this local user, with a short session made through the admin socket
    #[arg(long)]
    pub(super) user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum QueryCommand {
    /// List rows of a resource
    List(QueryList),
    /// Show one row
    Get {
        /// Resource
        resource: String,
        /// Row id
        id: String,
        #[command(flatten)]
        asker: Asker,
    },
    /// Search the rows of a peer, best first
    Search(QuerySearch),
    /// Show what can be asked
    Capabilities {
        #[command(flatten)]
        asker: Asker,
    },
}

#[derive(Debug, Args)]
pub(super) struct QueryList {
    /// Resource
    pub(super) resource: String,
    #[command(flatten)]
    pub(super) asker: Asker,
    /// Rows per answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: Option<u32>,
    /// Only rows with this value; may be repeated
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) filters: Vec<(String, String)>,
    /// Go on where an earlier answer ended
    #[arg(long)]
    pub(super) cursor: Option<String>,
    /// Go on until there is no more
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct McpDoor {
    /// Session token
    #[arg(long, env = "MOSAIC_SESSION_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Unix socket of the session door [default: as in the settings]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub(super) socket: Option<PathBuf>,
    /// TCP form of the session door: http://127.0.0.1:8480
    #[arg(long, value_name = "URL", value_parser = loopback_url)]
    pub(super) url: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(super) struct QuerySearch {
    /// Words, "phrases" and beginnings of words*
    pub(super) query: String,
    #[command(flatten)]
    pub(super) asker: Asker,
    /// Only in this resource; may be repeated [default: all that the grant allows]
    #[arg(long = "resource", value_name = "RESOURCE")]
    pub(super) resources: Vec<String>,
    /// Rows of the answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum GatewayCommand {
    /// Ask the gateway as each known user and see that they are kept apart
    Check,
    /// Users' own gateway tokens
    #[command(subcommand)]
    Token(GatewayTokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum GatewayTokenCommand {
    /// Register a user's token, read from standard input or a file
    Set {
        /// User, as the gateway names them
        #[arg(long)]
        user: String,
        /// File with the token [default: standard input]
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Make the authority if there is none, and print its fingerprint
    Init,
    /// Print the root certificate, PEM
    Export,
    /// Exchange the root for another one, step by step
    #[command(subcommand)]
    Rotate(RotateCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum RotateCommand {
    /// Make the next root; nobody trusts it yet
    Plan,
    /// Trust both roots, tell peers at their next contact, issue their certificates from the next one
    Apply,
    /// Show who has not followed yet
    Status,
    /// Trust the next root alone; refused while somebody has not followed
    Finish {
        /// Leave those behind who have not followed: they must enroll again
        #[arg(long)]
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
