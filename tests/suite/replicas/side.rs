//! Other replicas of a world, as processes of their own: their link to the database can be cut, and they can be frozen.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;

use tests::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::hole::Namespace;
use crate::support::process::{Spawned, serve, spawn};

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It arrives.
    Open,
    /// It is held back, and nobody is told.
    Held,
    /// Every connection ends at once, as where no server listens.
    #[allow(dead_code, reason = "not every suite closes it")]
    Closed,
}

/// A stretch of network: while it is cut, nothing gets through, and nobody is told.
pub struct Link {
    way: watch::Sender<Way>,
    pub address: SocketAddr,
}

impl Link {
    /// To a server.
    pub async fn to(server: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, server).await
    }

    /// To a server, beginning at this address of ours.
    pub async fn at(here: Ipv4Addr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((here, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, state) = watch::channel(Way::Open);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *state.borrow() == Way::Closed {
                    continue;
                }
                let Ok(far) = TcpStream::connect(server).await else {
                    continue;
                };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(carry(from_near, to_far, state.clone()));
                tokio::spawn(carry(from_far, to_near, state.clone()));
            }
        });
        Self { way, address }
    }

    /// Holds everything back.
    pub fn cut(&self) {
        self.way.send_replace(Way::Held);
    }

    /// Ends every connection, and each further one at once.
    #[allow(dead_code, reason = "not every suite closes it")]
    pub fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// Lets it go, also what was said meanwhile.
    pub fn heal(&self) {
        self.way.send_replace(Way::Open);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut closed = way.clone();
    let carried = async {
        let mut piece = vec![0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = from.read(&mut piece).await else {
                return;
            };
            if way.wait_for(|way| *way == Way::Open).await.is_err()
                || to.write_all(&piece[..read]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = carried => {}
        _ = closed.wait_for(|way| *way == Way::Closed) => {}
    }
}

/// The operators' door of one more replica of `world`, and the settings that are its own.
fn of_its_own(world: &World, name: &str) -> (PathBuf, Vec<String>) {
    let place = world.dir.path().join(name);
    std::fs::create_dir(&place).unwrap();
    let admin = place.join("admin.sock");
    let mut settings = vec![
        format!("replicas.name={name}"),
        format!("admin.socket={}", admin.display()),
    ];
    if tests::database::is_postgres() {
        settings.push(format!("data_dir={}", place.display()));
        let key = world.config.data_dir.join("sealing.key");
        settings.push(format!("seal.secret_file={}", key.display()));
    }
    (admin, settings)
}

/// Where the database of the tests is, and the setting that has it elsewhere.
fn database() -> (SocketAddr, impl Fn(SocketAddr) -> String) {
    let url = std::env::var("MOSAIC_TEST_POSTGRES").unwrap();
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let (before, name) = (before.to_owned(), name.to_owned());
    let at = move |at| format!("database.url={before}@{at}/{name}");
    (server.parse().unwrap(), at)
}

/// The server that a URL names.
fn server_of(url: &str) -> SocketAddr {
    let (_, server) = url.split_once("://").unwrap();
    server.trim_end_matches('/').parse().unwrap()
}

/// One more replica of a world.
pub struct Side {
    child: Child,
    pub federation: SocketAddr,
    /// Its operators' door.
    pub admin: PathBuf,
    /// To its database, where that is a server.
    pub link: Option<Link>,
    /// To what else it needs, where that is in another network.
    _links: Vec<Link>,
    pub log: Arc<std::sync::Mutex<String>>,
}

impl Side {
    /// Starts one on the store of `world`, with settings of its own.
    pub async fn start(world: &World, name: &str, more: &[&str]) -> Self {
        let (admin, mut settings) = of_its_own(world, name);
        let mut link = None;
        if tests::database::is_postgres() {
            let (server, url) = database();
            let made = Link::to(server).await;
            settings.push(url(made.address));
            link = Some(made);
        }
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        let command = serve(world.dir.path(), "info", &settings);
        Self::spawned(command, admin, link, Vec::new()).await
    }

    /// Starts one on PostgreSQL in a network of its own: its database is at the other address of the link to that, everything
    /// else at the first one.
    #[allow(dead_code, reason = "not every suite parts networks")]
    pub async fn start_inside(world: &World, name: &str, namespace: &Namespace) -> Self {
        let (admin, mut settings) = of_its_own(world, name);
        let (server, url) = database();
        let link = Link::at(namespace.other, server).await;
        let valkey = std::env::var("MOSAIC_TEST_VALKEY").unwrap();
        let valkey = Link::at(namespace.address, server_of(&valkey)).await;
        let gateway = Link::at(namespace.address, server_of(world.gateway.url())).await;
        let inside = namespace.inside;
        settings.extend([
            format!("{}?sslmode=disable", url(link.address)),
            "database.allow_unverified=true".to_owned(),
            format!("valkey.url=redis://{}", valkey.address),
            "valkey.allow_unverified=true".to_owned(),
            format!("gateway.url=http://{}", gateway.address),
            format!("federation.listen={inside}:0"),
            format!("federation.public_url=https://{inside}:8443"),
            format!("enrollment.listen={inside}:0"),
            format!("enrollment.public_url=https://{inside}:8444"),
        ]);
        let command = serve(world.dir.path(), "info", &settings);
        let command = namespace.entered(&command);
        Self::spawned(command, admin, Some(link), vec![valkey, gateway]).await
    }

    async fn spawned(
        mut command: Command,
        admin: PathBuf,
        link: Option<Link>,
        links: Vec<Link>,
    ) -> Self {
        let Spawned {
            child,
            federation,
            log,
            ..
        } = tokio::task::spawn_blocking(move || spawn(&mut command))
            .await
            .unwrap();
        Self {
            child,
            federation: federation.unwrap(),
            admin,
            link,
            _links: links,
            log,
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Nothing in it runs.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on as if nothing had been.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Asks it to end and waits until it has; whether in good order.
    pub async fn stop(mut self) -> bool {
        self.signal("-TERM");
        let mut child = std::mem::replace(&mut self.child, Command::new("true").spawn().unwrap());
        tokio::task::spawn_blocking(move || child.wait().unwrap().success())
            .await
            .unwrap()
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may be dead already; a frozen one dies too.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}
