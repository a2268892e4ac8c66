//! Exports of the log: a file that can be read and verified without the database.
//!
//! Invariant: an export that verifies with the public key is what the sidecar gave out, line for line, and every row in it follows
//! the one in front of it. Whether the rows are what was recorded can be verified with the key of the chain as well, which the file
//! carries sealed; without it that rests on the sidecar that exported, and on the checkpoints.
//!
//! Lines of JSON: a head; checkpoints; rows, each with its canonical bytes, the same once more to be read, and a digest over
//! everything up to it; signed marks among the rows; a signed end. Where rows come from and where lines go is elsewhere.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::canonical;
use super::chain::{ChainHash, ChainKey, Finding, Head, Link, NO_HASH, Report, Verifier};
use super::checkpoint::{CheckpointSigner, CheckpointVerifier, SignedCheckpoint};
use super::place::HistoryPlace;
use super::query::AuditRow;

/// The version of the form.
pub const EXPORT_VERSION: u32 = 1;
/// Rows between two marks.
const MARK_EVERY: u64 = 1_000;
/// What a signature is over, besides the values.
const CONTEXT: &[u8] = b"mosaic-federation audit export v1\0";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHead {
    /// The version of the form.
    pub audit_export: u32,
    /// The store.
    pub store: Uuid,
    /// When it was made.
    pub at: UnixMillis,
    /// The public key of marks and checkpoints, hex: which to look for, not a proof.
    pub key: String,
    /// The key of the chain as the store has it, sealed, base64.
    pub sealed_chain_key: String,
    /// Where chains stood whose earlier rows are not in the export.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<ExportedHead>,
}

/// A place in a chain, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedHead {
    /// The chain.
    pub chain: Uuid,
    /// The row.
    pub seq: u64,
    /// Its hash, hex.
    pub hash: String,
}

impl From<Head> for ExportedHead {
    fn from(head: Head) -> Self {
        Self {
            chain: head.chain,
            seq: head.seq,
            hash: hex::encode(head.hash),
        }
    }
}

impl ExportedHead {
    /// The place; `None` when the hash is none.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        let hash = ChainHash::try_from(hex::decode(&self.hash).ok()?.as_slice()).ok()?;
        Some(Head {
            chain: self.chain,
            seq: self.seq,
            hash,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowLine {
    /// To be read; must be what `record` says.
    row: Value,
    /// Canonical bytes, base64.
    record: String,
    /// Over all lines up to this one and this one's row and record.
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    checkpoint: SignedCheckpoint,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkLine {
    mark: Signed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: Signed,
}

/// What is signed: how many rows came before, and the digest there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    rows: u64,
    digest: String,
    signature: String,
}

fn message(store: Uuid, is_end: bool, rows: u64, digest: &ChainHash) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    bytes.extend_from_slice(store.as_bytes());
    bytes.push(u8::from(is_end));
    bytes.extend_from_slice(&rows.to_le_bytes());
    bytes.extend_from_slice(digest);
    bytes
}

/// The digest of everything so far and one thing more.
fn extend(so_far: &ChainHash, more: &[u8]) -> ChainHash {
    let mut input = so_far.to_vec();
    input.extend_from_slice(more);
    let mut result = NO_HASH;
    for (to, from) in result.iter_mut().zip(digest(&SHA256, &input).as_ref()) {
        *to = *from;
    }
    result
}

/// What a row's digest covers: its record and its place, and what stands to be read.
fn covered(row: &Value, record: &str) -> Vec<u8> {
    format!("{row}\n{record}").into_bytes()
}

/// Turns rows into lines.
pub struct Exporter {
    signer: Arc<CheckpointSigner>,
    store: Uuid,
    digest: ChainHash,
    rows: u64,
}

impl Exporter {
    /// Begins an export: its first lines.
    #[must_use]
    pub fn begin(
        signer: Arc<CheckpointSigner>,
        head: &ExportHead,
        checkpoints: &[SignedCheckpoint],
    ) -> (Self, String) {
        let mut exporter = Self {
            signer,
            store: head.store,
            digest: NO_HASH,
            rows: 0,
        };
        let mut lines = String::new();
        exporter.line(&mut lines, head);
        for checkpoint in checkpoints {
            let checkpoint = checkpoint.clone();
            exporter.line(&mut lines, &CheckpointLine { checkpoint });
        }
        (exporter, lines)
    }

    fn line(&mut self, lines: &mut String, value: &impl Serialize) {
        let text = json(value);
        self.digest = extend(&self.digest, text.as_bytes());
        lines.push_str(&text);
        lines.push('\n');
    }

    /// Adds the line of a row, and a mark where one is due. `shown` is the row to be read.
    pub fn row(&mut self, row: &AuditRow, shown: Value, lines: &mut String) {
        let record = STANDARD.encode(canonical::to_bytes(&row.record));
        self.digest = extend(&self.digest, &covered(&shown, &record));
        let line = RowLine {
            row: shown,
            record,
            digest: hex::encode(self.digest),
        };
        lines.push_str(&json(&line));
        lines.push('\n');
        self.rows = self.rows.saturating_add(1);
        if self.rows.is_multiple_of(MARK_EVERY) {
            let mark = self.signed(false);
            lines.push_str(&json(&MarkLine { mark }));
            lines.push('\n');
        }
    }

    /// The last line.
    #[must_use]
    pub fn end(self) -> String {
        let end = self.signed(true);
        format!("{}\n", json(&EndLine { end }))
    }

    fn signed(&self, is_end: bool) -> Signed {
        let message = message(self.store, is_end, self.rows, &self.digest);
        Signed {
            rows: self.rows,
            digest: hex::encode(self.digest),
            signature: hex::encode(self.signer.sign_bytes(&message)),
        }
    }
}

/// JSON of a value of this file's own, which always has one.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What is wrong with an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportFault {
    /// Not a line of an export.
    #[error("line {line} is not a line of an export: {why}")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// Why.
        why: String,
    },
    /// A form this program does not know.
    #[error("the export has version {0}, which this program does not know; upgrade")]
    Version(u32),
    /// The line is not what was exported.
    #[error("line {line} was changed, added or removed after the export")]
    Changed {
        /// Counted from 1.
        line: u64,
    },
    /// What stands to be read is not what was recorded.
    #[error("line {line} shows another row than the one it holds")]
    ShowsOther {
        /// Counted from 1.
        line: u64,
    },
    /// A mark is not signed by the key.
    #[error(
        "the mark on line {line} is not signed by the key that was expected: something since the mark before it was changed, or it is another sidecar's"
    )]
    Signature {
        /// Counted from 1.
        line: u64,
    },
    /// A checkpoint is not signed by the key.
    #[error("the checkpoint on line {line} is not signed by the key that was expected")]
    Checkpoint {
        /// Counted from 1.
        line: u64,
    },
    /// There is no end.
    #[error("the export is cut off: its end is missing")]
    CutOff,
    /// The rows do not follow each other, or are not what was recorded.
    #[error("{}", .0.fault)]
    Rows(Box<Finding>),
}

/// What verifying an export found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The store it is of.
    pub store: Uuid,
    /// When it was made.
    pub at: UnixMillis,
    /// The key it was verified with, hex.
    pub key: String,
    /// What was verified of the rows.
    pub rows: Report,
    /// Checkpoints that are met by the rows.
    pub checkpoints: u64,
}

/// Verifies an export line by line.
pub struct ExportVerifier<'k> {
    head: ExportHead,
    public: CheckpointVerifier,
    verifier: Verifier<'k>,
    shown: fn(&AuditRow) -> Value,
    digest: ChainHash,
    line: u64,
    rows: u64,
    checkpoints: u64,
    ended: bool,
}

impl<'k> ExportVerifier<'k> {
    /// Begins with the first line. Without `public` the key is the one that the file names, which proves only that the file is one
    /// piece. Without `key` the hashes of the rows are taken as they are. `shown` is how a row is written to be read.
    ///
    /// # Errors
    /// [`ExportFault`] when it is not the head of an export.
    pub fn begin(
        first: &str,
        public: Option<CheckpointVerifier>,
        key: Option<&'k ChainKey>,
        shown: fn(&AuditRow) -> Value,
    ) -> Result<Self, ExportFault> {
        let malformed = |why: String| ExportFault::Malformed { line: 1, why };
        let head: ExportHead =
            serde_json::from_str(first).map_err(|error| malformed(error.to_string()))?;
        if head.audit_export != EXPORT_VERSION {
            return Err(ExportFault::Version(head.audit_export));
        }
        let public = public
            .or_else(|| CheckpointVerifier::parse(&head.key))
            .ok_or_else(|| malformed("its key is none".to_owned()))?;
        let mut verifier = key.map_or_else(Verifier::of_structure, Verifier::new);
        for resumed in &head.resumed {
            let at = resumed
                .head()
                .ok_or_else(|| malformed("a hash is none".to_owned()))?;
            verifier.resume(at);
        }
        Ok(Self {
            digest: extend(&NO_HASH, first.as_bytes()),
            head,
            public,
            verifier,
            shown,
            line: 1,
            rows: 0,
            checkpoints: 0,
            ended: false,
        })
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &ExportHead {
        &self.head
    }

    /// The next line. A row that verifies so far is given back.
    ///
    /// # Errors
    /// [`ExportFault`]: nothing behind it is trusted.
    pub fn push(&mut self, text: &str) -> Result<Option<AuditRow>, ExportFault> {
        self.line = self.line.saturating_add(1);
        let line = self.line;
        if self.ended {
            return Err(ExportFault::Changed { line });
        }
        let malformed = |why: String| ExportFault::Malformed { line, why };
        let value: Value =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let error = |error: serde_json::Error| malformed(error.to_string());
        if value.get("row").is_some() {
            return self
                .row(serde_json::from_value(value).map_err(error)?)
                .map(Some);
        }
        if value.get("checkpoint").is_some() {
            let CheckpointLine { checkpoint } = serde_json::from_value(value).map_err(error)?;
            let known = checkpoint
                .verify(&self.public)
                .map_err(|_| ExportFault::Checkpoint { line })?;
            self.verifier.expect(known.head);
            self.checkpoints = self.checkpoints.saturating_add(1);
            self.digest = extend(&self.digest, text.as_bytes());
            return Ok(None);
        }
        let (signed, is_end) = if value.get("end").is_some() {
            let EndLine { end } = serde_json::from_value(value).map_err(error)?;
            (end, true)
        } else {
            let MarkLine { mark } = serde_json::from_value(value).map_err(error)?;
            (mark, false)
        };
        self.ended = is_end;
        if signed.rows != self.rows || signed.digest != hex::encode(self.digest) {
            return Err(ExportFault::Changed { line });
        }
        let message = message(self.head.store, is_end, self.rows, &self.digest);
        let signature = hex::decode(&signed.signature).unwrap_or_default();
        // Hex has two spellings; a signature is written in one.
        let is_spelt = hex::encode(&signature) == signed.signature;
        if !is_spelt || !self.public.has_signed(&message, &signature) {
            return Err(ExportFault::Signature { line });
        }
        Ok(None)
    }

    fn row(&mut self, row: RowLine) -> Result<AuditRow, ExportFault> {
        let line = self.line;
        let malformed = |why: &dyn std::fmt::Display| ExportFault::Malformed {
            line,
            why: why.to_string(),
        };
        let bytes = STANDARD
            .decode(&row.record)
            .map_err(|error| malformed(&error))?;
        let record = canonical::decode(&bytes).map_err(|error| malformed(&error))?;
        let (position, link, history) =
            place(&row.row).ok_or_else(|| malformed(&"its place is none"))?;
        let held = AuditRow {
            position,
            record,
            link,
            history,
        };
        if (self.shown)(&held) != row.row {
            return Err(ExportFault::ShowsOther { line });
        }
        self.verifier.push(&held);
        let digest = extend(&self.digest, &covered(&row.row, &row.record));
        if let Some(finding) = self.verifier.finding() {
            return Err(ExportFault::Rows(Box::new(finding.clone())));
        }
        if row.digest != hex::encode(digest) {
            return Err(ExportFault::Changed { line });
        }
        self.digest = digest;
        self.rows = self.rows.saturating_add(1);
        Ok(held)
    }

    /// What was found, when every line was.
    ///
    /// # Errors
    /// [`ExportFault`] when the end is missing, or rows that a checkpoint names.
    pub fn finish(self) -> Result<ExportReport, ExportFault> {
        if !self.ended {
            return Err(ExportFault::CutOff);
        }
        let rows = self.verifier.finish();
        if let Some(finding) = rows.finding {
            return Err(ExportFault::Rows(Box::new(finding)));
        }
        Ok(ExportReport {
            store: self.head.store,
            at: self.head.at,
            key: self.public.to_hex(),
            rows,
            checkpoints: self.checkpoints,
        })
    }
}

/// Position, link and place in a history of a row, as it is written to be read.
fn place(row: &Value) -> Option<(i64, Option<Link>, Option<HistoryPlace>)> {
    let position = row.get("position")?.as_i64()?;
    let Some(chain) = row.get("chain") else {
        return Some((position, None, None));
    };
    let hash = |key: &str| {
        let bytes = hex::decode(row.get(key)?.as_str()?).ok()?;
        ChainHash::try_from(bytes.as_slice()).ok()
    };
    let history = match row.get("gseq") {
        None => None,
        Some(gseq) => Some(HistoryPlace {
            gseq: gseq.as_u64()?,
            ghash: hash("ghash")?,
        }),
    };
    Some((
        position,
        Some(Link {
            chain: Uuid::try_parse(chain.as_str()?).ok()?,
            seq: row.get("seq")?.as_u64()?,
            prev_hash: hash("prev_hash")?,
            hash: hash("hash")?,
        }),
        history,
    ))
}

#[cfg(test)]
mod tests;
