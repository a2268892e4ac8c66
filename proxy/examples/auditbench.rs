//! What the audit log costs: nanoseconds of the request path, microseconds of the writer, rows verified a second.
//!
//! Time is that of the processor as Linux accounts it to the threads of this process, so that a busy machine does not distort
//! it much. Run it with `cargo run --release -p proxy --example auditbench [DIR]`; DIR is where the journal and the database are made
//! (a directory on the disk that would be used).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use certs::clock::SystemClock;
use policy::id::{GrantId, PeerId, SubjectId};
use policy::time::UnixMillis;
use proxy::audit::chain::{CHAIN_KEY_LEN, ChainKey, Head, NO_HASH, verify};
use proxy::audit::{
    AuditDetail, AuditLog, AuditOutcome, AuditRecord, AuditRow, AuditSink, AuditText, Direction,
    HistoryHead, Journal, JournalSettings,
};
use proxy::store::{Act, Actor, ChainBeginning, SqliteOptions, SqliteStore, Store};
use uuid::Uuid;

/// Requests, and rows, in one measurement.
const COUNT: usize = 200_000;
/// Rows in one transaction.
const BATCH: usize = 256;

/// Nanoseconds of processor time of all threads so far.
fn processor() -> u64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

fn each(what: &str, count: usize, work: impl FnOnce()) -> f64 {
    let before = processor();
    work();
    let spent = processor() - before;
    let each = spent as f64 / count as f64;
    println!("{what}: {each:.0} ns each");
    each
}

fn record(n: u64) -> AuditRecord {
    let id = Uuid::from_u64_pair(0x018b_cfe5_6800_7000 + (n << 16), 0x8000_0000_0000_0000 | n);
    let text = AuditText::short(&id.to_string());
    let at = UnixMillis(1_700_000_000_000 + i64::try_from(n).unwrap());
    let mut record = AuditRecord::new(id, at, Direction::Inbound, AuditOutcome::Allowed, text);
    record.peer_request_id = Some(AuditText::short("01a21eda-6c38-75b5-b27b-f91bb8cd510e"));
    record.peer = Some(PeerId::new(Uuid::from_u128(1)));
    record.grant = Some(GrantId::new(Uuid::from_u128(u128::from(n % 50))));
    record.subject = Some(SubjectId::new(Uuid::from_u128(3)));
    record.cert_serial = Some(AuditText::short("0af7651916cd43dd8448eb211c80319c"));
    record.verb = Some(AuditText::fixed("list"));
    record.resource = Some(AuditText::fixed("tasks"));
    record.query_hash = Some([n.to_le_bytes()[0]; 32]);
    record.http_status = Some(200);
    record.rows_returned = 20;
    record.bytes_out = 4096;
    record.latency_us = 700 + n % 100;
    record.revision = Some(12);
    record
}

fn key() -> Arc<ChainKey> {
    Arc::new(ChainKey::new(&[7; CHAIN_KEY_LEN]))
}

fn request_path(dir: &Path) {
    let settings = JournalSettings {
        bytes: 512 * 1024 * 1024,
        ..JournalSettings::new(dir.join("audit"))
    };
    let clock = Arc::new(SystemClock);
    let journal = Journal::create(&settings, Uuid::now_v7(), Uuid::nil(), clock).unwrap();
    let sink = AuditSink::new(journal);
    let records: Vec<_> = (0..COUNT as u64).map(record).collect();
    each("request path, intent and outcome", COUNT, || {
        for record in &records {
            let mut slot = sink.reserve().unwrap();
            slot.intend(record).unwrap();
            slot.settle(record);
        }
    });
}

async fn writer(dir: &Path) {
    let now = UnixMillis(1_700_000_000_000);
    let options = SqliteOptions::new(dir.join("bench.db"), Uuid::new_v4(), now);
    let store = SqliteStore::open(&options).await.unwrap();
    let beginning = ChainBeginning {
        act: Act {
            id: Uuid::now_v7(),
            actor: Actor::Sidecar("bench"),
            now,
        },
        chain: Uuid::now_v7(),
        key: key(),
        new_secrets: Vec::new(),
    };
    let _ = store.begin_chain(&beginning).await.unwrap();
    let records: Vec<_> = (0..COUNT as u64).map(record).collect();
    let before = processor();
    for batch in records.chunks(BATCH) {
        store.append_audit(batch, None).await.unwrap();
    }
    let spent = (processor() - before) as f64 / COUNT as f64;
    let bytes = std::fs::metadata(dir.join("bench.db")).unwrap().len();
    println!(
        "writer, in transactions of {BATCH}: {:.2} us of processor a row, {} bytes a row on disk",
        spent / 1000.0,
        bytes / COUNT as u64
    );
}

fn verification() {
    let key = key();
    let chain = Uuid::now_v7();
    let mut head = Head {
        chain,
        seq: 0,
        hash: NO_HASH,
    };
    let mut buffer = Vec::new();
    let mut histories: HashMap<GrantId, HistoryHead> = HashMap::new();
    let mut begin = record(0);
    begin.action = Some(AuditText::fixed(proxy::audit::chain::BEGIN_ACTION));
    begin.detail = Some(AuditDetail::new());
    let rows: Vec<AuditRow> = std::iter::once(begin)
        .chain((1..COUNT as u64).map(record))
        .zip(1..)
        .map(|(record, position)| {
            let grant = record.grant.unwrap();
            let before = histories.entry(grant).or_insert(HistoryHead::NONE);
            *before = before.next(grant, chain, &record, &mut buffer);
            AuditRow {
                position,
                link: Some(key.link(&mut head, &record, &mut buffer)),
                history: Some(before.place()),
                record,
            }
        })
        .collect();
    let one = each("verification", COUNT, || {
        let report = verify(&rows, &key, &[head]);
        assert!(report.finding.is_none() && report.verified == COUNT as u64);
    });
    println!("verification: {:.0} rows a second on one core", 1e9 / one);
}

fn main() {
    let home = tempfile::tempdir_in(
        std::env::args()
            .nth(1)
            .unwrap_or_else(|| std::env::temp_dir().display().to_string()),
    )
    .unwrap();
    request_path(home.path());
    verification();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(writer(home.path()));
}
