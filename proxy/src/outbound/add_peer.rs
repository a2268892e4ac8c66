//! Adding a peer: redeem an enrollment URL, check what comes back, keep it, prove the path.
//!
//! Invariant: everything that can be wrong on this side is checked before the token is spent. Nothing of the
//! answer is kept that was not checked: both private extensions against the ids given with them, the certificate
//! against our own key, the trust bundle, and that the endpoint is on the host that was enrolled with. Peer and
//! credential are stored in one transaction; the key is sealed before it leaves this file. The proof comes last
//! and decides nothing: a peer that cannot be reached yet is kept.
//!
//! `add_peer/error.rs` holds the errors. The serving side is in `enrollment` on purpose: it shares no code with this one but the wire.

mod checked;
mod error;

use std::sync::Arc;

use bytes::Bytes;
use certs::rotation::PeerClock;
use certs::rotation::peer_clock::Said;
use certs::{Clock, PrivateKey, SealPurpose, TrustAnchors};
use http::{Method, StatusCode};
use policy::id::{GrantId, PeerId, SubjectId, UserId};
use policy::peer::PeerName;
use policy::time::UnixMillis;
use rustls::ClientConfig;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::Outbound;
use super::answer::{AnswerLimits, Retagger, Shape};
use super::ask::{note_reply, path_of};
use super::client::{PeerClient, Question, Reply};
use super::endpoint::{Endpoint, EnrollmentUrl, parse_fingerprint};
use super::exchange::{Asked, Exchange, time_ordered_id};
use super::failure::{DoorFailure, PeerError};
use super::fault::AskError;
use super::relay;
use super::route::client_of;
use checked::{Enrolled, EnrollmentAnswer, check_answer};
pub use error::AddPeerError;

use crate::audit::checkpoint::CheckpointVerifier;
use crate::audit::{AuditOutcome, AuditText};
use crate::message::headers::time_of;
use crate::message::target::Route;
use crate::store::{Actor, NewOutboundPeer, OutboundAdded, PeerDirection};

/// Largest enrollment answer, bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// What an operator gives to add a peer. Texts are parsed here, so that every fault is named.
#[derive(Clone)]
pub struct AddPeer {
    /// Who asks for it.
    pub actor: Actor,
    /// The enrollment URL; holds the token.
    pub url: String,
    /// The local user who will ask.
    pub user: String,
    /// The local name of the peer.
    pub name: String,
    /// Where to ask instead of where the peer says.
    pub endpoint: Option<String>,
    /// SHA-256 of the root of the enrollment listener, for a URL without one.
    pub fingerprint: Option<String>,
    /// The root of the enrollment listener, PEM, for a URL without a fingerprint.
    pub trust_root: Option<String>,
}

/// A peer that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddedPeer {
    /// The peer.
    pub peer_id: PeerId,
    /// Its local name.
    pub name: PeerName,
    /// The grant on the peer.
    pub grant_id: GrantId,
    /// The subject on the peer.
    pub subject_user_id: SubjectId,
    /// Where it is asked.
    pub endpoint_url: String,
    /// The name it gives itself.
    pub common_name: String,
    /// End of the certificate, RFC 3339.
    pub certificate_not_after: String,
    /// Whether an earlier credential of the same grant was replaced.
    pub reenrolled: bool,
    /// What `capabilities` answered, when the path was proved.
    pub capabilities: Option<serde_json::Value>,
    /// Why the path was not proved, and what to do; the peer is kept all the same.
    pub unproven: Option<String>,
}

/// The order, parsed.
struct Order {
    actor: Actor,
    url: EnrollmentUrl,
    user: UserId,
    name: PeerName,
    endpoint: Option<Endpoint>,
    config: Arc<ClientConfig>,
}

impl AddPeer {
    fn parse(self, clock: &Arc<dyn Clock>) -> Result<Order, AddPeerError> {
        let url = EnrollmentUrl::parse(&self.url).map_err(AddPeerError::Url)?;
        let name = PeerName::parse(self.name.trim()).map_err(AddPeerError::Name)?;
        let user = UserId::parse(self.user.trim()).map_err(AddPeerError::User)?;
        let endpoint = self
            .endpoint
            .as_deref()
            .map(|text| Endpoint::parse(text.trim()));
        let endpoint = endpoint.transpose().map_err(AddPeerError::Endpoint)?;
        let given = self.fingerprint.as_deref().map(parse_fingerprint);
        let given = given.transpose().map_err(AddPeerError::Fingerprint)?;
        let config = match (url.pin.or(given), self.trust_root) {
            // The same pin said twice is no contradiction.
            (Some(_), None) if url.pin.is_some() && given.is_some() && url.pin != given => {
                return Err(AddPeerError::AmbiguousTrust);
            }
            (Some(_), Some(_)) => return Err(AddPeerError::AmbiguousTrust),
            (Some(pin), None) => certs::tls::pinned_client_config(pin, Arc::clone(clock)),
            (None, Some(pem)) => {
                let anchors =
                    TrustAnchors::from_pem(0, pem.as_bytes()).map_err(AddPeerError::TrustRoot)?;
                certs::tls::anchored_client_config(Arc::new(anchors), Arc::clone(clock))
            }
            (None, None) => return Err(AddPeerError::NoTrust),
        };
        let config = config.map_err(AddPeerError::Tls)?;
        Ok(Order {
            actor: self.actor,
            url,
            user,
            name,
            endpoint,
            config,
        })
    }
}

impl Outbound {
    /// Redeems an enrollment URL and stores the peer; see the top of this file.
    ///
    /// # Errors
    /// [`AddPeerError`], which says whether the token is spent.
    pub async fn add_peer(&self, order: AddPeer) -> Result<AddedPeer, AddPeerError> {
        let order = order.parse(&self.clock)?;
        self.check_name(&order).await?;
        let key = PrivateKey::generate_p256().map_err(AddPeerError::Key)?;
        let csr = key
            .csr_pem(order.name.as_str())
            .map_err(AddPeerError::Key)?;
        let (answer, theirs) = self.redeem(&order, &csr).await?;
        let now = theirs.now(self.clock.unix_millis(), self.clock.boot_nanos());
        let enrolled = check_answer(answer, &order, &key, now.div_euclid(1_000))?;
        let (peer_id, reenrolled) = self.keep(&order, &enrolled, (&key, theirs)).await?;
        let (capabilities, unproven) = match self.prove(&order, &enrolled, peer_id).await {
            Ok(capabilities) => (Some(capabilities), None),
            Err(why) => (None, Some(why)),
        };
        Ok(AddedPeer {
            peer_id,
            name: order.name,
            grant_id: enrolled.grant,
            subject_user_id: enrolled.subject,
            endpoint_url: enrolled.endpoint.to_string(),
            common_name: enrolled.common_name,
            certificate_not_after: enrolled.not_after.rfc3339().to_string(),
            reenrolled,
            capabilities,
            unproven,
        })
    }

    /// A name of another user's peer is refused before the token is spent. The own user's may be the same grant,
    /// enrolled again; the store decides that once the grant is known.
    async fn check_name(&self, order: &Order) -> Result<(), AddPeerError> {
        let unspent = |cause| AddPeerError::Store {
            cause,
            spent: false,
        };
        let found = self
            .store
            .find_peer(PeerDirection::Outbound, &order.name)
            .await
            .map_err(unspent)?;
        let Some(peer) = found else { return Ok(()) };
        let credentials = self
            .store
            .list_outbound_credentials()
            .await
            .map_err(unspent)?;
        let others = credentials
            .iter()
            .any(|one| one.peer == peer.id && one.local_user != order.user);
        if others {
            return Err(AddPeerError::NameTaken(order.name.clone()));
        }
        Ok(())
    }

    /// Redeems the token: the answer, and what it says of the peer's clock.
    async fn redeem(
        &self,
        order: &Order,
        csr_pem: &str,
    ) -> Result<(EnrollmentAnswer, PeerClock), AddPeerError> {
        let listener = &order.url.listener;
        tracing::info!(%listener, token = order.url.token_prefix(), peer = %order.name, "redeeming an enrollment token");
        let client = PeerClient::new(
            listener.clone(),
            Arc::clone(&order.config),
            self.deadlines,
            Arc::clone(&self.clock),
        );
        let question = Question {
            method: Method::POST,
            path: order.url.path().to_string(),
            body: Bytes::from(json!({ "csrPem": csr_pem }).to_string()),
            request_id: time_ordered_id(self.clock.as_ref()).to_string(),
            trace: None,
            // Sent twice it would find its own token spent.
            attempt: 1,
            repeatable: false,
        };
        let unreachable = |fault| match fault {
            AskError::Untrusted => AddPeerError::Untrusted(listener.to_string()),
            fault => AddPeerError::Unreachable {
                listener: listener.to_string(),
                fault,
            },
        };
        let reply = client.ask(&question).await.map_err(unreachable)?;
        let status = reply.head.status;
        let mut theirs = PeerClock::default();
        if let Some((millis, resolution)) = time_of(&reply.head.headers) {
            theirs.hear(Said {
                millis,
                resolution,
                sent: reply.sent,
                received: reply.received,
            });
        }
        let body = reply.body.collect(MAX_ANSWER).await.map_err(unreachable)?;
        let body = body.ok_or(AddPeerError::BadAnswer("it is too long"))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map(|answer| (answer, theirs))
                .map_err(|_| {
                    AddPeerError::BadAnswer("it lacks a part, or an id is not a canonical UUID")
                }),
            StatusCode::NOT_FOUND => Err(AddPeerError::UnknownToken),
            StatusCode::GONE => Err(AddPeerError::TokenSpent),
            _ => Err(AddPeerError::Refused {
                status: status.as_u16(),
                message: PeerError::parse(status, &body)
                    .map_or_else(|| "no reason given".to_owned(), |error| error.message),
            }),
        }
    }

    /// Stores peer and sealed credential in one transaction.
    async fn keep(
        &self,
        order: &Order,
        enrolled: &Enrolled,
        (key, theirs): (&PrivateKey, PeerClock),
    ) -> Result<(PeerId, bool), AddPeerError> {
        let credential_id = Uuid::new_v4();
        let row = credential_id.as_hyphenated().to_string();
        let sealed_key = self
            .sealer
            .seal(SealPurpose::CredentialKey, &row, key.pkcs8())
            .map_err(AddPeerError::Seal)?;
        let (wall, boot) = (self.clock.unix_millis(), self.clock.boot_nanos());
        let peer = NewOutboundPeer {
            only_new: false,
            id: PeerId::new(time_ordered_id(self.clock.as_ref())),
            name: order.name.clone(),
            endpoint_url: enrolled.endpoint.to_string(),
            common_name: enrolled.common_name.clone(),
            trust_bundle_pem: enrolled.trust_bundle_pem.clone(),
            trust_generation: enrolled.trust_generation,
            checkpoint_key: enrolled.checkpoint_key.map(CheckpointVerifier::to_bytes),
            credential_id,
            local_user: order.user.clone(),
            grant: enrolled.grant,
            subject: enrolled.subject,
            chain_pem: enrolled.credential.chain_pem(),
            sealed_key,
            not_after: enrolled.not_after,
            began_at: UnixMillis(theirs.now(wall, boot)),
            skew_ms: theirs.skew(wall, boot),
        };
        let spent = |cause| AddPeerError::Store { cause, spent: true };
        let act = self.act(order.actor.clone());
        let added = self
            .store
            .add_outbound_peer(&act, peer)
            .await
            .map_err(spent)?;
        self.load().await.map_err(spent)?;
        Ok(match added.value {
            OutboundAdded::Created(id) => (id, false),
            OutboundAdded::Reenrolled(id) => (id, true),
        })
    }

    /// One `capabilities` call through the credential just stored, recorded like every question to a peer.
    async fn prove(
        &self,
        order: &Order,
        enrolled: &Enrolled,
        peer: PeerId,
    ) -> Result<serde_json::Value, String> {
        let ready = client_of(
            &enrolled.credential,
            (&enrolled.trust_bundle_pem, enrolled.trust_generation),
            enrolled.endpoint.clone(),
            &self.basis(),
        )
        .map_err(|fault| fault.to_string())?;
        let question = Question {
            method: Method::GET,
            path: path_of(&Route::Capabilities),
            body: Bytes::new(),
            request_id: time_ordered_id(self.clock.as_ref()).to_string(),
            trace: None,
            attempt: 1,
            repeatable: true,
        };
        let name = &order.name;
        let advice = |why: String| {
            format!(
                "{why}; the peer is kept: put that right and try `query capabilities --peer {name}`"
            )
        };
        let unrecorded = |_| advice(DoorFailure::AuditUnavailable.message(name.as_str()));
        let slot = self.audit.reserve().map_err(unrecorded)?;
        let asked = Asked {
            route: &Route::Capabilities,
            body: &[],
            request_id: &question.request_id,
            trace: None,
            spans: &self.spans,
        };
        let mut exchange = Exchange::begin_local(slot, &self.clock, enrolled.subject, &asked);
        exchange.note(|record| {
            record.peer = Some(peer);
            record.grant = Some(enrolled.grant);
            record.cert_serial = Some(AuditText::short(&ready.serial));
        });
        exchange.intend().map_err(unrecorded)?;
        let reply = match ready.client.ask(&question).await {
            Ok(reply) => reply,
            Err(error) => {
                exchange.fail(&DoorFailure::Offline(error));
                let why = format!("{} could not be asked: {error}", enrolled.endpoint);
                return Err(advice(why));
            }
        };
        note_reply(&mut exchange, &reply.head, reply.attempt);
        match capabilities_of(reply).await {
            Ok(capabilities) => {
                exchange.finish(AuditOutcome::Allowed, StatusCode::OK);
                Ok(capabilities)
            }
            Err(failure) => {
                exchange.fail(&failure);
                Err(advice(failure.sentence(name.as_str())))
            }
        }
    }
}

/// Reads the answer to `capabilities` whole.
async fn capabilities_of(reply: Reply) -> Result<serde_json::Value, DoorFailure> {
    let status = reply.head.status;
    if status != StatusCode::OK {
        return Err(relay::refusal(reply).await);
    }
    if !relay::is_plain_json(&reply.head.headers) {
        return Err(DoorFailure::Strange(status));
    }
    let body = reply
        .body
        .collect(MAX_ANSWER)
        .await
        .map_err(DoorFailure::Offline)?;
    let body = body.ok_or(DoorFailure::BadAnswer(super::answer::AnswerFault::TooLarge))?;
    let mut out = Vec::new();
    let mut retagger = Retagger::new(Shape::Plain, "", AnswerLimits::default());
    retagger
        .push(&body, &mut out)
        .and_then(|()| retagger.finish(&mut out))
        .map_err(DoorFailure::BadAnswer)?;
    policy::strict_json::parse_bytes(&out)
        .map_err(|_| DoorFailure::BadAnswer(super::answer::AnswerFault::Malformed))
}

#[cfg(test)]
mod tests;
