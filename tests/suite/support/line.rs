//! The line between two sides, which can be cut, or lose what is said in one direction.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OPEN: u8 = 0;
const LOSING: u8 = 1;
const CUT: u8 = 2;

/// A line to `far`.
pub struct Line {
    pub address: SocketAddr,
    state: Arc<AtomicU8>,
    far: Arc<Mutex<SocketAddr>>,
}

impl Line {
    pub async fn to(far: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(AtomicU8::new(OPEN));
        let shared = Arc::clone(&state);
        let far = Arc::new(Mutex::new(far));
        let leads = Arc::clone(&far);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = *leads.lock().unwrap();
                if shared.load(Ordering::SeqCst) == OPEN
                    && let Ok(far) = TcpStream::connect(far).await
                {
                    tokio::spawn(carry(near, far, Arc::clone(&shared)));
                }
            }
        });
        Self {
            address,
            state,
            far,
        }
    }

    /// From now on it leads there.
    pub fn lead_to(&self, far: SocketAddr) {
        *self.far.lock().unwrap() = far;
    }

    /// From now on what comes back is lost, and the connection with it; nobody gets through anew.
    pub fn lose_answers(&self) {
        self.state.store(LOSING, Ordering::SeqCst);
    }

    /// From now on nothing is carried.
    pub fn cut(&self) {
        self.state.store(CUT, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.state.store(OPEN, Ordering::SeqCst);
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, state: Arc<AtomicU8>) {
    let (mut asks, mut hears) = near.split();
    let (mut answers, mut says) = far.split();
    let mut question = vec![0; 16 * 1024];
    let mut answer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = asks.read(&mut question) => match read {
                Ok(read) if read > 0 && state.load(Ordering::SeqCst) != CUT => {
                    if says.write_all(&question[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = answers.read(&mut answer) => match read {
                Ok(read) if read > 0 && state.load(Ordering::SeqCst) == OPEN => {
                    if hears.write_all(&answer[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}
