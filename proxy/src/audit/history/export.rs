//! The history of one grant as a file, for the peer whose grant it is.
//!
//! Invariant: of each record only what the peer may know is in it, as bytes from which the hashes of the history can be computed
//! and once more to be read; nothing tells of other grants. The end is signed over the whole: who made it, of which grant, when, and
//! where it begins and ends. Reading goes on behind a fault, so that what else is wrong can be named too.
//!
//! Lines of JSON: a head, the records, an end. Where records come from and where lines go is elsewhere.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::id::GrantId;
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{HistoryHead, grant_of};
use crate::audit::canonical;
use crate::audit::checkpoint::{CheckpointSigner, CheckpointVerifier};
use crate::audit::{AuditRecord, AuditRow, AuditText};

/// The version of the form.
pub const GRANT_EXPORT_VERSION: u32 = 1;
/// What a signature is over, besides the values.
const CONTEXT: &[u8] = b"mosaic-federation grant export v1\0";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantExportHead {
    /// The version of the form.
    pub grant_export: u32,
    /// The grant.
    pub grant: GrantId,
    /// When it was made.
    pub at: UnixMillis,
    /// The public key of its end, hex: which to look for, not a proof.
    pub key: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine {
    /// To be read; must be what `record` says.
    row: Value,
    /// What the peer may know of the record, in canonical bytes, base64.
    record: String,
    chain: Uuid,
    gseq: u64,
    ghash: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: End,
}

/// What is signed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    records: u64,
    signature: String,
}

/// Where an export begins and ends.
#[derive(Debug, Clone, Copy)]
struct Extent {
    records: u64,
    first: HistoryHead,
    last: HistoryHead,
}

impl Extent {
    const EMPTY: Self = Self {
        records: 0,
        first: HistoryHead::NONE,
        last: HistoryHead::NONE,
    };

    fn add(&mut self, head: HistoryHead) {
        if self.records == 0 {
            self.first = head;
        }
        self.last = head;
        self.records = self.records.saturating_add(1);
    }

    fn message(&self, head: &GrantExportHead) -> Vec<u8> {
        let mut bytes = CONTEXT.to_vec();
        bytes.extend_from_slice(head.grant.as_bytes());
        bytes.extend_from_slice(&head.at.0.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_bytes());
        bytes.extend_from_slice(&self.last.to_bytes());
        bytes
    }
}

/// The log does not say of its own row what it said when it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "record {gseq} of the history of grant {grant} is not what was written: nothing is exported behind it; `audit verify` names the first row changed"
)]
pub struct Unfaithful {
    /// The grant.
    pub grant: GrantId,
    /// The record.
    pub gseq: u64,
}

/// Turns the rows of a grant into lines.
pub struct GrantExporter {
    signer: Arc<CheckpointSigner>,
    head: GrantExportHead,
    extent: Extent,
    buffer: Vec<u8>,
}

impl GrantExporter {
    /// Begins an export: its first line.
    #[must_use]
    pub fn begin(signer: Arc<CheckpointSigner>, grant: GrantId, at: UnixMillis) -> (Self, String) {
        let head = GrantExportHead {
            grant_export: GRANT_EXPORT_VERSION,
            grant,
            at,
            key: signer.verifier().to_hex(),
        };
        let line = line(&head);
        let exporter = Self {
            signer,
            head,
            extent: Extent::EMPTY,
            buffer: Vec::new(),
        };
        (exporter, line)
    }

    /// The line of a row; nothing for one without a place in the history. Rows come in the order of their places.
    ///
    /// # Errors
    /// [`Unfaithful`]: the row is not what was written, or does not follow the one before.
    pub fn row(&mut self, row: &AuditRow, lines: &mut String) -> Result<(), Unfaithful> {
        let (Some(place), Some(link)) = (row.history, row.link) else {
            return Ok(());
        };
        let head = HistoryHead {
            chain: link.chain,
            gseq: place.gseq,
            ghash: place.ghash,
        };
        let grant = self.head.grant;
        let unfaithful = Unfaithful {
            grant,
            gseq: head.gseq,
        };
        // What an export begins with follows what is not in it.
        let begins = self.extent.records == 0 && head.gseq > 1;
        let next = (self.extent.last).next(grant, head.chain, &row.record, &mut self.buffer);
        if grant_of(&row.record) != Some(grant) || (!begins && next != head) {
            return Err(unfaithful);
        }
        let told = canonical::told_bytes(&row.record);
        let record = canonical::decode(&told).map_err(|_| unfaithful)?;
        lines.push_str(&line(&RecordLine {
            row: shown(&record),
            record: STANDARD.encode(told),
            chain: head.chain,
            gseq: head.gseq,
            ghash: hex::encode(head.ghash),
        }));
        self.extent.add(head);
        Ok(())
    }

    /// The last line.
    #[must_use]
    pub fn end(self) -> String {
        let message = self.extent.message(&self.head);
        line(&EndLine {
            end: End {
                records: self.extent.records,
                signature: hex::encode(self.signer.sign_bytes(&message)),
            },
        })
    }
}

/// JSON of a value of this file's own, which always has one.
fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// What a peer may know of a record, to be read.
fn shown(record: &AuditRecord) -> Value {
    let text = |text: &Option<AuditText>| text.as_ref().map(|text| text.as_str().to_owned());
    let mut out = Map::new();
    for (key, value) in [
        ("id", json!(record.id)),
        ("at", json!(record.at)),
        ("outcome", json!(record.outcome.as_str())),
        ("count", json!(record.count)),
        ("request_id", json!(record.request_id.as_str())),
        ("peer_request_id", json!(text(&record.peer_request_id))),
        ("attempt", json!(record.attempt)),
        ("trace_id", json!(text(&record.trace_id))),
        ("subject_user_id", json!(record.subject)),
        ("cert_serial", json!(text(&record.cert_serial))),
        ("verb", json!(text(&record.verb))),
        ("resource", json!(text(&record.resource))),
        ("query_hash", json!(record.query_hash.map(hex::encode))),
        ("deny_stage", json!(text(&record.deny_stage))),
        ("deny_code", json!(text(&record.deny_code))),
        ("http_status", json!(record.http_status)),
        ("rows_returned", json!(record.rows_returned)),
        ("bytes_out", json!(record.bytes_out)),
    ] {
        if !value.is_null() {
            out.insert(key.to_owned(), value);
        }
    }
    Value::Object(out)
}

/// A record of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedRecord {
    /// What the peer says of it.
    pub record: AuditRecord,
    /// Its place, as the export says.
    pub head: HistoryHead,
}

/// Something wrong with the form of an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantExportFault {
    /// Not a line of an export.
    #[error("line {line} is not a line of an export: {why}")]
    Malformed {
        /// Counted from 1.
        line: u64,
        /// Why.
        why: String,
    },
    /// The record does not follow the one before.
    #[error(
        "line {line}, record {gseq}: it does not follow the record in front of it: one of them was changed, added or removed"
    )]
    Broken {
        /// Counted from 1.
        line: u64,
        /// The place it claims.
        gseq: u64,
    },
    /// What stands to be read is not what was recorded.
    #[error("line {line} shows another record than the one it holds")]
    ShowsOther {
        /// Counted from 1.
        line: u64,
    },
    /// The end is not signed by the key, or not over these records.
    #[error(
        "the end is not signed by the expected key over these records: the export was changed, or is another side's"
    )]
    Signature,
    /// There is no end.
    #[error("the export is cut off: its end is missing")]
    CutOff,
}

/// An export that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantExport {
    /// The head.
    pub head: GrantExportHead,
    /// Its records, in the order of the file.
    pub records: Vec<ExportedRecord>,
    /// What is wrong with its form, in that order.
    pub faults: Vec<GrantExportFault>,
}

/// Why a file is no export at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnExport {
    /// Its first line.
    #[error("the first line is not the head of an export of a grant: {0}")]
    Head(String),
    /// A form this program does not know.
    #[error("the export has version {0}, which this program does not know; upgrade")]
    Version(u32),
}

/// Reads the first line.
///
/// # Errors
/// [`NotAnExport`].
pub fn read_head(first: &str) -> Result<GrantExportHead, NotAnExport> {
    let head: GrantExportHead =
        serde_json::from_str(first).map_err(|error| NotAnExport::Head(error.to_string()))?;
    if head.grant_export != GRANT_EXPORT_VERSION {
        return Err(NotAnExport::Version(head.grant_export));
    }
    Ok(head)
}

/// Reads the lines behind the first; `key` is the one that has to have signed the end.
#[must_use]
pub fn read(
    head: GrantExportHead,
    lines: impl Iterator<Item = String>,
    key: &CheckpointVerifier,
) -> GrantExport {
    let mut reading = Reading {
        export: GrantExport {
            head,
            records: Vec::new(),
            faults: Vec::new(),
        },
        extent: Extent::EMPTY,
        ended: false,
        buffer: Vec::new(),
    };
    for (text, line) in lines.zip(2..) {
        if let Err(fault) = reading.line(&text, line, key) {
            reading.export.faults.push(fault);
        }
    }
    if !reading.ended {
        reading.export.faults.push(GrantExportFault::CutOff);
    }
    reading.export
}

struct Reading {
    export: GrantExport,
    extent: Extent,
    ended: bool,
    buffer: Vec<u8>,
}

impl Reading {
    fn line(
        &mut self,
        text: &str,
        line: u64,
        key: &CheckpointVerifier,
    ) -> Result<(), GrantExportFault> {
        let malformed = |why: String| GrantExportFault::Malformed { line, why };
        if self.ended {
            return Err(malformed("it stands behind the end".to_owned()));
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if value.get("end").is_some() {
            let EndLine { end } =
                serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
            self.ended = true;
            let message = self.extent.message(&self.export.head);
            let signature = hex::decode(&end.signature).unwrap_or_default();
            let is_signed =
                end.records == self.extent.records && key.has_signed(&message, &signature);
            return is_signed.then_some(()).ok_or(GrantExportFault::Signature);
        }
        let read: RecordLine =
            serde_json::from_value(value).map_err(|error| malformed(error.to_string()))?;
        self.record(&read, line)
    }

    fn record(&mut self, read: &RecordLine, line: u64) -> Result<(), GrantExportFault> {
        let malformed = |why: &str| GrantExportFault::Malformed {
            line,
            why: why.to_owned(),
        };
        let told = STANDARD
            .decode(&read.record)
            .map_err(|_| malformed("its record is not base64"))?;
        let record = canonical::decode(&told).map_err(|error| malformed(&error.to_string()))?;
        let ghash = hex::decode(&read.ghash).unwrap_or_default();
        let ghash = <[u8; 32]>::try_from(ghash.as_slice())
            .map_err(|_| malformed("its hash is not 32 bytes"))?;
        let head = HistoryHead {
            chain: read.chain,
            gseq: read.gseq,
            ghash,
        };
        let grant = self.export.head.grant;
        let next = (self.extent.last).next(grant, head.chain, &record, &mut self.buffer);
        let begins = self.extent.records == 0 && head.gseq > 1;
        let follows = grant_of(&record) == Some(grant)
            && canonical::told_bytes(&record) == told
            && (begins || next == head);
        let shows = shown(&record) == read.row;
        self.extent.add(head);
        self.export.records.push(ExportedRecord { record, head });
        if !follows {
            let gseq = head.gseq;
            return Err(GrantExportFault::Broken { line, gseq });
        }
        shows
            .then_some(())
            .ok_or(GrantExportFault::ShowsOther { line })
    }
}
