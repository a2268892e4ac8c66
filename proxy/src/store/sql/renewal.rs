//! Renewal on the serving side: from request to confirmed certificate.
//!
//! Invariant: whether a request may have a certificate is looked at twice, before signing and in the transaction that
//! registers it. Of a grant at most one certificate is unconfirmed, and only its holder's first request confirms it.

use std::time::Duration;

use certs::crl::RevocationReason;
use policy::grant::GrantStatus;
use policy::id::GrantId;
use policy::peer::PeerState;
use policy::time::UnixMillis;

use super::change::{AdminAct, Change};
use super::column::Columns;
use super::dialect::{DbConnection, driver};
use super::writer::Writer;
use super::{certificates, enrollment, grants, peers};
use crate::store::{
    Act, CertificateState, Committed, GrantRecord, KnownCertificate, RenewalRequest, RenewalStart,
    RenewedCertificate, RevokedCertificate, Sha256, StoreError,
};

pub(super) async fn begin(
    writer: &mut Writer,
    act: &Act,
    request: RenewalRequest,
) -> Result<Committed<RenewalStart>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = active(conn, request.grant, act.now).await?;
    let start = judge(conn, &request).await?;
    if start != RenewalStart::Issue {
        return change.unchanged(start).await;
    }
    let (intent, csr) = (request.intent, request.csr_sha256);
    enrollment::insert_intent(conn, intent, request.grant, &csr, act.now).await?;
    let admin =
        AdminAct::on_grant("certificate.intent", &record.grant).text("intent", &intent.to_string());
    change.commit(admin, start).await
}

pub(super) async fn complete(
    writer: &mut Writer,
    act: &Act,
    renewed: RenewedCertificate,
) -> Result<Committed<bool>, StoreError> {
    let RenewedCertificate {
        request,
        certificate,
        chain_pem,
    } = renewed;
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let record = active(conn, request.grant, act.now).await?;
    if judge(conn, &request).await? != RenewalStart::Issue {
        return Err(StoreError::conflict(
            "another renewal of the grant came in between",
        ));
    }
    enrollment::close_intent(conn, request.intent, Some(request.grant), None, act.now).await?;
    let replaced = revoke_unconfirmed(conn, request.grant, act.now).await?;
    certificates::insert(conn, request.grant, &certificate, act.now).await?;
    sqlx::query(
        "UPDATE certificates SET confirmed_at = NULL, csr_sha256 = $1, chain_pem = $2 WHERE fingerprint = $3",
    )
    .bind(request.csr_sha256.as_slice())
    .bind(&chain_pem)
    .bind(certificate.fingerprint.as_slice())
    .execute(conn)
    .await
    .map_err(driver)?;
    let mut admin = AdminAct::on_grant("certificate.renew", &record.grant)
        .text("intent", &request.intent.to_string());
    if let Some(serial) = &replaced {
        admin = admin.text("revoked", serial);
    }
    admin.cert_serial = Some(certificate.serial);
    change.commit(admin, replaced.is_some()).await
}

/// The grant if it is active, has not ended, and its peer is answered.
async fn active(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
) -> Result<GrantRecord, StoreError> {
    let record = grants::load(conn, grant).await?;
    let status = record.grant.status_at(now);
    if status != GrantStatus::Active {
        return Err(StoreError::conflict(format!(
            "the grant {grant} is {status}, not active"
        )));
    }
    let peer = peers::load(conn, record.grant.peer).await?;
    match peer.state {
        PeerState::Active | PeerState::Degraded => Ok(record),
        PeerState::Pending | PeerState::Suspended | PeerState::Revoked => Err(
            StoreError::conflict(format!("the peer {} is {}", peer.name, peer.state)),
        ),
    }
}

/// What a request for renewal is to get.
async fn judge(
    conn: &mut DbConnection,
    request: &RenewalRequest,
) -> Result<RenewalStart, StoreError> {
    let known = sqlx::query(
        "SELECT state, der, chain_pem, not_after FROM certificates WHERE grant_id = $1 AND csr_sha256 = $2",
    )
    .bind(request.grant.to_string())
    .bind(request.csr_sha256.as_slice())
    .fetch_optional(&mut *conn)
    .await
    .map_err(driver)?;
    if let Some(row) = known {
        let columns = Columns {
            table: "certificates",
            row: &row,
        };
        if columns.member("state", CertificateState::parse)? == CertificateState::Revoked {
            return Ok(RenewalStart::Spent);
        }
        return Ok(RenewalStart::Known(Box::new(KnownCertificate {
            der: columns.bytes("der")?,
            chain_pem: columns.text("chain_pem")?,
            not_after: columns.millis("not_after")?,
        })));
    }
    // One that was revoked counts too: what it took the place of does not come back.
    let newest = newest_confirmed(conn, request.grant).await?;
    let current = newest.is_some_and(|(fingerprint, state)| {
        fingerprint == request.presented && state == CertificateState::Active
    });
    Ok(if current {
        RenewalStart::Issue
    } else {
        RenewalStart::Outdated
    })
}

async fn newest_confirmed(
    conn: &mut DbConnection,
    grant: GrantId,
) -> Result<Option<(Sha256, CertificateState)>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, state FROM certificates WHERE grant_id = $1 AND confirmed_at IS NOT NULL \
         ORDER BY issue DESC, issued_at DESC LIMIT 1",
    )
    .bind(grant.to_string())
    .fetch_optional(conn)
    .await
    .map_err(driver)?;
    row.map(|row| {
        let columns = Columns {
            table: "certificates",
            row: &row,
        };
        let state = columns.member("state", CertificateState::parse)?;
        Ok((columns.digest("fingerprint")?, state))
    })
    .transpose()
}

/// Revokes the certificate of a grant that was never used; its serial number.
async fn revoke_unconfirmed(
    conn: &mut DbConnection,
    grant: GrantId,
    now: UnixMillis,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar(
        "UPDATE certificates SET state = 'revoked', revoked_at = $1, revocation_reason = $2 \
         WHERE grant_id = $3 AND state = 'active' AND confirmed_at IS NULL RETURNING serial",
    )
    .bind(now.0)
    .bind(i64::from(RevocationReason::Superseded.code()))
    .bind(grant.to_string())
    .fetch_optional(conn)
    .await
    .map_err(driver)
}

pub(super) async fn confirm(
    writer: &mut Writer,
    act: &Act,
    grant: GrantId,
    fingerprint: &Sha256,
    overlap: Duration,
) -> Result<Committed<()>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let row = certificates::find(conn, fingerprint)
        .await?
        .filter(|entry| entry.grant == grant)
        .ok_or_else(|| StoreError::not_found("certificate", hex::encode(fingerprint)))?;
    if row.state != CertificateState::Active {
        return Err(StoreError::conflict(format!(
            "the certificate {} is {}",
            row.serial, row.state
        )));
    }
    if row.confirmed_at.is_some() {
        return change.unchanged(()).await;
    }
    let before = newest_confirmed(conn, grant).await?;
    let before = before.map_or([0; 32], |(before, _)| before);
    let until = act
        .now
        .saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
    sqlx::query("UPDATE certificates SET confirmed_at = $1 WHERE fingerprint = $2")
        .bind(act.now.0)
        .bind(fingerprint.as_slice())
        .execute(&mut *conn)
        .await
        .map_err(driver)?;
    sqlx::query(
        "UPDATE certificates SET retires_at = CASE \
         WHEN retires_at < CASE fingerprint WHEN $2 THEN $1 ELSE $3 END THEN retires_at \
         WHEN fingerprint = $2 THEN $1 ELSE $3 END \
         WHERE grant_id = $4 AND fingerprint <> $5 AND state = 'active' AND confirmed_at IS NOT NULL",
    )
    .bind(until.0)
    .bind(before.as_slice())
    .bind(act.now.0)
    .bind(grant.to_string())
    .bind(fingerprint.as_slice())
    .execute(&mut *conn)
    .await
    .map_err(driver)?;
    let record = grants::load(conn, grant).await?;
    let mut admin = AdminAct::on_grant("certificate.confirm", &record.grant)
        .text("earlier_until", &until.rfc3339().to_string());
    admin.cert_serial = Some(row.serial);
    change.commit(admin, ()).await
}

pub(super) async fn revoke(
    writer: &mut Writer,
    act: &Act,
    serial: &str,
    reason: RevocationReason,
) -> Result<Committed<RevokedCertificate>, StoreError> {
    let mut change = Change::begin(writer, act).await?;
    let conn = change.conn();
    let mut found = certificates::by_serial(conn, serial).await?;
    let entry = found
        .pop()
        .ok_or_else(|| StoreError::not_found("certificate", serial))?;
    if !found.is_empty() {
        return Err(StoreError::conflict(format!(
            "several certificates have the serial number {serial}"
        )));
    }
    if entry.state == CertificateState::Revoked {
        let left = certificates::count_good(conn, entry.grant, act.now).await?;
        return change.unchanged(RevokedCertificate { entry, left }).await;
    }
    certificates::revoke_one(conn, &entry.fingerprint, act.now, reason).await?;
    grants::touch(conn, entry.grant).await?;
    let left = certificates::count_good(conn, entry.grant, act.now).await?;
    let record = grants::load(conn, entry.grant).await?;
    let mut admin = AdminAct::on_grant("certificate.revoke", &record.grant)
        .count("left", left)
        .text("reason", reason.as_str());
    admin.cert_serial = Some(entry.serial.clone());
    let revoked = RevokedCertificate {
        entry: crate::store::CertificateEntry {
            state: CertificateState::Revoked,
            ..entry
        },
        left,
    };
    change.commit(admin, revoked).await
}
