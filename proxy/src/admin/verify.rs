//! `audit verify` and `audit export`: the log against its chains, and the log as a file.
//!
//! Invariant: reading changes nothing. What is expected at the end of each chain is read before the rows are, so a log that
//! grows meanwhile verifies.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::SealPurpose;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{AdminCode, AdminFailure, Control, audit_row};
use crate::audit::AuditLogError;
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey, Verifier};
use crate::audit::checkpoint::{CheckpointFile, CheckpointSigner, SignedCheckpoint};
use crate::audit::export::{EXPORT_VERSION, ExportHead, ExportedHead, Exporter};
use crate::store::SecretPurpose;

/// Rows read at a time.
const PAGE: u32 = 2_000;
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
    /// What is wrong.
    pub fault: String,
}

impl Control {
    /// `audit verify`: every row of the log against its chain, the heads that the store notes, and the checkpoints.
    ///
    /// # Errors
    /// Keys or rows that cannot be read.
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
        let mut after = i64::MIN;
        loop {
            let rows = self.store.read_audit(after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = last.position;
            for row in &rows {
                verifier.push(row);
            }
            if verifier.is_settled() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let report = verifier.finish();
        Ok(VerifiedAudit {
            verified: report.verified,
            unlinked: report.unlinked,
            checkpoints: checkpoints.len(),
            heads: report.heads.into_iter().map(ExportedHead::from).collect(),
            key: self.audit.checkpoint_key.to_hex(),
            finding: report.finding.map(|finding| FindingView {
                position: finding.position,
                id: finding.id,
                chain: finding.link.map(|link| link.chain),
                seq: finding.link.map(|link| link.seq),
                fault: finding.fault.to_string(),
            }),
        })
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
            control: self,
            exporter: Some(exporter),
            first,
            after: i64::MIN,
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
    control: Arc<Control>,
    /// `None` behind the end.
    exporter: Option<Exporter>,
    /// Lines that are ready.
    first: String,
    after: i64,
}

impl Under {
    async fn next(mut self) -> Result<Option<(String, Self)>, AuditLogError> {
        let Some(mut exporter) = self.exporter.take() else {
            return Ok(None);
        };
        let mut lines = std::mem::take(&mut self.first);
        let rows = self.control.store.read_audit(self.after, PAGE).await?;
        for row in &rows {
            exporter.row(row, audit_row(row), &mut lines);
        }
        match rows.last() {
            Some(last) => {
                self.after = last.position;
                self.exporter = Some(exporter);
            }
            None => lines.push_str(&exporter.end()),
        }
        Ok(Some((lines, self)))
    }
}
