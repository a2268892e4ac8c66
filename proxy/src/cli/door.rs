//! Asking a door of the running sidecar: HTTP/1.1 with JSON over a unix socket or loopback TCP.
//!
//! Invariant: one request per connection, a bound on time (a long one for what reads the whole audit log) and on the answer's size; a failure says which door
//! and what to do about it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::failure::CliFailure;
use crate::admin::secret_json;
use crate::exit::Exit;

/// Longest time for an answer; a change may wait for others to apply it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same for what reads the whole audit log: as long as that takes.
const LONG_PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Longest time for the health check.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer, bytes.
const ANSWER_BYTES: usize = 512 * 1024 * 1024;

/// A door of the sidecar.
#[derive(Debug, Clone)]
pub(super) struct Door {
    name: &'static str,
    place: Place,
    token: Option<String>,
    patience: Duration,
}

/// Where a door is.
#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    Loopback(SocketAddr),
}

impl Place {
    /// The `Host` to name.
    fn host(&self) -> String {
        match self {
            Self::Socket(_) => "localhost".to_owned(),
            Self::Loopback(address) => address.to_string(),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Loopback(address) => write!(f, "listener {address}"),
        }
    }
}

impl Door {
    /// The admin door.
    pub(super) fn admin(socket: PathBuf) -> Self {
        Self {
            name: "admin",
            place: Place::Socket(socket),
            token: None,
            patience: PATIENCE,
        }
    }

    /// The session door, with a session token if there is one.
    pub(super) fn session(socket: PathBuf, token: Option<String>) -> Self {
        Self {
            name: "session",
            place: Place::Socket(socket),
            token,
            patience: PATIENCE,
        }
    }

    /// The session door's TCP form.
    pub(super) fn session_at(address: SocketAddr, token: Option<String>) -> Self {
        Self {
            name: "session",
            place: Place::Loopback(address),
            token,
            patience: PATIENCE,
        }
    }

    /// The same door for a question that takes long to answer.
    pub(super) fn patient(self) -> Self {
        Self {
            patience: LONG_PATIENCE,
            ..self
        }
    }

    /// Whether anybody answers there.
    pub(super) async fn is_open(&self) -> bool {
        match &self.place {
            Place::Socket(path) => UnixStream::connect(path).await.is_ok(),
            Place::Loopback(address) => TcpStream::connect(address).await.is_ok(),
        }
    }

    /// Asks for `what` (as named in a failure) and gives the JSON answer, `null` for an empty one.
    pub(super) async fn ask(
        &self,
        what: &str,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, CliFailure> {
        let (status, value) = self.answer(what, method, target, body).await?;
        if status.is_success() {
            Ok(value)
        } else {
            Err(CliFailure::envelope(what, status.as_u16(), &value))
        }
    }

    /// As [`ask`](Self::ask), with whatever status it is answered.
    pub(super) async fn answer(
        &self,
        what: &str,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), CliFailure> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.send(what, method, target, body).await
    }

    /// As [`ask`](Self::ask), with a body that holds a secret: it is overwritten when it has been sent.
    pub(super) async fn ask_secretly(
        &self,
        what: &str,
        method: Method,
        target: &str,
        body: &impl Serialize,
    ) -> Result<Value, CliFailure> {
        let body = secret_json(body).map_err(|error| self.broken(what, error.to_string()))?;
        let body = Some(Bytes::from_owner(body));
        let (status, value) = self.send(what, method, target, body).await?;
        if status.is_success() {
            Ok(value)
        } else {
            Err(CliFailure::envelope(what, status.as_u16(), &value))
        }
    }

    async fn send(
        &self,
        what: &str,
        method: Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Value), CliFailure> {
        let request = self
            .request(method, target, body)
            .map_err(|why| self.broken(what, why))?;
        let closed = |error| self.closed(what, &error);
        let answered = match &self.place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(closed)?;
                tokio::time::timeout(self.patience, send(stream, request)).await
            }
            Place::Loopback(address) => {
                let stream = TcpStream::connect(address).await.map_err(closed)?;
                tokio::time::timeout(self.patience, send(stream, request)).await
            }
        };
        let (status, bytes) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(self.broken(what, why)),
            Err(_) => {
                return Err(self.broken(
                    what,
                    format!("no answer within {} s", self.patience.as_secs()),
                ));
            }
        };
        let value = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes)
                .map_err(|_| self.broken(what, "the answer is not JSON".to_owned()))?,
        };
        Ok((status, value))
    }

    /// Asks for `what` and writes the body of the answer as it comes.
    pub(super) async fn download(
        &self,
        what: &str,
        target: &str,
        to: &mut dyn Write,
    ) -> Result<(), CliFailure> {
        let Place::Socket(path) = &self.place else {
            return Err(self.broken(what, "only a socket gives downloads".to_owned()));
        };
        let stream = UnixStream::connect(path)
            .await
            .map_err(|error| self.closed(what, &error))?;
        let failed = |why: String| self.broken(what, why);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let driver = tokio::spawn(connection);
        let request = Request::get(target)
            .header(header::HOST, "localhost")
            .body(Full::new(Bytes::new()))
            .map_err(|error| failed(error.to_string()))?;
        let response = sender.send_request(request).await;
        let (head, mut body) = response
            .map_err(|error| failed(error.to_string()))?
            .into_parts();
        let mut refusal = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| failed(error.to_string()))?;
            let Some(part) = frame.data_ref() else {
                continue;
            };
            if head.status.is_success() {
                to.write_all(part)?;
            } else {
                refusal.extend_from_slice(part);
            }
        }
        driver.abort();
        if head.status.is_success() {
            return Ok(to.flush()?);
        }
        let answer = serde_json::from_slice(&refusal).unwrap_or(Value::Null);
        Err(CliFailure::envelope(what, head.status.as_u16(), &answer))
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.place.host());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                body
            }
        };
        request
            .body(Full::new(body))
            .map_err(|error| error.to_string())
    }

    fn closed(&self, what: &str, error: &io::Error) -> CliFailure {
        let why = format!("the {} {} does not open: {error}", self.name, self.place);
        if error.kind() == io::ErrorKind::PermissionDenied {
            return CliFailure::new(Exit::Denied, "forbidden", what, why)
                .remedy("run the command as the user the sidecar runs as");
        }
        CliFailure::new(Exit::Unavailable, "unavailable", what, why).remedy(
            "start the sidecar (`mosaic-federation serve`), or name its settings with --config",
        )
    }

    fn broken(&self, what: &str, why: String) -> CliFailure {
        CliFailure::new(
            Exit::Unavailable,
            "unavailable",
            what,
            format!("the {} door failed: {why}", self.name),
        )
        .remedy("look at the sidecar's log; repeating the command does no harm")
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    driver.abort();
    Ok((head.status, body.to_bytes()))
}

/// Whether `GET /livez` at `address` answers 200.
pub(super) async fn is_live(address: SocketAddr) -> Result<(), String> {
    let asked = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let request = Request::builder()
            .uri("/livez")
            .header(header::HOST, address.to_string())
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let (status, _) = send(stream, request).await?;
        status
            .is_success()
            .then_some(())
            .ok_or_else(|| format!("it answered with status {}", status.as_u16()))
    };
    let answered = tokio::time::timeout(HEALTH_PATIENCE, asked).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {} s", HEALTH_PATIENCE.as_secs())))
}

/// Reads a text file, or standard input for `-`; `what` names it in a failure.
pub(super) fn read_text(what: &str, path: &Path) -> Result<String, CliFailure> {
    let read = if path == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    read.map_err(|error| {
        CliFailure::new(
            Exit::Usage,
            "unreadable",
            format!("{what} cannot be read"),
            format!("{}: {error}", path.display()),
        )
        .remedy("name a readable file, or - for standard input")
    })
}
