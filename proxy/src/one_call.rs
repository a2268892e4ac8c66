//! One HTTP/1.1 request on a connection of its own, for calls that are rare.
//!
//! Invariant: head and body of the answer are bounded; redirects are not followed. Time limits, TLS and whom to call are the caller's.

use bytes::Bytes;
use http::{Request, response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Largest response head, bytes.
const MAX_HEAD: usize = 32 * 1024;

/// Sends `request` on `stream`; the head and the body of its answer, the latter of at most `max_answer` bytes.
///
/// # Errors
/// What failed, in words.
pub async fn one_call<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    max_answer: usize,
) -> Result<(response::Parts, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP: {error}"))?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| format!("asking: {error}"))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, max_answer)
            .collect()
            .await
            .map_err(|error| format!("reading the answer: {error}"))?;
        Ok((head, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // The connection may end with the answer already complete.
            Ok(()) => exchange.await,
            Err(error) => Err(format!("HTTP: {error}")),
        },
    }
}
