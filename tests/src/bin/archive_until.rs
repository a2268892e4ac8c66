//! Moves audit rows of a stopped sidecar into the archive, and kills itself with SIGKILL right behind a step.
//!
//! Invariant: it is the product's own archiver over the product's own store, told of each step as `serve` is; only what is done on being
//! told is this program's.
//!
//! `archive_until DATA_DIR BEFORE_MILLIS NOW_MILLIS STEP|never`; exit status 0 and the number of files when it was not killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use certs::{SealPurpose, Sealer, SealingSecret};
use policy::time::UnixMillis;
use proxy::admin::{ArchiveStep, Archiver, Due};
use proxy::audit::archive::{ArchiveCounts, Shelf};
use proxy::audit::chain::ChainKey;
use proxy::audit::record_id;
use proxy::store::{Act, Actor, ChainBeginning, SecretPurpose, SqliteOptions, SqliteStore, Store};
use uuid::Uuid;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let data = PathBuf::from(&arguments[0]);
    let millis = |text: &str| UnixMillis(text.parse().unwrap());
    let due = Due {
        before: millis(&arguments[1]),
        now: millis(&arguments[2]),
    };
    let last = arguments[3].clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let files = runtime.block_on(run(data, due, last));
    println!("{files}");
}

async fn run(data: PathBuf, due: Due, last: String) -> usize {
    let options = SqliteOptions::new(data.join("federation.db"), Uuid::new_v4(), due.now);
    let store = SqliteStore::open(&options).await.unwrap();
    let secret = SealingSecret::from_file(&data.join("sealing.key")).unwrap();
    let sealed = store.load_secrets(SecretPurpose::AuditKey).await.unwrap();
    let key = Sealer::new(&secret)
        .unwrap()
        .unseal(SealPurpose::AuditKey, "chain", &sealed[0].sealed)
        .unwrap();
    let act = || Act {
        id: record_id(due.now),
        actor: Actor::Sidecar("test"),
        now: due.now,
    };
    let beginning = ChainBeginning {
        act: act(),
        chain: record_id(due.now),
        key: Arc::new(ChainKey::new(key.as_slice().try_into().unwrap())),
        new_secrets: Vec::new(),
    };
    let _ = store.begin_chain(&beginning).await.unwrap();
    let shelf = Shelf {
        dir: data.join("audit").join("archive"),
        store: store.store_id().await.unwrap(),
    };
    let observe = move |step: ArchiveStep| {
        if format!("{step:?}") == last {
            let own = std::process::id().to_string();
            // Does not return.
            let _killed = Command::new("kill").args(["-9", &own]).status();
        }
    };
    let counts = Arc::new(ArchiveCounts::default());
    let archiver = Archiver::new(Arc::new(store), shelf, counts, Box::new(observe));
    let (made, _) = archiver.run(due, &act, 8, &|| false).await.unwrap();
    made.len()
}
