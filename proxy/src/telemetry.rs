//! What the process says about itself: metrics, logs, and the ops listener that serves them.
//!
//! Invariant: labels come from closed sets and configured peers only; nothing of a request's or an
//! answer's content is ever a label or a log field.

mod audit;
pub mod drills;
pub mod logs;
pub mod metrics;
pub mod ops;
mod revocation;

pub use audit::AuditFigures;
pub use metrics::Metrics;
