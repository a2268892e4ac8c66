//! More replicas of a serving side, and plain TCP balancers before all of them: with `MOSAIC_TEST_REPLICAS` every world on PostgreSQL
//! is so many, unless it was built to be alone.
//!
//! Invariant: the balancers take the replicas in turn and look into nothing, so which of them answers is left to chance as in
//! production; they are where the settings say that the side is reached. Operators act at the first one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use certs::Clock;
use proxy::app::{Circumstances, Running};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::database;
use crate::world::configuration;

/// The other replicas, and where all of them are asked.
pub struct Beside {
    /// Those that run.
    pub replicas: Vec<Running>,
    /// Before the federation listeners.
    pub federation: Balancer,
    /// Before the enrollment listeners.
    pub enrollment: Balancer,
    file: PathBuf,
}

/// How many replicas a world is to have.
fn wanted() -> usize {
    match std::env::var("MOSAIC_TEST_REPLICAS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 1,
    }
}

impl Beside {
    /// The balancers for a side with settings in `file`, before it is started; none unless several replicas are asked for.
    pub async fn expected(file: PathBuf) -> Option<Self> {
        if wanted() < 2 || !database::is_postgres() {
            return None;
        }
        Some(Self {
            replicas: Vec::new(),
            federation: Balancer::before(Vec::new()).await,
            enrollment: Balancer::before(Vec::new()).await,
            file,
        })
    }

    /// Starts those beside the first one, which runs on these settings, each with such a clock.
    pub async fn start(
        &mut self,
        first: &Running,
        clock: impl Fn() -> Arc<dyn Clock>,
        circumstances: Circumstances,
    ) {
        let settings = std::fs::read_to_string(&self.file).unwrap();
        let archive = configuration(self.file.clone(), &settings)
            .audit
            .archive_dir;
        for number in 2..=wanted() {
            let own = format!("data_dir = \"data-{number}\"");
            let settings = settings.replacen("data_dir = \"data\"", &own, 1);
            let mut config = configuration(self.file.clone(), &settings);
            // There is one, in a directory that all of them have.
            config.audit.archive_dir.clone_from(&archive);
            std::fs::create_dir_all(&config.data_dir).unwrap();
            let secret = self.file.with_file_name("data").join("sealing.key");
            std::fs::copy(secret, config.data_dir.join("sealing.key")).unwrap();
            // Boxed: a test that holds several of them would need a larger stack.
            let start = Box::pin(proxy::app::start_under(
                Arc::new(config),
                clock(),
                circumstances,
            ));
            self.replicas.push(start.await.unwrap());
        }
        let all = || std::iter::once(first).chain(&self.replicas);
        let federation = all().filter_map(|one| one.addresses().federation);
        self.federation.lead_to(federation.collect());
        let enrollment = all().filter_map(|one| one.addresses().enrollment);
        self.enrollment.lead_to(enrollment.collect());
    }

    /// Stops them, side by side.
    pub async fn stop(&mut self) {
        let stopping: Vec<_> = self
            .replicas
            .drain(..)
            .map(|replica| tokio::spawn(replica.stop()))
            .collect();
        for stopped in stopping {
            stopped.await.unwrap().unwrap();
        }
    }
}

/// A load balancer that knows nothing of what it carries: connections go to the servers in turn, past those that do not listen.
pub struct Balancer {
    /// Where it listens.
    pub address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// One before these servers.
    pub async fn before(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = Arc::new(Mutex::new(servers));
        let task = tokio::spawn(balance(listener, Arc::clone(&servers)));
        Self {
            address,
            servers,
            task,
        }
    }

    /// Leads to these servers from now on.
    pub fn lead_to(&self, servers: Vec<SocketAddr>) {
        *self.servers.lock().unwrap() = servers;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn balance(listener: TcpListener, servers: Arc<Mutex<Vec<SocketAddr>>>) {
    let mut turn = 0_usize;
    while let Ok((mut client, _)) = listener.accept().await {
        let mut servers = servers.lock().unwrap().clone();
        if !servers.is_empty() {
            let first = turn % servers.len();
            servers.rotate_left(first);
        }
        turn = turn.wrapping_add(1);
        tokio::spawn(async move {
            for server in servers {
                let Ok(mut server) = TcpStream::connect(server).await else {
                    continue;
                };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                // Whoever ends it, and how, is for the two ends to see.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                return;
            }
        });
    }
}
