//! An asking side: a sidecar with the role `ask` alone, and local sessions at its door.
//!
//! Invariant: it learns of the serving side only what an enrollment URL and its answers say.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use certs::testing::ManualClock;
use certs::{Clock, SystemClock};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proxy::admin::{AddPeer, AddedView, AdminFailure, Control, CreateSession};
use proxy::app::Running;
use proxy::config::Config;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::database;
use crate::response::Response;
use crate::world::{configuration, hear, operator};

/// An asking side that runs.
pub struct Home {
    /// The sidecar.
    pub sidecar: Running,
    /// Its settings.
    pub config: Arc<Config>,
    /// Settings and database.
    pub dir: TempDir,
}

impl Home {
    /// Starts one with the system's clock and without a cache: every question goes to the serving side.
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), Arc::new(SystemClock)).await
    }

    /// Starts one with more settings: whole sections other than `roles` and `ops`.
    pub async fn start_with(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_set(dir, Arc::new(SystemClock), settings).await
    }

    /// Starts one in a directory, which may be that of an earlier one, with a clock.
    pub async fn start_in(dir: TempDir, clock: Arc<dyn Clock>) -> Self {
        Self::start_set(dir, clock, "").await
    }

    /// Starts one in a directory, with a clock that the test moves and more settings.
    pub async fn start_by_hand(dir: TempDir, clock: &Arc<ManualClock>, settings: &str) -> Self {
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        let settings = format!("{}{settings}", database::FENCE_BY_HAND);
        Self::start_set(dir, clock, &settings).await
    }

    /// Hears of its store after its clock was moved, as [`World::pass`](crate::World::pass) has it of a serving side.
    pub async fn hear(&self) {
        hear(std::iter::once(self.control())).await;
    }

    /// Starts one in a directory, with a clock and more settings.
    pub async fn start_set(dir: TempDir, clock: Arc<dyn Clock>, settings: &str) -> Self {
        let cache = if settings.contains("[cache]") {
            ""
        } else {
            "[cache]\nmax_bytes = 0\n"
        };
        let (tier, servers) = database::settings(dir.path(), None);
        let settings = format!(
            "data_dir = \"data\"\n{tier}\
             {servers}\
             [roles]\nserve = false\n\
             [ops]\nlisten = \"127.0.0.1:0\"\n{settings}\n{cache}"
        );
        let file = dir.path().join("federation.toml");
        std::fs::write(&file, &settings).unwrap();
        let config = Arc::new(configuration(file, &settings));
        // Boxed: a test that holds several of them would need a larger stack.
        let start = Box::pin(proxy::app::start(Arc::clone(&config), clock));
        let sidecar = start.await.unwrap();
        Self {
            sidecar,
            config,
            dir,
        }
    }

    /// What operators do.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.sidecar.control
    }

    /// `peer add`.
    ///
    /// # Errors
    /// As the operation.
    pub async fn add_peer(
        &self,
        url: &str,
        user: &str,
        name: &str,
    ) -> Result<AddedView, AdminFailure> {
        let request = AddPeer {
            url: url.to_owned(),
            user: user.to_owned(),
            name: name.to_owned(),
            endpoint: None,
            fingerprint: None,
            trust_root_pem: None,
        };
        self.control().add_peer(&operator(), request).await
    }

    /// A session token of a local user.
    pub async fn session(&self, user: &str) -> String {
        let request = CreateSession {
            user: user.to_owned(),
            ttl_s: None,
        };
        self.control()
            .create_session(&operator(), request)
            .await
            .unwrap_or_else(|failure| panic!("{failure:?}"))
            .token
    }

    /// Asks `peer` through the door's unix socket; `path` is below `/api/federation/v1`.
    pub async fn ask(&self, token: &str, peer: &str, path: &str, body: &Value) -> Response {
        self.try_ask(token, peer, path, body).await.unwrap()
    }

    /// The same.
    ///
    /// # Errors
    /// When the door cuts the connection instead of answering.
    pub async fn try_ask(
        &self,
        token: &str,
        peer: &str,
        path: &str,
        body: &Value,
    ) -> Result<Response, hyper::Error> {
        let path = format!("/peers/{peer}/api/federation/v1{path}");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        try_door(
            &self.config.session.socket,
            &path,
            &headers,
            body.to_string(),
        )
        .await
    }

    /// Stops the sidecar; the directory can be used again.
    pub async fn stop(self) -> TempDir {
        self.sidecar.stop().await.unwrap();
        self.dir
    }
}

/// A POST to a session door's unix socket; its host is `localhost` unless another is given.
pub async fn door(socket: &Path, path: &str, headers: &[(&str, &str)], body: String) -> Response {
    try_door(socket, path, headers, body).await.unwrap()
}

/// The same.
///
/// # Errors
/// When the door cuts the connection instead of answering.
pub async fn try_door(
    socket: &Path,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Response, hyper::Error> {
    let stream = UnixStream::connect(socket).await.unwrap();
    post(stream, path, headers, body).await
}

/// A question of a session to a peer, where the sidecar may have gone; `None` when no whole answer came.
pub async fn reach(socket: &Path, token: &str, peer: &str, path: &str) -> Option<Response> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let path = format!("/peers/{peer}/api/federation/v1{path}");
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    post(stream, &path, &headers, "{}".to_owned()).await.ok()
}

async fn post(
    stream: UnixStream,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Result<Response, hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::post(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let body = body.collect().await?.to_bytes().to_vec();
    driver.abort();
    Ok(Response {
        status: head.status.as_u16(),
        headers,
        body,
    })
}
