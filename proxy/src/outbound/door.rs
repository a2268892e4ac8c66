//! The session door: one request of a local session becomes a question to a peer, to the user's own gateway, or to all.
//!
//! Invariant: the order is fixed: which form the request has and whether it may come from where it comes, whose it is,
//! whom it asks, what it asks; only then anybody is asked (`ask.rs`, `local.rs`, `fanout.rs`). A peer of another user
//! and a peer that does not exist are one answer, by whatever form they are named.
//!
//! Sockets are in `listener.rs`, the forms in `form.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, header};
use parking_lot::Mutex;
use policy::deny::DenyCode;

use super::Outbound;
use super::ask::{Ask, Deadline, Refused};
use super::exchange::time_ordered_id;
use super::failure::{DoorFailure, dress};
use super::fanout::Fanout;
use super::form::{Form, peer_of_host, tunnel_refused};
use super::local::{LocalQuestion, ask_local};
use super::query::{Query, Source};
use super::recall::ask;
use super::relay;
use super::route::{NoRoute, PeerRoute};
use super::session::{Doorway, Naming, Session, authenticate};
use crate::message::body::MAX_BODY;
use crate::message::failure::Failure;
use crate::message::headers::{RequestTag, peer_request_id, trace_parent};
use crate::message::target::Route;

/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request whose session is known.
struct Asking<'a> {
    outbound: &'a Outbound,
    session: Arc<Session>,
    parts: Parts,
    body: Body,
    own_id: &'a str,
}

/// Answers one request of the door.
pub async fn answer(outbound: &Outbound, doorway: Doorway, request: Request<Body>) -> Response {
    let own_id = peer_request_id(request.headers())
        .unwrap_or_else(|| time_ordered_id(outbound.clock.as_ref()).to_string());
    match admit(outbound, doorway, request, &own_id).await {
        Ok(response) => response,
        Err(refused) => {
            let name = refused.peer.as_ref().map(|peer| peer.name.as_str());
            let id = refused.peer_request_id.as_deref().unwrap_or(&own_id);
            let mut response = refused.failure.response(name, id, refused.notice.as_ref());
            if let Some(after) = refused.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, after);
            }
            response
        }
    }
}

async fn admit(
    outbound: &Outbound,
    doorway: Doorway,
    request: Request<Body>,
    own_id: &str,
) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let form = Form::of(doorway, &parts)?;
    let naming = if form.is_proxy() {
        Naming::Proxy
    } else {
        Naming::Bearer
    };
    let session = authenticate(outbound, doorway, &parts.headers, naming).await?;
    let asking = Asking {
        outbound,
        session,
        parts,
        body,
        own_id,
    };
    match form {
        Form::Query => asking.query().await,
        Form::Peer { name, path } => {
            let peer = outbound.peer_of(&asking.session, &name)?;
            asking.relay(peer, &path).await
        }
        Form::Proxy { host, path } => {
            let peer = match outbound.peer_of(&asking.session, peer_of_host(&host)) {
                Err(DoorFailure::NoSuchPeer) => outbound.peer_of(&asking.session, &host)?,
                found => found?,
            };
            asking.relay(peer, &path).await
        }
        Form::Tunnel => Err(tunnel_refused().into()),
        Form::Unknown => Err(DoorFailure::NoSuchPeer.into()),
    }
}

impl Asking<'_> {
    /// Puts a request in the form of the wire protocol to one peer.
    async fn relay(self, peer: Arc<PeerRoute>, path: &str) -> Result<Response, Refused> {
        let known = |failure| Refused::by(&peer, failure);
        let route = Route::parse_question(&self.parts.method, path, self.parts.uri.query())
            .map_err(|code| known(DoorFailure::Own(code.into())))?;
        let body = read_body(&self.parts, self.body).await.map_err(known)?;
        let question = Ask {
            session: self.session,
            peer,
            route,
            trace: trace_parent(&self.parts.headers),
            method: self.parts.method,
            body,
            request_id: self.own_id.to_owned(),
            deadline: self.outbound.deadline(),
        };
        Ok(ask(self.outbound, question).await?.into_response())
    }

    /// `POST /v1/query`.
    async fn query(self) -> Result<Response, Refused> {
        if self.parts.method != Method::POST {
            return Err(DoorFailure::Own(DenyCode::MethodNotAllowed.into()).into());
        }
        if self.parts.uri.query().is_some() {
            return Err(DoorFailure::Own(DenyCode::UnknownKey.into()).into());
        }
        let trace = trace_parent(&self.parts.headers);
        let (outbound, own_id) = (self.outbound, self.own_id);
        let body = read_body(&self.parts, self.body).await?;
        let query = Query::parse(&body).map_err(DoorFailure::Own)?;
        let answer = match &query.source {
            Source::Peer(name) => {
                let question = Ask {
                    session: Arc::clone(&self.session),
                    peer: outbound.peer_of(&self.session, name)?,
                    route: query.route.clone(),
                    method: Method::POST,
                    body: query.body(None, query.cursor.as_deref()),
                    request_id: own_id.to_owned(),
                    trace,
                    deadline: outbound.deadline(),
                };
                return Ok(ask(outbound, question).await?.into_response());
            }
            Source::Local => {
                let question = LocalQuestion {
                    user: &self.session.user,
                    route: &query.route,
                    body: &query.body(None, query.cursor.as_deref()),
                    tag: RequestTag::untraced(own_id),
                };
                ask_local(outbound, question, trace, outbound.deadline()).await?
            }
            Source::All => {
                let notices = Mutex::default();
                let fanout = Fanout {
                    outbound,
                    session: &self.session,
                    query: &query,
                    request_id: own_id,
                    trace,
                    notices: &notices,
                };
                fanout.answer().await?
            }
        };
        let mut response = Response::new(Body::from(answer));
        dress(response.headers_mut(), own_id);
        Ok(response)
    }
}

impl Outbound {
    /// The peer of the session's user that goes by `name`.
    pub(super) fn peer_of(
        &self,
        session: &Session,
        name: &str,
    ) -> Result<Arc<PeerRoute>, DoorFailure> {
        let found = self.table.load().find(&session.user, name);
        found.map_err(|error| match error {
            NoRoute::Absent => DoorFailure::NoSuchPeer,
            NoRoute::Ambiguous => DoorFailure::AmbiguousPeer,
        })
    }

    /// By when a question to one source must be answered.
    fn deadline(&self) -> Deadline {
        Deadline::within(self.clock.as_ref(), self.deadlines.total)
    }
}

async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, DoorFailure> {
    let own = |code, message: String| DoorFailure::Own(Failure::saying(code, message));
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY))
        .await
        .map_err(|_| DoorFailure::BodyTimeout)?;
    let body = read.map_err(|_| {
        let message = format!("the body is longer than {MAX_BODY} bytes or broke off");
        own(DenyCode::BodyTooLarge, message)
    })?;
    if parts.method == Method::GET {
        return if body.is_empty() {
            Ok(body)
        } else {
            let message = "a GET has no body: use POST".to_owned();
            Err(own(DenyCode::MalformedBody, message))
        };
    }
    if !body.is_empty() && !relay::is_plain_json(&parts.headers) {
        let message = "send the body as `content-type: application/json`, not compressed";
        return Err(own(DenyCode::UnsupportedMediaType, message.to_owned()));
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
