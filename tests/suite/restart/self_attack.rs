//! The attack of a sidecar on itself: what it finds decides whether the sidecar starts.

use std::net::SocketAddr;

use certs::testing::Mint;
use proxy::app::{Circumstances, SelfAttack, StartError};
use tests::audit::audit_rows;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const fn attacking(self_attack: SelfAttack) -> Circumstances {
    Circumstances {
        self_attack,
        ..Circumstances::PART
    }
}

/// A listener with the certificate of `world` that lets everybody in and answers 200.
async fn lax(world: &World) -> SocketAddr {
    let server = Mint::server(&["127.0.0.1"]).sign_with(&world.ca);
    let config = rustls::ServerConfig::builder_with_provider(certs::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(server.chain.clone(), server.key_der())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(socket).await.unwrap();
                let mut heard = Vec::new();
                while !heard.windows(4).any(|part| part == b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut heard).await.unwrap() > 0);
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                // Whoever asked goes first.
                let _gone = stream.read_buf(&mut heard).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_lets_strangers_in_is_not_put_to_use() {
    let world = World::start().await;
    let address = lax(&world).await;
    let failure = world
        .restart_under(attacking(SelfAttack::At(address)))
        .await
        .err()
        .expect("the start is refused");
    assert!(
        matches!(failure, StartError::SelfAttack { .. }),
        "{failure}"
    );
    let text = failure.to_string();
    for attack in [
        "no_certificate (answered 200)",
        "foreign_authority (answered 200)",
        "expired_certificate (answered 200)",
        "identity_headers (answered 200)",
    ] {
        assert!(text.contains(attack), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_listener_refuses_every_attack_and_says_so() {
    let world = World::start().await;
    // A grant in force, whose id the attack claims.
    let holder = world.amira().await;
    let world = world
        .restart_under(attacking(SelfAttack::Own))
        .await
        .unwrap();
    let status = serde_json::to_value(world.control().status().await.unwrap()).unwrap();
    let attacks = status["self_attack"]["attacks"].as_array().unwrap();
    assert_eq!(attacks.len(), 4, "{attacks:?}");
    for attack in attacks {
        assert_eq!(attack["result"], "refused", "{attack}");
    }
    let replicas = world.replicas().count();
    for attack in [
        "no_certificate",
        "foreign_authority",
        "expired_certificate",
        "identity_headers",
    ] {
        // Each replica attacks itself.
        for (result, count) in [("refused", replicas), ("got_through", 0), ("not_tried", 0)] {
            let line = format!("self_attacks_total{{attack=\"{attack}\",result=\"{result}\"}}");
            assert_eq!(world.counted(&line), count as u64, "{line}");
        }
    }
    // What reached HTTP is in the log like any other request, and is known there.
    let rows = audit_rows(world.control(), "self-attack", replicas).await;
    assert_eq!(rows.len(), replicas, "{rows:?}");
    for row in &rows {
        assert_eq!(row["outcome"], "denied", "{rows:?}");
        assert_eq!(row["http_status"], 401, "{rows:?}");
        assert!(row["grant_id"].is_null(), "{rows:?}");
    }
    // And nobody else notices.
    assert!(world.gateway.requests().await.is_empty());
    let answer = world.ask(&holder.minted, "/capabilities", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}
