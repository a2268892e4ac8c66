//! One connection to the gateway while one question is on it: bytes in and out, each wait with its limit.
//!
//! Elsewhere on purpose: what the bytes mean (`http1.rs`), which connection is used again (`client.rs`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use crate::transport::wait::within;

use super::error::GatewayError;
use super::http1::{ResponseHead, Unreadable};

/// Bytes of one read buffer: what a busy socket has at once.
const BUFFER: usize = 64 * 1024;
/// Buffers kept at most.
const MAX_BUFFERS: usize = 16;

/// Read buffers, used again. A question takes one when bytes have come for it and not before, so that those that
/// wait hold none, and one that the processor knows is enough for many.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().pop();
        kept.unwrap_or_else(|| vec![0; BUFFER])
    }

    fn keep(&self, buffer: Vec<u8>) {
        let mut kept = self.0.lock();
        if buffer.len() == BUFFER && kept.len() < MAX_BUFFERS {
            kept.push(buffer);
        }
    }
}

/// A connection to the gateway while a question is on it.
pub(super) struct Wire<'c> {
    stream: Stream,
    buffers: &'c Buffers,
    /// `buffer[start..end]` was read and is not used yet. Empty while there is nothing to read.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    limit: Duration,
}

impl<'c> Wire<'c> {
    /// Puts a question on `stream`; each wait for it has `limit`.
    pub(super) const fn new(stream: Stream, buffers: &'c Buffers, limit: Duration) -> Self {
        Self {
            stream,
            buffers,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            limit,
        }
    }

    /// The connection, for the next question. The buffer is for any.
    pub(super) fn into_stream(self) -> Stream {
        self.buffers.keep(self.buffer);
        self.stream
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
        if self.end >= BUFFER {
            return Err(Unreadable("its head is too long").into());
        }
        let limit = self.limit;
        let read = within(
            limit,
            std::future::poll_fn(|context| self.poll_read(context)),
        )
        .await
        .map_err(|_| GatewayError::Timeout(doing))?
        .map_err(|error| GatewayError::broken(&error, doing))?;
        self.end = self.end.saturating_add(read);
        Ok(read)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            self.buffer = self.buffers.take();
        }
        let mut room = ReadBuf::new(self.buffer.get_mut(self.end..).unwrap_or_default());
        let read = Pin::new(&mut self.stream).poll_read(context, &mut room);
        let length = room.filled().len();
        if read.is_pending() && self.end == 0 {
            self.buffers.keep(std::mem::take(&mut self.buffer));
        }
        read.map_ok(|()| length)
    }
}
