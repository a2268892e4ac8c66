//! The control listener: how a test tells the gateway to misbehave and reads what it was asked.
//!
//! Invariant: it is a listener of its own, so the API under test has no such paths. `PUT` replaces
//! the whole behaviour; an unknown setting is refused and nothing changes.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};

use crate::gateway::{Gateway, Seen};
use crate::modes::Behaviour;

/// The control listener's routes.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/_control", get(show).put(change))
        .route("/_control/requests", get(requests).delete(forget))
        .with_state(gateway)
}

async fn show(State(gateway): State<Arc<Gateway>>) -> Json<Behaviour> {
    Json(Behaviour::clone(&gateway.behaviour()))
}

async fn change(
    State(gateway): State<Arc<Gateway>>,
    body: Bytes,
) -> Result<Json<Behaviour>, (StatusCode, String)> {
    let refuse = |text: String| (StatusCode::BAD_REQUEST, text);
    let behaviour: Behaviour =
        serde_json::from_slice(&body).map_err(|error| refuse(error.to_string()))?;
    behaviour
        .check()
        .map_err(|error| refuse(error.to_string()))?;
    gateway.behave(behaviour.clone());
    Ok(Json(behaviour))
}

async fn requests(State(gateway): State<Arc<Gateway>>) -> Json<Vec<Seen>> {
    Json(gateway.seen())
}

async fn forget(State(gateway): State<Arc<Gateway>>) -> StatusCode {
    gateway.forget_seen();
    StatusCode::NO_CONTENT
}
