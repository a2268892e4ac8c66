//! The store: the one durable truth about peers, grants, certificates, tokens, sessions, secrets and policy.
//!
//! Invariant: every mutating call is one transaction that applies the change, raises the store revision by one
//! and writes the admin audit row(s) of the change; none of the three is ever visible without the others.
//! Those rows continue the hash chain of the process in the same transaction.
//! A call that finds nothing to change writes nothing and says so (`Committed::changed == false`).
//! Time, identifiers and randomness come in with the [`Act`]; the store reads no clock and draws nothing.
//!
//! SQL lives only below `store/`. Secrets arrive sealed: the store keeps opaque bytes and cannot open them.
//! The snapshot that decisions are made from, the sealing and the issuing of certificates are elsewhere on purpose.

mod change;
mod error;
#[allow(
    clippy::duplicate_mod,
    reason = "its statements are those of the other database, compiled with its types"
)]
mod postgres;
mod record;
mod renewal;
mod replicas;
mod revocation;
mod sealing;
#[allow(
    clippy::duplicate_mod,
    reason = "its statements are those of the other database, compiled with its types"
)]
mod sqlite;
mod trust;

#[cfg(test)]
mod conformance;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use policy::id::{GrantId, PeerId, UserId};
use policy::peer::PeerName;
use policy::scope::Scope;
use policy::time::UnixMillis;
use uuid::Uuid;

use crate::audit::AuditLog;
use crate::audit::archive::Manifest;

pub use change::{
    Act, Actor, ChainBeginning, Claim, Committed, CredentialChange, EnrolledCertificate,
    Enrollment, IssueIntent, NewGrant, NewOutboundPeer, NewSession, NewToken, OutboundAdded,
    PolicyPublication, Replaced, TokenClaim,
};
pub use error::{OpenError, StoreError};
pub use postgres::{MoveError, MovedTable, PostgresOptions, PostgresStore, ServerFacts};
pub use record::{
    CertificateEntry, CertificateRecord, CertificateState, Contact, CredentialState, GrantImage,
    GrantRecord, OutboundCredential, PeerDirection, PeerRecord, PolicyBundle, PolicyFile,
    RenewalTries, RowMark, RowsBooked, SealedSecret, SecretPurpose, SessionRecord, Sha256,
    SignedWitness, StoreChanges, StoreImage, SubjectToken, WITNESSED_CHAINS, WitnessedCheckpoint,
};
pub use renewal::{
    IssuedRenewal, KnownCertificate, NewRenewal, PendingRenewal, RenewalRequest, RenewalStart,
    RenewalStore, RenewedCertificate, RevokedCertificate,
};
pub use replicas::{Heartbeat, ReplicaRecord, ReplicaStore, ReplicaTable};
pub use revocation::{
    KeptList, ListedLeaf, PublishedList, RevocationStore, RevokedLeaf, SerialStanding,
    ServerCertificateRecord, UntoldRevocation,
};
pub use sealing::{
    NextSecret, ResealedRow, SealStore, SealedCount, SealedKind, SealedRow, SealingState,
};
pub use sqlite::{Migrated, SqliteOptions, SqliteStore};
pub use trust::{TrustAcknowledged, TrustPhase, TrustState, TrustStore};

/// The newest migration that this program knows, by the kind of store.
#[must_use]
pub fn schemas() -> BTreeMap<String, i64> {
    BTreeMap::from([
        ("sqlite".to_owned(), sqlite::known_schema()),
        ("postgres".to_owned(), postgres::known_schema()),
    ])
}

/// The longest life of an enrollment token, milliseconds (the specification, section 4.2).
pub const TOKEN_TTL_MAX_MILLIS: i64 = 900_000;

/// For how long an expired certificate stays in [`StoreImage`], milliseconds: a connection that outlives
/// its certificate is told `certificate_expired` instead of the generic refusal for an unknown leaf.
pub const EXPIRED_CERTIFICATE_KEPT_MILLIS: i64 = 7 * 24 * 3_600_000;

/// A store of the sidecar's state. Object safe; every method may be called from any task.
///
/// All methods fail with [`StoreError::Busy`] or [`StoreError::Unavailable`] when the database cannot be
/// reached, and with [`StoreError::Corrupt`] when a row does not read back as what was written.
/// Dropping a call's future leaves either the whole change or nothing.
#[async_trait]
pub trait Store:
    AuditLog + RenewalStore + ReplicaStore + RevocationStore + SealStore + TrustStore + Send + Sync
{
    /// Whether the database answers a read and would accept a write right now.
    async fn health(&self) -> Result<(), StoreError>;

    /// The id the store was created with; the same for everybody who opens it.
    async fn store_id(&self) -> Result<Uuid, StoreError>;

    /// The store revision: 0 in a fresh store, plus one for each commit (the specification, section 8).
    async fn revision(&self) -> Result<u64, StoreError>;

    /// The longest lease on an answer that any process of this store may have given; zero in a fresh store.
    async fn longest_lease(&self) -> Result<Duration, StoreError>;

    /// Records it, in whole milliseconds, rounded up. Neither audited nor a new revision: it is a fact about this
    /// process, not an act.
    async fn record_longest_lease(&self, longest: Duration) -> Result<(), StoreError>;

    /// Everything a snapshot is built from, read at one instant. `now` decides which certificates have been
    /// expired for so long ([`EXPIRED_CERTIFICATE_KEPT_MILLIS`]) that they and their finished grants are left out.
    async fn load(&self, now: UnixMillis) -> Result<StoreImage, StoreError>;

    /// What [`load`](Self::load) would hold of the grants that were changed since `revision`. `None` when something else was
    /// changed as well, when too much was, or when it cannot be told any more: then a whole image has to be loaded.
    async fn load_changes(
        &self,
        revision: u64,
        now: UnixMillis,
    ) -> Result<Option<StoreChanges>, StoreError>;

    /// Begins the chain that every further row of this handle and its clones is linked into, audit records and admin acts
    /// alike, and stores the secrets that come with it. [`StoreError::Conflict`] when one of those exists: another process
    /// was first, and its key is the one to use.
    async fn begin_chain(&self, beginning: &ChainBeginning) -> Result<Committed<()>, StoreError>;

    /// Removes the rows that a file of the archive holds and writes its manifest, the act `audit.archive`, in one transaction.
    /// [`StoreError::Conflict`] when it is not the next file, or the rows up to its last one are not those it counts.
    async fn archive_audit(
        &self,
        act: &Act,
        manifest: &Manifest,
    ) -> Result<Committed<()>, StoreError>;

    /// Stores a sealed secret unless one with this purpose, id and generation exists; the value is the one
    /// that is stored afterwards, so two processes that start together agree on the first.
    async fn put_secret_if_absent(
        &self,
        act: &Act,
        secret: SealedSecret,
    ) -> Result<Committed<SealedSecret>, StoreError>;

    /// The sealed secrets of one purpose, by id and then newest generation first.
    async fn load_secrets(&self, purpose: SecretPurpose) -> Result<Vec<SealedSecret>, StoreError>;

    /// Creates a pending grant, and its inbound peer (pending) when no inbound peer has that name.
    /// [`StoreError::Conflict`] when the grant id is taken, [`StoreError::Invalid`] when it would be over already.
    async fn create_grant(
        &self,
        act: &Act,
        grant: NewGrant,
    ) -> Result<Committed<GrantRecord>, StoreError>;

    /// One grant. [`StoreError::NotFound`] when there is none.
    async fn grant(&self, id: GrantId) -> Result<GrantRecord, StoreError>;

    /// All grants, oldest first.
    async fn list_grants(&self) -> Result<Vec<GrantRecord>, StoreError>;

    /// Revokes a grant and every certificate of it, withdraws its token, raises its edit counter.
    /// Idempotent: of a revoked grant nothing changes. [`StoreError::NotFound`] for an unknown one.
    async fn revoke_grant(
        &self,
        act: &Act,
        id: GrantId,
        reason: Option<&str>,
    ) -> Result<Committed<GrantRecord>, StoreError>;

    /// Revokes every pending and active grant whose subject is this user, as by [`revoke_grant`](Self::revoke_grant), all
    /// or none; the value lists them. Idempotent: of a user without any nothing changes.
    async fn forget_user(
        &self,
        act: &Act,
        user: &UserId,
        reason: Option<&str>,
    ) -> Result<Committed<Vec<GrantId>>, StoreError>;

    /// Deletes the grants of an inbound peer that are over, with everything that is kept of them, if none of their
    /// certificates is good after `before`; how many. Their audit rows stay. None of them changes nothing.
    async fn forget_grants(
        &self,
        act: &Act,
        peer: PeerId,
        before: UnixMillis,
    ) -> Result<Committed<u64>, StoreError>;

    /// Marks pending and active grants whose `expires_at` has come as expired and raises their edit
    /// counters; the value lists them. Nothing due changes nothing.
    async fn expire_grants(&self, act: &Act) -> Result<Committed<Vec<GrantId>>, StoreError>;

    /// Registers an enrollment token for a pending grant and withdraws an earlier unused one: a grant has at
    /// most one live token. [`StoreError::Invalid`] for an expiry that is past or further than
    /// [`TOKEN_TTL_MAX_MILLIS`]; [`StoreError::Conflict`] when the grant is not pending or has expired.
    async fn create_token(&self, act: &Act, token: NewToken) -> Result<Committed<()>, StoreError>;

    /// `grant token --replace`: revokes every certificate of the grant, sets it pending, raises its edit
    /// counter, registers `token` in place of earlier ones. [`StoreError::Conflict`] once the grant is
    /// revoked or expired.
    async fn replace_token(
        &self,
        act: &Act,
        token: NewToken,
    ) -> Result<Committed<Replaced>, StoreError>;

    /// Gives a pending or active grant another scope and raises its edit counter. The same scope changes nothing.
    /// [`StoreError::Conflict`] once the grant is revoked or expired, [`StoreError::Invalid`] when it would be over
    /// already, [`StoreError::NotFound`] for an unknown one.
    async fn edit_grant(
        &self,
        act: &Act,
        id: GrantId,
        scope: Scope,
    ) -> Result<Committed<GrantRecord>, StoreError>;

    /// Claims a token by one conditional update: of any number of concurrent claims at most one gets
    /// [`TokenClaim::Claimed`]. Everything else changes nothing. To be called before the certificate
    /// authority is asked.
    async fn claim_token(
        &self,
        act: &Act,
        token: &Sha256,
    ) -> Result<Committed<TokenClaim>, StoreError>;

    /// Records that a certificate is about to be asked for. [`StoreError::Conflict`] when the grant is
    /// not pending or the intent exists.
    async fn record_issue_intent(
        &self,
        act: &Act,
        intent: IssueIntent,
    ) -> Result<Committed<()>, StoreError>;

    /// Closes an open intent that led to no certificate; `why` is bounded and carries no secret.
    /// [`StoreError::Conflict`] when it is closed already.
    async fn fail_issue_intent(
        &self,
        act: &Act,
        intent: Uuid,
        why: &str,
    ) -> Result<Committed<()>, StoreError>;

    /// Finishes an enrollment: intent closed, certificate registered, grant active, a pending peer active.
    /// Guarded by the grant still being pending and unexpired and its peer neither suspended nor revoked,
    /// else [`StoreError::Conflict`]: the caller then revokes what the authority has issued.
    async fn complete_enrollment(
        &self,
        act: &Act,
        enrollment: Enrollment,
    ) -> Result<Committed<GrantRecord>, StoreError>;

    /// The certificates of a grant, newest first.
    async fn list_certificates(&self, grant: GrantId)
    -> Result<Vec<CertificateRecord>, StoreError>;

    /// One peer. [`StoreError::NotFound`] when there is none.
    async fn peer(&self, id: PeerId) -> Result<PeerRecord, StoreError>;

    /// The peer of that name, if any: names are unique among the peers of a direction that are not revoked.
    async fn find_peer(
        &self,
        direction: PeerDirection,
        name: &PeerName,
    ) -> Result<Option<PeerRecord>, StoreError>;

    /// All peers, by direction and name.
    async fn list_peers(&self) -> Result<Vec<PeerRecord>, StoreError>;

    /// Suspends a peer and raises the edit counter of each of its pending and active grants. Idempotent.
    /// [`StoreError::Conflict`] for a revoked peer.
    async fn suspend_peer(
        &self,
        act: &Act,
        id: PeerId,
    ) -> Result<Committed<PeerRecord>, StoreError>;

    /// Ends a suspension: `active` if the peer has ever enrolled, else `pending`; raises the edit counter of
    /// each of its pending and active grants. Nothing changes for a peer that is not suspended.
    async fn resume_peer(&self, act: &Act, id: PeerId)
    -> Result<Committed<PeerRecord>, StoreError>;

    /// Removes a peer for good: it becomes revoked and leaves its name to others. Inbound, each of its pending and
    /// active grants is revoked as by [`revoke_grant`](Self::revoke_grant); outbound, its credentials are ended and
    /// their keys forgotten. Idempotent.
    async fn remove_peer(
        &self,
        act: &Act,
        id: PeerId,
        reason: Option<&str>,
    ) -> Result<Committed<PeerRecord>, StoreError>;

    /// Adds an outbound peer with its first credential, or, when a peer of that name belongs to the same
    /// local user and grant, renews it: earlier credentials become superseded, endpoint and trust bundle are
    /// replaced. Any other use of the name is [`StoreError::Conflict`], and every use where only a new peer is wanted.
    async fn add_outbound_peer(
        &self,
        act: &Act,
        peer: NewOutboundPeer,
    ) -> Result<Committed<OutboundAdded>, StoreError>;

    /// All outbound credentials, by peer, newest first.
    async fn list_outbound_credentials(&self) -> Result<Vec<OutboundCredential>, StoreError>;

    /// Records what the serving side said about a credential's grant (revoked, expired, suspended, active
    /// again). Revoked is final: [`StoreError::Conflict`] for leaving it.
    async fn change_credential(
        &self,
        act: &Act,
        change: CredentialChange,
    ) -> Result<Committed<()>, StoreError>;

    /// Records the last success or failure of talking to a peer. Neither audited nor a new revision:
    /// it is an observation, not an act.
    async fn record_contact(
        &self,
        peer: PeerId,
        at: UnixMillis,
        contact: Contact,
    ) -> Result<(), StoreError>;

    /// Keeps what peers that are asked have said of the histories of our grants, of each chain the newest; of a grant the
    /// [`WITNESSED_CHAINS`] newest chains. Neither audited nor a new revision: it is an observation, not an act.
    async fn record_witnessed(&self, heard: &[WitnessedCheckpoint]) -> Result<(), StoreError>;

    /// All that is kept of that, by grant, newest first.
    async fn witnessed_checkpoints(&self) -> Result<Vec<WitnessedCheckpoint>, StoreError>;

    /// Registers a session token (its SHA-256) for a local user. [`StoreError::Invalid`] when it expires
    /// no later than now.
    async fn create_session(
        &self,
        act: &Act,
        session: NewSession,
    ) -> Result<Committed<SessionRecord>, StoreError>;

    /// The session of that token if it is live at `now`: neither ended nor expired.
    async fn find_session(
        &self,
        token: &Sha256,
        now: UnixMillis,
    ) -> Result<Option<SessionRecord>, StoreError>;

    /// All sessions, newest first.
    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, StoreError>;

    /// Ends a session. Idempotent; [`StoreError::NotFound`] for an unknown one.
    async fn end_session(
        &self,
        act: &Act,
        id: Uuid,
    ) -> Result<Committed<SessionRecord>, StoreError>;

    /// Forgets at most `most` sessions that had ended or expired before an instant; how many it were. Their acts stay in the
    /// audit log.
    async fn forget_sessions(&self, before: UnixMillis, most: u32) -> Result<u64, StoreError>;

    /// Stores, or replaces, the sealed gateway token of a user.
    async fn put_subject_token(
        &self,
        act: &Act,
        token: SubjectToken,
    ) -> Result<Committed<()>, StoreError>;

    /// The sealed gateway token of a user, if one is registered.
    async fn find_subject_token(&self, user: &UserId) -> Result<Option<SubjectToken>, StoreError>;

    /// Users with a registered gateway token and since when, by user id.
    async fn list_subject_tokens(&self) -> Result<Vec<(UserId, UnixMillis)>, StoreError>;

    /// The policy that was in force at a store revision, if there was one.
    async fn policy_at(&self, revision: u64) -> Result<Option<PolicyBundle>, StoreError>;

    /// Publishes a checked policy bundle and raises the edit counter of each touched grant.
    /// A bundle with the hash of the current one changes nothing.
    async fn publish_policy(
        &self,
        act: &Act,
        publication: PolicyPublication,
    ) -> Result<Committed<()>, StoreError>;

    /// Books rows that a grant is about to be shown on a UTC day (days from the epoch), in order, until it has seen
    /// `budget` different ones; those it has seen that day cost nothing. What was booked stays booked, whatever
    /// becomes of the answer. Neither audited nor a new revision: it is an observation, not an act.
    async fn book_rows(
        &self,
        grant: GrantId,
        day: i64,
        budget: u32,
        rows: &[RowMark],
    ) -> Result<RowsBooked, StoreError>;

    /// How many different rows a grant has seen on a day.
    async fn rows_seen(&self, grant: GrantId, day: i64) -> Result<u32, StoreError>;

    /// The same for every grant that has a budget and has seen any.
    async fn rows_seen_by_grant(&self, day: i64) -> Result<Vec<(GrantId, u32)>, StoreError>;

    /// Forgets at most `most` rows seen before a day; how many it were.
    async fn forget_rows_seen(&self, before: i64, most: u32) -> Result<u64, StoreError>;
}
