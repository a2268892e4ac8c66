//! Requests to the OTLP collector.
//!
//! Invariant: a collector asked over https is verified against the roots of the operator and nothing else; redirects are not
//! followed; an answer is read up to a bound. A connection is made for each request: they are seconds apart.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certs::TrustAnchors;
use certs::clock::Clock;
use certs::tls::anchored_client_config;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::one_call::one_call;

/// For one request, from connecting to the last byte.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A collector.
#[derive(Clone)]
pub struct Collector {
    origin: String,
    host: String,
    port: u16,
    authority: HeaderValue,
    authorization: Option<HeaderValue>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    refused_for_good: Arc<AtomicBool>,
}

impl Collector {
    /// The collector at `origin` (`http://host[:port]` or `https://host[:port]`); the chain of one asked over https must lead to
    /// one of `roots`. `authorization` goes with every request.
    ///
    /// # Errors
    /// A text that says what is wrong with one of them.
    pub fn new(
        origin: &str,
        roots: Vec<CertificateDer<'static>>,
        authorization: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let uri: Uri = origin.parse().map_err(|error| format!("{error}"))?;
        let authority = uri.authority().ok_or("it has no host")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let is_https = uri.scheme_str() == Some("https");
        let tls = if is_https {
            let name = ServerName::try_from(host.clone())
                .map_err(|_| format!("`{host}` is neither a host name nor an address"))?;
            let anchors = TrustAnchors::new(0, roots).map_err(|error| error.to_string())?;
            let config = anchored_client_config(Arc::new(anchors), clock)
                .map_err(|error| error.to_string())?;
            Some((TlsConnector::from(config), name))
        } else {
            None
        };
        let authorization = authorization
            .map(|text| {
                let mut value = HeaderValue::from_str(text.trim())
                    .map_err(|_| "the authorization has characters a header cannot hold")?;
                value.set_sensitive(true);
                Ok::<_, &str>(value)
            })
            .transpose()?;
        Ok(Self {
            origin: origin.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|error| error.to_string())?,
            host,
            authorization,
            tls,
            refused_for_good: Arc::default(),
        })
    }

    /// Whether the last answer said that the same request will never be taken.
    #[must_use]
    pub fn has_refused_for_good(&self) -> bool {
        self.refused_for_good.load(Ordering::Acquire)
    }

    /// The URL of a path there.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let socket = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("connecting: {error}"))?;
        match &self.tls {
            None => self.exchange(socket, request).await,
            Some((connector, name)) => {
                let tls = connector
                    .connect(name.clone(), socket)
                    .await
                    .map_err(|error| format!("TLS: {error}"))?;
                self.exchange(tls, request).await
            }
        }
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse().map_err(|error| format!("{error}"))?;
        head.headers.insert(header::HOST, self.authority.clone());
        if let Some(value) = &self.authorization {
            head.headers.insert(header::AUTHORIZATION, value.clone());
        }
        let request = Request::from_parts(head, Full::new(body));
        let (head, body) = one_call(stream, request, MAX_ANSWER).await?;
        Ok(Response::from_parts(head, body))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Collector").field(&self.origin).finish()
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let late = || format!("no answer within {} s", TIMEOUT.as_secs());
        self.refused_for_good.store(false, Ordering::Release);
        let answer = timeout(TIMEOUT, self.call(request))
            .await
            .unwrap_or_else(|_| Err(late()))?;
        let is_final = is_refused_for_good(answer.status());
        self.refused_for_good.store(is_final, Ordering::Release);
        Ok(answer)
    }
}

/// Whether a request answered so must not be sent again (OTLP 1.x, "OTLP/HTTP Response").
fn is_refused_for_good(status: StatusCode) -> bool {
    !status.is_success()
        && !matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        )
}
