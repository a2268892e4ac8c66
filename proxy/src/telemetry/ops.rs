//! The ops listener: `/livez`, `/readyz` and `/metrics` for scrapers and orchestrators.
//!
//! Invariant: it says nothing about peers' data and changes nothing; it is meant for loopback or a
//! private network. Readiness is computed at each call from the checks given at start.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::Metrics;

/// One condition of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Why it does not hold, if so.
    pub failure: Option<String>,
}

/// Computes readiness.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Every check, in a fixed order.
    async fn checks(&self) -> Vec<Check>;

    /// Called before a scrape, to bring gauges up to date.
    fn before_scrape(&self) {}
}

#[derive(Clone)]
struct Ops {
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
}

/// The routes of the ops listener.
pub fn router(metrics: Arc<Metrics>, readiness: Arc<dyn Readiness>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Ops { metrics, readiness })
}

async fn readyz(State(ops): State<Ops>, Query(query): Query<HashMap<String, String>>) -> Response {
    let checks = ops.readiness.checks().await;
    let ready = checks.iter().all(|check| check.failure.is_none());
    let mut text = String::new();
    if query.contains_key("verbose") || !ready {
        for check in &checks {
            match &check.failure {
                None => text.push_str(&format!("[+] {} ok\n", check.name)),
                Some(why) => text.push_str(&format!("[-] {} failed: {why}\n", check.name)),
            }
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, text).into_response()
}

async fn render(State(ops): State<Ops>) -> Response {
    ops.readiness.before_scrape();
    match ops.metrics.render() {
        Ok(text) => {
            let form = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, form)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
