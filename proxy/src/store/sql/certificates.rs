//! Issued certificates.
//!
//! Invariant: a fingerprint is registered once and for one grant; revoked is final. Issuing and checking
//! certificates is elsewhere.

use certs::crl::RevocationReason;
use futures_util::TryStreamExt as _;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use crate::store::{
    CertificateEntry, CertificateRecord, CertificateState, EnrolledCertificate, Sha256, StoreError,
};

fn entry(columns: Columns<'_>) -> Result<CertificateEntry, StoreError> {
    Ok(CertificateEntry {
        fingerprint: columns.digest("fingerprint")?,
        grant: columns.parsed("grant_id")?,
        serial: columns.text("serial")?,
        not_before: columns.millis("not_before")?,
        not_after: columns.millis("not_after")?,
        state: columns.member("state", CertificateState::parse)?,
        confirmed_at: columns.opt_millis("confirmed_at")?,
        retires_at: columns.opt_millis("retires_at")?,
    })
}

macro_rules! entries {
    ($tail:literal) => {
        concat!(
            "SELECT fingerprint, grant_id, serial, not_before, not_after, state, confirmed_at, retires_at \
             FROM certificates ",
            $tail
        )
    };
}

fn columns(row: &DbRow) -> Columns<'_> {
    Columns {
        table: "certificates",
        row,
    }
}

/// Certificates that ended after `kept_from`, without their bytes.
pub(super) async fn list_kept(
    conn: &mut DbConnection,
    kept_from: UnixMillis,
) -> Result<Vec<CertificateEntry>, StoreError> {
    // Row by row: there may be many, and a row as it comes takes several times the memory of an entry.
    let mut rows = sqlx::query(entries!("WHERE not_after > $1"))
        .bind(kept_from.0)
        .fetch(conn);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(driver)? {
        found.push(entry(columns(&row))?);
    }
    Ok(found)
}

/// The same of one grant.
pub(super) async fn list_kept_of(
    conn: &mut DbConnection,
    grant: GrantId,
    kept_from: UnixMillis,
) -> Result<Vec<CertificateEntry>, StoreError> {
    let rows = sqlx::query(entries!("WHERE grant_id = $1 AND not_after > $2"))
        .bind(grant.to_string())
        .bind(kept_from.0)
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(|row| entry(columns(row))).collect()
}

pub(super) async fn list(
    conn: &mut DbConnection,
    grant: GrantId,
) -> Result<Vec<CertificateRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT fingerprint, grant_id, serial, not_before, not_after, state, confirmed_at, retires_at, issued_at, \
         revoked_at, der FROM certificates WHERE grant_id = $1 ORDER BY issued_at DESC, issue DESC, fingerprint",
    )
    .bind(grant.to_string())
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = columns(row);
            Ok(CertificateRecord {
                entry: entry(columns)?,
                issued_at: columns.millis("issued_at")?,
                revoked_at: columns.opt_millis("revoked_at")?,
                der: columns.bytes("der")?,
            })
        })
        .collect()
}

/// The certificate with that fingerprint.
pub(super) async fn find(
    conn: &mut DbConnection,
    fingerprint: &Sha256,
) -> Result<Option<CertificateEntry>, StoreError> {
    let row = sqlx::query(entries!("WHERE fingerprint = $1"))
        .bind(fingerprint.as_slice())
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    row.as_ref().map(|row| entry(columns(row))).transpose()
}

/// The certificates with that serial number; two issuers may use the same.
pub(super) async fn by_serial(
    conn: &mut DbConnection,
    serial: &str,
) -> Result<Vec<CertificateEntry>, StoreError> {
    let rows = sqlx::query(entries!("WHERE serial = $1"))
        .bind(serial)
        .fetch_all(conn)
        .await
        .map_err(driver)?;
    rows.iter().map(|row| entry(columns(row))).collect()
}

/// How many certificates of a grant open it at `now`.
pub(super) async fn count_good(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS good FROM certificates WHERE grant_id = $1 AND state = 'active' AND not_after >= $2 \
         AND (retires_at IS NULL OR retires_at > $2)",
    )
    .bind(grant.to_string())
    .bind(now.0)
    .fetch_one(conn)
    .await
    .map_err(driver)?;
    columns(&row).count("good")
}

/// Registers a certificate, as one that has been used.
pub(super) async fn insert(
    conn: &mut DbConnection,
    grant: GrantId,
    certificate: &EnrolledCertificate,
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (fingerprint, grant_id, serial, not_before, not_after, state, issued_at, der, \
         confirmed_at, issue) VALUES ($1, $2, $3, $4, $5, 'active', $6, $7, $6, \
         (SELECT COALESCE(MAX(issue) + 1, 0) FROM certificates WHERE grant_id = $2))",
    )
    .bind(certificate.fingerprint.as_slice())
    .bind(grant.to_string())
    .bind(&certificate.serial)
    .bind(certificate.not_before.0)
    .bind(certificate.not_after.0)
    .bind(now.0)
    .bind(&certificate.der)
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(())
}

/// Revokes every certificate of a grant that is not revoked yet; how many.
pub(super) async fn revoke_all(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
    why: RevocationReason,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE certificates SET state = 'revoked', revoked_at = $1, revocation_reason = $2 \
         WHERE grant_id = $3 AND state <> 'revoked'",
    )
    .bind(now.0)
    .bind(i64::from(why.code()))
    .bind(grant.to_string())
    .execute(conn)
    .await
    .map_err(driver)?;
    Ok(done.rows_affected())
}

/// Revokes one certificate.
pub(super) async fn revoke_one(
    conn: &mut DbConnection,
    fingerprint: &Sha256,
    now: UnixMillis,
    why: RevocationReason,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE certificates SET state = 'revoked', revoked_at = $1, revocation_reason = $2 WHERE fingerprint = $3",
    )
    .bind(now.0)
    .bind(i64::from(why.code()))
    .bind(fingerprint.as_slice())
    .execute(conn)
    .await
    .map(drop)
    .map_err(driver)
}
