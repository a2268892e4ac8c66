//! Exchanges that showed something outside and have not ended.
//!
//! Invariant: an exchange is in here from its intent to its outcome, with the place of its newest intent, so that the
//! segment of that intent is not used again before.

use super::segment::Place;

#[derive(Debug)]
struct OpenIntent {
    segment: u64,
    payload: Vec<u8>,
}

/// The open exchanges, by a number that is used again.
#[derive(Debug, Default)]
pub(super) struct OpenIntents {
    entries: Vec<Option<OpenIntent>>,
    free: Vec<usize>,
}

impl OpenIntents {
    pub(super) fn add(&mut self, place: Place, payload: Vec<u8>) -> usize {
        let entry = Some(OpenIntent {
            segment: place.segment,
            payload,
        });
        while let Some(index) = self.free.pop() {
            if let Some(free) = self.entries.get_mut(index) {
                *free = entry;
                return index;
            }
        }
        self.entries.push(entry);
        self.entries.len().saturating_sub(1)
    }

    pub(super) fn close(&mut self, index: usize) {
        if self.entries.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }

    /// Those whose intent is in the segment that begins with frame `segment`.
    pub(super) fn in_segment(&self, segment: u64) -> Vec<usize> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.segment == segment))
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn payload(&self, index: usize) -> Option<Vec<u8>> {
        let entry = self.entries.get(index)?.as_ref()?;
        Some(entry.payload.clone())
    }

    /// The intent was written again, at a later place.
    pub(super) fn moved(&mut self, index: usize, place: Place) {
        if let Some(Some(entry)) = self.entries.get_mut(index) {
            entry.segment = place.segment;
        }
    }
}
