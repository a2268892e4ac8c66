//! Does an act of several steps on the data of a stopped sidecar, or serves, and kills itself with SIGKILL right behind a step.
//!
//! Invariant: it is the product's own code over the product's own store, told of each step as `serve` is; only what is done on
//! being told is this program's.
//!
//! The settings are in `federation.toml` beside the data directory.
//!
//! - `until archive DATA_DIR BEFORE_MILLIS NOW_MILLIS STEP|never` moves audit rows into the archive; prints the number of files.
//! - `until reseal DATA_DIR NOW_MILLIS STEP|never` seals the store again with `sealing.key.next` and ends the change; prints the
//!   number of rows.
//! - `until serve FILE STEP` is the sidecar with these settings until a step of a renewal; the line that says where it listens is
//!   that of `serve`.
//!
//! The exit status is 0 when it was not killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use certs::{SealPurpose, Sealer, SealingSecret, SystemClock};
use policy::time::UnixMillis;
use proxy::admin::{ArchiveStep, Archiver, Due, ResealStep, Resealer};
use proxy::app::{self, Circumstances};
use proxy::audit::archive::{ArchiveCounts, Shelf};
use proxy::audit::chain::ChainKey;
use proxy::audit::record_id;
use proxy::config::Config;
use proxy::server_certificate::{KEPT_CERTIFICATE, KeptCertificate};
use proxy::store::{Act, Actor, ChainBeginning, SecretPurpose, Store};
use proxy::telemetry::steps::RenewalStep;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (act, data) = (arguments[0].as_str(), PathBuf::from(&arguments[1]));
    let millis = |at: usize| UnixMillis(arguments[at].parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let done = runtime.block_on(async {
        match act {
            "archive" => {
                let (before, now) = (millis(2), millis(3));
                archive(data, Due { before, now }, arguments[4].clone()).await
            }
            "reseal" => reseal(data, millis(2), arguments[3].clone()).await,
            "serve" => serve(data, arguments[2].clone()).await,
            other => panic!("no act {other}"),
        }
    });
    println!("{done}");
}

/// Kills this process when what has been done is the last step.
fn observe(step: &dyn std::fmt::Debug, last: &str) {
    if format!("{step:?}") == last {
        let own = std::process::id().to_string();
        // Does not return.
        let _killed = Command::new("kill").args(["-9", &own]).status();
    }
}

fn sealer(file: &Path) -> Sealer {
    Sealer::new(SealingSecret::from_file(file).unwrap()).unwrap()
}

fn settings(file: &Path) -> Config {
    let text = std::fs::read_to_string(file).unwrap();
    proxy::config::parse(Some((file, &text)), &[], &[]).unwrap()
}

fn act(now: UnixMillis) -> Act {
    Act {
        id: record_id(now),
        actor: Actor::Sidecar("test"),
        now,
    }
}

/// Opens the store and begins a chain in it.
async fn open(data: &Path, now: UnixMillis, sealer: &Sealer) -> Arc<dyn Store> {
    let config = settings(&data.with_file_name("federation.toml"));
    let store = proxy::tier::open_store(&config, now).await.unwrap();
    let sealed = store.load_secrets(SecretPurpose::AuditKey).await.unwrap();
    let key = sealer
        .unseal(SealPurpose::AuditKey, "chain", &sealed[0].sealed)
        .unwrap();
    let beginning = ChainBeginning {
        act: act(now),
        chain: record_id(now),
        key: Arc::new(ChainKey::new(key.as_slice().try_into().unwrap())),
        new_secrets: Vec::new(),
    };
    let _ = store.begin_chain(&beginning).await.unwrap();
    store
}

async fn archive(data: PathBuf, due: Due, last: String) -> u64 {
    let store = open(&data, due.now, &sealer(&data.join("sealing.key"))).await;
    let shelf = Shelf {
        dir: data.join("audit").join("archive"),
        store: store.store_id().await.unwrap(),
    };
    let told = move |step: ArchiveStep| observe(&step, &last);
    let counts = Arc::new(ArchiveCounts::default());
    let archiver = Archiver::new(store, shelf, counts, Box::new(told));
    let act = || act(due.now);
    let (made, _) = archiver.run(due, &act, 8, &|| false).await.unwrap();
    made.len() as u64
}

async fn reseal(data: PathBuf, now: UnixMillis, last: String) -> u64 {
    let present = sealer(&data.join("sealing.key"));
    let store = open(&data, now, &present).await;
    let told = move |step: ResealStep| observe(&step, &last);
    let (batch, present) = (NonZeroU32::new(2).unwrap(), Arc::new(present));
    let kept = KeptCertificate::new(data.join(KEPT_CERTIFICATE), Arc::clone(&present));
    let resealer = Resealer::new(store, present, Arc::new(kept), batch, Box::new(told));
    let next = sealer(&data.join("sealing.key.next"));
    let rows = resealer.run(&next, &|| act(now)).await.unwrap();
    let _ = resealer.finish(&act(now)).await.unwrap();
    rows
}

/// The last step of a renewal.
static LAST: OnceLock<String> = OnceLock::new();

async fn serve(file: PathBuf, last: String) -> u64 {
    LAST.set(last).unwrap();
    let config = settings(&file);
    let circumstances = Circumstances {
        told: |step: RenewalStep| observe(&step, LAST.get().unwrap()),
        ..Circumstances::PART
    };
    let started = app::start_under(Arc::new(config), Arc::new(SystemClock), circumstances);
    let running = started.await.unwrap();
    eprintln!("ready addresses={:?}", running.addresses());
    std::future::pending::<()>().await;
    drop(running);
    0
}
