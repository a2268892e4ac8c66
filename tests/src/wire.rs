//! One client for both protocols, for what must hold on either.
//!
//! Invariant: it says the same question in HTTP/1.1 and HTTP/2. What only one of them can say is in
//! `raw.rs` and `http2.rs`.

use std::io;
use std::net::SocketAddr;

use certs::testing::Minted;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;

use crate::http2::Http2;
use crate::raw::RawConnection;
use crate::response::Response;
use crate::tls;

/// A protocol of the federation listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Wire {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::H1, Self::H2];

    /// Its name in ALPN (RFC 7301).
    #[must_use]
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::H1 => "http/1.1",
            Self::H2 => "h2",
        }
    }
}

/// One connection of either protocol.
#[derive(Debug)]
pub enum Client {
    /// HTTP/1.1.
    H1(Box<RawConnection>),
    /// HTTP/2.
    H2(Http2),
}

impl Client {
    /// Connects as the holder of `minted`.
    ///
    /// # Errors
    /// As [`tls::connect`].
    pub async fn open(
        wire: Wire,
        address: SocketAddr,
        minted: &Minted,
        root: &CertificateDer<'static>,
    ) -> io::Result<Self> {
        Self::open_with(wire, address, tls::client(Some(minted), root, &[])).await
    }

    /// Connects with this configuration, whose protocols are set here.
    ///
    /// # Errors
    /// As [`tls::connect`].
    pub async fn open_with(
        wire: Wire,
        address: SocketAddr,
        mut config: ClientConfig,
    ) -> io::Result<Self> {
        config.alpn_protocols = vec![wire.alpn().as_bytes().to_vec()];
        Ok(match wire {
            Wire::H1 => Self::H1(Box::new(RawConnection::open(address, config).await?)),
            Wire::H2 => Self::H2(Http2::open(address, config).await?),
        })
    }

    /// Asks one question; the connection stays open if the server leaves it so.
    ///
    /// # Errors
    /// When no whole response came.
    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<Response> {
        match self {
            Self::H1(connection) => {
                connection.post(path, body).await?;
                connection.response().await
            }
            Self::H2(connection) => connection.post(path, body).await.map_err(io::Error::other),
        }
    }

    /// Asks one question with more headers, each `(name, value)`.
    ///
    /// # Errors
    /// When no whole response came.
    pub async fn post_with(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        match self {
            Self::H1(connection) => {
                let more: String = headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                connection
                    .send(format!(
                        "POST {path} HTTP/1.1\r\nHost: b\r\n{more}Content-Type: application/json\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await?;
                connection.response().await
            }
            Self::H2(connection) => {
                let mut request = crate::http2::post(path, body);
                for (name, value) in headers {
                    let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
                connection.request(request).await.map_err(io::Error::other)
            }
        }
    }

    /// Waits until the server has ended the connection. Panics if it says anything more first.
    pub async fn closed(self) {
        match self {
            Self::H1(connection) => {
                let (left, _) = connection.end().await;
                assert!(left.is_empty(), "{}", String::from_utf8_lossy(&left));
            }
            Self::H2(connection) => connection.closed().await,
        }
    }
}
