//! The three loads: kept-alive connections, handshakes, idle connections.
//!
//! Invariant: every connection is answered once, and that answer parsed, before the measured part begins
//! (except in handshake mode, where connecting is what is measured). A failed connection ends with its
//! failure counted: a load never runs on quietly with fewer connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use certs::{Clock, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::arguments::{Extent, Mode, Plan};
use crate::client::{ClientError, Connection, Exchanged, Target};
use crate::rows::{Expectation, RowCheck};
use crate::tally::Tally;

/// Connections that are opened at the same time in idle mode.
const OPENING: usize = 25;
/// How much longer than the load a connection may take before it is given up.
const GRACE: Duration = Duration::from_secs(20);
/// How long a load of a given number of requests may take.
const LONGEST: Duration = Duration::from_secs(600);

/// When to stop, shared by all connections.
struct Stop {
    /// Requests that may still be begun.
    left: AtomicU64,
    /// Nanoseconds since boot after which none is begun.
    end: u64,
}

impl Stop {
    fn new(extent: Extent, now: u64) -> Self {
        match extent {
            Extent::Time(time) => Self {
                left: AtomicU64::new(u64::MAX),
                end: now.saturating_add(nanos(time)),
            },
            Extent::Requests(requests) => Self {
                left: AtomicU64::new(requests),
                end: u64::MAX,
            },
        }
    }

    /// Takes the right to begin one more request.
    fn begin(&self, now: u64) -> bool {
        let take = |left: u64| left.checked_sub(1);
        now < self.end
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }
}

/// Runs a load to its end.
///
/// # Errors
/// When standard input or output fails at the gate.
pub async fn run(plan: Plan) -> std::io::Result<Tally> {
    let rows = plan.expectation.rows;
    let mut tally = match plan.mode {
        Mode::KeepAlive => keep_alive(plan).await?,
        Mode::Handshake => handshakes(plan).await?,
        Mode::Idle => idle(plan).await?,
    };
    tally.rows = rows;
    Ok(tally)
}

async fn keep_alive(plan: Plan) -> std::io::Result<Tally> {
    let (start, started) = watch::channel(None::<Arc<Stop>>);
    let (ready, mut waiting) = tokio::sync::mpsc::channel::<()>(1);
    let limit = patience(plan.extent);
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        let (target, expectation) = (Arc::clone(&plan.target), plan.expectation);
        let (mut started, ready) = (started.clone(), ready.clone());
        connections.spawn(async move {
            let mut tally = Tally::default();
            let mut asker = Asker::new(target, expectation);
            asker.ask(&mut tally).await;
            tally.requests.clear();
            // Dropped, not sent: the gate waits until the last connection has let go.
            drop(ready);
            let Ok(stop) = started
                .wait_for(Option::is_some)
                .await
                .map(|stop| stop.clone())
            else {
                return tally;
            };
            let stop = stop.unwrap_or_else(|| Arc::new(Stop::new(Extent::Requests(0), 0)));
            while tally.errors == 0 && stop.begin(SystemClock.boot_nanos()) {
                asker.ask(&mut tally).await;
            }
            tally
        });
    }
    drop(ready);
    waiting.recv().await;
    gate(plan.gate).await?;
    let began = SystemClock.boot_nanos();
    start.send_replace(Some(Arc::new(Stop::new(plan.extent, began))));
    Ok(join(connections, limit, began).await)
}

async fn handshakes(plan: Plan) -> std::io::Result<Tally> {
    gate(plan.gate).await?;
    let limit = patience(plan.extent);
    let began = SystemClock.boot_nanos();
    let stop = Arc::new(Stop::new(plan.extent, began));
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        let (target, expectation, stop) = (
            Arc::clone(&plan.target),
            plan.expectation,
            Arc::clone(&stop),
        );
        connections.spawn(async move {
            let mut tally = Tally::default();
            let mut check = RowCheck::new(expectation);
            while tally.errors == 0 {
                let began = SystemClock.boot_nanos();
                if !stop.begin(began) {
                    break;
                }
                match Connection::open(&target).await {
                    Ok(mut connection) => {
                        tally.handshakes.push(since(began));
                        let exchanged = connection.exchange(&target.request, &mut check).await;
                        count(&mut tally, exchanged, began);
                    }
                    Err(error) => count(&mut tally, Err(error), began),
                }
            }
            tally
        });
    }
    Ok(join(connections, limit, began).await)
}

async fn idle(plan: Plan) -> std::io::Result<Tally> {
    let began = SystemClock.boot_nanos();
    let mut tally = Tally::default();
    let mut open = Vec::with_capacity(plan.connections);
    let mut opening = JoinSet::new();
    let mut left = plan.connections;
    while left > 0 || !opening.is_empty() {
        while left > 0 && opening.len() < OPENING {
            left -= 1;
            let mut asker = Asker::new(Arc::clone(&plan.target), plan.expectation);
            opening.spawn(async move {
                let mut tally = Tally::default();
                asker.ask(&mut tally).await;
                (asker.connection, tally)
            });
        }
        match tokio::time::timeout(GRACE, opening.join_next()).await {
            Ok(Some(Ok((connection, counted)))) => {
                tally.add(counted);
                open.extend(connection);
            }
            Ok(_) => {}
            Err(_) => {
                tally.errors += 1;
                tally.note(|| "a connection was not answered in time".to_owned());
                break;
            }
        }
    }
    open.iter_mut().for_each(Connection::shrink);
    tally.elapsed = Duration::from_nanos(since(began));
    gate(plan.gate).await?;
    if let (false, Extent::Time(time)) = (plan.gate, plan.extent) {
        tokio::time::sleep(time).await;
    }
    let mut alive = 0;
    for connection in &mut open {
        alive += u64::from(connection.is_open().await);
    }
    tally.alive = Some(alive);
    Ok(tally)
}

/// One connection that asks again and again, and connects again when the server closed it.
struct Asker {
    target: Arc<Target>,
    check: RowCheck,
    connection: Option<Connection>,
}

impl Asker {
    fn new(target: Arc<Target>, expectation: Expectation) -> Self {
        Self {
            target,
            check: RowCheck::new(expectation),
            connection: None,
        }
    }

    async fn ask(&mut self, tally: &mut Tally) {
        let began = SystemClock.boot_nanos();
        let exchanged = self.exchange().await;
        let keep = matches!(&exchanged, Ok(exchanged) if !exchanged.closes);
        if !keep {
            self.connection = None;
            tally.reconnects += u64::from(exchanged.is_ok());
        }
        count(tally, exchanged, began);
    }

    async fn exchange(&mut self) -> Result<Exchanged, ClientError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            absent => absent.insert(Connection::open(&self.target).await?),
        };
        connection
            .exchange(&self.target.request, &mut self.check)
            .await
    }
}

/// Counts one exchange that began at `began` (nanoseconds since boot).
fn count(tally: &mut Tally, exchanged: Result<Exchanged, ClientError>, began: u64) {
    match exchanged {
        Ok(Exchanged {
            status: 200..300,
            rows: Ok(()),
            ..
        }) => tally.requests.push(since(began)),
        Ok(Exchanged {
            status: 200..300,
            rows: Err(error),
            ..
        }) => {
            tally.wrong_rows += 1;
            tally.note(|| error.to_string());
        }
        Ok(Exchanged { status, .. }) => {
            tally.non_2xx += 1;
            tally.note(|| format!("status {status}"));
        }
        Err(error) => {
            tally.errors += 1;
            tally.note(|| error.to_string());
        }
    }
}

/// Sums up all connections; those that take longer than `limit` are errors.
async fn join(mut connections: JoinSet<Tally>, limit: Duration, began: u64) -> Tally {
    let mut sum = Tally::default();
    let all = async {
        while let Some(finished) = connections.join_next().await {
            match finished {
                Ok(tally) => sum.add(tally),
                Err(error) => {
                    sum.errors += 1;
                    sum.note(|| error.to_string());
                }
            }
        }
    };
    let late = tokio::time::timeout(limit, all).await.is_err();
    if late {
        sum.errors += 1;
        sum.note(|| "a connection was not answered in time".to_owned());
    }
    sum.elapsed = Duration::from_nanos(since(began));
    sum
}

/// Says that the measured part could begin, and waits until it should.
async fn gate(wanted: bool) -> std::io::Result<()> {
    if !wanted {
        return Ok(());
    }
    println!("ready");
    let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    match line.await.map_err(std::io::Error::other)?? {
        // Whoever meters is gone: a load that nobody measures is of no use.
        0 => Err(std::io::Error::other(
            "standard input was closed at the gate",
        )),
        _ => Ok(()),
    }
}

fn patience(extent: Extent) -> Duration {
    match extent {
        Extent::Time(time) => time.saturating_add(GRACE),
        Extent::Requests(_) => LONGEST,
    }
}

fn since(began: u64) -> u64 {
    SystemClock.boot_nanos().saturating_sub(began)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_begun_as_often_as_told() {
        let stop = Stop::new(Extent::Requests(3), 0);
        let begun = (0..10).filter(|_| stop.begin(u64::MAX - 1)).count();
        assert_eq!(begun, 3);
    }

    #[test]
    fn none_is_begun_after_the_end() {
        let stop = Stop::new(Extent::Time(Duration::from_nanos(10)), 5);
        assert!(stop.begin(14));
        assert!(!stop.begin(15));
    }
}
