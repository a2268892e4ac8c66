//! The journal's file: made with all its space, locked by the process that writes it.
//!
//! Invariant: a file that was made has its space on the disk, so that a full disk is found at start and not by a request;
//! only its owner can read it; and it stays locked while its process lives, so that no other one takes it for a leftover.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use uuid::Uuid;

use super::JournalSettings;
use super::segment::SEGMENTS;

/// How files of journals are named.
pub(super) const EXTENSION: &str = "journal";
/// What a segment's size is a multiple of: a page of the disk and of memory.
const PAGE: u64 = 4096;

/// What a journal does with its file.
pub trait JournalFile: Send + Sync {
    /// Writes all bytes at an offset; when it returns, the kernel has them.
    ///
    /// # Errors
    /// What the system said; nothing is known about the bytes then.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    /// What the system said.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// What the system said; what was written before may be lost to a power cut.
    fn sync(&self) -> io::Result<()>;
}

impl JournalFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
#[error("the audit journal `{}` cannot be made with {bytes} bytes: {source}; free space or set `audit.dir` or `audit.journal_bytes`", path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// The space it needs.
    pub bytes: u64,
    /// What the system said.
    pub source: io::Error,
}

/// Bytes of a segment of a journal of that size.
pub(super) const fn segment_size(bytes: u64) -> u64 {
    bytes / SEGMENTS / PAGE * PAGE
}

/// Makes the file.
pub(super) fn create(
    settings: &JournalSettings,
    id: Uuid,
) -> Result<(PathBuf, File), JournalError> {
    let path = settings.dir.join(format!("{id}.{EXTENSION}"));
    let failed = |source| JournalError {
        path: path.clone(),
        bytes: settings.bytes,
        source,
    };
    make_dir(&settings.dir).map_err(failed)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let made = file
        .lock()
        .and_then(|()| allocate(&file, segment_size(settings.bytes) * SEGMENTS))
        .and_then(|()| File::open(&settings.dir)?.sync_all());
    if let Err(error) = made {
        // A file without its space would only be in the way.
        let _ = std::fs::remove_file(&path);
        return Err(failed(error));
    }
    Ok((path, file))
}

pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => {
            // A file system without preallocation: the space is taken by writing it.
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < bytes {
                let rest = usize::try_from(bytes - at).unwrap_or(zeros.len());
                let part = zeros.get(..rest.min(zeros.len())).unwrap_or(&zeros);
                FileExt::write_all_at(file, part, at)?;
                at = at.saturating_add(u64::try_from(part.len()).unwrap_or(bytes));
            }
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}
