//! The processes that serve from one store: what they tell each other through it.
//!
//! Invariant: a heartbeat writes its row and reads the revision only when that is committed. So whoever commits a change and then
//! finds a row old knows that every heartbeat of it from then on hears of the change. Times are by the database's clock, which
//! all of them share. None of this is an act: it has no revision and no audit row.

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use super::StoreError;

/// What a replica says of itself with each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its id: a new one at each start.
    pub id: Uuid,
    /// Its name, for people.
    pub name: String,
    /// The newest revision that is in force there, gates closed.
    pub applied: u64,
    /// The longest lease it gives, milliseconds.
    pub lease_ms: u64,
    /// How long it serves without a heartbeat, milliseconds.
    pub fence_ms: u64,
    /// For how long leases may still be out that it gave under older revisions, milliseconds.
    pub leases_left_ms: u64,
}

/// A replica as the store knows it. Times are milliseconds of the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its first heartbeat.
    pub started_at: i64,
    /// Its last heartbeat.
    pub heartbeat_at: i64,
    /// The newest revision that it said to be in force.
    pub applied: u64,
    /// The longest lease it gives.
    pub lease_ms: u64,
    /// How long it serves without a heartbeat.
    pub fence_ms: u64,
    /// Until when leases may be out that it gave under older revisions than `applied`.
    pub leases_until: i64,
    /// When it ended in good order.
    pub left_at: Option<i64>,
}

/// All replicas, read at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaTable {
    /// The database's clock.
    pub now: i64,
    /// By the time of their start.
    pub replicas: Vec<ReplicaRecord>,
}

/// The store's part of replicas.
#[async_trait]
pub trait ReplicaStore {
    /// Writes the row of a replica, which it makes when there is none, and then reads the revision. On a connection of its own:
    /// it waits for no act, and dropping the call gives that connection up.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<u64, StoreError>;

    /// All of them, those that have left or are gone too until they are forgotten.
    async fn replicas(&self) -> Result<ReplicaTable, StoreError>;

    /// Notes that a replica has ended in good order: it serves no more, and neither has the store for itself nor shares it.
    async fn leave_replicas(&self, id: Uuid) -> Result<(), StoreError>;

    /// Forgets replicas without a heartbeat for so many milliseconds more than their fence and their leases last; how many.
    async fn forget_replicas(&self, more_ms: i64) -> Result<u64, StoreError>;

    /// Makes a replica the one that does a job for so many milliseconds from now, unless another one is and has not left or ended.
    /// Whether it is. With 0 it gives it up.
    async fn take_job(&self, job: &str, replica: Uuid, for_ms: u64) -> Result<bool, StoreError>;

    /// Tells of commits, as far as the database does, on a connection of its own, until that fails. Nothing may depend on it.
    async fn listen(&self, told: &Notify) -> StoreError;

    /// Whether no other process serves from the store from now on until [`share`](Self::share): then nobody else can change what is
    /// served. Not every database can say so. One that shares it and is refused goes on sharing it.
    async fn keep_alone(&self) -> Result<bool, StoreError>;

    /// Lets others in; false while another process is alone.
    async fn share(&self) -> Result<bool, StoreError>;
}
