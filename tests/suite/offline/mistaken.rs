//! What must not be mistaken for a revocation: everything that networks, middle boxes, impostors and broken servers do.
//! And what is one.
//!
//! Invariant: a row plays one thing in the place of the peer, to a question on a new connection; afterwards the grant is
//! as it was, and the peer works as soon as it is there again. The state is kept over a restart, so a mistake would be
//! for good: a revoked grant is never asked with again.

use std::sync::Arc;

use certs::testing::{Mint, Minted, TestCa};
use policy::id::GrantId;
use proxy::admin::AddPeer;
use rustls::{CertificateError, ServerConfig};
use uuid::Uuid;

use super::stage::{self, After, End, Play, Stage};
use super::*;

/// Deadlines that can be waited for; the breaker is reset before each row.
const SHORT: &str = "[timeouts]\nconnect_ms = 1500\ntls_ms = 1500\nfirst_byte_ms = 1500\ntotal_ms = 3000\nfanout_ms = 1500\n";

const REVOKED: &str = r#"{"error":{"code":"forbidden","message":"over","details":{"reason":"grant_revoked"},"requestId":"x"}}"#;

/// Every alert there is (RFC 8446, section 6, and before).
const ALERTS: [u8; 26] = [
    0, 10, 20, 21, 22, 30, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 70, 71, 80, 90, 112,
    113, 116, 120,
];

/// Names of rows, and what they play.
type Rows = Vec<(String, Play)>;

pub fn say(
    tls: Option<&Arc<ServerConfig>>,
    after: After,
    bytes: impl Into<Vec<u8>>,
    end: End,
) -> Play {
    Play::Say {
        tls: tls.cloned(),
        after,
        bytes: bytes.into(),
        end,
    }
}

/// An answer of HTTP/1.1.
pub fn answer(status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, 0], &stream, payload].concat()
}

/// What happens before anybody has shown that it is the peer.
fn before_tls(rows: &mut Rows) {
    let mut add = |name: &str, play| rows.push((name.to_owned(), play));
    add("nobody listens", Play::Nobody);
    for (how, end) in [
        ("closed", End::Cut),
        ("reset", End::Reset),
        ("silent", End::Silent),
    ] {
        add(&format!("{how} at once"), say(None, After::Once, "", end));
        add(
            &format!("{how} after the first bytes"),
            say(None, After::Hello, "", end),
        );
        // A record of TLS that promises more than comes.
        let torn = [0x16, 3, 3, 0, 0x7a, 2, 0, 0];
        add(
            &format!("{how} within the server's hello"),
            say(None, After::Hello, torn, end),
        );
    }
    let forged = answer(403, "application/json", REVOKED);
    add(
        "a forged refusal without TLS",
        say(None, After::Hello, forged, End::Cut),
    );
    add(
        "a forged refusal before anything was said",
        say(
            None,
            After::Once,
            answer(403, "application/json", REVOKED),
            End::Cut,
        ),
    );
    add(
        "a page of a captive portal",
        say(
            None,
            After::Hello,
            "HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n",
            End::Cut,
        ),
    );
    add(
        "a banner of another service",
        say(None, After::Once, "SSH-2.0-OpenSSH_9.6\r\n", End::Cut),
    );
    add(
        "garbage",
        say(None, After::Hello, vec![0xa5; 4_096], End::Cut),
    );
    for alert in ALERTS {
        let record = [0x15, 3, 3, 0, 2, 2, alert];
        add(
            &format!("the alert {alert} from whoever is on the way"),
            say(None, After::Hello, record, End::Cut),
        );
    }
    add(
        "the alert for a revoked certificate as a warning",
        say(None, After::Hello, [0x15, 3, 3, 0, 2, 1, 44], End::Cut),
    );
}

/// What somebody says who is not the peer.
fn impostors(rows: &mut Rows, ca: &TestCa) {
    let forged = || answer(403, "application/json", REVOKED);
    let good = || Mint::server(&["127.0.0.1"]);
    let other = TestCa::root("work authority");
    let impostors: [(&str, Minted); 6] = [
        ("of another authority", good().sign_with(&other)),
        ("signed by itself", good().self_signed()),
        (
            "whose certificate has expired",
            good().expired().sign_with(ca),
        ),
        (
            "whose certificate is not valid yet",
            good().not_yet_valid().sign_with(ca),
        ),
        (
            "of another name",
            Mint::server(&["elsewhere.example"]).sign_with(ca),
        ),
        (
            "with a certificate of a client",
            Mint::client(Uuid::new_v4(), Uuid::new_v4()).sign_with(ca),
        ),
    ];
    for (name, minted) in impostors {
        let tls = stage::tls(&minted, "http/1.1");
        rows.push((
            format!("an impostor {name}"),
            say(Some(&tls), After::Once, forged(), End::Closed),
        ));
    }
    let tls = stage::tls_1_2(&good().sign_with(ca));
    rows.push((
        "the peer in TLS 1.2".to_owned(),
        say(Some(&tls), After::Once, forged(), End::Closed),
    ));
}

/// Refusals of the certificate by the peer itself, but for other reasons than that it is revoked.
fn refusals(rows: &mut Rows, peer: &Minted) {
    use CertificateError as E;
    for why in [
        E::UnknownIssuer,
        E::Expired,
        E::NotValidYet,
        E::BadSignature,
        E::BadEncoding,
        E::InvalidPurpose,
        E::UnhandledCriticalExtension,
        E::UnknownRevocationStatus,
        E::ExpiredRevocationList,
        E::ApplicationVerificationFailure,
    ] {
        let tls = stage::refusing(peer, why.clone());
        rows.push((
            format!("refused at the handshake: {why:?}"),
            say(Some(&tls), After::Once, "", End::Closed),
        ));
    }
}

/// How a connection to the peer itself can end before an answer is whole.
fn broken_answers(rows: &mut Rows, tls: &Arc<ServerConfig>) {
    let whole = answer(403, "application/json", REVOKED);
    let body_at = whole.len() - REVOKED.len();
    for (how, end) in [
        ("closed", End::Closed),
        ("cut", End::Cut),
        ("reset", End::Reset),
        ("silent", End::Silent),
    ] {
        let mut add =
            |name: String, after, text: &str| rows.push((name, say(Some(tls), after, text, end)));
        add(format!("{how} after the handshake"), After::Once, "");
        add(format!("{how} after the request"), After::Request, "");
        add(
            format!("{how} within the status line"),
            After::Request,
            &whole[..10],
        );
        add(
            format!("{how} within the head"),
            After::Request,
            &whole[..40],
        );
        add(
            format!("{how} behind the head"),
            After::Request,
            &whole[..body_at],
        );
        add(
            format!("{how} within the refusal"),
            After::Request,
            &whole[..whole.len() - 4],
        );
        let open = format!(
            "HTTP/1.1 403 X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{REVOKED}",
            REVOKED.len() + 8
        );
        add(format!("{how} within a chunk"), After::Request, &open);
    }
    let mut add = |name: &str, text: String| {
        rows.push((
            name.to_owned(),
            say(Some(tls), After::Request, text, End::Closed),
        ))
    };
    add(
        "not HTTP",
        "\u{1}\u{2}\u{3} what is this\r\n\r\n".to_owned(),
    );
    add(
        "a head of 64 KiB",
        format!("HTTP/1.1 403 X\r\nX: {}\r\n\r\n", "a".repeat(64 << 10)),
    );
    add(
        "a refusal longer than its length",
        format!("{}garbage", answer(403, "application/json", &REVOKED[..40])),
    );
    add(
        "two lengths",
        format!(
            "HTTP/1.1 403 X\r\nContent-Length: 5\r\nContent-Length: {}\r\n\r\n{REVOKED}",
            REVOKED.len()
        ),
    );
    add(
        "a refusal of 4 MiB",
        answer(
            403,
            "application/json",
            &format!("{}{REVOKED}", " ".repeat(4 << 20)),
        ),
    );
}

/// Statuses without an envelope, as proxies and servers answer on their own.
fn statuses(rows: &mut Rows, tls: &Arc<ServerConfig>) {
    let page = "<html><body>grant_revoked certificate_revoked</body></html>";
    for status in [
        204, 301, 302, 304, 307, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412,
        413, 414, 415, 416, 417, 418, 421, 422, 425, 426, 428, 431, 451, 499, 500, 501, 502, 503,
        504, 505, 507, 508, 510, 511, 530, 599,
    ] {
        let bare = matches!(status, 204 | 304);
        let text = if bare {
            format!("HTTP/1.1 {status} X\r\n\r\n")
        } else {
            answer(status, "text/html", page)
        };
        rows.push((
            format!("a page of status {status}"),
            say(Some(tls), After::Request, text, End::Closed),
        ));
    }
}

/// Envelopes that do not say that the grant is revoked, however near they come.
fn envelopes(rows: &mut Rows, tls: &Arc<ServerConfig>) {
    let mut add = |name: String, status, body: &str| {
        rows.push((
            name,
            say(
                Some(tls),
                After::Request,
                answer(status, "application/json", body),
                End::Closed,
            ),
        ));
    };
    add(
        "the generic refusal".to_owned(),
        403,
        r#"{"error":{"code":"forbidden","message":"no"}}"#,
    );
    for reason in [
        "GRANT_REVOKED",
        "grant revoked",
        "grant_revoked ",
        "peer_revoked",
        "revoked",
        "certificate_superseded",
        "certificate_untrusted",
        "",
    ] {
        let body = REVOKED.replace("grant_revoked", reason);
        add(format!("the reason `{reason}`"), 403, &body);
    }
    for (status, code) in [
        (400, "invalid_request"),
        (401, "unauthorized"),
        (403, "scope_violation"),
        (403, "revoked"),
        (404, "not_found"),
        (410, "forbidden"),
        (500, "forbidden"),
        (502, "unavailable"),
        (503, "unavailable"),
        (503, "forbidden"),
        (504, "unavailable"),
    ] {
        let body = REVOKED.replace("\"forbidden\"", &format!("\"{code}\""));
        add(format!("the reason in {status} `{code}`"), status, &body);
    }
    for (name, body) in [
        (
            "the reason beside the details",
            r#"{"error":{"code":"forbidden","message":"x","reason":"grant_revoked"}}"#,
        ),
        (
            "the reason as the message",
            r#"{"error":{"code":"forbidden","message":"grant_revoked"}}"#,
        ),
        (
            "the reason in a list",
            r#"{"error":{"code":"forbidden","message":"x","details":{"reason":["grant_revoked"]}}}"#,
        ),
        (
            "details in a list",
            r#"{"error":{"code":"forbidden","message":"x","details":[{"reason":"grant_revoked"}]}}"#,
        ),
        (
            "the reason twice",
            r#"{"error":{"code":"forbidden","details":{"reason":"x","reason":"grant_revoked"}}}"#,
        ),
        (
            "the envelope in a list",
            r#"[{"error":{"code":"forbidden","details":{"reason":"grant_revoked"}}}]"#,
        ),
        (
            "an envelope with something behind it",
            r#"{"error":{"code":"forbidden","details":{"reason":"grant_revoked"}}} {}"#,
        ),
        (
            "an envelope without a code",
            r#"{"error":{"details":{"reason":"grant_revoked"}}}"#,
        ),
    ] {
        add(name.to_owned(), 403, body);
    }
    add("a refusal as rows".to_owned(), 200, REVOKED);
    add(
        "rows that say it".to_owned(),
        200,
        r#"{"items":[{"id":"grant_revoked"}],"_partial":false,"_truncated":false,"error":{"code":"forbidden","details":{"reason":"grant_revoked"}}}"#,
    );
}

/// HTTP/2: every way in which it ends a stream or a connection.
fn http2(rows: &mut Rows, tls: &Arc<ServerConfig>) {
    let settings = frame(4, 0, &[]);
    let mut add = |name: String, frames: Vec<u8>, end| {
        let bytes = [settings.clone(), frames].concat();
        rows.push((name, say(Some(tls), After::Request, bytes, end)));
    };
    for code in 0..=13_u32 {
        add(
            format!("a stream reset with {code}"),
            frame(3, 1, &code.to_be_bytes()),
            End::Silent,
        );
        let last = [[0; 4], code.to_be_bytes()].concat();
        add(
            format!("sent away with {code}"),
            frame(7, 0, &last),
            End::Cut,
        );
    }
    add(
        "a frame of no kind".to_owned(),
        frame(0xfa, 0, b"grant_revoked"),
        End::Cut,
    );
    add(
        "headers that cannot be read".to_owned(),
        frame(1, 1, &[0xff; 32]),
        End::Cut,
    );
    add("a push".to_owned(), frame(5, 1, &[0, 0, 0, 2]), End::Cut);
    add(
        "HTTP/1.1 in its place".to_owned(),
        answer(403, "application/json", REVOKED).into_bytes(),
        End::Cut,
    );
}

pub struct Scene {
    pub world: World,
    pub home: Home,
    pub stage: Stage,
    session: String,
    grant: GrantId,
}

impl Scene {
    pub async fn start() -> Self {
        let world = World::start().await;
        let home = Home::start_with(SHORT).await;
        world.let_in(plan::AMIRA).await;
        let stage = Stage::before(world.federation()).await;
        let grant = enroll(&world, &home, &stage, "work").await;
        let session = home.session("amira").await;
        Self {
            world,
            home,
            stage,
            session,
            grant,
        }
    }

    pub async fn ask(&self, peer: &str) -> Response {
        self.home
            .control()
            .reset_peer(&operator(), peer)
            .await
            .unwrap();
        let path = "/list/tasks";
        self.home.ask(&self.session, peer, path, &json!({})).await
    }

    /// States of the peer's credential and of the peer.
    pub async fn state(&self, name: &str) -> (String, String) {
        let peers = self.home.control().list_peers().await.unwrap();
        let peer = peers
            .iter()
            .find(|peer| peer.name.as_str() == name)
            .unwrap();
        let peer = serde_json::to_value(peer).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&peer["credentials"][0]["state"]), text(&peer["state"]))
    }

    pub async fn works(&self) {
        let answer = self.ask("work").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    pub async fn stop(self) {
        self.home.stop().await;
        self.world.stop().await;
    }
}

async fn enroll(world: &World, home: &Home, stage: &Stage, name: &str) -> GrantId {
    let scope = support::onboard::whole_scope(plan::AMIRA);
    let grant = world.pending_for("home", plan::AMIRA, scope).await;
    let order = AddPeer {
        url: world.enrollment_url(grant.id).await,
        user: "amira".to_owned(),
        name: name.to_owned(),
        endpoint: Some(format!("https://{}", stage.address)),
        fingerprint: None,
        trust_root_pem: None,
    };
    let added = home.control().add_peer(&operator(), order).await.unwrap();
    assert_eq!(added.notice, None);
    grant.id
}

#[tokio::test(flavor = "multi_thread")]
async fn no_failure_of_the_network_is_taken_for_a_revocation() {
    let mut scene = Scene::start().await;
    scene.works().await;
    let peer = Mint::server(&["127.0.0.1"]).sign_with(&scene.world.ca);
    let (h1, h2) = (stage::tls(&peer, "http/1.1"), stage::tls(&peer, "h2"));
    let mut rows = Rows::new();
    before_tls(&mut rows);
    impostors(&mut rows, &scene.world.ca);
    refusals(&mut rows, &peer);
    broken_answers(&mut rows, &h1);
    statuses(&mut rows, &h1);
    envelopes(&mut rows, &h1);
    http2(&mut rows, &h2);
    assert!(rows.len() > 150, "{}", rows.len());
    let count = rows.len();
    let mut mistaken = Vec::new();
    for (name, play) in rows {
        scene.stage.play(play).await;
        let answer = ask_in_short(&scene).await;
        let (credential, state) = scene.state("work").await;
        println!("{name}: {answer}: {credential}, {state}");
        if credential != "active" || !["active", "degraded"].contains(&state.as_str()) {
            mistaken.push(format!("{name}: {credential}, {state}"));
            break;
        }
    }
    assert!(mistaken.is_empty(), "{mistaken:#?}");
    println!("{count} rows");
    // The peer itself is as good as ever, also for a process that starts anew.
    scene.stage.play(Play::Relay).await;
    scene.works().await;
    scene.stop().await;
}

/// Asks, and says in short what came of it.
async fn ask_in_short(scene: &Scene) -> String {
    let control = scene.home.control();
    control.reset_peer(&operator(), "work").await.unwrap();
    let question = json!({});
    let asked = scene
        .home
        .try_ask(&scene.session, "work", "/list/tasks", &question);
    match asked.await {
        Ok(answer) => format!("{} {:?}", answer.status, answer.reason()),
        // An answer that broke off is passed on as one.
        Err(_) => "cut".to_owned(),
    }
}

/// The real ones: said by the peer itself, in each of the ways in which it says so.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_says_of_a_revocation_is_believed() {
    let mut scene = Scene::start().await;
    let peer = Mint::server(&["127.0.0.1"]).sign_with(&scene.world.ca);
    let h1 = stage::tls(&peer, "http/1.1");
    let certificate = REVOKED.replace("grant_revoked", "certificate_revoked");
    let said: [(&str, Play); 3] = [
        (
            "grant",
            say(
                Some(&h1),
                After::Request,
                answer(403, "application/json", REVOKED),
                End::Closed,
            ),
        ),
        (
            "certificate",
            say(
                Some(&h1),
                After::Request,
                answer(403, "application/json", &certificate),
                End::Closed,
            ),
        ),
        (
            "alert",
            say(
                Some(&stage::refusing(&peer, CertificateError::Revoked)),
                After::Once,
                "",
                End::Closed,
            ),
        ),
    ];
    for (name, play) in said {
        scene.stage.play(Play::Relay).await;
        enroll(&scene.world, &scene.home, &scene.stage, name).await;
        assert_eq!(scene.ask(name).await.status, 200);
        scene.stage.play(play).await;
        let refused = scene.ask(name).await;
        assert_eq!(refused.status, 403, "{name}: {}", refused.text());
        assert_eq!(scene.state(name).await.0, "revoked", "{name}");
    }
    scene.stage.play(Play::Relay).await;
    // And the peer's own: on a connection that stands, and at the handshake of the next.
    scene.works().await;
    scene.world.revoke(scene.grant).await;
    let refused = scene.ask("work").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let state = scene.state("work").await;
    assert_eq!(state.0, "revoked");
    scene.stop().await;
}
