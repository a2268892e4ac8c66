//! The right to write what a peer answered to a session: which answer it is, and whether its lease lasts.
//!
//! Invariant: whoever gets rows of a peer with a lease gets a ticket with them, and it is collected for the connection
//! that the rows will be written to, whatever door they go through and whatever they are merged with.
//!
//! Writing under tickets is in `passage.rs`, renewing the lease of one in `ask.rs`.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::revision::EffectiveRevision;

use super::lease::ServeRight;
use super::route::PeerRoute;
use super::session::Session;

/// The right to write one answer.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    /// Who asked.
    pub(super) session: Arc<Session>,
    /// Whose rows they are.
    pub(super) peer: Arc<PeerRoute>,
    /// The effective revision they were answered under.
    pub(super) revision: EffectiveRevision,
    /// What came with the answer itself; `None` for one from memory.
    pub(super) own: Option<ServeRight>,
}

impl Ticket {
    /// The right that lasts longer: the answer's own, or that of the newest lease of its revision.
    pub(super) fn right(&self) -> Option<ServeRight> {
        let newest = self.peer.lease.right(self.revision);
        match (self.own, newest) {
            (Some(own), Some(newest)) if own.until > newest.until => Some(own),
            (own, newest) => newest.or(own),
        }
    }

    /// The right, if it holds at `now`.
    pub(super) fn holds(&self, now: u64) -> Option<ServeRight> {
        self.right().filter(|right| right.holds(now))
    }
}

tokio::task_local! {
    static COLLECTED: Mutex<Vec<Ticket>>;
}

/// Runs `answer`, and collects the tickets of all that went into it.
pub(super) async fn collecting<T>(answer: impl Future<Output = T>) -> (T, Vec<Ticket>) {
    COLLECTED
        .scope(Mutex::default(), async {
            let answered = answer.await;
            let tickets = COLLECTED.with(|collected| std::mem::take(&mut *collected.lock()));
            (answered, tickets)
        })
        .await
}

/// Collects a ticket for the answer that is being made.
pub(super) fn collect(ticket: Ticket) {
    // Without anybody who collects there is no connection to write to.
    let _ = COLLECTED.try_with(|collected| collected.lock().push(ticket));
}
