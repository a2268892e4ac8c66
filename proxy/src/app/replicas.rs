//! This process as a replica: registered before anything is loaded, serving behind its fence, and leaving last.
//!
//! Invariant: heartbeats go on until the last request has been answered; only then is it said that this replica is gone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use policy::peer::PeerState;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Base, StartError};
use crate::admin::Control;
use crate::directory::Directory;
use crate::replicas::{
    Follow, HighWater, JoinError, Mark, Member, ReplicaTerms, Replicas, Rollback, default_name,
};
use crate::store::{PeerDirection, StoreError};

/// Between two marks that no act waits for.
const BETWEEN_MARKS: Duration = Duration::from_secs(1);

/// The replica of a process, and its heartbeats.
pub(super) struct Replica {
    /// What others of the process use.
    pub(super) replicas: Arc<Replicas>,
    /// Ends with the value.
    task: JoinSet<()>,
}

/// Refuses a store that is older than it was, or takes it with every peer suspended, as the start was told to.
pub(super) async fn guard(base: &Base) -> Result<Arc<HighWater>, StartError> {
    let store = base.store.store_id().await?;
    let mark = HighWater::in_dir(&base.config.data_dir, store, Arc::clone(&base.sealer));
    let found = base.store.revision().await?;
    if let Mark::Revision(mark) = mark.read()?
        && found < mark
    {
        if base.circumstances.rollback == Rollback::Refuse {
            return Err(StartError::RolledBack { found, mark });
        }
        let suspended = suspend_all(base).await?;
        tracing::error!(
            found,
            mark,
            suspended,
            "the store is older than it was: every peer is suspended until `peer resume`"
        );
    }
    // Lower than it was, where that was accepted.
    let mark = Arc::new(mark);
    let (raised, revision) = (Arc::clone(&mark), base.store.revision().await?);
    tokio::task::spawn_blocking(move || raised.raise(revision))
        .await
        .map_err(|error| StartError::Internal(error.to_string()))??;
    Ok(mark)
}

async fn suspend_all(base: &Base) -> Result<usize, StartError> {
    let mut suspended = 0_usize;
    for peer in base.store.list_peers().await? {
        let ended = matches!(peer.state, PeerState::Revoked | PeerState::Suspended);
        if peer.direction == PeerDirection::Inbound && !ended {
            let _ = base.store.suspend_peer(&base.act(), peer.id).await?;
            suspended = suspended.saturating_add(1);
        }
    }
    Ok(suspended)
}

/// Keeps the mark up with the store. Acts that take something away do not return before it is.
pub(super) async fn mark(control: Arc<Control>, mut stop: watch::Receiver<bool>) {
    let mut revisions = control.directory.revisions();
    loop {
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
        control.mark(control.directory.in_force()).await;
        // Many changes at once are one mark.
        let stopped = stop.wait_for(|stop| *stop);
        if tokio::time::timeout(BETWEEN_MARKS, stopped).await.is_ok() {
            return;
        }
    }
}

/// Registers this process.
pub(super) async fn join(base: &Base) -> Result<Member, StartError> {
    let config = &base.config;
    let terms = ReplicaTerms {
        name: config.replicas.name.clone().unwrap_or_else(default_name),
        fence: config.replicas.fence,
        lease: config.lease.duration,
        wait: config.lease.wait,
    };
    let joined = Member::join(
        Arc::clone(&base.store),
        Arc::clone(&base.clock),
        Arc::clone(&base.metrics),
        Arc::clone(&base.fence),
        terms,
    );
    joined.await.map_err(|error| match error {
        JoinError::Store(error) => StartError::Store(error),
        not_let_in @ JoinError::NotLetIn => StartError::Internal(not_let_in.to_string()),
    })
}

impl Replica {
    /// Begins to serve what was loaded.
    pub(super) async fn begin(
        member: Member,
        directory: &Arc<Directory>,
    ) -> Result<Self, StartError> {
        let replicas = Replicas::begin(member, Arc::clone(directory)).await;
        let replicas = replicas.map_err(|why| {
            StartError::Store(StoreError::Unavailable {
                why: format!("this process could not become a replica: {why}"),
            })
        })?;
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&replicas).run());
        Ok(Self { replicas, task })
    }

    /// Ends it, once nothing is answered any more.
    pub(super) async fn leave(mut self) {
        self.task.shutdown().await;
        self.replicas.leave().await;
    }
}

/// Follows what other replicas change beside grants and policy.
pub(super) struct Following(pub(super) Weak<Control>);

#[async_trait]
impl Follow for Following {
    async fn follow(&self) -> bool {
        match self.0.upgrade() {
            Some(control) => control.follow_others().await,
            None => true,
        }
    }
}
