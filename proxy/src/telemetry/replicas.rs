//! Figures of this process as a replica.
//!
//! Invariant: every series is there from the start. Gauges are brought up to date when they are read.

use std::time::Duration;

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

/// What is shown of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaFigures {
    /// Whether requests are served.
    pub ready: bool,
    /// Whether nothing is answered.
    pub fenced: bool,
    /// Since the store was heard of; `None` of a process that has it for itself.
    pub heartbeat_age: Option<Duration>,
}

/// The series.
pub struct ReplicaMetrics {
    ready: IntGauge,
    fenced: IntGauge,
    heartbeat_age: Gauge,
    fences: IntCounterVec,
}

impl ReplicaMetrics {
    /// All of them, registered.
    ///
    /// # Errors
    /// When two metrics collide; a defect of this program.
    pub(super) fn new(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let heartbeat_age = Gauge::new(
            format!("{prefix}_heartbeat_age_seconds"),
            "Since this replica heard of the store, from its sending; 0 in a process that has the store for itself.",
        )?;
        registry.register(Box::new(heartbeat_age.clone()))?;
        let fences = IntCounterVec::new(
            Opts::new(
                format!("{prefix}_fences_total"),
                "Times this replica stopped answering, because the store was silent or because it went back to an older revision.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(fences.clone()))?;
        for reason in ["silent", "went_back"] {
            fences.with_label_values(&[reason]).inc_by(0);
        }
        Ok(Self {
            ready: gauge(
                "ready",
                "1 while requests are served, else 0; the store itself is not asked.",
            )?,
            fenced: gauge(
                "fenced",
                "1 while nothing is answered, because a change could not be applied or the store was not heard of.",
            )?,
            heartbeat_age,
            fences,
        })
    }

    /// Brings the gauges up to date.
    pub fn show(&self, figures: ReplicaFigures) {
        self.ready.set(figures.ready.into());
        self.fenced.set(figures.fenced.into());
        let age = figures.heartbeat_age.unwrap_or_default();
        self.heartbeat_age.set(age.as_secs_f64());
    }

    /// Counts that the fence fell.
    pub fn fenced(&self, went_back: bool) {
        let reason = if went_back { "went_back" } else { "silent" };
        self.fences.with_label_values(&[reason]).inc();
    }
}
