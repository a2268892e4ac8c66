//! The thread of the journal: syncing, and trying again what failed.
//!
//! Invariant: what is written is synced within [`SYNC_EVERY`](super::SYNC_EVERY) ; after a failed sync nothing is taken for
//! synced until the database has it (the kernel forgets pages whose writing failed). No request waits for this thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use policy::time::UnixMillis;

use super::super::record::{AuditOutcome, AuditRecord, Direction};
use super::super::text::AuditText;
use super::super::{AuditDetail, canonical, record_id};
use super::frame::FrameKind;
use super::{Journal, State};

/// How long the first write waits for company; the rest of [`SYNC_EVERY`](super::SYNC_EVERY) is for the sync itself.
const GATHER: Duration = Duration::from_millis(40);

/// The action of the record that says how many requests were answered without one.
pub const DROPPED_ACTION: &str = "audit.dropped";

impl Journal {
    /// Starts the thread. It ends after [`stop`](Self::stop).
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(in super::super) fn start_syncing(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let journal = Arc::clone(self);
        std::thread::Builder::new()
            .name("audit-journal".to_owned())
            .spawn(move || journal.keep_syncing())
    }

    /// No further record is taken; what was written is synced once more, then the thread ends.
    pub(in super::super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.usable.store(false, Ordering::Relaxed);
        self.work.notify_all();
        self.filled.notify_one();
    }

    fn keep_syncing(&self) {
        let mut state = self.state.lock();
        loop {
            let ailing = state.failure.is_some()
                || state.suspect.is_some()
                || !state.owed.is_empty()
                || self.unreported.load(Ordering::Relaxed) > 0;
            if !state.dirty && !ailing {
                if state.stopping {
                    return;
                }
                self.work.wait(&mut state);
                continue;
            }
            if !state.stopping {
                // Company for the first write; a failure is looked at again no sooner.
                let _ = self.work.wait_for(&mut state, GATHER);
            }
            if ailing {
                self.recover(&mut state);
            }
            let dirty = std::mem::take(&mut state.dirty);
            let upto = state.next.saturating_sub(1);
            if dirty {
                let synced = parking_lot::MutexGuard::unlocked(&mut state, || self.file.sync());
                self.note_sync(&mut state, synced, upto);
            }
            self.judge(&mut state);
            if state.stopping {
                return;
            }
        }
    }

    fn note_sync(&self, state: &mut State, synced: std::io::Result<()>, upto: u64) {
        match synced {
            // What a failed sync may have lost is safe once the database has it.
            Ok(()) => state.suspect = state.suspect.filter(|suspect| *suspect > state.applied),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the audit journal cannot be synced");
                self.counts.sync_failures.fetch_add(1, Ordering::Relaxed);
                state.suspect = Some(upto);
                state.dirty = true;
            }
        }
    }

    /// Tries again what could not be written.
    fn recover(&self, state: &mut State) {
        while let Some(owed) = state.owed.pop() {
            if self
                .append(state, FrameKind::Outcome, &owed.payload)
                .is_err()
            {
                state.owed.push(owed);
                return;
            }
            if let Some(intent) = owed.intent {
                state.open.close(intent);
            }
        }
        let silent = state.failure.is_some();
        if silent && self.append(state, FrameKind::Probe, &[]).is_err() {
            return;
        }
        if state.suspect.is_some() {
            // Another sync shows whether the disk takes writes again.
            state.dirty = true;
        }
        self.report_dropped(state);
    }

    /// Says in the log how many requests it does not have.
    fn report_dropped(&self, state: &mut State) {
        // While requests are still dropped, the number is not final.
        if self.occupied() > self.for_requests() {
            return;
        }
        let dropped = self.unreported.swap(0, Ordering::Relaxed);
        if dropped == 0 {
            return;
        }
        let record = dropped_record(UnixMillis(self.clock.unix_millis()), dropped);
        let payload = canonical::to_bytes(&record);
        let written = self.append(state, FrameKind::Outcome, &payload);
        if written.is_err() {
            self.unreported.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Whether requests are admitted from now on.
    fn judge(&self, state: &mut State) {
        let well = state.failure.is_none() && state.suspect.is_none() && state.owed.is_empty();
        self.usable
            .store(well && !state.stopping, Ordering::Relaxed);
    }
}

fn dropped_record(at: UnixMillis, dropped: u64) -> AuditRecord {
    let id = record_id(at);
    let request = AuditText::short(&id.to_string());
    let mut record = AuditRecord::new(id, at, Direction::Admin, AuditOutcome::Allowed, request);
    record.action = Some(AuditText::fixed(DROPPED_ACTION));
    record.actor = Some(AuditText::fixed("sidecar:audit"));
    record.detail = Some(AuditDetail::new().count("requests", dropped));
    record
}
