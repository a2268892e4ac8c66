//! Grants: creating, reading, revoking.
//!
//! Invariant: a status changes only along [`GrantStatus::transition`], and each act that narrows a grant raises its
//! edit counter in the same statement. Expiry, tokens and enrollment have their own files.

use std::collections::HashMap;

use certs::crl::RevocationReason;
use futures_util::TryStreamExt as _;
use policy::grant::{Grant, GrantStatus};
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::scope::Scope;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use super::{certificates, peers, tokens};
use crate::store::{Act, Committed, GrantRecord, NewGrant, PeerDirection, StoreError};

/// What the certificates of a revoked grant are listed for.
const WITHDRAWN: RevocationReason = RevocationReason::PrivilegeWithdrawn;

macro_rules! select_grants {
    ($tail:literal) => {
        concat!(
            "SELECT id, peer_id, user_id, subject_id, scope, status, edit, created_at, activated_at, \
             expires_at, revoked_at, reason FROM grants ",
            $tail
        )
    };
}

/// Scopes that were just read, by their whole text: most grants have one of a few, and read again it would be the same.
#[derive(Default)]
struct ReadScopes(HashMap<Box<str>, Scope>);

impl ReadScopes {
    /// Texts that are remembered at once.
    const MOST: usize = 256;

    fn read(&mut self, text: &str) -> Result<Scope, StoreError> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let scope: Scope = serde_json::from_str(text)
            .map_err(|error| StoreError::corrupt("grants", format!("scope: {error}")))?;
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(text.into(), scope.clone());
        Ok(scope)
    }
}

fn decode(row: &DbRow) -> Result<GrantRecord, StoreError> {
    decode_with(row, &mut ReadScopes::default())
}

fn decode_with(row: &DbRow, scopes: &mut ReadScopes) -> Result<GrantRecord, StoreError> {
    let columns = Columns {
        table: "grants",
        row,
    };
    let scope = scopes.read(columns.borrowed("scope")?)?;
    Ok(GrantRecord {
        grant: Grant {
            id: columns.parsed("id")?,
            peer: columns.parsed("peer_id")?,
            user: columns.parsed("user_id")?,
            subject: columns.parsed("subject_id")?,
            scope,
            status: columns.parsed("status")?,
            edit: columns.count("edit")?,
            created_at: columns.millis("created_at")?,
            expires_at: columns.opt_millis("expires_at")?,
        },
        activated_at: columns.opt_millis("activated_at")?,
        revoked_at: columns.opt_millis("revoked_at")?,
        reason: columns.opt_text("reason")?,
    })
}

pub(super) async fn load(conn: &mut DbConnection, id: GrantId) -> Result<GrantRecord, StoreError> {
    let found = find(conn, id).await?;
    found.ok_or_else(|| StoreError::not_found("grant", id))
}

/// The grant, if there is one.
pub(super) async fn find(
    conn: &mut DbConnection,
    id: GrantId,
) -> Result<Option<GrantRecord>, StoreError> {
    let row = sqlx::query(select_grants!("WHERE id = $1"))
        .bind(id.to_string())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    row.as_ref().map(decode).transpose()
}

pub(super) async fn list(conn: &mut DbConnection) -> Result<Vec<GrantRecord>, StoreError> {
    let rows = sqlx::query(select_grants!("ORDER BY created_at, id"))
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(decode).collect()
}

/// Grants that may still come up: unfinished ones, and finished ones with a certificate that ended after
/// `kept_from`; oldest first.
pub(super) async fn list_kept(
    conn: &mut DbConnection,
    kept_from: UnixMillis,
) -> Result<Vec<GrantRecord>, StoreError> {
    // Row by row: there may be many, and a row as it comes takes several times the memory of a record.
    let mut rows = sqlx::query(select_grants!(
        "WHERE status IN ('pending', 'active') OR EXISTS (SELECT 1 FROM certificates c \
         WHERE c.grant_id = grants.id AND c.not_after > $1)"
    ))
    .bind(kept_from.0)
    .fetch(conn);
    let (mut found, mut scopes) = (Vec::new(), ReadScopes::default());
    while let Some(row) = rows.try_next().await.map_err(driver)? {
        found.push(decode_with(&row, &mut scopes)?);
    }
    // Not the database's to do, which would put whole rows aside for it.
    found.sort_unstable_by_key(|record| (record.grant.created_at, record.grant.id));
    Ok(found)
}

pub(super) async fn create(
    writer: &mut Writer,
    act: &Act,
    new: NewGrant,
) -> Result<Committed<GrantRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let peer = match peers::find(conn, PeerDirection::Inbound, &new.peer_name).await? {
        Some(peer) => peer.id,
        None => {
            peers::insert_inbound(conn, new.peer_id, &new.peer_name, act.now).await?;
            new.peer_id
        }
    };
    let grant = Grant {
        id: new.id,
        peer,
        subject: SubjectId::of_user(&new.user),
        user: new.user,
        scope: new.scope,
        status: GrantStatus::Pending,
        edit: 0,
        created_at: act.now,
        expires_at: new.expires_at,
    };
    if grant.status_at(act.now) == GrantStatus::Expired {
        return Err(StoreError::invalid("the grant would end before it begins"));
    }
    insert(conn, &grant).await?;
    let admin = AdminAct::on_grant("grant.create", &grant)
        .text("peer", new.peer_name.as_str())
        .text("user", grant.user.as_str());
    let record = GrantRecord {
        grant,
        activated_at: None,
        revoked_at: None,
        reason: None,
    };
    change.commit(admin, record).await
}

async fn insert(conn: &mut DbConnection, grant: &Grant) -> Result<(), StoreError> {
    let taken = sqlx::query("SELECT 1 FROM grants WHERE id = $1")
        .bind(grant.id.to_string())
        .fetch_optional(&mut *conn)
        .await
        .map_err(driver)?;
    if taken.is_some() {
        return Err(StoreError::conflict(format!(
            "the grant {} exists already",
            grant.id
        )));
    }
    let scope = scope_text(&grant.scope)?;
    sqlx::query(
        "INSERT INTO grants (id, peer_id, user_id, subject_id, scope, status, edit, created_at, expires_at, ends_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9)",
    )
    .bind(grant.id.to_string())
    .bind(grant.peer.to_string())
    .bind(grant.user.as_str())
    .bind(grant.subject.to_string())
    .bind(scope)
    .bind(grant.status.as_str())
    .bind(grant.created_at.0)
    .bind(grant.expires_at.map(|at| at.0))
    .bind(grant.ends_at().map(|at| at.0))
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

pub(super) async fn revoke(
    writer: &mut Writer,
    act: &Act,
    id: GrantId,
    reason: Option<&str>,
) -> Result<Committed<GrantRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let before = load(conn, id).await?;
    if before
        .grant
        .status
        .transition(GrantStatus::Revoked)
        .is_err()
    {
        return change.unchanged(before).await;
    }
    let (after, admin) = revoke_within(conn, id, act.now, reason, WITHDRAWN).await?;
    change.commit(admin, after).await
}

/// Revokes an unfinished grant with its certificates and token, inside a change.
pub(super) async fn revoke_within(
    conn: &mut DbConnection,
    id: GrantId,
    now: UnixMillis,
    reason: Option<&str>,
    why: RevocationReason,
) -> Result<(GrantRecord, AdminAct), StoreError> {
    sqlx::query(
        "UPDATE grants SET status = 'revoked', edit = edit + 1, revoked_at = $1, reason = $2 \
         WHERE id = $3 AND status IN ('pending', 'active')",
    )
    .bind(now.0)
    .bind(reason.map(bounded_reason))
    .bind(id.to_string())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    let certificates = certificates::revoke_all(conn, id, now, why).await?;
    tokens::withdraw(conn, id, now).await?;
    let after = load(conn, id).await?;
    let mut admin =
        AdminAct::on_grant("grant.revoke", &after.grant).count("certificates", certificates);
    if let Some(reason) = reason {
        admin = admin.text("reason", reason);
    }
    Ok((after, admin))
}

pub(super) async fn forget_user(
    writer: &mut Writer,
    act: &Act,
    user: &UserId,
    reason: Option<&str>,
) -> Result<Committed<Vec<GrantId>>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let rows = sqlx::query(
        "SELECT id FROM grants WHERE user_id = $1 AND status IN ('pending', 'active') ORDER BY id",
    )
    .bind(user.as_str())
    .fetch_all(&mut *conn)
    .await
    .map_err(driver)?;
    let ids: Vec<GrantId> = rows.iter().map(id_of).collect::<Result<_, _>>()?;
    let mut revoked = Vec::new();
    for id in &ids {
        revoked.push(
            revoke_within(conn, *id, act.now, reason, WITHDRAWN)
                .await?
                .1,
        );
    }
    if ids.is_empty() {
        return change.unchanged(ids).await;
    }
    let mut admin = AdminAct::new("user.forget")
        .text("user", user.as_str())
        .count("grants", u64::try_from(ids.len()).unwrap_or(u64::MAX));
    if let Some(reason) = reason {
        admin = admin.text("reason", reason);
    }
    change.commit_all(admin, revoked, ids).await
}

pub(super) async fn forget_ended(
    writer: &mut Writer,
    act: &Act,
    peer: PeerId,
    before: UnixMillis,
) -> Result<Committed<u64>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let rows = sqlx::query(
        "SELECT id FROM grants WHERE peer_id = $1 AND status IN ('revoked', 'expired') AND NOT EXISTS \
         (SELECT 1 FROM certificates c WHERE c.grant_id = grants.id AND c.not_after > $2) ORDER BY id",
    )
        .bind(peer.to_string())
        .bind(before.0)
        .fetch_all(&mut *conn)
        .await
        .map_err(driver)?;
    let ids: Vec<GrantId> = rows.iter().map(id_of).collect::<Result<_, _>>()?;
    for id in &ids {
        for statement in [
            "DELETE FROM certificates WHERE grant_id = $1",
            "DELETE FROM enrollment_tokens WHERE grant_id = $1",
            "DELETE FROM issue_intents WHERE grant_id = $1",
            "DELETE FROM grants WHERE id = $1",
        ] {
            sqlx::query(statement)
                .bind(id.to_string())
                .execute(&mut *conn)
                .await
                .map_err(driver)?;
        }
    }
    let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    if count == 0 {
        return change.unchanged(0).await;
    }
    let admin = AdminAct::on_peer("grant.forget", peer).count("grants", count);
    change.commit(admin, count).await
}

fn id_of(row: &DbRow) -> Result<GrantId, StoreError> {
    Columns {
        table: "grants",
        row,
    }
    .parsed("id")
}

pub(super) async fn edit(
    writer: &mut Writer,
    act: &Act,
    id: GrantId,
    scope: Scope,
) -> Result<Committed<GrantRecord>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let before = load(conn, id).await?;
    let status = before.grant.status_at(act.now);
    if status.is_final() {
        return Err(StoreError::conflict(format!(
            "the grant {id} is {status}: create a new grant instead"
        )));
    }
    if before.grant.scope == scope {
        return change.unchanged(before).await;
    }
    let (was, becomes) = (scope_text(&before.grant.scope)?, scope_text(&scope)?);
    let after = Grant {
        scope,
        ..before.grant
    };
    if after.status_at(act.now) == GrantStatus::Expired {
        return Err(StoreError::invalid("the grant would be over already"));
    }
    sqlx::query("UPDATE grants SET scope = $1, ends_at = $2, edit = edit + 1 WHERE id = $3")
        .bind(&becomes)
        .bind(after.ends_at().map(|at| at.0))
        .bind(id.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    let record = load(conn, id).await?;
    let admin = AdminAct::on_grant("grant.edit", &record.grant)
        .text("before", &was)
        .text("after", &becomes);
    change.commit(admin, record).await
}

/// A scope as it is stored.
fn scope_text(scope: &Scope) -> Result<String, StoreError> {
    serde_json::to_string(scope)
        .map_err(|error| StoreError::invalid(format!("the scope has no JSON form: {error}")))
}

/// The pending and active grants of a peer.
pub(super) async fn unfinished_of_peer(
    conn: &mut DbConnection,
    peer: PeerId,
) -> Result<Vec<GrantId>, StoreError> {
    let rows = sqlx::query(
        "SELECT id FROM grants WHERE peer_id = $1 AND status IN ('pending', 'active') ORDER BY id",
    )
    .bind(peer.to_string())
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter().map(id_of).collect()
}

/// Raises the edit counter of an unfinished grant.
pub(super) async fn touch(conn: &mut DbConnection, id: GrantId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE grants SET edit = edit + 1 WHERE id = $1 AND status IN ('pending', 'active')",
    )
    .bind(id.to_string())
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}

/// Whatever an operator or peer wrote as a reason, fit to be shown again.
pub(super) fn bounded_reason(reason: &str) -> String {
    crate::audit::AuditText::long(reason).as_str().to_owned()
}

/// Raises the edit counters of the unfinished grants of a peer; how many.
pub(super) async fn touch_of_peer(
    conn: &mut DbConnection,
    peer: PeerId,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE grants SET edit = edit + 1 WHERE peer_id = $1 AND status IN ('pending', 'active')",
    )
    .bind(peer.to_string())
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(done.rows_affected())
}
