//! Why a request is not answered: a closed set of stages and codes, each with what it means and what to do about it.
//!
//! Invariant: every refusal anywhere in the sidecar has one of these codes; there is no free text and no "other".
//! Texts for users never name another grant, peer or row.
//! Elsewhere on purpose: status codes and envelopes (the proxy), the full story of a decision (`explain.rs`).

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::resource::Resource;
use crate::snapshot::GrantEntry;
use crate::verb::Verb;

/// The step that refused, in the order the steps run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyStage {
    /// Who is asking: certificate, grant, peer.
    Identity,
    /// How much is being asked.
    Rate,
    /// Whether the request is well formed.
    Request,
    /// Step 1 of the decision: the verb.
    Verb,
    /// Step 2: the resource.
    Resource,
    /// Step 3: the policy ceiling of the peer.
    Ceiling,
    /// Step 4: the native facts of the subject.
    Native,
    /// The gateway's answer.
    Gateway,
    /// The row asked for.
    Row,
    /// Whether the request can be recorded.
    Audit,
}

impl DenyStage {
    /// The name in audit rows, metrics and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Rate => "rate",
            Self::Request => "request",
            Self::Verb => "verb",
            Self::Resource => "resource",
            Self::Ceiling => "ceiling",
            Self::Native => "native",
            Self::Gateway => "gateway",
            Self::Row => "row",
            Self::Audit => "audit",
        }
    }

    /// What decides there, for the pages about refusals.
    #[must_use]
    pub const fn decides(self) -> &'static str {
        match self {
            Self::Identity => {
                "who asks: the certificate, its grant and its peer, looked at for every request"
            }
            Self::Rate => "how much is asked: by the grant, by its peer, and today",
            Self::Request => "the form of the request, before anything is decided",
            Self::Verb => "step 1 of the decision: the verb",
            Self::Resource => "step 2 of the decision: the resource and the scope of the grant",
            Self::Ceiling => "step 3 of the decision: the policy ceiling of the peer",
            Self::Native => "step 4 of the decision: the native facts of the subject",
            Self::Gateway => "asking the local gateway, after the decision",
            Self::Row => "the rule about rows, applied to what the gateway answered",
            Self::Audit => "the audit log: what cannot be recorded is not answered",
        }
    }
}

impl fmt::Display for DenyStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! deny_codes {
    ($($variant:ident $name:literal $stage:ident $meaning:literal $remedy:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum DenyCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl DenyCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in audit rows, metrics and traces.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The code with that name.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The step that refuses with this code.
            #[must_use]
            pub const fn stage(self) -> DenyStage {
                match self { $(Self::$variant => DenyStage::$stage,)* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What a user should do about it, in one sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

impl DenyCode {
    /// Whether a peer is told this reason: not where it would say which grants, peers or certificates exist.
    #[must_use]
    pub const fn is_told(self) -> bool {
        !matches!(
            self,
            Self::GrantUnknown
                | Self::GrantPending
                | Self::SubjectMismatch
                | Self::CertificateUnregistered
                | Self::PeerUnknown
        )
    }
}

deny_codes! {
    IdentityMalformed "identity_malformed" Identity
        "The certificate does not carry a grant and a subject in the required form."
        "Enroll again: `peer add` with a new token.";
    GrantUnknown "grant_unknown" Identity
        "The certificate names a grant that does not exist here."
        "Ask the other side for a new grant.";
    GrantPending "grant_pending" Identity
        "The grant has been made but its certificate is not in force."
        "Redeem the enrollment token of the grant.";
    SubjectMismatch "subject_mismatch" Identity
        "The certificate names another user than its grant."
        "Enroll again: `peer add` with a new token.";
    CertificateUnregistered "certificate_unregistered" Identity
        "The certificate was not issued for this grant by this side."
        "Enroll again: `peer add` with a new token.";
    PeerUnknown "peer_unknown" Identity
        "The grant belongs to no peer that may ask."
        "Ask the other side whether the peer is enrolled.";
    PeerSuspended "peer_suspended" Identity
        "The peer has been suspended."
        "Wait, or ask the other side to run `peer resume`.";
    GrantRevoked "grant_revoked" Identity
        "The grant has been revoked."
        "Ask the other side for a new grant; this one will not come back.";
    GrantExpired "grant_expired" Identity
        "The grant has come to its end."
        "Ask the other side for a new grant.";
    CertificateRevoked "certificate_revoked" Identity
        "The certificate has been revoked."
        "Ask the other side for a new token (`grant token --replace`).";
    CertificateSuperseded "certificate_superseded" Identity
        "A newer certificate of the same grant has taken over."
        "Use the newest certificate; if it is lost, ask for a new token (`grant token --replace`).";
    CertificateExpired "certificate_expired" Identity
        "The certificate has come to its end."
        "Ask the other side for a new token (`grant token --replace`).";
    CertificateUntrusted "certificate_untrusted" Identity
        "The certificate no longer leads to a trust anchor."
        "Ask the other side for a new token (`grant token --replace`).";
    CrlUnavailable "crl_unavailable" Identity
        "Whether the certificate is revoked cannot be known: the revocation list of its authority is missing or too old."
        "Wait, and ask the other side to see to the revocation list (`doctor` there names it).";

    RenewalConflict "renewal_conflict" Identity
        "A renewal was asked for with a certificate that is not the newest used one of its grant."
        "Renew with the newest certificate; if it is lost, ask for a new token (`grant token --replace`).";
    RenewalUnavailable "renewal_unavailable" Identity
        "A certificate could not be issued, or the first use of one could not be written down."
        "Try again later; the other side's operator sees the cause in its log.";

    RateExceeded "rate_exceeded" Rate
        "The grant asks more often than it may."
        "Ask again when the time in Retry-After has passed.";
    ConcurrencyExceeded "concurrency_exceeded" Rate
        "The peer has as many requests under way as it may have."
        "Ask again when one of them is answered, or after a second.";
    RowsPerDayExceeded "rows_per_day_exceeded" Rate
        "The grant has seen as many different rows today as it may."
        "Ask again after midnight UTC, or ask the other side's operator for more.";
    RowBudgetUnavailable "row_budget_unavailable" Rate
        "The rows seen today cannot be counted at the moment, so none is shown."
        "Try again later; the other side's operator looks at its database.";

    UnknownRoute "unknown_route" Request
        "There is nothing at this path."
        "Use a path of the federation protocol, version 1.";
    MethodNotAllowed "method_not_allowed" Request
        "The path does not answer this method."
        "Use POST; capabilities also answers GET.";
    UnsupportedMediaType "unsupported_media_type" Request
        "The body is not declared as JSON."
        "Send `Content-Type: application/json`.";
    BodyTooLarge "body_too_large" Request
        "The body is larger than 64 KiB."
        "Ask a shorter question.";
    MalformedBody "malformed_body" Request
        "The body is not the JSON object that the verb takes."
        "Send an object with params and cursor, each name once.";
    UnknownKey "unknown_key" Request
        "The body has a key that the verb does not know."
        "Remove the key, or correct its spelling.";
    IdentityInBody "identity_in_body" Request
        "The body names a grant or a subject; only the certificate may."
        "Remove grantId and subjectUserId.";
    VerbMismatch "verb_mismatch" Request
        "The body names another verb than the path."
        "Leave verb out, or make it agree.";
    ResourceMismatch "resource_mismatch" Request
        "The body names another resource than the path."
        "Leave resource out, or make it agree.";
    InvalidLimit "invalid_limit" Request
        "The limit is not a whole number from 1 to 10000."
        "Correct params.limit, or leave it out.";
    InvalidFilter "invalid_filter" Request
        "The filter has a key or a value that the resource does not take."
        "Use the filter keys that the resource lists, with strings as values.";
    InvalidCursor "invalid_cursor" Request
        "The cursor does not open, or belongs to another question."
        "Ask again without a cursor.";
    InvalidQuery "invalid_query" Request
        "The query is absent, has no word in it, is too long, or cannot be read."
        "Send params.query: words, \"phrases\" and prefixes*, at most 16 of them in 1024 bytes.";
    InvalidResources "invalid_resources" Request
        "The resources to search are not a list of names, each once."
        "Correct params.resources, or leave it out to search all that the grant allows.";
    InvalidId "invalid_id" Request
        "The id is not one a row can have."
        "Use an id as a list answered it.";
    InvalidCsr "invalid_csr" Request
        "The certificate request is not one that can be issued for."
        "Send `{\"csrPem\"}` with a new PKCS#10 request for a P-256, P-384, Ed25519 or RSA key, signed by itself.";
    AmbiguousFraming "ambiguous_framing" Request
        "The request can be read in more than one way."
        "Send one Content-Length or one Transfer-Encoding, and no folded headers.";
    UpgradeRefused "upgrade_refused" Request
        "Another protocol was asked for on this connection."
        "Remove the Upgrade header.";
    ConnectRefused "connect_refused" Request
        "A tunnel was asked for."
        "Use POST; there are no tunnels here.";

    UnknownVerb "unknown_verb" Verb
        "The verb does not exist."
        "Use list, get, search or capabilities.";
    UnknownResource "unknown_resource" Resource
        "The resource does not exist."
        "Use a resource that capabilities lists.";
    ReservedResource "reserved_resource" Resource
        "The resource name is reserved and cannot be granted yet."
        "Use a resource that capabilities lists.";
    ResourceNotGranted "resource_not_granted" Resource
        "The scope of the grant does not cover the resource."
        "Ask the other side for a grant that covers it.";
    ResourceExcluded "resource_excluded" Resource
        "The scope of the grant excludes the resource."
        "Ask the other side for a grant that covers it.";
    ResourceUnsupported "resource_unsupported" Resource
        "The scope covers the resource, but this side does not serve it."
        "Use a resource that capabilities lists.";
    Ceiling "ceiling" Ceiling
        "Policy for this peer does not let the resource out, whatever the scope says."
        "Ask the other side's operator to look at its policy for this peer.";

    FactsUnavailable "facts_unavailable" Native
        "The gateway did not say which teams, projects and missions the user has."
        "Try again later; the other side's operator sees the cause.";
    GatewayDenied "gateway_denied" Gateway
        "The gateway itself refuses this user."
        "Ask the other side whether the user may still see the resource.";
    SubjectCredentialMissing "subject_credential_missing" Gateway
        "No credential is registered with which the gateway can be asked as the user."
        "The other side's operator runs `gateway token set`.";
    SubjectCredentialRejected "subject_credential_rejected" Gateway
        "The gateway does not accept the credential of the user."
        "The other side's operator runs `gateway token set` again.";
    GatewayUnreachable "gateway_unreachable" Gateway
        "The gateway cannot be reached."
        "Try again later; the other side's operator checks the gateway.";
    GatewayTimeout "gateway_timeout" Gateway
        "The gateway did not answer in time."
        "Try again later, or ask for fewer rows.";
    GatewayBusy "gateway_busy" Gateway
        "Too many requests wait for the gateway already."
        "Try again in a moment.";
    GatewayMalformed "gateway_malformed" Gateway
        "The gateway answered something that is not what its mapping says."
        "The other side's operator runs `gateway check`.";
    NotFound "not_found" Row
        "There is no such row within the grant."
        "Use an id as a list answered it.";
    Fenced "fenced" Identity
        "A change of the grants could not be applied here, so nothing is answered until it is."
        "Try again later; the other side's operator looks at its log.";
    ReplicaFenced "replica_fenced" Identity
        "This replica has not heard of the store for too long, so it answers nothing until it does."
        "Try again: another replica may answer. The other side's operator looks at its database.";
    AuditUnavailable "audit_unavailable" Audit
        "The request cannot be recorded at the moment, so it is not answered."
        "Try again later; the other side's operator looks at its audit log and disk.";
}

impl fmt::Display for DenyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: its code and what was known when it fell.
///
/// Equal when code, verb, resource and grant are equal.
#[derive(Clone)]
pub struct Deny {
    code: DenyCode,
    verb: Option<Verb>,
    resource: Option<Resource>,
    entry: Option<Arc<GrantEntry>>,
}

impl Deny {
    /// A refusal about which nothing but the code is known.
    #[must_use]
    pub const fn new(code: DenyCode) -> Self {
        Self {
            code,
            verb: None,
            resource: None,
            entry: None,
        }
    }

    /// The same refusal, of a question with this verb and resource.
    #[must_use]
    pub fn asking(mut self, verb: Option<Verb>, resource: Option<Resource>) -> Self {
        self.verb = verb;
        self.resource = resource;
        self
    }

    /// The same refusal, under this grant.
    #[must_use]
    pub fn under(mut self, entry: &Arc<GrantEntry>) -> Self {
        self.entry = Some(Arc::clone(entry));
        self
    }

    /// The step that refused.
    #[must_use]
    pub const fn stage(&self) -> DenyStage {
        self.code.stage()
    }

    /// Why.
    #[must_use]
    pub const fn code(&self) -> DenyCode {
        self.code
    }

    /// Why, in words; the same for everyone who meets the code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.code.meaning()
    }

    /// The verb, where it was known.
    #[must_use]
    pub const fn verb(&self) -> Option<Verb> {
        self.verb
    }

    /// The resource, where it was known.
    #[must_use]
    pub const fn resource(&self) -> Option<Resource> {
        self.resource
    }

    /// The grant, where it was known.
    #[must_use]
    pub const fn entry(&self) -> Option<&Arc<GrantEntry>> {
        self.entry.as_ref()
    }
}

impl From<DenyCode> for Deny {
    fn from(code: DenyCode) -> Self {
        Self::new(code)
    }
}

impl PartialEq for Deny {
    fn eq(&self, other: &Self) -> bool {
        let grant = |deny: &Self| deny.entry.as_ref().map(|entry| entry.grant.id);
        self.code == other.code
            && self.verb == other.verb
            && self.resource == other.resource
            && grant(self) == grant(other)
    }
}

impl Eq for Deny {}

impl fmt::Debug for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deny")
            .field("stage", &self.stage())
            .field("code", &self.code)
            .field("verb", &self.verb)
            .field("resource", &self.resource)
            .field("grant", &self.entry.as_ref().map(|entry| entry.grant.id))
            .finish()
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} {}",
            self.code,
            self.code.meaning(),
            self.code.remedy()
        )
    }
}

impl std::error::Error for Deny {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_explained() {
        let names: BTreeSet<_> = DenyCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), DenyCode::ALL.len());
        for code in DenyCode::ALL {
            assert!(
                code.meaning().ends_with('.') && code.remedy().ends_with('.'),
                "{code}"
            );
            assert_eq!(DenyCode::parse(code.as_str()), Some(*code));
            assert_eq!(
                serde_json::to_value(code).ok(),
                Some(serde_json::Value::from(code.as_str()))
            );
        }
    }
}
