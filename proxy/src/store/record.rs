//! What the store gives back: peers, grants, certificates, credentials, sessions, secrets, policy, and the
//! image a snapshot is built from.
//!
//! Invariant: a value here was read from one consistent state and parsed on the way; every closed set is an
//! enum whose text form is the stored one. What callers pass in is in `change.rs`.

use std::collections::HashMap;
use std::fmt;

use policy::grant::Grant;
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;
use uuid::Uuid;

use crate::audit::HistoryHead;
use crate::audit::history::HeaderSignature;

/// A closed set with one stored text per member.
macro_rules! closed_text {
    ($(#[$meta:meta])* $name:ident { $($(#[$member_meta:meta])* $member:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$member_meta])* $member,)+
        }

        impl $name {
            /// Every member, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The stored and displayed text.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$member => $text,)+ }
            }

            /// The member with that text; `None` for any other text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$member),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// A SHA-256 digest: of a token, a CSR, a policy bundle.
pub type Sha256 = [u8; 32];

closed_text! {
    /// Which side of the federation a peer is on.
    PeerDirection {
        /// The peer asks us: it holds certificates that we issued.
        Inbound = "inbound",
        /// We ask the peer: we hold credentials that it issued.
        Outbound = "outbound",
    }
}

closed_text! {
    /// The life of an issued certificate.
    CertificateState {
        /// In use.
        Active = "active",
        /// Replaced by a newer one.
        Superseded = "superseded",
        /// Withdrawn.
        Revoked = "revoked",
    }
}

closed_text! {
    /// The life of a credential we hold for a peer (the specification, section 2: state of that grant).
    CredentialState {
        /// In use.
        Active = "active",
        /// The serving side has suspended us; to be probed again.
        Suspended = "suspended",
        /// Replaced by a newer one.
        Superseded = "superseded",
        /// The grant or the certificate expired.
        Expired = "expired",
        /// The serving side has revoked the grant or certificate.
        Revoked = "revoked",
    }
}

closed_text! {
    /// What a sealed secret is for.
    SecretPurpose {
        /// HMAC key of effective revisions.
        RevisionKey = "revision_key",
        /// AEAD key of list cursors.
        CursorKey = "cursor_key",
        /// Private key of the embedded authority.
        CaKey = "ca_key",
        /// Private key of the server certificate.
        ServerKey = "server_key",
        /// Signing key of gateway assertions.
        AssertionKey = "assertion_key",
        /// HMAC key of the chains of audit rows.
        AuditKey = "audit_key",
        /// Signing key of audit checkpoints.
        CheckpointKey = "checkpoint_key",
    }
}

/// The last contact with a peer, as reported by the caller that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contact {
    /// An answer came back.
    Success,
    /// None came back; the cause in a few words, bounded and escaped by the store.
    Failure(String),
}

/// A peer of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its id.
    pub id: PeerId,
    /// Its local name, unique among the peers of its direction that are not revoked.
    pub name: PeerName,
    /// Which side asks.
    pub direction: PeerDirection,
    /// Its state.
    pub state: PeerState,
    /// Where it is asked (outbound only).
    pub endpoint_url: Option<String>,
    /// The common name it goes by (outbound only).
    pub common_name: Option<String>,
    /// The anchors of its server certificates, PEM (outbound only).
    pub trust_bundle_pem: Option<String>,
    /// Their generation; 1 for a peer that says none.
    pub trust_generation: u64,
    /// The public key of its checkpoints (outbound only), when enrollment gave one.
    pub checkpoint_key: Option<[u8; 32]>,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it last answered or asked.
    pub last_success_at: Option<UnixMillis>,
    /// When a contact last failed.
    pub last_failure_at: Option<UnixMillis>,
    /// Why it failed then.
    pub last_failure: Option<String>,
}

/// A grant with its history.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantRecord {
    /// The grant as decisions see it.
    pub grant: Grant,
    /// When an enrollment last completed.
    pub activated_at: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// Why it was revoked, in the operator's words.
    pub reason: Option<String>,
}

/// An issued certificate as a snapshot needs it, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEntry {
    /// SHA-256 of the leaf's DER.
    pub fingerprint: Sha256,
    /// The grant it was issued for.
    pub grant: GrantId,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: UnixMillis,
    /// End of validity.
    pub not_after: UnixMillis,
    /// Its state; one whose `retires_at` has come is superseded, whatever is written here.
    pub state: CertificateState,
    /// When it was first used; a renewed one is unconfirmed until then.
    pub confirmed_at: Option<UnixMillis>,
    /// From when on it is superseded.
    pub retires_at: Option<UnixMillis>,
}

impl CertificateEntry {
    /// What counts at `now`.
    #[must_use]
    pub fn state_at(&self, now: UnixMillis) -> CertificateState {
        self.state.at(self.retires_at, now)
    }
}

impl CertificateState {
    /// What counts at `now` of a certificate with this state that retires then.
    #[must_use]
    pub fn at(self, retires_at: Option<UnixMillis>, now: UnixMillis) -> Self {
        match self {
            Self::Active if retires_at.is_some_and(|at| at <= now) => Self::Superseded,
            state => state,
        }
    }
}

/// An issued certificate in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Identity, window and state.
    pub entry: CertificateEntry,
    /// When it was issued.
    pub issued_at: UnixMillis,
    /// When it was revoked.
    pub revoked_at: Option<UnixMillis>,
    /// The leaf, DER.
    pub der: Vec<u8>,
}

/// What has been tried to renew a credential since it last worked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenewalTries {
    /// Failures.
    pub failures: u32,
    /// When the last try began, by the peer's clock.
    pub tried_at: Option<UnixMillis>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// A credential we hold for asking a peer as one local user.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundCredential {
    /// Its id; also the row id its key is sealed under.
    pub id: Uuid,
    /// The peer that issued it.
    pub peer: PeerId,
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
    /// Its state.
    pub state: CredentialState,
    /// When it was stored.
    pub created_at: UnixMillis,
    /// When it came, by the peer's clock; unknown for one from before that was noted.
    pub began_at: Option<UnixMillis>,
    /// How far the peer's clock was ahead of ours then, milliseconds.
    pub skew_ms: i64,
    /// What has been tried to renew it.
    pub tries: RenewalTries,
}

impl fmt::Debug for OutboundCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundCredential")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("local_user", &self.local_user)
            .field("grant", &self.grant)
            .field("not_after", &self.not_after)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A session of a local user. The token itself is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id, for listing and ending it.
    pub id: Uuid,
    /// Whose it is.
    pub local_user: UserId,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: UnixMillis,
    /// When it was ended, if it was.
    pub ended_at: Option<UnixMillis>,
}

impl SessionRecord {
    /// Whether a request may use it at `now`.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

/// A sealed secret of the store itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// What it is for.
    pub purpose: SecretPurpose,
    /// Distinguishes secrets of one purpose, at most 64 bytes.
    pub id: String,
    /// Counts up with each replacement.
    pub generation: u32,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSecret")
            .field("purpose", &self.purpose)
            .field("id", &self.id)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The sealed gateway token of one user.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectToken {
    /// Whose it is, in the gateway's terms.
    pub user: UserId,
    /// The sealed token.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectToken")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// One policy file as it was checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name within the policy directory.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The policy in force: all files together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBundle {
    /// The files, in the order given when published.
    pub files: Vec<PolicyFile>,
    /// The caller's hash over them.
    pub sha256: Sha256,
    /// When it was published.
    pub applied_at: UnixMillis,
}

/// Everything a snapshot is built from, read at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreImage {
    /// The revision this image shows.
    pub revision: u64,
    /// All peers.
    pub peers: Vec<PeerRecord>,
    /// Pending and active grants, and finished ones that still have a certificate in the image.
    pub grants: Vec<GrantRecord>,
    /// Certificates of any state, except those expired for long.
    pub certificates: Vec<CertificateEntry>,
    /// The policy in force, if one was ever published.
    pub policy: Option<PolicyBundle>,
}

impl StoreImage {
    /// Its peers by id. There may be many: each is looked up, not looked for.
    #[must_use]
    pub fn peers_by_id(&self) -> HashMap<PeerId, &PeerRecord> {
        self.peers.iter().map(|peer| (peer.id, peer)).collect()
    }

    /// Its grants by id.
    #[must_use]
    pub fn grants_by_id(&self) -> HashMap<GrantId, &GrantRecord> {
        let grants = self.grants.iter();
        grants.map(|record| (record.grant.id, record)).collect()
    }
}

/// What became of the grants that were changed since a revision, and of nothing else.
#[derive(Debug, Clone)]
pub struct StoreChanges {
    /// The revision it shows.
    pub revision: u64,
    /// The grants, as they are now.
    pub grants: Vec<GrantImage>,
}

/// What a snapshot needs of one grant.
#[derive(Debug, Clone)]
pub struct GrantImage {
    /// Its id.
    pub id: GrantId,
    /// The grant with its peer; `None` when a whole image would leave it out.
    pub grant: Option<(GrantRecord, PeerRecord)>,
    /// Its certificates, as in a whole image.
    pub certificates: Vec<CertificateEntry>,
}

/// A row, as the store remembers it: the first half of a SHA-256 over resource and id.
pub type RowMark = [u8; 16];

/// What booking rows came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsBooked {
    /// How many of them, from the first on, may be shown.
    pub admitted: usize,
    /// How many different rows the grant has seen that day, these included.
    pub seen: u32,
}

/// How many chains of a peer are remembered of one grant, the newest ones.
pub const WITNESSED_CHAINS: u32 = 64;

/// What a peer that is asked has said last of the history of a grant in one of its chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessedCheckpoint {
    /// Our grant on the peer.
    pub grant: GrantId,
    /// How far it had got.
    pub head: HistoryHead,
    /// When that was heard, by our clock.
    pub heard_at: UnixMillis,
    /// The newest of that chain with a signature that was verified.
    pub signed: Option<SignedWitness>,
}

/// A signed statement, in the chain of its [`WitnessedCheckpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedWitness {
    /// The number.
    pub gseq: u64,
    /// The hash.
    pub ghash: [u8; 32],
    /// The signature and its time.
    pub signature: HeaderSignature,
}
