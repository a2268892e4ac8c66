//! Who is asking: the connection's certificate, looked at again for every request.
//!
//! Invariant: a connection outlives certificates, grants and trust, so nothing learnt at the
//! handshake is enough by itself (specification, section 2). The order of the checks is the
//! specification's: the first that fails answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use certs::clock::{Clock, unix_time};
use certs::crl::{CrlRefusal, IssuerKey};
use certs::identity::issued_by;
use certs::{
    ChainError, CrlReceiver, IdentityError, PeerIdentity, RevokedReceiver, Serial, TrustReceiver,
    verify_chain,
};
use policy::deny::DenyCode;
use policy::evaluate::identify;
use policy::id::{GrantId, SubjectId};
use policy::snapshot::GrantEntry;
use policy::time::UnixMillis;
use rustls_pki_types::CertificateDer;

use crate::audit::history::{HistoryCell, HistoryPublisher};
use crate::directory::{Directory, View};
use crate::store::{CertificateState, Sha256};
use crate::transport::gate::Registration;
use crate::transport::{AcceptedConnection, ConnectionGate, MtlsStream};

/// A federation connection, as its requests see it.
pub struct Connection {
    /// The gate under its TLS.
    pub gate: Arc<ConnectionGate>,
    /// Where it comes from.
    pub source: SocketAddr,
    /// What answers to it carry of its grant's history.
    pub history: Option<Arc<HistoryCell>>,
    /// The newest generation of trust that was acknowledged on it, and is stored.
    pub acknowledged: AtomicU64,
    identity: Result<ArcSwap<PeerIdentity>, IdentityError>,
    chain: Vec<CertificateDer<'static>>,
    /// What revocation lists know the certificates above the leaf by.
    above: Vec<(IssuerKey, Serial)>,
    _registration: Option<Registration>,
}

impl Connection {
    /// Takes over an accepted connection: decodes its identity once and registers it under its
    /// grant, before its first request can take a snapshot.
    #[must_use]
    pub fn open(
        accepted: AcceptedConnection,
        directory: &Directory,
        histories: &HistoryPublisher,
    ) -> (Self, MtlsStream) {
        let generation = accepted.trust_generation;
        let leaf = accepted.chain.first().map_or(&[][..], AsRef::as_ref);
        let identity = PeerIdentity::decode(leaf, generation);
        let registration = identity.as_ref().ok().map(|identity| {
            directory
                .gates()
                .register(GrantId::from(identity.grant), &accepted.gate)
        });
        let grant = identity.as_ref().ok().map(|identity| identity.grant);
        let connection = Self {
            history: grant.map(|grant| histories.open(GrantId::from(grant))),
            gate: accepted.gate,
            source: accepted.source,
            identity: identity.map(ArcSwap::from_pointee),
            above: accepted
                .chain
                .iter()
                .skip(1)
                .filter_map(|der| issued_by(der))
                .collect(),
            chain: accepted.chain,
            acknowledged: AtomicU64::new(0),
            _registration: registration,
        };
        (connection, accepted.stream)
    }

    /// The identity of the certificate, when it has one.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<PeerIdentity>> {
        self.identity
            .as_ref()
            .ok()
            .map(|identity| identity.load_full())
    }
}

/// The live parts that authentication reads.
pub struct Authenticator {
    /// Anchors in force.
    pub trust: TrustReceiver,
    /// Certificates known revoked.
    pub revoked: RevokedReceiver,
    /// Revocation lists in force.
    pub lists: CrlReceiver,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The proof that a request comes from the holder of a grant in force.
pub struct Authenticated {
    /// The grant, its peer and its effective rules.
    pub entry: Arc<GrantEntry>,
    /// The instant it was proved at.
    pub now: UnixMillis,
    /// Fingerprint of the certificate, when this is its first use.
    pub unconfirmed: Option<Sha256>,
}

impl Authenticator {
    /// Proves that `connection` may use its grant under `view`, now.
    ///
    /// # Errors
    /// The first check of the specification, section 2, that fails.
    pub fn authenticate(
        &self,
        connection: &Connection,
        view: &View,
    ) -> Result<Authenticated, DenyCode> {
        let Ok(held) = &connection.identity else {
            return Err(DenyCode::IdentityMalformed);
        };
        let now = UnixMillis(self.clock.unix_millis());
        let identity = held.load();
        let grant = GrantId::from(identity.grant);
        if view.snapshot.grant(grant).is_none() {
            return Err(DenyCode::GrantUnknown);
        }
        let Some(leaf) = view.leaf(grant, &identity.fingerprint) else {
            return Err(DenyCode::CertificateUnregistered);
        };
        let entry = identify(
            &view.snapshot,
            grant,
            SubjectId::from(identity.subject),
            now,
        )
        .map_err(|deny| deny.code())?;
        // not_after is a whole second and inclusive (RFC 5280, section 4.1.2.5).
        if now.0.div_euclid(1000) > identity.not_after {
            return Err(DenyCode::CertificateExpired);
        }
        match leaf.state_at(now) {
            CertificateState::Active => {}
            CertificateState::Superseded => return Err(DenyCode::CertificateSuperseded),
            CertificateState::Revoked => return Err(DenyCode::CertificateRevoked),
        }
        self.check_lists(connection, &identity, now)?;
        self.keep_trusted(connection, &identity, now)?;
        Ok(Authenticated {
            entry: Arc::clone(entry),
            now,
            unconfirmed: (!leaf.is_confirmed).then_some(leaf.fingerprint),
        })
    }

    /// Looks the certificates up in the revocation lists: rows come first, lists second.
    fn check_lists(
        &self,
        connection: &Connection,
        identity: &PeerIdentity,
        now: UnixMillis,
    ) -> Result<(), DenyCode> {
        let lists = self.lists.load();
        let refused = |refusal| match refusal {
            CrlRefusal::Revoked(_) => DenyCode::CertificateRevoked,
            CrlRefusal::Missing | CrlRefusal::TooOld { .. } => DenyCode::CrlUnavailable,
        };
        for (issuer, serial) in &connection.above {
            lists.check_listed(issuer, serial).map_err(refused)?;
        }
        let seconds = now.0.div_euclid(1000);
        lists
            .check(&identity.issuer, &identity.serial, seconds)
            .map_err(refused)
    }

    /// Verifies the kept chain again when the trust anchors have changed since it was verified.
    fn keep_trusted(
        &self,
        connection: &Connection,
        identity: &PeerIdentity,
        now: UnixMillis,
    ) -> Result<(), DenyCode> {
        let anchors = self.trust.load();
        if anchors.generation() == identity.trust_generation {
            return Ok(());
        }
        let at = unix_time(now.0.div_euclid(1000));
        verify_chain(&connection.chain, &anchors, &self.revoked.load(), at).map_err(|error| {
            match error {
                ChainError::Expired { .. } => DenyCode::CertificateExpired,
                ChainError::Revoked => DenyCode::CertificateRevoked,
                _ => DenyCode::CertificateUntrusted,
            }
        })?;
        if let Ok(held) = &connection.identity {
            held.store(Arc::new(identity.clone().reverified(anchors.generation())));
        }
        Ok(())
    }
}
