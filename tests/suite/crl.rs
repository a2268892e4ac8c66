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

use proxy::admin::Control;
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
    said(world.control()).await
}

async fn said(control: &Control) -> Value {
    let status = control.status().await.unwrap();
    serde_json::to_value(status).unwrap()["revocation"].clone()
}

/// What each replica says of the first place it reads lists from.
async fn places(world: &World) -> Vec<Value> {
    let mut places = Vec::new();
    for control in world.controls() {
        places.push(said(control).await["places"][0].clone());
    }
    places
}

/// Whether a place fails with these words, or does not.
fn fails(place: &Value, words: Option<&str>) -> bool {
    let said = place["failure"].as_str();
    match words {
        None => said.is_none(),
        Some(words) => said.is_some_and(|said| said.contains(words)),
    }
}

/// A line of the metrics of each replica.
async fn metric(world: &World, line: &str) -> bool {
    for replica in world.replicas() {
        let ops = replica.addresses().ops.unwrap();
        let text = support::enlist::http_get(ops, "/metrics").await;
        let line = format!("mosaic_federation_{line}");
        if !text.lines().any(|one| one == line) {
            return false;
        }
    }
    true
}
