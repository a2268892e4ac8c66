//! Whose request it is: session tokens, and uids on the unix socket.
//!
//! Invariant: without a live session token, or on the unix socket a uid the configuration maps to a user, nothing
//! is answered but 401 (to a request to the proxy, 407). A token that is given and wrong is never overlooked in favour
//! of a uid.
//!
//! What was looked up a moment ago is in `session_book.rs`, which peers a user has in `route.rs`; what web pages may not send, in `form.rs`.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::Authority;
use http::{HeaderMap, header};
use policy::id::UserId;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Outbound;
use super::failure::DoorFailure;

/// Digits of a token.
const DIGITS: usize = 64;
/// The user name that stands before the token in `http_proxy`.
const PROXY_USER: &str = "session";

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no session token could be drawn: the system's random source failed; try again")]
pub struct SessionDrawError;

/// A session token in the clear: 32 random bytes as 64 lower-case hex digits. Stored is only its SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// Draws a token.
    ///
    /// # Errors
    /// [`SessionDrawError`].
    pub fn draw() -> Result<Self, SessionDrawError> {
        let mut bytes = Zeroizing::new([0_u8; DIGITS / 2]);
        rand::fill(&mut *bytes).map_err(|_| SessionDrawError)?;
        Ok(Self(Zeroizing::new(hex::encode(*bytes))))
    }

    /// Parses 64 lower-case hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == DIGITS && text.bytes().all(digit))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// SHA-256 of the token's text.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let hash = digest::digest(&digest::SHA256, self.0.as_bytes());
        // Both are 32 bytes by definition of SHA-256.
        for (to, from) in out.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        out
    }

    /// The whole token, to be printed once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(redacted)")
    }
}

/// Which listener a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doorway {
    /// The unix socket; the uid of the process at the other end, when the kernel says it.
    Unix {
        /// The uid.
        uid: Option<u32>,
    },
    /// The loopback TCP listener.
    Loopback,
}

/// What tells one session from another, for what is to happen once in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// The session of a token.
    Token(Uuid),
    /// All requests of processes with one mapped uid.
    Uid(u32),
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The local user it is made for.
    pub user: UserId,
    /// Which of the user's sessions.
    pub key: SessionKey,
}

/// How a request names its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// `Proxy-Authorization`, as programs send it that were given `http_proxy=http://session:<token>@...`. Their
    /// `Authorization` is for the target and says nothing here.
    Proxy,
}

impl Naming {
    fn refusal(self) -> DoorFailure {
        match self {
            Self::Bearer => DoorFailure::NoSession,
            Self::Proxy => DoorFailure::NoProxySession,
        }
    }

    /// The token of the request; none when it names none.
    fn token(self, headers: &HeaderMap) -> Result<Option<SessionToken>, DoorFailure> {
        let name = match self {
            Self::Bearer => header::AUTHORIZATION,
            Self::Proxy => header::PROXY_AUTHORIZATION,
        };
        let mut given = headers.get_all(name).iter();
        let Some(value) = given.next() else {
            return Ok(None);
        };
        let text = value.to_str().ok().filter(|_| given.next().is_none());
        let token = text.and_then(|text| match self {
            Self::Bearer => bearer(text),
            Self::Proxy => bearer(text).or_else(|| basic(text)),
        });
        token.map(Some).ok_or_else(|| self.refusal())
    }
}

/// The session a request belongs to.
///
/// # Errors
/// [`DoorFailure::NoSession`] or [`DoorFailure::NoProxySession`], or [`DoorFailure::StoreUnavailable`].
pub(super) async fn authenticate(
    outbound: &Outbound,
    doorway: Doorway,
    headers: &HeaderMap,
    naming: Naming,
) -> Result<Arc<Session>, DoorFailure> {
    let Some(token) = naming.token(headers)? else {
        let Doorway::Unix { uid: Some(uid) } = doorway else {
            return Err(naming.refusal());
        };
        let user = outbound.session_users.get(&uid).cloned();
        let user = user.ok_or_else(|| naming.refusal())?;
        let key = SessionKey::Uid(uid);
        return Ok(Arc::new(Session { user, key }));
    };
    let token = token.sha256();
    let look_up = |now| outbound.store.find_session(&token, now);
    let clock = outbound.clock.as_ref();
    match outbound.sessions.find(clock, &token, look_up).await {
        Ok(Some(session)) => Ok(session),
        Ok(None) => Err(naming.refusal()),
        Err(error) => {
            tracing::error!(%error, "a session could not be looked up");
            Err(DoorFailure::StoreUnavailable)
        }
    }
}

fn bearer(value: &str) -> Option<SessionToken> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| SessionToken::parse(token.trim()))?
}

/// The token in `Basic` credentials of the user `session`.
fn basic(value: &str) -> Option<SessionToken> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = Zeroizing::new(STANDARD.decode(credentials.trim()).ok()?);
    let (user, token) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
    (user == PROXY_USER).then(|| SessionToken::parse(token))?
}

/// Whether a host is this machine's own, written as an address or `localhost`.
pub(super) fn is_loopback(authority: &Authority) -> bool {
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    !authority.as_str().contains('@')
        && (host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bearer_token_has_one_form() {
        let token = SessionToken::draw().unwrap();
        assert_eq!(
            bearer(&format!("Bearer {}", token.expose())),
            Some(token.clone())
        );
        assert_eq!(
            bearer(&format!("bearer {}", token.expose())),
            Some(token.clone())
        );
        assert_eq!(bearer(&format!("Basic {}", token.expose())), None);
        assert_eq!(bearer(token.expose()), None);
        assert_eq!(bearer("Bearer x"), None);
        assert!(!format!("{token:?}").contains(token.expose()));
    }

    #[test]
    fn a_proxy_token_stands_behind_the_user_session() {
        let token = SessionToken::draw().unwrap();
        let named = |user: &str| STANDARD.encode(format!("{user}:{}", token.expose()));
        let given = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
            headers.insert(header::AUTHORIZATION, "Bearer the-targets".parse().unwrap());
            Naming::Proxy.token(&headers)
        };
        for good in [
            format!("Basic {}", named("session")),
            format!("basic {}", named("session")),
            format!("Bearer {}", token.expose()),
        ] {
            assert_eq!(given(good), Ok(Some(token.clone())));
        }
        for bad in [
            format!("Basic {}", named("root")),
            format!("Basic {}", token.expose()),
            "Basic !".to_owned(),
            format!("Digest {}", named("session")),
        ] {
            assert_eq!(given(bad), Err(DoorFailure::NoProxySession));
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            let value = format!("Basic {}", named("session"));
            twice.append(header::PROXY_AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(
            Naming::Proxy.token(&twice),
            Err(DoorFailure::NoProxySession)
        );
        assert_eq!(Naming::Proxy.token(&HeaderMap::new()), Ok(None));
    }
}
