//! Writing a file of the archive.
//!
//! Invariant: a file is written under a name that nobody reads, and gets its own only when all of it is on the disk and what is on the
//! disk has been read back and is what was written. Memory is bounded by the compressor's, whatever the number of rows.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};
use policy::time::UnixMillis;
use zstd::stream::write::Encoder;

use super::super::query::AuditRow;
use super::read::ColdReader;
use super::{ChainSpan, ColdError, ColdFile, Manifest, PART, Shelf, WINDOW_LOG, file_name, frame};

/// Rows in one file at most: what one transaction removes from the database.
pub const ROWS_MAX: u64 = 50_000;
/// Chains in one file at most: what one manifest lists.
const CHAINS_MAX: usize = 64;
/// Rows are mostly random bytes: more effort takes memory and saves little.
const LEVEL: i32 = 6;

/// A file with the digest of everything written to it.
struct Hashed {
    file: File,
    digest: Context,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What the rows so far come to.
struct Extent {
    rows: u64,
    first: i64,
    last: i64,
    earliest: UnixMillis,
    latest: UnixMillis,
}

/// A file in the making.
pub struct ColdWriter {
    shelf: Shelf,
    number: u64,
    part: PathBuf,
    encoder: Encoder<'static, Hashed>,
    extent: Option<Extent>,
    chains: Vec<ChainSpan>,
    buffer: Vec<u8>,
}

impl ColdWriter {
    /// Begins the file with that number.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn begin(shelf: &Shelf, number: u64) -> Result<Self, ColdError> {
        let failed = |error: io::Error| ColdError::unavailable(&file_name(number), &error);
        let part = shelf.dir.join(format!("{}{PART}", file_name(number)));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(failed)?;
        let hashed = Hashed {
            file,
            digest: Context::new(&SHA256),
            bytes: 0,
        };
        let mut encoder = Encoder::new(hashed, LEVEL).map_err(failed)?;
        encoder.include_checksum(true).map_err(failed)?;
        encoder.window_log(WINDOW_LOG).map_err(failed)?;
        frame::write_head(&mut encoder, shelf.store, number).map_err(failed)?;
        Ok(Self {
            shelf: shelf.clone(),
            number,
            part,
            encoder,
            extent: None,
            chains: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Rows in it so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.extent.as_ref().map_or(0, |extent| extent.rows)
    }

    /// Takes the next row. `false` when the file is full, and the row belongs into the next one.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn push(&mut self, row: &AuditRow) -> Result<bool, ColdError> {
        if self.rows() >= ROWS_MAX || !self.note_chain(row) {
            return Ok(false);
        }
        let name = file_name(self.number);
        frame::write_row(&mut self.encoder, row, &mut self.buffer)
            .map_err(|error| ColdError::unavailable(&name, &error))?;
        let at = row.record.at;
        let extent = self.extent.get_or_insert(Extent {
            rows: 0,
            first: row.position,
            last: row.position,
            earliest: at,
            latest: at,
        });
        extent.rows = extent.rows.saturating_add(1);
        extent.last = row.position;
        extent.earliest = extent.earliest.min(at);
        extent.latest = extent.latest.max(at);
        Ok(true)
    }

    /// `false` when the row's chain is one too many.
    fn note_chain(&mut self, row: &AuditRow) -> bool {
        let Some(link) = &row.link else { return true };
        // Nearly always the last one.
        if let Some(span) = self
            .chains
            .iter_mut()
            .rev()
            .find(|span| span.chain == link.chain)
        {
            span.last = link.seq;
            span.hash = link.hash;
            return true;
        }
        if self.chains.len() >= CHAINS_MAX {
            return false;
        }
        self.chains.push(ChainSpan {
            chain: link.chain,
            first: link.seq,
            last: link.seq,
            hash: link.hash,
        });
        true
    }

    /// Writes the end. The file has no name of its own yet, and may not be on the disk. `None` for a file without rows, which is
    /// removed.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn finish(mut self) -> Result<Option<Finished>, ColdError> {
        let name = file_name(self.number);
        let failed = |error: io::Error| ColdError::unavailable(&name, &error);
        let Some(extent) = self.extent else {
            std::fs::remove_file(&self.part).map_err(failed)?;
            return Ok(None);
        };
        frame::write_end(&mut self.encoder, extent.rows).map_err(failed)?;
        let hashed = self.encoder.finish().map_err(failed)?;
        let mut sha256 = [0; 32];
        for (to, from) in sha256.iter_mut().zip(hashed.digest.finish().as_ref()) {
            *to = *from;
        }
        Ok(Some(Finished {
            file: hashed.file,
            part: self.part,
            shelf: self.shelf,
            manifest: Manifest {
                file: ColdFile {
                    number: self.number,
                    rows: extent.rows,
                    first_position: extent.first,
                    last_position: extent.last,
                    earliest: extent.earliest,
                    latest: extent.latest,
                    bytes: hashed.bytes,
                    sha256,
                },
                chains: self.chains,
            },
        }))
    }
}

/// A file that is written to its end.
pub struct Finished {
    file: File,
    part: PathBuf,
    shelf: Shelf,
    manifest: Manifest,
}

impl Finished {
    /// What its manifest will say.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn failed(&self) -> impl Fn(io::Error) -> ColdError {
        let name = self.manifest.file.name();
        move |error| ColdError::unavailable(&name, &error)
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn sync(&self) -> Result<(), ColdError> {
        self.file.sync_all().map_err(self.failed())
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`ColdError`]: it is not what was written.
    pub fn read_back(&self) -> Result<(), ColdError> {
        let mut reader = ColdReader::open_at(&self.part, &self.shelf, &self.manifest.file)?;
        while reader.next_row()?.is_some() {}
        Ok(())
    }

    /// Gives it its name. The directory may not be on the disk yet.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn rename(&self) -> Result<(), ColdError> {
        let to = self.shelf.path(self.manifest.file.number);
        std::fs::rename(&self.part, to).map_err(self.failed())
    }

    /// Waits until its name is on the disk.
    ///
    /// # Errors
    /// [`ColdError::Unavailable`].
    pub fn sync_name(&self) -> Result<(), ColdError> {
        File::open(&self.shelf.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(self.failed())
    }
}
