//! Peers we ask, and the credentials they gave us.
//!
//! Invariant: a peer's name belongs to one local user and one grant for good; a credential's key stays sealed.
//! Revoked and superseded credentials never come back.

use policy::id::{GrantId, PeerId, UserId};
use policy::time::UnixMillis;
use uuid::Uuid;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::peers;
use super::writer::Writer;
use crate::store::{
    Act, Committed, CredentialChange, CredentialState, NewOutboundPeer, OutboundAdded,
    OutboundCredential, PeerDirection, PeerRecord, RenewalTries, StoreError,
};

fn decode(row: &DbRow) -> Result<OutboundCredential, StoreError> {
    let columns = Columns {
        table: "outbound_credentials",
        row,
    };
    Ok(OutboundCredential {
        id: columns.uuid("id")?,
        peer: columns.parsed("peer_id")?,
        local_user: columns.parsed("local_user")?,
        grant: columns.parsed("grant_id")?,
        subject: columns.parsed("subject_id")?,
        chain_pem: columns.text("chain_pem")?,
        sealed_key: columns.bytes("sealed_key")?,
        not_after: columns.millis("not_after")?,
        state: columns.member("state", CredentialState::parse)?,
        created_at: columns.millis("created_at")?,
        began_at: columns.opt_millis("began_at")?,
        skew_ms: columns.integer("skew_ms")?,
        tries: RenewalTries {
            failures: columns.count("renewal_failures")?,
            tried_at: columns.opt_millis("renewal_tried_at")?,
            failure: columns.opt_text("renewal_failure")?,
        },
    })
}

macro_rules! select_credentials {
    ($tail:literal) => {
        concat!(
            "SELECT id, peer_id, local_user, grant_id, subject_id, chain_pem, sealed_key, not_after, state, created_at, \
             began_at, skew_ms, renewal_failures, renewal_tried_at, renewal_failure FROM outbound_credentials ",
            $tail
        )
    };
}

pub(super) async fn load(
    conn: &mut DbConnection,
    id: Uuid,
) -> Result<OutboundCredential, StoreError> {
    let row = sqlx::query(select_credentials!("WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .ok_or_else(|| StoreError::not_found("credential", id))?;
    decode(&row)
}

pub(super) async fn list(conn: &mut DbConnection) -> Result<Vec<OutboundCredential>, StoreError> {
    let rows = sqlx::query(select_credentials!(
        "ORDER BY peer_id, created_at DESC, id DESC"
    ))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter().map(decode).collect()
}

pub(super) async fn add(
    writer: &mut Writer,
    act: &Act,
    new: NewOutboundPeer,
) -> Result<Committed<OutboundAdded>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let added = match peers::find(conn, PeerDirection::Outbound, &new.name).await? {
        None => {
            insert_peer(conn, &new, act.now).await?;
            OutboundAdded::Created(new.id)
        }
        Some(_) if new.only_new => {
            return Err(StoreError::conflict(format!(
                "there is a peer named `{}` already",
                new.name
            )));
        }
        Some(peer) => {
            reenroll(conn, &peer, &new).await?;
            OutboundAdded::Reenrolled(peer.id)
        }
    };
    let (OutboundAdded::Created(peer) | OutboundAdded::Reenrolled(peer)) = added;
    insert_credential(conn, peer, &new, act.now).await?;
    let mut admin = AdminAct::on_peer("peer.add", peer)
        .text("peer", new.name.as_str())
        .text("user", new.local_user.as_str())
        .text("endpoint", &new.endpoint_url);
    admin.grant = Some(new.grant);
    admin.subject = Some(new.subject);
    change.commit(admin, added).await
}

/// A generation of trust as the database keeps it.
pub(super) fn generation(given: u64) -> Result<i64, StoreError> {
    i64::try_from(given).map_err(|_| StoreError::invalid("no generation of trust is that large"))
}

async fn insert_peer(
    conn: &mut DbConnection,
    new: &NewOutboundPeer,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO peers (id, name, direction, state, endpoint_url, common_name, trust_bundle_pem, trust_generation, \
         checkpoint_key, created_at) VALUES ($1, $2, 'outbound', 'active', $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.id.to_string())
    .bind(new.name.as_str())
    .bind(&new.endpoint_url)
    .bind(&new.common_name)
    .bind(&new.trust_bundle_pem)
    .bind(generation(new.trust_generation)?)
    .bind(new.checkpoint_key.as_ref().map(<[u8; 32]>::as_slice))
    .bind(now.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

/// The remedy for a lost key or answer: same peer, same user, same grant, new credential. A suspension by our own
/// operator stays.
async fn reenroll(
    conn: &mut DbConnection,
    peer: &PeerRecord,
    new: &NewOutboundPeer,
) -> Result<(), StoreError> {
    if !belongs_to(conn, peer.id, &new.local_user, new.grant).await? {
        return Err(StoreError::conflict(format!(
            "the name {} is taken by another peer; choose another name",
            new.name
        )));
    }
    drop_renewals(conn, peer.id).await?;
    // The new credential is a working one.
    sqlx::query("UPDATE peers SET state = 'active' WHERE id = $1 AND state = 'degraded'")
        .bind(peer.id.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    sqlx::query(
        "UPDATE peers SET endpoint_url = $1, common_name = $2, trust_bundle_pem = $3, trust_generation = $4, \
         checkpoint_key = $5 WHERE id = $6",
    )
    .bind(&new.endpoint_url)
    .bind(&new.common_name)
    .bind(&new.trust_bundle_pem)
    .bind(generation(new.trust_generation)?)
    .bind(new.checkpoint_key.as_ref().map(<[u8; 32]>::as_slice))
    .bind(peer.id.to_string())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    sqlx::query(
        "UPDATE outbound_credentials SET state = 'superseded' WHERE peer_id = $1 AND state IN ('active', 'suspended')",
    )
    .bind(peer.id.to_string())
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

async fn belongs_to(
    conn: &mut DbConnection,
    peer: PeerId,
    user: &UserId,
    grant: GrantId,
) -> Result<bool, StoreError> {
    let strangers: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM outbound_credentials WHERE peer_id = $1 AND (local_user <> $2 OR grant_id <> $3)",
    )
    .bind(peer.to_string())
    .bind(user.as_str())
    .bind(grant.to_string())
    .fetch_one(conn)
    .await
    .map_err(driver)?;
    Ok(strangers == 0)
}

async fn insert_credential(
    conn: &mut DbConnection,
    peer: PeerId,
    new: &NewOutboundPeer,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbound_credentials (id, peer_id, local_user, grant_id, subject_id, chain_pem, sealed_key, \
         not_after, state, created_at, began_at, skew_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'active', $9, $10, $11)",
    )
    .bind(new.credential_id.to_string())
    .bind(peer.to_string())
    .bind(new.local_user.as_str())
    .bind(new.grant.to_string())
    .bind(new.subject.to_string())
    .bind(&new.chain_pem)
    .bind(&new.sealed_key)
    .bind(new.not_after.0)
    .bind(now.0)
    .bind(new.began_at.0)
    .bind(new.skew_ms)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

/// What stands in the place of a key that was forgotten.
pub(super) const FORGOTTEN: &[u8] = &[];

/// Gives up every renewal of a peer's credentials that is under way, with its key.
async fn drop_renewals(conn: &mut DbConnection, peer: PeerId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM outbound_renewals WHERE credential_id IN \
         (SELECT id FROM outbound_credentials WHERE peer_id = $1)",
    )
    .bind(peer.to_string())
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

/// Ends every credential of a peer that is removed and forgets its key; how many.
pub(super) async fn discard_of_peer(
    conn: &mut DbConnection,
    peer: PeerId,
) -> Result<u64, StoreError> {
    drop_renewals(conn, peer).await?;
    let done = sqlx::query(
        "UPDATE outbound_credentials SET state = 'revoked', sealed_key = $2 WHERE peer_id = $1",
    )
    .bind(peer.to_string())
    .bind(FORGOTTEN)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(done.rows_affected())
}

pub(super) async fn change_credential(
    writer: &mut Writer,
    act: &Act,
    change: CredentialChange,
) -> Result<Committed<()>, StoreError> {
    let CredentialChange {
        credential,
        state,
        reason,
    } = change;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let row =
        sqlx::query("SELECT peer_id, grant_id, state FROM outbound_credentials WHERE id = $1")
            .bind(credential.to_string())
            .fetch_optional(&mut *conn)
            .await
            .map_err(driver)?
            .ok_or_else(|| StoreError::not_found("credential", credential))?;
    let columns = Columns {
        table: "outbound_credentials",
        row: &row,
    };
    let before = columns.member("state", CredentialState::parse)?;
    if before == state {
        return change.unchanged(()).await;
    }
    if matches!(
        before,
        CredentialState::Revoked | CredentialState::Superseded
    ) {
        return Err(StoreError::conflict(format!(
            "the credential {credential} is {before} for good"
        )));
    }
    sqlx::query("UPDATE outbound_credentials SET state = $1 WHERE id = $2")
        .bind(state.as_str())
        .bind(credential.to_string())
        .execute(conn)
        .await
        .map_err(driver)?;
    let mut admin = AdminAct::on_peer("credential.change", columns.parsed("peer_id")?)
        .text("credential", &credential.to_string())
        .text("state", state.as_str())
        .text("reason", &reason);
    admin.grant = Some(columns.parsed("grant_id")?);
    change.commit(admin, ()).await
}
