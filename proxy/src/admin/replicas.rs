//! The replicas of the store: what acts wait for there, what this process takes over from them, and how it is shown.
//!
//! Invariant: what another replica has changed is in force here before it is told that it is; a part that could not be taken over is
//! reported, and tried again.

use std::sync::Arc;

use ::policy::time::UnixMillis;
use certs::SealPurpose;
use serde::Serialize;

use super::check::CheckView;
use super::{AdminCode, AdminFailure, Control};
use crate::config::Tier;
use crate::gateway::credential::bearer;
use crate::replicas::waiting;
use crate::sealing_secret;

/// A replica, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Whether it is the one that says this.
    pub this: bool,
    /// Since when, by the database's clock.
    pub started_at: UnixMillis,
    /// How long ago it was heard of, by the database's clock, milliseconds. One that has the store for itself says nothing.
    pub silent_ms: i64,
    /// The newest revision it said to have put in force.
    pub applied: u64,
    /// `serving`, `silent` or `left`.
    pub state: &'static str,
}

impl Control {
    /// Keeps outside of the store that it has got so far.
    pub async fn mark(&self, revision: u64) {
        let mark = Arc::clone(&self.high_water);
        if mark.has(revision) {
            return;
        }
        match tokio::task::spawn_blocking(move || mark.raise(revision)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "a restore to before this change would not be noticed");
            }
            Err(error) => {
                tracing::warn!(%error, "a restore to before this change would not be noticed");
            }
        }
    }

    /// The replicas, oldest first.
    pub(super) async fn replica_views(&self) -> Result<Vec<ReplicaView>, AdminFailure> {
        let table = self.replicas.table().await?;
        let own = self.replicas.id();
        let view = |one: &crate::store::ReplicaRecord| {
            let this = one.id == own;
            let alone = this && self.replicas.is_alone();
            ReplicaView {
                name: one.name.clone(),
                id: one.id.to_string(),
                this,
                started_at: UnixMillis(one.started_at),
                silent_ms: if alone {
                    0
                } else {
                    table.now.saturating_sub(one.heartbeat_at)
                },
                applied: if this {
                    self.directory.in_force()
                } else {
                    one.applied
                },
                state: if alone || waiting::may_serve(one, table.now) {
                    "serving"
                } else if one.left_at.is_some() {
                    "left"
                } else {
                    "silent"
                },
            }
        };
        Ok(table.replicas.iter().map(view).collect())
    }

    /// The check of `doctor`.
    pub(super) async fn check_replicas(&self) -> Result<CheckView, AdminFailure> {
        const NAME: &str = "replicas";
        if self.replicas.went_back() {
            return Ok(CheckView::fail(
                NAME,
                "the store went back to an older revision: nothing is served",
                "see docs/operations.md, \"A store that was restored\"; start again with --accept-rollback",
            ));
        }
        let views = self.replica_views().await?;
        let names = |state: &str| -> Vec<String> {
            let of_state = views.iter().filter(|one| one.state == state);
            of_state.map(|one| one.name.clone()).collect()
        };
        let (serving, silent) = (names("serving"), names("silent"));
        if !silent.is_empty() {
            return Ok(CheckView::warn(
                NAME,
                format!("{} serving; silent: {}", serving.len(), silent.join(", ")),
                "it serves nothing until it hears of the store again: see whether it still runs and reaches the database. One that is gone is forgotten after ten minutes",
            ));
        }
        let alone = match (&self.config.tier, self.replicas.is_alone()) {
            (Tier::Embedded, true) => ", which has the store for itself",
            _ => "",
        };
        Ok(CheckView::ok(
            NAME,
            format!("{} serving{alone}", serving.len()),
        ))
    }

    /// Takes over what another replica has changed beside grants and policy; whether all of it was.
    pub async fn follow_others(&self) -> bool {
        let mut whole = true;
        // First: the rest may be sealed with it.
        let source = &self.config.seal;
        let followed = self
            .resealer
            .follow(|key_id| sealing_secret::named(source, key_id));
        if let Err(error) = followed.await {
            whole = false;
            tracing::error!(%error, "the sealing secret of another replica is not in use here: put the next one beside the present one here too");
        }
        if let Some(outbound) = &self.outbound
            && let Err(error) = outbound.load().await
        {
            whole = false;
            tracing::warn!(%error, "what another replica changed of outbound peers is not known here yet");
        }
        if let Err(failure) = self.follow_subject_tokens().await {
            whole = false;
            tracing::warn!(error = %failure.message, "gateway tokens that another replica was given are not known here yet");
        }
        if let Err(failure) = Box::pin(self.follow_rotation()).await {
            whole = false;
            tracing::error!(error = %failure.message, "the trust roots that another replica put in force are not in force here");
        }
        whole
    }

    async fn follow_subject_tokens(&self) -> Result<(), AdminFailure> {
        for (user, since) in self.store.list_subject_tokens().await? {
            if self.followed.lock().get(&user) == Some(&since) {
                continue;
            }
            let Some(stored) = self.store.find_subject_token(&user).await? else {
                continue;
            };
            let broken = |why: String| AdminFailure::new(AdminCode::Unavailable, why);
            let token = self
                .sealer
                .unseal(SealPurpose::SubjectToken, user.as_str(), &stored.sealed)
                .map_err(|error| broken(error.to_string()))?;
            let token = std::str::from_utf8(&token)
                .map_err(|_| broken(format!("the gateway token of `{user}` is damaged")))?;
            self.credentials
                .register(&user, &bearer(token).map_err(broken)?);
            self.followed.lock().insert(user, since);
        }
        Ok(())
    }
}
