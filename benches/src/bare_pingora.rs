//! Bare Pingora: the same listener and TLS as the sidecar, then Pingora's proxy straight to the
//! gateway. No grant, no decision, no filter, no audit. It is what the sidecar is measured against.
//!
//! usage: bare-pingora LISTEN GATEWAY CA.pem SERVER.pem SERVER.key

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certs::publish::channel;
use certs::{
    Credential, LiveClientVerifier, LiveServerResolver, RevokedSet, SystemClock, TrustAnchors, tls,
};
use pingora_core::apps::ServerApp;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use proxy::limit::{Quota, SourceLimits, SourceQuotas};
use proxy::telemetry::Metrics;
use proxy::transport::{AcceptedConnection, Acceptor, Balancers, ListenerLimits, PauseWatch};

struct PassThrough {
    gateway: HttpPeer,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(self.gateway.clone()))
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, gateway, ca, chain, key] = arguments.as_slice() else {
        return Err("usage: bare-pingora LISTEN GATEWAY CA.pem SERVER.pem SERVER.key".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(serve(listen, gateway, ca, chain, key))
}

async fn serve(
    listen: &str,
    gateway: &str,
    ca: &str,
    chain: &str,
    key: &str,
) -> Result<(), Failure> {
    let (_anchors, anchors) = channel(TrustAnchors::from_pem(1, &std::fs::read(ca)?)?);
    let (_revoked, revoked) = channel(RevokedSet::default());
    let credential = Credential::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let (_credential, credential) = channel(credential);
    let config = tls::federation_server_config(
        LiveClientVerifier::new(anchors.clone(), revoked),
        LiveServerResolver::new(credential),
        Arc::new(SystemClock),
    )?;
    let address: std::net::SocketAddr = gateway.parse()?;
    let proxy = Arc::new(http_proxy(
        &Arc::new(ServerConf::default()),
        PassThrough {
            gateway: HttpPeer::new(address, false, String::new()),
        },
    ));
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let limits = ListenerLimits {
        handshake_timeout: Duration::from_secs(5),
        max_connections: 10_000,
    };
    let (_stop, stop) = tokio::sync::watch::channel(false);
    let watch = stop.clone();
    // As in the sidecar under test: addresses are counted and never refused.
    let quota = Quota::per_window(1_000_000, Duration::from_secs(1));
    let quotas = SourceQuotas {
        handshakes: quota,
        failures: quota,
    };
    let (clock, metrics) = (Arc::new(SystemClock), Arc::new(Metrics::new()?));
    let sources = SourceLimits::new("federation", quotas, clock, metrics);
    let pauses = PauseWatch::new(Arc::new(SystemClock));
    let acceptor = Acceptor::new(
        listener,
        config,
        anchors,
        (sources, Balancers::default()),
        limits,
        pauses,
    );
    let drive = move |connection: AcceptedConnection| {
        let (proxy, watch) = (Arc::clone(&proxy), watch.clone());
        async move {
            proxy.process_new(Box::new(connection.stream), &watch).await;
        }
    };
    // One worker thread and a blocked main task: what runs is one thread, as the peers have.
    tokio::spawn(acceptor.run(drive, |_, _| {}, stop, Duration::from_secs(1))).await?;
    Ok(())
}
