//! An echo with the session door's own kind of listener: hyper's HTTP/1.1 over loopback TCP, with the door's timer and
//! limits, and nothing behind it. It is what an answer from memory is measured against.
//!
//! It reads the body of a request to its end and answers the file it was given, whatever was asked.
//!
//! usage: echo LISTEN BODY.json

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy::outbound::listener::DoorLimits;
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, body] = arguments.as_slice() else {
        return Err("usage: echo LISTEN BODY.json".into());
    };
    let body = Bytes::from(std::fs::read(body)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        // One worker thread and a blocked main task: what runs is one thread, as in the sidecar.
        tokio::spawn(accept(listener, body)).await?
    })
}

async fn accept(listener: TcpListener, body: Bytes) -> Result<(), Failure> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(connection(socket, body.clone()));
    }
}

async fn connection(socket: TcpStream, body: Bytes) {
    let header_timeout: Duration = DoorLimits::default().header_timeout;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let body = body.clone();
        async move {
            // A request that breaks off ends its connection, which hyper sees by itself.
            drop(request.into_body().collect().await);
            let mut response = Response::new(Full::new(body));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(socket), service);
    // How a connection of the load generator ends is its business.
    drop(serving.await);
}
