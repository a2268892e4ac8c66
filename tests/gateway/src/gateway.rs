//! One request: who asks, is it logged, which answer.
//!
//! Invariant: every request is in the list of requests before its answer begins; nothing but
//! `/internal/v1/health` is answered without an asker. The answers are in `internal_v1.rs` and
//! `mosaic.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::authenticate::{Asker, Service, authenticate};
use crate::failure::Failure;
use crate::modes::{Behaviour, Mode};
use crate::params::segments;
use crate::record::{Collection, Record};
use crate::render::Shape;
use crate::store::{Order, Question, Store, View};
use crate::{internal_v1, mosaic};

/// Most requests remembered.
const REMEMBERED: usize = 1_000;
/// Most credential rows that mode `secrets` mixes into one answer.
const LEAKED_ROWS: u32 = 4;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path as sent.
    pub path: String,
    /// Query as sent, without `?`; empty if there is none.
    pub query: String,
    /// Names of the headers, lower case, in order, repeated if repeated.
    pub header_names: Vec<String>,
    /// The trace it named.
    pub traceparent: Option<String>,
    /// Gateway user id of the asker; absent when the request was refused.
    pub user: Option<String>,
    /// The grant an assertion named.
    pub grant_id: Option<String>,
}

/// The gateway's state.
#[derive(Debug)]
pub struct Gateway {
    /// The database.
    pub store: Store,
    service: Option<Service>,
    behaviour: Mutex<Arc<Behaviour>>,
    seen: Mutex<VecDeque<Seen>>,
    stopping: watch::Receiver<bool>,
}

impl Gateway {
    /// A gateway over a store; `stopping` turns true when it goes down.
    #[must_use]
    pub fn new(
        store: Store,
        service: Option<Service>,
        behaviour: Behaviour,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            store,
            service,
            behaviour: Mutex::new(Arc::new(behaviour)),
            seen: Mutex::new(VecDeque::new()),
            stopping,
        }
    }

    /// The behaviour in force.
    #[must_use]
    pub fn behaviour(&self) -> Arc<Behaviour> {
        Arc::clone(&self.behaviour.lock())
    }

    /// Change the behaviour for requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = Arc::new(behaviour);
    }

    /// The last requests, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().iter().cloned().collect()
    }

    /// Forget all requests.
    pub fn forget_seen(&self) {
        self.seen.lock().clear();
    }

    /// Wait until the gateway goes down: what a request that is never answered does.
    ///
    /// # Errors
    /// Always 503, once the gateway stops.
    pub async fn hang<T>(&self) -> Result<T, Failure> {
        // An error means that the sender is gone, which is going down too.
        let mut stopping = self.stopping.clone();
        let _stopped = stopping.wait_for(|stopping| *stopping).await.is_ok();
        Err(Failure::stopping())
    }

    /// Fail or hang if such a mode is in force for rows.
    ///
    /// # Errors
    /// 500 in mode `status500`; 503 after mode `hang`.
    pub async fn row_faults(&self, behaviour: &Behaviour) -> Result<(), Failure> {
        if behaviour.is(Mode::Status500) {
            return Err(Failure::internal("told to fail"));
        }
        if behaviour.is(Mode::Hang) {
            return self.hang().await;
        }
        Ok(())
    }

    /// Fail if this collection is told to.
    ///
    /// # Errors
    /// 500 when it is among those that fail.
    pub fn collection_faults(
        &self,
        behaviour: &Behaviour,
        collection: Collection,
    ) -> Result<(), Failure> {
        if behaviour.failing.contains(collection.table()) {
            return Err(Failure::internal("told to fail"));
        }
        Ok(())
    }

    /// Fail or hang if such a mode is in force for team membership.
    ///
    /// # Errors
    /// 500 in mode `facts_status500`; 503 after mode `facts_hang`.
    pub async fn facts_faults(&self, behaviour: &Behaviour) -> Result<(), Failure> {
        if behaviour.is(Mode::FactsStatus500) {
            return Err(Failure::internal("told to fail"));
        }
        if behaviour.is(Mode::FactsHang) {
            return self.hang().await;
        }
        Ok(())
    }

    /// Rows for mode `secrets`: credentials of the asker first, then anybody's.
    ///
    /// # Errors
    /// 500 when the store fails.
    pub async fn leaked_rows(
        &self,
        asker: &Asker,
        behaviour: &Behaviour,
    ) -> Result<Vec<Record>, Failure> {
        let mut rows = Vec::new();
        if !behaviour.is(Mode::Secrets) {
            return Ok(rows);
        }
        let own = View::Subject {
            user: asker.caller.id.clone(),
            teams: Vec::new(),
            personal: true,
            narrowed: false,
        };
        for (view, collection) in [
            (own.clone(), Collection::Credentials),
            (own, Collection::ApiKeys),
            (View::Everyone, Collection::Credentials),
        ] {
            let question = Question {
                collection,
                view,
                equals: Vec::new(),
                before: None,
                with_text_only: false,
                order: Order::Id,
                limit: Some(LEAKED_ROWS),
            };
            for row in self.store.rows(&question).await? {
                if rows.iter().all(|other: &Record| other.id != row.id) {
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }

    fn remember(&self, parts: &Parts, asker: Option<&Asker>) {
        let seen = Seen {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            header_names: parts
                .headers
                .iter()
                .map(|(name, _)| name.to_string())
                .collect(),
            traceparent: parts
                .headers
                .get("traceparent")
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            user: asker.map(|asker| asker.caller.id.clone()),
            grant_id: asker.and_then(|asker| asker.grant.clone()),
        };
        let mut all = self.seen.lock();
        if all.len() >= REMEMBERED {
            all.pop_front();
        }
        all.push_back(seen);
    }

    async fn admit(&self, parts: &Parts, shape: Shape) -> Result<Asker, Failure> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Failure::method_not_allowed());
        }
        let service = self.service.as_ref().filter(|_| shape == Shape::InternalV1);
        let (method, uri) = (&parts.method, &parts.uri);
        authenticate(&self.store, service, method, uri, &parts.headers).await
    }

    async fn reply(&self, parts: &Parts, shape: Shape) -> Result<Response, Failure> {
        let admitted = self.admit(parts, shape).await;
        self.remember(parts, admitted.as_ref().ok());
        let asker = admitted?;
        let behaviour = self.behaviour();
        if asker.caller.banned || behaviour.banned.contains(&asker.caller.id) {
            return Err(Failure::forbidden());
        }
        let path = segments(&parts.uri)?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match shape {
            Shape::InternalV1 => {
                internal_v1::reply(self, &asker, &behaviour, &path, &parts.uri).await
            }
            Shape::Mosaic => mosaic::reply(self, &asker, &behaviour, &path, &parts.uri).await,
        }
    }
}

/// Answer any request.
pub async fn answer(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (parts, _body) = request.into_parts();
    let shape = if parts.uri.path().starts_with("/api/") {
        Shape::Mosaic
    } else {
        Shape::InternalV1
    };
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let mut response = if is_read && parts.uri.path() == "/internal/v1/health" {
        gateway.remember(&parts, None);
        internal_v1::health()
    } else {
        let reply = gateway.reply(&parts, shape).await;
        reply.unwrap_or_else(|failure| failure.respond(shape))
    };
    if parts.method == Method::HEAD && response.status() == StatusCode::OK {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}
