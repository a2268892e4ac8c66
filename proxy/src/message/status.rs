//! The only place where reasons become HTTP statuses and wire codes.
//!
//! The match is exhaustive without a wildcard: a new reason does not compile until it has a status.

use http::StatusCode;
use policy::deny::DenyCode;

/// The codes of the error envelope that this version answers with (specification, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireCode {
    /// The request itself is wrong.
    InvalidRequest,
    /// Nobody is identified.
    Unauthorized,
    /// The identity opens nothing.
    Forbidden,
    /// Outside the scope of the grant.
    ScopeViolation,
    /// No such row for this grant.
    NotFound,
    /// Asked too often, too much at once, or too much today.
    RateLimited,
    /// Something behind us cannot answer now.
    Unavailable,
}

impl WireCode {
    /// The code as written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ScopeViolation => "scope_violation",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Status and wire code of a reason.
#[must_use]
pub const fn status_of(code: DenyCode) -> (StatusCode, WireCode) {
    use DenyCode as D;
    match code {
        D::IdentityMalformed => (StatusCode::UNAUTHORIZED, WireCode::Unauthorized),
        D::GrantUnknown
        | D::GrantPending
        | D::SubjectMismatch
        | D::CertificateUnregistered
        | D::PeerUnknown
        | D::PeerSuspended
        | D::GrantRevoked
        | D::GrantExpired
        | D::CertificateRevoked
        | D::CertificateSuperseded
        | D::CertificateExpired
        | D::CertificateUntrusted
        | D::RenewalConflict => (StatusCode::FORBIDDEN, WireCode::Forbidden),
        D::RateExceeded | D::ConcurrencyExceeded | D::RowsPerDayExceeded => {
            (StatusCode::TOO_MANY_REQUESTS, WireCode::RateLimited)
        }
        D::UnknownRoute | D::UnknownVerb => (StatusCode::NOT_FOUND, WireCode::InvalidRequest),
        D::MethodNotAllowed | D::ConnectRefused => {
            (StatusCode::METHOD_NOT_ALLOWED, WireCode::InvalidRequest)
        }
        D::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, WireCode::InvalidRequest),
        D::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, WireCode::InvalidRequest),
        D::MalformedBody
        | D::UnknownKey
        | D::IdentityInBody
        | D::VerbMismatch
        | D::ResourceMismatch
        | D::InvalidLimit
        | D::InvalidFilter
        | D::InvalidCursor
        | D::InvalidQuery
        | D::InvalidResources
        | D::InvalidId
        | D::InvalidCsr
        | D::AmbiguousFraming
        | D::UpgradeRefused => (StatusCode::BAD_REQUEST, WireCode::InvalidRequest),
        D::UnknownResource
        | D::ReservedResource
        | D::ResourceNotGranted
        | D::ResourceExcluded
        | D::ResourceUnsupported
        | D::Ceiling
        | D::GatewayDenied => (StatusCode::FORBIDDEN, WireCode::ScopeViolation),
        D::NotFound => (StatusCode::NOT_FOUND, WireCode::NotFound),
        D::GatewayMalformed => (StatusCode::BAD_GATEWAY, WireCode::Unavailable),
        D::GatewayTimeout => (StatusCode::GATEWAY_TIMEOUT, WireCode::Unavailable),
        D::SubjectCredentialMissing
        | D::SubjectCredentialRejected
        | D::GatewayUnreachable
        | D::GatewayBusy
        | D::FactsUnavailable
        | D::RowBudgetUnavailable
        | D::RenewalUnavailable
        | D::CrlUnavailable
        | D::Fenced
        | D::ReplicaFenced
        | D::AuditUnavailable => (StatusCode::SERVICE_UNAVAILABLE, WireCode::Unavailable),
    }
}
