//! A network that takes its time: a relay that delays every piece, in both directions, each by another while.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A relay before a listener; it ends when it is dropped.
pub struct Delay {
    /// Where to connect to.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Delay {
    /// Relays to `listener`, each piece delayed by up to `most`.
    pub async fn before(listener: SocketAddr, most: Duration) -> Self {
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = near.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            let mut number = 0_u64;
            while let Ok((socket, _)) = near.accept().await {
                number += 1;
                tokio::spawn(relay(socket, listener, most, number));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(near: TcpStream, listener: SocketAddr, most: Duration, number: u64) {
    let Ok(far) = TcpStream::connect(listener).await else {
        return;
    };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // When one direction ends, so does the other: a cut is passed on at once.
    tokio::select! {
        () = carry(near_read, far_write, most, number) => {}
        () = carry(far_read, near_write, most, number.wrapping_mul(31)) => {}
    }
}

/// Carries one direction; delays differ from piece to piece, and are the same in every run.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    most: Duration,
    mut seed: u64,
) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let Ok(read) = from.read(&mut piece).await else {
            return;
        };
        if read == 0 {
            return;
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let share = u32::try_from(seed >> 56).unwrap();
        tokio::time::sleep(most * share / 256).await;
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
