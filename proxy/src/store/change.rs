//! What the store is asked to change, by whom, and what came of it.
//!
//! Invariant: whatever differs from call to call (time, ids, who) is in the [`Act`] or in the input itself, so that
//! the same call on the same state gives the same state. What the store gives back on reading is in `record.rs`.

use std::fmt;
use std::sync::Arc;

use policy::grant::Grant;
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::PeerName;
use policy::scope::Scope;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::record::{CredentialState, PolicyFile, SealedSecret, Sha256};
use crate::audit::chain::ChainKey;

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An operator on the admin socket, by user id of the process at the other end.
    Operator {
        /// The uid.
        uid: u32,
    },
    /// The holder of the admin token.
    AdminToken,
    /// Whoever redeems an enrollment token, by the token's first eight characters.
    Enrollee {
        /// Lower-case hex.
        prefix: String,
    },
    /// A peer that asks us, by its name.
    Peer {
        /// The local name.
        name: PeerName,
    },
    /// The sidecar itself; the name of the task.
    Sidecar(&'static str),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { uid } => write!(f, "uid:{uid}"),
            Self::AdminToken => f.write_str("admin-token"),
            Self::Enrollee { prefix } => write!(f, "enrollee:{prefix}"),
            Self::Peer { name } => write!(f, "peer:{name}"),
            Self::Sidecar(task) => write!(f, "sidecar:{task}"),
        }
    }
}

/// What begins a chain of audit rows.
#[derive(Debug, Clone)]
pub struct ChainBeginning {
    /// Who begins it, and when.
    pub act: Act,
    /// Its id: a UUIDv7.
    pub chain: Uuid,
    /// The key of the store's chains.
    pub key: Arc<ChainKey>,
    /// Sealed keys that the store does not have yet.
    pub new_secrets: Vec<SealedSecret>,
}

/// One act: who, when, and the id of its audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// UUIDv7 drawn by the caller: id of the first audit record; records after it count up from there.
    pub id: Uuid,
    /// Who.
    pub actor: Actor,
    /// When.
    pub now: UnixMillis,
}

/// What a mutating call did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the revision is what a change waits for before it is reported as done"]
pub struct Committed<T> {
    /// The revision of the commit; when nothing changed, the revision at that time.
    pub revision: u64,
    /// Whether anything changed.
    pub changed: bool,
    /// What was asked for.
    pub value: T,
}

/// A grant to create.
#[derive(Debug, Clone, PartialEq)]
pub struct NewGrant {
    /// Its id.
    pub id: GrantId,
    /// The inbound peer, by name.
    pub peer_name: PeerName,
    /// The peer's id, used only when no inbound peer has that name yet.
    pub peer_id: PeerId,
    /// The local user whose data may be read, in the gateway's terms; the subject follows from it.
    pub user: UserId,
    /// What may be read.
    pub scope: Scope,
    /// When it ends by itself; the scope may end it earlier.
    pub expires_at: Option<UnixMillis>,
}

/// An enrollment token to register. The token itself never reaches the store.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// The grant it enrolls for.
    pub grant: GrantId,
    /// SHA-256 of the token.
    pub sha256: Sha256,
    /// The token's first eight characters: all of it that may ever be shown.
    pub prefix: String,
    /// When it lapses.
    pub expires_at: UnixMillis,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("grant", &self.grant)
            .field("prefix", &self.prefix)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What [`replace_token`](super::Store::replace_token) did besides registering the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// How many certificates it revoked.
    pub revoked_certificates: u64,
}

/// A claimed token: what the enrollment is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The pending grant.
    pub grant: Grant,
    /// The name of its peer.
    pub peer_name: PeerName,
}

/// What came of claiming a token.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenClaim {
    /// The token is used up by this call, and by this call only.
    Claimed(Box<Claim>),
    /// No such token was ever registered.
    Unknown,
    /// It was claimed before.
    Used,
    /// A newer token of the grant has taken its place, or the grant was revoked.
    Withdrawn,
    /// It lapsed unused.
    Expired,
    /// Its grant is not pending any more, has expired, or its peer is suspended or revoked.
    NotPending,
}

/// A certificate is about to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueIntent {
    /// Its id.
    pub id: Uuid,
    /// The grant.
    pub grant: GrantId,
    /// SHA-256 of the CSR's DER.
    pub csr_sha256: Sha256,
}

/// The certificate that an enrollment ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledCertificate {
    /// SHA-256 of the leaf's DER.
    pub fingerprint: Sha256,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: UnixMillis,
    /// End of validity.
    pub not_after: UnixMillis,
    /// The leaf, DER.
    pub der: Vec<u8>,
}

/// An enrollment to finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    /// The open intent.
    pub intent: Uuid,
    /// The grant; the intent's.
    pub grant: GrantId,
    /// The certificate issued.
    pub certificate: EnrolledCertificate,
}

/// A peer to ask, with the credential it issued.
#[derive(Clone, PartialEq, Eq)]
pub struct NewOutboundPeer {
    /// Whether a peer that has the name already is in the way, whoever it belongs to.
    pub only_new: bool,
    /// The peer's id, used only when no outbound peer has that name yet.
    pub id: PeerId,
    /// Its local name.
    pub name: PeerName,
    /// Where it is asked.
    pub endpoint_url: String,
    /// The common name it gave.
    pub common_name: String,
    /// The anchors of its server certificates, PEM.
    pub trust_bundle_pem: String,
    /// Their generation.
    pub trust_generation: u64,
    /// The public key of its checkpoints, if it gave one.
    pub checkpoint_key: Option<[u8; 32]>,
    /// The credential's id; the row id its key is sealed under.
    pub credential_id: Uuid,
    /// The local user it acts for.
    pub local_user: UserId,
    /// The grant on the peer.
    pub grant: GrantId,
    /// The subject on the peer.
    pub subject: SubjectId,
    /// Leaf and intermediates, PEM.
    pub chain_pem: String,
    /// The sealed private key.
    pub sealed_key: Vec<u8>,
    /// End of validity of the leaf.
    pub not_after: UnixMillis,
    /// When it came, by the peer's clock.
    pub began_at: UnixMillis,
    /// How far the peer's clock is ahead of ours, milliseconds.
    pub skew_ms: i64,
}

impl fmt::Debug for NewOutboundPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOutboundPeer")
            .field("name", &self.name)
            .field("endpoint_url", &self.endpoint_url)
            .field("local_user", &self.local_user)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

/// What adding an outbound peer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundAdded {
    /// The peer is new; its id.
    Created(PeerId),
    /// The peer existed with this user and grant: its credential was replaced; its id.
    Reenrolled(PeerId),
}

/// What the serving side has said about a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialChange {
    /// The credential.
    pub credential: Uuid,
    /// Its new state.
    pub state: CredentialState,
    /// The reason given, bounded and escaped by the store.
    pub reason: String,
}

/// A session to create.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of its token.
    pub token_sha256: Sha256,
    /// Whose it is.
    pub local_user: UserId,
    /// When it ends by itself.
    pub expires_at: UnixMillis,
}

impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession")
            .field("id", &self.id)
            .field("local_user", &self.local_user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A checked policy bundle to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPublication {
    /// The files, in order.
    pub files: Vec<PolicyFile>,
    /// The caller's hash over them.
    pub sha256: Sha256,
    /// The grants whose effective rules differ under it.
    pub touched: Vec<GrantId>,
}
