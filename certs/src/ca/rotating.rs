//! The embedded authority while it runs: its root can be rotated under those who ask it for certificates.
//!
//! Invariant: what is in force is one whole ([`CaRoots`]): who signs for peers, who signs for our own listeners, and the roots that
//! both sides are to trust. Peers' certificates come from the next root as soon as it is trusted; those of our listeners only once
//! every peer knows it. When that is, is decided by the caller.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;

use super::{
    CaError, CertificateAuthority, ClientIssue, EmbeddedCa, IssuedCertificate, ServerIssue,
    embedded::StatusUrls,
};

/// Which roots are in force, for what.
#[derive(Debug, Clone)]
pub struct CaRoots {
    /// Signs for peers.
    pub peers: Arc<EmbeddedCa>,
    /// Signs for our own listeners.
    pub listeners: Arc<EmbeddedCa>,
}

impl CaRoots {
    /// One root for everything.
    #[must_use]
    pub fn one(root: Arc<EmbeddedCa>) -> Self {
        Self {
            peers: Arc::clone(&root),
            listeners: root,
        }
    }

    /// The next root beside the one in force, which our listeners keep.
    #[must_use]
    pub fn both(in_force: Arc<EmbeddedCa>, next: Arc<EmbeddedCa>) -> Self {
        Self {
            peers: next,
            listeners: in_force,
        }
    }
}

/// An embedded authority whose root can be rotated.
pub struct RotatingCa {
    roots: ArcSwap<InForce>,
    /// Where revocations are published, as client certificates say.
    urls: ArcSwapOption<StatusUrls>,
}

struct InForce {
    roots: CaRoots,
    /// What is trusted; that of the listeners first, since peers enroll by its hash.
    anchors: Vec<CertificateDer<'static>>,
}

impl InForce {
    fn of(roots: CaRoots, besides: Option<&EmbeddedCa>) -> Self {
        let mut anchors: Vec<CertificateDer<'static>> = Vec::new();
        let named = [Some(&*roots.listeners), Some(&*roots.peers), besides];
        for ca in named.into_iter().flatten() {
            if !anchors.contains(ca.root()) {
                anchors.push(ca.root().clone());
            }
        }
        Self { roots, anchors }
    }
}

impl RotatingCa {
    /// An authority with these roots in force.
    #[must_use]
    pub fn new(roots: CaRoots) -> Self {
        Self {
            roots: ArcSwap::from_pointee(InForce::of(roots, None)),
            urls: ArcSwapOption::empty(),
        }
    }

    /// Puts other roots in force; `besides` is trusted without signing anything.
    pub fn put(&self, roots: CaRoots, besides: Option<&EmbeddedCa>) {
        if let Some(urls) = self.urls.load_full() {
            roots.peers.say_where(urls);
        }
        self.roots.store(Arc::new(InForce::of(roots, besides)));
    }

    /// Has every client certificate from now on say where revocations are published, whichever root signs it.
    pub fn say_where(&self, urls: StatusUrls) {
        let urls = Arc::new(urls);
        self.urls.store(Some(Arc::clone(&urls)));
        self.roots().peers.say_where(urls);
    }

    /// The roots in force.
    #[must_use]
    pub fn roots(&self) -> CaRoots {
        self.roots.load().roots.clone()
    }
}

impl fmt::Debug for RotatingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatingCa")
            .field("roots", &self.roots.load().roots)
            .finish()
    }
}

#[async_trait]
impl CertificateAuthority for RotatingCa {
    async fn issue_client(&self, request: ClientIssue) -> Result<IssuedCertificate, CaError> {
        self.roots().peers.issue_client(request).await
    }

    async fn issue_server(&self, request: ServerIssue) -> Result<IssuedCertificate, CaError> {
        self.roots().listeners.issue_server(request).await
    }

    fn anchors(&self) -> Vec<CertificateDer<'static>> {
        self.roots.load().anchors.clone()
    }

    fn client_anchors(&self) -> Vec<CertificateDer<'static>> {
        vec![self.roots.load().roots.peers.root().clone()]
    }
}
