//! A relay before the gateway that breaks off in the middle of an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tests::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How a relayed connection breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// As if everything had been said.
    Closed,
    /// As when a process dies.
    Reset,
}

/// Puts a relay between the sidecar of `world` and its gateway: a connection that has carried
/// `after` bytes of answers breaks off.
pub async fn break_gateway(mut world: World, after: usize, how: Break) -> World {
    let gateway: SocketAddr = world
        .gateway
        .url()
        .trim_start_matches("http://")
        .parse()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = proxy::config::Config::clone(&world.config);
    config.gateway.url = format!("http://{}", listener.local_addr().unwrap());
    world.config = Arc::new(config);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(gateway).await.unwrap();
            tokio::spawn(relay(near, far, after, how));
        }
    });
    world.restart().await
}

async fn relay(mut near: TcpStream, mut far: TcpStream, after: usize, how: Break) {
    let mut left = after;
    {
        let (mut asks, mut answers) = near.split();
        let (mut says, mut hears) = far.split();
        let questions = async {
            // A broken connection ends the other direction too.
            let _ended = tokio::io::copy(&mut asks, &mut hears).await;
            std::future::pending::<()>().await;
        };
        let rows = async {
            let mut piece = vec![0; 16 * 1024];
            while left > 0 {
                let most = left.min(piece.len());
                match says.read(&mut piece[..most]).await {
                    Ok(read) if read > 0 => {
                        left -= read;
                        if answers.write_all(&piece[..read]).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = questions => {}
            () = rows => {}
        }
    }
    if how == Break::Reset {
        #[allow(deprecated, reason = "the way to make the close a reset")]
        near.set_linger(Some(Duration::ZERO)).unwrap();
    }
}
