//! When a peer was last reached, and why not.
//!
//! Invariant: an observation changes neither the revision nor the audit log, and never goes back in time.

use policy::id::PeerId;
use policy::time::UnixMillis;
use sqlx::SqliteConnection;

use super::super::{Contact, StoreError};
use super::column::driver;
use super::grants::bounded_reason;

pub(super) async fn record(
    writer: &mut SqliteConnection,
    peer: PeerId,
    at: UnixMillis,
    contact: Contact,
) -> Result<(), StoreError> {
    let query = match contact {
        Contact::Success => sqlx::query(
            "UPDATE peers SET last_success_at = max(coalesce(last_success_at, ?1), ?1) WHERE id = ?2",
        )
        .bind(at.0)
        .bind(peer.to_string()),
        // The expressions on the right see the row as it was before.
        Contact::Failure(cause) => sqlx::query(
            "UPDATE peers SET last_failure = iif(coalesce(last_failure_at, ?1) <= ?1, ?3, last_failure), \
             last_failure_at = max(coalesce(last_failure_at, ?1), ?1) WHERE id = ?2",
        )
        .bind(at.0)
        .bind(peer.to_string())
        .bind(bounded_reason(&cause)),
    };
    let done = query.execute(writer).await.map_err(driver)?;
    if done.rows_affected() == 0 {
        return Err(StoreError::not_found("peer", peer));
    }
    Ok(())
}
