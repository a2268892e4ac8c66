//! What the process says about itself: metrics, logs, spans, and the ops listener that serves them.
//!
//! Invariant: labels come from closed sets and configured peers only; nothing of a request's or an
//! answer's content is ever a label, an attribute or a log field.

mod audit;
pub mod drills;
pub mod logs;
pub mod metrics;
pub mod ops;
pub mod otlp;
mod replicas;
mod revocation;
pub mod spans;
pub mod steps;
mod trace_parent;

pub use audit::AuditFigures;
pub use metrics::Metrics;
pub use replicas::{ReplicaFigures, ReplicaMetrics};
pub use trace_parent::TraceParent;
