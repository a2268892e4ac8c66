//! What a decision of the limiter costs, and what an idle grant costs in memory.
//!
//! usage: cargo run --release -p proxy --example limiter
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::SystemClock;
use futures_util::FutureExt;
use policy::id::GrantId;
use policy::rate::Rate;
use proxy::limit::{BucketKey, Limited, Limiter, LocalLimiter, Purpose, Quota};
use uuid::Uuid;

const KEYS: u128 = 100_000;
const ROUNDS: u32 = 20;

type Failure = Box<dyn std::error::Error>;

/// Ids as they are in use: random.
fn limits() -> Vec<Limited> {
    let quota = Quota::of(Rate::DEFAULT);
    (0..KEYS)
        .map(|_| Limited {
            key: BucketKey {
                grant: GrantId::from(Uuid::new_v4()),
                purpose: Purpose::Questions,
            },
            quota,
        })
        .collect()
}

/// Resident memory of this process, bytes.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Nanoseconds a decision, the best of some rounds over these keys.
fn decisions(limiter: &LocalLimiter, limits: &[Limited]) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for limit in limits {
            let drawn = limiter.draw(std::slice::from_ref(limit)).now_or_never();
            black_box(drawn);
        }
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9 / limits.len() as f64
}

fn main() -> Result<(), Failure> {
    let limits = limits();
    let limiter = LocalLimiter::new(Arc::new(SystemClock));
    let one = vec![*limits.first().ok_or("no keys")?; 100_000];
    println!(
        "one grant over and over: {:.0} ns a decision",
        decisions(&limiter, &one)
    );
    limiter.sweep();
    let before = resident()?;
    for limit in &limits {
        black_box(limiter.draw(std::slice::from_ref(limit)).now_or_never());
    }
    let held = resident()?.saturating_sub(before);
    let keys = limiter.keys();
    println!("{keys} grants: {:.0} bytes each", held as f64 / keys as f64);
    println!(
        "{keys} grants in turn: {:.0} ns a decision",
        decisions(&limiter, &limits)
    );
    let wait = Quota::of(Rate::DEFAULT).window();
    println!("waiting {} s until every bucket is full", wait.as_secs());
    std::thread::sleep(wait);
    limiter.sweep();
    let left = resident()?.saturating_sub(before);
    println!(
        "after a sweep: {} grants, {left} bytes above the start",
        limiter.keys()
    );
    Ok(())
}
