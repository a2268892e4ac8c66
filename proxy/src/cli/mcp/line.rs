//! Standard input with a bound on the length of a line: a message of the protocol is a line.
//!
//! Invariant: no line is read further than the bound. A longer one is an error of the reader, so that the client sees the
//! server end instead of waiting for the answer to a message that was thrown away; the error stays to be told.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Longest line, bytes: a question of the door is at most 64 KiB.
pub(super) const MAX_LINE: usize = 1024 * 1024;

/// Whether the bound was passed.
#[derive(Debug, Clone, Default)]
pub(super) struct Passed(Arc<AtomicBool>);

impl Passed {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Reads what `input` gives until a line is longer than [`MAX_LINE`].
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    /// Bytes since the last end of a line.
    length: usize,
    passed: Passed,
}

impl<R> Lines<R> {
    pub(super) fn new(input: R, passed: Passed) -> Self {
        Self {
            input,
            length: 0,
            passed,
        }
    }

    /// Takes note of bytes that were read.
    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.length = self.length.saturating_add(piece.len());
            if self.length > MAX_LINE {
                self.passed.0.store(true, Ordering::Release);
                return Err(io::Error::other("a line is too long"));
            }
            if piece.ends_with(b"\n") {
                self.length = 0;
            }
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.input).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        let counted = self.count(read);
        if counted.is_err() {
            buffer.set_filled(before);
        }
        Poll::Ready(counted)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read(input: &[u8]) -> (bool, bool) {
        let passed = Passed::default();
        let mut whole = Vec::new();
        let mut lines = Lines::new(input, passed.clone());
        let read = lines.read_to_end(&mut whole).await;
        (read.is_ok(), passed.is_set())
    }

    #[tokio::test]
    async fn only_the_length_of_a_line_counts() {
        let full = format!("{}\n", "x".repeat(MAX_LINE - 1));
        assert_eq!(read(full.repeat(3).as_bytes()).await, (true, false));
        let long = format!("{full}{}", "x".repeat(MAX_LINE + 1));
        assert_eq!(read(long.as_bytes()).await, (false, true));
        let long = format!("x{full}");
        assert_eq!(read(long.as_bytes()).await, (false, true));
    }
}
