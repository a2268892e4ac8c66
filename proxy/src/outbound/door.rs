//! The session door: one request of a local session becomes one question to one peer.
//!
//! Invariant: the order is fixed: where the request comes from, whose it is, which peer, what it asks; only then the
//! peer is asked, by the steps of `ask.rs`.
//!
//! Sockets are in `listener.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use policy::deny::DenyCode;
use policy::time::UnixMillis;

use super::Outbound;
use super::ask::{Ask, Deadline, Refused, Trace, ask};
use super::exchange::time_ordered_id;
use super::failure::DoorFailure;
use super::relay;
use super::session::{Doorway, authenticate, check_loopback};
use crate::message::body::MAX_BODY;
use crate::message::failure::Failure;
use crate::message::headers::peer_request_id;
use crate::message::target::{BASE, Route};

/// Base path of the door; the peer's local name follows.
const PEERS: &str = "/peers/";
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
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
    let session = authenticate(
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
        .find(&session.user, name)
        .ok_or(DoorFailure::NoSuchPeer)?;
    let route = Route::parse(&parts.method, path, parts.uri.query())
        .map_err(|code| Refused::by(&peer, shape_failure(code)))?;
    let body = read_body(&parts, body)
        .await
        .map_err(|failure| Refused::by(&peer, failure))?;
    let question = Ask {
        session: Arc::new(session),
        peer,
        route,
        trace: Trace::of(&parts.headers),
        method: parts.method,
        body,
        request_id: own_id.to_owned(),
        deadline: Deadline::within(outbound.clock.as_ref(), outbound.deadlines.total),
    };
    Ok(ask(outbound, question).await?.into_response())
}

/// `/peers/{name}/api/...` as name and the rest.
fn split_target(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PEERS)?;
    let slash = rest.find('/')?;
    let (name, path) = rest.split_at_checked(slash)?;
    path.starts_with(BASE).then_some((name, path))
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

#[cfg(test)]
mod tests;
