//! Renewal of the certificates that peers ask with: another one for the same grant, and its first use.
//!
//! Invariant: one grant is dealt with at a time, and what was begun runs to its end even when the peer hangs up. A new
//! certificate is unconfirmed until its first request, which is written down before that is answered; so the one
//! before it ends only once the new one is known to have arrived. A request from any but the newest confirmed
//! certificate is refused and alarmed: only a copied key or a restored backup makes one (the specification, 4.4).
//!
//! Who asks is proved before anything here is called, by `authenticate.rs`. What is stored is in `store/renewal.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use certs::clock::{Clock, unix_time};
use certs::trust::certificate_to_pem;
use certs::verify::verify_chain;
use certs::{
    CertificateAuthority, ClientIssue, IssuedCertificate, PeerIdentity, RevokedSet, TrustAnchors,
    TrustReceiver, VerifiedCsr,
};
use parking_lot::Mutex;
use policy::deny::DenyCode;
use policy::id::GrantId;
use policy::peer::PeerName;
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use uuid::Uuid;

use crate::audit::record_id;
use crate::directory::Directory;
use crate::message::failure::Failure;
use crate::replicas::Replicas;
use crate::store::{
    Act, Actor, EnrolledCertificate, KnownCertificate, RenewalRequest, RenewalStart,
    RenewedCertificate, Sha256, Store, StoreError,
};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ServedRenewal;
use crate::telemetry::steps::{RenewalStep, Told};

const MILLIS_PER_SECOND: i64 = 1_000;
/// The generation of trust roots that a side begins with.
const FIRST_GENERATION: u64 = 1;

/// What certificates are renewed with.
pub struct RenewalParts {
    /// Where they are registered.
    pub store: Arc<dyn Store>,
    /// Who signs them.
    pub authority: Arc<dyn CertificateAuthority>,
    /// What requests are decided by.
    pub directory: Arc<Directory>,
    /// Those who answer for this side besides this process.
    pub replicas: Arc<Replicas>,
    /// The anchors in force, for their generation.
    pub trust: TrustReceiver,
    /// The anchors in force of this side's server certificates, PEM.
    pub server_anchors_pem: Box<dyn Fn() -> String + Send + Sync>,
    /// How long a certificate is good for; the grant's end cuts it short.
    pub lifetime: Duration,
    /// For how long the one before it is good too, from the first use of the new one.
    pub overlap: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counted events.
    pub metrics: Arc<Metrics>,
    /// Is told of the steps.
    pub told: Told,
}

/// Renews certificates and confirms them.
pub struct Renewals {
    parts: RenewalParts,
    turns: Mutex<HashMap<GrantId, Arc<tokio::sync::Mutex<()>>>>,
}

/// The answer to `renew` (the specification, section 3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RenewAnswer {
    /// The certificate, PEM.
    cert_pem: String,
    /// The certificate and its intermediates, PEM, without the root.
    cert_chain_pem: String,
    /// End of validity, RFC 3339.
    not_after: String,
    /// The anchors of this side's server certificates, PEM.
    trust_bundle_pem: String,
    /// Their generation.
    trust_generation: u64,
}

/// One request for renewal, whose sender is proved.
struct Asked {
    entry: Arc<GrantEntry>,
    serial: String,
    request: RenewalRequest,
    csr: VerifiedCsr,
}

impl Renewals {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: RenewalParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            turns: Mutex::default(),
        })
    }

    /// Notes the first use of a certificate, which has passed every check of its identity. Returns when requests are
    /// decided by that; what has become of the certificate meanwhile is for the caller to look at again.
    ///
    /// # Errors
    /// [`DenyCode::RenewalUnavailable`] when it could not be written down: the certificate before it would be good
    /// for longer than it may.
    pub async fn confirm(
        &self,
        peer: &PeerName,
        grant: GrantId,
        fingerprint: &Sha256,
    ) -> Result<(), DenyCode> {
        let turn = self.turn(grant);
        let _one = turn.lock().await;
        let view = self.parts.directory.view();
        let known = view.leaf(grant, fingerprint);
        if known.is_none_or(|leaf| leaf.is_confirmed) {
            return Ok(());
        }
        let act = self.act(peer);
        let overlap = self.parts.overlap;
        (self.parts.told)(RenewalStep::Used);
        let confirmed = self
            .parts
            .store
            .confirm_certificate(&act, grant, fingerprint, overlap)
            .await;
        match confirmed {
            Ok(committed) => {
                (self.parts.told)(RenewalStep::Confirmed);
                if committed.changed {
                    tracing::info!(%peer, %grant, "a renewed certificate is in use");
                }
            }
            // It was revoked or replaced: the next look says so.
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
            Err(error) => {
                tracing::error!(%peer, %grant, %error, "the first use of a certificate could not be written down");
                return Err(DenyCode::RenewalUnavailable);
            }
        }
        self.apply().await?;
        (self.parts.told)(RenewalStep::TakenOver);
        Ok(())
    }

    /// The generation of our trust roots, for answers to carry; `None` as long as it is the first, which everybody has.
    #[must_use]
    pub fn told_generation(&self) -> Option<u64> {
        let generation = self.parts.trust.load().generation();
        (generation > FIRST_GENERATION).then_some(generation)
    }

    /// Stores that the holder of a grant has a generation of our trust roots. False when that could not be done: it is to
    /// be tried with the next request. A generation that is not the one in force says nothing.
    pub async fn acknowledge(&self, entry: &GrantEntry, generation: u64) -> bool {
        if generation != self.parts.trust.load().generation() {
            return true;
        }
        let (peer, grant) = (&entry.peer.name, entry.grant.id);
        let act = self.act(peer);
        let stored = self.parts.store.acknowledge_trust(&act, grant, generation);
        match stored.await {
            Ok(committed) => {
                if committed.changed {
                    tracing::info!(%peer, %grant, generation, "a peer has taken over our trust roots");
                }
                true
            }
            Err(error) => {
                tracing::warn!(%peer, %grant, %error, "an acknowledgement of our trust roots could not be stored");
                false
            }
        }
    }

    /// Answers `renew` for the holder of `presented`: the body of the answer.
    ///
    /// # Errors
    /// [`Failure`] with `InvalidCsr`, `RenewalConflict` or `RenewalUnavailable`.
    pub async fn renew(
        self: &Arc<Self>,
        entry: &Arc<GrantEntry>,
        presented: &PeerIdentity,
        csr_pem: &str,
    ) -> Result<Vec<u8>, Failure> {
        let csr = VerifiedCsr::parse(csr_pem).map_err(|error| {
            self.parts.metrics.renewal_served(ServedRenewal::Refused);
            Failure::saying(DenyCode::InvalidCsr, error.to_string())
        })?;
        let asked = Asked {
            entry: Arc::clone(entry),
            serial: presented.serial.as_str().to_owned(),
            request: RenewalRequest {
                intent: self.draw_id(),
                grant: entry.grant.id,
                presented: presented.fingerprint,
                csr_sha256: csr.sha256(),
            },
            csr,
        };
        let this = Arc::clone(self);
        // A task of its own: the peer hanging up must not stop an act between intent and commit.
        let act = tokio::spawn(async move { this.renew_whole(asked).await });
        act.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a renewal broke off");
            Err(DenyCode::RenewalUnavailable.into())
        })
    }

    async fn renew_whole(&self, asked: Asked) -> Result<Vec<u8>, Failure> {
        let turn = self.turn(asked.entry.grant.id);
        let _one = turn.lock().await;
        let metrics = &self.parts.metrics;
        let peer = &asked.entry.peer.name;
        (self.parts.told)(RenewalStep::Asked);
        let began = self
            .parts
            .store
            .begin_renewal(&self.act(peer), asked.request)
            .await
            .map_err(|error| self.failed(&asked, &error))?;
        match began.value {
            RenewalStart::Known(known) => {
                metrics.renewal_served(ServedRenewal::Known);
                let generation = self.generation_of(&known);
                let leaf = CertificateDer::from(known.der);
                Ok(self.answer(&leaf, known.chain_pem, known.not_after, generation))
            }
            RenewalStart::Spent => {
                metrics.renewal_served(ServedRenewal::Refused);
                Err(Failure::saying(
                    DenyCode::InvalidCsr,
                    "the certificate of this request was revoked; make a new key and request",
                ))
            }
            RenewalStart::Outdated => Err(self.conflict(&asked).await),
            RenewalStart::Issue => {
                let issued = self.issue(&asked).await?;
                metrics.renewal_served(ServedRenewal::Issued);
                tracing::info!(%peer, grant = %asked.entry.grant.id, not_after = issued.not_after(), "certificate renewed");
                let end = seconds(issued.not_after());
                let generation = self.parts.trust.load().generation();
                Ok(self.answer(issued.leaf(), issued.chain_pem(), end, generation))
            }
        }
    }

    /// Signs and registers; an intent that leads nowhere is closed with why.
    async fn issue(&self, asked: &Asked) -> Result<IssuedCertificate, Failure> {
        (self.parts.told)(RenewalStep::Intended);
        let grant = &asked.entry.grant;
        let request = ClientIssue {
            id: asked.request.intent,
            csr: asked.csr.clone(),
            grant: grant.id.uuid(),
            subject: grant.subject.uuid(),
            lifetime: self.parts.lifetime,
            not_after_cap: grant
                .ends_at()
                .map(|end| end.0.div_euclid(MILLIS_PER_SECOND)),
            now: self.parts.clock.unix_seconds(),
        };
        let issued = match self.parts.authority.issue_client(request).await {
            Ok(issued) => issued,
            Err(error) => return Err(self.broke(asked, &error).await),
        };
        let renewed = RenewedCertificate {
            request: asked.request,
            certificate: EnrolledCertificate {
                fingerprint: issued.fingerprint(),
                serial: issued.serial().as_str().to_owned(),
                not_before: seconds(issued.not_before()),
                not_after: seconds(issued.not_after()),
                der: issued.leaf().as_ref().to_vec(),
            },
            chain_pem: issued.chain_pem(),
        };
        (self.parts.told)(RenewalStep::Signed);
        let act = self.act(&asked.entry.peer.name);
        let certificate = renewed.certificate.clone();
        // One that cannot be registered opens nothing, and is revoked all the same.
        if let Err(error) = self.parts.store.complete_renewal(&act, renewed).await {
            let (act, store) = (self.act(&asked.entry.peer.name), &self.parts.store);
            if let Err(error) = store.register_revoked(&act, grant.id, &certificate).await {
                tracing::error!(%error, serial = certificate.serial, "a certificate that was issued in vain could not be registered as revoked; it opens nothing here");
            }
            // The published list names it with this.
            let _told = self.apply().await;
            return Err(self.broke(asked, &error).await);
        }
        (self.parts.told)(RenewalStep::Registered);
        let revision = self.apply().await?;
        self.parts.replicas.until_followed(revision).await;
        (self.parts.told)(RenewalStep::InForce);
        Ok(issued)
    }

    /// A request that had an intent and gets no certificate.
    async fn broke(&self, asked: &Asked, error: &(dyn std::fmt::Display + Sync)) -> Failure {
        let (act, intent) = (self.act(&asked.entry.peer.name), asked.request.intent);
        let why = error.to_string();
        if let Err(error) = self.parts.store.fail_issue_intent(&act, intent, &why).await {
            tracing::error!(%intent, %error, "a failed renewal could not be recorded as failed");
        }
        self.failed(asked, &why)
    }

    fn failed(&self, asked: &Asked, why: &dyn std::fmt::Display) -> Failure {
        tracing::error!(peer = %asked.entry.peer.name, grant = %asked.entry.grant.id, %why, "a certificate could not be renewed");
        self.parts.metrics.renewal_served(ServedRenewal::Failed);
        DenyCode::RenewalUnavailable.into()
    }

    /// Somebody has a key that is no longer the newest: refused, alarmed, and the peer suspended where policy says so.
    async fn conflict(&self, asked: &Asked) -> Failure {
        let peer = &asked.entry.peer;
        self.parts.metrics.renewal_served(ServedRenewal::Conflict);
        let suspends = {
            let view = self.parts.directory.view();
            view.snapshot
                .rules()
                .suspends_on_renewal_conflict(&peer.name)
        };
        tracing::error!(
            peer = %peer.name, grant = %asked.entry.grant.id, serial = asked.serial, suspends,
            "renewal conflict: an earlier certificate asks for another one; a key may have been copied, or the peer was restored from a backup"
        );
        if suspends {
            let act = Act {
                actor: Actor::Sidecar("renewal-conflict"),
                ..self.act(&peer.name)
            };
            match self.parts.store.suspend_peer(&act, peer.id).await {
                // What that takes away is in force with the refresh; leases that are out end by themselves.
                Ok(_) => drop(self.apply().await),
                Err(error) => {
                    tracing::error!(peer = %peer.name, %error, "the peer could not be suspended");
                }
            }
        }
        DenyCode::RenewalConflict.into()
    }

    /// The generation of trust to give with a certificate that was issued before. One whose root signs no more comes with the
    /// generation before: its holder then renews again at once, instead of when it is due, and the old root can go.
    fn generation_of(&self, known: &KnownCertificate) -> u64 {
        let generation = self.parts.trust.load().generation();
        let signing = TrustAnchors::new(generation, self.parts.authority.client_anchors());
        let at = unix_time(self.parts.clock.unix_seconds());
        let is_current = signing.is_ok_and(|signing| {
            let chain = CertificateDer::pem_slice_iter(known.chain_pem.as_bytes()).flatten();
            let chain: Vec<_> = chain.collect();
            verify_chain(&chain, &signing, &RevokedSet::default(), at).is_ok()
        });
        if is_current {
            generation
        } else {
            generation.saturating_sub(1).max(FIRST_GENERATION)
        }
    }

    /// `trust_generation` is read before the roots: newer roots under an older generation do no harm, the other way round they would.
    fn answer(
        &self,
        leaf: &CertificateDer<'_>,
        chain_pem: String,
        not_after: UnixMillis,
        trust_generation: u64,
    ) -> Vec<u8> {
        let answer = RenewAnswer {
            cert_pem: certificate_to_pem(leaf),
            cert_chain_pem: chain_pem,
            not_after: not_after.rfc3339().to_string(),
            trust_bundle_pem: (self.parts.server_anchors_pem)(),
            trust_generation,
        };
        // A struct of texts and a number always has a JSON form.
        serde_json::to_vec(&answer).unwrap_or_default()
    }

    /// Brings what requests are decided by up to date; to which revision.
    async fn apply(&self) -> Result<u64, DenyCode> {
        match self.parts.directory.refresh().await {
            Ok(applied) => Ok(applied.revision),
            Err(error) => {
                tracing::error!(%error, "a change of certificates is not in force yet");
                Err(DenyCode::RenewalUnavailable)
            }
        }
    }

    fn turn(&self, grant: GrantId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(grant).or_default())
    }

    fn act(&self, peer: &PeerName) -> Act {
        Act {
            id: self.draw_id(),
            actor: Actor::Peer { name: peer.clone() },
            now: UnixMillis(self.parts.clock.unix_millis()),
        }
    }

    fn draw_id(&self) -> Uuid {
        record_id(UnixMillis(self.parts.clock.unix_millis()))
    }
}

fn seconds(unix: i64) -> UnixMillis {
    UnixMillis(unix.saturating_mul(MILLIS_PER_SECOND))
}
