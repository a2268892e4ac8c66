//! One connection to the gateway while one question is on it: bytes in and out, each wait with its limit.
//!
//! Elsewhere on purpose: what the bytes mean (`http1.rs`), which connection is used again (`client.rs`).

use std::time::Duration;

use pingora_core::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transport::wait::within;

use super::error::GatewayError;
use super::http1::{ResponseHead, Unreadable};

/// Bytes of one read buffer: what a busy socket has at once.
pub(super) const BUFFER: usize = 64 * 1024;

/// A connection to the gateway while a question is on it.
pub(super) struct Wire {
    stream: Stream,
    /// `buffer[start..end]` was read and is not used yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: Duration,
}

impl Wire {
    /// Puts a question on `stream`; each wait for it has `limit`.
    pub(super) const fn new(stream: Stream, buffer: Vec<u8>, limit: Duration) -> Self {
        Self {
            stream,
            buffer,
            start: 0,
            end: 0,
            limit,
        }
    }

    /// The connection and the buffer, for the next question.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// What was read and is not used yet.
    pub(super) fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The first so many unread bytes are done with.
    pub(super) fn used(&mut self, bytes: usize) {
        self.start = self.start.saturating_add(bytes).min(self.end);
    }

    /// The unread bytes between two positions; all before the second are done with.
    pub(super) fn take(&mut self, from: usize, to: usize) -> &[u8] {
        let begin = self.start;
        self.used(to);
        let data = begin.saturating_add(from)..self.start;
        self.buffer.get(data).unwrap_or_default()
    }

    /// Writes the head of a question and reads the head of its answer.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub(super) async fn exchange_heads(
        &mut self,
        request: &[u8],
    ) -> Result<ResponseHead, GatewayError> {
        const ASKING: &str = "writing the question";
        const WAITING: &str = "waiting for the answer";
        let write = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        within(self.limit, write)
            .await
            .map_err(|_| GatewayError::Timeout(ASKING))?
            .map_err(|error| GatewayError::broken(&error, ASKING))?;
        loop {
            while let Some(head) = ResponseHead::parse(self.unread())? {
                self.used(head.length);
                if !head.is_interim() {
                    return Ok(head);
                }
            }
            if self.fill(WAITING).await? == 0 {
                return Err(GatewayError::Unreachable(format!("{WAITING}: it hung up")));
            }
        }
    }

    /// Reads what there is behind what is unread; 0 at the end of the connection.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub(super) async fn fill(&mut self, doing: &'static str) -> Result<usize, GatewayError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(Unreadable("its head is too long").into());
        }
        let read = within(self.limit, self.stream.read(room))
            .await
            .map_err(|_| GatewayError::Timeout(doing))?
            .map_err(|error| GatewayError::broken(&error, doing))?;
        self.end = self.end.saturating_add(read);
        Ok(read)
    }
}
