//! What the serving side's words mean for a grant of ours, and what that means for the next request.
//!
//! Invariant: a grant's state changes only on a reason that names it, in a 403 with that reason or in the
//! `certificate_revoked` alert; never on a generic 403, another status or a network error (the specification,
//! section 2). Pure; recording the state is done by the caller.

use http::StatusCode;
use policy::peer::PeerState;
use policy::time::UnixMillis;
use rustls::AlertDescription;

use crate::store::CredentialState;

/// Why a request is refused here, before the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRefusal {
    /// An operator of this side has suspended the peer.
    PeerSuspended,
    /// An operator of this side has ended the peer.
    PeerRevoked,
    /// The serving side has revoked the grant or its certificate.
    GrantRevoked,
    /// The grant has expired.
    GrantExpired,
    /// The certificate has expired.
    CertificateExpired,
    /// A newer credential has replaced this one.
    Superseded,
}

impl LocalRefusal {
    /// The machine-readable reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::PeerSuspended => "peer_suspended",
            Self::PeerRevoked => "peer_revoked",
            Self::GrantRevoked => "grant_revoked",
            Self::GrantExpired => "grant_expired",
            Self::CertificateExpired => "certificate_expired",
            Self::Superseded => "certificate_superseded",
        }
    }

    /// What a user should know and do.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::PeerSuspended => {
                "this peer is suspended here; an operator ends that with `peer resume`"
            }
            Self::PeerRevoked => "this peer was removed here; enroll it again with `peer add`",
            Self::GrantRevoked => "the peer has revoked this grant; ask its operator for a new one",
            Self::GrantExpired => "this grant has expired; ask the peer's operator for a new one",
            Self::CertificateExpired => {
                "the certificate of this grant has expired; ask the peer's operator for `grant token --replace`"
            }
            Self::Superseded => {
                "the certificate of this grant was replaced; enroll again with a new token"
            }
        }
    }
}

/// Whether a request may go out at `now`; `not_after` is the end of the certificate, inclusive.
///
/// # Errors
/// [`LocalRefusal`]: the operator's word first, then the grant's state, then the certificate's time.
pub fn may_ask(
    peer: PeerState,
    credential: CredentialState,
    not_after: UnixMillis,
    now: UnixMillis,
) -> Result<(), LocalRefusal> {
    match peer {
        PeerState::Suspended => return Err(LocalRefusal::PeerSuspended),
        PeerState::Revoked => return Err(LocalRefusal::PeerRevoked),
        PeerState::Pending | PeerState::Active | PeerState::Degraded => {}
    }
    match credential {
        CredentialState::Revoked => Err(LocalRefusal::GrantRevoked),
        CredentialState::Superseded => Err(LocalRefusal::Superseded),
        CredentialState::Expired if now <= not_after => Err(LocalRefusal::GrantExpired),
        CredentialState::Expired => Err(LocalRefusal::CertificateExpired),
        CredentialState::Active | CredentialState::Suspended if now > not_after => {
            Err(LocalRefusal::CertificateExpired)
        }
        // A suspension is lifted by the other side without telling: asking again is how it is noticed.
        CredentialState::Active | CredentialState::Suspended => Ok(()),
    }
}

/// The state that an answer gives the credential it was asked with; `None` leaves it as it is.
///
/// `reason` is `details.reason` of an envelope with code `forbidden`.
#[must_use]
pub fn learned_from_answer(status: StatusCode, reason: Option<&str>) -> Option<CredentialState> {
    if status == StatusCode::OK {
        return Some(CredentialState::Active);
    }
    if status != StatusCode::FORBIDDEN {
        return None;
    }
    match reason? {
        "grant_revoked" | "certificate_revoked" => Some(CredentialState::Revoked),
        "grant_expired" | "certificate_expired" => Some(CredentialState::Expired),
        "peer_suspended" => Some(CredentialState::Suspended),
        _ => None,
    }
}

/// The state that a TLS alert gives the credential.
#[must_use]
pub fn learned_from_alert(alert: Option<AlertDescription>) -> Option<CredentialState> {
    (alert == Some(AlertDescription::CertificateRevoked)).then_some(CredentialState::Revoked)
}

/// Whether `learned` is to be written down over `known`: what is final stays, what is the same is no news.
#[must_use]
pub fn is_news(known: CredentialState, learned: CredentialState) -> bool {
    match known {
        CredentialState::Revoked | CredentialState::Superseded => false,
        CredentialState::Active | CredentialState::Suspended | CredentialState::Expired => {
            known != learned
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: UnixMillis = UnixMillis(2_000);
    const NOW: UnixMillis = UnixMillis(1_000);

    #[test]
    fn what_is_over_is_refused_without_the_network() {
        use CredentialState as C;
        let ask = |credential| may_ask(PeerState::Active, credential, LATER, NOW);
        assert_eq!(ask(C::Active), Ok(()));
        assert_eq!(ask(C::Suspended), Ok(()));
        assert_eq!(ask(C::Revoked), Err(LocalRefusal::GrantRevoked));
        assert_eq!(ask(C::Expired), Err(LocalRefusal::GrantExpired));
        assert_eq!(ask(C::Superseded), Err(LocalRefusal::Superseded));
        assert_eq!(
            may_ask(PeerState::Active, C::Active, NOW, LATER),
            Err(LocalRefusal::CertificateExpired)
        );
        assert_eq!(
            may_ask(PeerState::Active, C::Active, NOW, NOW),
            Ok(()),
            "the end is inclusive"
        );
        assert_eq!(
            may_ask(PeerState::Suspended, C::Revoked, LATER, NOW),
            Err(LocalRefusal::PeerSuspended)
        );
        assert_eq!(
            may_ask(PeerState::Revoked, C::Active, LATER, NOW),
            Err(LocalRefusal::PeerRevoked)
        );
        for asked in [PeerState::Pending, PeerState::Degraded] {
            assert_eq!(may_ask(asked, C::Active, LATER, NOW), Ok(()));
        }
    }

    #[test]
    fn only_a_named_reason_changes_a_grant() {
        use CredentialState as C;
        let forbidden = |reason| learned_from_answer(StatusCode::FORBIDDEN, reason);
        assert_eq!(forbidden(Some("grant_revoked")), Some(C::Revoked));
        assert_eq!(forbidden(Some("certificate_revoked")), Some(C::Revoked));
        assert_eq!(forbidden(Some("grant_expired")), Some(C::Expired));
        assert_eq!(forbidden(Some("certificate_expired")), Some(C::Expired));
        assert_eq!(forbidden(Some("peer_suspended")), Some(C::Suspended));
        for unnamed in [
            None,
            Some(""),
            Some("certificate_superseded"),
            Some("GRANT_REVOKED"),
        ] {
            assert_eq!(forbidden(unnamed), None, "{unnamed:?}");
        }
        for status in [
            StatusCode::UNAUTHORIZED,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::NOT_FOUND,
        ] {
            assert_eq!(
                learned_from_answer(status, Some("grant_revoked")),
                None,
                "{status}"
            );
        }
        assert_eq!(learned_from_answer(StatusCode::OK, None), Some(C::Active));
    }

    #[test]
    fn only_the_revoked_alert_changes_a_grant() {
        assert_eq!(
            learned_from_alert(Some(AlertDescription::CertificateRevoked)),
            Some(CredentialState::Revoked)
        );
        for other in [
            AlertDescription::CertificateExpired,
            AlertDescription::UnknownCA,
            AlertDescription::HandshakeFailure,
        ] {
            assert_eq!(learned_from_alert(Some(other)), None);
        }
        assert_eq!(learned_from_alert(None), None);
    }

    #[test]
    fn final_states_stay() {
        use CredentialState as C;
        for learned in [C::Active, C::Suspended, C::Expired, C::Revoked] {
            assert!(!is_news(C::Revoked, learned));
            assert!(!is_news(C::Superseded, learned));
            assert!(!is_news(learned, learned));
        }
        assert!(is_news(C::Suspended, C::Active));
        assert!(is_news(C::Active, C::Revoked));
    }
}
