//! Other replicas of a world, as processes of their own: their link to the database can be cut, and they can be frozen.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;

use tests::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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

/// One more replica of a world.
pub struct Side {
    child: Child,
    pub federation: SocketAddr,
    /// Its operators' door.
    pub admin: PathBuf,
    /// To its database, where that is a server.
    pub link: Option<Link>,
    pub log: Arc<std::sync::Mutex<String>>,
}

impl Side {
    /// Starts one on the store of `world`, with settings of its own.
    pub async fn start(world: &World, name: &str, more: &[&str]) -> Self {
        let place = world.dir.path().join(name);
        std::fs::create_dir(&place).unwrap();
        let admin = place.join("admin.sock");
        let mut settings = vec![
            format!("replicas.name={name}"),
            format!("admin.socket={}", admin.display()),
        ];
        let mut link = None;
        if tests::database::is_postgres() {
            let url = std::env::var("MOSAIC_TEST_POSTGRES").unwrap();
            let (before, rest) = url.rsplit_once('@').unwrap();
            let (server, database) = rest.split_once('/').unwrap();
            let made = Link::to(server.parse().unwrap()).await;
            settings.push(format!("database.url={before}@{}/{database}", made.address));
            settings.push(format!("data_dir={}", place.display()));
            let key = world.config.data_dir.join("sealing.key");
            settings.push(format!("seal.secret_file={}", key.display()));
            link = Some(made);
        }
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        let mut command = serve(world.dir.path(), "info", &settings);
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
