//! What operators can do, and the socket they do it through.
//!
//! Invariant: a change is committed by the store, together with its audit record, and then applied by the
//! directory before it is reported as done (the specification, section 8). An operation never answers with a
//! secret, except the one-time ones it exists to hand out: an enrollment URL, a session token.
//!
//! The operations are methods of [`Control`], by noun in their own files; `routes.rs` is their HTTP form and
//! `socket.rs` the unix socket. The command line is in `cli` and talks to the socket only.

mod archive;
mod archiver;
mod audit;
mod authority_check;
mod canary;
mod candidate;
mod certificates;
mod check;
mod explained;
mod failure;
mod gateway;
mod grants;
mod history;
mod import;
mod keys;
mod peers;
mod policy;
mod replicas;
mod resealer;
mod revocation;
mod rotation;
mod routes;
mod secret_body;
mod sessions;
mod shadow;
mod socket;
mod status;
mod users;
mod verify;
mod views;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ::policy::id::{GrantId, PeerId, UserId};
use ::policy::time::UnixMillis;
use certs::{CertificateAuthority, Clock, Sealer, StepCa};
use parking_lot::Mutex;
use uuid::{NoContext, Timestamp, Uuid};

use crate::audit::AuditState;
use crate::config::{Config, PublicUrl};
use crate::directory::{Applied, Directory, Touched, Unsettled};
use crate::gateway::GatewayClient;
use crate::gateway::credential::SubjectCredentials;
use crate::hardening::Hardening;
use crate::inbound::self_attack::SelfAttackView;
use crate::inbound::shadow::PolicyShadow;
use crate::limit::Limits;
use crate::outbound::Outbound;
use crate::replicas::{HighWater, Replicas};
use crate::revocation::{Lists, PublishedCrl};
use crate::server_certificate::ServerCertificate;
use crate::store::{Act, Actor, Committed, Store};

pub use archive::{ArchiveAudit, ArchivedAudit, ArchivedFile};
pub use archiver::{ArchiveError, ArchiveStep, Archiver, Due};
pub use audit::AuditQuery;
pub use canary::{Canary, CanaryFailure, CanaryRound, CanaryStep, CanaryView};
pub use candidate::{
    ChangedDecision, ComparePolicy, GrantDiff, PolicyDiff, ReplayPolicy, ReplayedPage,
};
pub use certificates::{
    CertificateRow, REVOKE_REASONS, RenewCertificates, RenewedView, RevokeCertificate, RevokedView,
};
pub use check::{CheckOutcome, CheckView};
pub use explained::{ExplainedRequest, ReasonView};
pub use failure::{AdminCode, AdminFailure};
pub use gateway::{GatewayCheck, SubjectCheck};
pub use grants::{
    CreateGrant, CreateToken, EditGrant, EditedGrant, GrantDetail, RevokeGrant, TokenView,
};
pub use history::{AskedHead, ExportBroken, ShownPlace, WitnessedView, read_asked};
pub use import::{ImportPeers, ImportedRow, ImportedView, RefusedRow};
pub use keys::{FinishReseal, SealedRowsView, SealingView};
pub use peers::{AddPeer, AddedView, PeerDetail, RemovePeer};
pub use policy::{Explain, Explanation, StepView};
pub use replicas::ReplicaView;
pub use resealer::{RESEAL_BATCH, ResealError, ResealStep, Resealer};
pub use revocation::{PublishedView, RevocationView};
pub use rotation::{
    CA_SECRET, FinishRotation, Follower, RootView, Rotation, RotationView, new_authority,
};
pub use routes::router;
pub use secret_body::secret_json;
pub use sessions::{CreateSession, SessionView};
pub use shadow::{ShadowDifference, ShadowView, StartShadow};
pub use socket::{SocketError, bind, bind_private, serve};
pub use status::StatusView;
pub use users::{ForgetUser, ForgottenView};
pub use verify::{FindingView, VerifiedAudit};
pub use views::{CertificateView, CredentialView, GrantView, PeerView, audit_row, days_left};

/// Where this process really listens: ports the system chose are known only now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The federation listener.
    pub federation: Option<SocketAddr>,
    /// The enrollment listener.
    pub enrollment: Option<SocketAddr>,
    /// The session door's TCP form.
    pub session: Option<SocketAddr>,
    /// Metrics and health.
    pub ops: Option<SocketAddr>,
}

/// Everything the operations work on.
pub struct Control {
    /// The settings.
    pub config: Arc<Config>,
    /// The durable truth.
    pub store: Arc<dyn Store>,
    /// The audit log of this process.
    pub audit: AuditState,
    /// What moves its old rows away.
    pub archiver: Archiver,
    /// What requests are decided by.
    pub directory: Arc<Directory>,
    /// This process among the replicas of the store.
    pub replicas: Arc<Replicas>,
    /// Gateway tokens that were taken over from the store, and since when it has them.
    pub followed: Mutex<HashMap<UserId, UnixMillis>>,
    /// How far the store had got, outside of it.
    pub high_water: Arc<HighWater>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Seals gateway tokens.
    pub sealer: Arc<Sealer>,
    /// Changes the sealing secret.
    pub resealer: Resealer,
    /// Who issues certificates to peers.
    pub ca: Arc<dyn CertificateAuthority>,
    /// Rotates the embedded root.
    pub rotation: Rotation,
    /// Who signs for peers, where that is a step-ca.
    pub step: Option<Arc<StepCa>>,
    /// Our own revocation list, when our own authority signs for peers.
    pub published: Option<Arc<PublishedCrl>>,
    /// Revocation lists in force.
    pub lists: Arc<Lists>,
    /// The client of the local gateway.
    pub gateway: Arc<GatewayClient>,
    /// As whom the gateway is asked.
    pub credentials: Arc<SubjectCredentials>,
    /// The asking side; `None` when `roles.ask` is off.
    pub outbound: Option<Arc<Outbound>>,
    /// Where this process listens.
    pub addresses: Addresses,
    /// Where peers enroll, with the real port; `None` when `roles.serve` is off.
    pub enrollment_url: Option<PublicUrl>,
    /// How much may be asked.
    pub limits: Arc<Limits>,
    /// Compares decisions with those of another policy.
    pub shadow: Arc<PolicyShadow>,
    /// The certificate of our listeners; `None` when `roles.serve` is off.
    pub server_certificate: Option<Arc<ServerCertificate>>,
    /// Why the last `policy reload` failed, and when; cleared by one that works.
    pub policy_failure: Mutex<Option<PolicyFailure>>,
    /// What this process has given up.
    pub hardening: Hardening,
    /// What became of the attack on the own listener at start; `None` when there was none.
    pub self_attack: Option<SelfAttackView>,
    /// The revocation canary; `None` when `roles.serve` is off.
    pub canary: Option<Canary>,
}

/// A policy that was not loaded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PolicyFailure {
    /// When.
    pub at: UnixMillis,
    /// Why, one line per problem.
    pub message: String,
}

impl Control {
    /// The present.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.unix_millis())
    }

    /// A new id that sorts by time (UUIDv7, RFC 9562).
    #[must_use]
    pub fn draw_id(&self) -> Uuid {
        let millis = u64::try_from(self.clock.unix_millis()).unwrap_or_default();
        let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap_or_default();
        Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, nanos))
    }

    fn act(&self, actor: &Actor) -> Act {
        Act {
            id: self.draw_id(),
            actor: actor.clone(),
            now: self.now(),
        }
    }

    /// Applies a committed change that may take something away, and waits until it holds: here, and in the caches of
    /// peers (the specification, section 8). Repeating it waits on.
    async fn effect<T>(
        &self,
        committed: Committed<T>,
        touched: Touched,
    ) -> Result<(T, Applied), AdminFailure> {
        let (value, applied) = self.apply(committed, touched).await?;
        let (settled, ()) =
            tokio::join!(self.settled(applied, touched), self.publish_revocations());
        Ok((value, settled?))
    }

    /// Waits until what was applied to the touched grants holds at every replica and in the caches of peers too.
    async fn settled(&self, applied: Applied, touched: Touched) -> Result<Applied, AdminFailure> {
        let notice = self.directory.notice(touched);
        // At once: what others gave leases for is theirs to say, and ends while ours do.
        let (here, there) = tokio::join!(
            self.directory.settle(touched),
            self.replicas.settle(applied.revision)
        );
        match (here, there) {
            (Ok(here), Ok(there)) => {
                self.mark(applied.revision).await;
                Ok(Applied {
                    waited_ms: here.max(there),
                    notice,
                    ..applied
                })
            }
            (here, there) => {
                let waiting_for = [here, there]
                    .into_iter()
                    .filter_map(Result::err)
                    .flat_map(|unsettled| unsettled.waiting_for)
                    .collect();
                Err(AdminFailure::unsettled(
                    applied.revision,
                    Unsettled { waiting_for },
                ))
            }
        }
    }

    /// Applies a committed change of the touched grants and answers with it.
    async fn apply<T>(
        &self,
        committed: Committed<T>,
        touched: Touched,
    ) -> Result<(T, Applied), AdminFailure> {
        match self.directory.apply(committed.revision, touched).await {
            Ok(applied) => Ok((committed.value, applied)),
            Err(error) => Err(AdminFailure::committed(committed.revision, &error)),
        }
    }
}

fn parse_grant_id(text: &str) -> Result<GrantId, AdminFailure> {
    text.parse().map_err(|error| {
        AdminFailure::invalid(format!(
            "`{}` is not a grant id: {error}",
            text.escape_debug()
        ))
        .hint("`grant list` shows the ids")
    })
}

fn parse_user(text: &str) -> Result<UserId, AdminFailure> {
    UserId::parse(text)
        .map_err(|error| AdminFailure::invalid(format!("the user is not valid: {error}")))
}

/// A new peer id; random, since it says nothing.
fn draw_peer_id() -> PeerId {
    PeerId::new(Uuid::new_v4())
}
