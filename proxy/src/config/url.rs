//! URLs without a path: those under which our listeners are reached, and those of servers that we ask.
//!
//! Invariant: a scheme that is allowed, a host, perhaps a port, and nothing else; a [`PublicUrl`] is printed without the
//! default port 443.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use http::uri::{Authority, Scheme};

/// Scheme and authority of a URL that holds nothing else; one of `schemes`.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence that begins with it.
pub(super) fn bare_origin(text: &str, schemes: &[&str]) -> Result<(Scheme, Authority), String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("is not a URL: {error}"))?;
    let parts = uri.into_parts();
    let scheme = parts
        .scheme
        .filter(|scheme| schemes.contains(&scheme.as_str()));
    let scheme =
        scheme.ok_or_else(|| format!("has another scheme than {}://", schemes.join(":// or ")))?;
    let authority = parts.authority.ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("must not hold credentials".to_owned());
    }
    if parts.path_and_query.is_some_and(|path| path != "/") || text.contains('#') {
        return Err("must end after host and port: the paths are fixed".to_owned());
    }
    Ok((scheme, authority))
}

/// `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    host: String,
    port: u16,
}

impl PublicUrl {
    /// Parses `https://host[:port]`, with an optional slash at the end.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (_, authority) = bare_origin(text, &["https"])?;
        let host = authority
            .host()
            .trim_matches(['[', ']'])
            .to_ascii_lowercase();
        let unspecified = host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified());
        if host.is_empty() || unspecified {
            return Err("must name a host that peers can reach".to_owned());
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 443,
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or("has a port out of range")?,
            None => return Err("has no host".to_owned()),
        };
        Ok(Self { host, port })
    }

    /// The URL of a listener on that address.
    #[must_use]
    pub fn of_address(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    /// The same host with another port: the one a listener got when it asked for port 0.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self {
            host: self.host.clone(),
            port,
        }
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]", self.host)?;
        } else {
            write!(f, "https://{}", self.host)?;
        }
        match self.port {
            443 => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_round_trip() {
        for (text, shown) in [
            ("https://work.example:8443", "https://work.example:8443"),
            ("https://work.example/", "https://work.example"),
            ("https://Work.Example:443", "https://work.example"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://192.0.2.1:1", "https://192.0.2.1:1"),
        ] {
            let url = PublicUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(PublicUrl::parse(shown), Ok(url));
        }
    }

    #[test]
    fn anything_more_or_less_is_refused() {
        for text in [
            "",
            "work.example",
            "work.example:8443",
            "http://work.example",
            "https://",
            "https://user@work.example",
            "https://work.example/path",
            "https://work.example?x=1",
            "https://work.example#x",
            "https://work.example:99999",
            "https://0.0.0.0:8443",
            "https://[::]:8443",
        ] {
            assert!(PublicUrl::parse(text).is_err(), "{text}");
        }
    }
}
