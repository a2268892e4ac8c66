//! The session door: one request of a local session becomes one request to one peer.
//!
//! Invariant: the order is fixed: where the request comes from, whose it is, which peer, what it asks; only then a
//! record is begun, the grant's state is looked at, and the peer is asked. What goes out is built from scratch;
//! nothing of the caller's request but method, route, body, request id and trace parent is in it.
//!
//! Reading the reply is in `relay.rs`; sockets are in `listener.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use policy::deny::DenyCode;
use policy::time::UnixMillis;

use super::Outbound;
use super::client::{Question, Reply};
use super::exchange::{Asked, Exchange, time_ordered_id};
use super::failure::DoorFailure;
use super::fault::AskError;
use super::relay;
use super::route::{PeerRoute, ReadyClient};
use super::session::{Doorway, authenticate, check_loopback};
use super::state;
use crate::audit::{AuditOutcome, AuditText};
use crate::message::body::MAX_BODY;
use crate::message::failure::Failure;
use crate::message::headers::{peer_request_id, trace_id};
use crate::message::target::{BASE, Route};
use crate::store::Contact;

/// Base path of the door; the peer's local name follows.
const PEERS: &str = "/peers/";
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What stands in a path segment as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A failure, with the peer once it is known.
struct Refused {
    failure: DoorFailure,
    peer: Option<Arc<PeerRoute>>,
    retry_after: Option<http::HeaderValue>,
    /// The peer's own id of the request, where it gave one.
    peer_request_id: Option<String>,
}

impl From<DoorFailure> for Refused {
    fn from(failure: DoorFailure) -> Self {
        Self {
            failure,
            peer: None,
            retry_after: None,
            peer_request_id: None,
        }
    }
}

/// Answers one request of the door.
pub async fn answer(outbound: &Outbound, doorway: Doorway, request: Request<Body>) -> Response {
    let own_id = peer_request_id(request.headers())
        .unwrap_or_else(|| time_ordered_id(outbound.clock.as_ref()).to_string());
    match ask_peer(outbound, doorway, request, &own_id).await {
        Ok(response) => response,
        Err(refused) => {
            let name = refused.peer.as_ref().map(|peer| peer.name.as_str());
            let id = refused.peer_request_id.as_deref().unwrap_or(&own_id);
            let mut response = refused.failure.response(name, id);
            if let Some(after) = refused.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, after);
            }
            response
        }
    }
}

async fn ask_peer(
    outbound: &Outbound,
    doorway: Doorway,
    request: Request<Body>,
    own_id: &str,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    if doorway == Doorway::Loopback {
        check_loopback(&parts.headers, &parts.uri)?;
    }
    let now = UnixMillis(outbound.clock.unix_millis());
    let user = authenticate(
        outbound.store.as_ref(),
        &outbound.session_users,
        doorway,
        &parts.headers,
        now,
    )
    .await?;
    let (name, path) = split_target(parts.uri.path()).ok_or(DoorFailure::NoSuchPeer)?;
    let peer = outbound
        .table
        .load()
        .find(&user, name)
        .ok_or(DoorFailure::NoSuchPeer)?;
    let known = |failure| Refused {
        peer: Some(Arc::clone(&peer)),
        ..Refused::from(failure)
    };
    let route = Route::parse(&parts.method, path, parts.uri.query())
        .map_err(|code| known(shape_failure(code)))?;
    let body = read_body(&parts, body).await.map_err(known)?;
    let slot = outbound
        .audit
        .reserve()
        .map_err(|_| known(DoorFailure::AuditUnavailable))?;
    let trace = trace_id(&parts.headers);
    let asked = Asked {
        route: &route,
        body: &body,
        request_id: own_id,
        trace_id: trace.as_deref(),
    };
    let mut exchange = Exchange::begin(slot, &outbound.clock, &peer, &asked);
    let client = match may_ask(&peer, now) {
        Ok(client) => client,
        Err(failure) => {
            finish(&mut exchange, &failure);
            return Err(known(failure));
        }
    };
    let question = Question {
        method: parts.method,
        path: path_of(&route),
        body,
        request_id: own_id.to_owned(),
        traceparent: trace.and_then(|_| header_text(&parts.headers, "traceparent")),
        repeatable: true,
    };
    converse(outbound, &peer, &client, &route, &question, exchange).await
}

/// Asks, learns from what comes back, passes it on.
async fn converse(
    outbound: &Outbound,
    peer: &Arc<PeerRoute>,
    client: &ReadyClient,
    route: &Route,
    question: &Question,
    mut exchange: Exchange,
) -> Result<Response, Refused> {
    let refused = |failure| Refused {
        peer: Some(Arc::clone(peer)),
        ..Refused::from(failure)
    };
    let reply = match client.client.ask(question).await {
        Ok(reply) => reply,
        Err(error) => {
            let failure = unanswered(outbound, peer, error).await;
            finish(&mut exchange, &failure);
            return Err(refused(failure));
        }
    };
    let (status, attempt) = (reply.head.status, u32::from(reply.attempt));
    let peer_id = peer_request_id(&reply.head.headers);
    exchange.note(|record| {
        record.attempt = attempt;
        record.peer_request_id = peer_id.as_deref().map(AuditText::short);
    });
    if status == StatusCode::OK {
        outbound
            .learn(peer, state::learned_from_answer(status, None), "answered")
            .await;
        outbound.record_contact(peer, Contact::Success).await;
        let passed = relay::pass_on(
            reply,
            route,
            peer.name.as_str(),
            &question.request_id,
            exchange,
        )
        .await;
        return passed.map_err(|(failure, mut exchange)| {
            finish(&mut exchange, &failure);
            refused(failure)
        });
    }
    Err(refused_by_peer(outbound, peer, reply, exchange).await)
}

/// A reply that is no 200: what it says of the grant is noted, its envelope passed on.
async fn refused_by_peer(
    outbound: &Outbound,
    peer: &Arc<PeerRoute>,
    reply: Reply,
    mut exchange: Exchange,
) -> Refused {
    let status = reply.head.status;
    let retry_after = relay::retry_after(&reply.head.headers);
    let peer_request_id = peer_request_id(&reply.head.headers);
    let failure = relay::refusal(reply).await;
    if let DoorFailure::Peer(error) = &failure {
        let reason = error.forbidden_reason();
        let learned = state::learned_from_answer(status, reason);
        outbound
            .learn(peer, learned, reason.unwrap_or_default())
            .await;
    }
    let contact = if status.is_server_error() || !matches!(failure, DoorFailure::Peer(_)) {
        Contact::Failure(format!("it answered {}", status.as_u16()))
    } else {
        Contact::Success
    };
    outbound.record_contact(peer, contact).await;
    finish(&mut exchange, &failure);
    Refused {
        failure,
        peer: Some(Arc::clone(peer)),
        retry_after,
        peer_request_id,
    }
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

/// `/peers/{name}/api/...` as name and the rest.
fn split_target(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PEERS)?;
    let slash = rest.find('/')?;
    let (name, path) = rest.split_at_checked(slash)?;
    path.starts_with(BASE).then_some((name, path))
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
        Route::Capabilities => format!("{BASE}capabilities"),
    }
}

fn shape_failure(code: DenyCode) -> DoorFailure {
    let failure = Failure::from(code);
    DoorFailure::Request(failure.http_status(), code.meaning().to_owned())
}

async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, DoorFailure> {
    let too_slow = |_| {
        DoorFailure::Request(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time".to_owned(),
        )
    };
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY))
        .await
        .map_err(too_slow)?;
    let body = read.map_err(|_| {
        DoorFailure::Request(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {MAX_BODY} bytes or broke off"),
        )
    })?;
    if parts.method == Method::GET {
        return if body.is_empty() {
            Ok(body)
        } else {
            Err(DoorFailure::Request(
                StatusCode::BAD_REQUEST,
                "a GET has no body: use POST".to_owned(),
            ))
        };
    }
    if !body.is_empty() && !relay::is_plain_json(&parts.headers) {
        return Err(DoorFailure::Request(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body as `content-type: application/json`, not compressed".to_owned(),
        ));
    }
    Ok(body)
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

/// The client, if the grant is in force as far as this side knows.
fn may_ask(peer: &PeerRoute, now: UnixMillis) -> Result<ReadyClient, DoorFailure> {
    state::may_ask(peer.peer_state, peer.state(), peer.not_after, now)
        .map_err(DoorFailure::Refused)?;
    peer.client
        .clone()
        .map_err(|_| DoorFailure::CredentialUnusable)
}

/// Ends the record of a request that got no rows.
fn finish(exchange: &mut Exchange, failure: &DoorFailure) {
    let (stage, status) = (failure.stage(), failure.status());
    let reason = failure.reason().map(AuditText::short);
    exchange.note(|record| {
        record.deny_stage = Some(AuditText::fixed(stage));
        record.deny_code = reason;
    });
    let outcome = if status.is_client_error() {
        AuditOutcome::Denied
    } else {
        AuditOutcome::Error
    };
    exchange.finish(outcome, status);
}

#[cfg(test)]
mod tests;
