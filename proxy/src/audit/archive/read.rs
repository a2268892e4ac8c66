//! Reading a file of the archive.
//!
//! Invariant: rows come in the order of the log, and the end comes only if the whole file is, byte for byte, the one the store
//! lists; one row is in memory at a time. That rows are what was recorded is the chain's to say.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use zstd::stream::read::Decoder;

use super::super::query::AuditRow;
use super::frame::{self, FrameError, Next};
use super::{ColdError, ColdFile, Shelf, WINDOW_LOG, file_name};

/// A file with the digest of everything read from it.
struct Hashed {
    file: File,
    digest: Context,
    bytes: u64,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.update(buffer.get(..read).unwrap_or_default());
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

/// A file that is being read. Blocks.
pub struct ColdReader {
    name: String,
    /// What the store lists; `None` for a file that it does not list.
    listed: Option<ColdFile>,
    /// `None` behind the end.
    decoder: Option<Unpacked>,
    buffer: Vec<u8>,
    rows: u64,
    last: Option<i64>,
    /// What is wrong behind the rows that were given out.
    fault: Option<ColdError>,
}

type Unpacked = BufReader<Decoder<'static, BufReader<Hashed>>>;

/// Bytes decompressed at once.
const BUFFER: usize = 128 * 1024;

impl ColdReader {
    /// Opens a file that the store lists.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn open(shelf: &Shelf, file: &ColdFile) -> Result<Self, ColdError> {
        Self::open_at(&shelf.path(file.number), shelf, file)
    }

    pub(super) fn open_at(path: &Path, shelf: &Shelf, file: &ColdFile) -> Result<Self, ColdError> {
        let mut reader = Self::begin(path, shelf, file.number)?;
        reader.listed = Some(file.clone());
        Ok(reader)
    }

    /// Opens a file that the store does not list; its end is not compared with anything. `None` when there is none.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn open_unlisted(shelf: &Shelf, number: u64) -> Result<Option<Self>, ColdError> {
        match Self::begin(&shelf.path(number), shelf, number) {
            Ok(reader) => Ok(Some(reader)),
            Err(ColdError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn begin(path: &Path, shelf: &Shelf, number: u64) -> Result<Self, ColdError> {
        let name = file_name(number);
        let failed = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                ColdError::Missing { name: name.clone() }
            } else {
                ColdError::unavailable(&name, &error)
            }
        };
        let hashed = Hashed {
            file: File::open(path).map_err(failed)?,
            digest: Context::new(&SHA256),
            bytes: 0,
        };
        let decoder = Decoder::new(hashed).map_err(failed)?;
        let mut decoder = decoder.single_frame();
        decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
        let mut decoder = BufReader::with_capacity(BUFFER, decoder);
        let head = frame::read_head(&mut decoder);
        let (store, told) = head.map_err(|error| refused(&name, error))?;
        if store != shelf.store {
            return Err(ColdError::changed(&name, "it is of another store"));
        }
        if told != number {
            let why = format!("it was written as `{}`", file_name(told));
            return Err(ColdError::changed(&name, why));
        }
        Ok(Self {
            name,
            listed: None,
            decoder: Some(decoder),
            buffer: Vec::new(),
            rows: 0,
            last: None,
            fault: None,
        })
    }

    /// The next row; `None` behind the last, when the file is the one that is listed.
    ///
    /// # Errors
    /// [`ColdError`]; nothing more comes then.
    pub fn next_row(&mut self) -> Result<Option<AuditRow>, ColdError> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(None);
        };
        let next = frame::read_next(decoder, &mut self.buffer);
        let row = match next.map_err(|error| refused(&self.name, error)) {
            Ok(Next::Row(row)) => *row,
            Ok(Next::End(rows)) => {
                let outcome = self.end(rows);
                self.decoder = None;
                return outcome.map(|()| None);
            }
            Err(error) => {
                self.decoder = None;
                return Err(error);
            }
        };
        if self.last.is_some_and(|last| row.position <= last) {
            self.decoder = None;
            return Err(self.changed("its rows are out of order"));
        }
        self.last = Some(row.position);
        self.rows = self.rows.saturating_add(1);
        Ok(Some(row))
    }

    /// Up to `most` rows; fewer only in front of the end or of a fault, none only behind the end.
    ///
    /// # Errors
    /// [`ColdError`], when the rows in front of the fault have been given out.
    pub fn rows(&mut self, most: usize) -> Result<Vec<AuditRow>, ColdError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut rows = Vec::with_capacity(most);
        while rows.len() < most {
            match self.next_row() {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => break,
                Err(fault) if rows.is_empty() => return Err(fault),
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        Ok(rows)
    }

    fn changed(&self, why: &str) -> ColdError {
        ColdError::changed(&self.name, why)
    }

    /// Compares the whole with what is listed.
    fn end(&mut self, rows: u64) -> Result<(), ColdError> {
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(());
        };
        let refused = |error: io::Error| refused(&self.name, error.into());
        // The checksum of the frame stands behind its last byte.
        if decoder.read(&mut [0]).map_err(refused)? > 0 {
            return Err(self.changed("something stands behind its end"));
        }
        let mut rest = decoder.into_inner().finish();
        if !rest.fill_buf().map_err(refused)?.is_empty() {
            return Err(self.changed("something stands behind its end"));
        }
        if rows != self.rows {
            return Err(self.changed("its end names another number of rows"));
        }
        let hashed = rest.into_inner();
        if let Some(listed) = &self.listed {
            let digest = hashed.digest.finish();
            let same = hashed.bytes == listed.bytes
                && digest.as_ref() == listed.sha256.as_slice()
                && rows == listed.rows
                && self.last == Some(listed.last_position);
            if !same {
                return Err(self.changed("its SHA-256 is not that of its manifest"));
            }
        }
        Ok(())
    }
}

/// What an error in the middle of a file means.
fn refused(name: &str, error: FrameError) -> ColdError {
    match error {
        FrameError::Malformed(why) => ColdError::changed(name, why),
        FrameError::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => ColdError::changed(name, "it is cut off"),
            // The compression's own errors have no number of the system.
            _ if error.raw_os_error().is_none() => {
                ColdError::changed(name, format!("it does not decompress: {error}"))
            }
            _ => ColdError::unavailable(name, &error),
        },
    }
}
