//! How fast rows are filtered on one core: GB/s of gateway body for several shapes, median of several runs.
//!
//! Time is that of the processor where the system tells it (Linux), so that a busy machine does not distort it.
//! Run it with `cargo run --release -p policy --example rowbench [BODY]`. The bodies are made here, always the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::mapping::MemberPath;
use policy::rows::{RowFilter, RowReader, RowsAt, Step};

use common::{filter, mix, processor_time};

const RUNS: usize = 15;
const RUN: Duration = Duration::from_millis(60);

/// Makes the row with a number.
type Shape = fn(u64) -> String;

fn main() {
    let filter = Arc::new(filter("list").0);
    let shapes: [(&str, Shape); 6] = [
        ("plain", plain),
        ("spaced", |i| {
            plain(i).replace("\":", "\": ").replace(",\"", ", \"")
        }),
        ("indented", |i| {
            plain(i)
                .replace("\":", "\": ")
                .replace(",\"", ",\n      \"")
        }),
        ("nested", nested),
        ("secrets", secrets),
        ("beyond ASCII", |i| plain(i).replace("item", "Größe 大きさ")),
    ];
    println!(
        "{:<14} {:>6} {:>9} {:>8} {:>9} {:>9}",
        "body", "rows", "bytes", "chunk", "GB/s", "ns/row"
    );
    let only = std::env::args().nth(1);
    for (name, shape) in shapes {
        if only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        for rows in [20, 1000] {
            let body = body(rows, shape);
            for chunk in [body.len(), 64 << 10, 16 << 10] {
                if chunk > body.len() {
                    continue;
                }
                let seconds = measure(&filter, &body, chunk);
                println!(
                    "{name:<14} {rows:>6} {:>9} {:>8} {:>9.2} {:>9.1}",
                    body.len(),
                    chunk,
                    body.len() as f64 / seconds / 1e9,
                    seconds * 1e9 / rows as f64
                );
            }
        }
    }
}

fn measure(filter: &Arc<RowFilter>, body: &[u8], chunk: usize) -> f64 {
    let mut out = Vec::with_capacity(body.len() * 2);
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let (begin, busy, mut times) = (Instant::now(), processor_time(), 0u32);
            while begin.elapsed() < RUN {
                for _ in 0..16 {
                    out.clear();
                    read(filter, body, chunk, &mut out);
                    times += 1;
                }
            }
            let spent = match (busy, processor_time()) {
                (Some(before), Some(after)) => after - before,
                _ => begin.elapsed(),
            };
            spent.as_secs_f64() / f64::from(times)
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}

fn read(filter: &Arc<RowFilter>, body: &[u8], chunk: usize, out: &mut Vec<u8>) {
    let mut reader = RowReader::new(
        Arc::clone(filter),
        RowsAt::rows(&MemberPath::parse("rows").unwrap()),
    );
    let mut chunks = body.chunks(chunk);
    loop {
        match reader.step(out).unwrap() {
            Step::Row => out.push(b','),
            Step::NeedInput => match chunks.next() {
                Some(chunk) => reader.push(chunk),
                None => reader.close(),
            },
            Step::End => break,
            step => unreachable!("every row passes, not {step:?}"),
        }
    }
}

fn body(rows: u64, shape: Shape) -> Vec<u8> {
    let rows_text: Vec<_> = (0..rows).map(shape).collect();
    format!("{{\"count\":{rows},\"rows\":[{}]}}", rows_text.join(",")).into_bytes()
}

/// A row of the usual size: about 200 bytes, seven members.
fn plain(i: u64) -> String {
    let bits = mix(i);
    let team = if i.is_multiple_of(2) {
        "\"team-platform\""
    } else {
        "null"
    };
    let status = ["todo", "doing", "done"][usize::try_from(bits % 3).unwrap()];
    let tag: String = (0..31)
        .map(|k| char::from(b'a' + u8::try_from(mix(i * 31 + k) % 10).unwrap()))
        .collect();
    format!(
        "{{\"id\":\"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\",\"createdAt\":\"2026-01-{:02}T12:{:02}:{:02}.000Z\",\
         \"ownerId\":\"user-e1\",\"teamId\":{team},\"title\":\"item {i:06}\",\"status\":\"{status}\",\"tag\":\"{tag}\"}}",
        bits >> 32,
        bits >> 16 & 0xffff,
        bits >> 4 & 0xfff,
        bits & 0xfff,
        mix(!i) >> 16,
        28 - i % 28,
        i / 60 % 60,
        i % 60
    )
}

fn nested(i: u64) -> String {
    let row = plain(i);
    let row = row.trim_end_matches('}');
    format!(
        "{row},\"labels\":[\"a\",\"b\"],\"size\":{i},\"done\":true,\"meta\":{{\"cost\":{{\"hours\":{}.5,\"unit\":\"h\"}},\"tags\":[{{\"name\":\"x\",\"color\":\"red\"}}]}}}}",
        i % 40
    )
}

fn secrets(i: u64) -> String {
    let row = plain(i);
    let row = row.trim_end_matches('}');
    format!(
        "{row},\"accessToken\":\"{:016x}\",\"auth\":{{\"user\":\"u\",\"password\":\"p\"}}}}",
        mix(i)
    )
}
