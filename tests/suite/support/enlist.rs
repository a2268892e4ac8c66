//! Grants in force for any user of any data, and connections of their holders.

use std::sync::Arc;

use proxy::config::GatewayAuth;
use reference_gateway::record::User;
use rustls::ClientConfig;
use serde_json::Value;
use tests::{Holder, World};

use super::stream::{Connection, Shape};

/// A grant in force for `peer` over the rows of `user`.
pub async fn enlist(world: &World, peer: &str, user: &User, scope: Value) -> Holder {
    if world.config.gateway.auth == GatewayAuth::SubjectToken {
        world.let_in_with(&user.id, &user.token()).await;
    }
    let grant = world.pending_for(peer, &user.id, scope).await;
    let subject = grant.subject.uuid();
    let minted = world.mint(grant.id.uuid(), subject).sign_with(&world.ca);
    world.register(grant.id, &minted).await;
    Holder {
        grant: grant.id,
        subject,
        minted,
    }
}

/// The TLS client of a holder; the protocol is chosen when a connection is opened.
pub fn credentials(world: &World, holder: &Holder) -> Arc<ClientConfig> {
    Arc::new(tests::tls::client(Some(&holder.minted), world.root(), &[]))
}

/// A connection of a holder.
pub async fn open(world: &World, holder: &Holder, shape: Shape) -> Connection {
    Connection::open(world.federation(), &credentials(world, holder), shape)
        .await
        .unwrap()
}

/// GET over plain HTTP/1.1; the body as text.
pub async fn http_get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}
