//! Where a peer is asked, and the enrollment URL that leads there: two URL forms, parsed once.
//!
//! Invariant: an [`Endpoint`] is https and always has a host that a server certificate can be checked against;
//! there is none with an empty name, which would leave nothing to verify. Names are not resolved here.

use std::fmt;

use http::Uri;
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

/// Base path of enrollment on the serving side; the token follows.
const ENROLLMENT_PATH: &str = "/api/federation/enrollment/";
/// Digits of a token, and of a SHA-256 in hex.
const DIGITS: usize = 64;
/// Longest host name (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// Why a text is not an endpoint or an enrollment URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("it is not a URL: write it as https://host:port")]
    Malformed,
    /// Another scheme than https.
    #[error("it must begin with https://")]
    NotHttps,
    /// User information before the host.
    #[error("credentials do not belong in it: remove what stands before the `@`")]
    UserInfo,
    /// A host that no certificate can name.
    #[error("its host is neither a DNS name nor an IP address")]
    Host,
    /// A path, query or fragment in an endpoint.
    #[error("it must end after the port: give https://host:port only")]
    MoreThanOrigin,
    /// Not the path of an enrollment.
    #[error(
        "its path must be /api/federation/enrollment/ and a token of 64 hex digits: copy the whole URL"
    )]
    NotEnrollment,
    /// A fragment that is not `#sha256=` and 64 hex digits.
    #[error("what follows `#` must be sha256= and 64 hex digits: copy the whole URL")]
    Fragment,
    /// Not a SHA-256 in hex.
    #[error("the fingerprint must be a SHA-256 in 64 hex digits; colons between them are accepted")]
    Fingerprint,
}

/// A peer's address as dialled and as verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Endpoint {
    /// Parses `https://host[:port][/]`; the port is 443 when absent. IP literals are accepted.
    ///
    /// # Errors
    /// [`UrlError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.contains(['#', '?']) {
            return Err(UrlError::MoreThanOrigin);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        if !matches!(uri.path(), "" | "/") {
            return Err(UrlError::MoreThanOrigin);
        }
        Self::of_uri(&uri)
    }

    fn of_uri(uri: &Uri) -> Result<Self, UrlError> {
        if uri.scheme_str() != Some("https") {
            return Err(UrlError::NotHttps);
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        // The URL parser takes a port that is no port for none at all: read it here.
        let after_host = authority.as_str().strip_prefix(authority.host());
        let port = match after_host.ok_or(UrlError::Malformed)? {
            "" => 443,
            port => port
                .strip_prefix(':')
                .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|port| port.parse().ok())
                .ok_or(UrlError::Malformed)?,
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        if port == 0 || host.is_empty() || host.len() > MAX_HOST {
            return Err(UrlError::Host);
        }
        let server_name = ServerName::try_from(host.clone()).map_err(|_| UrlError::Host)?;
        Ok(Self {
            host,
            port,
            server_name,
        })
    }

    /// The host in lower case, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as it stands in a URL: an IPv6 address in brackets.
    #[must_use]
    pub fn bracketed(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What the server certificate must name.
    #[must_use]
    pub const fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }

    /// `host:port` as it stands in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// An enrollment URL taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollmentUrl {
    /// The enrollment listener.
    pub listener: Endpoint,
    /// SHA-256 of the root of the listener's chain, when the URL has the fragment.
    pub pin: Option<[u8; 32]>,
    token: Zeroizing<String>,
}

impl EnrollmentUrl {
    /// Parses `https://host:port/api/federation/enrollment/<64 hex>[#sha256=<64 hex>]`.
    ///
    /// # Errors
    /// [`UrlError`] says which rule is broken; it never quotes the text, which holds a token.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let (location, fragment) = match text.split_once('#') {
            Some((location, fragment)) => (location, Some(fragment)),
            None => (text, None),
        };
        let pin = match fragment {
            None => None,
            Some(fragment) => {
                let digits = fragment.strip_prefix("sha256=").ok_or(UrlError::Fragment)?;
                Some(parse_fingerprint(digits).map_err(|_| UrlError::Fragment)?)
            }
        };
        let uri: Uri = location.parse().map_err(|_| UrlError::Malformed)?;
        let token = uri
            .path()
            .strip_prefix(ENROLLMENT_PATH)
            .filter(|token| is_token(token))
            .map(|token| Zeroizing::new(token.to_owned()))
            .ok_or(UrlError::NotEnrollment)?;
        if uri.query().is_some() {
            return Err(UrlError::NotEnrollment);
        }
        Ok(Self {
            listener: Endpoint::of_uri(&uri)?,
            pin,
            token,
        })
    }

    /// The path to send the request to; holds the token.
    #[must_use]
    pub fn path(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{ENROLLMENT_PATH}{}", self.token.as_str()))
    }

    /// The token's first eight characters: all of it that may be logged.
    #[must_use]
    pub fn token_prefix(&self) -> &str {
        self.token.get(..8).unwrap_or_default()
    }
}

impl fmt::Debug for EnrollmentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrollmentUrl")
            .field("listener", &self.listener)
            .field("token", &self.token_prefix())
            .finish_non_exhaustive()
    }
}

/// Parses a SHA-256 in hex, in either case, with or without colons between the octets.
///
/// # Errors
/// [`UrlError::Fingerprint`].
pub fn parse_fingerprint(text: &str) -> Result<[u8; 32], UrlError> {
    let plain: String = text.trim().chars().filter(|c| *c != ':').collect();
    let mut out = [0; 32];
    hex::decode_to_slice(plain, &mut out).map_err(|_| UrlError::Fingerprint)?;
    Ok(out)
}

fn is_token(text: &str) -> bool {
    text.len() == DIGITS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_https_origins() {
        let parsed = Endpoint::parse("https://Work.Example:8443/").unwrap();
        assert_eq!(parsed.to_string(), "https://work.example:8443");
        assert_eq!(Endpoint::parse("https://work.example").unwrap().port(), 443);
        for (wrong, error) in [
            ("http://a:1", UrlError::NotHttps),
            ("a:1", UrlError::NotHttps),
            ("https://u:p@a:1", UrlError::UserInfo),
            ("https://a:1/x", UrlError::MoreThanOrigin),
            ("https://a:1?x", UrlError::MoreThanOrigin),
            ("https://a:1#x", UrlError::MoreThanOrigin),
            ("https://a:0", UrlError::Host),
            ("https://a:", UrlError::Malformed),
            ("https://a:99999", UrlError::Malformed),
            ("https://-a-.b_c*:1", UrlError::Host),
            ("", UrlError::Malformed),
        ] {
            assert_eq!(Endpoint::parse(wrong), Err(error), "{wrong}");
        }
    }

    #[test]
    fn ip_literals_are_verified_as_addresses() {
        for (text, authority) in [
            ("https://127.0.0.1:8443", "127.0.0.1:8443"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            let parsed = Endpoint::parse(text).unwrap();
            assert!(
                matches!(parsed.server_name(), ServerName::IpAddress(_)),
                "{text}"
            );
            assert_eq!(parsed.authority(), authority);
        }
    }

    #[test]
    fn enrollment_urls_come_apart() {
        let token = "0f".repeat(32);
        let base = format!("https://work:8444/api/federation/enrollment/{token}");
        let bare = EnrollmentUrl::parse(&base).unwrap();
        assert_eq!((bare.pin, bare.token_prefix()), (None, "0f0f0f0f"));
        let pinned = EnrollmentUrl::parse(&format!("{base}#sha256={}\n", "A1".repeat(32))).unwrap();
        assert_eq!(pinned.pin, Some([0xa1; 32]));
        assert_eq!(
            pinned.path().as_str(),
            format!("/api/federation/enrollment/{token}")
        );
        assert_eq!(pinned.listener.to_string(), "https://work:8444");
        for (wrong, error) in [
            (format!("{base}#sha256=ab"), UrlError::Fragment),
            (
                format!("{base}#md5={}", "a1".repeat(32)),
                UrlError::Fragment,
            ),
            (format!("{base}#"), UrlError::Fragment),
            (format!("{base}0"), UrlError::NotEnrollment),
            (format!("{base}?a=b"), UrlError::NotEnrollment),
            (
                base.to_uppercase().replace("HTTPS", "https"),
                UrlError::NotEnrollment,
            ),
            (base.replace("https", "http"), UrlError::NotHttps),
        ] {
            assert_eq!(
                EnrollmentUrl::parse(&wrong).map(drop),
                Err(error),
                "{wrong}"
            );
        }
        assert!(!format!("{pinned:?}").contains(&token));
    }

    #[test]
    fn fingerprints_may_have_colons() {
        let plain = "a1".repeat(32);
        let colons = vec!["A1"; 32].join(":");
        assert_eq!(parse_fingerprint(&plain), parse_fingerprint(&colons));
        assert_eq!(parse_fingerprint("a1"), Err(UrlError::Fingerprint));
    }
}
