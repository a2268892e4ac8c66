//! Certificates: list ours and those we issued, renew ours, revoke one we issued.
//!
//! Invariant: revoking returns when nothing is answered under the certificate any more, here or from a peer's cache;
//! the grant stays, and so do its other certificates.

use certs::PeerIdentity;
use certs::crl::RevocationReason;
use policy::id::{GrantId, PeerId};
use policy::peer::PeerName;
use policy::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::grants::parse_peer;
use super::{AdminCode, AdminFailure, Control, days_left};
use crate::directory::{Applied, Touched};
use crate::outbound::{RenewError, RenewalPlan};
use crate::store::{Actor, CredentialState, OutboundCredential, PeerDirection};

/// What an operator is told when the grant of a revoked certificate has none left.
const NONE_LEFT: &str =
    "the grant has no certificate left: `grant token --replace` lets its peer enroll again";

/// A certificate, ours or one that we issued.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateRow {
    /// `server`, `ca`, `client` (with which we ask) or `issued` (with which we are asked).
    pub role: &'static str,
    /// Serial number, lower-case hex; absent for the authority's.
    pub serial: Option<String>,
    /// The peer it is for.
    pub peer: Option<PeerName>,
    /// The grant it is for.
    pub grant: Option<GrantId>,
    /// `active`, `unconfirmed` (issued, not yet used), `superseded`, `expired`, `suspended` or `revoked`.
    pub state: &'static str,
    /// End of validity.
    pub not_after: UnixMillis,
    /// Whole days until then, negative when past.
    pub days_left: i64,
    /// When a newer one takes over for good.
    pub retires_at: Option<UnixMillis>,
    /// When it is renewed, or tried again.
    pub renews_at: Option<UnixMillis>,
    /// Failed tries to renew it since the last that worked.
    pub failures: u32,
    /// Why the last one failed.
    pub failure: Option<String>,
}

/// Which credentials to renew.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewCertificates {
    /// The peer we ask; every one when absent.
    pub peer: Option<String>,
}

/// Why a certificate is revoked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeCertificate {
    /// One of [`REVOKE_REASONS`], as lists spell it; not said when absent.
    pub reason: Option<String>,
}

/// The reasons for which an operator may revoke a certificate that was issued to a peer. Those about authorities are for others,
/// and a hold could not be ended.
pub const REVOKE_REASONS: [RevocationReason; 6] = [
    RevocationReason::Unspecified,
    RevocationReason::KeyCompromise,
    RevocationReason::AffiliationChanged,
    RevocationReason::Superseded,
    RevocationReason::CessationOfOperation,
    RevocationReason::PrivilegeWithdrawn,
];

/// What became of one.
#[derive(Debug, Serialize)]
pub struct RenewedView {
    /// The peer.
    pub peer: PeerName,
    /// Whether it was renewed.
    pub renewed: bool,
    /// End of the certificate in use now.
    pub not_after: Option<UnixMillis>,
    /// Why it was not.
    pub failure: Option<String>,
}

/// A certificate that was revoked.
#[derive(Debug, Serialize)]
pub struct RevokedView {
    /// Its serial number.
    pub serial: String,
    /// Its grant.
    pub grant: GrantId,
    /// How many certificates of the grant are still good.
    pub left: u64,
    /// What applying the change came to.
    #[serde(flatten)]
    pub applied: Applied,
    /// What is to be done, if the grant has none left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

impl Control {
    /// `cert list`: the server's and the authority's, those we ask with, those we issued; expired ones for a week.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list_certificates(&self) -> Result<Vec<CertificateRow>, AdminFailure> {
        let now = self.now();
        let mut rows = Vec::new();
        if let Some(server) = &self.server_certificate {
            let current = server.current();
            let credential = current.credential();
            let end = UnixMillis(credential.not_after().saturating_mul(1_000));
            rows.push(CertificateRow {
                serial: Some(credential.serial().as_str().to_owned()),
                failure: server.failure().map(|failure| failure.message),
                ..own("server", end, now)
            });
        }
        let anchors = certs::TrustAnchors::new(0, self.ca.anchors());
        let ends = anchors
            .ok()
            .and_then(|anchors| anchors.earliest_not_after());
        if let Some(end) = ends {
            rows.push(own("ca", UnixMillis(end.saturating_mul(1_000)), now));
        }
        let image = self.store.load(now).await?;
        let (peers, grants) = (image.peers_by_id(), image.grants_by_id());
        let named = |peer: PeerId| peers.get(&peer).map(|peer| peer.name.clone());
        for credential in self.store.list_outbound_credentials().await? {
            rows.push(held(&credential, named(credential.peer), now));
        }
        for leaf in &image.certificates {
            let grant = grants.get(&leaf.grant);
            let state = match leaf.state_at(now) {
                crate::store::CertificateState::Active if now > leaf.not_after => "expired",
                crate::store::CertificateState::Active if leaf.confirmed_at.is_none() => {
                    "unconfirmed"
                }
                state => state.as_str(),
            };
            rows.push(CertificateRow {
                serial: Some(leaf.serial.clone()),
                peer: grant.and_then(|record| named(record.grant.peer)),
                grant: Some(leaf.grant),
                state,
                retires_at: leaf.retires_at,
                ..own("issued", leaf.not_after, now)
            });
        }
        Ok(rows)
    }

    /// `cert renew`: renews credentials we ask with now, without waiting for them to be due.
    ///
    /// # Errors
    /// When this process asks nobody, or there is no such peer. A renewal that fails is in the answer.
    pub async fn renew_certificates(
        &self,
        actor: &Actor,
        request: RenewCertificates,
    ) -> Result<Vec<RenewedView>, AdminFailure> {
        let outbound = self.asking()?;
        let peer = request.peer.as_deref().map(parse_peer).transpose()?;
        if let Some(peer) = &peer {
            let direction = Some(PeerDirection::Outbound.as_str());
            self.find_peer(peer.as_str(), direction).await?;
        }
        let renewed = outbound.renew_now(actor.clone(), peer.as_ref()).await;
        if let (Some(peer), true) = (peer, renewed.is_empty()) {
            let message = format!("the peer {peer} is suspended here, so it is not asked");
            return Err(AdminFailure::new(AdminCode::Conflict, message)
                .hint("`peer resume` ends the suspension"));
        }
        let view = |(peer, result): (PeerName, Result<UnixMillis, RenewError>)| RenewedView {
            peer,
            renewed: result.is_ok(),
            not_after: result.as_ref().ok().copied(),
            failure: result.err().map(|error| error.to_string()),
        };
        Ok(renewed.into_iter().map(view).collect())
    }

    /// `cert revoke`: revokes one certificate that we issued. Idempotent.
    ///
    /// # Errors
    /// When there is no such certificate, or the change could not be applied here, or peers' caches do not follow yet.
    pub async fn revoke_certificate(
        &self,
        actor: &Actor,
        serial: &str,
        request: RevokeCertificate,
    ) -> Result<RevokedView, AdminFailure> {
        let serial = parse_serial(serial)?;
        let reason = parse_reason(request.reason.as_deref())?;
        let act = self.act(actor);
        let committed = self
            .store
            .revoke_certificate(&act, &serial, reason)
            .await
            .map_err(|error| {
                AdminFailure::from(error)
                    .hint("`cert list` shows the serial numbers of those we issued")
            })?;
        let grant = committed.value.entry.grant;
        let (revoked, applied) = self.effect(committed, Touched::Grant(grant)).await?;
        Ok(RevokedView {
            serial,
            grant,
            left: revoked.left,
            applied,
            hint: (revoked.left == 0).then_some(NONE_LEFT),
        })
    }
}

/// A row of our own.
fn own(role: &'static str, not_after: UnixMillis, now: UnixMillis) -> CertificateRow {
    CertificateRow {
        role,
        serial: None,
        peer: None,
        grant: None,
        state: if now > not_after { "expired" } else { "active" },
        not_after,
        days_left: days_left(not_after, now),
        retires_at: None,
        renews_at: None,
        failures: 0,
        failure: None,
    }
}

/// A credential that we ask with. Its times are by the peer's clock, and are shown by ours.
fn held(
    credential: &OutboundCredential,
    peer: Option<PeerName>,
    now: UnixMillis,
) -> CertificateRow {
    let state = match credential.state {
        CredentialState::Active if now > credential.not_after => "expired",
        state => state.as_str(),
    };
    CertificateRow {
        serial: serial_of(&credential.chain_pem),
        peer,
        grant: Some(credential.grant),
        state,
        renews_at: renews_at(credential, now),
        failures: credential.tries.failures,
        failure: credential.tries.failure.clone(),
        ..own("client", credential.not_after, now)
    }
}

/// When a credential is renewed, or tried again, by our clock; `None` for one that is not.
pub(super) fn renews_at(credential: &OutboundCredential, now: UnixMillis) -> Option<UnixMillis> {
    let renewed = matches!(
        credential.state,
        CredentialState::Active | CredentialState::Suspended
    );
    let theirs = now.saturating_add(credential.skew_ms);
    let next = RenewalPlan::of(credential).next(&credential.tries, theirs.0)?;
    renewed.then(|| next.saturating_add(credential.skew_ms.saturating_neg()))
}

/// The serial number of the first certificate of a chain.
pub(super) fn serial_of(chain_pem: &str) -> Option<String> {
    let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
    let identity = PeerIdentity::decode(&leaf, 0).ok()?;
    Some(identity.serial.as_str().to_owned())
}

fn parse_reason(text: Option<&str>) -> Result<RevocationReason, AdminFailure> {
    let Some(text) = text else {
        return Ok(RevocationReason::Unspecified);
    };
    let mut known = REVOKE_REASONS.into_iter();
    known.find(|one| one.as_str() == text).ok_or_else(|| {
        let names = REVOKE_REASONS.map(RevocationReason::as_str).join(", ");
        AdminFailure::invalid(format!("`{}` is no reason", text.escape_debug()))
            .hint(format!("give one of {names}"))
    })
}

/// A serial number as people write it: hexadecimal, with or without colons.
fn parse_serial(text: &str) -> Result<String, AdminFailure> {
    let plain: String = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let hex = !plain.is_empty()
        && plain.len() <= 40
        && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex {
        Ok(plain)
    } else {
        let shown = text.escape_debug();
        Err(
            AdminFailure::invalid(format!("`{shown}` is not a serial number"))
                .hint("`cert list` shows them: hexadecimal digits, with or without colons"),
        )
    }
}
