//! The audit log at start and at the end: keys, chain, what an earlier run left, journal, writer, checkpoints.
//!
//! Invariant: the chain has begun before anything is written, and everything an earlier run accepted is in the database before anybody is
//! served; at the end the last checkpoint covers the last row.

use std::sync::Arc;
use std::time::Duration;

use certs::clock::Clock;
use parking_lot::Mutex;
use policy::time::UnixMillis;
use tokio::sync::watch;
use uuid::Uuid;

use super::secrets::{AuditKeys, Secrets};
use super::{Base, StartError};
use crate::audit::archive::ArchiveCounts;
use crate::audit::checkpoint::{Checkpoint, CheckpointFile, CheckpointSigner};
use crate::audit::history::HistoryPublisher;
use crate::audit::journal::{JournalSettings, OnExhausted, replay};
use crate::audit::{
    AuditLog, AuditSink, AuditState, AuditWriter, Journal, WriterSettings, record_id,
};
use crate::config::Config;
use crate::store::{Act, ChainBeginning, Store, StoreError};

/// How often two processes that start together may be in each other's way.
const TRIES: u32 = 3;

/// What was started.
pub(super) struct Started {
    pub(super) sink: AuditSink,
    pub(super) writer: AuditWriter,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) state: AuditState,
    pub(super) histories: Arc<HistoryPublisher>,
}

/// Begins this process's chain. Returns its id and the signer of its checkpoints.
pub(super) async fn begin_chain(
    store: &dyn Store,
    secrets: &Secrets<'_>,
    act: &(dyn Fn() -> Act + Sync),
) -> Result<(Uuid, CheckpointSigner), StartError> {
    let mut tries = 0;
    loop {
        let AuditKeys { chain, signer, new } = secrets.audit_keys().await?;
        let act = act();
        let beginning = ChainBeginning {
            chain: record_id(act.now),
            act,
            key: chain,
            new_secrets: new,
        };
        match store.begin_chain(&beginning).await {
            Ok(_) => return Ok((beginning.chain, signer)),
            // Another process was first to store the keys: they are taken from there.
            Err(StoreError::Conflict { .. }) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts the audit log.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub(super) async fn start(base: &Base, log: Arc<dyn AuditLog>) -> Result<Started, StartError> {
    let act = || base.act();
    let secrets = Secrets {
        store: &*base.store,
        sealer: &base.sealer,
        act: &act,
    };
    let (chain, signer) = begin_chain(&*base.store, &secrets, &act).await?;
    let store = base.store.store_id().await?;
    let settings = journal_settings(&base.config);
    let refused = |error: &dyn std::fmt::Display| StartError::Audit(error.to_string());
    let now = UnixMillis(base.clock.unix_millis());
    let replayed = replay(&settings.dir, store, &*log, now)
        .await
        .map_err(|error| refused(&error))?;
    if replayed.journals > 0 {
        tracing::info!(
            records = replayed.records,
            aborted = replayed.aborted,
            damaged = replayed.damaged,
            "an earlier run left audit records in its journal: they are in the database now"
        );
    }
    let journal = Journal::create(&settings, chain, store, Arc::clone(&base.clock))
        .map_err(|error| refused(&error))?;
    let signer = Arc::new(signer);
    let histories = HistoryPublisher::new(
        Arc::clone(&log),
        Arc::clone(&signer),
        Arc::clone(&base.clock),
    );
    let (sink, writer) = AuditWriter::start(
        Arc::clone(&log),
        journal,
        Arc::clone(&base.clock),
        WriterSettings::default(),
        Some(Arc::clone(&histories)),
    )
    .map_err(|error| refused(&error))?;
    let checkpoints = Arc::new(Checkpoints {
        store,
        chain,
        log,
        signer,
        file: CheckpointFile::in_dir(&settings.dir),
        clock: Arc::clone(&base.clock),
        kept: Mutex::new(0),
    });
    checkpoints.keep().await;
    let state = AuditState {
        journal: Arc::clone(sink.journal()),
        writer: writer.counts(),
        archive: Arc::new(ArchiveCounts::default()),
        checkpoint_key: checkpoints.signer.verifier(),
    };
    Ok(Started {
        state,
        sink,
        writer,
        checkpoints,
        histories,
    })
}

fn journal_settings(config: &Config) -> JournalSettings {
    JournalSettings {
        dir: config.audit.dir.clone(),
        bytes: config.audit.journal_bytes,
        on_exhausted: if config.audit.refuse_unrecorded {
            OnExhausted::Refuse
        } else {
            OnExhausted::Drop
        },
    }
}

/// Signs the head of this process's chain from time to time.
pub(super) struct Checkpoints {
    store: Uuid,
    chain: Uuid,
    log: Arc<dyn AuditLog>,
    signer: Arc<CheckpointSigner>,
    file: CheckpointFile,
    clock: Arc<dyn Clock>,
    /// The row of the last checkpoint.
    kept: Mutex<u64>,
}

impl Checkpoints {
    /// Signs and keeps the head, unless it has not moved. A failure is logged and tried again the next time.
    pub(super) async fn keep(&self) {
        let heads = match self.log.chain_heads().await {
            Ok(heads) => heads,
            Err(error) => return tracing::warn!(%error, "no audit checkpoint could be made"),
        };
        let Some(head) = heads.into_iter().find(|head| head.chain == self.chain) else {
            return;
        };
        if head.seq == *self.kept.lock() {
            return;
        }
        let signed = self.signer.sign(&Checkpoint {
            store: self.store,
            head,
            at: UnixMillis(self.clock.unix_millis()),
        });
        let file = self.file.clone();
        let kept = tokio::task::spawn_blocking(move || file.keep(&signed)).await;
        match kept {
            Ok(Ok(())) => *self.kept.lock() = head.seq,
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %self.file.path().display(), "an audit checkpoint could not be kept");
            }
            Err(error) => tracing::warn!(%error, "an audit checkpoint could not be kept"),
        }
    }

    /// Keeps one every `interval` until the process stops.
    pub(super) async fn run(
        self: Arc<Self>,
        interval: Duration,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            let stop = stopped.wait_for(|stop| *stop);
            if tokio::time::timeout(interval, stop).await.is_ok() {
                return;
            }
            self.keep().await;
        }
    }
}
