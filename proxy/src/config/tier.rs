//! Which tier a sidecar is of, and the servers of the federated one.
//!
//! Invariant: the federated tier has both of its servers.

use super::database::Database;
use super::valkey::Valkey;

/// What answers the sidecar's questions about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tier {
    /// SQLite in the data directory, limits in the process.
    Embedded,
    /// PostgreSQL and Valkey, for any number of processes.
    Federated(Box<Federated>),
}

/// The servers of the federated tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federated {
    /// The store.
    pub database: Database,
    /// The shared limits.
    pub valkey: Valkey,
}
