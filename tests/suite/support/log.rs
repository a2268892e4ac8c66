//! The audit log of a sidecar that runs as a process, read beside it, with its keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{Clock, SealPurpose, Sealer, SealingSecret, SystemClock};
use policy::time::UnixMillis;
use proxy::audit::chain::{ChainKey, Head};
use proxy::audit::checkpoint::{CheckpointFile, CheckpointSigner};
use proxy::audit::{AuditLog, AuditRow};
use proxy::store::{SecretPurpose, SqliteOptions, SqliteStore, Store};

use super::process::Process;

/// The log, its key and the key of its checkpoints.
pub struct Log {
    store: SqliteStore,
    key: ChainKey,
    signer: Arc<CheckpointSigner>,
}

impl Log {
    pub async fn open(process: &Process) -> Self {
        Self::of(&process.data_dir()).await
    }

    pub async fn of(data_dir: &Path) -> Self {
        let now = UnixMillis(SystemClock.unix_millis());
        let path = data_dir.join("federation.db");
        let options = SqliteOptions::new(path, uuid::Uuid::new_v4(), now);
        let store = SqliteStore::open(&options).await.unwrap();
        let secret = SealingSecret::from_file(&data_dir.join("sealing.key")).unwrap();
        let sealer = Sealer::new(&secret).unwrap();
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
        Self {
            store,
            key: ChainKey::new(chain.as_slice().try_into().unwrap()),
            signer: Arc::new(CheckpointSigner::from_pkcs8(&signing).unwrap()),
        }
    }

    pub const fn key(&self) -> &ChainKey {
        &self.key
    }

    /// The key of its checkpoints.
    pub const fn signer(&self) -> &Arc<CheckpointSigner> {
        &self.signer
    }

    /// Every row behind a position.
    pub async fn behind(&self, position: i64) -> Vec<AuditRow> {
        let mut rows: Vec<AuditRow> = Vec::new();
        loop {
            let after = rows.last().map_or(position, |row| row.position);
            let more = self.store.read_audit(after, 10_000).await.unwrap();
            if more.is_empty() {
                return rows;
            }
            rows.extend(more);
        }
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
