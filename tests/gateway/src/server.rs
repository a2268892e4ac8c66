//! A running gateway: its listeners, and how it goes down.
//!
//! Invariant: `start` returns once both listeners accept and the data is loaded; `stop` ends every
//! connection within a bounded time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::authenticate::Service;
use crate::control;
use crate::gateway::{Gateway, answer};
use crate::modes::Behaviour;
use crate::store::seed::Data;
use crate::store::{Store, StoreError};

/// How long requests in flight are waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Everything a gateway needs to start.
#[derive(Debug)]
pub struct Settings {
    /// Where the API listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the control listener listens, if at all.
    pub control: Option<SocketAddr>,
    /// The SQLite file.
    pub db: PathBuf,
    /// What an empty file is filled with.
    pub data: Data,
    /// Behaviour to start with.
    pub behaviour: Behaviour,
    /// The service that may ask on behalf of users.
    pub service: Option<Service>,
}

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A gateway that answers.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub address: SocketAddr,
    /// Where the control listener listens.
    pub control: Option<SocketAddr>,
    store: Store,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

/// Load the data and start to listen.
///
/// # Errors
/// [`StartError`].
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let store = Store::open(&settings.db).await?;
    store.load(settings.data).await?;
    let (stop, stopping) = watch::channel(false);
    let gateway = Arc::new(Gateway::new(
        store.clone(),
        settings.service,
        settings.behaviour,
        stopping.clone(),
    ));
    let routes = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&gateway));
    let (address, server) = listen(settings.listen, routes, stopping.clone()).await?;
    let mut servers = vec![server];
    let mut control = None;
    if let Some(wanted) = settings.control {
        let (address, server) = listen(wanted, control::routes(gateway), stopping).await?;
        control = Some(address);
        servers.push(server);
    }
    Ok(Running {
        address,
        control,
        store,
        stop,
        servers,
    })
}

impl Running {
    /// The API's base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stop accepting, give requests in flight a second, and close the database.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for mut server in self.servers {
            if tokio::time::timeout(GRACE, &mut server).await.is_err() {
                server.abort();
            }
        }
        self.store.close().await;
    }
}

async fn listen(
    wanted: SocketAddr,
    routes: Router,
    mut stopping: watch::Receiver<bool>,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let refused = |source| StartError::Listen {
        address: wanted,
        source,
    };
    let listener = TcpListener::bind(wanted).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let listener = listener.tap_io(|stream| {
        // Without it small answers wait for the peer's delayed acknowledgement; worth no failure.
        let _unset = stream.set_nodelay(true);
    });
    let server = tokio::spawn(async move {
        let stopped = async move {
            // An error means that the sender is gone, which is going down too.
            let _stopped = stopping.wait_for(|stopping| *stopping).await.is_ok();
        };
        // axum's server never returns an error.
        let _served = axum::serve(listener, routes)
            .with_graceful_shutdown(stopped)
            .await;
    });
    Ok((address, server))
}
