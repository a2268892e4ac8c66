//! Sealing the store again with another secret.
//!
//! Invariant: the order of the steps, so that it can be cut off behind any of them and gone on with. The change is noted, with
//! the secret before sealed under the next one; from then on what is sealed is sealed with the next one, and both open; rows
//! are sealed again a bounded batch a transaction, until none is left; ending is refused while one is. Only then the secret before is forgotten.
//! Rows are read, opened and written one by one: nobody waits for more than a batch. The sealed file beside the store follows them.

use std::num::NonZeroU32;
use std::sync::Arc;

use certs::seal::{ChangeError, KeyId, SealError};
use certs::{SealPurpose, Sealer};

use crate::server_certificate::KeptCertificate;
use crate::store::{
    Act, Committed, NextSecret, ResealedRow, SealedKind, SealedRow, SecretPurpose, Store,
    StoreError,
};

/// Rows of one transaction.
pub const RESEAL_BATCH: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResealStep {
    /// The change is noted; this process still seals with the secret before.
    Noted,
    /// What is sealed is sealed with the next secret.
    Taken,
    /// One batch of rows, not the last, is sealed again.
    Batch,
    /// No row of the secret before is left.
    Resealed,
    /// The store knows only the next secret; this process still opens with both.
    Finished,
}

impl ResealStep {
    /// Every step, in order.
    pub const ALL: [Self; 5] = [
        Self::Noted,
        Self::Taken,
        Self::Batch,
        Self::Resealed,
        Self::Finished,
    ];
}

/// Why a change of the secret did not get further. What is done is done, and it can be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// The secret offered.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Another change is under way.
    #[error(
        "the sealing secret is being changed to the one named {to}; this one is named {offered}"
    )]
    Another {
        /// The name of the secret that it is changed to.
        to: String,
        /// The name of the one offered.
        offered: String,
    },
    /// A row does not open.
    #[error("the {kind} `{id}` does not open: {error}")]
    Row {
        /// What kind of row.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Why.
        error: SealError,
    },
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file beside it.
    #[error("{0}")]
    File(String),
    /// Another replica changes to a secret that this process cannot get.
    #[error("the sealing secret is changed elsewhere: {0}")]
    Elsewhere(String),
}

/// Is told of every step.
pub type ObserveReseal = Box<dyn Fn(ResealStep) + Send + Sync>;

/// Changes the secret of one store.
pub struct Resealer {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    kept: Arc<KeptCertificate>,
    batch: NonZeroU32,
    observe: ObserveReseal,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Resealer {
    /// Puts the parts together; `observe` is told of every step.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        sealer: Arc<Sealer>,
        kept: Arc<KeptCertificate>,
        batch: NonZeroU32,
        observe: ObserveReseal,
    ) -> Self {
        Self {
            store,
            sealer,
            kept,
            batch,
            observe,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Seals every row again with the secret of `next`, or goes on with that; how many rows it did.
    ///
    /// # Errors
    /// [`ResealError`].
    pub async fn run(
        &self,
        next: &Sealer,
        act: &(dyn Fn() -> Act + Sync),
    ) -> Result<u64, ResealError> {
        let _one = self.turn.lock().await;
        self.begin(next, act).await?;
        let to = next.key_id();
        let mut done: u64 = 0;
        loop {
            let rows = self
                .store
                .rows_sealed_otherwise(&to, self.batch.get())
                .await?;
            if rows.is_empty() {
                break;
            }
            let resealed = rows.into_iter().map(|row| self.reseal(row));
            let resealed = resealed.collect::<Result<Vec<_>, _>>()?;
            // Of a row that has changed meanwhile nothing is written: it comes again if it has to.
            let put = self.store.put_resealed(&act(), &resealed).await?;
            done = done.saturating_add(put.value);
            (self.observe)(ResealStep::Batch);
        }
        self.kept.reseal().map_err(ResealError::File)?;
        (self.observe)(ResealStep::Resealed);
        Ok(done)
    }

    async fn begin(
        &self,
        next: &Sealer,
        act: &(dyn Fn() -> Act + Sync),
    ) -> Result<(), ResealError> {
        let (present, to) = (self.sealer.key_id(), next.key_id());
        if let Some(under_way) = self.store.sealing().await?.and_then(|state| state.next) {
            if under_way.key_id != to {
                return Err(ResealError::Another {
                    to: hex::encode(under_way.key_id),
                    offered: hex::encode(to),
                });
            }
            if present != to {
                self.sealer.take(next)?;
            }
            return Ok(());
        }
        if present == to {
            return Err(ChangeError::Same.into());
        }
        let act = act();
        let change = NextSecret {
            key_id: to,
            former: self.sealer.hand_over(next)?,
            begun_at: act.now,
        };
        let _ = self.store.begin_reseal(&act, &present, change).await?;
        (self.observe)(ResealStep::Noted);
        self.sealer.take(next)?;
        (self.observe)(ResealStep::Taken);
        Ok(())
    }

    fn reseal(&self, row: SealedRow) -> Result<ResealedRow, ResealError> {
        let sealed = self
            .sealer
            .reseal(purpose(row.kind), &row.id, &row.sealed)
            .map_err(|error| ResealError::Row {
                kind: row.kind.as_str(),
                id: row.id.clone(),
                error,
            })?;
        Ok(ResealedRow { row, sealed })
    }

    /// Takes over how far another replica is with a change; `get` finds the secret of a name.
    ///
    /// # Errors
    /// [`ResealError`]; what is sealed with a secret that is not known here does not open here then.
    pub async fn follow(
        &self,
        get: impl FnOnce(&KeyId) -> Result<Sealer, String>,
    ) -> Result<(), ResealError> {
        // One of this process does the same.
        let Ok(_one) = self.turn.try_lock() else {
            return Ok(());
        };
        let Some(state) = self.store.sealing().await? else {
            return Ok(());
        };
        let wanted = state.next.as_ref().map_or(state.key_id, |next| next.key_id);
        if self.sealer.key_id() != wanted {
            let next = get(&wanted).map_err(ResealError::Elsewhere)?;
            if self.sealer.key_id() == state.key_id {
                // The change before this one has ended.
                self.sealer.forget_former();
            }
            self.sealer.take(&next)?;
            tracing::info!(
                to = hex::encode(wanted),
                "another replica changes the sealing secret: taken over"
            );
        }
        if state.next.is_none() && self.sealer.former_key_id().is_some() {
            self.kept.reseal().map_err(ResealError::File)?;
            self.sealer.forget_former();
            tracing::info!(
                key_id = hex::encode(wanted),
                "another replica has ended the change of the sealing secret: the one before opens nothing any more"
            );
        }
        Ok(())
    }

    /// Ends the change; the name of the secret in force.
    ///
    /// # Errors
    /// [`ResealError`]; a conflict while a row is of the secret before, or when none is under way.
    pub async fn finish(&self, act: &Act) -> Result<Committed<KeyId>, ResealError> {
        let _one = self.turn.lock().await;
        // Once more: a change may have been cut off between the last row and this.
        self.kept.reseal().map_err(ResealError::File)?;
        let Committed {
            revision, changed, ..
        } = self.store.finish_reseal(act).await?;
        (self.observe)(ResealStep::Finished);
        self.sealer.forget_former();
        Ok(Committed {
            revision,
            changed,
            value: self.sealer.key_id(),
        })
    }
}

/// What rows of a kind are sealed for.
const fn purpose(kind: SealedKind) -> SealPurpose {
    match kind {
        SealedKind::Credential | SealedKind::Renewal => SealPurpose::CredentialKey,
        SealedKind::SubjectToken => SealPurpose::SubjectToken,
        SealedKind::Secret(purpose) => match purpose {
            SecretPurpose::RevisionKey => SealPurpose::RevisionKey,
            SecretPurpose::CursorKey => SealPurpose::CursorKey,
            SecretPurpose::CaKey => SealPurpose::CaKey,
            SecretPurpose::ServerKey => SealPurpose::ServerKey,
            SecretPurpose::AssertionKey => SealPurpose::AssertionKey,
            SecretPurpose::AuditKey => SealPurpose::AuditKey,
            SecretPurpose::CheckpointKey => SealPurpose::CheckpointKey,
        },
    }
}
