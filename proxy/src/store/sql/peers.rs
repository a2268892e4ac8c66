//! Peers of both directions.
//!
//! Invariant: a suspension and its end each raise the edit counter of every unfinished grant of the peer, because
//! each changes what those grants are worth. Adding an outbound peer is in `outbound.rs`.

use certs::crl::RevocationReason;
use policy::id::PeerId;
use policy::peer::{PeerName, PeerState};
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use super::{grants, outbound};
use crate::store::{Act, Committed, PeerDirection, PeerRecord, StoreError};

macro_rules! select_peers {
    ($tail:literal) => {
        concat!(
            "SELECT id, name, direction, state, endpoint_url, common_name, trust_bundle_pem, trust_generation, checkpoint_key, created_at, \
             last_success_at, last_failure_at, last_failure FROM peers ",
            $tail
        )
    };
}

fn decode(row: &DbRow) -> Result<PeerRecord, StoreError> {
    let columns = Columns {
        table: "peers",
        row,
    };
    Ok(PeerRecord {
        id: columns.parsed("id")?,
        name: columns.parsed("name")?,
        direction: columns.member("direction", PeerDirection::parse)?,
        state: columns.parsed("state")?,
        endpoint_url: columns.opt_text("endpoint_url")?,
        common_name: columns.opt_text("common_name")?,
        trust_bundle_pem: columns.opt_text("trust_bundle_pem")?,
        trust_generation: columns.count("trust_generation")?,
        checkpoint_key: columns.opt_hash("checkpoint_key")?,
        created_at: columns.millis("created_at")?,
        last_success_at: columns.opt_millis("last_success_at")?,
        last_failure_at: columns.opt_millis("last_failure_at")?,
        last_failure: columns.opt_text("last_failure")?,
    })
}

pub(super) async fn load(conn: &mut DbConnection, id: PeerId) -> Result<PeerRecord, StoreError> {
    let row = sqlx::query(select_peers!("WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .map_err(driver)?
        .ok_or_else(|| StoreError::not_found("peer", id))?;
    decode(&row)
}

pub(super) async fn find(
    conn: &mut DbConnection,
    direction: PeerDirection,
    name: &PeerName,
) -> Result<Option<PeerRecord>, StoreError> {
    let row = sqlx::query(select_peers!(
        "WHERE direction = $1 AND name = $2 AND state <> 'revoked'"
    ))
    .bind(direction.as_str())
    .bind(name.as_str())
    .fetch_optional(conn)
    .await
    .map_err(driver)?;
    row.as_ref().map(decode).transpose()
}

pub(super) async fn list(conn: &mut DbConnection) -> Result<Vec<PeerRecord>, StoreError> {
    let rows = sqlx::query(select_peers!("ORDER BY direction, name"))
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(decode).collect()
}

pub(super) async fn insert_inbound(
    conn: &mut DbConnection,
    id: PeerId,
    name: &PeerName,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO peers (id, name, direction, state, created_at) VALUES ($1, $2, 'inbound', 'pending', $3)",
    )
    .bind(id.to_string())
    .bind(name.as_str())
    .bind(now.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

pub(super) async fn set_state(
    conn: &mut DbConnection,
    id: PeerId,
    state: PeerState,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE peers SET state = $1 WHERE id = $2")
        .bind(state.as_str())
        .bind(id.to_string())
        .execute(conn)
        .await
        .map_err(driver)?;
    Ok(())
}

pub(super) async fn suspend(
    writer: &mut Writer,
    act: &Act,
    id: PeerId,
) -> Result<Committed<PeerRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let before = load(change.conn(), id).await?;
    match before.state {
        PeerState::Suspended => return change.unchanged(before).await,
        PeerState::Revoked => {
            return Err(StoreError::conflict(format!(
                "the peer {} is revoked",
                before.name
            )));
        }
        PeerState::Pending | PeerState::Active | PeerState::Degraded => {}
    }
    move_to(change, "peer.suspend", before, PeerState::Suspended).await
}

pub(super) async fn resume(
    writer: &mut Writer,
    act: &Act,
    id: PeerId,
) -> Result<Committed<PeerRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let before = load(change.conn(), id).await?;
    if before.state != PeerState::Suspended {
        return change.unchanged(before).await;
    }
    let state = if has_enrolled(change.conn(), &before).await? {
        PeerState::Active
    } else {
        PeerState::Pending
    };
    move_to(change, "peer.resume", before, state).await
}

pub(super) async fn remove(
    writer: &mut Writer,
    act: &Act,
    id: PeerId,
    reason: Option<&str>,
) -> Result<Committed<PeerRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let before = load(conn, id).await?;
    if before.state == PeerState::Revoked {
        return change.unchanged(before).await;
    }
    set_state(conn, id, PeerState::Revoked).await?;
    let mut revoked = Vec::new();
    for grant in grants::unfinished_of_peer(conn, id).await? {
        revoked.push(
            grants::revoke_within(
                conn,
                grant,
                act.now,
                reason,
                RevocationReason::CessationOfOperation,
            )
            .await?
            .1,
        );
    }
    let credentials = outbound::discard_of_peer(conn, id).await?;
    let mut admin = AdminAct::on_peer("peer.remove", id)
        .text("peer", before.name.as_str())
        .count("grants", u64::try_from(revoked.len()).unwrap_or(u64::MAX))
        .count("credentials", credentials);
    if let Some(reason) = reason {
        admin = admin.text("reason", reason);
    }
    let after = PeerRecord {
        state: PeerState::Revoked,
        ..before
    };
    change.commit_all(admin, revoked, after).await
}

async fn move_to(
    mut change: Change<'_>,
    action: &'static str,
    peer: PeerRecord,
    state: PeerState,
) -> Result<Committed<PeerRecord>, StoreError> {
    let conn = change.conn();
    set_state(conn, peer.id, state).await?;
    let touched = grants::touch_of_peer(conn, peer.id).await?;
    let admin = AdminAct::on_peer(action, peer.id)
        .text("peer", peer.name.as_str())
        .text("state", state.as_str())
        .count("grants", touched);
    change.commit(admin, PeerRecord { state, ..peer }).await
}

/// An outbound peer is only ever added with a credential; an inbound one has enrolled once a grant was activated.
async fn has_enrolled(conn: &mut DbConnection, peer: &PeerRecord) -> Result<bool, StoreError> {
    if peer.direction == PeerDirection::Outbound {
        return Ok(true);
    }
    let found =
        sqlx::query("SELECT 1 FROM grants WHERE peer_id = $1 AND activated_at IS NOT NULL LIMIT 1")
            .bind(peer.id.to_string())
            .fetch_optional(conn)
            .await
            .map_err(driver)?;
    Ok(found.is_some())
}
