//! Readers of a long answer: one that never stops, and one that stops until told to go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::stream::{Connection, Cut, Head};

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a reader goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Reads as fast as it can.
    Fast,
    /// Stops after some bytes, so that every buffer on the way fills up, and reads on when told to.
    Stalled,
}

/// Bytes of a body after which a stalled reader stops.
const STALL_AT: u64 = 256 * 1024;

/// What a reader got.
#[derive(Debug)]
pub struct Got {
    /// Bytes of the body.
    pub bytes: u64,
    /// Whether the body ended as its framing promised.
    pub end: Result<(), Cut>,
}

/// A reader under way.
pub struct Reader {
    /// The head of the answer.
    pub head: Head,
    /// Bytes of the body so far.
    pub bytes: Arc<AtomicU64>,
    /// Bytes taken from the kernel so far.
    pub received: Arc<AtomicU64>,
    resume: Arc<Notify>,
    task: JoinHandle<Got>,
}

impl Reader {
    /// Asks for all of a list of tasks and reads the answer at this pace in a task of its own.
    pub async fn start(mut connection: Connection, pace: Pace) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let received = Arc::clone(&connection.received);
        let resume = Arc::new(Notify::new());
        let (send_head, head) = oneshot::channel();
        let (count, resumed) = (Arc::clone(&bytes), Arc::clone(&resume));
        let task = tokio::spawn(async move {
            let path = format!("{}/list/tasks", tests::grants::BASE);
            let question = r#"{"params":{"limit":10000}}"#;
            let (head, mut body) = connection.ask("POST", &path, question).await.unwrap();
            send_head.send(head).unwrap();
            let mut stalled = pace == Pace::Stalled;
            loop {
                let got = |end| Got {
                    bytes: count.load(Ordering::SeqCst),
                    end,
                };
                match body.part().await {
                    Ok(None) => return got(Ok(())),
                    Err(cut) => return got(Err(cut)),
                    Ok(Some(part)) => {
                        let length = u64::try_from(part.len()).unwrap();
                        let so_far = count.fetch_add(length, Ordering::SeqCst) + length;
                        if stalled && so_far >= STALL_AT {
                            stalled = false;
                            resumed.notified().await;
                        }
                    }
                }
            }
        });
        Self {
            head: head.await.unwrap(),
            bytes,
            received,
            resume,
            task,
        }
    }

    /// Waits until the answer is under way: some megabytes for a fast reader, a full stop for one
    /// that stalls.
    pub async fn under_way(&self, pace: Pace) {
        match pace {
            Pace::Fast => until(|| self.bytes.load(Ordering::SeqCst) > 2 << 20).await,
            Pace::Stalled => {
                until(|| self.bytes.load(Ordering::SeqCst) >= STALL_AT).await;
                // Nobody reads: what the kernel and the client library can take comes to a stop.
                let mut last = u64::MAX;
                let mut same = 0;
                while same < 5 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let now = self.received.load(Ordering::SeqCst);
                    same = if now == last { same + 1 } else { 0 };
                    last = now;
                }
            }
        }
    }

    /// Lets a stalled reader go on, and reads to the end.
    pub async fn finish(self) -> Got {
        self.resume.notify_one();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the answer ends in time")
            .unwrap()
    }
}

/// Waits until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it comes about in time");
}
