//! The manifest of a file: a row of the log that says what the file holds.
//!
//! Invariant: what is read from a row is what was written into one. The store's list of files is only where to look; that it names the
//! files that there are, all of them and as they were written, is in the manifests, which the chain authenticates.

use std::collections::BTreeMap;

use policy::time::UnixMillis;
use serde_json::Value;
use uuid::Uuid;

use super::super::detail::AuditDetail;
use super::super::query::AuditRow;
use super::super::record::Direction;
use super::{ColdFile, file_name};

/// The action of a row that is a manifest.
pub const MANIFEST_ACTION: &str = "audit.archive";

const FILE: &str = "file";
const NUMBER: &str = "number";
const ROWS: &str = "rows";
const FIRST_POSITION: &str = "first_position";
const LAST_POSITION: &str = "last_position";
const EARLIEST: &str = "earliest";
const LATEST: &str = "latest";
const BYTES: &str = "bytes";
const SHA256: &str = "sha256";
const CHAINS: &str = "chains";

/// The rows of one chain in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainSpan {
    /// The chain.
    pub chain: Uuid,
    /// Number of its first row in the file.
    pub first: u64,
    /// Number of its last row in the file.
    pub last: u64,
    /// The hash of that one.
    pub hash: [u8; 32],
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The file.
    pub file: ColdFile,
    /// The chains in it, in the order of their first rows.
    pub chains: Vec<ChainSpan>,
}

impl Manifest {
    /// The detail of the row.
    #[must_use]
    pub fn detail(&self) -> AuditDetail {
        let file = &self.file;
        let chains = self.chains.iter().map(|span| {
            let hash = hex::encode(span.hash);
            format!("{} {} {} {hash}", span.chain, span.first, span.last)
        });
        AuditDetail::new()
            .text(FILE, &file.name())
            .count(NUMBER, file.number)
            .count(ROWS, file.rows)
            .integer(FIRST_POSITION, file.first_position)
            .integer(LAST_POSITION, file.last_position)
            .integer(EARLIEST, file.earliest.0)
            .integer(LATEST, file.latest.0)
            .count(BYTES, file.bytes)
            .text(SHA256, &hex::encode(file.sha256))
            .texts(CHAINS, chains)
    }

    /// The manifest that a row is; `None` for any other row.
    #[must_use]
    pub fn of(row: &AuditRow) -> Option<Self> {
        let record = &row.record;
        let is_manifest = record.direction == Direction::Admin
            && record.action.as_ref()?.as_str() == MANIFEST_ACTION;
        is_manifest.then(|| Self::read(record.detail.as_ref()?))?
    }

    fn read(detail: &AuditDetail) -> Option<Self> {
        let count = |key| detail.value(key)?.as_u64();
        let integer = |key| detail.value(key)?.as_i64();
        let file = ColdFile {
            number: count(NUMBER)?,
            rows: count(ROWS)?,
            first_position: integer(FIRST_POSITION)?,
            last_position: integer(LAST_POSITION)?,
            earliest: UnixMillis(integer(EARLIEST)?),
            latest: UnixMillis(integer(LATEST)?),
            bytes: count(BYTES)?,
            sha256: digest(detail.value(SHA256)?.as_str()?)?,
        };
        let chains = detail.value(CHAINS)?.as_array()?.iter().map(span);
        Some(Self {
            file,
            chains: chains.collect::<Option<_>>()?,
        })
    }
}

fn span(value: &Value) -> Option<ChainSpan> {
    let mut words = value.as_str()?.split(' ');
    let span = ChainSpan {
        chain: Uuid::try_parse(words.next()?).ok()?,
        first: words.next()?.parse().ok()?,
        last: words.next()?.parse().ok()?,
        hash: digest(words.next()?)?,
    };
    words.next().is_none().then_some(span)
}

fn digest(text: &str) -> Option<[u8; 32]> {
    <[u8; 32]>::try_from(hex::decode(text).ok()?.as_slice()).ok()
}

/// What the manifests of a log and the store's list of files disagree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// The file.
    pub name: String,
    /// The row that names it; 0 when none does.
    pub position: i64,
    /// What is wrong.
    pub why: &'static str,
}

/// The manifests of a log, met while reading it.
#[derive(Debug, Default)]
pub struct Manifests(BTreeMap<u64, (i64, ColdFile)>);

impl Manifests {
    /// Takes note of a row.
    pub fn see(&mut self, row: &AuditRow) {
        if let Some(manifest) = Manifest::of(row) {
            self.0
                .insert(manifest.file.number, (row.position, manifest.file));
        }
    }

    /// The first file on which they differ from the store's list, one that a manifest tells of before one that none tells of: the manifest
    /// of a file may have been in another one that is missing. `before` is how long the list was before the log was read, `after`
    /// the list afterwards: of a file in between, the manifest may not have been met.
    #[must_use]
    pub fn disagreement(&self, before: u64, after: &[ColdFile]) -> Option<Disagreement> {
        let listed: BTreeMap<u64, &ColdFile> =
            after.iter().map(|file| (file.number, file)).collect();
        let last = self.0.keys().chain(listed.keys()).max().copied();
        let told = self.0.iter().find_map(|(number, (position, told))| {
            let why = match listed.get(number) {
                Some(listed) if told == *listed => return None,
                Some(_) => "the store lists it otherwise than its manifest",
                None => "its manifest names it and the store does not list it any more",
            };
            Some((*number, *position, why))
        });
        let untold = || {
            (1..=last.unwrap_or(0))
                .filter(|number| !self.0.contains_key(number))
                .find_map(|number| match listed.contains_key(&number) {
                    true if number > before => None,
                    true => Some((number, 0, "no manifest in the log names it")),
                    false => Some((number, 0, "the files around it are there, and it is not")),
                })
        };
        let (number, position, why) = told.or_else(untold)?;
        Some(Disagreement {
            name: file_name(number),
            position,
            why,
        })
    }
}
