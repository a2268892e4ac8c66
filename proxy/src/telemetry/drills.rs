//! Figures of what the process does to see whether it holds: the attack on itself at start, and the revocation canary.
//!
//! Invariant: every series is there from the start, so that an alarm on a missing one is possible.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// The series.
pub struct DrillMetrics {
    attacks: IntCounterVec,
    latency: Histogram,
    canary_failures: IntCounterVec,
}

impl DrillMetrics {
    /// All of them, registered.
    ///
    /// # Errors
    /// When two metrics collide; a defect of this program.
    pub(super) fn new(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(format!("{prefix}_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let latency = Histogram::with_opts(
            HistogramOpts::new(
                format!("{prefix}_revocation_latency_seconds"),
                "From the beginning of the canary's revocation until it had returned and every connection was refused.",
            )
            .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0]),
        )?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Self {
            attacks: counter(
                "self_attacks_total",
                "Attacks on the own federation listener at start, by attack and result.",
                &["attack", "result"],
            )?,
            latency,
            canary_failures: counter(
                "revocation_canary_failures_total",
                "Rounds of the revocation canary that failed, by the step that did.",
                &["step"],
            )?,
        })
    }

    /// Shows these series at zero.
    pub fn expect(&self, attacks: &[&str], results: &[&str], steps: &[&str]) {
        for attack in attacks {
            for result in results {
                self.attacks.with_label_values(&[attack, result]).inc_by(0);
            }
        }
        for step in steps {
            self.canary_failures.with_label_values(&[step]).inc_by(0);
        }
    }

    /// Counts an attack on the own listener.
    pub fn attacked(&self, attack: &'static str, result: &'static str) {
        self.attacks.with_label_values(&[attack, result]).inc();
    }

    /// A round of the canary took that long.
    pub fn canary_revoked(&self, took: Duration) {
        self.latency.observe(took.as_secs_f64());
    }

    /// Counts a round of the canary that failed.
    pub fn canary_failed(&self, step: &'static str) {
        self.canary_failures.with_label_values(&[step]).inc();
    }
}
