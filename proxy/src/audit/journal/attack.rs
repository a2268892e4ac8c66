//! The parser of frames, for the fuzz target and its corpus: no part of what the product offers.
//!
//! Invariant: it is the parser that a restart uses, as it is; nothing here is called by the product.

use super::frame::{self, FrameKind, Step};

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it begins.
    pub at: usize,
    /// Its number.
    pub number: u64,
    /// Whether it is an outcome, and its payload; `None` for a damaged frame.
    pub frame: Option<(bool, Vec<u8>)>,
    /// Bytes to the next one.
    pub size: usize,
}

/// Reads the contents of a segment as a restart does, frame `first` first.
#[must_use]
pub fn read(bytes: &[u8], first: u64) -> Vec<Found> {
    let (mut found, mut at) = (Vec::new(), 0_usize);
    for number in first..=u64::MAX {
        let rest = bytes.get(at..).unwrap_or_default();
        let (frame, size) = match frame::read(rest, number) {
            Step::Frame {
                kind,
                payload,
                size,
            } => (Some((kind == FrameKind::Outcome, payload.to_vec())), size),
            Step::Damaged { size } => (None, size),
            Step::End => break,
        };
        found.push(Found {
            at,
            number,
            frame,
            size,
        });
        at = at.saturating_add(size);
    }
    found
}

/// The bytes of a frame with an outcome.
#[must_use]
pub fn outcome(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(FrameKind::Outcome, number, payload, &mut bytes);
    bytes
}
