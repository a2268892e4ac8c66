//! The revocation canary: a grant of its own, used and revoked every now and then, which shows that revoking works.
//!
//! Invariant: it can read nobody's rows. Its subject is a user of its own that no gateway knows, its scope covers no row,
//! and it asks for `capabilities` only. Its grant is over with every round, whatever becomes of the round; what a killed
//! process left is revoked before the next one, ends by itself within [`LIFE`], and is forgotten with all its rows once its
//! certificate has run out. In the audit log it goes by the peer [`PEER`], the request id [`REQUEST_ID`] and the actor
//! `sidecar:revocation-canary`.

mod connections;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::policy::grant::{Grant, GrantStatus};
use ::policy::id::GrantId;
use ::policy::peer::PeerName;
use ::policy::time::UnixMillis;
use certs::{Credential, PrivateKey};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;

use super::{AdminFailure, Control, CreateGrant, RevokeGrant};
use crate::directory::Touched;
use crate::enrollment::{EnrollmentToken, Redeemer};
use crate::store::{Actor, NewToken, PeerDirection};
use crate::telemetry::Metrics;

/// The local name of its peer, which no other peer may have.
pub const PEER: &str = "revocation-canary";
/// The user whose data its grants open: none that a gateway knows.
const USER: &str = "mosaic-revocation-canary";
/// The request id of its questions.
pub const REQUEST_ID: &str = "revocation-canary";
const ACTOR: Actor = Actor::Sidecar("revocation-canary");
/// How long its grants last, if nobody revokes them; their certificates end with them.
const LIFE: Duration = Duration::from_secs(600);

/// The part of a round that failed, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryStep {
    /// What an earlier round left could not be ended.
    CleanUp,
    /// No grant or no certificate.
    Issue,
    /// It was not answered before it was revoked.
    Use,
    /// Revoking did not return success.
    Revoke,
    /// Something was answered after revoking had returned, or it could not be seen that nothing is. Everything else is a
    /// fault; this may be a breach, and the cause says.
    StillAnswered,
}

impl CanaryStep {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CleanUp,
        Self::Issue,
        Self::Use,
        Self::Revoke,
        Self::StillAnswered,
    ];

    /// The label in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CleanUp => "clean_up",
            Self::Issue => "issue",
            Self::Use => "use",
            Self::Revoke => "revoke",
            Self::StillAnswered => "still_answered",
        }
    }
}

/// A round that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the revocation canary failed at {}: {why}", .step.as_str())]
pub struct CanaryFailure {
    /// When.
    pub at: UnixMillis,
    /// At what.
    pub step: CanaryStep,
    /// Why.
    pub why: String,
}

/// A round that showed that revoking works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CanaryRound {
    /// When.
    pub at: UnixMillis,
    /// From the beginning of the act until it had returned and each connection was seen to be refused, milliseconds.
    pub latency_ms: u64,
    /// How much of that revoking waited for leases, milliseconds.
    pub waited_ms: u64,
}

/// What `status` shows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CanaryView {
    /// Between two rounds, seconds; `null` when it is off.
    pub every_s: Option<u64>,
    /// Rounds that worked, since the start.
    pub rounds: u64,
    /// Rounds that failed, since the start.
    pub failures: u64,
    /// The last round that worked.
    pub last: Option<CanaryRound>,
    /// The last round, when it failed.
    pub failure: Option<CanaryFailure>,
}

/// What it works with besides the operations.
pub struct Canary {
    redeemer: Arc<Redeemer>,
    metrics: Arc<Metrics>,
    state: Mutex<CanaryView>,
    /// Held for a round and for cleaning up: two at once would end each other's grants.
    round: tokio::sync::Mutex<()>,
    /// Whether every grant of its peer was seen to be its own since the start. From then on nobody else can make one.
    is_alone: AtomicBool,
}

impl Canary {
    /// One that enrolls through `redeemer` every so often; `None` when it is off.
    #[must_use]
    pub fn new(redeemer: Arc<Redeemer>, metrics: Arc<Metrics>, every: Option<Duration>) -> Self {
        let state = CanaryView {
            every_s: every.map(|every| every.as_secs()),
            ..CanaryView::default()
        };
        Self {
            redeemer,
            metrics,
            state: Mutex::new(state),
            round: tokio::sync::Mutex::new(()),
            is_alone: AtomicBool::new(false),
        }
    }

    /// What `status` shows.
    #[must_use]
    pub fn view(&self) -> CanaryView {
        self.state.lock().clone()
    }
}

/// Why a round is over before its end.
struct Broken(CanaryStep, String);

fn broken<E: std::fmt::Display>(step: CanaryStep) -> impl Fn(E) -> Broken {
    move |error| Broken(step, error.to_string())
}

impl Control {
    /// One round: a grant is made, enrolled, used and revoked, and then each kind of connection must be refused: one that
    /// was kept, one of HTTP/2, a fresh one, and one that tries to take up an earlier session.
    ///
    /// # Errors
    /// [`CanaryFailure`], which is also counted, logged and shown in `status`. `None` when this process serves nobody.
    pub async fn run_canary(&self) -> Option<Result<CanaryRound, CanaryFailure>> {
        let canary = self.canary.as_ref()?;
        let _one = canary.round.lock().await;
        let result = self
            .canary_round(canary)
            .await
            .map_err(|Broken(step, why)| CanaryFailure {
                at: self.now(),
                step,
                why,
            });
        let mut state = canary.state.lock();
        match &result {
            Ok(round) => {
                tracing::debug!(
                    latency_ms = round.latency_ms,
                    "the revocation canary was revoked"
                );
                canary
                    .metrics
                    .drills()
                    .canary_revoked(Duration::from_millis(round.latency_ms));
                state.rounds += 1;
                state.last = Some(*round);
                state.failure = None;
            }
            Err(failure) => {
                tracing::error!(
                    step = failure.step.as_str(),
                    why = failure.why,
                    "the revocation canary failed"
                );
                canary.metrics.drills().canary_failed(failure.step.as_str());
                state.failures += 1;
                state.failure = Some(failure.clone());
            }
        }
        Some(result)
    }

    /// Ends what earlier rounds left, also those of a process that was killed, and forgets what has run out. Does nothing
    /// where there never was a round.
    ///
    /// # Errors
    /// When the store fails, or a peer of that name is not the canary's.
    pub async fn clean_up_canary(&self) -> Result<(), AdminFailure> {
        // A round that has just begun is not one that was left.
        let _one = match &self.canary {
            Some(canary) => Some(canary.round.lock().await),
            None => None,
        };
        self.end_left_rounds().await
    }

    async fn end_left_rounds(&self) -> Result<(), AdminFailure> {
        let peers = self.store.list_peers().await?;
        let mine = |peer: &&crate::store::PeerRecord| {
            peer.direction == PeerDirection::Inbound && peer.name.as_str() == PEER
        };
        let peers: Vec<_> = peers.iter().filter(mine).collect();
        if peers.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let is_alone = self.canary.as_ref().map(|canary| &canary.is_alone);
        let grants: Vec<Grant> = if is_alone.is_some_and(|alone| alone.load(Ordering::Relaxed)) {
            // What may still be open is in what requests are decided by.
            let view = self.directory.view();
            let open = view
                .snapshot
                .grants()
                .filter(|entry| peers.iter().any(|peer| peer.id == entry.grant.peer));
            open.map(|entry| entry.grant.clone()).collect()
        } else {
            let records = self.store.list_grants().await?;
            records.into_iter().map(|record| record.grant).collect()
        };
        for peer in peers {
            for grant in grants.iter().filter(|grant| grant.peer == peer.id) {
                if grant.user.as_str() != USER {
                    return Err(AdminFailure::invalid(format!(
                        "the peer `{PEER}` has a grant for `{}`, so it is not the canary's",
                        grant.user
                    ))
                    .hint("remove that peer and add it again under another name, or switch the canary off"));
                }
                if matches!(
                    grant.status_at(now),
                    GrantStatus::Pending | GrantStatus::Active
                ) {
                    self.end_canary(grant.id, "left by an earlier round")
                        .await?;
                }
            }
            let committed = self
                .store
                .forget_grants(&self.act(&ACTOR), peer.id, now)
                .await?;
            if committed.changed {
                self.apply(committed, Touched::Peer(peer.id)).await?;
            }
        }
        if let Some(alone) = is_alone {
            alone.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn canary_round(&self, canary: &Canary) -> Result<CanaryRound, Broken> {
        self.end_left_rounds()
            .await
            .map_err(broken(CanaryStep::CleanUp))?;
        let request = CreateGrant {
            user: USER.to_owned(),
            peer: PEER.to_owned(),
            scope: json!({
                "resources": ["tasks"],
                "filters": {"tasks": {"include_teams": [], "include_personal": false}},
                "max_rows_per_query": 1,
            }),
            expires_at: None,
            expires_in_s: u32::try_from(LIFE.as_secs()).ok(),
        };
        let grant = self
            .create_grant(&ACTOR, request)
            .await
            .map_err(broken(CanaryStep::Issue))?
            .id;
        let round = self.use_and_revoke(canary, grant).await;
        if round.is_err() {
            // Whatever went wrong, it does not stay open; the next round looks again.
            if let Err(error) = self.end_canary(grant, "the round failed").await {
                tracing::warn!(%error, "the grant of the revocation canary could not be ended");
            }
        }
        round
    }

    async fn end_canary(&self, grant: GrantId, why: &str) -> Result<u64, AdminFailure> {
        let request = RevokeGrant {
            reason: Some(format!("revocation canary: {why}")),
        };
        let applied = self
            .revoke_grant(&ACTOR, &grant.to_string(), request)
            .await?;
        Ok(applied.waited_ms)
    }

    async fn use_and_revoke(&self, canary: &Canary, grant: GrantId) -> Result<CanaryRound, Broken> {
        let credential = self.enroll_canary(canary, grant).await?;
        let mut connections = self
            .connect_canary(&credential)
            .await
            .map_err(broken(CanaryStep::Use))?;
        let began = self.clock.boot_nanos();
        let waited_ms = self
            .end_canary(grant, "the round")
            .await
            .map_err(broken(CanaryStep::Revoke))?;
        connections
            .are_refused()
            .await
            .map_err(broken(CanaryStep::StillAnswered))?;
        let took = self.clock.boot_nanos().saturating_sub(began);
        Ok(CanaryRound {
            at: self.now(),
            latency_ms: took.div_ceil(1_000_000),
            waited_ms,
        })
    }

    async fn enroll_canary(&self, canary: &Canary, grant: GrantId) -> Result<Credential, Broken> {
        let failed = CanaryStep::Issue;
        let token = EnrollmentToken::draw().map_err(broken(failed))?;
        let act = self.act(&ACTOR);
        let new = NewToken {
            grant,
            sha256: token.sha256(),
            prefix: token.prefix().to_owned(),
            expires_at: act.now.saturating_add(60_000),
        };
        let committed = self
            .store
            .create_token(&act, new)
            .await
            .map_err(broken(failed))?;
        self.apply(committed, Touched::Grant(grant))
            .await
            .map_err(broken(failed))?;
        let key = PrivateKey::generate_p256().map_err(broken(failed))?;
        let csr = key.csr_pem(PEER).map_err(broken(failed))?;
        let redeemed = canary
            .redeemer
            .redeem(token.expose(), &csr)
            .await
            .map_err(broken(failed))?;
        let chain = redeemed.cert_chain_pem.as_bytes();
        Credential::from_pem(chain, key.to_pem().as_bytes()).map_err(broken(failed))
    }
}

/// Whether the canary alone may use this name for a peer that asks us.
pub(super) fn is_reserved(name: &PeerName, actor: &Actor) -> bool {
    name.as_str() == PEER && *actor != ACTOR
}
