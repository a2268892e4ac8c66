//! The audit row of an exchange.
//!
//! Invariant: a row is waited for by looking again, up to the bound the product promises.

use std::time::Duration;

use proxy::admin::{AuditQuery, Control};
use serde_json::Value;

/// A request is in the audit log within this time (specification, section 11).
pub const AUDIT_WITHIN: Duration = Duration::from_secs(1);

/// The row of a request, by the serving side's or the peer's request id. Panics when it is not there
/// in time, or when there are several.
pub async fn audit_row(control: &Control, request_id: &str) -> Value {
    let mut rows = audit_rows(control, request_id, 1).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// At least `least` rows of a request id. Panics when they are not there in time.
pub async fn audit_rows(control: &Control, request_id: &str, least: usize) -> Vec<Value> {
    let look = async {
        loop {
            let query = AuditQuery {
                request_id: Some(request_id.to_owned()),
                ..AuditQuery::default()
            };
            let rows = control.query_audit(query).await.unwrap();
            if rows.len() >= least {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(AUDIT_WITHIN, look)
        .await
        .unwrap_or_else(|_| panic!("no audit row of {request_id} within {AUDIT_WITHIN:?}"))
}
