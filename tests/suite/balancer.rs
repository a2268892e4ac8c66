//! Load balancers in front of the listeners: who limits count against is who the balancer says, and nobody else can choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::io;
use std::net::Ipv4Addr;

use proxy::transport::balancer::LOCAL_HEADER;
use support::reader::until;
use tests::grants::BASE;
use tests::{Holder, RawConnection, World, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const BEHIND: &str = "proxy_protocol_from = [\"127.0.0.0/8\"]\n";
const LIMITS: &str = "[limits]\nhandshakes_per_minute = 60\nhandshake_burst = 3\n";

/// The header of a TCP connection of this client (PROXY protocol, section 2.2).
fn named(client: Ipv4Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client.octets());
    header.extend([192, 0, 2, 1, 0x10, 0, 0x20, 0xfb]);
    header
}

async fn open(world: &World, holder: &Holder, first: &[u8]) -> io::Result<TlsStream<TcpStream>> {
    let config = tls::client(Some(&holder.minted), world.root(), &["http/1.1"]);
    tls::connect_saying(first, world.federation(), config).await
}

/// Whether a question on it is answered with 200.
async fn is_answered(stream: TlsStream<TcpStream>) -> bool {
    let mut raw = RawConnection::over(stream);
    raw.post(&format!("{BASE}/capabilities"), "{}")
        .await
        .unwrap();
    raw.response().await.unwrap().status == 200
}

/// Waits until one handshake has ended so: the socket is closed before it is counted.
async fn until_counted(world: &World, result: &str) {
    let line = format!("mosaic_federation_handshakes_total{{result=\"{result}\"}} 1\n");
    let counted =
        || String::from_utf8_lossy(&world.sidecar.metrics.render().unwrap()).contains(&line);
    until(counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_counted_against_the_client_behind_the_balancer() {
    let world = World::builder()
        .manual_clock()
        .federation(BEHIND)
        .settings(LIMITS)
        .start()
        .await;
    let holder = world.amira().await;
    // The burst of one client, one after the other; the next one is closed, another client is not.
    let (one, other) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2));
    for _ in 0..3 {
        let stream = open(&world, &holder, &named(one)).await.unwrap();
        assert!(is_answered(stream).await);
    }
    assert!(open(&world, &holder, &named(one)).await.is_err());
    let stream = open(&world, &holder, &named(other)).await.unwrap();
    assert!(is_answered(stream).await);
    // The balancer's own connections are counted against itself.
    let stream = open(&world, &holder, &LOCAL_HEADER).await.unwrap();
    assert!(is_answered(stream).await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_has_to_say_who_is_there() {
    let world = World::builder().federation(BEHIND).start().await;
    let holder = world.amira().await;
    assert!(open(&world, &holder, b"").await.is_err());
    until_counted(&world, "proxy_header").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_may_say_who_they_are() {
    for settings in [
        "",
        "proxy_protocol_from = [\"127.0.0.2\", \"10.0.0.0/8\"]\n",
    ] {
        let world = World::builder().federation(settings).start().await;
        let holder = world.amira().await;
        let client = named(Ipv4Addr::new(203, 0, 113, 1));
        assert!(open(&world, &holder, &client).await.is_err());
        until_counted(&world, "protocol").await;
        assert!(is_answered(open(&world, &holder, b"").await.unwrap()).await);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_enrollment_listener_has_its_own() {
    let world = World::builder()
        .manual_clock()
        .enrollment(BEHIND)
        .settings(LIMITS)
        .start()
        .await;
    let ask = async |first: Vec<u8>| {
        let config = tls::client(None, world.root(), &["http/1.1"]);
        let mut stream = tls::connect_saying(&first, world.enrollment(), config).await?;
        let ask = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer.starts_with(b"HTTP/1.1 404 "))
    };
    let one = Ipv4Addr::new(203, 0, 113, 1);
    for _ in 0..3 {
        assert!(ask(named(one)).await.unwrap());
    }
    assert!(ask(named(one)).await.is_err());
    assert!(ask(named(Ipv4Addr::new(203, 0, 113, 2))).await.unwrap());
    assert!(ask(Vec::new()).await.is_err());
    world.stop().await;
}
