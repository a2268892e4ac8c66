//! Clients that ask without a pause while something is done to the sidecar, and what came of it.
//!
//! Invariant: a client asks as they do: on a connection that it keeps until it is told to close it. Whatever else ends one while a
//! question is under way is a failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tests::grants::BASE;
use tests::{Client, Response, Wire};

use super::reader::PATIENCE;

/// What came of everything that was asked.
#[derive(Default)]
pub struct Ledger {
    /// Nothing more is asked.
    pub stop: AtomicBool,
    pub answers: AtomicUsize,
    /// Ids of requests that were answered by the federation listener.
    pub ids: Mutex<Vec<String>>,
    pub failures: Mutex<Vec<String>>,
}

impl Ledger {
    pub fn fail(&self, why: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(why.to_string());
    }

    /// Waits for so many answers more.
    pub async fn more(&self, answers: usize) {
        let enough = self.answers.load(Ordering::SeqCst) + answers;
        let reached = async {
            while self.answers.load(Ordering::SeqCst) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("{:?}", self.failures.lock().unwrap()));
    }
}

/// Whether a client asks again without a doubt: the question did not leave it, or the end of the connection said that it is not heeded
/// any more (RFC 9113, section 6.8). That it was not is checked by the records.
fn was_not_heeded(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    error.is_some_and(|error: &hyper::Error| {
        error.is_canceled()
            || error.is_closed()
            || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)")
    })
}

/// Asks the federation listener, one question after the other, until told to stop; each answer with rows is given to `look`.
pub async fn peer(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    (wire, question): (Wire, &'static str),
    ledger: Arc<Ledger>,
    look: impl Fn(&Response),
) {
    let path = format!("{BASE}/list/tasks");
    let open = async || loop {
        match Client::open_with(wire, address, ClientConfig::clone(&config)).await {
            Ok(client) => return Some(client),
            Err(_) if ledger.stop.load(Ordering::SeqCst) => return None,
            Err(error) => ledger.fail(format_args!("connecting: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let Some(mut client) = open().await else {
        return;
    };
    let mut due = tokio::time::interval(Duration::from_millis(10));
    while !ledger.stop.load(Ordering::SeqCst) {
        due.tick().await;
        if let Client::H2(connection) = &mut client
            && connection.sender.ready().await.is_err()
        {
            let Some(next) = open().await else { return };
            client = next;
        }
        let answer = match client.post(&path, question).await {
            Ok(answer) => answer,
            Err(error) => {
                if !was_not_heeded(&error) {
                    ledger.fail(format_args!("{wire:?}: {error:?}"));
                }
                let Some(next) = open().await else { return };
                client = next;
                continue;
            }
        };
        if answer.status == 200 {
            look(&answer);
        } else {
            ledger.fail(answer.text());
        }
        ledger.answers.fetch_add(1, Ordering::SeqCst);
        let id = answer.request_id().to_owned();
        ledger.ids.lock().unwrap().push(id);
        if answer.header("connection") == Some("close") {
            let Some(next) = open().await else { return };
            client = next;
        }
    }
}
