//! The serving side of a process: its certificate, and the federation and enrollment listeners.
//!
//! Invariant: a listener is bound, and kept for a process that takes over, before anything is promised under its address.

use std::sync::Arc;

use async_trait::async_trait;
use certs::ca::RotatingCa;
use certs::ca::embedded::StatusUrls;
use certs::{
    CertificateAuthority, CrlReceiver, LiveClientVerifier, LiveServerResolver, RevokedReceiver,
    StepCa, TrustReceiver, tls,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::listeners::listen;
use super::{Base, StartError};
use crate::admin::Addresses;
use crate::audit::checkpoint::CheckpointVerifier;
use crate::config::PublicUrl;
use crate::directory::Directory;
use crate::enrollment::{
    self, ApplyChanges, CRL_PATH, EnrollmentLimits, EnrollmentTerms, OCSP_PATH, Redeemer,
    StatusRoutes,
};
use crate::inbound::service::{Inbound, serve_connection};
use crate::replicas::Replicas;
use crate::revocation::{PublishedCrl, Responder};
use crate::server_certificate::{KeptCertificate, ServerCertificate, ServerFiles, ServerSource};
use crate::transport::{Acceptor, Balancers, ListenerLimits};

pub(super) struct ServingParts {
    pub(super) inbound: Arc<Inbound>,
    pub(super) replicas: Arc<Replicas>,
    /// Signs for peers.
    pub(super) clients: Arc<dyn CertificateAuthority>,
    /// The certificate of the listeners.
    pub(super) server: Arc<ServerCertificate>,
    pub(super) trust: TrustReceiver,
    pub(super) revoked: RevokedReceiver,
    pub(super) lists: CrlReceiver,
    /// Our own authority, and its list when it signs for peers.
    pub(super) embedded: Arc<RotatingCa>,
    pub(super) published: Option<Arc<PublishedCrl>>,
    pub(super) checkpoint_key: CheckpointVerifier,
}

pub(super) struct Serving {
    pub(super) enrollment_url: PublicUrl,
    pub(super) redeemer: Arc<Redeemer>,
    pub(super) server: Arc<ServerCertificate>,
}

/// Makes changes of the enrollment listener effective.
struct Applying(Arc<Directory>, Arc<Replicas>);

#[async_trait]
impl ApplyChanges for Applying {
    async fn apply_changes(&self) -> Result<(), String> {
        let applied = self.0.refresh().await.map_err(|error| error.to_string())?;
        self.1.until_followed(applied.revision).await;
        Ok(())
    }
}

/// The certificate of our listeners: from files or the step-ca where the settings name them, else of our authority.
pub(super) async fn server_certificate(
    base: &Base,
    authority: &Arc<dyn CertificateAuthority>,
    step: Option<Arc<StepCa>>,
    kept: Arc<KeptCertificate>,
) -> Result<Arc<ServerCertificate>, StartError> {
    let tls = &base.config.tls;
    let source = match (&tls.files, step) {
        (None, None) => ServerSource::Authority(Arc::clone(authority), Arc::clone(&base.store)),
        (None, Some(step)) => ServerSource::Step(step, kept),
        (Some(files), _) => ServerSource::Files(ServerFiles {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            roots: files.roots.clone(),
            root: files.root.clone(),
        }),
    };
    let (clock, metrics) = (Arc::clone(&base.clock), Arc::clone(&base.metrics));
    ServerCertificate::open(source, &tls.server_names, clock, metrics)
        .await
        .map_err(StartError::Certificate)
}

/// The serving side: federation and enrollment listeners.
pub(super) async fn serve(
    base: &Base,
    parts: ServingParts,
    listeners: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
    addresses: &mut Addresses,
) -> Result<Serving, StartError> {
    let config = &base.config;
    let federation = listen(base, "federation", config.federation.listen).await?;
    let enrolling = listen(base, "enrollment", config.enrollment.listen).await?;
    addresses.federation = federation.local_addr().ok();
    addresses.enrollment = enrolling.local_addr().ok();
    let endpoint = public(config.federation.public_url.as_ref(), addresses.federation)?;
    let enrollment_url = public(config.enrollment.public_url.as_ref(), addresses.enrollment)?;
    let resolver = || {
        let in_force = parts.server.subscribe();
        LiveServerResolver::reading(move || in_force.load().credential().certified_key())
    };
    let refused = |error: tls::TlsConfigError| StartError::Certificate(error.to_string());
    let refusals = Arc::clone(&base.metrics);
    let verifier = LiveClientVerifier::new(parts.trust.clone(), parts.revoked)
        .with_lists(parts.lists)
        .with_observer(Arc::new(move |error| {
            refusals.revocation.chain_refused(error);
            tracing::info!(%error, "a client certificate was refused at the handshake");
        }));
    let clock = || Arc::clone(&base.clock);
    let federation_tls =
        tls::federation_server_config(verifier, resolver(), clock()).map_err(refused)?;
    let enrollment_tls = tls::enrollment_server_config(resolver(), clock()).map_err(refused)?;
    let status = parts.published.map(|list| {
        let url =
            |path: &str| format!("{}{path}", enrollment_url.to_string().trim_end_matches('/'));
        parts.embedded.say_where(StatusUrls {
            crl: url(CRL_PATH),
            ocsp: url(OCSP_PATH),
        });
        StatusRoutes {
            list,
            responder: Responder::new(
                parts.embedded,
                Arc::clone(&base.store),
                Arc::clone(&parts.inbound.directory),
                clock(),
                Arc::clone(&base.metrics),
            ),
            clock: clock(),
        }
    });
    let told = Arc::clone(&parts.server);
    let redeemer = Arc::new(Redeemer::new(
        Arc::clone(&base.store),
        parts.clients,
        clock(),
        Arc::new(Applying(
            Arc::clone(&parts.inbound.directory),
            parts.replicas,
        )),
        EnrollmentTerms {
            endpoint_url: endpoint.to_string(),
            common_name: endpoint.host().to_owned(),
            server_anchors_pem: Arc::new(move || told.current().roots_pem()),
            trust_generation: {
                let trust = parts.trust.clone();
                Arc::new(move || trust.load().generation())
            },
            certificate_lifetime: config.limits.client_certificate,
            checkpoint_key: parts.checkpoint_key.to_hex(),
        },
    ));
    let limits = ListenerLimits {
        handshake_timeout: config.federation.handshake_timeout,
        max_connections: u32::try_from(config.federation.max_connections).unwrap_or(u32::MAX),
    };
    let throttle = Arc::clone(&parts.inbound.throttle);
    let acceptor = Acceptor::new(
        federation,
        federation_tls,
        parts.trust,
        (
            Arc::clone(&throttle.federation),
            Balancers::new(config.federation.balancers.clone()),
        ),
        limits,
        Arc::clone(&base.serving_pauses),
    );
    let (inbound, shutdown, metrics) = (parts.inbound, stopped.clone(), Arc::clone(&base.metrics));
    let drive = move |accepted| serve_connection(Arc::clone(&inbound), accepted, shutdown.clone());
    let observe = move |result, source| {
        metrics.handshake(result);
        tracing::debug!(result = result.as_str(), %source, "handshake");
    };
    listeners.spawn(acceptor.run(drive, observe, stopped.clone(), config.federation.drain));
    listeners.spawn(enrollment::serve(
        enrolling,
        enrollment_tls,
        enrollment::router(Arc::clone(&redeemer), status),
        EnrollmentLimits::default(),
        (
            Arc::clone(&throttle.enrollment),
            Balancers::new(config.enrollment.balancers.clone()),
        ),
        stopped.clone(),
    ));
    let server = Arc::clone(&parts.server);
    let mut stop = stopped.clone();
    listeners.spawn(async move {
        tokio::select! {
            () = server.keep() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    });
    Ok(Serving {
        enrollment_url,
        redeemer,
        server: parts.server,
    })
}

/// The public URL with the port that is really listened on, when it was left to the system.
fn public(
    url: Option<&PublicUrl>,
    address: Option<std::net::SocketAddr>,
) -> Result<PublicUrl, StartError> {
    let url = url.ok_or_else(|| StartError::Internal("a public URL is missing".to_owned()))?;
    Ok(match address {
        Some(address) if url.port() == 0 => url.with_port(address.port()),
        _ => url.clone(),
    })
}
