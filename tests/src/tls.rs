//! TLS clients as good and as bad as a test wants them.
//!
//! Invariant: they verify the server; what they present is the test's choice.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use certs::testing::{Minted, foreign_client_config};
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a refusal is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TLS 1.3 client that presents `minted` (or nothing), trusts `root`, and offers these protocols.
#[must_use]
pub fn client(
    minted: Option<&Minted>,
    root: &CertificateDer<'static>,
    alpn: &[&str],
) -> ClientConfig {
    let mut config = foreign_client_config(minted, root, &[&rustls::version::TLS13]);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Connects and shakes hands. In TLS 1.3 a refused client certificate shows at the first read only.
///
/// # Errors
/// Whatever the socket or the handshake says.
pub async fn connect(
    address: SocketAddr,
    config: impl Into<Arc<ClientConfig>>,
) -> io::Result<TlsStream<TcpStream>> {
    shake(TcpStream::connect(address).await?, address, config).await
}

/// Connects, says these bytes first, as a load balancer does, and shakes hands.
///
/// # Errors
/// As [`connect`].
pub async fn connect_saying(
    first: &[u8],
    address: SocketAddr,
    config: impl Into<Arc<ClientConfig>>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(first).await?;
    shake(socket, address, config).await
}

/// Connects from this address of the machine, as from another host, and shakes hands.
///
/// # Errors
/// As [`connect`].
pub async fn connect_from(
    source: IpAddr,
    address: SocketAddr,
    config: impl Into<Arc<ClientConfig>>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    shake(socket.connect(address).await?, address, config).await
}

async fn shake(
    socket: TcpStream,
    address: SocketAddr,
    config: impl Into<Arc<ClientConfig>>,
) -> io::Result<TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(config.into())
        .connect(name, socket)
        .await
}

/// The alert behind an error, if the other side sent one.
#[must_use]
pub fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// Expects to be refused by TLS: gives the alert. Panics if a single byte of an answer arrives, or
/// if the connection stays open, which means that it was accepted.
pub async fn refusal(
    address: SocketAddr,
    config: impl Into<Arc<ClientConfig>>,
) -> AlertDescription {
    let listen = async {
        // Nothing is sent: data behind a refused handshake could be answered with a reset, which
        // takes the alert with it.
        let mut stream = connect(address, config).await?;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        assert!(
            bytes.is_empty(),
            "answered: {}",
            String::from_utf8_lossy(&bytes)
        );
        read.map(drop)
    };
    let error = tokio::time::timeout(PATIENCE, listen)
        .await
        .expect("the connection was accepted")
        .expect_err("the connection ended without an alert");
    alert(&error).unwrap_or_else(|| panic!("no alert: {error}"))
}
