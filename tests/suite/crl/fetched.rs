//! Lists of another authority at an address: a server of the test's own, which plays every way of giving one.
//!
//! Invariant: the last good list counts, whatever the server does, until it is too old; what cannot be trusted changes nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use certs::crl;
use certs::testing::{CrlMint, Mint, Minted, TestCa};
use certs::trust::certificate_to_pem;
use certs::{Clock, SystemClock};
use rustls::AlertDescription;
use rustls::ServerConfig;
use serde_json::Value;
use tempfile::TempDir;
use tests::grants::BASE;
use tests::{Holder, Wire, World, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::support::acts::{amira, scope};
use super::{comes, fails, metric, places};

const PATH: &str = "/lists/middle.crl?form=der";
const DAY: i64 = 86_400;

/// What the server answers.
#[derive(Clone)]
struct Says {
    tls: Arc<ServerConfig>,
    /// Status and fields, without the length.
    head: &'static str,
    body: Vec<u8>,
}

/// The server of the list. Each answer ends its connection.
struct Server {
    address: SocketAddr,
    says: Arc<Mutex<Says>>,
    /// How many connections have come.
    met: Arc<AtomicUsize>,
    /// The targets that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut server = Self {
            address: listener.local_addr().unwrap(),
            says: Arc::new(Mutex::new(says)),
            met: Arc::default(),
            asked: Arc::default(),
            accepting: None,
        };
        server.listen(listener);
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let (says, asked) = (Arc::clone(&self.says), Arc::clone(&self.asked));
        let met = Arc::clone(&self.met);
        self.accepting = Some(tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                met.fetch_add(1, Ordering::SeqCst);
                let (says, asked) = (says.lock().unwrap().clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    // A handshake that is refused is a part of the play.
                    let Ok(mut stream) = TlsAcceptor::from(says.tls).accept(socket).await else {
                        return;
                    };
                    let mut heard = Vec::new();
                    while !heard.windows(4).any(|part| part == b"\r\n\r\n") {
                        if stream.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8_lossy(&heard).into_owned();
                    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    asked.lock().unwrap().push(target);
                    let length = says.body.len();
                    let head = says.head;
                    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n");
                    // A client that has read enough goes.
                    let _told = stream.write_all(head.as_bytes()).await;
                    let _told = stream.write_all(&says.body).await;
                    let _closed = stream.shutdown().await;
                });
            }
        }));
    }

    async fn goes_away(&mut self) {
        let accepting = self.accepting.take().unwrap();
        accepting.abort();
        assert!(accepting.await.is_err());
    }

    async fn comes_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    fn says(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.says.lock().unwrap());
    }

    fn publish(&self, body: Vec<u8>) {
        self.says(|says| says.body = body);
    }
}

fn server_tls(minted: &Minted) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(certs::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(minted.chain.clone(), minted.key_der())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A serving side that reads the list of an authority below its root from a server with a root of its own.
struct Fetched {
    world: World,
    middle: TestCa,
    /// The root that the server of the list must lead to.
    web: TestCa,
    server: Server,
    holder: Holder,
    _dir: TempDir,
}

impl Fetched {
    async fn start(list: &CrlMint, settings: &str) -> Self {
        let (ca, web) = (TestCa::root("work authority"), TestCa::root("web"));
        let middle = ca.intermediate("middle");
        let minted = Mint::server(&["127.0.0.1"]).sign_with(&web);
        let server = Server::start(Says {
            tls: server_tls(&minted),
            head: "200 OK",
            body: list.sign_with(&middle),
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let settings = format!(
            "[revocation]\nurls = [\"https://{}{PATH}\"]\nroot_file = \"{}\"\nissuers_file = \"{}\"\nrefresh_s = 1\n{settings}\n",
            server.address,
            file("web.pem", web.root_pem()),
            file("issuers.pem", certificate_to_pem(middle.der())),
        );
        let world = World::builder()
            .authority(&ca)
            .settings(&settings)
            .start()
            .await;
        let user = amira();
        world.let_in(&user.id).await;
        let grant = world.pending_for("home", &user.id, scope()).await;
        let subject = grant.subject.uuid();
        let minted = world.mint(grant.id.uuid(), subject).sign_with(&middle);
        world.register(grant.id, &minted).await;
        let holder = Holder {
            grant: grant.id,
            subject,
            minted,
        };
        Self {
            world,
            middle,
            web,
            server,
            holder,
            _dir: dir,
        }
    }

    /// Waits for the list of this number at each replica, in this state, with this failure or none.
    async fn stands(&self, number: &str, state: &str, failure: Option<&str>) {
        let mut last = Vec::new();
        let fits = |place: &Value| {
            fails(place, failure)
                && place["state"] == state
                && place["lists"][0]["number"] == number
        };
        for _ in 0..1_000 {
            last = places(&self.world).await;
            if last.iter().all(fits) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{number} {state} {failure:?} did not come: {last:?}");
    }

    async fn serves(&self) -> u16 {
        let mut client = self.world.client(Wire::H1, &self.holder.minted).await;
        let answer = client.post(&format!("{BASE}/list/tasks"), "{}").await;
        answer.unwrap().status
    }

    async fn refusal(&self) -> AlertDescription {
        let config = tls::client(Some(&self.holder.minted), self.world.root(), &[]);
        tls::refusal(self.world.federation(), config).await
    }

    /// Waits until the server has been met twice more by each replica: what it says now has been heard whole once.
    async fn met_again(&self) {
        let count = || self.server.met.load(Ordering::SeqCst);
        let before = count();
        let twice = 2 * self.world.replicas().count();
        let met = async || (count() >= before + twice).then_some(());
        comes("the next", met).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_fetched_and_what_is_no_list_of_the_authority_changes_nothing() {
    let fetched = Fetched::start(&CrlMint::number(5), "").await;
    fetched.stands("5", "fresh", None).await;
    assert_eq!(fetched.serves().await, 200);
    let asked = fetched.server.asked.lock().unwrap()[0].clone();
    assert_eq!(asked, PATH, "with its query");
    let (middle, next) = (&fetched.middle, CrlMint::number(6));
    let naming = next.clone().revoke(&fetched.holder.minted.serial());
    let forger = TestCa::root("work authority").intermediate("middle");
    let stranger = TestCa::root("another authority");
    let now = SystemClock.unix_seconds();
    let bad: [(Vec<u8>, &str); 6] = [
        (naming.sign_with(&forger), "does not verify"),
        (naming.sign_with(&stranger), "is gone"),
        (CrlMint::number(4).sign_with(middle), "older list"),
        (
            naming.window(now + 3_600, now + DAY).sign_with(middle),
            "check the clocks",
        ),
        (b"<html>not here</html>".to_vec(), "neither DER nor PEM"),
        (Vec::new(), "no revocation list"),
    ];
    for (body, words) in bad {
        fetched.server.publish(body);
        fetched.stands("5", "fresh", Some(words)).await;
        assert_eq!(fetched.serves().await, 200, "{words}");
    }
    let naming = next.revoke(&fetched.holder.minted.serial());
    fetched.server.publish(naming.sign_with(middle));
    fetched.stands("6", "fresh", None).await;
    let alert = fetched.refusal().await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    fetched.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_the_one_or_sends_elsewhere_is_not_believed() {
    let fetched = Fetched::start(&CrlMint::number(5), "").await;
    fetched.stands("5", "fresh", None).await;
    let naming = CrlMint::number(6).revoke(&fetched.holder.minted.serial());
    let right = Mint::server(&["127.0.0.1"]).sign_with(&fetched.web);
    // Of another authority, of ours, for another name, and one that is over.
    let impostors = [
        Mint::server(&["127.0.0.1"]).sign_with(&TestCa::root("web")),
        Mint::server(&["127.0.0.1"]).sign_with(&fetched.world.ca),
        Mint::server(&["lists.example"]).sign_with(&fetched.web),
        Mint::server(&["127.0.0.1"])
            .expired()
            .sign_with(&fetched.web),
    ];
    fetched.server.says(|says| {
        says.tls = server_tls(&impostors[0]);
        says.body = naming.sign_with(&fetched.middle);
    });
    fetched.met_again().await;
    for impostor in &impostors {
        let asked = fetched.server.asked.lock().unwrap().len();
        fetched.server.says(|says| says.tls = server_tls(impostor));
        fetched.met_again().await;
        fetched.stands("5", "fresh", Some("TLS")).await;
        assert_eq!(fetched.serves().await, 200);
        let after = fetched.server.asked.lock().unwrap().len();
        assert_eq!(after, asked, "nothing is asked of an impostor");
    }
    // Elsewhere is another address, which nobody has pinned: not even one of the same server is followed.
    fetched.server.says(|says| {
        says.tls = server_tls(&right);
        says.head = "302 Found\r\nlocation: /lists/other.crl";
    });
    fetched.stands("5", "fresh", Some("status 302")).await;
    fetched.met_again().await;
    for head in [
        "404 Not Found",
        "500 Internal Server Error",
        "206 Partial Content",
    ] {
        fetched.server.says(|says| says.head = head);
        let status = format!("status {}", &head[..3]);
        fetched.stands("5", "fresh", Some(&status)).await;
        assert_eq!(fetched.serves().await, 200, "{head}");
    }
    // Longer than any list may be.
    fetched.server.says(|says| {
        says.head = "200 OK";
        says.body.resize(crl::MAX_BYTES + 1, 0);
    });
    fetched
        .stands("5", "fresh", Some("length limit exceeded"))
        .await;
    assert_eq!(fetched.serves().await, 200);
    let targets = fetched.server.asked.lock().unwrap().clone();
    assert!(targets.iter().all(|target| target == PATH), "{targets:?}");
    fetched.server.publish(naming.sign_with(&fetched.middle));
    fetched.stands("6", "fresh", None).await;
    let alert = fetched.refusal().await;
    assert_eq!(alert, AlertDescription::CertificateRevoked);
    fetched.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_server_that_goes_away_gets_late_and_then_too_old() {
    let now = SystemClock.unix_seconds();
    let first = CrlMint::number(1).window(now - DAY, now + 4);
    let mut fetched = Fetched::start(&first, "grace_s = 4\n").await;
    fetched.stands("1", "fresh", None).await;
    let url = format!("https://{}{PATH}", fetched.server.address);
    let state = |number: u8| format!("crl_state{{place=\"{url}\"}} {number}");
    fetched.server.goes_away().await;
    // Late: it counts, and is told.
    fetched.stands("1", "late", Some("connecting")).await;
    assert_eq!(fetched.serves().await, 200);
    comes("the metric", async || {
        metric(&fetched.world, &state(1)).await.then_some(())
    })
    .await;
    fetched.stands("1", "too_old", Some("connecting")).await;
    assert_eq!(fetched.refusal().await, AlertDescription::UnknownCA);
    comes("the alarm", async || {
        metric(&fetched.world, &state(2)).await.then_some(())
    })
    .await;
    // Also for a process that starts meanwhile.
    fetched.world = fetched.world.restart().await;
    fetched.stands("1", "too_old", Some("connecting")).await;
    assert_eq!(fetched.refusal().await, AlertDescription::UnknownCA);
    fetched
        .server
        .publish(CrlMint::number(2).sign_with(&fetched.middle));
    fetched.server.comes_back().await;
    fetched.stands("2", "fresh", None).await;
    assert_eq!(fetched.serves().await, 200);
    fetched.world.stop().await;
}
