//! The process's metrics, in Prometheus conventions: base units, `_total` for counters, expiry as an
//! absolute time.

use std::time::Duration;

use policy::deny::{DenyCode, DenyStage};
use policy::shadow::Change;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, proto::MetricFamily,
};

use super::audit::{AuditFigures, AuditMetrics};
use super::drills::DrillMetrics;
use super::otlp::OtlpMetrics;
use super::replicas::ReplicaMetrics;
use super::revocation::RevocationMetrics;
use crate::transport::{CutCount, HandshakeResult};

const PREFIX: &str = "mosaic_federation";

/// Every metric of one sidecar.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    decisions: IntCounterVec,
    /// By [`RowsKind`]: counted for every answer, so the labels are looked up once.
    rows: [IntCounter; 3],
    latency: HistogramVec,
    handshakes: IntCounterVec,
    connections: IntGauge,
    connections_refused: IntCounterVec,
    slow_heads: IntCounter,
    limited_here: IntCounter,
    rate_limit_keys: IntGaugeVec,
    peers_in_flight: IntGauge,
    cut: IntCounterVec,
    expiry: IntGaugeVec,
    policy_failures: IntCounter,
    policy_loaded: IntGauge,
    shadow_runs: IntGauge,
    shadow_compared: IntCounterVec,
    store_revision: IntGauge,
    audit: AuditMetrics,
    facts: Histogram,
    lease_wait: Histogram,
    pauses: IntCounterVec,
    breaker_open: IntGaugeVec,
    breaker_opened: IntCounterVec,
    held_back: IntCounterVec,
    rate_limit_waits: IntCounterVec,
    cache_entries: IntGauge,
    cache_bytes: IntGauge,
    cache_questions: IntCounterVec,
    renewals: IntCounterVec,
    renewal_failing: IntGaugeVec,
    renewals_served: IntCounterVec,
    server_certificate_failures: IntCounter,
    witness_alarms: IntCounterVec,
    drills: DrillMetrics,
    /// Those of sending traces and metrics.
    pub otlp: OtlpMetrics,
    /// Those of revocation lists.
    pub revocation: RevocationMetrics,
    replicas: ReplicaMetrics,
}

/// What became of a request for renewal that we were asked, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedRenewal {
    /// A certificate was issued.
    Issued,
    /// It was one that is known, and got the same certificate again.
    Known,
    /// It was not one that can be issued for.
    Refused,
    /// It came with an earlier certificate than the newest.
    Conflict,
    /// It could not be issued or registered.
    Failed,
}

impl ServedRenewal {
    const ALL: [Self; 5] = [
        Self::Issued,
        Self::Known,
        Self::Refused,
        Self::Conflict,
        Self::Failed,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Known => "known",
            Self::Refused => "refused",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// A side of a federated request, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Answering peers.
    Serve,
    /// Asking peers.
    Ask,
}

impl Side {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Ask => "ask",
        }
    }
}

/// Why a request to a peer did not go out, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// Its breaker is open.
    Open,
    /// It has said to wait for longer than the request may.
    Limited,
    /// Too many are out already.
    Busy,
}

impl HeldBack {
    const ALL: [Self; 3] = [Self::Open, Self::Limited, Self::Busy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "breaker_open",
            Self::Limited => "rate_limited",
            Self::Busy => "busy",
        }
    }
}

/// What does not hold together about the record of a peer, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WitnessAlarm {
    /// It showed an earlier place of its history than before.
    WentBack,
    /// It showed two different records at one place.
    OtherHistory,
    /// It signed with another key.
    BadSignature,
    /// What it shows cannot be read.
    Malformed,
}

impl WitnessAlarm {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::WentBack,
        Self::OtherHistory,
        Self::BadSignature,
        Self::Malformed,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WentBack => "went_back",
            Self::OtherHistory => "other_history",
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
        }
    }
}

/// What became of rows, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    /// Sent to the peer.
    Returned,
    /// Shown by the gateway, withheld by the filter.
    Withheld,
    /// Members removed from rows that were sent.
    RedactedMembers,
}

impl Metrics {
    /// All metrics, registered and at zero.
    ///
    /// # Errors
    /// When two of them collide; a defect of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(format!("{PREFIX}_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("{PREFIX}_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let requests = counter(
            "requests_total",
            "Federated requests by direction, verb and outcome.",
            &["direction", "verb", "outcome"],
        )?;
        let decisions = counter(
            "denials_total",
            "Requests denied or failed, by stage and code.",
            &["stage", "code"],
        )?;
        let rows = counter(
            "rows_total",
            "Rows of answers: returned, withheld; and members redacted.",
            &["disposition"],
        )?;
        let rows = ["returned", "withheld", "redacted_members"]
            .map(|kind| rows.with_label_values(&[kind]));
        let handshakes = counter(
            "handshakes_total",
            "Handshakes on the federation listener, by result.",
            &["result"],
        )?;
        let connections_refused = counter(
            "connections_refused_total",
            "Connections closed before TLS for the limits of their source address.",
            &["listener", "limit"],
        )?;
        let rate_limit_keys = IntGaugeVec::new(
            Opts::new(
                format!("{PREFIX}_rate_limit_keys"),
                "Keys that the limiters keep: grants, and source addresses by listener.",
            ),
            &["kind"],
        )?;
        registry.register(Box::new(rate_limit_keys.clone()))?;
        let cut = counter(
            "connections_cut_total",
            "Connections ended by a change of their grant.",
            &["how"],
        )?;
        let breaker_opened = counter(
            "peer_breaker_opened_total",
            "Times the breaker of a peer opened, by peer.",
            &["peer"],
        )?;
        let held_back = counter(
            "peer_held_back_total",
            "Requests that did not go out to a peer, by peer and why.",
            &["peer", "why"],
        )?;
        let rate_limit_waits = counter(
            "peer_rate_limit_waits_total",
            "Requests that waited as a peer had told them to, by peer.",
            &["peer"],
        )?;
        let breaker_open = IntGaugeVec::new(
            Opts::new(
                format!("{PREFIX}_peer_breaker_open"),
                "1 while the breaker of a peer is not closed, by peer.",
            ),
            &["peer"],
        )?;
        registry.register(Box::new(breaker_open.clone()))?;
        let latency = HistogramVec::new(
            HistogramOpts::new(
                format!("{PREFIX}_request_duration_seconds"),
                "From the request's head to the last byte of its answer.",
            )
            .buckets(vec![
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0, 30.0,
            ]),
            &["direction", "verb"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        let facts = Histogram::with_opts(HistogramOpts::new(
            format!("{PREFIX}_facts_fetch_duration_seconds"),
            "Time to fetch a subject's native facts from the gateway.",
        ))?;
        registry.register(Box::new(facts.clone()))?;
        let lease_wait = Histogram::with_opts(
            HistogramOpts::new(
                format!("{PREFIX}_lease_wait_seconds"),
                "How long changes that take something away waited for leases on earlier answers.",
            )
            .buckets(vec![0.001, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]),
        )?;
        registry.register(Box::new(lease_wait.clone()))?;
        let pauses = counter(
            "pause_exceeded_total",
            "Writes that began too long after their check and were cut off.",
            &["side"],
        )?;
        let cache_questions = counter(
            "cache_questions_total",
            "Questions to peers that can be answered from memory: hit or miss.",
            &["result"],
        )?;
        let limited_here = IntCounter::new(
            format!("{PREFIX}_shared_limit_fallbacks_total"),
            "Decisions on rates that this process took by itself, since the server of the shared limits did not answer.",
        )?;
        registry.register(Box::new(limited_here.clone()))?;
        let slow_heads = IntCounter::new(
            format!("{PREFIX}_slow_heads_total"),
            "Connections closed because the head of a request took too long.",
        )?;
        registry.register(Box::new(slow_heads.clone()))?;
        let server_certificate_failures = IntCounter::new(
            format!("{PREFIX}_server_certificate_failures_total"),
            "Replacements of the server certificate that kept the last good one.",
        )?;
        registry.register(Box::new(server_certificate_failures.clone()))?;
        let renewals = counter(
            "renewals_total",
            "Tries to renew our credentials, by peer and result.",
            &["peer", "result"],
        )?;
        let renewals_served = counter(
            "renewals_served_total",
            "Requests of peers for the renewal of a certificate, by result.",
            &["result"],
        )?;
        for result in ServedRenewal::ALL {
            renewals_served
                .with_label_values(&[result.as_str()])
                .inc_by(0);
        }
        let renewal_failing = IntGaugeVec::new(
            Opts::new(
                format!("{PREFIX}_renewal_failing"),
                "1 while a credential that is due cannot be renewed, by peer.",
            ),
            &["peer"],
        )?;
        registry.register(Box::new(renewal_failing.clone()))?;
        for result in ["hit", "miss"] {
            cache_questions.with_label_values(&[result]).inc_by(0);
        }
        for side in [Side::Serve, Side::Ask] {
            pauses.with_label_values(&[side.as_str()]).inc_by(0);
        }
        let expiry = IntGaugeVec::new(
            Opts::new(
                format!("{PREFIX}_certificate_expiry_timestamp_seconds"),
                "When a certificate of ours expires, Unix time. `peer` is empty for our own server certificate and CA.",
            ),
            &["role", "peer"],
        )?;
        registry.register(Box::new(expiry.clone()))?;
        let policy_failures = IntCounter::new(
            format!("{PREFIX}_policy_reload_failures_total"),
            "Policy reloads that kept the last good set.",
        )?;
        registry.register(Box::new(policy_failures.clone()))?;
        let shadow_compared = counter(
            "policy_shadow_decisions_total",
            "Decisions compared with those of a candidate policy, by what differs.",
            &["result"],
        )?;
        for result in std::iter::once("same").chain(Change::ALL.map(Change::as_str)) {
            shadow_compared.with_label_values(&[result]).inc_by(0);
        }
        let witness_alarms = counter(
            "witness_alarms_total",
            "Times the record of a peer that is asked did not hold together.",
            &["kind"],
        )?;
        for kind in WitnessAlarm::ALL {
            witness_alarms.with_label_values(&[kind.as_str()]).inc_by(0);
        }
        for result in HandshakeResult::ALL {
            handshakes.with_label_values(&[result.as_str()]).inc_by(0);
        }
        Ok(Self {
            connections: gauge("connections", "Open federation connections.")?,
            peers_in_flight: gauge("peers_in_flight", "Peers with requests under way.")?,
            policy_loaded: gauge(
                "policy_loaded_timestamp_seconds",
                "When the policy in force was loaded, Unix time.",
            )?,
            shadow_runs: gauge(
                "policy_shadow_running",
                "1 while decisions are compared with those of a candidate policy.",
            )?,
            cache_entries: gauge("cache_entries", "Answers of peers kept in memory.")?,
            cache_bytes: gauge("cache_bytes", "Memory that they take, bytes.")?,
            store_revision: gauge("store_revision", "Revision of the snapshot in force.")?,
            audit: AuditMetrics::new(PREFIX, &registry)?,
            drills: DrillMetrics::new(PREFIX, &registry)?,
            otlp: OtlpMetrics::new(PREFIX, &registry)?,
            revocation: RevocationMetrics::new(PREFIX, &registry)?,
            replicas: ReplicaMetrics::new(PREFIX, &registry)?,
            registry,
            requests,
            decisions,
            rows,
            latency,
            handshakes,
            connections_refused,
            slow_heads,
            limited_here,
            rate_limit_keys,
            cut,
            expiry,
            policy_failures,
            shadow_compared,
            facts,
            lease_wait,
            pauses,
            breaker_open,
            breaker_opened,
            held_back,
            rate_limit_waits,
            cache_questions,
            renewals,
            renewal_failing,
            renewals_served,
            server_certificate_failures,
            witness_alarms,
        })
    }

    /// Counts one finished exchange; `denied` is its reason when it got no rows.
    pub fn exchange(
        &self,
        direction: &'static str,
        verb: &'static str,
        outcome: &'static str,
        denied: Option<(DenyStage, DenyCode)>,
        elapsed: Duration,
    ) {
        self.requests
            .with_label_values(&[direction, verb, outcome])
            .inc();
        if let Some((stage, code)) = denied {
            self.decisions
                .with_label_values(&[stage.as_str(), code.as_str()])
                .inc();
        }
        self.latency
            .with_label_values(&[direction, verb])
            .observe(elapsed.as_secs_f64());
    }

    /// Counts rows or members.
    pub fn rows(&self, kind: RowsKind, count: u64) {
        let [returned, withheld, redacted] = &self.rows;
        match kind {
            RowsKind::Returned => returned,
            RowsKind::Withheld => withheld,
            RowsKind::RedactedMembers => redacted,
        }
        .inc_by(count);
    }

    /// Counts a handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.with_label_values(&[result.as_str()]).inc();
    }

    /// Counts connections that a change ended.
    pub fn cut(&self, count: CutCount) {
        self.cut.with_label_values(&["closed"]).inc_by(count.closed);
        self.cut.with_label_values(&["reset"]).inc_by(count.reset);
    }

    /// One more (+1) or fewer (-1) open connection.
    pub fn connection(&self, change: i64) {
        self.connections.add(change);
    }

    /// Counts connections of `listener` closed before TLS for one of its limits.
    pub fn connections_refused(&self, listener: &'static str, limit: &'static str, count: u64) {
        self.connections_refused
            .with_label_values(&[listener, limit])
            .inc_by(count);
    }

    /// Keys that a limiter keeps.
    pub fn rate_limit_keys(&self, kind: &'static str, keys: usize) {
        self.rate_limit_keys
            .with_label_values(&[kind])
            .set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    /// Peers with requests under way.
    pub fn peers_in_flight(&self, peers: usize) {
        self.peers_in_flight
            .set(i64::try_from(peers).unwrap_or(i64::MAX));
    }

    /// When a certificate expires. `role` is `server`, `ca` or `client`; `peer` a configured name.
    pub fn certificate_expiry(&self, role: &'static str, peer: &str, unix_seconds: i64) {
        self.expiry
            .with_label_values(&[role, peer])
            .set(unix_seconds);
    }

    /// The breaker of a configured peer opened, or is closed.
    pub fn breaker(&self, peer: &str, is_open: bool) {
        self.breaker_open
            .with_label_values(&[peer])
            .set(i64::from(is_open));
        self.breaker_opened
            .with_label_values(&[peer])
            .inc_by(u64::from(is_open));
    }

    /// Counts a request that did not go out.
    pub fn held_back(&self, peer: &str, why: HeldBack) {
        self.held_back
            .with_label_values(&[peer, why.as_str()])
            .inc();
    }

    /// Counts a request that waits as told.
    pub fn rate_limit_wait(&self, peer: &str) {
        self.rate_limit_waits.with_label_values(&[peer]).inc();
    }

    /// Counts a try to renew the credential for a configured peer.
    pub fn renewal(&self, peer: &str, renewed: bool) {
        let result = if renewed { "renewed" } else { "failed" };
        self.renewals.with_label_values(&[peer, result]).inc();
        self.renewal_failing
            .with_label_values(&[peer])
            .set(i64::from(!renewed));
    }

    /// A replacement of the server certificate kept the last good one.
    pub fn server_certificate_failed(&self) {
        self.server_certificate_failures.inc();
    }

    /// Counts a peer's request for renewal.
    pub fn renewal_served(&self, result: ServedRenewal) {
        self.renewals_served
            .with_label_values(&[result.as_str()])
            .inc();
    }

    /// Removes the series of a peer that is no longer configured.
    pub fn forget_peer(&self, peer: &str) {
        // A series that never began is as good as removed.
        let _ = self.breaker_open.remove_label_values(&[peer]);
        let _ = self.breaker_opened.remove_label_values(&[peer]);
        let _ = self.rate_limit_waits.remove_label_values(&[peer]);
        let _ = self.renewal_failing.remove_label_values(&[peer]);
        let _ = self.expiry.remove_label_values(&["client", peer]);
        for result in ["renewed", "failed"] {
            let _ = self.renewals.remove_label_values(&[peer, result]);
        }
        for why in HeldBack::ALL {
            let _ = self.held_back.remove_label_values(&[peer, why.as_str()]);
        }
    }

    /// A policy set came into force.
    pub fn policy_loaded(&self, unix_seconds: i64) {
        self.policy_loaded.set(unix_seconds);
    }

    /// A reload was refused.
    pub fn policy_failed(&self) {
        self.policy_failures.inc();
    }

    /// Whether decisions are compared with those of a candidate policy.
    pub fn shadow_runs(&self, runs: bool) {
        self.shadow_runs.set(i64::from(runs));
    }

    /// Counts a decision that was compared: `same`, or the kind of the difference.
    pub fn shadow_compared(&self, result: &'static str) {
        self.shadow_compared.with_label_values(&[result]).inc();
    }

    /// The revision of the snapshot in force.
    pub fn store_revision(&self, revision: u64) {
        self.store_revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
    }

    /// Time of one fetch of native facts.
    pub fn facts_fetched(&self, elapsed: Duration) {
        self.facts.observe(elapsed.as_secs_f64());
    }

    /// How long a change waited for leases.
    pub fn lease_waited(&self, waited: Duration) {
        self.lease_wait.observe(waited.as_secs_f64());
    }

    /// Late writes of one side since the start, read when scraped.
    pub fn pauses_exceeded(&self, side: Side, count: u64) {
        let counter = self.pauses.with_label_values(&[side.as_str()]);
        counter.inc_by(count.saturating_sub(counter.get()));
    }

    /// Figures of the cache since the start, read when scraped.
    pub fn cache(&self, entries: u64, bytes: u64, hits: u64, misses: u64) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.cache_entries.set(gauge(entries));
        self.cache_bytes.set(gauge(bytes));
        for (result, count) in [("hit", hits), ("miss", misses)] {
            let counter = self.cache_questions.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Counts something that does not hold together about the record of a peer.
    pub fn witness_alarm(&self, kind: WitnessAlarm) {
        self.witness_alarms
            .with_label_values(&[kind.as_str()])
            .inc();
    }

    /// What the process does to see whether it holds.
    #[must_use]
    pub const fn drills(&self) -> &DrillMetrics {
        &self.drills
    }

    /// This process as a replica.
    #[must_use]
    pub const fn replicas(&self) -> &ReplicaMetrics {
        &self.replicas
    }

    /// The audit log's own figures, read when scraped.
    pub fn audit(&self, figures: &AuditFigures) {
        self.audit.show(figures);
    }

    /// Counts a decision on a rate that was taken without the server of the shared limits.
    pub fn limited_here(&self) {
        self.limited_here.inc();
    }

    /// Counts a connection that was closed because the head of a request took too long.
    pub fn slow_head(&self) {
        self.slow_heads.inc();
    }

    /// Every metric with its samples.
    #[must_use]
    pub fn families(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The text exposition format, version 0.0.4.
    ///
    /// # Errors
    /// When a metric cannot be written; a defect of this file.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.families(), &mut text)?;
        Ok(text)
    }
}
