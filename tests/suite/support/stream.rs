//! A federation client that sees what really arrives: every byte is counted below TLS, and the end
//! of a body is either well-formed or not.
//!
//! Invariant: nothing here retries, buffers ahead or repairs. HTTP/1.1 is taken apart by hand, since
//! how a body ends is what is being tested.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use tests::Wire;
use tests::grants::BASE;

/// How a connection is made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub wire: Wire,
    /// Size of the kernel's receive buffer, where it matters.
    pub receive_buffer: Option<u32>,
    /// HTTP/2 flow-control window, bytes.
    pub window: u32,
}

impl Shape {
    pub const fn of(wire: Wire) -> Self {
        Self {
            wire,
            receive_buffer: None,
            window: 1 << 20,
        }
    }
}

/// A socket that counts what was read from the kernel.
struct Counted {
    socket: TcpStream,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.read
            .fetch_add(u64::try_from(read).unwrap(), Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

type Stream = TlsStream<Counted>;

/// An open connection to a federation listener.
pub struct Connection {
    inner: Inner,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// Bytes read from the kernel so far, TLS records included.
    pub received: Arc<AtomicU64>,
}

enum Inner {
    H1 { stream: Box<Stream>, ahead: Vec<u8> },
    H2 { send: SendRequest<Full<Bytes>> },
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    pub headers: http::HeaderMap,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A body that has not been read to its end.
pub enum Body<'a> {
    H1(Chunked<'a>),
    H2(Incoming),
}

/// A body ended otherwise than its framing promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut(pub String);

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        shape: Shape,
    ) -> std::io::Result<Self> {
        let mut config = ClientConfig::clone(config);
        config.alpn_protocols = vec![shape.wire.alpn().as_bytes().to_vec()];
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = shape.receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        let socket = socket.connect(address).await?;
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            socket,
            read: Arc::clone(&received),
        };
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, counted)
            .await?;
        assert_eq!(
            stream.get_ref().1.alpn_protocol(),
            Some(shape.wire.alpn().as_bytes())
        );
        let inner = match shape.wire {
            Wire::H1 => Inner::H1 {
                stream: Box::new(stream),
                ahead: Vec::new(),
            },
            Wire::H2 => Inner::H2 {
                send: handshake_h2(stream, shape.window).await,
            },
        };
        Ok(Self {
            inner,
            local,
            received,
        })
    }

    /// Sends a question and reads the head of its answer. An empty body with GET sends none.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(Head, Body<'_>), Cut> {
        match &mut self.inner {
            Inner::H1 { stream, ahead } => {
                let fields = if method == "GET" {
                    String::new()
                } else {
                    format!(
                        "content-type: application/json\r\ncontent-length: {}\r\n",
                        body.len()
                    )
                };
                let request =
                    format!("{method} {path} HTTP/1.1\r\nhost: work.test\r\n{fields}\r\n{body}");
                stream
                    .write_all(request.as_bytes())
                    .await
                    .map_err(|error| Cut(error.to_string()))?;
                stream
                    .flush()
                    .await
                    .map_err(|error| Cut(error.to_string()))?;
                let mut reading = Chunked {
                    stream,
                    ahead,
                    left: Left::Done,
                };
                let head = reading.head().await?;
                Ok((head, Body::H1(reading)))
            }
            Inner::H2 { send } => {
                let request = http::Request::builder()
                    .method(method)
                    .uri(format!("https://work.test{path}"))
                    .header("content-type", "application/json")
                    .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
                    .unwrap();
                send.ready()
                    .await
                    .map_err(|error| Cut(format!("{error:?}")))?;
                let response = send
                    .send_request(request)
                    .await
                    .map_err(|error| Cut(format!("{error:?}")))?;
                let (parts, body) = response.into_parts();
                let head = Head {
                    status: parts.status.as_u16(),
                    headers: parts.headers,
                };
                Ok((head, Body::H2(body)))
            }
        }
    }

    /// Asks and reads the whole answer.
    pub async fn whole(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Cut> {
        let (head, mut reading) = self.ask(method, path, body).await?;
        let mut body = Vec::new();
        while let Some(part) = reading.part().await? {
            body.extend_from_slice(&part);
        }
        Ok(Answer { head, body })
    }

    /// Asks for a list, whole.
    pub async fn list(&mut self, resource: &str, body: &serde_json::Value) -> Result<Answer, Cut> {
        let path = format!("{BASE}/list/{resource}");
        self.whole("POST", &path, &body.to_string()).await
    }
}

async fn handshake_h2(stream: Stream, window: u32) -> SendRequest<Full<Bytes>> {
    let (send, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    // Its error is the connection's end, which the body or the next request reports.
    tokio::spawn(connection);
    send
}

impl Body<'_> {
    /// The next piece; `None` at a well-formed end.
    pub async fn part(&mut self) -> Result<Option<Bytes>, Cut> {
        match self {
            Self::H1(reading) => reading.part().await,
            Self::H2(body) => loop {
                match body.frame().await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(Cut(format!("{error:?}"))),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            },
        }
    }
}

/// What is still to come of an HTTP/1.1 body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// So many bytes of a body with a length.
    Counted(u64),
    /// So many bytes of the chunk at hand.
    Chunk(u64),
    /// The head of a chunk.
    ChunkHead,
    Done,
}

/// An HTTP/1.1 answer being read (RFC 9112, section 7.1).
pub struct Chunked<'a> {
    stream: &'a mut Stream,
    ahead: &'a mut Vec<u8>,
    left: Left,
}

impl Chunked<'_> {
    async fn fill(&mut self) -> Result<(), Cut> {
        let read = self
            .stream
            .read_buf(self.ahead)
            .await
            .map_err(|error| Cut(format!("{:?}: {error}", error.kind())))?;
        if read == 0 {
            return Err(Cut("the stream ended inside an answer".to_owned()));
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Cut> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            self.fill().await?;
        }
    }

    async fn head(&mut self) -> Result<Head, Cut> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = http::HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.trim().parse().unwrap());
        }
        let length = headers
            .get("content-length")
            .map(|value| value.to_str().unwrap().parse().unwrap());
        self.left = match length {
            Some(0) => Left::Done,
            Some(length) => Left::Counted(length),
            None => {
                assert_eq!(headers["transfer-encoding"], "chunked");
                Left::ChunkHead
            }
        };
        Ok(Head { status, headers })
    }

    fn take(&mut self, most: u64) -> Bytes {
        let most = usize::try_from(most).unwrap().min(self.ahead.len());
        Bytes::from(self.ahead.drain(..most).collect::<Vec<u8>>())
    }

    async fn part(&mut self) -> Result<Option<Bytes>, Cut> {
        loop {
            match self.left {
                Left::Done => return Ok(None),
                Left::ChunkHead => {
                    let size = self.line().await?;
                    let size = u64::from_str_radix(size.trim(), 16).unwrap();
                    if size == 0 {
                        assert_eq!(self.line().await?, "", "no trailers are sent");
                        self.left = Left::Done;
                    } else {
                        self.left = Left::Chunk(size);
                    }
                }
                Left::Counted(left) | Left::Chunk(left) => {
                    if self.ahead.is_empty() {
                        self.fill().await?;
                    }
                    let part = self.take(left);
                    let left = left - u64::try_from(part.len()).unwrap();
                    self.left = match (self.left, left) {
                        (Left::Counted(_), 0) => Left::Done,
                        (Left::Counted(_), left) => Left::Counted(left),
                        (_, 0) => {
                            assert_eq!(self.line().await?, "", "a chunk ends with CRLF");
                            Left::ChunkHead
                        }
                        (_, left) => Left::Chunk(left),
                    };
                    return Ok(Some(part));
                }
            }
        }
    }
}
