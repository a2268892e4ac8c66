//! Which sealing secret the store is sealed with, and sealing it again with another, as the store keeps it.
//!
//! Invariant: every sealed row names its secret, and a row that names one that is not in force is not accepted. A change of
//! the secret is one commit to begin, one for each batch of rows, and one to end, which is refused while a row is of the
//! secret before; cut off anywhere it can be gone on with. Sealing and unsealing is elsewhere: here are opaque bytes.

use std::fmt;

use async_trait::async_trait;
use certs::seal::KeyId;
use policy::time::UnixMillis;

use super::change::{Act, Committed};
use super::error::StoreError;
use super::record::SecretPurpose;

/// Which secrets are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealingState {
    /// The one that rows are sealed with.
    pub key_id: KeyId,
    /// The one that is to take its place, while rows are sealed again.
    pub next: Option<NextSecret>,
}

/// A change of the sealing secret under way.
#[derive(Clone, PartialEq, Eq)]
pub struct NextSecret {
    /// The public name of the next secret.
    pub key_id: KeyId,
    /// The present one, sealed under the next.
    pub former: Vec<u8>,
    /// Since when.
    pub begun_at: UnixMillis,
}

impl fmt::Debug for NextSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextSecret")
            .field("key_id", &hex::encode(self.key_id))
            .field("begun_at", &self.begun_at)
            .finish_non_exhaustive()
    }
}

/// What kind of row is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedKind {
    /// A secret of the store itself.
    Secret(SecretPurpose),
    /// The key of a credential towards a peer.
    Credential,
    /// The key of a renewal under way.
    Renewal,
    /// A user's gateway token.
    SubjectToken,
}

impl SealedKind {
    /// As messages and counts spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret(purpose) => purpose.as_str(),
            Self::Credential => "credential",
            Self::Renewal => "renewal",
            Self::SubjectToken => "subject_token",
        }
    }
}

/// One sealed row.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// What it is.
    pub kind: SealedKind,
    /// The id that is bound into the seal.
    pub id: String,
    /// The generation of a secret; 0 for other kinds.
    pub generation: u32,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for SealedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedRow")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A row that was sealed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResealedRow {
    /// As it was read.
    pub row: SealedRow,
    /// The same, sealed with the next secret.
    pub sealed: Vec<u8>,
}

/// How many rows of one kind are sealed with one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCount {
    /// The kind.
    pub kind: SealedKind,
    /// The secret's name.
    pub key_id: KeyId,
    /// How many.
    pub rows: u64,
}

/// The store's part of keeping keys sealed.
#[async_trait]
pub trait SealStore {
    /// Which secrets are in force; `None` until the first start has said so.
    async fn sealing(&self) -> Result<Option<SealingState>, StoreError>;

    /// Says which secret is in force, once. [`StoreError::Conflict`] when a row is sealed with another one, or another one
    /// is in force.
    async fn adopt_sealing(&self, key_id: &KeyId) -> Result<(), StoreError>;

    /// How many rows are sealed with which secret.
    async fn sealed_counts(&self) -> Result<Vec<SealedCount>, StoreError>;

    /// Begins a change. [`StoreError::Conflict`] when one is under way, or `present` is not in force.
    async fn begin_reseal(
        &self,
        act: &Act,
        present: &KeyId,
        next: NextSecret,
    ) -> Result<Committed<()>, StoreError>;

    /// At most `most` rows that are sealed with another secret than this.
    async fn rows_sealed_otherwise(
        &self,
        key_id: &KeyId,
        most: u32,
    ) -> Result<Vec<SealedRow>, StoreError>;

    /// Puts rows in place that were sealed again, all or none; of a row that has changed or gone meanwhile nothing. The
    /// value is how many were put in place.
    async fn put_resealed(
        &self,
        act: &Act,
        rows: &[ResealedRow],
    ) -> Result<Committed<u64>, StoreError>;

    /// Ends a change: the next secret is the one in force, and what the one before had sealed is overwritten in the file.
    /// [`StoreError::Conflict`] when none is under way, or a row is still sealed otherwise.
    async fn finish_reseal(&self, act: &Act) -> Result<Committed<()>, StoreError>;
}
