//! What exchanges do with the journal: begin, show something, end.
//!
//! Invariant: a frame is written, numbered and accounted for under one lock, or not at all; whoever is told of success has it
//! in the kernel. Only bookkeeping and one `write` are under the lock.

use std::sync::atomic::Ordering;

use super::super::canonical;
use super::super::record::{AuditOutcome, AuditRecord};
use super::counted::Counted;
use super::frame::{self, FrameKind};
use super::segment::{self, Place, SegmentHead};
use super::{AuditUnavailable, EXCHANGE, Journal, MAX_FRAME, OnExhausted, Owed, State};

impl Journal {
    /// Sets space aside for one exchange. False: it may be answered, but is not recorded.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: the request must not be answered.
    pub(in super::super) fn admit(&self) -> Result<bool, AuditUnavailable> {
        let ours = self.reserved.fetch_add(EXCHANGE, Ordering::AcqRel);
        let reserved = ours.saturating_add(EXCHANGE);
        let room =
            self.used.load(Ordering::Relaxed).saturating_add(reserved) <= self.for_requests();
        let why = if !self.usable.load(Ordering::Relaxed) {
            self.why_unusable()
        } else if room {
            return Ok(true);
        } else {
            AuditUnavailable::Full
        };
        self.release();
        self.exhausted(why).map(|()| false)
    }

    /// Gives the space of an exchange back.
    pub(in super::super) fn release(&self) {
        self.reserved.fetch_sub(EXCHANGE, Ordering::AcqRel);
    }

    fn why_unusable(&self) -> AuditUnavailable {
        if self.state.lock().stopping {
            AuditUnavailable::Stopped
        } else {
            AuditUnavailable::Failing
        }
    }

    /// A request cannot be recorded: refused, or counted.
    fn exhausted(&self, why: AuditUnavailable) -> Result<(), AuditUnavailable> {
        if self.on_exhausted == OnExhausted::Drop && why != AuditUnavailable::Stopped {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.unreported.fetch_add(1, Ordering::Relaxed);
            self.work.notify_one();
            return Ok(());
        }
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        Err(why)
    }

    /// Writes what is known of an exchange, before anything of it is shown outside. `None`: it may be answered,
    /// but is not recorded.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: nothing may be shown.
    pub(in super::super) fn intend(
        &self,
        record: &AuditRecord,
    ) -> Result<Option<usize>, AuditUnavailable> {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        match self.append(&mut state, FrameKind::Intent, &payload) {
            Ok(place) => Ok(Some(state.open.add(place, payload))),
            Err(why) => {
                drop(state);
                self.exhausted(why).map(|()| None)
            }
        }
    }

    /// Writes how an exchange ended after something of it was shown. A record that cannot be written is kept
    /// and tried again; until it is written no further request is admitted.
    pub(in super::super) fn settle(&self, record: &AuditRecord, intent: Option<usize>) {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        if self
            .append(&mut state, FrameKind::Outcome, &payload)
            .is_ok()
        {
            if let Some(intent) = intent {
                state.open.close(intent);
            }
            return;
        }
        state.owed.push(Owed { payload, intent });
        self.usable.store(false, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Writes a refusal, before anything of it is shown. While the journal is filling it may only be counted.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: there is no record of it.
    pub(in super::super) fn refuse(&self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let countable = matches!(
            record.outcome,
            AuditOutcome::Denied | AuditOutcome::RateLimited
        );
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        let written = if countable && self.is_filling() {
            self.count(&mut state, record)
        } else {
            self.append(&mut state, FrameKind::Outcome, &payload)
                .map(drop)
        };
        drop(state);
        written.or_else(|why| self.exhausted(why))
    }

    /// Writes an act of the sidecar itself. Its space is kept free of requests.
    ///
    /// # Errors
    /// [`AuditUnavailable`].
    pub(in super::super) fn act(&self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let payload = canonical::to_bytes(record);
        let mut state = self.state.lock();
        self.append(&mut state, FrameKind::Outcome, &payload)
            .map(drop)
    }

    /// Counts a refusal into the record of one like it, or begins such a record.
    fn count(&self, state: &mut State, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        let key = Counted::key(record);
        let mut buffer = std::mem::take(&mut state.buffer);
        let rewritten = state.counted.find(&key, record.at).map(|entry| {
            entry.raise(&mut buffer);
            let written = self.file.write_all_at(&buffer, entry.place.offset);
            written.inspect_err(|_| entry.lower())
        });
        state.buffer = buffer;
        match rewritten {
            Some(Ok(())) => {
                self.touched(state);
                self.counts.coalesced.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Some(Err(error)) => return Err(self.failed(state, &error.to_string())),
            None => {}
        }
        let payload = Counted::payload(record);
        let number = state.next;
        let place = self.append(state, FrameKind::Outcome, &payload)?;
        state.counted.add(key, record, place, number);
        Ok(())
    }

    /// Writes the next frame.
    pub(super) fn append(
        &self,
        state: &mut State,
        kind: FrameKind,
        payload: &[u8],
    ) -> Result<Place, AuditUnavailable> {
        let size = u64::try_from(frame::size(payload.len())).unwrap_or(u64::MAX);
        if size > MAX_FRAME {
            return Err(AuditUnavailable::Full);
        }
        let place = match state.segments.place(size) {
            Some(place) => place,
            None => {
                self.open_segment(state)?;
                state.segments.place(size).ok_or(AuditUnavailable::Full)?
            }
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        frame::encode(kind, state.next, payload, &mut buffer);
        let written = self.file.write_all_at(&buffer, place.offset);
        state.buffer = buffer;
        if let Err(error) = written {
            return Err(self.failed(state, &error.to_string()));
        }
        state.segments.wrote(size);
        state.next = state.next.saturating_add(1);
        state.failure = None;
        self.used.store(state.segments.used(), Ordering::Relaxed);
        self.counts.appended.fetch_add(1, Ordering::Relaxed);
        self.touched(state);
        if state.drained {
            state.drained = false;
            self.filled.notify_one();
        }
        Ok(place)
    }

    fn open_segment(&self, state: &mut State) -> Result<(), AuditUnavailable> {
        let slot = state.segments.next_slot().ok_or(AuditUnavailable::Full)?;
        let head = SegmentHead {
            journal: self.id,
            store: self.store,
            first: state.next,
            size: self.capacity / segment::SEGMENTS,
        };
        let offset = state.segments.base(slot);
        if let Err(error) = self.file.write_all_at(&head.encode(), offset) {
            return Err(self.failed(state, &error.to_string()));
        }
        state.segments.open(state.next);
        Ok(())
    }

    /// Something was written: it is synced soon.
    fn touched(&self, state: &mut State) {
        if !state.dirty {
            state.dirty = true;
            self.work.notify_one();
        }
    }

    fn failed(&self, state: &mut State, why: &str) -> AuditUnavailable {
        if state.failure.is_none() {
            tracing::error!(error = why, path = %self.path.display(), "the audit journal cannot be written");
        }
        state.failure = Some(why.to_owned());
        self.usable.store(false, Ordering::Relaxed);
        self.counts.write_failures.fetch_add(1, Ordering::Relaxed);
        self.work.notify_one();
        AuditUnavailable::Failing
    }
}
