//! Takes away what revocation lists name: the same act, gates and leases as when an operator revokes a certificate.
//!
//! Invariant: a certificate that a list names is refused from the moment the list is in force; this makes the rows say so
//! too, ends what is under way, and keeps peers' caches to their leases. What could not be written is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use certs::crl::CrlRefusal;
use certs::identity::{fingerprint, issued_by};
use certs::{Clock, CrlReceiver};
use policy::time::UnixMillis;
use tokio::sync::Mutex;

use crate::audit::record_id;
use crate::directory::{Directory, Touched};
use crate::store::{Act, Actor, CertificateState, ListedLeaf, Store};
use crate::telemetry::Metrics;

/// Makes lists effective.
pub struct Effect {
    /// What they name.
    pub lists: CrlReceiver,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// What requests are decided by.
    pub directory: Arc<Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counts what is taken away.
    pub metrics: Arc<Metrics>,
    /// How far it is.
    pub progress: Progress,
}

/// What was taken away so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// One at a time: of two that look at once, the later one could write what the earlier one saw.
    turn: Mutex<()>,
    /// Whether the last try failed.
    pending: AtomicBool,
    /// The revision whose certificates were looked through.
    seen: AtomicU64,
}

impl Effect {
    /// Takes away what the lists in force name.
    pub async fn take(&self) {
        let _one = self.progress.turn.lock().await;
        // Before it is looked at: what comes meanwhile is looked at again.
        let revision = self.directory.view().snapshot.revision();
        let done = self.try_take().await;
        if let Err(error) = &done {
            tracing::error!(%error, "what a revocation list names could not be written down; it is refused all the same, and this is tried again");
        }
        self.progress
            .pending
            .store(done.is_err(), Ordering::Relaxed);
        self.progress.seen.store(revision, Ordering::Relaxed);
    }

    /// Tries again what failed, and looks at what has been registered since: a certificate may be on a list before it is here.
    pub async fn retry(&self) {
        let revision = self.directory.view().snapshot.revision();
        let seen = self.progress.seen.load(Ordering::Relaxed);
        if self.progress.pending.load(Ordering::Relaxed) || revision != seen {
            self.take().await;
        }
    }

    async fn try_take(&self) -> Result<(), String> {
        let listed = self.listed().await?;
        if listed.is_empty() {
            return Ok(());
        }
        let now = UnixMillis(self.clock.unix_millis());
        let act = Act {
            id: record_id(now),
            actor: Actor::Sidecar("crl"),
            now,
        };
        let committed = self.store.revoke_listed(&act, &listed).await;
        let committed = committed.map_err(|error| error.to_string())?;
        if committed.changed {
            let count = committed.value.len();
            tracing::warn!(count, grants = ?committed.value, "a revocation list names certificates that were in use; they are revoked");
            self.metrics.revocation.taken(count);
        }
        self.directory
            .apply(committed.revision, Touched::All)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// The registered certificates that are named and not revoked yet.
    async fn listed(&self) -> Result<Vec<ListedLeaf>, String> {
        let lists = self.lists.load();
        let view = self.directory.view();
        let all = Arc::clone(&lists);
        let look = move || -> Vec<(String, [u8; 32])> {
            view.every_leaf()
                .filter(|leaf| leaf.state != CertificateState::Revoked && all.names(&leaf.serial))
                .map(|leaf| (leaf.serial.to_string(), leaf.fingerprint))
                .collect()
        };
        let named = tokio::task::spawn_blocking(look)
            .await
            .map_err(|error| error.to_string())?;
        let mut listed = Vec::new();
        for (serial, leaf) in named {
            // The number alone says nothing: another issuer may use the same.
            let rows = self.store.standing_of(&serial).await;
            for standing in rows.map_err(|error| error.to_string())? {
                if fingerprint(&standing.der) != leaf {
                    continue;
                }
                let Some((issuer, serial)) = issued_by(&standing.der) else {
                    continue;
                };
                if let Err(CrlRefusal::Revoked(entry)) = lists.check_listed(&issuer, &serial) {
                    listed.push(ListedLeaf {
                        fingerprint: leaf,
                        reason: entry.reason,
                    });
                }
            }
        }
        Ok(listed)
    }
}
