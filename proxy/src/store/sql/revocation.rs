//! Revocation lists and what they are made of.
//!
//! Invariant: of two processes that make the next list one stores it; a revocation stays untold until its authority had it.

use certs::crl::RevocationReason;
use policy::id::GrantId;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, DbRow, driver};
use super::writer::Writer;
use super::{certificates, grants};
use crate::store::{
    Act, CertificateState, Committed, EnrolledCertificate, KeptList, ListedLeaf, PublishedList,
    RevokedLeaf, SerialStanding, ServerCertificateRecord, Sha256, StoreError, UntoldRevocation,
};

const fn certificate(row: &DbRow) -> Columns<'_> {
    Columns {
        table: "certificates",
        row,
    }
}

/// The stored reason; rows from before there was one have none.
fn reason(columns: &Columns<'_>) -> Result<RevocationReason, StoreError> {
    let code = columns.opt_count::<u8>("revocation_reason")?;
    Ok(code
        .and_then(RevocationReason::from_code)
        .unwrap_or(RevocationReason::Unspecified))
}

pub(super) async fn revoked(
    conn: &mut DbConnection,
    end_after: UnixMillis,
) -> Result<Vec<RevokedLeaf>, StoreError> {
    // Without an order: for that SQLite would go through all certificates by serial instead of the revoked ones.
    let rows = sqlx::query(
        "SELECT serial, der, revoked_at, revocation_reason FROM certificates \
         WHERE state = 'revoked' AND not_after > $1",
    )
    .bind(end_after.0)
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    let mut leaves: Vec<RevokedLeaf> = rows
        .iter()
        .map(|row| {
            let columns = certificate(row);
            Ok(RevokedLeaf {
                serial: columns.text("serial")?,
                der: columns.bytes("der")?,
                revoked_at: columns.millis("revoked_at")?,
                reason: reason(&columns)?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    leaves.sort_by(|a, b| (&a.serial, &a.der).cmp(&(&b.serial, &b.der)));
    Ok(leaves)
}

pub(super) async fn published(
    conn: &mut DbConnection,
) -> Result<Option<PublishedList>, StoreError> {
    let row = sqlx::query("SELECT number, made_at, content, der FROM revocation_list")
        .fetch_optional(conn)
        .await
        .map_err(driver)?;
    row.map(|row| {
        let columns = Columns {
            table: "revocation_list",
            row: &row,
        };
        Ok(PublishedList {
            number: columns.count("number")?,
            made_at: columns.millis("made_at")?,
            content: columns.digest("content")?,
            der: columns.bytes("der")?,
        })
    })
    .transpose()
}

pub(super) async fn publish(writer: &mut Writer, list: &PublishedList) -> Result<bool, StoreError> {
    let number = i64::try_from(list.number)
        .map_err(|_| StoreError::invalid("the number of the list is too large"))?;
    let (mut tx, _) = writer.begin().await?;
    let done = sqlx::query(
        "INSERT INTO revocation_list (one, number, made_at, content, der) \
         SELECT 1, $1, $2, $3, $4 WHERE $1 = 1 + COALESCE((SELECT number FROM revocation_list), 0) \
         ON CONFLICT (one) DO UPDATE SET number = excluded.number, made_at = excluded.made_at, \
         content = excluded.content, der = excluded.der",
    )
    .bind(number)
    .bind(list.made_at.0)
    .bind(list.content.as_slice())
    .bind(&list.der)
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn kept(conn: &mut DbConnection) -> Result<Vec<KeptList>, StoreError> {
    let rows = sqlx::query(
        "SELECT source, sha256, der, issuer FROM kept_revocation_lists ORDER BY source, sha256",
    )
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = Columns {
                table: "kept_revocation_lists",
                row,
            };
            Ok(KeptList {
                source: columns.text("source")?,
                sha256: columns.digest("sha256")?,
                der: columns.bytes("der")?,
                issuer: columns.bytes("issuer")?,
            })
        })
        .collect()
}

pub(super) async fn keep(
    writer: &mut Writer,
    source: &str,
    lists: &[KeptList],
) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    sqlx::query("DELETE FROM kept_revocation_lists WHERE source = $1")
        .bind(source)
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    for list in lists {
        sqlx::query(
            "INSERT INTO kept_revocation_lists (source, sha256, der, issuer) VALUES ($1, $2, $3, $4)",
        )
        .bind(source)
        .bind(list.sha256.as_slice())
        .bind(&list.der)
        .bind(&list.issuer)
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    }
    tx.commit().await.map_err(driver)
}

pub(super) async fn revoke_listed(
    writer: &mut Writer,
    act: &Act,
    listed: &[ListedLeaf],
) -> Result<Committed<Vec<GrantId>>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let mut acts = Vec::new();
    let mut touched = Vec::new();
    for one in listed {
        let found = certificates::find(conn, &one.fingerprint).await?;
        let Some(entry) = found.filter(|entry| entry.state != CertificateState::Revoked) else {
            continue;
        };
        certificates::revoke_one(conn, &one.fingerprint, act.now, one.reason).await?;
        grants::touch(conn, entry.grant).await?;
        let record = grants::load(conn, entry.grant).await?;
        let mut admin = AdminAct::on_grant("certificate.revoke", &record.grant)
            .text("reason", "a revocation list names it")
            .count("code", u64::from(one.reason.code()));
        admin.cert_serial = Some(entry.serial);
        acts.push(admin);
        touched.push(entry.grant);
    }
    let mut acts = acts.into_iter();
    match acts.next() {
        None => change.unchanged(touched).await,
        Some(first) => change.commit_all(first, acts.collect(), touched).await,
    }
}

pub(super) async fn register(
    writer: &mut Writer,
    act: &Act,
    grant: GrantId,
    certificate: &EnrolledCertificate,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    if certificates::find(conn, &certificate.fingerprint)
        .await?
        .is_some()
    {
        return change.unchanged(()).await;
    }
    certificates::insert(conn, grant, certificate, act.now).await?;
    // It was never used: the one before it stays the newest from which its holder renews.
    sqlx::query("UPDATE certificates SET confirmed_at = NULL WHERE fingerprint = $1")
        .bind(certificate.fingerprint.as_slice())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    let why = RevocationReason::CessationOfOperation;
    certificates::revoke_one(conn, &certificate.fingerprint, act.now, why).await?;
    let record = grants::load(conn, grant).await?;
    let mut admin = AdminAct::on_grant("certificate.revoke", &record.grant)
        .text("reason", "issued, and not taken by its grant");
    admin.cert_serial = Some(certificate.serial.clone());
    change.commit(admin, ()).await
}

pub(super) async fn untold(
    conn: &mut DbConnection,
    now: UnixMillis,
    most: u32,
) -> Result<Vec<UntoldRevocation>, StoreError> {
    let rows = sqlx::query(
        "SELECT fingerprint, serial, der, revoked_at, revocation_reason, tell_tries, tell_tried_at, tell_failure \
         FROM certificates WHERE state = 'revoked' AND told_at IS NULL AND not_after > $1 \
         ORDER BY tell_tried_at IS NOT NULL, tell_tried_at, revoked_at, fingerprint LIMIT $2",
    )
    .bind(now.0)
    .bind(i64::from(most))
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = certificate(row);
            Ok(UntoldRevocation {
                fingerprint: columns.digest("fingerprint")?,
                serial: columns.text("serial")?,
                der: columns.bytes("der")?,
                revoked_at: columns.millis("revoked_at")?,
                reason: reason(&columns)?,
                tries: columns.count("tell_tries")?,
                tried_at: columns.opt_millis("tell_tried_at")?,
                failure: columns.opt_text("tell_failure")?,
            })
        })
        .collect()
}

pub(super) async fn count_untold(
    conn: &mut DbConnection,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS untold FROM certificates \
         WHERE state = 'revoked' AND told_at IS NULL AND not_after > $1",
    )
    .bind(now.0)
    .fetch_one(conn)
    .await
    .map_err(driver)?;
    certificate(&row).count("untold")
}

pub(super) async fn record_told(
    writer: &mut Writer,
    fingerprint: &Sha256,
    at: UnixMillis,
    failure: Option<&str>,
) -> Result<(), StoreError> {
    let told = failure.is_none().then_some(at.0);
    let (mut tx, _) = writer.begin().await?;
    sqlx::query(
        "UPDATE certificates SET told_at = COALESCE(told_at, $1), tell_tried_at = $2, tell_failure = $3, \
         tell_tries = tell_tries + CASE WHEN $3 IS NULL THEN 0 ELSE 1 END WHERE fingerprint = $4 AND state = 'revoked'",
    )
    .bind(told)
    .bind(at.0)
    .bind(failure.map(grants::bounded_reason))
    .bind(fingerprint.as_slice())
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)
}

pub(super) async fn record_server(
    writer: &mut Writer,
    issued: &ServerCertificateRecord,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (mut tx, _) = writer.begin().await?;
    sqlx::query("DELETE FROM server_certificates WHERE not_after < $1")
        .bind(now.0)
        .execute(&mut *tx)
        .await
        .map_err(driver)?;
    sqlx::query(
        "INSERT INTO server_certificates (fingerprint, serial, der, not_after) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (fingerprint) DO NOTHING",
    )
    .bind(issued.fingerprint.as_slice())
    .bind(&issued.serial)
    .bind(&issued.der)
    .bind(issued.not_after.0)
    .execute(&mut *tx)
    .await
    .map_err(driver)?;
    tx.commit().await.map_err(driver)
}

pub(super) async fn standing(
    conn: &mut DbConnection,
    serial: &str,
) -> Result<Vec<SerialStanding>, StoreError> {
    let rows = sqlx::query(
        "SELECT der, state, revoked_at, revocation_reason FROM certificates WHERE serial = $1 \
         UNION ALL SELECT der, 'active', NULL, NULL FROM server_certificates WHERE serial = $1",
    )
    .bind(serial)
    .fetch_all(conn)
    .await
    .map_err(driver)?;
    rows.iter()
        .map(|row| {
            let columns = certificate(row);
            let why = reason(&columns)?;
            Ok(SerialStanding {
                der: columns.bytes("der")?,
                state: columns.member("state", CertificateState::parse)?,
                revoked: columns.opt_millis("revoked_at")?.map(|at| (at, why)),
            })
        })
        .collect()
}
