//! Connections that are open and silent: what each costs, and that nobody else is slower for them.
//!
//! Invariant: CI opens 1,000, a soak 10,000 (or as many as this machine's limit on descriptors leaves room for, which is
//! said). Memory is that of the process, read from the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use certs::clock::{Clock as _, SystemClock};
use futures_util::stream::{self, StreamExt as _};
use reference_gateway::plan;
use rustls::ClientConfig;
use support::enlist::enlist;
use support::onboard::{users, whole_scope};
use support::process::Process;
use support::rounds;
use tests::grants::BASE;
use tests::{RawConnection, World, tls};

/// Bytes that one may cost (specification, section 13).
const BAR: u64 = 64 * 1024;
/// Descriptors that are left for everything else, on either side.
const SPARE: u64 = 500;
/// Requests of others that are timed.
const REQUESTS: usize = 400;
/// Handshakes under way at once.
const AT_ONCE: usize = 16;

/// How many descriptors a process here may have.
fn descriptors() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    soft.parse().unwrap_or(u64::MAX)
}

/// One that has been used once and is silent since.
async fn idle(process: &Process, config: &Arc<ClientConfig>, nth: u32) -> RawConnection {
    // From many addresses, as peers are.
    let [_, _, high, low] = (nth / 50).to_be_bytes();
    let source = IpAddr::V4(Ipv4Addr::new(127, 1, high, low.max(1)));
    let stream = tls::connect_from(source, process.federation, Arc::clone(config))
        .await
        .unwrap();
    let mut connection = RawConnection::over(stream);
    assert_eq!(asked(&mut connection).await, 200);
    connection
}

async fn asked(connection: &mut RawConnection) -> u16 {
    connection
        .post(&format!("{BASE}/capabilities"), "{}")
        .await
        .unwrap();
    connection.response().await.unwrap().status
}

/// The median time of an answer on one connection.
async fn latency(connection: &mut RawConnection) -> Duration {
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let began = SystemClock.boot_nanos();
        assert_eq!(asked(connection).await, 200);
        let elapsed = SystemClock.boot_nanos().saturating_sub(began);
        times.push(Duration::from_nanos(elapsed));
    }
    times.sort();
    times[REQUESTS / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little_and_disturb_nobody() {
    let wanted = rounds(1_000, 10_000);
    let room = u32::try_from(descriptors().saturating_sub(SPARE)).unwrap_or(u32::MAX);
    let count = wanted.min(room);
    if count < wanted {
        println!(
            "{wanted} connections are wanted, {count} fit into this machine's limit on descriptors"
        );
    }
    let world = World::builder()
        .federation("max_connections = 12000\n")
        .start()
        .await;
    let scope = || whole_scope(plan::AMIRA);
    let many = enlist(&world, "many", &users()[plan::AMIRA], scope()).await;
    let other = enlist(&world, "other", &users()[plan::AMIRA], scope()).await;
    let speaking = |holder: &tests::Holder| {
        Arc::new(tls::client(
            Some(&holder.minted),
            world.root(),
            &["http/1.1"],
        ))
    };
    let (silent, asks) = (speaking(&many), speaking(&other));
    let process = Process::take_over(world, "info").await;
    let mut other = RawConnection::open(process.federation, asks).await.unwrap();
    // Whatever is made once is made before memory is looked at.
    drop(idle(&process, &silent, 0).await);
    latency(&mut other).await;
    let before = latency(&mut other).await;
    let (empty, _) = process.memory();

    let open: Vec<RawConnection> = stream::iter(0..count)
        .map(|nth| idle(&process, &silent, nth))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (full, _) = process.memory();
    let beside = latency(&mut other).await;
    let each = full.saturating_sub(empty) / u64::from(count);
    println!(
        "{count} idle connections: {} KiB each, others answered in {beside:?} at the median, {before:?} without them ({:.2} times)",
        each / 1024,
        beside.as_secs_f64() / before.as_secs_f64()
    );
    assert!(each < BAR, "{each} bytes for each connection");
    // Twice is the promise; a machine that does other things is given more.
    assert!(
        beside < before * 2 + Duration::from_millis(20),
        "{beside:?} after {before:?}"
    );
    // None of them was dropped to make room.
    let (first, last) = (0, open.len() - 1);
    let mut open = open;
    for nth in [first, last / 2, last] {
        assert_eq!(asked(&mut open[nth]).await, 200, "the connection {nth}");
    }
}
