//! The client against gateways that misbehave below HTTP's surface, over real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use certs::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Authority, GatewayClient, GatewayError, GatewayLimits};
use crate::gateway::Origin;
use crate::gateway::credential::{SubjectAuth, bearer};
use crate::message::headers::RequestTag;

async fn gateway() -> (TcpListener, GatewayClient) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limits = GatewayLimits {
        connect: Duration::from_secs(2),
        read: Duration::from_secs(5),
        idle: Duration::from_secs(60),
    };
    let origin = Origin::parse(&url).unwrap();
    let client = GatewayClient::new(origin, limits, Arc::new(SystemClock)).unwrap();
    (listener, client)
}

/// Reads one request head and returns it.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answer(socket: &mut TcpStream, body: &str) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
}

async fn ask(client: &GatewayClient, user: &str) -> Result<String, GatewayError> {
    let auth = SubjectAuth::Token(bearer(&format!("token-{user}")).unwrap());
    let answer = client
        .ask(
            &Authority::Operator,
            "/whoami",
            &auth,
            RequestTag::untraced("r-1"),
        )
        .await?;
    answer
        .collect(1024)
        .await
        .map(|body| String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (listener, client) = gateway().await;
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for body in ["1", "2"] {
            head(&mut socket).await;
            answer(&mut socket, body).await;
        }
    });
    assert_eq!(ask(&client, "a").await, Ok("1".to_owned()));
    assert_eq!(ask(&client, "a").await, Ok("2".to_owned()));
    served.await.unwrap();
}

#[tokio::test]
async fn bytes_that_come_unasked_never_answer_the_next_question() {
    let (listener, client) = gateway().await;
    let served = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        head(&mut first).await;
        // In one piece: the answer, and a second one that nobody asked for.
        let twice =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nfor a"
                .repeat(2);
        first.write_all(twice.as_bytes()).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let request = head(&mut second).await;
        answer(&mut second, "for b").await;
        request
    });
    assert_eq!(ask(&client, "a").await, Ok("for a".to_owned()));
    assert_eq!(ask(&client, "b").await, Ok("for b".to_owned()));
    assert!(served.await.unwrap().contains("Bearer token-b"));
}

#[tokio::test]
async fn a_connection_the_gateway_closed_is_replaced() {
    let (listener, client) = gateway().await;
    let served = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        head(&mut first).await;
        answer(&mut first, "1").await;
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        head(&mut second).await;
        answer(&mut second, "2").await;
    });
    assert_eq!(ask(&client, "a").await, Ok("1".to_owned()));
    assert_eq!(ask(&client, "a").await, Ok("2".to_owned()));
    served.await.unwrap();
}

#[tokio::test]
async fn redirects_are_not_followed_and_other_types_not_read() {
    for (reply, what) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "status 302",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}",
            "application/json",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            "compressed",
        ),
    ] {
        let (listener, client) = gateway().await;
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            head(&mut socket).await;
            socket.write_all(reply.as_bytes()).await.unwrap();
        });
        match ask(&client, "a").await {
            Err(GatewayError::Malformed(text)) => assert!(text.contains(what), "{text}"),
            other => panic!("{other:?}"),
        }
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_cut_short_is_an_error() {
    let (listener, client) = gateway().await;
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        head(&mut socket).await;
        let cut =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1,";
        socket.write_all(cut.as_bytes()).await.unwrap();
    });
    assert!(matches!(
        ask(&client, "a").await,
        Err(GatewayError::Unreachable(_))
    ));
    served.await.unwrap();
}
