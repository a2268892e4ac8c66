//! The connection that decisions are asked through, made again when it is of no use.
//!
//! Invariant: one task at most makes a connection, and nobody who asks waits for longer than they would for an answer. A connection
//! stays until there is another, unless it is known to be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, Script, ServerErrorKind, cmd};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Connection, ValkeyOptions};

/// How long a connection that was late may take to show that it is alive.
const ALIVE: Duration = Duration::from_secs(1);
/// Between two tries of making a connection.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const MOST_PAUSE: Duration = Duration::from_secs(1);

/// A script with its keys and arguments.
pub(in crate::limit) struct Call<'a> {
    pub(in crate::limit) script: &'a Script,
    pub(in crate::limit) text: &'static str,
    pub(in crate::limit) keys: Vec<String>,
    pub(in crate::limit) arguments: Vec<u64>,
}

impl Call<'_> {
    fn command(&self, name: &str, script: &str) -> redis::Cmd {
        let mut asked = cmd(name);
        asked
            .arg(script)
            .arg(self.keys.len())
            .arg(&self.keys)
            .arg(&self.arguments);
        asked
    }
}

/// See the module.
pub(in crate::limit) struct Link {
    options: ValkeyOptions,
    /// The connection and how many there were before it.
    now: watch::Sender<(u64, Option<Connection>)>,
    making: AtomicBool,
}

impl Link {
    pub(in crate::limit) fn new(options: ValkeyOptions) -> Self {
        Self {
            options,
            now: watch::Sender::new((0, None)),
            making: AtomicBool::new(false),
        }
    }

    /// Runs a script within the time for a decision.
    ///
    /// # Errors
    /// Why it did not run in words of the server or of the system.
    pub(in crate::limit) async fn run<T: FromRedisValue>(
        self: &Arc<Self>,
        call: &Call<'_>,
    ) -> Result<T, String> {
        let patience = self.options.patience;
        let mut turn = None;
        let asked = async {
            let (asked, mut connection) = self.connection().await?;
            turn = Some(asked);
            let known = call.command("EVALSHA", call.script.get_hash());
            match connection.query(&known).await {
                // A new master, or one that was started again, is told the text in the same breath.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    connection.query(&call.command("EVAL", call.text)).await
                }
                answered => answered,
            }
        };
        let (why, broken) = match timeout(patience, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (error.to_string(), is_broken(&error)),
            Err(_) => {
                let why = format!("no answer within {} ms", patience.as_millis());
                (why, false)
            }
        };
        if let Some(turn) = turn {
            self.failed(turn, broken);
        }
        Err(why)
    }

    /// The connection, as soon as there is one.
    async fn connection(self: &Arc<Self>) -> RedisResult<(u64, Connection)> {
        let mut seen = self.now.subscribe();
        if seen.borrow().1.is_none() {
            self.make(None);
        }
        let there = seen.wait_for(|(_, connection)| connection.is_some()).await;
        let there = there.map(|there| there.clone());
        match there {
            Ok((turn, Some(connection))) => Ok((turn, connection)),
            Ok((_, None)) | Err(_) => Err(super::nobody()),
        }
    }

    /// Has the connection of that turn looked at, and made again where need be.
    fn failed(self: &Arc<Self>, turn: u64, broken: bool) {
        let mut suspect = None;
        self.now.send_if_modified(|(now, connection)| {
            if *now == turn && broken {
                return connection.take().is_some();
            }
            if *now == turn {
                suspect.clone_from(connection);
            }
            false
        });
        if broken || suspect.is_some() {
            self.make(suspect);
        }
    }

    /// Makes a connection in the background, unless that is being done, or the suspect proves to be alive.
    fn make(self: &Arc<Self>, suspect: Option<Connection>) {
        if self.making.swap(true, Ordering::AcqRel) {
            return;
        }
        let link = Arc::downgrade(self);
        tokio::spawn(async move {
            let alive = match suspect {
                Some(connection) => is_alive(connection).await,
                None => false,
            };
            let mut pause = LEAST_PAUSE;
            // Ends with the last who could ask.
            while let Some(link) = link.upgrade() {
                if alive {
                    link.making.store(false, Ordering::Release);
                    return;
                }
                match link.options.open().await {
                    Ok(connection) => {
                        // First, so that who finds the new one broken is not kept from saying so.
                        link.making.store(false, Ordering::Release);
                        link.now.send_modify(|(turn, now)| {
                            *turn = turn.saturating_add(1);
                            *now = Some(connection);
                        });
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no connection to the server of the shared limits");
                    }
                }
                drop(link);
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(MOST_PAUSE);
            }
        });
    }
}

/// Whether a connection is of no use any more: it is gone, or its server takes no writes, as a master that has become a replica.
fn is_broken(error: &RedisError) -> bool {
    let demoted = matches!(
        error.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    demoted || error.is_unrecoverable_error()
}

async fn is_alive(mut connection: Connection) -> bool {
    let asked = cmd("PING");
    matches!(
        timeout(ALIVE, connection.query::<String>(&asked)).await,
        Ok(Ok(_))
    )
}
