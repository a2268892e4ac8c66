//! Revocation lists over the wire: ours as others read it, and those of others as peers meet them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "crl/fetched.rs"]
mod fetched;
#[path = "crl/outside.rs"]
mod outside;
#[path = "crl/published.rs"]
mod published;
mod support;

use std::time::Duration;

use serde_json::Value;
use tests::World;

/// How often something is looked at that has to come by itself, and how long apart.
const LOOKS: u32 = 1_000;
const APART: Duration = Duration::from_millis(20);

/// Waits until `look` gives something.
async fn comes<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(APART).await;
    }
    panic!("{what} did not come");
}

/// What `status` says of revocation lists.
async fn revocation(world: &World) -> Value {
    let status = world.control().status().await.unwrap();
    serde_json::to_value(status).unwrap()["revocation"].clone()
}

/// A line of the metrics.
async fn metric(world: &World, line: &str) -> bool {
    let ops = world.sidecar.addresses().ops.unwrap();
    let text = support::enlist::http_get(ops, "/metrics").await;
    text.lines()
        .any(|one| one == format!("mosaic_federation_{line}"))
}
