//! Calls to step-ca over HTTPS.
//!
//! Invariant: the CA's chain is verified for the host of its URL, against the pinned root and nothing else; a call ends within
//! [`TIMEOUT`], whatever the CA does; redirects are not followed. What is said is in `certs/src/ca/step.rs`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use certs::ca::step::{
    MAX_ANSWER, StepAnswer, StepRequest, StepTransport, StepUnreachable, TIMEOUT,
};
use certs::tls::anchored_client_config;
use certs::{Clock, TrustAnchors};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::one_call::one_call;

/// The port of https.
const HTTPS: u16 = 443;

/// A connection is made for each call: they are rare.
pub struct HttpsToStep {
    host: String,
    port: u16,
    authority: HeaderValue,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl HttpsToStep {
    /// Calls to `origin` (`https://host[:port]`), whose chain must lead to `root`.
    ///
    /// # Errors
    /// A text that says what is wrong with either.
    pub fn new(
        origin: &str,
        root: CertificateDer<'static>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let uri: Uri = origin.parse().map_err(|error| format!("{error}"))?;
        let authority = uri.authority().ok_or("the CA's URL has no host")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone())
            .map_err(|_| format!("`{host}` is neither a host name nor an address"))?;
        let anchors = TrustAnchors::new(0, vec![root]).map_err(|error| error.to_string())?;
        let config =
            anchored_client_config(Arc::new(anchors), clock).map_err(|error| error.to_string())?;
        Ok(Self {
            port: authority.port_u16().unwrap_or(HTTPS),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|error| error.to_string())?,
            host,
            name,
            connector: TlsConnector::from(config),
        })
    }

    async fn call(&self, request: StepRequest<'_>) -> Result<StepAnswer, String> {
        let socket = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| format!("connecting: {error}"))?;
        let tls = self
            .connector
            .connect(self.name.clone(), socket)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        let chain = tls.get_ref().1.peer_certificates();
        let chain = chain.map(<[_]>::to_vec).unwrap_or_default();
        let head = Request::builder()
            .uri(request.path)
            .header(header::HOST, &self.authority);
        let asked = match request.body {
            None => head.method(Method::GET).body(Full::new(Bytes::new())),
            Some(body) => head
                .method(Method::POST)
                .header(header::ACCEPT, "application/json")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body))),
        };
        let asked = asked.map_err(|error| error.to_string())?;
        let (head, body) = one_call(tls, asked, MAX_ANSWER).await?;
        let date = head
            .headers
            .get(header::DATE)
            .and_then(|value| value.to_str().ok())
            .and_then(http_date);
        Ok(StepAnswer {
            status: head.status.as_u16(),
            date,
            body: body.to_vec(),
            chain,
        })
    }
}

/// An HTTP date (RFC 9110, section 5.6.7) as Unix seconds; only the form that senders must use.
fn http_date(text: &str) -> Option<i64> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    Some(date.as_second())
}

#[async_trait]
impl StepTransport for HttpsToStep {
    async fn send(&self, request: StepRequest<'_>) -> Result<StepAnswer, StepUnreachable> {
        let late = || format!("no answer within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, self.call(request))
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|why| StepUnreachable { why })
    }
}
