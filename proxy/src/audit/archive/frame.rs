//! The bytes of a file of the archive, as its compression sees them.
//!
//! Invariant: what is read is what was written, or an error that says where it differs; a reader holds one row at a time, and no length it reads makes
//! it take more memory than the largest row has. Compression and files are elsewhere.

use std::io::{self, Read, Write};

use uuid::Uuid;

use super::super::HistoryPlace;
use super::super::canonical;
use super::super::chain::{ChainHash, Link, NO_HASH};
use super::super::query::AuditRow;

const MAGIC: &[u8; 8] = b"MFCOLD01";
/// More than any row has: texts are bounded, and so is what a manifest lists.
const ROW_MAX: u32 = 1024 * 1024;

/// Why bytes are not those of a file.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The system, or the compression.
    Io(io::Error),
    /// Something that is never written.
    Malformed(String),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn malformed(why: impl Into<String>) -> FrameError {
    FrameError::Malformed(why.into())
}

/// Writes the head.
pub(super) fn write_head(to: &mut impl Write, store: Uuid, number: u64) -> io::Result<()> {
    to.write_all(MAGIC)?;
    to.write_all(store.as_bytes())?;
    to.write_all(&number.to_le_bytes())
}

/// Reads the head: whose file it is, and which.
pub(super) fn read_head(from: &mut impl Read) -> Result<(Uuid, u64), FrameError> {
    let magic: [u8; 8] = take(from)?;
    if &magic != MAGIC {
        return Err(malformed(
            "it does not begin as an archive file of this version",
        ));
    }
    Ok((
        Uuid::from_bytes(take(from)?),
        u64::from_le_bytes(take(from)?),
    ))
}

/// Writes one row; `buffer` is overwritten.
pub(super) fn write_row(
    to: &mut impl Write,
    row: &AuditRow,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    buffer.clear();
    buffer.extend_from_slice(&row.position.to_le_bytes());
    match &row.link {
        None => buffer.push(0),
        Some(link) => {
            buffer.push(1);
            buffer.extend_from_slice(link.chain.as_bytes());
            buffer.extend_from_slice(&link.seq.to_le_bytes());
            buffer.extend_from_slice(&link.prev_hash);
            buffer.extend_from_slice(&link.hash);
        }
    }
    match &row.history {
        None => buffer.push(0),
        Some(place) => {
            buffer.push(1);
            buffer.extend_from_slice(&place.gseq.to_le_bytes());
            buffer.extend_from_slice(&place.ghash);
        }
    }
    canonical::encode(&row.record, buffer);
    let length = u32::try_from(buffer.len())
        .ok()
        .filter(|length| *length <= ROW_MAX)
        .ok_or_else(|| io::Error::other("a row is too large"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(buffer)
}

/// Writes the end.
pub(super) fn write_end(to: &mut impl Write, rows: u64) -> io::Result<()> {
    to.write_all(&0_u32.to_le_bytes())?;
    to.write_all(&rows.to_le_bytes())
}

/// What comes next.
pub(super) enum Next {
    /// A row.
    Row(Box<AuditRow>),
    /// The end, with the number of rows.
    End(u64),
}

/// Reads a row or the end; `buffer` is overwritten.
pub(super) fn read_next(from: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Next, FrameError> {
    let length = u32::from_le_bytes(take(from)?);
    if length == 0 {
        return Ok(Next::End(u64::from_le_bytes(take(from)?)));
    }
    if length > ROW_MAX {
        return Err(malformed(format!("a row of {length} bytes")));
    }
    buffer.clear();
    let wanted = u64::from(length);
    if from.take(wanted).read_to_end(buffer)? < usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let mut rest = buffer.as_slice();
    let position = i64::from_le_bytes(take(&mut rest)?);
    let link = match take::<1>(&mut rest)? {
        [0] => None,
        [1] => Some(Link {
            chain: Uuid::from_bytes(take(&mut rest)?),
            seq: u64::from_le_bytes(take(&mut rest)?),
            prev_hash: hash(&mut rest)?,
            hash: hash(&mut rest)?,
        }),
        [other] => return Err(malformed(format!("a link of kind {other}"))),
    };
    let history = match take::<1>(&mut rest)? {
        [0] => None,
        [1] => Some(HistoryPlace {
            gseq: u64::from_le_bytes(take(&mut rest)?),
            ghash: take(&mut rest)?,
        }),
        [other] => return Err(malformed(format!("a place of kind {other}"))),
    };
    let record = canonical::decode(rest).map_err(|error| malformed(error.to_string()))?;
    Ok(Next::Row(Box::new(AuditRow {
        position,
        record,
        link,
        history,
    })))
}

fn hash(from: &mut impl Read) -> io::Result<ChainHash> {
    let mut hash = NO_HASH;
    from.read_exact(&mut hash)?;
    Ok(hash)
}

fn take<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
