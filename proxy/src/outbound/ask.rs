//! One question of one session to one peer: the seam that every form of asking goes through.
//!
//! The doors (`/peers/...`, `/v1/query`, the proxy form) only find out who asks what of which peer, and what to do
//! with the answer. Whatever concerns the asking itself is a step of [`ask`], in this order and nowhere else:
//!
//! 1. *begin*: space in the audit journal is taken and the record begins; what cannot be recorded is not asked.
//! 2. *admit*: the grant's state as far as it is known here; what is over is refused without the network. Then the
//!    journal gets the intent: from here on the question leaves a record even if the process is killed.
//! 3. *recall*: an answer kept in memory is given instead, in `recall.rs`, which is what the doors call.
//! 4. *attempt*: the network, within the [`Deadline`]. Whether the peer may be tried at all, waiting as told by it,
//!    and trying again are around this step, in `attempt.rs`.
//! 5. *learn*: what the reply, or its absence, says of the grant and of the peer.
//! 6. *open*: a 200 is read as untrusted input and becomes a [`PeerAnswer`] under its lease; a copy to keep is taken
//!    from what that writes, never from what the peer sent. Everything else becomes a [`Refused`].
//!
//! Invariant: every question leaves exactly one record for each credential it was put with, whatever becomes of it. What goes out is built from scratch;
//! nothing of the caller's request but method, route, body, request id and trace parent is in it.
//!
//! Reading a reply is in `relay.rs`, what words of a peer mean in `state.rs`, connections in `client.rs`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use policy::time::UnixMillis;

use super::Outbound;
use super::attempt::{Attempted, Refusal, attempt};
use super::client::{Question, Reply};
pub(super) use super::deadline::Deadline;
use super::exchange::{Asked, Exchange, time_ordered_id};
use super::failure::DoorFailure;
use super::fault::AskError;
use super::lease::{Heard, LeaseTerm};
use super::notice::Notice;
use super::reach::{Admission, Quota};
use super::relay::{self, PeerAnswer};
use super::route::{PeerRoute, ReadyClient};
use super::session::Session;
use super::state;
use super::ticket::Ticket;
use crate::audit::AuditText;
use crate::message::headers::peer_request_id;
use crate::message::target::{BASE, Route};
use crate::store::Contact;
use crate::telemetry::TraceParent;

/// What stands in a path segment as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// One question to one peer.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Who asks. The peer is one of this session's user.
    pub(super) session: Arc<Session>,
    /// Whom.
    pub(super) peer: Arc<PeerRoute>,
    /// What.
    pub(super) route: Route,
    /// GET or POST, as the route allows.
    pub(super) method: Method,
    /// JSON as it goes out, or empty.
    pub(super) body: Bytes,
    /// Our id of the request.
    pub(super) request_id: String,
    /// The caller's trace.
    pub(super) trace: Option<TraceParent>,
    /// By when.
    pub(super) deadline: Deadline,
}

/// A question that got no rows, with the peer once it is known.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) failure: DoorFailure,
    pub(super) peer: Option<Arc<PeerRoute>>,
    /// Of the peer, where it gave one.
    pub(super) retry_after: Option<HeaderValue>,
    /// The peer's own id of the request, where it gave one.
    pub(super) peer_request_id: Option<String>,
    /// That the peer is away, when the session has not been told of this outage.
    pub(super) notice: Option<Notice>,
}

impl From<DoorFailure> for Refused {
    fn from(failure: DoorFailure) -> Self {
        Self {
            failure,
            peer: None,
            retry_after: None,
            peer_request_id: None,
            notice: None,
        }
    }
}

impl Refused {
    /// A failure on the way to, or of, `peer`.
    pub(super) fn by(peer: &Arc<PeerRoute>, failure: DoorFailure) -> Self {
        Self {
            peer: Some(Arc::clone(peer)),
            ..Self::from(failure)
        }
    }
}

/// Asks one peer one question over the network; whether its answer may be passed on is the caller's to see.
///
/// # Errors
/// [`Refused`], recorded already; but for a peer of another user, of which nothing is asked.
pub(super) async fn fetch(outbound: &Outbound, ask: Ask) -> Result<PeerAnswer, Refused> {
    let was_over = ask.peer.is_over();
    let refused = match fetch_once(outbound, ask.clone()).await {
        Ok(answer) => return Ok(answer),
        Err(refused) => refused,
    };
    if was_over || !calls_outdated(&refused.failure) {
        return Err(refused);
    }
    // The credential was exchanged while the question was out, or the process ended in between: once more, with the
    // newest, as a request of its own.
    match outbound.newer_than(&ask.peer).await {
        Some(peer) => fetch_once(outbound, Ask { peer, ..ask }).await,
        None => Err(refused),
    }
}

/// Whether a refusal is of the certificate and not of the grant.
fn calls_outdated(failure: &DoorFailure) -> bool {
    let said = match failure {
        DoorFailure::Peer(error) => error.forbidden_reason(),
        DoorFailure::Offline(error) => Some(error.reason()),
        // The alert says no more than that.
        DoorFailure::Refused(state::LocalRefusal::GrantRevoked) => Some("certificate_revoked"),
        _ => None,
    };
    matches!(
        said,
        Some("certificate_superseded" | "certificate_revoked" | "certificate_expired")
    )
}

async fn fetch_once(outbound: &Outbound, ask: Ask) -> Result<PeerAnswer, Refused> {
    // Routes are found by user; should one ever be found otherwise, it leads nowhere.
    if ask.peer.user != ask.session.user {
        return Err(DoorFailure::NoSuchPeer.into());
    }
    let mut exchange = begin(outbound, &ask).map_err(|failure| Refused::by(&ask.peer, failure))?;
    let client = match admit(outbound, &ask) {
        Ok(client) => client,
        Err(failure) => return Err(ended(&ask, &mut exchange, failure)),
    };
    if exchange.intend().is_err() {
        return Err(ended(&ask, &mut exchange, DoorFailure::AuditUnavailable));
    }
    let (clock, due) = (
        outbound.clock.as_ref(),
        (quota_of(&ask.route), ask.deadline),
    );
    let question = question_of(&ask, &exchange);
    match attempt(&ask.peer.reach, clock, &client.client, question, due).await {
        Attempted::Answer(reply, admission) => {
            open(outbound, &ask, *reply, admission, exchange).await
        }
        Attempted::Refused(refusal) => Err(refused(outbound, &ask, *refusal, exchange).await),
        Attempted::Silent(error, outage) => {
            let failure = unanswered(outbound, &ask.peer, error).await;
            let refused = ended(&ask, &mut exchange, failure);
            Err(tell(outbound, &ask, refused, outage))
        }
        Attempted::HeldBack(barrier) => {
            let refused = ended(&ask, &mut exchange, DoorFailure::HeldBack(barrier));
            Err(tell(outbound, &ask, refused, barrier.outage()))
        }
    }
}

/// Takes space in the audit journal and begins the record.
pub(super) fn begin(outbound: &Outbound, ask: &Ask) -> Result<Exchange, DoorFailure> {
    let slot = outbound
        .audit
        .reserve()
        .map_err(|_| DoorFailure::AuditUnavailable)?;
    let asked = Asked {
        route: &ask.route,
        body: &ask.body,
        request_id: &ask.request_id,
        trace: ask.trace,
        spans: &outbound.spans,
    };
    Ok(Exchange::begin(slot, &outbound.clock, &ask.peer, &asked))
}

/// The client, if the grant is in force as far as this side knows.
pub(super) fn admit(outbound: &Outbound, ask: &Ask) -> Result<ReadyClient, DoorFailure> {
    let peer = &ask.peer;
    let now = UnixMillis(peer.their_now(outbound.clock.as_ref()));
    state::may_ask(peer.peer_state, peer.state(), peer.not_after, now)
        .map_err(DoorFailure::Refused)?;
    peer.client
        .clone()
        .map_err(|_| DoorFailure::CredentialUnusable)
}

/// Which limit of the peer a question counts against.
const fn quota_of(route: &Route) -> Quota {
    match route {
        Route::Capabilities | Route::Renew => Quota::Capabilities,
        Route::List { .. } | Route::Get { .. } | Route::Search => Quota::Rows,
    }
}

/// What goes out.
fn question_of(ask: &Ask, exchange: &Exchange) -> Question {
    Question {
        method: ask.method.clone(),
        path: path_of(&ask.route),
        body: ask.body.clone(),
        request_id: ask.request_id.clone(),
        trace: exchange.onward(),
        attempt: 1,
        repeatable: true,
    }
}

/// Notes in the record which try was answered, and under which id the peer knows it.
pub(super) fn note_reply(exchange: &mut Exchange, head: &http::response::Parts, attempt: u8) {
    let peer_id = peer_request_id(&head.headers);
    exchange.note(|record| {
        record.attempt = u32::from(attempt);
        record.peer_request_id = peer_id.as_deref().map(AuditText::short);
    });
}

/// Learns from a 200 and opens it.
async fn open(
    outbound: &Outbound,
    ask: &Ask,
    reply: Reply,
    admission: Admission,
    mut exchange: Exchange,
) -> Result<PeerAnswer, Refused> {
    note_reply(&mut exchange, &reply.head, reply.attempt);
    ask.peer
        .hear(&reply.head.headers, reply.sent, reply.received);
    let witnessed = outbound.hear_witness(&ask.peer, &reply.head.headers, reply.sent);
    exchange.note(|record| record.witnessed = witnessed);
    let learned = state::learned_from_answer(reply.head.status, None);
    outbound.learn(&ask.peer, learned, "answered").await;
    outbound.record_contact(&ask.peer, Contact::Success).await;
    let (ticket, sent) = (hear(outbound, ask, &reply), reply.sent);
    let name = ask.peer.name.as_str();
    PeerAnswer::open(
        reply,
        admission,
        &ask.route,
        name,
        &ask.request_id,
        exchange,
    )
    .await
    .map(|answer| answer.under(ticket, sent))
    .map_err(|unusable| {
        let (failure, outage, mut exchange) = *unusable;
        let refused = ended(ask, &mut exchange, failure);
        tell(outbound, ask, refused, outage)
    })
}

/// Notes the lease that came with a reply; what is kept under another revision is dropped.
fn hear(outbound: &Outbound, ask: &Ask, reply: &Reply) -> Option<Ticket> {
    let term = LeaseTerm::of(&reply.head.headers)?;
    if ask.peer.lease.hear(&term, reply.sent) == Heard::Changed {
        let (peer, now) = (ask.peer.peer, term.revision);
        outbound
            .cache
            .retain(|key, kept| key.peer != peer || kept.revision == now);
    }
    Some(Ticket {
        session: Arc::clone(&ask.session),
        peer: Arc::clone(&ask.peer),
        revision: term.revision,
        own: Some(term.counted_from(reply.sent)),
    })
}

/// Renews the lease of what `ticket` is for by one `capabilities` call, however many wait for it; whether it lasts
/// then.
pub(super) async fn renew(outbound: &Outbound, ticket: &Ticket) -> bool {
    let peer = &ticket.peer;
    let lasts = || ticket.holds(outbound.clock.boot_nanos()).is_some();
    let _one = peer.lease.renewing.lock().await;
    if lasts() {
        return true;
    }
    // Nothing renews what is known to be over.
    if peer
        .lease
        .revision()
        .is_some_and(|known| known != ticket.revision)
    {
        return false;
    }
    let question = Ask {
        session: Arc::clone(&ticket.session),
        peer: Arc::clone(peer),
        route: Route::Capabilities,
        method: Method::GET,
        body: Bytes::new(),
        request_id: time_ordered_id(outbound.clock.as_ref()).to_string(),
        trace: None,
        deadline: Deadline::within(outbound.clock.as_ref(), outbound.deadlines.total),
    };
    match fetch(outbound, question).await {
        Ok(answer) => {
            // Only its lease was wanted; taking it ends its record.
            drop(answer.into_response());
            lasts()
        }
        Err(_) => false,
    }
}

/// A reply that is no 200: what it says of the grant is noted, its envelope passed on.
async fn refused(
    outbound: &Outbound,
    ask: &Ask,
    refusal: Refusal,
    mut exchange: Exchange,
) -> Refused {
    let Refusal {
        head,
        attempt,
        failure,
        outage,
    } = refusal;
    note_reply(&mut exchange, &head, attempt);
    if let DoorFailure::Peer(error) = &failure {
        let reason = error.forbidden_reason();
        let learned = state::learned_from_answer(head.status, reason);
        outbound
            .learn(&ask.peer, learned, reason.unwrap_or_default())
            .await;
    }
    let contact = if outage.is_some() {
        Contact::Failure(format!("it answered {}", head.status.as_u16()))
    } else {
        Contact::Success
    };
    outbound.record_contact(&ask.peer, contact).await;
    let refused = Refused {
        retry_after: relay::retry_after(&head.headers),
        peer_request_id: peer_request_id(&head.headers),
        ..ended(ask, &mut exchange, failure)
    };
    tell(outbound, ask, refused, outage)
}

/// Adds the notice of an outage, if this session has not had it.
fn tell(outbound: &Outbound, ask: &Ask, refused: Refused, outage: Option<u64>) -> Refused {
    let (session, peer) = (ask.session.key, &ask.peer.name);
    let notice = outage.and_then(|outage| outbound.notices.claim(session, peer, outage));
    Refused { notice, ..refused }
}

/// What no answer means: the alert for a revoked certificate says as much as an answer.
async fn unanswered(outbound: &Outbound, peer: &PeerRoute, error: AskError) -> DoorFailure {
    let learned = state::learned_from_alert(error.alert());
    outbound.learn(peer, learned, error.reason()).await;
    let contact = Contact::Failure(error.to_string());
    outbound.record_contact(peer, contact).await;
    match learned {
        Some(_) => DoorFailure::Refused(state::LocalRefusal::GrantRevoked),
        None => DoorFailure::Offline(error),
    }
}

/// Ends the record of a question that got no rows.
pub(super) fn ended(ask: &Ask, exchange: &mut Exchange, failure: DoorFailure) -> Refused {
    exchange.fail(&failure);
    Refused {
        retry_after: failure.retry_after(),
        ..Refused::by(&ask.peer, failure)
    }
}

/// The path to ask the peer for, encoded anew.
pub(super) fn path_of(route: &Route) -> String {
    match route {
        Route::List { resource } => format!("{BASE}list/{resource}"),
        Route::Get { resource, id } => {
            format!(
                "{BASE}get/{resource}/{}",
                utf8_percent_encode(id.as_str(), SEGMENT)
            )
        }
        Route::Search => format!("{BASE}search"),
        Route::Capabilities => format!("{BASE}capabilities"),
        Route::Renew => format!("{BASE}renew"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use policy::request::ItemId;

    use super::*;

    #[test]
    fn ids_are_encoded_anew() {
        let id = ItemId::parse("a/b c\u{e9}?#..").unwrap();
        let route = Route::Get {
            resource: "tasks".to_owned(),
            id,
        };
        assert_eq!(
            path_of(&route),
            "/api/federation/v1/get/tasks/a%2Fb%20c%C3%A9%3F%23.."
        );
    }
}
