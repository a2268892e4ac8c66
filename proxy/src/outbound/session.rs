//! Whose request it is: session tokens, uids on the unix socket, and the loopback checks.
//!
//! Invariant: without a live session token, or on the unix socket a uid the configuration maps to a user, nothing
//! is answered but 401. A token that is given and wrong is never overlooked in favour of a uid. On TCP the `Host`
//! and `Origin` must be this machine's own, because web pages can reach loopback listeners.
//!
//! Which peers a user has is in `route.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::{digest, rand};
use http::uri::Authority;
use http::{HeaderMap, Uri, header};
use policy::id::UserId;
use policy::time::UnixMillis;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::failure::DoorFailure;
use crate::store::Store;

/// Digits of a token.
const DIGITS: usize = 64;

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

/// The session a request belongs to.
///
/// # Errors
/// [`DoorFailure::NoSession`], or [`DoorFailure::StoreUnavailable`].
pub async fn authenticate(
    store: &dyn Store,
    users: &BTreeMap<u32, UserId>,
    doorway: Doorway,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Result<Session, DoorFailure> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        let Doorway::Unix { uid: Some(uid) } = doorway else {
            return Err(DoorFailure::NoSession);
        };
        let user = users.get(&uid).cloned().ok_or(DoorFailure::NoSession)?;
        let key = SessionKey::Uid(uid);
        return Ok(Session { user, key });
    };
    let token = value
        .to_str()
        .ok()
        .and_then(bearer)
        .ok_or(DoorFailure::NoSession)?;
    if given.next().is_some() {
        return Err(DoorFailure::NoSession);
    }
    match store.find_session(&token.sha256(), now).await {
        Ok(Some(session)) => Ok(Session {
            user: session.local_user,
            key: SessionKey::Token(session.id),
        }),
        Ok(None) => Err(DoorFailure::NoSession),
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

/// Refuses requests of web pages and through foreign names (DNS rebinding) on the TCP listener.
///
/// # Errors
/// [`DoorFailure::ForeignOrigin`] naming the header.
pub fn check_loopback(headers: &HeaderMap, target: &Uri) -> Result<(), DoorFailure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let own = host
        .and_then(|host| host.parse().ok())
        .is_some_and(|host: Authority| is_loopback(&host));
    if !own || hosts.next().is_some() || target.authority().is_some_and(|named| !is_loopback(named))
    {
        return Err(DoorFailure::ForeignOrigin("Host"));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.parse::<Uri>().ok())
            .and_then(|origin| origin.into_parts().authority)
            .is_some_and(|origin| is_loopback(&origin));
        if !own {
            return Err(DoorFailure::ForeignOrigin("Origin"));
        }
    }
    Ok(())
}

fn is_loopback(authority: &Authority) -> bool {
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
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(fields: &[(HeaderName, &'static str)], target: &'static str) -> bool {
        let headers = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        check_loopback(&headers, &Uri::from_static(target)).is_ok()
    }

    #[test]
    fn only_this_machines_names_are_hosts() {
        for good in [
            "localhost",
            "LocalHost:8480",
            "127.0.0.1:8480",
            "127.8.9.1",
            "[::1]:8480",
        ] {
            assert!(check(&[(header::HOST, good)], "/peers"), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example:8480",
            "127.0.0.1.evil.example",
            "192.168.0.1:8480",
            "localhost@evil.example",
            "[::2]:1",
            "",
            "0.0.0.0",
        ] {
            assert!(!check(&[(header::HOST, bad)], "/peers"), "{bad}");
        }
        assert!(!check(&[], "/peers"), "no host at all");
        assert!(!check(
            &[(header::HOST, "localhost"), (header::HOST, "evil.example")],
            "/peers"
        ));
        assert!(!check(
            &[(header::HOST, "localhost")],
            "http://evil.example/peers"
        ));
    }

    #[test]
    fn web_pages_of_other_origins_are_refused() {
        let from = |origin| {
            check(
                &[(header::HOST, "localhost"), (header::ORIGIN, origin)],
                "/peers",
            )
        };
        for good in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8480",
        ] {
            assert!(from(good), "{good}");
        }
        for bad in [
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "",
            "localhost evil",
        ] {
            assert!(!from(bad), "{bad}");
        }
    }

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
}
