//! An HTTP/1.1 client that sends the bytes it is given and reads what comes back.
//!
//! Invariant: a response is whole or an error; a body that ends before its framing says so is never
//! given out as a response.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::response::Response;
use crate::tls;

/// How long a response or the end of a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a TLS close_notify.
    Closed,
    /// With the end of the TCP stream, but no close_notify.
    Cut,
    /// With a TCP reset.
    Reset,
}

/// A TLS connection that speaks HTTP/1.1 by hand.
#[derive(Debug)]
pub struct RawConnection {
    /// The stream; for reading at the test's own pace.
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl RawConnection {
    /// Connects; protocols are as the configuration offers them.
    ///
    /// # Errors
    /// As [`tls::connect`].
    pub async fn open(
        address: SocketAddr,
        config: impl Into<Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        Ok(Self::over(tls::connect(address, config).await?))
    }

    /// On a connection that stands.
    #[must_use]
    pub const fn over(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Whatever the stream says.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Sends a well-formed POST with a JSON body.
    ///
    /// # Errors
    /// Whatever the stream says.
    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<()> {
        self.send(format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    /// Reads one response to its end.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends inside or before it; whatever the stream says.
    pub async fn response(&mut self) -> io::Result<Response> {
        tokio::time::timeout(PATIENCE, self.read_response())
            .await
            .expect("a response in time")
    }

    async fn read_response(&mut self) -> io::Result<Response> {
        loop {
            let head = self.until(b"\r\n\r\n").await?;
            let head = String::from_utf8(head).expect("an ASCII head");
            let mut lines = head.trim_end().split("\r\n");
            let status_line = lines.next().unwrap();
            let status: u16 = status_line
                .split(' ')
                .nth(1)
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("a status line: {status_line}"));
            let headers: Vec<(String, String)> = lines
                .map(|line| line.split_once(':').expect("a header"))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            if status == 100 {
                continue;
            }
            let mut response = Response {
                status,
                headers,
                body: Vec::new(),
            };
            response.body = if response.header("transfer-encoding") == Some("chunked") {
                self.chunks().await?
            } else {
                let length = response
                    .header("content-length")
                    .map_or(0, |text| text.parse().expect("a length"));
                self.exactly(length).await?
            };
            return Ok(response);
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8(line).unwrap();
            let length = usize::from_str_radix(line.trim(), 16).expect("a chunk length");
            let chunk = self.exactly(length).await?;
            assert_eq!(self.exactly(2).await?, b"\r\n");
            if length == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    async fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(mark.len())
                .position(|part| part == mark)
            {
                return Ok(self.buffer.drain(..at + mark.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads to the end of the connection: what was left, and how it ended.
    pub async fn end(mut self) -> (Vec<u8>, End) {
        let read = async {
            loop {
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return End::Closed,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return End::Cut,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        return End::Reset;
                    }
                    Err(error) => panic!("an odd end: {error}"),
                }
            }
        };
        let end = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the connection ends in time");
        (self.buffer, end)
    }
}
