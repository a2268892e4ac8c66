//! Where the gateway listens: one origin, given by the settings.
//!
//! Invariant: an origin has neither path, query nor credentials, so nothing but its mapping says what is asked.

/// Where the gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `http://host:port` or `https://host:port`.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// True for https; the certificate is verified against the system's roots for `host`.
        tls: bool,
    },
    /// `unix:/path/to/socket`.
    Unix(String),
}

impl Origin {
    /// Parses `http://host[:port]`, `https://host[:port]` or `unix:/path`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(format!(
                    "`{text}`: a unix socket needs an absolute path, as in unix:/run/gateway.sock"
                ))
            };
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("`{text}` is not a URL: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(format!(
                    "`{text}`: the gateway is reached by http://, https:// or unix:"
                ));
            }
        };
        if uri.path() != "/" || uri.query().is_some() {
            return Err(format!(
                "`{text}`: give the origin only; paths come from the preset or mapping"
            ));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| format!("`{text}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!(
                "`{text}`: credentials do not belong in the gateway URL"
            ));
        }
        // A port that does not fit is reported as absent: it must not become the default one.
        let written = authority.as_str().rsplit_once(':').map(|(_, port)| port);
        if authority.port_u16().is_none() && written.is_some_and(|port| !port.ends_with(']')) {
            return Err(format!("`{text}` has a port that is none"));
        }
        Ok(Self::Tcp {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
        })
    }

    /// The origin as a URL, without a path. A gateway on a unix socket is `http://localhost`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if matches!(self, Self::Tcp { tls: true, .. }) {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.host_header())
    }

    /// The origin as `Host` names it.
    pub(super) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_bare_origin() {
        assert!(Origin::parse("http://127.0.0.1:14242").is_ok());
        assert!(Origin::parse("unix:/run/gateway.sock").is_ok());
        for wrong in [
            "ftp://a",
            "http://a/b",
            "http://a?x=1",
            "unix:relative",
            "http://u:p@a",
            "http://a:99999",
            "nonsense",
        ] {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
    }
}
