//! One try to renew a credential.
//!
//! 1. *begin*: a key is made and stored, sealed, with its request; where that was done before, it is taken up again.
//! 2. *ask*: the request goes to the peer under the credential in use. It may be sent any number of times: the peer
//!    answers the same request with the same certificate.
//! 3. *keep*: what came is checked and stored. Only from here on may it be used, since its first use ends the one
//!    before it after a while.
//! 4. *prove*: one `capabilities` call with it. An answer that says that it will never do gives the renewal up, so
//!    that the next try begins with another key; any other failure leaves it for the next try.
//! 5. *finish*: it takes the place of the one in use, in one transaction. What is kept of answers and leases under the
//!    old one is dropped with its route, and so are its idle connections.
//!
//! Invariant: each request leaves its audit record, and its intent in the journal before it goes out.

use std::sync::Arc;

use bytes::Bytes;
use certs::{Credential, PrivateKey, SealPurpose};
use http::{Method, StatusCode};
use policy::time::UnixMillis;
use rustls::AlertDescription;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::RenewError;
use crate::audit::{AuditOutcome, AuditText};
use crate::message::target::Route;
use crate::outbound::Outbound;
use crate::outbound::ask::{note_reply, path_of};
use crate::outbound::client::{PeerClient, Question, Reply};
use crate::outbound::exchange::{Asked, Exchange, time_ordered_id};
use crate::outbound::failure::{DoorFailure, PeerError};
use crate::outbound::fault::AskError;
use crate::outbound::issued::{Issued, IssuedParts};
use crate::outbound::route::{PeerRoute, client_of};
use crate::outbound::{relay, state};
use crate::store::{Actor, Contact, IssuedRenewal, NewRenewal, StoreError};
use crate::telemetry::steps::RenewalStep;

/// Largest answer, bytes.
const MAX_ANSWER: usize = 256 * 1024;
const MILLIS_PER_SECOND: i64 = 1_000;

/// The answer of the serving side, as it comes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewAnswer {
    cert_pem: String,
    cert_chain_pem: String,
    trust_bundle_pem: String,
    /// Absent from a peer that counts none.
    #[serde(default = "first_generation")]
    trust_generation: u64,
}

/// The generation of trust roots that every side begins with.
const fn first_generation() -> u64 {
    1
}

/// Renews the credential of `route`; the end of the new one.
///
/// # Errors
/// [`RenewError`]; the credential in use stays.
pub(super) async fn renew(
    outbound: &Outbound,
    route: &Arc<PeerRoute>,
    actor: &Actor,
) -> Result<UnixMillis, RenewError> {
    let store = &outbound.store;
    let found = store.outbound_renewal(route.credential).await?;
    // What was issued for an earlier try may be older than what the peer has told of since.
    let is_resumed = found.is_some();
    let pending = match found {
        Some(pending) => pending,
        None => {
            begin(outbound, route, actor).await?;
            (outbound.told)(RenewalStep::RequestKept);
            let begun = store.outbound_renewal(route.credential).await?;
            begun.ok_or(RenewError::Overtaken)?
        }
    };
    let key = match open(outbound, &pending.new) {
        Ok(key) => key,
        Err(why) => {
            give_up(outbound, route, &why).await?;
            return Err(RenewError::Unusable(why));
        }
    };
    let issued = match pending.issued {
        Some(issued) => issued,
        None => {
            let answer = ask(outbound, route, &pending.new.csr_pem).await?;
            let issued = check(outbound, route, answer, &key)?;
            (outbound.told)(RenewalStep::Answered);
            let act = outbound.act(actor.clone());
            let kept = store.keep_renewed(&act, route.credential, issued.clone());
            drop(kept.await.map_err(overtaken)?);
            (outbound.told)(RenewalStep::AnswerKept);
            issued
        }
    };
    let chain = issued.chain_pem.as_bytes();
    let credential = Credential::from_pem(chain, key.to_pem().as_bytes());
    let credential = credential.map_err(|error| RenewError::Unusable(error.to_string()))?;
    let trust = (issued.trust_bundle_pem.as_str(), issued.trust_generation);
    if let Err(unproven) = prove(outbound, route, &credential, trust).await {
        if unproven.is_final {
            give_up(outbound, route, &unproven.error.to_string()).await?;
        }
        return Err(unproven.error);
    }
    (outbound.told)(RenewalStep::Proved);
    let (wall, boot) = (outbound.clock.unix_millis(), outbound.clock.boot_nanos());
    let skew = route.their_clock().skew(wall, boot);
    let act = outbound.act(actor.clone());
    let finished = store.finish_outbound_renewal(&act, route.credential, skew);
    drop(finished.await.map_err(overtaken)?);
    (outbound.told)(RenewalStep::Exchanged);
    if !is_resumed {
        route.note_renewed();
    }
    outbound.load().await?;
    (outbound.told)(RenewalStep::InUse);
    if let Ok(old) = &route.client {
        old.client.close_idle();
    }
    outbound.warm_up(Some(&route.user));
    tracing::info!(
        peer = %route.name, grant = %route.grant, serial = credential.serial().as_str(), expires = %issued.not_after,
        "the certificate for a peer was renewed"
    );
    Ok(issued.not_after)
}

/// Makes key and request and stores them.
async fn begin(outbound: &Outbound, route: &PeerRoute, actor: &Actor) -> Result<(), RenewError> {
    let unusable = |why: &dyn std::fmt::Display| RenewError::Unusable(why.to_string());
    let key = PrivateKey::generate_p256().map_err(|error| unusable(&error))?;
    let csr_pem = key
        .csr_pem(route.name.as_str())
        .map_err(|error| unusable(&error))?;
    let id = Uuid::new_v4();
    let row = id.as_hyphenated().to_string();
    let sealed_key = outbound
        .sealer
        .seal(SealPurpose::CredentialKey, &row, key.pkcs8())
        .map_err(|error| unusable(&error))?;
    let renewal = NewRenewal {
        credential: route.credential,
        id,
        sealed_key,
        csr_pem,
    };
    let act = outbound.act(actor.clone());
    let begun = outbound.store.begin_outbound_renewal(&act, renewal).await;
    begun.map(drop).map_err(overtaken)
}

fn open(outbound: &Outbound, renewal: &NewRenewal) -> Result<PrivateKey, String> {
    let row = renewal.id.as_hyphenated().to_string();
    let key = outbound
        .sealer
        .unseal(SealPurpose::CredentialKey, &row, &renewal.sealed_key)
        .map_err(|error| error.to_string())?;
    PrivateKey::from_pkcs8(key).map_err(|error| error.to_string())
}

/// What a store says that no longer knows the renewal: an operator was quicker.
fn overtaken(error: StoreError) -> RenewError {
    match error {
        StoreError::Conflict { .. } | StoreError::NotFound { .. } => RenewError::Overtaken,
        other => RenewError::Store(other),
    }
}

async fn give_up(outbound: &Outbound, route: &PeerRoute, why: &str) -> Result<(), RenewError> {
    tracing::warn!(peer = %route.name, why, "a renewal is given up; the next try begins with another key");
    let act = outbound.act(Actor::Sidecar("renewal"));
    let dropped = outbound
        .store
        .drop_outbound_renewal(&act, route.credential, why);
    dropped.await.map(drop).map_err(RenewError::Store)
}

/// Puts the request to the peer.
async fn ask(
    outbound: &Outbound,
    route: &PeerRoute,
    csr_pem: &str,
) -> Result<RenewAnswer, RenewError> {
    let client = match &route.client {
        Ok(ready) => &ready.client,
        Err(fault) => return Err(RenewError::Unusable(fault.to_string())),
    };
    let body = Bytes::from(json!({ "csrPem": csr_pem }).to_string());
    let sent = Sent {
        outbound,
        route,
        verb: Route::Renew,
        serial: None,
    };
    let answered = sent.put(client, Method::POST, body).await;
    match answered {
        Ok(body) => serde_json::from_slice(&body)
            .map_err(|_| RenewError::BadAnswer("it is not the answer to a renewal")),
        Err(Unanswered::Refused(status, error)) => {
            let reason = error.forbidden_reason();
            let learned = state::learned_from_answer(status, reason);
            outbound
                .learn(route, learned, reason.unwrap_or_default())
                .await;
            if error
                .details
                .get("reason")
                .and_then(|reason| reason.as_str())
                == Some("invalid_csr")
            {
                give_up(outbound, route, &error.message).await?;
            }
            Err(refused(status, error))
        }
        Err(Unanswered::Silent(error)) => {
            let learned = state::learned_from_alert(error.alert());
            outbound.learn(route, learned, error.reason()).await;
            Err(RenewError::Offline(error))
        }
        Err(Unanswered::Failed(error)) => Err(error),
    }
}

fn refused(status: StatusCode, error: PeerError) -> RenewError {
    let reason = error
        .details
        .get("reason")
        .and_then(|reason| reason.as_str());
    RenewError::Refused {
        status: status.as_u16(),
        reason: reason.map(|reason| AuditText::short(reason).as_str().to_owned()),
        message: error.message,
    }
}

/// Checks what came against what was asked for.
fn check(
    outbound: &Outbound,
    route: &PeerRoute,
    answer: RenewAnswer,
    key: &PrivateKey,
) -> Result<IssuedRenewal, RenewError> {
    let parts = IssuedParts {
        cert: &answer.cert_pem,
        chain: &answer.cert_chain_pem,
        trust_bundle: &answer.trust_bundle_pem,
    };
    let now = UnixMillis(route.their_now(outbound.clock.as_ref()));
    let issued = Issued::check(&parts, key, now.0.div_euclid(MILLIS_PER_SECOND))
        .map_err(RenewError::BadAnswer)?;
    let identity = &issued.identity;
    if identity.grant != route.grant.uuid() || identity.subject != route.subject.uuid() {
        return Err(RenewError::BadAnswer(
            "the certificate is for another grant or subject",
        ));
    }
    Ok(IssuedRenewal {
        chain_pem: issued.credential.chain_pem(),
        trust_bundle_pem: answer.trust_bundle_pem,
        trust_generation: answer.trust_generation.max(first_generation()),
        not_after: UnixMillis(identity.not_after.saturating_mul(MILLIS_PER_SECOND)),
        began_at: now,
    })
}

/// A new credential that was not answered to.
struct Unproven {
    error: RenewError,
    /// Whether it never will be.
    is_final: bool,
}

/// Asks once with the new credential and the new anchors.
async fn prove(
    outbound: &Outbound,
    route: &PeerRoute,
    credential: &Credential,
    trust: (&str, u64),
) -> Result<(), Unproven> {
    let unproven = |why: String, is_final| Unproven {
        error: RenewError::Unproven(why),
        is_final,
    };
    let endpoint = route.endpoint.clone();
    let endpoint =
        endpoint.ok_or_else(|| unproven("the endpoint does not parse".to_owned(), false))?;
    let ready = client_of(credential, trust, endpoint, &outbound.basis())
        .map_err(|fault| unproven(fault.to_string(), false))?;
    let sent = Sent {
        outbound,
        route,
        verb: Route::Capabilities,
        serial: Some(ready.serial.clone()),
    };
    match sent.put(&ready.client, Method::GET, Bytes::new()).await {
        Ok(_) => {
            route.reach.contacted();
            Ok(())
        }
        Err(Unanswered::Refused(status, error)) => {
            // A suspension is lifted again; every other word about the identity is about this certificate.
            let is_final = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && error.forbidden_reason() != Some("peer_suspended");
            Err(unproven(refused(status, error).to_string(), is_final))
        }
        Err(Unanswered::Silent(error)) => {
            let is_final = matches!(
                error.alert(),
                Some(
                    AlertDescription::CertificateRevoked
                        | AlertDescription::CertificateExpired
                        | AlertDescription::UnknownCA
                )
            );
            Err(unproven(error.to_string(), is_final))
        }
        Err(Unanswered::Failed(error)) => Err(Unproven {
            error,
            is_final: false,
        }),
    }
}

/// A request that got no 200.
enum Unanswered {
    Refused(StatusCode, PeerError),
    Silent(AskError),
    Failed(RenewError),
}

/// A request of this file, with what its record says of it.
struct Sent<'a> {
    outbound: &'a Outbound,
    route: &'a PeerRoute,
    verb: Route,
    /// Serial of the certificate, where it is not that of the route.
    serial: Option<String>,
}

impl Sent<'_> {
    /// Sends it; the body of the 200.
    async fn put(
        &self,
        client: &PeerClient,
        method: Method,
        body: Bytes,
    ) -> Result<Vec<u8>, Unanswered> {
        let outbound = self.outbound;
        let request_id = time_ordered_id(outbound.clock.as_ref()).to_string();
        let mut exchange = self.begin(&body, &request_id).map_err(Unanswered::Failed)?;
        let question = Question {
            method,
            path: path_of(&self.verb),
            body,
            request_id,
            trace: None,
            attempt: 1,
            repeatable: true,
        };
        let reply = match client.ask(&question).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.silent(&mut exchange, error).await),
        };
        self.route
            .hear(&reply.head.headers, reply.sent, reply.received);
        note_reply(&mut exchange, &reply.head, reply.attempt);
        let contact = Contact::Success;
        if reply.head.status == StatusCode::OK {
            return self.read(reply, exchange, contact).await;
        }
        let status = reply.head.status;
        let failure = relay::refusal(reply).await;
        exchange.fail(&failure);
        outbound.record_contact(self.route, contact).await;
        match failure {
            DoorFailure::Peer(error) => Err(Unanswered::Refused(status, error)),
            DoorFailure::Offline(error) => Err(Unanswered::Silent(error)),
            _ => Err(Unanswered::Failed(RenewError::BadAnswer(
                "it is not of the protocol",
            ))),
        }
    }

    async fn read(
        &self,
        reply: Reply,
        mut exchange: Exchange,
        contact: Contact,
    ) -> Result<Vec<u8>, Unanswered> {
        let plain = relay::is_plain_json(&reply.head.headers);
        let body = match reply.body.collect(MAX_ANSWER).await {
            Ok(Some(body)) if plain => body,
            Ok(_) => {
                exchange.fail(&DoorFailure::Strange(StatusCode::OK));
                let error = RenewError::BadAnswer("it is too long, or not JSON");
                return Err(Unanswered::Failed(error));
            }
            Err(error) => return Err(self.silent(&mut exchange, error).await),
        };
        exchange.finish(AuditOutcome::Allowed, StatusCode::OK);
        self.outbound.record_contact(self.route, contact).await;
        Ok(body)
    }

    async fn silent(&self, exchange: &mut Exchange, error: AskError) -> Unanswered {
        exchange.fail(&DoorFailure::Offline(error));
        let contact = Contact::Failure(error.to_string());
        self.outbound.record_contact(self.route, contact).await;
        Unanswered::Silent(error)
    }

    fn begin(&self, body: &[u8], request_id: &str) -> Result<Exchange, RenewError> {
        let outbound = self.outbound;
        let slot = outbound.audit.reserve();
        let slot = slot.map_err(|_| RenewError::AuditUnavailable)?;
        let asked = Asked {
            route: &self.verb,
            body,
            request_id,
            trace: None,
            spans: &outbound.spans,
        };
        let mut exchange = Exchange::begin(slot, &outbound.clock, self.route, &asked);
        if let Some(serial) = &self.serial {
            exchange.note(|record| record.cert_serial = Some(AuditText::short(serial)));
        }
        exchange
            .intend()
            .map_err(|_| RenewError::AuditUnavailable)?;
        Ok(exchange)
    }
}
