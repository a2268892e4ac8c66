//! Who is asking: a user by their own token, or a service on a user's behalf.
//!
//! Invariant: no answer without a known, unbanned user; both credentials at once are refused
//! rather than ranked. Verification of assertions is in `assertion.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, Method, Uri, header};
use parking_lot::Mutex;

use crate::assertion::{AssertionError, KeySet, Request, UsedIds};
use crate::failure::Failure;
use crate::store::{Caller, Store};

/// Header that carries the assertion.
pub const ASSERTION: &str = "x-mosaic-assertion";

/// What a service needs to ask on behalf of users.
pub struct Service {
    token: String,
    audience: String,
    keys: Mutex<KeySet>,
    used: Mutex<UsedIds>,
    clock: fn() -> i64,
}

/// Who asked, and how it was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The user.
    pub caller: Caller,
    /// The grant an assertion named; `None` for a user's own token.
    pub grant: Option<String>,
}

impl fmt::Debug for Service {
    /// Everything but the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Service")
            .field("audience", &self.audience)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service known by its token, whose assertions are for `audience` and signed by a key in
    /// the JWKS file. `clock` tells the seconds since the Unix epoch ([`unix_seconds`]).
    #[must_use]
    pub fn new(token: String, audience: String, jwks: PathBuf, clock: fn() -> i64) -> Self {
        Self {
            token,
            audience,
            keys: Mutex::new(KeySet::new(jwks)),
            used: Mutex::new(UsedIds::default()),
            clock,
        }
    }

    /// The subject and the grant of an assertion that holds for this request.
    fn subject(
        &self,
        assertion: &str,
        method: &Method,
        uri: &Uri,
        authority: &str,
    ) -> Result<(String, String), AssertionError> {
        let now = (self.clock)();
        let request = Request {
            audience: &self.audience,
            method: method.as_str(),
            authority,
            path: uri.path(),
            now,
        };
        let claims = {
            let mut keys = self.keys.lock();
            keys.refresh()?;
            keys.verify(assertion, request)?
        };
        self.used.lock().claim(&claims, now)?;
        Ok((claims.sub, claims.grant_id))
    }

    fn is_token(&self, token: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), self.token.as_bytes())
            .is_ok()
    }
}

/// The asker of a request. `service` is `None` where only users' own tokens count.
///
/// # Errors
/// 401 without a credential that holds; 500 when the store fails. Whether the user is banned is for
/// the caller to look at.
pub async fn authenticate(
    store: &Store,
    service: Option<&Service>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Asker, Failure> {
    let token = bearer(headers)?;
    let assertion = single(headers, ASSERTION)?;
    let (caller, grant) = match (service.filter(|service| service.is_token(token)), assertion) {
        (Some(service), Some(assertion)) => {
            let authority = single(headers, header::HOST.as_str())?.unwrap_or_default();
            let (subject, grant) = service
                .subject(assertion, method, uri, authority)
                .map_err(|error| Failure::unauthorized(&error.to_string()))?;
            (store.caller_by_id(&subject).await?, Some(grant))
        }
        (Some(_), None) => {
            return Err(Failure::unauthorized(
                "the service token needs X-Mosaic-Assertion to say whose rows are asked for",
            ));
        }
        (None, Some(_)) => {
            return Err(Failure::unauthorized(
                "X-Mosaic-Assertion is only accepted with the service token on internal-v1",
            ));
        }
        (None, None) => (store.caller_by_token(token).await?, None),
    };
    let caller = caller.ok_or_else(|| Failure::unauthorized("nobody is known by that name"))?;
    Ok(Asker { caller, grant })
}

fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    single(headers, header::AUTHORIZATION.as_str())?
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .map(|(_, token)| token)
        .ok_or_else(|| Failure::unauthorized("`Authorization: Bearer <token>` is needed"))
}

/// The one value of a header; several, or one that is not visible ASCII, are refused.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(Failure::unauthorized("a header is repeated or not text")),
    }
}

/// The wall clock, seconds since the Unix epoch.
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "a process of its own, which does not link the crate that reads the sidecar's clock"
)]
pub fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        // Before 1970 every assertion is from the future, and refused.
        .unwrap_or(0)
}
