//! What answers carry of the histories of their grants.
//!
//! Invariant: a request only copies a value that is ready. Values are made by one task beside the writer of the log: of each
//! record that is in the database, signed at most once a second for each grant. What is kept is bounded by the grants that
//! have a connection open; a grant that comes back is read from the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use certs::Clock;
use http::HeaderValue;
use parking_lot::Mutex;
use policy::id::GrantId;
use policy::time::UnixMillis;
use tokio::sync::{Notify, watch};

use super::{CheckpointHeader, HeaderSignature, HistoryHead};
use crate::audit::AuditLog;
use crate::audit::checkpoint::CheckpointSigner;

/// The shortest time between two signatures for one grant, nanoseconds.
const SIGN_EVERY: u64 = 1_000_000_000;
/// Between two rounds of forgetting, and the longest wait for a signature that is due.
const ROUND: Duration = Duration::from_secs(1);

/// What answers of one grant carry.
#[derive(Debug, Default)]
pub struct HistoryCell {
    value: ArcSwapOption<HeaderValue>,
    state: Mutex<CellState>,
}

#[derive(Debug, Default)]
struct CellState {
    /// The newest place that is known.
    head: Option<HistoryHead>,
    /// The place signed last, and when (nanoseconds since boot).
    signed: Option<(HistoryHead, u64)>,
}

impl HistoryCell {
    /// The value of `X-Mosaic-Checkpoint` now; `None` before the first record.
    #[must_use]
    pub fn value(&self) -> Option<HeaderValue> {
        self.value.load().as_deref().cloned()
    }

    /// Takes a place in, unless a later one is known.
    fn raise(&self, head: &HistoryHead) {
        let mut state = self.state.lock();
        if state.head.is_none_or(|known| known.gseq < head.gseq) {
            state.head = Some(*head);
        }
    }

    /// Makes the newest place what answers carry. True when its signature has to wait.
    fn publish(&self, publisher: &HistoryPublisher, grant: GrantId) -> bool {
        let mut state = self.state.lock();
        let Some(head) = state.head else {
            return false;
        };
        if state.signed.is_some_and(|(signed, _)| signed == head) {
            return false;
        }
        let now = publisher.clock.boot_nanos();
        let waits = state
            .signed
            .is_some_and(|(_, at)| now.saturating_sub(at) < SIGN_EVERY);
        let mut signed = None;
        if !waits {
            let at = UnixMillis(publisher.clock.unix_millis());
            signed = HeaderSignature::over(&publisher.signer, grant, &head, at);
            state.signed = Some((head, now));
        }
        let text = CheckpointHeader { head, signed }.value();
        if let Ok(value) = HeaderValue::try_from(text) {
            self.value.store(Some(Arc::new(value)));
        }
        waits
    }
}

/// Cells by grant, and what is to be done about them.
#[derive(Debug, Default)]
struct Book {
    cells: HashMap<GrantId, Arc<HistoryCell>>,
    /// Grants whose history has to be looked up.
    unread: HashSet<GrantId>,
    /// Grants with a place that answers do not carry yet, or not signed.
    dirty: HashSet<GrantId>,
}

/// Makes what answers carry.
pub struct HistoryPublisher {
    book: Mutex<Book>,
    wake: Notify,
    log: Arc<dyn AuditLog>,
    signer: Arc<CheckpointSigner>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for HistoryPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryPublisher").finish_non_exhaustive()
    }
}

impl HistoryPublisher {
    /// A publisher that knows of no grant; [`run`](Self::run) is what makes it work.
    #[must_use]
    pub fn new(
        log: Arc<dyn AuditLog>,
        signer: Arc<CheckpointSigner>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::new(Book::default()),
            wake: Notify::new(),
            log,
            signer,
            clock,
        })
    }

    /// What answers of a grant carry, for a connection of it to hold. Does not wait; of a grant that comes first the
    /// value follows.
    #[must_use]
    pub fn open(&self, grant: GrantId) -> Arc<HistoryCell> {
        let mut book = self.book.lock();
        if let Some(cell) = book.cells.get(&grant) {
            return Arc::clone(cell);
        }
        let cell = Arc::new(HistoryCell::default());
        book.cells.insert(grant, Arc::clone(&cell));
        book.unread.insert(grant);
        drop(book);
        self.wake.notify_one();
        cell
    }

    /// Takes in how far histories have got. To be called with what the log has committed.
    pub fn note(&self, heads: &[(GrantId, HistoryHead)]) {
        let mut book = self.book.lock();
        let mut any = false;
        for (grant, head) in heads {
            // A grant without a connection has nobody to tell.
            if let Some(cell) = book.cells.get(grant) {
                cell.raise(head);
                book.dirty.insert(*grant);
                any = true;
            }
        }
        drop(book);
        if any {
            self.wake.notify_one();
        }
    }

    /// Makes values until `stopped`.
    pub async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(ROUND) => self.forget(),
            }
            self.look_up().await;
            self.publish();
        }
    }

    /// Reads the histories of grants that have come.
    async fn look_up(&self) {
        let unread = std::mem::take(&mut self.book.lock().unread);
        for grant in unread {
            match self.log.history_head(grant).await {
                Ok(Some(head)) => {
                    let mut book = self.book.lock();
                    if let Some(cell) = book.cells.get(&grant) {
                        cell.raise(&head);
                        book.dirty.insert(grant);
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%grant, %error, "the history of a grant could not be looked up; trying again");
                    self.book.lock().unread.insert(grant);
                }
            }
        }
    }

    fn publish(&self) {
        let dirty: Vec<(GrantId, Arc<HistoryCell>)> = {
            let mut book = self.book.lock();
            let dirty = std::mem::take(&mut book.dirty);
            dirty
                .into_iter()
                .filter_map(|grant| Some((grant, Arc::clone(book.cells.get(&grant)?))))
                .collect()
        };
        for (grant, cell) in dirty {
            if cell.publish(self, grant) {
                self.book.lock().dirty.insert(grant);
            }
        }
    }

    /// Forgets grants without a connection.
    fn forget(&self) {
        let mut book = self.book.lock();
        let Book { cells, dirty, .. } = &mut *book;
        cells.retain(|_, cell| Arc::strong_count(cell) > 1);
        dirty.retain(|grant| cells.contains_key(grant));
    }
}
