//! One connection to the server under load: connect, handshake, exchange.
//!
//! Invariant: an answer is handed out only when it arrived whole, and a TLS connection only when its
//! handshake was full and TLS 1.3. Nothing is retried here.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::response::{Head, ResponseError, complete_body, parse_head};
use crate::rows::{RowCheck, RowsError};

/// Room for the next read, bytes.
const READ: usize = 64 * 1024;
/// Longest answer that is taken in, bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The server under load.
pub struct Target {
    /// Its loopback address.
    pub address: SocketAddr,
    /// How it is verified; `None` for plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The bytes of the one request.
    pub request: Vec<u8>,
}

/// Why a connection or an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Socket or TLS failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system or TLS says.
        error: std::io::Error,
    },
    /// The handshake was resumed, or not TLS 1.3.
    #[error("the handshake was not a full TLS 1.3 one ({0})")]
    Handshake(String),
    /// The connection ended within an answer.
    #[error("the server closed the connection before its answer was whole")]
    Cut,
    /// The answer is longer than anything expected here.
    #[error("the answer is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// Not HTTP/1.1.
    #[error(transparent)]
    Response(#[from] ResponseError),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One open connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
}

/// What came of one exchange whose answer arrived whole.
#[derive(Debug)]
pub struct Exchanged {
    /// The answer's status code.
    pub status: u16,
    /// The server closes the connection.
    pub closes: bool,
    /// What the answer holds (not looked at unless the status is 2xx).
    pub rows: Result<(), RowsError>,
}

impl Connection {
    /// Connects, and does a full handshake for https.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(target: &Target) -> Result<Self, ClientError> {
        let socket = TcpStream::connect(target.address)
            .await
            .map_err(io("connecting"))?;
        socket.set_nodelay(true).map_err(io("connecting"))?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(socket),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector
                    .connect(name.clone(), socket)
                    .await
                    .map_err(io("shaking hands"))?;
                let (_, tls) = stream.get_ref();
                let (kind, version) = (tls.handshake_kind(), tls.protocol_version());
                let whole =
                    kind == Some(HandshakeKind::Full) && version == Some(ProtocolVersion::TLSv1_3);
                if !whole {
                    return Err(ClientError::Handshake(format!("{kind:?}, {version:?}")));
                }
                Box::new(stream)
            }
        };
        Ok(Self {
            stream,
            input: Vec::new(),
        })
    }

    /// Sends the request and takes in the whole answer.
    ///
    /// # Errors
    /// [`ClientError`]; the connection is of no use afterwards.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        check: &mut RowCheck,
    ) -> Result<Exchanged, ClientError> {
        self.stream.write_all(request).await.map_err(io("asking"))?;
        self.stream.flush().await.map_err(io("asking"))?;
        self.input.clear();
        let head = self.head().await?;
        loop {
            let received = self.input.get(head.length..).unwrap_or_default();
            if let Some(body) = complete_body(head.framing, received)? {
                let rows = match head.status {
                    200..300 => check.accept(&body),
                    _ => Ok(()),
                };
                return Ok(Exchanged {
                    status: head.status,
                    closes: head.closes,
                    rows,
                });
            }
            self.read().await?;
        }
    }

    /// Whether the server has kept a silent connection open.
    pub async fn is_open(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        // Biased: data, an alert or the end that has already arrived is seen before the fallback.
        tokio::select! {
            biased;
            _ = self.stream.read(&mut byte) => false,
            () = tokio::task::yield_now() => true,
        }
    }

    /// Gives back the room that answers needed; for connections that stay silent.
    pub fn shrink(&mut self) {
        self.input = Vec::new();
    }

    async fn head(&mut self) -> Result<Head, ClientError> {
        loop {
            if let Some(head) = parse_head(&self.input)? {
                return Ok(head);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), ClientError> {
        if self.input.len() > MAX_ANSWER {
            return Err(ClientError::TooLong);
        }
        self.input.reserve(READ);
        match self
            .stream
            .read_buf(&mut self.input)
            .await
            .map_err(io("reading"))?
        {
            0 => Err(ClientError::Cut),
            _ => Ok(()),
        }
    }
}

fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> ClientError {
    move |error| ClientError::Io { doing, error }
}
