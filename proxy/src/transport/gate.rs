//! The gate every byte of an answer passes, and the register of the connections of each grant.
//!
//! Invariant: once [`GateRegistry::change`] has returned, the kernel accepts no byte of an answer
//! that was begun under another effective revision of that grant. A write holds the gate's lock
//! across the (non-blocking) system call, and a change takes the same lock, so a write is either
//! wholly before the change or refused. A write that is blocked on a full socket does not hold the
//! lock; its connection is cut, never waited for (specification, section 8).
//!
//! What a revision means and who changes it is elsewhere: see `policy::revision` and `directory`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use policy::id::GrantId;
use policy::revision::EffectiveRevision;
use tokio::sync::Notify;

/// An answer could not begin: its revision is no longer the grant's, or the connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The grant's effective revision moved since the request took its snapshot: plan again.
    RevisionMoved,
    /// The connection was cut by a change: nothing more can be said on it.
    Cut,
}

/// How a change ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// No answer was under way: the next request is told why, or the connection closes soon.
    Farewell,
    /// An answer was under way: no further byte, and a reset so that nothing queued follows.
    Cut,
}

#[derive(Debug, Default)]
struct GateState {
    ending: Option<Ending>,
    /// Answers that have sent their first byte and have not ended: (number, revision).
    open: Vec<(u64, EffectiveRevision)>,
    /// Revision of the newest answer begun on a multiplexed connection. HTTP/2 frames may still be
    /// queued below us after an answer ended, so such a connection counts as busy for good.
    lingering: Option<EffectiveRevision>,
    next: u64,
}

/// The gate of one connection. One connection carries one grant.
#[derive(Debug, Default)]
pub struct ConnectionGate {
    state: Mutex<GateState>,
    multiplexed: std::sync::atomic::AtomicBool,
    wake: Notify,
}

/// Proof that a write may reach the kernel; holding it keeps a change waiting, so it must only
/// span a non-blocking system call.
pub struct WritePass<'a>(MutexGuard<'a, GateState>);

impl WritePass<'_> {
    /// Whether the write may belong to an answer, and not to a refusal.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.0.is_answering()
    }
}

impl GateState {
    const fn is_answering(&self) -> bool {
        !self.open.is_empty() || self.lingering.is_some()
    }
}

impl ConnectionGate {
    /// A gate that lets writes pass until a change cuts it.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Says that this connection carries several answers at once (HTTP/2).
    pub fn mark_multiplexed(&self) {
        self.multiplexed
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Permission for one non-blocking write.
    ///
    /// # Errors
    /// `ConnectionReset` once the connection has been cut.
    pub fn pass(&self) -> io::Result<WritePass<'_>> {
        let state = self.state.lock();
        if state.ending == Some(Ending::Cut) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the grant of this connection changed",
            ));
        }
        Ok(WritePass(state))
    }

    /// Begins an answer made under `revision`; `live` reads the grant's effective revision now, and
    /// `book` books the lease that the answer carries.
    ///
    /// The comparison happens under the gate's lock, and so does the booking: a change that swaps
    /// the snapshot before it closes the gate is either seen here, or sees this answer as open and
    /// its lease as booked.
    ///
    /// # Errors
    /// [`Stale`] when the answer must not begin.
    pub fn begin(
        self: &Arc<Self>,
        revision: EffectiveRevision,
        live: impl FnOnce() -> Option<EffectiveRevision>,
        book: impl FnOnce(),
    ) -> Result<AnswerGuard, Stale> {
        let mut state = self.state.lock();
        if state.ending == Some(Ending::Cut) {
            return Err(Stale::Cut);
        }
        if live() != Some(revision) {
            return Err(Stale::RevisionMoved);
        }
        book();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.open.push((number, revision));
        if self.multiplexed.load(std::sync::atomic::Ordering::Relaxed) {
            state.lingering = Some(revision);
        }
        Ok(AnswerGuard {
            gate: Arc::clone(self),
            number,
        })
    }

    /// Waits until the connection is cut.
    pub async fn cut(&self) {
        self.ended(|ending| ending == Ending::Cut).await;
    }

    /// Waits until the connection is to end, at once or after a farewell.
    pub async fn ending(&self) {
        self.ended(|_| true).await;
    }

    async fn ended(&self, wanted: impl Fn(Ending) -> bool) {
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.state.lock().ending.is_some_and(&wanted) {
                return;
            }
            woken.await;
        }
    }

    /// Cuts this connection alone: something went wrong with a write of it.
    pub fn sever(&self) {
        self.state.lock().ending = Some(Ending::Cut);
        self.wake.notify_waiters();
    }

    /// Cuts it if an answer is under way.
    fn cut_answers(&self) -> bool {
        let is_answering = self.state.lock().is_answering();
        if is_answering {
            self.sever();
        }
        is_answering
    }

    /// True when the socket must be reset instead of closed.
    #[must_use]
    pub fn resets(&self) -> bool {
        self.state.lock().ending == Some(Ending::Cut)
    }

    /// Applies a change of the grant. `live` is its new effective revision, or `None` when nothing
    /// of it may be served any more.
    fn change(&self, live: Option<EffectiveRevision>) -> Option<Ending> {
        let mut state = self.state.lock();
        let is_old = |revision: &EffectiveRevision| live.as_ref() != Some(revision);
        let busy = state.open.iter().any(|(_, revision)| is_old(revision))
            || state.lingering.as_ref().is_some_and(is_old);
        let ending = match (state.ending, busy, live) {
            (Some(Ending::Cut), ..) | (Some(Ending::Farewell), false, _) => return None,
            (_, true, _) => Ending::Cut,
            (None, false, None) => Ending::Farewell,
            (None, false, Some(_)) => return None,
        };
        state.ending = Some(ending);
        drop(state);
        self.wake.notify_waiters();
        Some(ending)
    }
}

/// An answer that has begun; dropping it says that its last byte was flushed or that it is over.
#[derive(Debug)]
pub struct AnswerGuard {
    gate: Arc<ConnectionGate>,
    number: u64,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.open.retain(|(number, _)| *number != self.number);
    }
}

/// How many connections a change cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CutCount {
    /// Connections without an answer under way; their next request is told why.
    pub closed: u64,
    /// Connections with an answer of the old revision under way.
    pub reset: u64,
}

impl CutCount {
    /// The sum of two counts.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            closed: self.closed.saturating_add(other.closed),
            reset: self.reset.saturating_add(other.reset),
        }
    }
}

/// The open connections of each grant.
#[derive(Debug, Default)]
pub struct GateRegistry {
    by_grant: Mutex<HashMap<GrantId, Vec<Arc<ConnectionGate>>>>,
}

impl GateRegistry {
    /// An empty register.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Registers a connection under its grant until the returned value is dropped. Must happen
    /// before the connection's first request takes a snapshot.
    #[must_use]
    pub fn register(self: &Arc<Self>, grant: GrantId, gate: &Arc<ConnectionGate>) -> Registration {
        self.by_grant
            .lock()
            .entry(grant)
            .or_default()
            .push(Arc::clone(gate));
        Registration {
            registry: Arc::clone(self),
            grant,
            gate: Arc::clone(gate),
        }
    }

    /// Applies a change of `grant` to every connection of it; `live` as for the gates: the new
    /// effective revision, or `None` when the grant serves nothing any more.
    ///
    /// The caller has committed the change and swapped the snapshot before.
    pub fn change(&self, grant: GrantId, live: Option<EffectiveRevision>) -> CutCount {
        let gates = self.by_grant.lock().get(&grant).cloned();
        let mut count = CutCount::default();
        for gate in gates.iter().flatten() {
            match gate.change(live) {
                Some(Ending::Farewell) => count.closed = count.closed.saturating_add(1),
                Some(Ending::Cut) => count.reset = count.reset.saturating_add(1),
                None => {}
            }
        }
        count
    }

    /// Cuts every connection with an answer under way; how many.
    pub fn cut_answers(&self) -> u64 {
        let all: Vec<_> = self.by_grant.lock().values().flatten().cloned().collect();
        let cut = all.iter().filter(|gate| gate.cut_answers()).count();
        u64::try_from(cut).unwrap_or(u64::MAX)
    }

    /// Open connections of all grants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_grant.lock().values().map(Vec::len).sum()
    }

    /// True when no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_grant.lock().is_empty()
    }
}

/// Keeps a connection in the register of its grant.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<GateRegistry>,
    grant: GrantId,
    gate: Arc<ConnectionGate>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut by_grant = self.registry.by_grant.lock();
        if let Some(gates) = by_grant.get_mut(&self.grant) {
            gates.retain(|gate| !Arc::ptr_eq(gate, &self.gate));
            if gates.is_empty() {
                by_grant.remove(&self.grant);
            }
        }
    }
}
