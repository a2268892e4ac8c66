//! Clients that ask at a steady rate, and everything that came of it.
//!
//! Invariant: an answer is one that came whole. A connection that ended without one is kept as status 0, unless the handshake said that
//! the certificate is revoked: that is a 403.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::{Clock as _, SystemClock};
use rustls::ClientConfig;
use tests::grants::BASE;
use tests::{Client, Holder, Wire, World};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::enlist::credentials;
use crate::support::reader::PATIENCE;

/// Between two questions of one client.
const PACE: Duration = Duration::from_millis(25);

/// This moment, since the machine was started.
pub fn now() -> Duration {
    Duration::from_nanos(SystemClock.boot_nanos())
}

/// A question and what came of it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Duration,
    pub took: Duration,
    pub status: u16,
    /// Of a refusal; of a connection that ended, why.
    pub reason: String,
    /// Of the answer.
    pub id: String,
}

/// Clients of one grant.
pub struct Clients {
    stop: watch::Sender<bool>,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// So many on each address, by both versions of HTTP.
    pub fn begin(world: &World, holder: &Holder, at: &[SocketAddr], each: usize) -> Self {
        let stop = watch::Sender::new(false);
        let asked = Arc::default();
        let mut tasks = Vec::new();
        for &address in at {
            for wire in Wire::BOTH.into_iter().cycle().take(each) {
                let config = credentials(world, holder);
                let client = client(address, config, wire, Arc::clone(&asked), stop.subscribe());
                tasks.push(tokio::spawn(client));
            }
        }
        Self { stop, asked, tasks }
    }

    /// Waits for one of these.
    pub async fn until(&self, what: &str, is: impl Fn(&Asked) -> bool) {
        let there = async {
            while !self.asked.lock().unwrap().iter().any(&is) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, there).await.is_err() {
            let asked = self.asked.lock().unwrap();
            panic!("never: {what}; {:?}", asked.last());
        }
    }

    /// Waits for so many more.
    pub async fn more(&self, count: usize) {
        let enough = self.asked.lock().unwrap().len() + count;
        let there = async {
            while self.asked.lock().unwrap().len() < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.unwrap();
    }

    /// Ends them, once each has its answer.
    pub async fn end(self) -> Vec<Asked> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        let asked = self.asked.lock().unwrap();
        asked.clone()
    }
}

/// Waits until each of these knows the grant: it was made by another replica.
pub async fn known(world: &World, holder: &Holder, at: &[SocketAddr]) {
    for &address in at {
        let first = Clients::begin(world, holder, &[address], 1);
        first
            .until("it knows the grant", |asked| asked.status == 200)
            .await;
        first.end().await;
    }
}

async fn client(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    wire: Wire,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: watch::Receiver<bool>,
) {
    let path = format!("{BASE}/list/tasks");
    let mut kept: Option<Client> = None;
    let mut due = tokio::time::interval(PACE);
    while !*stop.borrow() {
        due.tick().await;
        let at = now();
        let answered = async {
            let mut client = match kept.take() {
                Some(client) => client,
                None => Client::open_with(wire, address, ClientConfig::clone(&config)).await?,
            };
            let answer = client.post(&path, r#"{"params":{"limit":1}}"#).await?;
            if answer.header("connection") != Some("close") {
                kept = Some(client);
            }
            Ok::<_, std::io::Error>(answer)
        };
        let (status, reason, id) = match answered.await {
            Ok(answer) if answer.status == 200 => {
                (200, String::new(), answer.request_id().to_owned())
            }
            Ok(answer) => {
                let reason = answer.reason().unwrap_or_else(|| answer.code());
                (answer.status, reason, answer.request_id().to_owned())
            }
            Err(error) => {
                let text = format!("{wire:?}: {error:?}");
                let status = if text.contains("CertificateRevoked") {
                    403
                } else {
                    0
                };
                (status, text, String::new())
            }
        };
        asked.lock().unwrap().push(Asked {
            at,
            took: now() - at,
            status,
            reason,
            id,
        });
    }
}
