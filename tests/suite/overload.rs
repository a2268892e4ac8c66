//! Too much of something: slow heads, reset streams, heads without an end, a gateway that is asked too much.
//!
//! Invariant: whoever overdoes it loses its own connection or is told to come back; others are answered, and memory is bounded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::deny::DenyCode;
use reference_gateway::plan;
use rustls::ClientConfig;
use serde_json::json;
use support::enlist::enlist;
use support::onboard::{users, whole_scope};
use support::process::Process;
use support::reader::{PATIENCE, until};
use tests::grants::BASE;
use tests::{Denial, Holder, RawConnection, World, tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn speaking(world: &World, holder: &Holder, protocol: &str) -> ClientConfig {
    tls::client(Some(&holder.minted), world.root(), &[protocol])
}

async fn open(world: &World, holder: &Holder) -> RawConnection {
    let config = speaking(world, holder, "http/1.1");
    RawConnection::open(world.federation(), config)
        .await
        .unwrap()
}

/// The status of the answer to one question on it.
async fn answered(connection: &mut RawConnection) -> u16 {
    connection
        .post(&format!("{BASE}/capabilities"), "{}")
        .await
        .unwrap();
    connection.response().await.unwrap().status
}

/// Sends a head a byte at a time until the other side has had enough.
async fn trickle(connection: RawConnection) {
    let (mut read, mut write) = tokio::io::split(connection.stream);
    let slowly = async {
        let mut due = tokio::time::interval(Duration::from_millis(10));
        for byte in format!("POST {BASE}/capabilities HTTP/1.1\r\nHost: b\r\nX-Long: ")
            .bytes()
            .chain(std::iter::repeat(b'x'))
        {
            due.tick().await;
            if write.write_all(&[byte]).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
    };
    let ended = async {
        let mut answer = Vec::new();
        // Closed or reset: both are an end.
        let _ = read.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            () = slowly => {}
            () = ended => {}
        }
    })
    .await
    .expect("a slow head is cut off");
}

fn slow_heads(world: &World, count: u64) -> bool {
    world.counted("slow_heads_total") == count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_in_is_cut_off_and_an_idle_connection_is_not() {
    let world = World::builder()
        .federation("header_timeout_ms = 300\n")
        .start()
        .await;
    let holder = world.amira().await;
    let mut idle = open(&world, &holder).await;
    let (fresh, mut used) = tokio::join!(open(&world, &holder), open(&world, &holder));
    assert_eq!(answered(&mut used).await, 200);
    tokio::join!(trickle(fresh), trickle(used));
    until(|| slow_heads(&world, 2)).await;
    // It has been open for longer than a head may take.
    assert_eq!(answered(&mut idle).await, 200);
    assert_eq!(answered(&mut idle).await, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_agrees_on_http2_and_does_not_speak_it_is_cut_off() {
    let world = World::builder()
        .federation("header_timeout_ms = 300\n")
        .start()
        .await;
    let holder = world.amira().await;
    let config = Arc::new(speaking(&world, &holder, "h2"));
    let open = || async {
        tls::connect(world.federation(), Arc::clone(&config))
            .await
            .unwrap()
    };
    let (mut silent, mut halfway, mut idle) = tokio::join!(open(), open(), open());
    halfway.write_all(&preface()[..20]).await.unwrap();
    halfway.flush().await.unwrap();
    idle.write_all(&preface()).await.unwrap();
    idle.flush().await.unwrap();
    for stream in [&mut silent, &mut halfway] {
        let mut answer = Vec::new();
        // Closed or reset: both are an end.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
        let _ = ended.await.expect("it is cut off");
    }
    until(|| slow_heads(&world, 2)).await;
    // Who has spoken may ask later.
    let asked = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &head(&format!("{BASE}/capabilities")),
    );
    idle.write_all(&asked).await.unwrap();
    idle.flush().await.unwrap();
    let mut kinds = Vec::new();
    while !kinds.contains(&HEADERS) {
        let mut begins = [0; 9];
        let read = tokio::time::timeout(PATIENCE, idle.read_exact(&mut begins));
        read.await.expect("it is answered").unwrap();
        let length = u32::from_be_bytes([0, begins[0], begins[1], begins[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        idle.read_exact(&mut payload).await.unwrap();
        kinds.push(begins[3]);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_costs_as_many_requests_as_may_wait_for_it() {
    // Each process counts what it has under way itself.
    let world = World::builder()
        .alone()
        .gateway("max_requests = 1\nmax_waiting = 0\nread_timeout_ms = 8000\n")
        .settings("[limits]\nfacts_cache_ms = 10000\n")
        .start()
        .await;
    let holder = world.amira().await;
    let facts = world.ask(&holder.minted, "/list/tasks", &json!({})).await;
    assert_eq!(facts.status, 200, "{}", facts.text());
    world.gateway.forget_requests().await;
    world.gateway.behave(&json!({"over_share": ["hang"]})).await;
    let mut first = open(&world, &holder).await;
    first
        .post(&format!("{BASE}/list/tasks"), "{}")
        .await
        .unwrap();
    let asked = async { while world.gateway.requests().await.is_empty() {} };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("the gateway is asked");
    let busy = Denial::new(503, "unavailable", DenyCode::GatewayBusy);
    for (path, body) in [
        ("/list/notes", json!({})),
        ("/get/tasks/x", json!({})),
        ("/search", json!({"params": {"query": "x"}})),
    ] {
        let answer = world.ask(&holder.minted, path, &body).await;
        busy.check(&world, &answer).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
    }
    let asked = world.gateway.requests().await.len();
    assert_eq!(asked, 1, "none of them asked");
    // What needs no gateway is answered, and once the first is done the next one gets on.
    assert_eq!(answered(&mut open(&world, &holder).await).await, 200);
    world.gateway.behave_honestly().await;
    assert_eq!(first.response().await.unwrap().status, 504);
    let answer = world.ask(&holder.minted, "/list/notes", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    world.stop().await;
}

// HTTP/2 frames that no client library would send (RFC 9113, section 4.1).

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET of a path with the static table alone (RFC 7541).
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x01, 1, b'b', 0x04];
    block.push(u8::try_from(path.len()).unwrap());
    block.extend(path.as_bytes());
    block
}

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// Sends `frames` one after the other until they end or the other side has had enough; how many bytes were taken.
async fn flood(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    frames: impl Iterator<Item = Vec<u8>>,
) -> usize {
    let stream = tls::connect(address, config).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while read.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    let mut taken = 0;
    if write.write_all(&preface()).await.is_ok() {
        for frame in frames {
            if reading.is_finished() || write.write_all(&frame).await.is_err() {
                break;
            }
            taken += frame.len();
        }
    }
    let _ = write.flush().await;
    reading.abort();
    taken
}

/// A process with two holders, and what each shows.
async fn two() -> (Process, Arc<ClientConfig>, Arc<ClientConfig>) {
    let world = World::start().await;
    let scope = || whole_scope(plan::AMIRA);
    let guest = enlist(&world, "guest", &users()[plan::AMIRA], scope()).await;
    let other = enlist(&world, "other", &users()[plan::AMIRA], scope()).await;
    let floods = Arc::new(speaking(&world, &guest, "h2"));
    let asks = Arc::new(speaking(&world, &other, "http/1.1"));
    (Process::take_over(world, "info").await, floods, asks)
}

/// Floods, while another holder is answered, and looks at the memory.
async fn flooded(frames: impl Iterator<Item = Vec<u8>> + Send + 'static) -> usize {
    const MIB: u64 = 1024 * 1024;
    let (process, floods, asks) = two().await;
    let mut other = RawConnection::open(process.federation, asks).await.unwrap();
    assert_eq!(answered(&mut other).await, 200);
    process.reset_peak();
    let (before, _) = process.memory();
    let flooding = tokio::spawn(flood(process.federation, floods, frames));
    let mut answers = 0;
    while !flooding.is_finished() || answers < 20 {
        assert_eq!(answered(&mut other).await, 200);
        answers += 1;
    }
    let (_, peak) = process.memory();
    let grown = peak.saturating_sub(before) / MIB;
    let taken = flooding.await.unwrap();
    println!("{taken} bytes taken, {answers} answers meanwhile, {grown} MiB more");
    assert!(grown < 32, "{grown} MiB");
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_disturb_nobody() {
    let path = format!("{BASE}/capabilities");
    let streams = (0..20_000u32).map(move |nth| {
        let stream = 2 * nth + 1;
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(&path));
        // CANCEL.
        frames.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        frames
    });
    let taken = flooded(streams).await;
    // So many were opened and reset at least, of some 30 bytes each.
    assert!(taken > 3_000, "{taken} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_an_end_is_not_read_for_ever() {
    const MOST: usize = 64 * 1024 * 1024;
    let first = std::iter::once(frame(HEADERS, END_STREAM, 1, &head("/")));
    // A literal field that is not put into the table, over and over.
    let fields: Vec<u8> = std::iter::repeat_n([0x00, 1, b'a', 1, b'b'], 3_200)
        .flatten()
        .collect();
    let more = frame(CONTINUATION, 0, 1, &fields);
    let endless = std::iter::repeat_n(more, MOST / (16 * 1024));
    let taken = flooded(first.chain(endless)).await;
    assert!(taken < MOST / 4, "{taken} bytes were read");
    // It did get beyond what one frame holds.
    assert!(taken > 32 * 1024, "{taken} bytes were read");
}
