//! The write gate of one connection of the session door: rows of a peer reach the socket only under a lease.
//!
//! Invariant: while an answer made of a peer's rows is being written, no byte of the connection is given to the kernel
//! unless every lease in it lasts at that moment. Where one has run out, the write waits until it is renewed, or the
//! connection is cut. A write that came too long after its check cuts the connection too, and is counted.
//! An answer counts as being written until its body has ended and all of it is with the kernel.
//!
//! Leases are in `lease.rs`, what came of which peer in `ticket.rs`. Answers without rows of a peer pass unasked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::Outbound;
use super::ask::renew;
use super::ticket::Ticket;

/// An answer that is being written.
#[derive(Debug)]
struct Hold {
    tickets: Vec<Ticket>,
    /// Set once its body has ended.
    ended: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    holds: Vec<Hold>,
    cut: bool,
    renewing: bool,
    writer: Option<Waker>,
}

/// The gate of one connection.
pub(super) struct Passage {
    outbound: Arc<Outbound>,
    state: Mutex<State>,
}

/// What a write may do.
enum Leave {
    /// Begin within so many nanoseconds; `None` where nothing is at stake.
    Write(Option<u64>),
    /// Wait for a renewal.
    Wait,
    /// Nothing any more.
    Cut,
}

impl Passage {
    /// An open one.
    pub(super) fn new(outbound: Arc<Outbound>) -> Arc<Self> {
        Arc::new(Self {
            outbound,
            state: Mutex::default(),
        })
    }

    /// Lets a response in: its body is written only while its tickets hold.
    pub(super) fn enter(&self, response: Response, tickets: Vec<Ticket>) -> Response {
        if tickets.is_empty() {
            return response;
        }
        let ended = Arc::new(AtomicBool::new(false));
        let hold = Hold {
            tickets,
            ended: Arc::clone(&ended),
        };
        self.state.lock().holds.push(hold);
        response.map(|body| Body::new(Ending { body, ended }))
    }

    fn check(self: &Arc<Self>, now: u64, waker: &Waker) -> Leave {
        let mut state = self.state.lock();
        if state.cut {
            return Leave::Cut;
        }
        let mut pause = None;
        let mut run_out = None;
        for ticket in state.holds.iter().flat_map(|hold| &hold.tickets) {
            match ticket.holds(now) {
                Some(right) => {
                    pause = Some(pause.map_or(right.pause, |least: u64| least.min(right.pause)));
                }
                None => run_out = Some(ticket.clone()),
            }
        }
        let Some(ticket) = run_out else {
            return Leave::Write(pause);
        };
        state.writer = Some(waker.clone());
        if !state.renewing {
            state.renewing = true;
            let passage = Arc::clone(self);
            tokio::spawn(async move {
                let lasts = renew(&passage.outbound, &ticket).await;
                passage.renewed(lasts);
            });
        }
        Leave::Wait
    }

    fn renewed(&self, lasts: bool) {
        let mut state = self.state.lock();
        state.renewing = false;
        state.cut |= !lasts;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Everything that was written is with the kernel.
    fn flushed(&self) {
        let mut state = self.state.lock();
        state
            .holds
            .retain(|hold| !hold.ended.load(Ordering::Acquire));
    }

    fn cut(&self) {
        self.state.lock().cut = true;
    }

    fn is_cut(&self) -> bool {
        self.state.lock().cut
    }
}

/// A body that says when it has ended, or was dropped.
struct Ending {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// A socket of the door.
pub(super) trait DoorSocket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes the close a reset, so that what is still queued is discarded.
    fn reset_on_close(&self);
}

impl DoorSocket for TcpStream {
    fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl DoorSocket for UnixStream {
    // What a unix socket has accepted is with the other process already.
    fn reset_on_close(&self) {}
}

/// A socket behind its passage.
pub(super) struct PassageStream<S: DoorSocket> {
    socket: S,
    passage: Arc<Passage>,
}

impl<S: DoorSocket> PassageStream<S> {
    /// Puts `socket` behind `passage`.
    pub(super) const fn new(socket: S, passage: Arc<Passage>) -> Self {
        Self { socket, passage }
    }

    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let pauses = Arc::clone(&self.passage.outbound.pauses);
        let checked = pauses.now();
        match self.passage.check(checked, cx.waker()) {
            Leave::Cut => Poll::Ready(Err(reset("the lease of the answer was lost"))),
            Leave::Wait => Poll::Pending,
            Leave::Write(None) => write(Pin::new(&mut self.socket), cx),
            Leave::Write(Some(pause)) => {
                let written = write(Pin::new(&mut self.socket), cx);
                if written.is_ready() && pauses.is_exceeded(checked, pause) {
                    self.passage.cut();
                    return Poll::Ready(Err(reset("a write was late after its check")));
                }
                written
            }
        }
    }
}

fn reset(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, why)
}

impl<S: DoorSocket> Drop for PassageStream<S> {
    fn drop(&mut self) {
        if self.passage.is_cut() {
            self.socket.reset_on_close();
        }
    }
}

impl<S: DoorSocket> AsyncRead for PassageStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: DoorSocket> AsyncWrite for PassageStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .pass(cx, |socket, cx| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .pass(cx, |socket, cx| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.passage.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
