//! The command line of the load generator, and the plan it becomes.
//!
//! Invariant: a [`Plan`] points at a loopback address; any other target is refused before a socket exists.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use http::Uri;
use rustls_pki_types::ServerName;

use crate::client::Target;
use crate::rows::Expectation;
use crate::tls::{self, KeyExchange, TlsError};

/// What a load consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Connections stay open; each asks again as soon as it was answered.
    KeepAlive,
    /// Each request on a connection of its own, with a full handshake.
    Handshake,
    /// Connections that asked once stay open and silent.
    Idle,
}

/// Puts load on one loopback server and prints one JSON object.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub struct Arguments {
    /// What the load consists of.
    #[arg(value_enum)]
    mode: Mode,
    /// Loopback URL with path and query.
    url: String,
    /// Request method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Request body.
    #[arg(long)]
    body: Option<String>,
    /// Additional header, as `Name: value`; repeatable.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Trust anchors, PEM; required for https.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Client certificate chain, PEM.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Key of the client certificate, PEM (PKCS#8).
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Key exchange to offer.
    #[arg(long, value_enum, default_value_t = KeyExchange::X25519)]
    key_exchange: KeyExchange,
    /// Connections at once (for idle: connections in all).
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 1.0, conflicts_with = "requests")]
    seconds: f64,
    /// How many requests instead of how long.
    #[arg(long)]
    requests: Option<u64>,
    /// Rows that each answer must hold.
    #[arg(long)]
    rows: Option<usize>,
    /// Each row must carry `"_source":"local"`.
    #[arg(long, requires = "rows")]
    tagged: bool,
    /// Print `ready` once every connection was answered, and go on after a line on standard input: whoever
    /// meters the server reads its figures in between.
    #[arg(long)]
    gate: bool,
}

/// Why the arguments make no plan.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// The URL cannot be asked.
    #[error("`{0}`: give http://127.0.0.1:PORT/PATH or https://127.0.0.1:PORT/PATH")]
    Url(String),
    /// The URL points at another machine.
    #[error("`{0}` is not a loopback address; this tool puts load on this machine only")]
    NotLoopback(String),
    /// A header is not `Name: value`.
    #[error("`{0}` is not a header; write `Name: value`")]
    Header(String),
    /// A count or a time is zero or no number.
    #[error("{0} must be more than zero")]
    Zero(&'static str),
    /// An https URL without anchors.
    #[error("https needs --ca: the server is always verified")]
    NoAnchors,
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// When a load is over.
#[derive(Debug, Clone, Copy)]
pub enum Extent {
    /// After a time.
    Time(Duration),
    /// After a number of requests.
    Requests(u64),
}

/// A load, ready to run.
pub struct Plan {
    /// What it consists of.
    pub mode: Mode,
    /// Whom it is put on.
    pub target: Arc<Target>,
    /// Connections at once.
    pub connections: usize,
    /// When it is over.
    pub extent: Extent,
    /// What an answer must hold.
    pub expectation: Expectation,
    /// Wait for standard input before the measured part.
    pub gate: bool,
}

impl Arguments {
    /// Checks the arguments and reads the certificates.
    ///
    /// # Errors
    /// [`ArgumentError`], naming the argument.
    pub fn plan(&self) -> Result<Plan, ArgumentError> {
        let extent = match self.requests {
            Some(0) => return Err(ArgumentError::Zero("--requests")),
            Some(requests) => Extent::Requests(requests),
            None => Extent::Time(
                Duration::try_from_secs_f64(self.seconds)
                    .ok()
                    .filter(|time| !time.is_zero())
                    .ok_or(ArgumentError::Zero("--seconds"))?,
            ),
        };
        if self.connections == 0 {
            return Err(ArgumentError::Zero("--connections"));
        }
        Ok(Plan {
            mode: self.mode,
            target: Arc::new(self.target()?),
            connections: self.connections,
            extent,
            expectation: Expectation {
                rows: self.rows,
                tagged: self.tagged,
            },
            gate: self.gate,
        })
    }

    fn target(&self) -> Result<Target, ArgumentError> {
        let refused = || ArgumentError::Url(self.url.clone());
        let uri: Uri = self.url.parse().map_err(|_| refused())?;
        let authority = uri.authority().ok_or_else(refused)?;
        let port = authority.port_u16().ok_or_else(refused)?;
        let host = authority.host().trim_matches(['[', ']']);
        let address = loopback(host).ok_or_else(|| ArgumentError::NotLoopback(self.url.clone()))?;
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let ca = self.ca.as_deref().ok_or(ArgumentError::NoAnchors)?;
                let client = self.cert.as_deref().zip(self.key.as_deref());
                let name = ServerName::try_from(host.to_owned()).map_err(|_| refused())?;
                Some((tls::client_config(ca, client, self.key_exchange)?, name))
            }
            _ => return Err(refused()),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            address: SocketAddr::new(address, port),
            tls,
            request: self.request(authority.as_str(), path)?,
        })
    }

    /// The bytes of the request; the same ones are sent every time.
    fn request(&self, host: &str, path: &str) -> Result<Vec<u8>, ArgumentError> {
        let mut head = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n", self.method);
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .filter(|_| !header.contains(['\r', '\n']))
                .ok_or_else(|| ArgumentError::Header(header.clone()))?;
            head.push_str(&format!("{}: {}\r\n", name.trim(), value.trim()));
        }
        if self.mode == Mode::Handshake {
            head.push_str("Connection: close\r\n");
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(self.body.as_deref().unwrap_or_default());
        Ok(head.into_bytes())
    }
}

fn loopback(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    host.parse().ok().filter(IpAddr::is_loopback)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(words: &[&str]) -> Result<Plan, ArgumentError> {
        Arguments::try_parse_from([&["load"], words].concat())
            .unwrap()
            .plan()
    }

    #[test]
    fn only_loopback_is_asked() {
        for url in [
            "http://127.0.0.1:1/x",
            "http://localhost:1/x",
            "http://[::1]:1/x",
            "http://127.9.9.9:1/",
        ] {
            assert!(plan(&["keep-alive", url]).is_ok(), "{url}");
        }
        for url in [
            "http://10.0.0.1:80/",
            "http://example.org:80/",
            "http://0.0.0.0:80/",
            "http://[::]:80/",
        ] {
            assert!(
                matches!(plan(&["idle", url]), Err(ArgumentError::NotLoopback(_))),
                "{url}"
            );
        }
    }

    #[test]
    fn https_without_anchors_is_refused() {
        let refused = plan(&["idle", "https://127.0.0.1:1/"]);
        assert!(matches!(refused, Err(ArgumentError::NoAnchors)));
    }

    #[test]
    fn nothing_to_do_is_refused() {
        for words in [
            ["--seconds", "0"],
            ["--seconds", "NaN"],
            ["--requests", "0"],
            ["--connections", "0"],
        ] {
            let all = [&["idle", "http://127.0.0.1:1/"], words.as_slice()].concat();
            assert!(
                matches!(plan(&all), Err(ArgumentError::Zero(_))),
                "{words:?}"
            );
        }
    }

    #[test]
    fn the_request_is_whole() {
        let made = plan(&[
            "handshake",
            "http://127.0.0.1:7/a?b=1",
            "--method",
            "POST",
            "--body",
            "{}",
            "--header",
            "X-A:  1 ",
        ])
        .unwrap();
        let expected = "POST /a?b=1 HTTP/1.1\r\nHost: 127.0.0.1:7\r\nX-A: 1\r\nConnection: close\r\n\
            Content-Length: 2\r\n\r\n{}";
        assert_eq!(made.target.request, expected.as_bytes());
        let split = plan(&["idle", "http://127.0.0.1:7/", "--header", "X: a\r\nY: b"]);
        assert!(matches!(split, Err(ArgumentError::Header(_))));
    }
}
