//! Clients that remember TLS sessions and try to take them up again.
//!
//! Invariant: what they offer are good tickets, which a server of the same name and authority has given them: a sidecar gives
//! none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use certs::testing::{Mint, Minted};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{RawConnection, World, tls};

/// Remembers sessions as a client may, and counts tickets.
#[derive(Debug)]
pub struct Tickets {
    kept: ClientSessionMemoryCache,
    /// How many it was given.
    pub given: AtomicUsize,
    /// How many it has offered.
    pub offered: AtomicUsize,
}

impl Tickets {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: ClientSessionMemoryCache::new(32),
            given: AtomicUsize::new(0),
            offered: AtomicUsize::new(0),
        })
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(server, group);
    }
    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(server)
    }
    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept.set_tls12_session(server, value);
    }
    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept.tls12_session(server)
    }
    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.kept.remove_tls12_session(server);
    }
    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.kept.insert_tls13_ticket(server, value);
    }
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.kept.take_tls13_ticket(server);
        self.offered
            .fetch_add(usize::from(ticket.is_some()), Ordering::SeqCst);
        ticket
    }
}

/// A client of HTTP/1.1 with this certificate or none, which remembers sessions.
#[must_use]
pub fn remembering(
    world: &World,
    minted: Option<&Minted>,
    tickets: &Arc<Tickets>,
) -> Arc<ClientConfig> {
    let mut config = tls::client(minted, world.root(), &["http/1.1"]);
    config.resumption = Resumption::store(Arc::clone(tickets) as Arc<dyn ClientSessionStore>);
    config.enable_early_data = true;
    Arc::new(config)
}

/// A TLS server with the sidecar's name and authority that, unlike it, gives tickets out: where a client gets something to
/// offer. Ends with the test.
async fn generous_server(world: &World) -> SocketAddr {
    let minted = Mint::server(&["127.0.0.1"]).sign_with(&world.ca);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(minted.chain.clone(), minted.key_der())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(socket).await {
                let _sent = stream.write_all(b"hello").await;
                let _closed = stream.shutdown().await;
            }
        }
    });
    address
}

/// Lets `config` collect tickets: the second handshake proves that they are good ones.
pub async fn collect_tickets(world: &World, config: &Arc<ClientConfig>) {
    let address = generous_server(world).await;
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let connection = RawConnection::open(address, Arc::clone(config))
            .await
            .unwrap();
        let kind = connection.stream.get_ref().1.handshake_kind();
        let (bytes, _) = connection.end().await;
        assert_eq!(bytes, b"hello");
        assert_eq!(kind, Some(expected));
    }
}
