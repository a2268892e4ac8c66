//! Where exchanges leave their records.
//!
//! Invariant: an exchange holds an [`AuditSlot`] from its beginning to its end, and with it the space for its record; so it is
//! refused when it begins or not at all. Nothing here waits for the database or the disk.

use std::sync::Arc;

use super::journal::{AuditUnavailable, Journal};
use super::record::AuditRecord;

/// The way into the journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuditSink {
    journal: Arc<Journal>,
}

impl AuditSink {
    /// The way into this journal.
    #[must_use]
    pub const fn new(journal: Arc<Journal>) -> Self {
        Self { journal }
    }

    /// Sets the space for one exchange aside before it is worked on. Does not wait.
    ///
    /// # Errors
    /// [`AuditUnavailable`], counted as a refusal: the request must not be answered.
    pub fn reserve(&self) -> Result<AuditSlot, AuditUnavailable> {
        let admitted = self.journal.admit()?;
        Ok(AuditSlot {
            journal: Arc::clone(&self.journal),
            place: if admitted {
                Place::Reserved
            } else {
                Place::Unrecorded
            },
        })
    }

    /// Records an act of the sidecar itself, for which space is kept free of requests.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: it is not recorded.
    pub fn record_act(&self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        self.journal.act(record)
    }

    /// The journal, for its figures.
    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Space is set aside, nothing is written.
    Reserved,
    /// The intent is written.
    Intended(usize),
    /// `on_exhausted = "drop"`: counted as not recorded.
    Unrecorded,
    /// The record is written.
    Ended,
}

/// The space for the record of one exchange. Dropped unused, it is given back.
#[derive(Debug)]
#[must_use = "a slot that is dropped records nothing"]
pub struct AuditSlot {
    journal: Arc<Journal>,
    place: Place,
}

impl AuditSlot {
    /// Writes what is known of the exchange, before anything of it is shown outside: when this process ends before the exchange does,
    /// the next one records it as aborted. A second call does nothing.
    ///
    /// # Errors
    /// [`AuditUnavailable`]: nothing may be shown.
    pub fn intend(&mut self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        if self.place != Place::Reserved {
            return Ok(());
        }
        self.place = match self.journal.intend(record)? {
            Some(intent) => Place::Intended(intent),
            None => {
                self.journal.release();
                Place::Unrecorded
            }
        };
        Ok(())
    }

    /// Writes how the exchange ended. Cannot be refused.
    pub fn settle(mut self, record: &AuditRecord) {
        let intent = match self.place {
            Place::Reserved => None,
            Place::Intended(intent) => Some(intent),
            Place::Unrecorded | Place::Ended => return,
        };
        self.journal.settle(record, intent);
        self.end();
    }

    /// Writes a refusal, before anything of it is shown outside. While the journal is filling it may be counted
    /// together with others like it. After an intent this is the same as [`settle`](Self::settle).
    ///
    /// # Errors
    /// [`AuditUnavailable`]: it is not recorded.
    pub fn refuse(mut self, record: &AuditRecord) -> Result<(), AuditUnavailable> {
        match self.place {
            Place::Reserved => {
                let written = self.journal.refuse(record);
                self.end();
                written
            }
            Place::Intended(_) => {
                self.settle(record);
                Ok(())
            }
            Place::Unrecorded | Place::Ended => Ok(()),
        }
    }

    fn end(&mut self) {
        self.place = Place::Ended;
        self.journal.release();
    }
}

impl Drop for AuditSlot {
    fn drop(&mut self) {
        // An intent that is never settled stays open: the next start records it as aborted.
        if matches!(self.place, Place::Reserved | Place::Intended(_)) {
            self.journal.release();
        }
    }
}
