//! The reference gateway in this process, and its control listener.
//!
//! Invariant: it is reached over its sockets only, like any gateway.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use reference_gateway::authenticate::Service;
use reference_gateway::modes::Behaviour;
use reference_gateway::server::{Running, Settings, start};
use reference_gateway::store::seed::Data;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// A running gateway.
#[derive(Debug)]
pub struct GatewayProcess {
    running: Option<Running>,
    url: String,
    control: SocketAddr,
}

impl GatewayProcess {
    /// Starts one with its database in `dir`.
    pub async fn start(dir: &Path, data: Data, service: Option<Service>) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let running = start(Settings {
            listen: free,
            control: Some(free),
            db: dir.join("gateway.db"),
            data,
            behaviour: Behaviour::default(),
            service,
        })
        .await
        .unwrap();
        Self {
            url: running.url(),
            control: running.control.unwrap(),
            running: Some(running),
        }
    }

    /// Its base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops it; does nothing the second time.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Replaces its behaviour, as JSON: `{"over_share":["rows"]}`.
    pub async fn behave(&self, behaviour: &Value) {
        self.control(Method::PUT, "/_control", &behaviour.to_string())
            .await;
    }

    /// Makes it honest again.
    pub async fn behave_honestly(&self) {
        self.behave(&json!({})).await;
    }

    /// What it was asked, oldest first: `method`, `path`, `query`, `headerNames`, `user`, `grantId`.
    pub async fn requests(&self) -> Vec<Value> {
        let text = self.control(Method::GET, "/_control/requests", "").await;
        serde_json::from_str(&text).unwrap()
    }

    /// Forgets what it was asked.
    pub async fn forget_requests(&self) {
        self.control(Method::DELETE, "/_control/requests", "").await;
    }

    async fn control(&self, method: Method, path: &str, body: &str) -> String {
        let stream = TcpStream::connect(self.control).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gateway")
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(status.is_success(), "{status}: {text}");
        driver.abort();
        text
    }
}
