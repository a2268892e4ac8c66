//! Metrics of the audit log: how full its journal is, and whether it keeps up.
//!
//! Invariant: counters only grow; they are brought up to the figures of the log when scraped. What the figures are
//! taken from is the audit log's.

use prometheus::{Gauge, IntCounter, IntGauge, Registry};

/// Figures of the audit log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AuditFigures {
    /// Frames in the journal that the database does not have.
    pub depth: u64,
    /// Bytes of the journal in use or set aside.
    pub used_bytes: u64,
    /// Size of the journal.
    pub size_bytes: u64,
    /// Records written into the database since the start.
    pub written: u64,
    /// When that last happened, milliseconds since the epoch; 0 before the first.
    pub last_written: i64,
    /// Failed tries to write into the database.
    pub write_failures: u64,
    /// Failed writes to the journal.
    pub journal_failures: u64,
    /// Failed syncs of the journal.
    pub sync_failures: u64,
    /// Requests refused because they could not be recorded.
    pub refused: u64,
    /// Requests answered without a record.
    pub dropped: u64,
    /// Refusals counted into a record that was there.
    pub coalesced: u64,
    /// Frames of the journal that could not be read back.
    pub damaged: u64,
    /// Rows moved into the archive since the start.
    pub archived: u64,
    /// Failed runs of the archive since the start.
    pub archive_failures: u64,
    /// When every row that was due had been moved, milliseconds since the epoch; 0 before the first time.
    pub archive_success: i64,
}

/// The metrics.
pub struct AuditMetrics {
    depth: IntGauge,
    used: IntGauge,
    size: IntGauge,
    fill: Gauge,
    last_written: Gauge,
    archive_success: Gauge,
    counters: [IntCounter; 10],
}

impl AuditMetrics {
    /// Registered and at zero.
    pub(super) fn new(prefix: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let float = |name: &str, help: &str| {
            let gauge = Gauge::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("{prefix}_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            depth: gauge(
                "audit_journal_records",
                "Frames in the audit journal that the database does not have yet.",
            )?,
            used: gauge(
                "audit_journal_used_bytes",
                "Bytes of the audit journal in use or set aside for requests under way.",
            )?,
            size: gauge("audit_journal_size_bytes", "Size of the audit journal.")?,
            fill: float(
                "audit_journal_fill_ratio",
                "Used part of the audit journal; at 0.9 requests are refused.",
            )?,
            last_written: float(
                "audit_last_written_timestamp_seconds",
                "When audit records were last written into the database, Unix time.",
            )?,
            archive_success: float(
                "audit_archive_last_success_timestamp_seconds",
                "When every audit row that was due had been moved into the archive, Unix time.",
            )?,
            counters: [
                counter(
                    "audit_records_written_total",
                    "Audit records written into the database.",
                )?,
                counter(
                    "audit_write_failures_total",
                    "Failed tries to write audit records into the database.",
                )?,
                counter(
                    "audit_journal_failures_total",
                    "Failed writes to the audit journal.",
                )?,
                counter(
                    "audit_journal_sync_failures_total",
                    "Failed syncs of the audit journal.",
                )?,
                counter(
                    "audit_refused_total",
                    "Requests refused because they could not be recorded.",
                )?,
                counter(
                    "audit_dropped_total",
                    "Requests answered without a record (audit.on_exhausted = drop).",
                )?,
                counter(
                    "audit_coalesced_total",
                    "Refusals counted into an audit record that was there already.",
                )?,
                counter(
                    "audit_journal_damaged_total",
                    "Frames of the audit journal that could not be read back.",
                )?,
                counter(
                    "audit_archived_rows_total",
                    "Audit rows moved into the archive.",
                )?,
                counter(
                    "audit_archive_failures_total",
                    "Failed runs of moving audit rows into the archive.",
                )?,
            ],
        })
    }

    /// Brings the metrics up to the figures.
    pub(super) fn show(&self, figures: &AuditFigures) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.depth.set(number(figures.depth));
        self.used.set(number(figures.used_bytes));
        self.size.set(number(figures.size_bytes));
        let ratio = |part: u64, whole: u64| {
            let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
            f64::from(u32::try_from(thousandths).unwrap_or(u32::MAX)) / 1000.0
        };
        self.fill.set(ratio(figures.used_bytes, figures.size_bytes));
        let seconds = |millis: i64| {
            std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
        };
        self.last_written.set(seconds(figures.last_written));
        self.archive_success.set(seconds(figures.archive_success));
        let counts = [
            figures.written,
            figures.write_failures,
            figures.journal_failures,
            figures.sync_failures,
            figures.refused,
            figures.dropped,
            figures.coalesced,
            figures.damaged,
            figures.archived,
            figures.archive_failures,
        ];
        for (counter, count) in self.counters.iter().zip(counts) {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
