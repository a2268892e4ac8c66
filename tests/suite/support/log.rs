//! The audit log of a sidecar that runs as a process, read beside it, with its keys and its archive.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Clock, SealPurpose, Sealer, SealingSecret, SystemClock};
use policy::time::UnixMillis;
use proxy::audit::archive::{ColdFile, LogReader, Shelf};
use proxy::audit::chain::{ChainKey, Head};
use proxy::audit::checkpoint::{CheckpointFile, CheckpointSigner};
use proxy::audit::{AuditLog, AuditRow};
use proxy::config::Config;
use proxy::store::{Act, ChainBeginning, SecretPurpose, SqliteOptions, SqliteStore, Store};

use super::process::Process;

/// The log, its key and the key of its checkpoints.
pub struct Log {
    store: Arc<dyn Store>,
    shelf: Shelf,
    key: Arc<ChainKey>,
    signer: Arc<CheckpointSigner>,
}

impl Log {
    pub async fn open(process: &Process) -> Self {
        Self::of(&process.config()).await
    }

    /// Of a sidecar with these settings.
    pub async fn of(config: &Config) -> Self {
        let now = UnixMillis(SystemClock.unix_millis());
        let store = proxy::tier::open_store(config, now).await.unwrap();
        Self::in_store(store, &config.data_dir).await
    }

    /// Of a copy of the files of a sidecar, its database among them.
    pub async fn of_copy(data_dir: &Path) -> Self {
        let now = UnixMillis(SystemClock.unix_millis());
        let path = data_dir.join("federation.db");
        let options = SqliteOptions::new(path, uuid::Uuid::new_v4(), now);
        let store = Arc::new(SqliteStore::open(&options).await.unwrap());
        Self::in_store(store, data_dir).await
    }

    /// Of the sidecar in this directory, or of a copy of one.
    pub async fn in_dir(dir: &Path) -> Self {
        let file = dir.join("federation.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        Self::of(&tests::world::configuration(file, &text)).await
    }

    async fn in_store(store: Arc<dyn Store>, data_dir: &Path) -> Self {
        let secret = SealingSecret::from_file(&data_dir.join("sealing.key")).unwrap();
        let sealer = Sealer::new(secret).unwrap();
        let chain = store.load_secrets(SecretPurpose::AuditKey).await.unwrap();
        let chain = sealer
            .unseal(SealPurpose::AuditKey, "chain", &chain[0].sealed)
            .unwrap();
        let signing = store
            .load_secrets(SecretPurpose::CheckpointKey)
            .await
            .unwrap();
        let signing = sealer
            .unseal(SealPurpose::CheckpointKey, "checkpoint", &signing[0].sealed)
            .unwrap();
        let shelf = Shelf {
            dir: data_dir.join("audit").join("archive"),
            store: store.store_id().await.unwrap(),
        };
        Self {
            store,
            shelf,
            key: Arc::new(ChainKey::new(chain.as_slice().try_into().unwrap())),
            signer: Arc::new(CheckpointSigner::from_pkcs8(&signing).unwrap()),
        }
    }

    pub fn key(&self) -> &ChainKey {
        &self.key
    }

    /// The key of its checkpoints.
    pub const fn signer(&self) -> &Arc<CheckpointSigner> {
        &self.signer
    }

    /// Begins a chain of its own, in which everything that is written through [`store`](Self::store) is.
    pub async fn begin_chain(&self, act: Act) {
        let beginning = ChainBeginning {
            chain: proxy::audit::record_id(act.now),
            act,
            key: Arc::clone(&self.key),
            new_secrets: Vec::new(),
        };
        let begun = self.store.begin_chain(&beginning).await.unwrap();
        assert!(begun.changed);
    }

    /// The same log with its archive in another directory.
    pub fn with_archive(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.shelf.dir);
        self
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Where its archive is.
    pub const fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Every row behind a position, of the archive too.
    pub async fn behind(&self, position: i64) -> Vec<AuditRow> {
        let log: Arc<dyn AuditLog> = Arc::clone(&self.store) as _;
        let mut reader = LogReader::behind(log, self.shelf.clone(), position);
        let mut rows: Vec<AuditRow> = Vec::new();
        while let Some(page) = reader.next().await.unwrap() {
            rows.extend(page.rows);
        }
        rows
    }

    /// The rows that are in the database.
    pub async fn live(&self) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        loop {
            let after = rows.last().map_or(i64::MIN, |row| row.position);
            let more = self.store.read_audit(after, 10_000).await.unwrap();
            if more.is_empty() {
                return rows;
            }
            rows.extend(more);
        }
    }

    /// The files of the archive.
    pub async fn files(&self) -> Vec<ColdFile> {
        self.store.cold_files().await.unwrap()
    }

    /// The heads that the store notes.
    pub async fn heads(&self) -> Vec<Head> {
        self.store.chain_heads().await.unwrap()
    }

    /// The heads of the signed checkpoints, their signatures checked.
    pub fn checkpoints(&self, audit_dir: &Path) -> Vec<Head> {
        let signed = CheckpointFile::in_dir(audit_dir).load().unwrap();
        let key = self.signer.verifier();
        signed
            .iter()
            .map(|one| one.verify(&key).unwrap().head)
            .collect()
    }
}

/// Gives the space of the journal's segments that hold no record any more back to the file system, under a process that has nothing to
/// record at the moment. What a disk does that promises space and then has none.
pub fn take_space_back(audit_dir: &Path) {
    let path = journal(audit_dir).expect("a journal");
    let bytes = std::fs::read(&path).unwrap();
    let size = bytes.len() / 16;
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let current = (0..16)
        .filter(|slot| bytes[slot * size..].starts_with(b"MFAUDIT1"))
        .max_by_key(|slot| number(slot * size + 40));
    for slot in (0..16).filter(|slot| Some(*slot) != current) {
        let punched = std::process::Command::new("fallocate")
            .args(["--punch-hole", "--offset", &(slot * size).to_string()])
            .args(["--length", &size.to_string()])
            .arg(&path)
            .status();
        assert!(punched.unwrap().success());
    }
}

/// Tears the last record of the journal a killed process left: its second half was never written. False when there is none.
pub fn tear(audit_dir: &Path) -> bool {
    let Some(path) = journal(audit_dir) else {
        return false;
    };
    let mut bytes = std::fs::read(&path).unwrap();
    let size = bytes.len() / 16;
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let newest = (0..16)
        .map(|slot| slot * size)
        .filter(|at| bytes[*at..].starts_with(b"MFAUDIT1"))
        .max_by_key(|at| number(at + 40));
    let Some(segment) = newest else { return false };
    let (mut at, mut expected, mut last) = (segment + 64, number(segment + 40), None);
    while at + 24 <= segment + size && number(at + 8) == expected {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let whole = (24 + usize::try_from(length).unwrap()).next_multiple_of(8);
        last = Some((at, whole));
        at += whole;
        expected += 1;
    }
    let Some((at, whole)) = last else {
        return false;
    };
    bytes[at + whole / 2..at + whole].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    true
}

fn journal(audit_dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(audit_dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "journal"))
}
