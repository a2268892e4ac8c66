//! A gateway in this process and a plain HTTP/1.1 client, over real sockets.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reference_gateway::authenticate::Service;
use reference_gateway::modes::Behaviour;
use reference_gateway::server::{Running, Settings, start};
use reference_gateway::store::seed::Data;
use serde_json::Value;
use tempfile::TempDir;

/// A running gateway with its control listener.
pub struct Gateway {
    pub running: Running,
    pub dir: TempDir,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&self.body));
        })
    }

    /// The rows of a list in either shape.
    pub fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK);
        match self.json() {
            Value::Array(rows) => rows,
            Value::Object(mut frame) => match frame.remove("rows") {
                Some(Value::Array(rows)) => rows,
                other => panic!("no rows: {other:?}"),
            },
            other => panic!("neither shape: {other}"),
        }
    }

    pub fn ids(&self) -> Vec<String> {
        self.rows().iter().map(|row| text(row, "id")).collect()
    }
}

/// A text member of a row.
pub fn text(row: &Value, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {name} in {row}"))
        .to_owned()
}

impl Gateway {
    pub async fn start(data: Data) -> Self {
        Self::start_with(data, |_| None).await
    }

    pub async fn start_with(
        data: Data,
        service: impl FnOnce(&std::path::Path) -> Option<Service>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let running = start(Settings {
            listen: free,
            control: Some(free),
            db: dir.path().join("gateway.db"),
            data,
            behaviour: Behaviour::default(),
            service: service(dir.path()),
        })
        .await
        .unwrap();
        Self {
            running,
            dir,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// GET as the user of a token.
    pub async fn ask(&self, token: &str, path: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(Method::GET, path, &[("authorization", &bearer)])
            .await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}{path}", self.running.url());
        self.request(method, &url, headers, "").await
    }

    /// Replace the behaviour.
    pub async fn behave(&self, behaviour: &str) {
        let answer = self.control(Method::PUT, "/_control", behaviour).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    }

    pub async fn control(&self, method: Method, path: &str, body: &str) -> Answer {
        let url = format!("http://{}{path}", self.running.control.unwrap());
        self.request(method, &url, &[], body).await
    }

    async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        let response = self
            .client
            .request(request.body(body).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }
}
