//! The two stream types of a federation connection: the gated socket under TLS, and the TLS stream
//! that Pingora's HTTP server drives.
//!
//! Invariant: every byte that leaves does so through [`GatedStream::poll_write`], which asks the
//! gate first. [`MtlsStream`] collects small writes so that a short answer is one TLS record and
//! one system call; it holds no memory while the connection is idle.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use super::gate::ConnectionGate;
use super::pause::{PauseWatch, SERVING_PAUSE};

/// Largest plaintext of one TLS record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// What a short answer takes, head and body.
const USUAL: usize = 8 * 1024;

/// A TCP socket whose writes pass the connection's gate.
pub struct GatedStream {
    socket: TcpStream,
    gate: Arc<ConnectionGate>,
    pauses: Arc<PauseWatch>,
}

impl GatedStream {
    /// Puts `socket` behind `gate`; late writes are counted in `pauses`.
    #[must_use]
    pub fn new(socket: TcpStream, gate: Arc<ConnectionGate>, pauses: Arc<PauseWatch>) -> Self {
        Self {
            socket,
            gate,
            pauses,
        }
    }

    /// One write to the kernel behind the gate. One that was late cuts the connection.
    fn pass(
        &mut self,
        write: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let checked = self.pauses.now();
        let pass = self.gate.pass()?;
        if !self.pauses.may_answer(checked) && pass.is_answering() {
            drop(pass);
            self.gate.sever();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "this replica has not heard of the store for too long",
            )));
        }
        let written = write(Pin::new(&mut self.socket));
        drop(pass);
        if written.is_ready() && self.pauses.is_exceeded(checked, SERVING_PAUSE) {
            self.gate.sever();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "a write was late after its check",
            )));
        }
        written
    }
}

impl Drop for GatedStream {
    fn drop(&mut self) {
        if self.gate.resets() {
            // Linger 0 makes the close a reset: what is still queued in the kernel is discarded.
            let _ =
                socket2::SockRef::from(&self.socket).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

impl AsyncRead for GatedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().pass(|socket| socket.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .pass(|socket| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// What is heard on a connection, as it arrives.
#[derive(Debug, Default)]
pub struct Heard {
    reads: AtomicU64,
    bytes: AtomicU64,
    told: Notify,
}

impl Heard {
    /// How many reads there have been.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    /// Waits for a read after the first `before`.
    pub async fn since(&self, before: u64) {
        loop {
            let told = self.told.notified();
            if self.reads() > before {
                return;
            }
            told.await;
        }
    }

    /// Waits until so many bytes have been read in all.
    pub async fn bytes(&self, enough: u64) {
        loop {
            let told = self.told.notified();
            if self.bytes.load(Ordering::Acquire) >= enough {
                return;
            }
            told.await;
        }
    }

    fn note(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.reads.fetch_add(1, Ordering::AcqRel);
        self.told.notify_waiters();
    }
}

/// A handshaken federation connection as Pingora's HTTP server sees it.
pub struct MtlsStream {
    tls: TlsStream<GatedStream>,
    /// Plaintext not yet given to TLS: `pending[sent..]`.
    pending: Vec<u8>,
    sent: usize,
    fd: UniqueIDType,
    digest: Option<Arc<SocketDigest>>,
    heard: Arc<Heard>,
}

impl MtlsStream {
    /// Wraps a finished handshake.
    #[must_use]
    pub fn new(tls: TlsStream<GatedStream>) -> Self {
        let fd = tls.get_ref().0.socket.as_raw_fd();
        Self {
            tls,
            pending: Vec::new(),
            sent: 0,
            fd,
            digest: None,
            heard: Arc::default(),
        }
    }

    /// True when the handshake settled on HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.tls.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// What is heard on it.
    #[must_use]
    pub fn heard(&self) -> Arc<Heard> {
        Arc::clone(&self.heard)
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .pending
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            let written = ready!(Pin::new(&mut self.tls).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(written);
        }
        self.pending = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for MtlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtlsStream").field("fd", &self.fd).finish()
    }
}

impl AsyncRead for MtlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.note(buf.filled().len().saturating_sub(before));
        }
        read
    }
}

impl AsyncWrite for MtlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = RECORD.saturating_sub(this.pending.len());
        if room == 0 || this.sent > 0 {
            ready!(this.poll_pending(cx))?;
        }
        if this.pending.is_empty() && buf.len() >= RECORD {
            return Pin::new(&mut this.tls).poll_write(cx, buf);
        }
        // Top the record up, so that a few bytes before a large part do not become a record of
        // their own.
        let room = RECORD.saturating_sub(this.pending.len());
        let part = buf.get(..room.min(buf.len())).unwrap_or(buf);
        if this.pending.capacity() == 0 {
            // A head comes first and its body next: room for both, so that neither is moved.
            this.pending
                .reserve_exact(part.len().saturating_mul(2).max(USUAL));
        }
        this.pending.extend_from_slice(part);
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pending(cx))?;
        Pin::new(&mut this.tls).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for MtlsStream {
    async fn shutdown(&mut self) {
        // The peer may be gone already: a close_notify that cannot be sent is no news.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for MtlsStream {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for MtlsStream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_http2() { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for MtlsStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for MtlsStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for MtlsStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digest.clone()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Some(Arc::new(digest));
    }
}

impl Peek for MtlsStream {}
