//! Refusals that are counted into one record while the journal is filling.
//!
//! Invariant: a record is only counted into while the writer has not taken it, so a count is never lost; only refusals that
//! are equal in everything but time, ids and the question's hash share one. The number of such records and
//! the time each covers are bounded. A count always takes the same space, so the frame is rewritten in place.

use std::collections::HashMap;

use policy::time::UnixMillis;
use uuid::Uuid;

use super::super::canonical;
use super::super::record::AuditRecord;
use super::super::text::AuditText;
use super::frame::{self, FrameKind};
use super::segment::Place;

/// Records that are counted into at one time.
const MOST: usize = 1024;
/// The time one such record covers, milliseconds.
const SPAN: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    number: u64,
    record: AuditRecord,
}

impl Entry {
    /// Counts one more; `buffer` becomes the frame to write in the place of the old one.
    pub(super) fn raise(&mut self, buffer: &mut Vec<u8>) {
        self.record.count = self.record.count.saturating_add(1);
        let payload = canonical::counted_bytes(&self.record);
        frame::encode(FrameKind::Outcome, self.number, &payload, buffer);
    }

    /// The count could not be written.
    pub(super) fn lower(&mut self) {
        self.record.count = self.record.count.saturating_sub(1).max(1);
    }
}

#[derive(Debug, Default)]
pub(super) struct Counted(HashMap<Vec<u8>, Entry>);

impl Counted {
    /// What refusals that are counted together have in common.
    pub(super) fn key(record: &AuditRecord) -> Vec<u8> {
        let common = AuditRecord {
            id: Uuid::nil(),
            at: UnixMillis(0),
            request_id: AuditText::fixed(""),
            peer_request_id: None,
            attempt: 1,
            trace_id: None,
            query_hash: None,
            bytes_out: 0,
            latency_us: 0,
            ..record.clone()
        };
        canonical::to_bytes(&common)
    }

    /// The bytes of a record that others are going to be counted into.
    pub(super) fn payload(record: &AuditRecord) -> Vec<u8> {
        canonical::counted_bytes(record)
    }

    /// The record to count into, unless it is too old.
    pub(super) fn find(&mut self, key: &[u8], at: UnixMillis) -> Option<&mut Entry> {
        self.0
            .get_mut(key)
            .filter(|entry| entry.record.at.0.abs_diff(at.0) < SPAN)
    }

    /// From now on refusals like this one are counted into this record, if there is room for one more such.
    pub(super) fn add(&mut self, key: Vec<u8>, record: &AuditRecord, place: Place, number: u64) {
        if self.0.len() < MOST || self.0.contains_key(&key) {
            let entry = Entry {
                place,
                number,
                record: record.clone(),
            };
            self.0.insert(key, entry);
        }
    }

    /// The writer takes records: none of them is counted into any more.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }
}
