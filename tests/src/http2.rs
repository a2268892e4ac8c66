//! An HTTP/2 client connection.
//!
//! Invariant: one connection, never a pool, so that a test knows which connection answered. Frames
//! that no library would send are not made here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::task::JoinHandle;

use crate::response::Response;
use crate::tls;

/// How long a response is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    /// Sends requests; streams bodies at the test's own pace.
    pub sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<Result<(), hyper::Error>>,
}

impl Http2 {
    /// Connects; the configuration must offer `h2`.
    ///
    /// # Errors
    /// As [`tls::connect`]; a server that does not choose `h2`.
    pub async fn open(
        address: SocketAddr,
        config: impl Into<Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let stream = tls::connect(address, config).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the server did not choose h2"));
        }
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver: tokio::spawn(connection),
        })
    }

    /// Sends a request and reads the response to its end.
    ///
    /// # Errors
    /// What hyper says; a stream that is reset.
    pub async fn request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response, hyper::Error> {
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let headers = head
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect();
            Ok(Response {
                status: head.status.as_u16(),
                headers,
                body: body.collect().await?.to_bytes().to_vec(),
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("a response in time")
    }

    /// A POST with a JSON body.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn post(&mut self, path: &str, body: &str) -> Result<Response, hyper::Error> {
        self.request(post(path, body)).await
    }

    /// Waits until the server has ended the connection.
    pub async fn closed(self) {
        let Self { sender, driver } = self;
        let _end = tokio::time::timeout(PATIENCE, driver)
            .await
            .expect("the connection ends in time");
        drop(sender);
    }
}

/// A POST request with a JSON body.
#[must_use]
pub fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(format!("https://b{path}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}
