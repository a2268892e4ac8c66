//! The chain that this process writes, as its writer holds it.
//!
//! Invariant: a write continues the chain exactly where this process left it, or fails.

use std::sync::Arc;

use uuid::Uuid;

use crate::audit::Head;
use crate::audit::chain::ChainKey;
use crate::store::StoreError;

/// The chain that this process writes.
pub(in crate::store) struct OpenChain {
    pub(in crate::store) id: Uuid,
    pub(in crate::store) key: Arc<ChainKey>,
    /// The newest row this process knows to be committed.
    pub(in crate::store) last: Option<Head>,
}

impl OpenChain {
    /// Compares the head that the database has with what was written.
    pub(in crate::store) fn check(&self, found: &Head) -> Result<(), StoreError> {
        let moved = self.last.is_some_and(|last| {
            found.seq < last.seq || (found.seq == last.seq && found.hash != last.hash)
        });
        if moved {
            return Err(StoreError::corrupt(
                "audit_chains",
                "the head of the chain is not where this process left it: the log was changed or set back",
            ));
        }
        Ok(())
    }
}
