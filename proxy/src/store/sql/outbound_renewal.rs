//! Renewal on the asking side: from key and request to the next credential.
//!
//! Invariant: a credential has at most one renewal under way; the next one takes its place in one transaction, and
//! the key of the one before is forgotten in it.

use policy::id::PeerId;
use policy::peer::PeerState;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{grants, outbound, peers};
use crate::store::{
    Act, Committed, CredentialState, IssuedRenewal, NewRenewal, OutboundCredential, PeerDirection,
    PendingRenewal, RenewalTries, StoreError,
};

pub(super) async fn begin(
    writer: &mut Writer,
    act: &Act,
    renewal: NewRenewal,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let credential = current(conn, renewal.credential).await?;
    // A second one under way, or a taken id, is refused by the table.
    sqlx::query(
        "INSERT INTO outbound_renewals (credential_id, id, sealed_key, csr_pem, begun_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(renewal.credential.to_string())
    .bind(renewal.id.to_string())
    .bind(&renewal.sealed_key)
    .bind(&renewal.csr_pem)
    .bind(act.now.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    change.commit(admin("renewal.begin", &credential), ()).await
}

pub(super) async fn find(
    conn: &mut DbConnection,
    credential: Uuid,
) -> Result<Option<PendingRenewal>, StoreError> {
    let row = sqlx::query(
        "SELECT id, sealed_key, csr_pem, begun_at, chain_pem, trust_bundle_pem, trust_generation, not_after, began_at \
         FROM outbound_renewals WHERE credential_id = $1",
    )
    .bind(credential.to_string())
    .fetch_optional(conn)
    .await
    .map_err(driver)?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns {
        table: "outbound_renewals",
        row: &row,
    };
    let issued = match columns.opt_text("chain_pem")? {
        None => None,
        Some(chain_pem) => Some(IssuedRenewal {
            chain_pem,
            trust_bundle_pem: columns.text("trust_bundle_pem")?,
            // Null in one from before generations were noted.
            trust_generation: columns.opt_count("trust_generation")?.unwrap_or(1),
            not_after: columns.millis("not_after")?,
            began_at: columns.millis("began_at")?,
        }),
    };
    Ok(Some(PendingRenewal {
        new: NewRenewal {
            credential,
            id: columns.uuid("id")?,
            sealed_key: columns.bytes("sealed_key")?,
            csr_pem: columns.text("csr_pem")?,
        },
        begun_at: columns.millis("begun_at")?,
        issued,
    }))
}

pub(super) async fn keep(
    writer: &mut Writer,
    act: &Act,
    credential: Uuid,
    issued: IssuedRenewal,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let kept = sqlx::query(
        "UPDATE outbound_renewals SET chain_pem = $1, trust_bundle_pem = $2, trust_generation = $3, not_after = $4, began_at = $5 \
         WHERE credential_id = $6",
    )
    .bind(&issued.chain_pem)
    .bind(&issued.trust_bundle_pem)
    .bind(outbound::generation(issued.trust_generation)?)
    .bind(issued.not_after.0)
    .bind(issued.began_at.0)
    .bind(credential.to_string())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    if kept.rows_affected() == 0 {
        return Err(StoreError::not_found("renewal of credential", credential));
    }
    let old = current(conn, credential).await?;
    change.commit(admin("renewal.issued", &old), ()).await
}

pub(super) async fn finish(
    writer: &mut Writer,
    act: &Act,
    credential: Uuid,
    skew_ms: i64,
) -> Result<Committed<Uuid>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let none = || StoreError::not_found("issued renewal of credential", credential);
    let pending = find(conn, credential).await?.ok_or_else(none)?;
    let issued = pending.issued.ok_or_else(none)?;
    let old = current(conn, credential).await?;
    sqlx::query("DELETE FROM outbound_renewals WHERE credential_id = $1")
        .bind(credential.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    sqlx::query(
        "UPDATE outbound_credentials SET state = 'superseded', sealed_key = $2 WHERE id = $1",
    )
    .bind(credential.to_string())
    .bind(outbound::FORGOTTEN)
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    let id = pending.new.id;
    insert_next(
        conn,
        &old,
        (id, &pending.new.sealed_key),
        &issued,
        (act.now, skew_ms),
    )
    .await?;
    sqlx::query("UPDATE peers SET trust_bundle_pem = $1, trust_generation = $2 WHERE id = $3")
        .bind(&issued.trust_bundle_pem)
        .bind(outbound::generation(issued.trust_generation)?)
        .bind(old.peer.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    let admin = admin("renewal.finish", &old)
        .text("next", &id.to_string())
        .text("until", &issued.not_after.rfc3339().to_string());
    change.commit(admin, id).await
}

async fn insert_next(
    conn: &mut DbConnection,
    old: &OutboundCredential,
    (id, sealed_key): (Uuid, &[u8]),
    issued: &IssuedRenewal,
    (now, skew_ms): (UnixMillis, i64),
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbound_credentials (id, peer_id, local_user, grant_id, subject_id, chain_pem, sealed_key, \
         not_after, state, created_at, began_at, skew_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'active', $9, $10, $11)",
    )
    .bind(id.to_string())
    .bind(old.peer.to_string())
    .bind(old.local_user.as_str())
    .bind(old.grant.to_string())
    .bind(old.subject.to_string())
    .bind(&issued.chain_pem)
    .bind(sealed_key)
    .bind(issued.not_after.0)
    .bind(now.0)
    .bind(issued.began_at.0)
    .bind(skew_ms)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

pub(super) async fn give_up(
    writer: &mut Writer,
    act: &Act,
    credential: Uuid,
    why: &str,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let gone = sqlx::query("DELETE FROM outbound_renewals WHERE credential_id = $1")
        .bind(credential.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    if gone.rows_affected() == 0 {
        return change.unchanged(()).await;
    }
    let old = outbound::load(conn, credential).await?;
    let admin = admin("renewal.drop", &old).text("why", why);
    change.commit(admin, ()).await
}

/// The credential if it is one that is to be renewed.
async fn current(
    conn: &mut DbConnection,
    credential: Uuid,
) -> Result<OutboundCredential, StoreError> {
    let record = outbound::load(conn, credential).await?;
    match record.state {
        CredentialState::Active | CredentialState::Suspended | CredentialState::Expired => {
            Ok(record)
        }
        CredentialState::Superseded | CredentialState::Revoked => Err(StoreError::conflict(
            format!("the credential {credential} is {} for good", record.state),
        )),
    }
}

fn admin(action: &'static str, credential: &OutboundCredential) -> AdminAct {
    let mut admin =
        AdminAct::on_peer(action, credential.peer).text("credential", &credential.id.to_string());
    admin.grant = Some(credential.grant);
    admin.subject = Some(credential.subject);
    admin
}

pub(super) async fn record_tries(
    writer: &mut Writer,
    credential: Uuid,
    tries: &RenewalTries,
) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    sqlx::query(
        "UPDATE outbound_credentials SET renewal_failures = $1, renewal_tried_at = $2, renewal_failure = $3 \
         WHERE id = $4",
    )
    .bind(i64::from(tries.failures))
    .bind(tries.tried_at.map(|at| at.0))
    .bind(tries.failure.as_deref().map(grants::bounded_reason))
    .bind(credential.to_string())
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)
}

pub(super) async fn mark_peer(
    writer: &mut Writer,
    act: &Act,
    id: PeerId,
    degraded: bool,
    why: &str,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let peer = peers::load(conn, id).await?;
    let next = match (peer.direction, peer.state, degraded) {
        (PeerDirection::Outbound, PeerState::Active, true) => PeerState::Degraded,
        (PeerDirection::Outbound, PeerState::Degraded, false) => PeerState::Active,
        _ => return change.unchanged(()).await,
    };
    peers::set_state(conn, id, next).await?;
    let admin = AdminAct::on_peer("peer.health", id)
        .text("peer", peer.name.as_str())
        .text("state", next.as_str())
        .text("why", why);
    change.commit(admin, ()).await
}
