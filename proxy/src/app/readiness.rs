//! Readiness of the process, computed at each probe.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::admin::Control;
use crate::telemetry::metrics::Side;
use crate::telemetry::ops::{Check, Readiness};
use crate::telemetry::{Metrics, ReplicaFigures};
use crate::transport::PauseWatch;

/// The parts that are looked at.
pub struct Checks {
    /// Store, directory, audit log.
    pub control: Arc<Control>,
    /// Brought up to date before a scrape.
    pub metrics: Arc<Metrics>,
    /// Late writes of the federation listener.
    pub serving_pauses: Arc<PauseWatch>,
    /// Whether the process is stopping.
    pub stopped: watch::Receiver<bool>,
}

#[async_trait]
impl Readiness for Checks {
    async fn checks(&self) -> Vec<Check> {
        let stopping = self
            .stopped
            .borrow()
            .then(|| "the process is stopping".to_owned());
        let store = self
            .control
            .store
            .health()
            .await
            .err()
            .map(|error| error.to_string());
        let audit = self.control.audit.outage();
        vec![
            Check {
                name: "running",
                failure: stopping,
            },
            Check {
                name: "store",
                failure: store,
            },
            Check {
                name: "audit",
                failure: audit,
            },
            Check {
                name: "directory",
                failure: self.control.directory.fenced(),
            },
        ]
    }

    fn before_scrape(&self) {
        let metrics = &self.metrics;
        let fenced = self.control.directory.is_fenced();
        metrics.replicas().show(ReplicaFigures {
            ready: !fenced && !*self.stopped.borrow() && self.control.audit.outage().is_none(),
            fenced,
            heartbeat_age: self.control.replicas.heartbeat_age(),
        });
        metrics.audit(&self.control.audit.figures());
        metrics.pauses_exceeded(Side::Serve, self.serving_pauses.exceeded());
        let limits = &self.control.limits;
        metrics.rate_limit_keys("grant", limits.limiter.keys());
        metrics.rate_limit_keys("federation_source", limits.federation.keys());
        metrics.rate_limit_keys("enrollment_source", limits.enrollment.keys());
        metrics.peers_in_flight(limits.in_flight.peers());
        if let Some(outbound) = &self.control.outbound {
            metrics.pauses_exceeded(Side::Ask, outbound.pauses_exceeded());
            let cache = outbound.cache_figures();
            metrics.cache(cache.entries, cache.bytes, cache.hits, cache.misses);
            for route in outbound.routes().routes() {
                metrics.certificate_expiry(
                    "client",
                    route.name.as_str(),
                    route.not_after.0.div_euclid(1000),
                );
            }
        }
    }
}
