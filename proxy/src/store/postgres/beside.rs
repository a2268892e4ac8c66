//! What a process has beside its pools: a connection for heartbeats, and one that listens for commits.
//!
//! Invariant: neither is of a pool, so no act and no reader keeps a heartbeat waiting, and one that hangs is given up alone.

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::Notify;

use super::super::StoreError;
use super::dialect::driver;
use super::{PostgresOptions, PostgresStore};

/// How those connections are made.
pub(super) struct Beside {
    connect: PgConnectOptions,
    channel: String,
}

impl Beside {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        Self {
            connect: options.by_hand(),
            channel: format!("mosaic_federation_{}", options.schema),
        }
    }
}

impl PostgresStore {
    pub(super) async fn connect_direct(
        &self,
        held: Option<PgConnection>,
    ) -> Result<PgConnection, StoreError> {
        match held {
            Some(connection) => Ok(connection),
            None => self.beside.connect.connect().await.map_err(driver),
        }
    }

    /// Tells of each commit until the connection fails.
    pub(super) async fn hear(&self, told: &Notify) -> StoreError {
        let listening = async {
            // A pool for one connection: the driver's listener wants one.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .connect_lazy_with(self.beside.connect.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&self.beside.channel).await?;
            // What was committed before it listened.
            told.notify_one();
            while listener.try_recv().await?.is_some() {
                told.notify_one();
            }
            Ok::<_, sqlx::Error>(())
        };
        match listening.await {
            Ok(()) => StoreError::Unavailable {
                why: "the connection that listens for commits was closed".to_owned(),
            },
            Err(error) => driver(error),
        }
    }

    /// Never: who else is connected to a server cannot be known.
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "another database can say"
    )]
    pub(super) const fn lock_alone(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    #[allow(clippy::unused_self, reason = "another database has a lock")]
    pub(super) const fn unlock(&self) {}

    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "another database may have to wait"
    )]
    pub(super) const fn lock_shared(&self) -> Result<bool, StoreError> {
        Ok(true)
    }
}
