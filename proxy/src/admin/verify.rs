//! `audit verify` and `audit export`: the log against its chains, and the log as a file.
//!
//! Invariant: reading changes nothing. A file of the archive that is missing, or is not the one that was written, is named. What is expected at the end of each chain is read before the rows are, so a log that
//! grows meanwhile verifies.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::SealPurpose;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{AdminCode, AdminFailure, Control, audit_row};
use crate::audit::archive::{ColdError, ColdFile, LogReader, Manifests};
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey, Fault, Finding, Verifier};
use crate::audit::checkpoint::{CheckpointFile, CheckpointSigner, SignedCheckpoint};
use crate::audit::export::{EXPORT_VERSION, ExportHead, ExportedHead, Exporter};
use crate::audit::{AuditLog, AuditLogError};
use crate::store::SecretPurpose;

/// The ids under which the keys of the log are sealed.
const CHAIN_KEY: &str = "chain";
const CHECKPOINT_KEY: &str = "checkpoint";

/// What verifying the log found.
#[derive(Debug, Serialize)]
pub struct VerifiedAudit {
    /// Rows that are what was recorded, and where it was.
    pub verified: u64,
    /// Rows from before there were chains, of which nothing can be said.
    pub unlinked: u64,
    /// Files of the archive.
    pub files: usize,
    /// Signed checkpoints that the rows had to meet.
    pub checkpoints: usize,
    /// Where each chain ends, oldest first.
    pub heads: Vec<ExportedHead>,
    /// The public key of the checkpoints, hex.
    pub key: String,
    /// The first thing wrong.
    pub finding: Option<FindingView>,
}

/// The first thing wrong.
#[derive(Debug, Serialize)]
pub struct FindingView {
    /// The row where it shows.
    pub position: i64,
    /// Its id.
    pub id: Option<uuid::Uuid>,
    /// The chain it claims.
    pub chain: Option<uuid::Uuid>,
    /// Its number in it.
    pub seq: Option<u64>,
    /// The file of the archive in which it shows, or which is not what it should be.
    pub file: Option<String>,
    /// What is wrong.
    pub fault: String,
}

impl FindingView {
    fn of(finding: &Finding) -> Self {
        Self {
            position: finding.position,
            id: finding.id,
            chain: finding.link.map(|link| link.chain),
            seq: finding.link.map(|link| link.seq),
            file: None,
            fault: finding.fault.to_string(),
        }
    }

    /// A fault of a file; the row is the one where it shows, if it shows in one.
    fn of_file(row: Option<&Finding>, position: i64, file: &str, fault: String) -> Self {
        let none = Self {
            position,
            id: None,
            chain: None,
            seq: None,
            file: None,
            fault: String::new(),
        };
        Self {
            file: Some(file.to_owned()),
            fault,
            ..row.map_or(none, Self::of)
        }
    }
}

/// What was met on the way through the log.
#[derive(Default)]
struct Walk {
    manifests: Manifests,
    /// The last row that was read.
    last: i64,
    /// The file in which the first thing wrong shows.
    place: Option<String>,
    /// A file that is missing or was changed; nothing behind it was read.
    broken: Option<ColdError>,
    /// Whether the end was reached.
    whole: bool,
}

impl Walk {
    async fn over(
        mut reader: LogReader,
        verifier: &mut Verifier<'_>,
    ) -> Result<Self, AdminFailure> {
        let mut walk = Self::default();
        loop {
            let page = match reader.next().await {
                Ok(Some(page)) => page,
                Ok(None) => {
                    walk.whole = true;
                    return Ok(walk);
                }
                Err(AuditLogError::Cold(
                    error @ (ColdError::Missing { .. } | ColdError::Changed { .. }),
                )) => {
                    walk.broken = Some(error);
                    return Ok(walk);
                }
                Err(error) => return Err(error.into()),
            };
            // A file with a fault in it is read to its end: then it is known whether it is the one that was written.
            let same_file = page.file.is_some() && page.file == walk.place;
            if verifier.is_settled() && !same_file {
                return Ok(walk);
            }
            let was_clean = verifier.finding().is_none();
            for row in &page.rows {
                walk.manifests.see(row);
                verifier.push(row);
                walk.last = row.position;
            }
            if was_clean && verifier.finding().is_some() {
                walk.place = page.file;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The first thing wrong that shows in a file.
    fn finding(&self, row: Option<&Finding>) -> Option<FindingView> {
        if let Some(error) = &self.broken {
            let name = error.file().unwrap_or_default();
            return Some(FindingView::of_file(
                row,
                self.last,
                name,
                error.to_string(),
            ));
        }
        let place = self.place.as_deref()?;
        let fault = row?.fault.to_string();
        // Rows that are missing in front of a file were in the one before it: manifests tell which.
        let elsewhere = matches!(row?.fault, Fault::Missing { .. });
        (!elsewhere).then(|| FindingView::of_file(row, self.last, place, fault))
    }

    /// The first file on which the manifests and the store's list differ, once all manifests were met.
    fn disagreement(
        &self,
        row: Option<&Finding>,
        before: u64,
        files: &[ColdFile],
    ) -> Option<FindingView> {
        let found = self.manifests.disagreement(before, files);
        let found = found.filter(|_| self.whole)?;
        let mut fault = format!("the archive file `{}`: {}", found.name, found.why);
        if let Some(row) = row {
            fault = format!("{}; {fault}", row.fault);
        }
        Some(FindingView::of_file(
            row,
            found.position,
            &found.name,
            fault,
        ))
    }
}

impl Control {
    /// `audit verify`: every row of the log, the archive included, against its chain, the heads that the store notes, the checkpoints, and
    /// every file of the archive against its manifest.
    ///
    /// # Errors
    /// Keys, rows or files that cannot be read.
    pub async fn verify_audit(&self) -> Result<VerifiedAudit, AdminFailure> {
        let (key, _) = self.chain_key().await?;
        let checkpoints = self.own_checkpoints()?;
        let mut verifier = Verifier::new(&key);
        for head in self.store.chain_heads().await? {
            verifier.expect(head);
        }
        for signed in &checkpoints {
            match signed.verify(&self.audit.checkpoint_key) {
                Ok(checkpoint) => verifier.expect(checkpoint.head),
                Err(error) => {
                    return Err(AdminFailure::new(
                        AdminCode::Unavailable,
                        format!(
                            "the checkpoint of row {} of chain {} proves nothing: {error}",
                            signed.seq, signed.chain
                        ),
                    )
                    .hint("the file of checkpoints beside the journal was changed: compare it with its copy elsewhere"));
                }
            }
        }
        let listed = self.store.cold_files().await?.len();
        let walk = Walk::over(self.log_reader(), &mut verifier).await?;
        let finding = match walk.finding(verifier.finding()) {
            Some(found) => Some(found),
            None => {
                let files = self.store.cold_files().await?;
                let before = u64::try_from(listed).unwrap_or(u64::MAX);
                walk.disagreement(verifier.finding(), before, &files)
            }
        };
        let report = verifier.finish();
        Ok(VerifiedAudit {
            verified: report.verified,
            unlinked: report.unlinked,
            files: listed,
            checkpoints: checkpoints.len(),
            heads: report.heads.into_iter().map(ExportedHead::from).collect(),
            key: self.audit.checkpoint_key.to_hex(),
            finding: finding.or_else(|| report.finding.as_ref().map(FindingView::of)),
        })
    }

    /// The whole log, the archive included.
    pub(super) fn log_reader(&self) -> LogReader {
        let log = Arc::clone(&self.store) as Arc<dyn AuditLog>;
        LogReader::new(log, self.archiver.shelf().clone())
    }

    /// `audit export`: the lines of an export, in parts. One that fails on the way has no end and says so when it is verified.
    ///
    /// # Errors
    /// Keys or checkpoints that cannot be read.
    pub async fn export_audit(
        self: Arc<Self>,
    ) -> Result<impl Stream<Item = Result<String, AuditLogError>> + use<>, AdminFailure> {
        let (_, sealed) = self.chain_key().await?;
        let signer = self.checkpoint_signer().await?;
        let head = ExportHead {
            audit_export: EXPORT_VERSION,
            store: self.store.store_id().await?,
            at: self.now(),
            key: self.audit.checkpoint_key.to_hex(),
            sealed_chain_key: STANDARD.encode(sealed),
            resumed: Vec::new(),
        };
        let (exporter, first) = Exporter::begin(Arc::new(signer), &head, &self.own_checkpoints()?);
        let begun = Under {
            reader: self.log_reader(),
            exporter: Some(exporter),
            first,
        };
        Ok(stream::try_unfold(begun, Under::next))
    }

    /// The key of the checkpoints, which signs exports too.
    pub(super) async fn checkpoint_signer(&self) -> Result<CheckpointSigner, AdminFailure> {
        let signer = self.secret(
            SecretPurpose::CheckpointKey,
            SealPurpose::CheckpointKey,
            CHECKPOINT_KEY,
        );
        let (plain, _) = signer.await?;
        CheckpointSigner::from_pkcs8(&plain)
            .map_err(|why| AdminFailure::new(AdminCode::Unavailable, why))
    }

    fn own_checkpoints(&self) -> Result<Vec<SignedCheckpoint>, AdminFailure> {
        CheckpointFile::in_dir(&self.config.audit.dir)
            .load()
            .map_err(|error| AdminFailure::new(AdminCode::Unavailable, error.to_string()))
    }

    async fn chain_key(&self) -> Result<(ChainKey, Vec<u8>), AdminFailure> {
        let key = self.secret(SecretPurpose::AuditKey, SealPurpose::AuditKey, CHAIN_KEY);
        let (plain, sealed) = key.await?;
        let bytes: [u8; CHAIN_KEY_LEN] = plain.as_slice().try_into().map_err(|_| {
            AdminFailure::new(
                AdminCode::Unavailable,
                "the key of the audit log is damaged",
            )
        })?;
        Ok((ChainKey::new(&bytes), sealed))
    }

    /// A secret of the store, opened, and as it is sealed.
    async fn secret(
        &self,
        stored: SecretPurpose,
        sealed_as: SealPurpose,
        id: &str,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), AdminFailure> {
        let unusable = |why: String| AdminFailure::new(AdminCode::Unavailable, why);
        let known = self.store.load_secrets(stored).await?;
        let secret = known
            .into_iter()
            .find(|secret| secret.id == id)
            .ok_or_else(|| unusable(format!("the store has no secret `{id}`")))?;
        let plain = self
            .sealer
            .unseal(sealed_as, id, &secret.sealed)
            .map_err(|error| unusable(error.to_string()))?;
        Ok((plain, secret.sealed))
    }
}

/// An export under way.
struct Under {
    reader: LogReader,
    /// `None` behind the end.
    exporter: Option<Exporter>,
    /// Lines that are ready.
    first: String,
}

impl Under {
    async fn next(mut self) -> Result<Option<(String, Self)>, AuditLogError> {
        let Some(mut exporter) = self.exporter.take() else {
            return Ok(None);
        };
        let mut lines = std::mem::take(&mut self.first);
        let page = self.reader.next().await.inspect_err(|error| {
            // The answer is under way: all that its receiver learns is that it ends early.
            tracing::error!(%error, "an export of the audit log was cut off");
        })?;
        match page {
            Some(page) => {
                for row in &page.rows {
                    exporter.row(row, audit_row(row), &mut lines);
                }
                self.exporter = Some(exporter);
            }
            None => lines.push_str(&exporter.end()),
        }
        Ok(Some((lines, self)))
    }
}
