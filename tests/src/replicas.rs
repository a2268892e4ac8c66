//! More replicas of a serving side, and a plain TCP balancer before all of them: with `MOSAIC_TEST_REPLICAS` every world on PostgreSQL
//! whose clock nobody moves is so many.
//!
//! Invariant: the balancer takes the replicas in turn and looks into nothing, so which of them answers is left to chance as in
//! production. Operators act at the first one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::SystemClock;
use proxy::admin::Control;
use proxy::app::Running;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::database;
use crate::world::configuration;

/// The other replicas, and where all of them are asked.
pub struct Beside {
    replicas: Vec<Running>,
    /// The balancer.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

/// How many replicas a world is to have.
fn wanted() -> usize {
    match std::env::var("MOSAIC_TEST_REPLICAS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 1,
    }
}

impl Beside {
    /// Starts those beside the first one, which runs on these settings; none unless they are asked for.
    pub async fn start(file: &Path, settings: &str, first: &Running) -> Option<Self> {
        let first_at = first.addresses().federation?;
        if wanted() < 2 || !database::is_postgres() {
            return None;
        }
        let (mut replicas, mut servers) = (Vec::new(), vec![first_at]);
        for number in 2..=wanted() {
            let own = format!("data_dir = \"data-{number}\"");
            let settings = settings.replacen("data_dir = \"data\"", &own, 1);
            let config = configuration(PathBuf::from(file), &settings);
            std::fs::create_dir(&config.data_dir).unwrap();
            let secret = file.with_file_name("data").join("sealing.key");
            std::fs::copy(secret, config.data_dir.join("sealing.key")).unwrap();
            // Boxed: a test that holds several of them would need a larger stack.
            let start = Box::pin(proxy::app::start(Arc::new(config), Arc::new(SystemClock)));
            let replica = start.await.unwrap();
            servers.push(replica.addresses().federation.unwrap());
            replicas.push(replica);
        }
        let (address, task) = balancer(servers).await;
        Some(Self {
            replicas,
            address,
            task,
        })
    }

    /// What operators do at them.
    pub fn controls(&self) -> impl Iterator<Item = &Control> {
        self.replicas.iter().map(|replica| &*replica.control)
    }

    /// Stops them.
    pub async fn stop(self) {
        self.task.abort();
        for replica in self.replicas {
            replica.stop().await.unwrap();
        }
    }
}

/// A load balancer that knows nothing of what it carries: connections go to the servers in turn. Where it listens, and what it runs in.
pub async fn balancer(servers: Vec<SocketAddr>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(balance(listener, servers)))
}

async fn balance(listener: TcpListener, servers: Vec<SocketAddr>) {
    for server in servers.into_iter().cycle() {
        let Ok((mut client, _)) = listener.accept().await else {
            return;
        };
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(server).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            // Whoever ends it, and how, is for the two ends to see.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}
