//! Metrics of revocation lists: how old they are, what they took away, what is waiting.
//!
//! Labels are places of the settings and closed sets.

use certs::ChainError;
use certs::crl::freshness::Freshness;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// The metrics.
pub struct RevocationMetrics {
    state: IntGaugeVec,
    next_update: IntGaugeVec,
    refused: IntCounterVec,
    foreign: IntGaugeVec,
    taken: IntCounter,
    published_number: IntGauge,
    published_until: IntGauge,
    publish_failures: IntCounter,
    untold: IntGauge,
    ocsp: IntCounterVec,
    chains: IntCounterVec,
}

impl RevocationMetrics {
    /// Registered and at zero.
    pub(super) fn new(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = |name: &str, help: &str| {
            let opts = Opts::new(format!("{prefix}_{name}"), help);
            let gauges = IntGaugeVec::new(opts, &["place"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let opts = Opts::new(format!("{prefix}_{name}"), help);
            let counters = IntCounterVec::new(opts, &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let chains = counters(
            "revocation_refusals_total",
            "Client certificates refused at the handshake as revoked, or for want of a good list.",
            "why",
        )?;
        for why in ["revoked", "no_list", "list_too_old"] {
            chains.with_label_values(&[why]).inc_by(0);
        }
        let ocsp = counters(
            "ocsp_answers_total",
            "Answers to OCSP requests, by kind.",
            "kind",
        )?;
        for kind in [
            "signed",
            "kept",
            "malformed",
            "unauthorized",
            "try_later",
            "internal_error",
        ] {
            ocsp.with_label_values(&[kind]).inc_by(0);
        }
        Ok(Self {
            state: gauges(
                "crl_state",
                "The worst revocation list of a place: 0 fresh, 1 late and still counting, 2 too old, 3 missing.",
            )?,
            next_update: gauges(
                "crl_next_update_timestamp_seconds",
                "When the next revocation list of a place is due, Unix time.",
            )?,
            refused: counters(
                "crl_refused_total",
                "Readings of a place that were refused or failed and changed nothing.",
                "place",
            )?,
            foreign: gauges(
                "crl_foreign",
                "Revocation lists of other issuers at a place, which are passed over.",
            )?,
            taken: counter(
                "crl_revoked_total",
                "Certificates in use that were revoked because a list of another authority named them.",
            )?,
            published_number: gauge("crl_published_number", "Number of our revocation list.")?,
            published_until: gauge(
                "crl_published_next_update_timestamp_seconds",
                "Until when our revocation list is good, Unix time.",
            )?,
            publish_failures: counter(
                "crl_publish_failures_total",
                "Tries to make our revocation list anew that failed.",
            )?,
            untold: gauge(
                "authority_untold_revocations",
                "Revocations that the authority for peers has yet to be told of.",
            )?,
            chains,
            ocsp,
        })
    }

    /// How a place stands.
    pub fn place(&self, place: &str, state: Freshness) {
        let (value, due) = match state {
            Freshness::Fresh { until } => (0, Some(until)),
            Freshness::Late { since } => (1, Some(since)),
            Freshness::TooOld { since } => (2, Some(since)),
            Freshness::Missing => (3, None),
        };
        self.state.with_label_values(&[place]).set(value);
        if let Some(due) = due {
            self.next_update.with_label_values(&[place]).set(due);
        }
    }

    /// A reading changed nothing.
    pub fn refused(&self, place: &str) {
        self.refused.with_label_values(&[place]).inc();
    }

    /// Lists of other issuers at a place.
    pub fn foreign(&self, place: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.foreign.with_label_values(&[place]).set(count);
    }

    /// Removes the series of a place that is no more.
    pub fn forget(&self, place: &str) {
        // A series that never began is as good as removed.
        let _ = self.state.remove_label_values(&[place]);
        let _ = self.next_update.remove_label_values(&[place]);
        let _ = self.refused.remove_label_values(&[place]);
        let _ = self.foreign.remove_label_values(&[place]);
    }

    /// Certificates in use that a list named.
    pub fn taken(&self, count: usize) {
        self.taken.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Our own list.
    pub fn published(&self, number: u64, until: i64) {
        self.published_number
            .set(i64::try_from(number).unwrap_or(i64::MAX));
        self.published_until.set(until);
    }

    /// Our own list could not be made anew.
    pub fn publish_failed(&self) {
        self.publish_failures.inc();
    }

    /// Revocations that wait for the authority.
    pub fn untold(&self, count: u64) {
        self.untold.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a chain that was refused at the handshake because of revocation or for want of a list.
    pub fn chain_refused(&self, error: &ChainError) {
        let why = match error {
            ChainError::Revoked => "revoked",
            ChainError::NoRevocationList => "no_list",
            ChainError::RevocationListTooOld { .. } => "list_too_old",
            _ => return,
        };
        self.chains.with_label_values(&[why]).inc();
    }

    /// Counts an answer of the OCSP responder.
    pub fn ocsp(&self, kind: &'static str) {
        self.ocsp.with_label_values(&[kind]).inc();
    }
}
