//! The proxy form: absolute URIs, their session, and what is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const TARGET: &str = "http://work.federation/api/federation/v1/list/tasks";

async fn token(side: &Side, user: &str) -> String {
    let later = UnixMillis(side.outbound.clock.unix_millis() + 60_000);
    let user = UserId::parse(user).unwrap();
    let made = side
        .outbound
        .create_session(Actor::Sidecar("test"), user, later)
        .await;
    let token = made.unwrap().0;
    format!(
        "Basic {}",
        STANDARD.encode(format!("session:{}", token.expose()))
    )
}

/// The host of an absolute URI.
fn host(target: &str) -> String {
    target
        .parse::<http::Uri>()
        .unwrap()
        .authority()
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn a_program_that_knows_only_http_proxy_gets_the_rows() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let credentials = token(&side, "amira").await;
    let port = side
        .outbound
        .routes()
        .routes()
        .next()
        .unwrap()
        .endpoint
        .as_ref()
        .unwrap()
        .port();
    for target in [
        TARGET.to_owned(),
        TARGET.replace("work.federation", "WORK.Federation:80"),
        TARGET.replace("work.federation", "work.example"),
        TARGET.replace("work.federation", &format!("127.0.0.1:{port}")),
    ] {
        let headers = [
            ("proxy-authorization", credentials.as_str()),
            ("host", &host(&target)),
            ("authorization", "Bearer of-the-target"),
            ("proxy-connection", "keep-alive"),
        ];
        let (status, _, body) = side.ask(Doorway::Loopback, &target, &headers).await;
        assert_eq!(status, StatusCode::OK, "{target}");
        assert_eq!(body["items"][0]["_source"], "work", "{target}");
    }
    for seen in log.requests.lock().iter() {
        assert_eq!(seen.head.uri.path(), "/api/federation/v1/list/tasks");
        for absent in ["authorization", "proxy-authorization", "proxy-connection"] {
            assert_eq!(seen.header(absent), None, "{absent}");
        }
    }
    // On the unix socket a mapped uid will do, as in the other forms.
    let (status, _, _) = side
        .ask(AMIRA, TARGET, &[("host", "work.federation")])
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_token_it_asks_for_one() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let wrong = format!(
        "Basic {}",
        STANDARD.encode(format!("session:{}", "0".repeat(64)))
    );
    let bearer = format!("Bearer {}", SessionToken::draw().unwrap().expose());
    for (doorway, field) in [
        (Doorway::Loopback, None),
        (Doorway::Unix { uid: None }, None),
        (
            Doorway::Loopback,
            Some(("proxy-authorization", wrong.as_str())),
        ),
        (AMIRA, Some(("proxy-authorization", wrong.as_str()))),
        // What is meant for the target names no session here.
        (Doorway::Loopback, Some(("authorization", bearer.as_str()))),
    ] {
        for target in [TARGET, "http://evil.example/x"] {
            let host = host(target);
            let mut headers = vec![("host", host.as_str())];
            headers.extend(field);
            let (status, headers, body) = side.ask(doorway, target, &headers).await;
            assert_eq!(status, StatusCode::PROXY_AUTHENTICATION_REQUIRED);
            let challenge = headers.get("proxy-authenticate").unwrap().to_str().unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
            assert_eq!(body["error"]["code"], "unauthorized");
        }
    }
    assert!(log.requests.lock().is_empty());
}

#[tokio::test]
async fn a_host_that_is_no_peer_of_the_user_is_not_found_and_not_dialled() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!(
        "http://{}/api/federation/v1/list/tasks",
        listener.local_addr().unwrap()
    );
    for user in ["amira", "bo"] {
        let credentials = token(&side, user).await;
        let mut targets = vec![
            elsewhere.as_str(),
            "http://evil.example/api/federation/v1/list/tasks",
            "http://nobody.federation/api/federation/v1/list/tasks",
            "http://work.federation:8443/api/federation/v1/list/tasks",
            "http://local.federation/api/federation/v1/list/tasks",
        ];
        if user == "bo" {
            targets.extend([TARGET, "http://work.example/api/federation/v1/list/tasks"]);
        }
        for target in targets {
            let host = host(target);
            let headers = [
                ("proxy-authorization", credentials.as_str()),
                ("host", &host),
            ];
            let (status, _, body) = side.ask(Doorway::Loopback, target, &headers).await;
            assert_eq!(
                (status.as_u16(), &body["error"]["code"]),
                (404, &value!("not_found")),
                "{user}: {target}"
            );
        }
    }
    assert!(log.requests.lock().is_empty());
    let dialled = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(dialled.is_err(), "nobody came");
}

#[tokio::test]
async fn a_tunnel_is_refused_with_an_explanation() {
    let (side, _log) = side(|_| json(200, ROWS)).await;
    let credentials = token(&side, "amira").await;
    let ask = async |method: &str, target: &str, credentials: Option<&str>| {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "work.federation:443");
        if let Some(credentials) = credentials {
            request = request.header("proxy-authorization", credentials);
        }
        let response = answer(
            &side.outbound,
            Doorway::Loopback,
            request.body(Body::empty()).unwrap(),
        )
        .await;
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 1 << 16).await.unwrap();
        (
            head.status.as_u16(),
            serde_json::from_slice::<Value>(&body).unwrap(),
        )
    };
    assert_eq!(ask("CONNECT", "work.federation:443", None).await.0, 407);
    for (method, target) in [
        ("CONNECT", "work.federation:443"),
        ("POST", "https://work.federation:443/x"),
    ] {
        let (status, body) = ask(method, target, Some(&credentials)).await;
        assert_eq!(
            (status, &body["error"]["details"]["reason"]),
            (405, &value!("connect_refused"))
        );
        assert!(
            body["error"]["message"]
                .as_str()
                .unwrap()
                .contains("http://<peer>.federation/")
        );
    }
}

#[tokio::test]
async fn web_pages_get_nothing_through_it() {
    let (side, log) = side(|_| json(200, ROWS)).await;
    let credentials = token(&side, "amira").await;
    for (name, other) in [
        ("origin", "http://work.federation"),
        ("host", "evil.example"),
    ] {
        let mut headers = vec![("proxy-authorization", credentials.as_str()), (name, other)];
        if name != "host" {
            headers.push(("host", "work.federation"));
        }
        let (status, _, body) = side.ask(Doorway::Loopback, TARGET, &headers).await;
        assert_eq!(
            (status.as_u16(), &body["error"]["details"]["reason"]),
            (403, &value!("foreign_origin"))
        );
    }
    assert!(log.requests.lock().is_empty());
}
