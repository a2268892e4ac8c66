//! Enrollment tokens: registering, replacing, claiming.
//!
//! Invariant: a token is claimed by one conditional update, so at most once; a grant has at most one live token.
//! Only the SHA-256 of a token is ever here, and its first eight characters.

use certs::crl::RevocationReason;
use policy::grant::GrantStatus;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change, nothing};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{certificates, grants, image, peers};
use crate::store::{
    Act, Claim, Committed, GrantRecord, NewToken, Replaced, Sha256, StoreError,
    TOKEN_TTL_MAX_MILLIS, TokenClaim,
};

/// What makes a token claimable at `?2`; the same words in the look and in the claim.
macro_rules! claimable {
    () => {
        "sha256 = $1 AND used_at IS NULL AND withdrawn_at IS NULL AND expires_at > $2 AND EXISTS (\
         SELECT 1 FROM grants g JOIN peers p ON p.id = g.peer_id WHERE g.id = enrollment_tokens.grant_id \
         AND g.status = 'pending' AND (g.ends_at IS NULL OR g.ends_at > $2) \
         AND p.state IN ('pending', 'active', 'degraded'))"
    };
}

pub(super) async fn create(
    writer: &mut Writer,
    act: &Act,
    token: NewToken,
) -> Result<Committed<()>, StoreError> {
    check(act, &token)?;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = grants::load(conn, token.grant).await?;
    match record.grant.status_at(act.now) {
        GrantStatus::Pending => {}
        other => return Err(not_for(&record, other)),
    }
    let withdrawn = withdraw(conn, token.grant, act.now).await?;
    insert(conn, &token, act.now).await?;
    let admin = AdminAct::on_grant("token.create", &record.grant)
        .text("token", &token.prefix)
        .count("withdrawn", withdrawn);
    change.commit(admin, ()).await
}

pub(super) async fn replace(
    writer: &mut Writer,
    act: &Act,
    token: NewToken,
) -> Result<Committed<Replaced>, StoreError> {
    check(act, &token)?;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = grants::load(conn, token.grant).await?;
    let status = record.grant.status_at(act.now);
    if status.is_final() {
        return Err(not_for(&record, status));
    }
    sqlx::query("UPDATE grants SET status = 'pending', edit = edit + 1 WHERE id = $1")
        .bind(token.grant.to_string())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    let revoked_certificates =
        certificates::revoke_all(conn, token.grant, act.now, RevocationReason::Superseded).await?;
    withdraw(conn, token.grant, act.now).await?;
    insert(conn, &token, act.now).await?;
    let admin = AdminAct::on_grant("token.replace", &record.grant)
        .text("token", &token.prefix)
        .count("certificates", revoked_certificates);
    change
        .commit(
            admin,
            Replaced {
                revoked_certificates,
            },
        )
        .await
}

/// The answer to a claim that cannot succeed; `None` when it may.
pub(super) async fn refusal(
    conn: &mut DbConnection,
    now: UnixMillis,
    token: &Sha256,
) -> Result<Option<Committed<TokenClaim>>, StoreError> {
    let claimable = sqlx::query(concat!(
        "SELECT 1 FROM enrollment_tokens WHERE ",
        claimable!()
    ))
    .bind(token.as_slice())
    .bind(now.0)
    .fetch_optional(&mut *conn)
    .await
    .map_err(driver)?;
    if claimable.is_some() {
        return Ok(None);
    }
    let why = why_not(conn, now, token).await?;
    Ok(Some(nothing(image::revision(conn).await?, why)))
}

pub(super) async fn claim(
    writer: &mut Writer,
    act: &Act,
    token: &Sha256,
) -> Result<Committed<TokenClaim>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let row = sqlx::query(concat!(
        "UPDATE enrollment_tokens SET used_at = $2 WHERE ",
        claimable!(),
        " RETURNING grant_id, prefix8"
    ))
    .bind(token.as_slice())
    .bind(act.now.0)
    .fetch_optional(&mut *conn)
    .await
    .map_err(driver)?;
    let Some(row) = row else {
        let why = why_not(conn, act.now, token).await?;
        return change.unchanged(why).await;
    };
    let columns = Columns {
        table: "enrollment_tokens",
        row: &row,
    };
    let grant = grants::load(conn, columns.parsed("grant_id")?).await?.grant;
    let peer_name = peers::load(conn, grant.peer).await?.name;
    let admin = AdminAct::on_grant("token.claim", &grant).text("token", &columns.text("prefix8")?);
    let claim = TokenClaim::Claimed(Box::new(Claim { grant, peer_name }));
    change.commit(admin, claim).await
}

/// Why a token that is not claimable is not: the first reason in the order of its life.
async fn why_not(
    conn: &mut DbConnection,
    now: UnixMillis,
    token: &Sha256,
) -> Result<TokenClaim, StoreError> {
    let row = sqlx::query(
        "SELECT used_at, withdrawn_at, expires_at FROM enrollment_tokens WHERE sha256 = $1",
    )
    .bind(token.as_slice())
    .fetch_optional(conn)
    .await
    .map_err(driver)?;
    let Some(row) = row else {
        return Ok(TokenClaim::Unknown);
    };
    let columns = Columns {
        table: "enrollment_tokens",
        row: &row,
    };
    Ok(if columns.opt_millis("used_at")?.is_some() {
        TokenClaim::Used
    } else if columns.opt_millis("withdrawn_at")?.is_some() {
        TokenClaim::Withdrawn
    } else if columns.millis("expires_at")? <= now {
        TokenClaim::Expired
    } else {
        TokenClaim::NotPending
    })
}

/// Withdraws the live token of a grant; how many there were, 0 or 1.
pub(super) async fn withdraw(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE enrollment_tokens SET withdrawn_at = $1 WHERE grant_id = $2 \
         AND used_at IS NULL AND withdrawn_at IS NULL",
    )
    .bind(now.0)
    .bind(grant.to_string())
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(done.rows_affected())
}

fn check(act: &Act, token: &NewToken) -> Result<(), StoreError> {
    let ttl = token.expires_at.0.saturating_sub(act.now.0);
    if !(1..=TOKEN_TTL_MAX_MILLIS).contains(&ttl) {
        return Err(StoreError::invalid(format!(
            "a token lives 1 to {TOKEN_TTL_MAX_MILLIS} ms, not {ttl}"
        )));
    }
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if token.prefix.len() != 8 || !token.prefix.bytes().all(hex) {
        return Err(StoreError::invalid(
            "the prefix of a token is its first 8 hex digits",
        ));
    }
    Ok(())
}

fn not_for(record: &GrantRecord, status: GrantStatus) -> StoreError {
    StoreError::conflict(format!("the grant {} is {status}", record.grant.id))
}

async fn insert(
    conn: &mut DbConnection,
    token: &NewToken,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrollment_tokens (sha256, prefix8, grant_id, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(token.sha256.as_slice())
    .bind(&token.prefix)
    .bind(token.grant.to_string())
    .bind(now.0)
    .bind(token.expires_at.0)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}
