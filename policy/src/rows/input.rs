//! The bytes of a body that are at hand.
//!
//! Invariant: bytes done with are dropped at the next chunk and not before, so that what was read last can still be
//! looked at. Elsewhere on purpose: what the bytes mean (`envelope.rs`, `reader.rs`).

/// A window on the body.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    // Bytes of the buffer that are done with.
    at: usize,
    // Bytes of the body before the buffer.
    before: u64,
}

impl Input {
    /// Everything at hand, bytes done with included; positions in it hold until [`Self::push`].
    #[inline]
    pub(super) fn all(&self) -> &[u8] {
        &self.buffer
    }

    /// The position in [`Self::all`] of the first byte not done with.
    #[inline]
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Everything not done with.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// The position in the body of a byte `further` on.
    pub(super) fn offset(&self, further: usize) -> u64 {
        self.before
            .saturating_add(u64::try_from(self.at + further).unwrap_or(u64::MAX))
    }

    /// Adds a chunk and drops what is done with.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.before = self.offset(0);
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// `length` more bytes are done with.
    #[inline]
    pub(super) fn take(&mut self, length: usize) {
        self.at = self.buffer.len().min(self.at + length);
    }

    /// All bytes are done with.
    pub(super) fn take_all(&mut self) {
        self.at = self.buffer.len();
    }

    /// The next byte that is not space; the space before it is done with.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.buffer.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }
}
