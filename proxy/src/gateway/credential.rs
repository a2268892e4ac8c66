//! As whom the gateway is asked: the subject's own token, or a service token with a signed assertion.
//!
//! Invariant: a question goes out as exactly one subject; without a credential for that subject it
//! is not asked at all. Tokens are held in memory as sensitive header values and never printed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use policy::id::{GrantId, UserId};

use super::assertion::AssertionSigner;
use super::error::GatewayError;
use super::http1;

/// Header that carries the signed assertion in `service_token` mode.
pub const ASSERTION_HEADER: &str = "X-Mosaic-Assertion";

/// Authorization for one question.
pub enum SubjectAuth {
    /// `Authorization: Bearer <the subject's own token>`.
    Token(HeaderValue),
    /// `Authorization: Bearer <service token>` and an assertion of the subject per request.
    Assertion {
        /// The service token, as a header value.
        service: HeaderValue,
        /// Signs the assertion.
        signer: Arc<AssertionSigner>,
        /// The gateway's own id of the subject.
        user: UserId,
        /// The grant the question is asked for.
        grant: Option<GrantId>,
    },
}

impl SubjectAuth {
    /// Adds the fields that say as whom `target` is asked for.
    pub(super) fn write(&self, head: &mut Vec<u8>, target: &str) -> Result<(), GatewayError> {
        match self {
            Self::Token(token) => http1::field(head, "Authorization", token),
            Self::Assertion {
                service,
                signer,
                user,
                grant,
            } => {
                http1::field(head, "Authorization", service);
                let assertion = signer.sign(user, *grant, "GET", target);
                let value = HeaderValue::from_str(&assertion).map_err(|_| {
                    GatewayError::Malformed("the assertion cannot stand in a header".to_owned())
                })?;
                http1::field(head, ASSERTION_HEADER, &value);
            }
        }
        Ok(())
    }
}

/// A bearer token as a header value that is never printed.
///
/// # Errors
/// When the token holds characters a header cannot carry, or is empty.
pub fn bearer(token: &str) -> Result<HeaderValue, String> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a gateway token must be non-empty and of visible ASCII characters".to_owned());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// How subjects are authenticated to the gateway, and the credentials for it.
pub enum SubjectCredentials {
    /// One registered token per user (`gateway token set`).
    PerSubject(ArcSwap<HashMap<UserId, HeaderValue>>),
    /// A service token and our signing key.
    Service {
        /// The service token, as a header value.
        token: HeaderValue,
        /// Signs assertions.
        signer: Arc<AssertionSigner>,
    },
}

impl SubjectCredentials {
    /// Mode `subject_token` with the tokens registered so far.
    #[must_use]
    pub fn per_subject(tokens: HashMap<UserId, HeaderValue>) -> Self {
        Self::PerSubject(ArcSwap::from_pointee(tokens))
    }

    /// The authorization to ask as `user`.
    ///
    /// # Errors
    /// [`GatewayError::CredentialMissing`].
    pub fn for_subject(
        &self,
        user: &UserId,
        grant: Option<GrantId>,
    ) -> Result<SubjectAuth, GatewayError> {
        match self {
            Self::PerSubject(tokens) => tokens
                .load()
                .get(user)
                .map(|token| SubjectAuth::Token(token.clone()))
                .ok_or(GatewayError::CredentialMissing),
            Self::Service { token, signer } => Ok(SubjectAuth::Assertion {
                service: token.clone(),
                signer: Arc::clone(signer),
                user: user.clone(),
                grant,
            }),
        }
    }

    /// Puts a newly registered token into use.
    pub fn register(&self, user: &UserId, token: &HeaderValue) {
        if let Self::PerSubject(tokens) = self {
            tokens.rcu(|now| {
                let mut next = HashMap::clone(now);
                next.insert(user.clone(), token.clone());
                next
            });
        }
    }
}
