//! From intent to active grant.
//!
//! Invariant: a grant becomes active only here, guarded by still being pending at that moment, together with its
//! certificate. An intent is closed once. Issuing itself happens between the two calls, elsewhere.

use policy::grant::GrantStatus;
use policy::id::GrantId;
use policy::peer::PeerState;
use policy::time::UnixMillis;
use uuid::Uuid;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{certificates, grants, peers};
use crate::store::{Act, Committed, Enrollment, GrantRecord, IssueIntent, Sha256, StoreError};

pub(super) async fn record_intent(
    writer: &mut Writer,
    act: &Act,
    intent: IssueIntent,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = pending(conn, intent.grant, act.now).await?;
    insert_intent(conn, intent.id, intent.grant, &intent.csr_sha256, act.now).await?;
    let admin = AdminAct::on_grant("certificate.intent", &record.grant)
        .text("intent", &intent.id.to_string());
    change.commit(admin, ()).await
}

/// Writes down that a certificate is about to be asked for.
pub(super) async fn insert_intent(
    conn: &mut DbConnection,
    id: Uuid,
    grant: GrantId,
    csr_sha256: &Sha256,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO issue_intents (id, grant_id, csr_sha256, created_at) VALUES ($1, $2, $3, $4)",
    )
    .bind(id.to_string())
    .bind(grant.to_string())
    .bind(csr_sha256.as_slice())
    .bind(now.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

pub(super) async fn fail_intent(
    writer: &mut Writer,
    act: &Act,
    intent: Uuid,
    why: &str,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let grant = close_intent(conn, intent, None, Some(why), act.now).await?;
    let record = grants::load(conn, grant).await?;
    let admin = AdminAct::on_grant("certificate.failed", &record.grant)
        .text("intent", &intent.to_string())
        .text("why", why);
    change.commit(admin, ()).await
}

pub(super) async fn complete(
    writer: &mut Writer,
    act: &Act,
    enrollment: Enrollment,
) -> Result<Committed<GrantRecord>, StoreError> {
    let Enrollment {
        intent,
        grant,
        certificate,
    } = enrollment;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let before = pending(conn, grant, act.now).await?;
    let peer = peers::load(conn, before.grant.peer).await?;
    match peer.state {
        PeerState::Pending => peers::set_state(conn, peer.id, PeerState::Active).await?,
        PeerState::Active | PeerState::Degraded => {}
        PeerState::Suspended | PeerState::Revoked => {
            return Err(StoreError::conflict(format!(
                "the peer {} is {}",
                peer.name, peer.state
            )));
        }
    }
    close_intent(conn, intent, Some(grant), None, act.now).await?;
    certificates::insert(conn, grant, &certificate, act.now).await?;
    sqlx::query(
        "UPDATE grants SET status = 'active', activated_at = $1 WHERE id = $2 AND status = 'pending'",
    )
    .bind(act.now.0)
    .bind(grant.to_string())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    let after = grants::load(conn, grant).await?;
    let mut admin = AdminAct::on_grant("grant.activate", &after.grant)
        .text("peer", peer.name.as_str())
        .text("intent", &intent.to_string());
    admin.cert_serial = Some(certificate.serial);
    change.commit(admin, after).await
}

/// The grant if it is pending and has not ended.
async fn pending(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
) -> Result<GrantRecord, StoreError> {
    let record = grants::load(conn, grant).await?;
    match record.grant.status_at(now) {
        GrantStatus::Pending => Ok(record),
        other => Err(StoreError::conflict(format!(
            "the grant {grant} is {other}, not pending"
        ))),
    }
}

/// Closes an open intent as issued, or as failed when `why` says so; the grant it was for, which has to be
/// `expected` where that is given.
pub(super) async fn close_intent(
    conn: &mut DbConnection,
    intent: Uuid,
    expected: Option<GrantId>,
    why: Option<&str>,
    now: UnixMillis,
) -> Result<GrantId, StoreError> {
    let row = sqlx::query("SELECT grant_id, outcome FROM issue_intents WHERE id = $1")
        .bind(intent.to_string())
        .fetch_optional(&mut *conn)
        .await
        .map_err(driver)?
        .ok_or_else(|| StoreError::not_found("issue intent", intent))?;
    let columns = Columns {
        table: "issue_intents",
        row: &row,
    };
    let grant: GrantId = columns.parsed("grant_id")?;
    if let Some(outcome) = columns.opt_text("outcome")? {
        return Err(StoreError::conflict(format!(
            "the issue intent {intent} is closed: {outcome}"
        )));
    }
    if expected.is_some_and(|expected| expected != grant) {
        return Err(StoreError::conflict(format!(
            "the issue intent {intent} belongs to another grant"
        )));
    }
    let outcome = if why.is_some() { "failed" } else { "issued" };
    sqlx::query("UPDATE issue_intents SET outcome = $1, detail = $2, closed_at = $3 WHERE id = $4")
        .bind(outcome)
        .bind(why.map(grants::bounded_reason))
        .bind(now.0)
        .bind(intent.to_string())
        .execute(conn)
        .await
        .map_err(driver)?;
    Ok(grant)
}
