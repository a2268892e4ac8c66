//! When a peer was last reached, and why not.
//!
//! Invariant: an observation changes neither the revision nor the audit log, and never goes back in time.

use policy::id::PeerId;
use policy::time::UnixMillis;

use super::dialect::driver;
use super::grants::bounded_reason;
use super::writer::Writer;
use crate::store::{Contact, StoreError};

pub(super) async fn record(
    writer: &mut Writer,
    peer: PeerId,
    at: UnixMillis,
    contact: Contact,
) -> Result<(), StoreError> {
    let query = match contact {
        Contact::Success => sqlx::query(
            "UPDATE peers SET last_success_at = CASE WHEN last_success_at > $1 THEN last_success_at ELSE $1 END WHERE id = $2",
        )
        .bind(at.0)
        .bind(peer.to_string()),
        // The expressions on the right see the row as it was before.
        Contact::Failure(cause) => sqlx::query(
            "UPDATE peers SET last_failure = CASE WHEN last_failure_at > $1 THEN last_failure ELSE $3 END, \
             last_failure_at = CASE WHEN last_failure_at > $1 THEN last_failure_at ELSE $1 END WHERE id = $2",
        )
        .bind(at.0)
        .bind(peer.to_string())
        .bind(bounded_reason(&cause)),
    };
    let (mut tx, _) = writer.begin().await?;
    let done = query.execute(&mut *tx).await.map_err(driver)?;
    if done.rows_affected() == 0 {
        return Err(StoreError::not_found("peer", peer));
    }
    tx.commit().await.map_err(driver)
}
