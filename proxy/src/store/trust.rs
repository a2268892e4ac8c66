//! The trust of the serving side as the store keeps it: its generation, a rotation of the embedded root, and who has followed.
//!
//! Invariant: each step of a rotation is one commit, which only the step before allows; cut off between two, it stands where it
//! stood. The generation counts up with each step that changes what peers are to trust, and never comes back. Which roots there
//! are is in sealed secrets; when a step may be made is decided by the caller.

use async_trait::async_trait;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::change::{Act, Committed};
use super::error::StoreError;
use super::record::SealedSecret;

/// How far a rotation of the embedded root has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustPhase {
    /// One root, and no other to come.
    Steady,
    /// The next root is made; nobody knows it.
    Planned,
    /// Both roots are trusted; certificates for peers come from the next one.
    Applied,
}

impl TrustPhase {
    /// As the store and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Planned => "planned",
            Self::Applied => "applied",
        }
    }

    /// The phase of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Steady, Self::Planned, Self::Applied]
            .into_iter()
            .find(|phase| phase.as_str() == text)
    }
}

/// The trust of this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustState {
    /// What peers are told; from 1.
    pub generation: u64,
    /// The generation of the embedded root in force.
    pub ca_generation: u32,
    /// How far a rotation has got.
    pub phase: TrustPhase,
    /// Since when, unless steady.
    pub since: Option<UnixMillis>,
}

impl TrustState {
    /// The generation of the root that follows.
    #[must_use]
    pub const fn next_ca_generation(&self) -> u32 {
        self.ca_generation.saturating_add(1)
    }
}

/// A generation that the holder of a grant has said to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustAcknowledged {
    /// The grant.
    pub grant: GrantId,
    /// The newest generation it has acknowledged.
    pub generation: u64,
    /// When it did.
    pub at: UnixMillis,
}

/// The store's part of trust.
#[async_trait]
pub trait TrustStore {
    /// The trust of this side.
    async fn trust(&self) -> Result<TrustState, StoreError>;

    /// Keeps the next root, sealed, which must be of the next generation. [`StoreError::Conflict`] unless steady.
    async fn plan_rotation(
        &self,
        act: &Act,
        root: SealedSecret,
    ) -> Result<Committed<TrustState>, StoreError>;

    /// Puts the next root beside the one in force. [`StoreError::Conflict`] unless planned.
    async fn apply_rotation(&self, act: &Act) -> Result<Committed<TrustState>, StoreError>;

    /// Leaves only the next root, and forgets the one before with its key. `left_behind` are the grants that have not
    /// followed, for the record. [`StoreError::Conflict`] unless applied.
    async fn finish_rotation(
        &self,
        act: &Act,
        left_behind: &[GrantId],
    ) -> Result<Committed<TrustState>, StoreError>;

    /// Notes that the holder of a grant has a generation. An earlier one than is known changes nothing.
    async fn acknowledge_trust(
        &self,
        act: &Act,
        grant: GrantId,
        generation: u64,
    ) -> Result<Committed<()>, StoreError>;

    /// All that is kept of that.
    async fn trust_acknowledgements(&self) -> Result<Vec<TrustAcknowledged>, StoreError>;
}
