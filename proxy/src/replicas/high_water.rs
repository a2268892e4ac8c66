//! The mark outside of the store that says how far its revision had got: a store that was restored to before it is noticed at the start.
//!
//! Invariant: the mark only rises while a process runs, is on the disk before an act that raised it returns, and is sealed for the
//! store it is of. It guards against a restore by mistake, not against somebody who can write to the data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::seal::sealed_with;
use certs::{SealPurpose, Sealer};
use uuid::Uuid;

/// Bytes before the sealed revision: the id of the store.
const STORE: usize = 16;

/// What is done with a store that is older than it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollback {
    /// It is refused.
    #[default]
    Refuse,
    /// It is taken, with every peer suspended.
    Accept,
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: there is none, or it is of another store or was sealed with a secret that is not in force any more.
    None,
    /// The store had this revision.
    Revision(u64),
}

/// Why a mark cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The file.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it.
    #[error(
        "`{0}` is damaged: it does not say which revision the store had; compare with `audit verify`, and remove it"
    )]
    Damaged(PathBuf),
}

/// The mark of one data directory.
pub struct HighWater {
    path: PathBuf,
    store: Uuid,
    sealer: Arc<Sealer>,
    kept: parking_lot::Mutex<u64>,
}

impl HighWater {
    /// In a directory, for a store.
    #[must_use]
    pub fn in_dir(dir: &Path, store: Uuid, sealer: Arc<Sealer>) -> Self {
        Self {
            path: dir.join("revision.mark"),
            store,
            sealer,
            kept: parking_lot::Mutex::new(0),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// [`MarkError`].
    pub fn read(&self) -> Result<Mark, MarkError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::None),
            Err(source) => return Err(self.failed(source)),
        };
        let damaged = || MarkError::Damaged(self.path.clone());
        let (store, sealed) = bytes.split_at_checked(STORE).ok_or_else(damaged)?;
        if store != self.store.as_bytes() {
            tracing::warn!(path = %self.path.display(), "the mark of the revision is of another store, and is replaced");
            return Ok(Mark::None);
        }
        let with = sealed_with(sealed).map_err(|_| damaged())?;
        if with != self.sealer.key_id() && Some(with) != self.sealer.former_key_id() {
            tracing::warn!(path = %self.path.display(), "the mark of the revision was sealed with another secret, and is replaced");
            return Ok(Mark::None);
        }
        let opened = self
            .sealer
            .unseal(SealPurpose::HighWater, &self.store.to_string(), sealed)
            .map_err(|_| damaged())?;
        let revision = opened.as_slice().try_into().map_err(|_| damaged())?;
        Ok(Mark::Revision(u64::from_be_bytes(revision)))
    }

    /// Raises the mark to `revision`, unless it is there, and waits for the disk. To be called where waiting is no harm.
    ///
    /// # Errors
    /// [`MarkError::File`]; the mark is as it was.
    pub fn raise(&self, revision: u64) -> Result<(), MarkError> {
        let mut kept = self.kept.lock();
        if *kept >= revision {
            return Ok(());
        }
        self.write(revision)?;
        *kept = revision;
        Ok(())
    }

    /// Whether `revision` has been marked.
    #[must_use]
    pub fn has(&self, revision: u64) -> bool {
        *self.kept.lock() >= revision
    }

    fn write(&self, revision: u64) -> Result<(), MarkError> {
        let failed = |source| self.failed(source);
        let sealed = self
            .sealer
            .seal(
                SealPurpose::HighWater,
                &self.store.to_string(),
                &revision.to_be_bytes(),
            )
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        // A name of its own: another process of the directory may be at it too.
        let fresh = self
            .path
            .with_extension(format!("mark.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed)?;
        file.write_all(self.store.as_bytes())
            .and_then(|()| file.write_all(&sealed))
            .and_then(|()| file.sync_data())
            .and_then(|()| std::fs::rename(&fresh, &self.path))
            .map_err(failed)?;
        match self.path.parent() {
            Some(dir) => File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failed),
            None => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> MarkError {
        MarkError::File {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certs::SealingSecret;
    use zeroize::Zeroizing;

    use super::*;

    fn sealer(byte: u8) -> Arc<Sealer> {
        let secret = SealingSecret::from_bytes(Zeroizing::new(vec![byte; 32])).unwrap();
        Arc::new(Sealer::new(secret).unwrap())
    }

    #[test]
    fn a_mark_is_of_one_store_and_secret_and_only_rises() {
        let dir = tempfile::tempdir().unwrap();
        let store = Uuid::from_u128(1);
        let mark = HighWater::in_dir(dir.path(), store, sealer(1));
        assert_eq!(mark.read().unwrap(), Mark::None);
        mark.raise(7).unwrap();
        mark.raise(5).unwrap();
        assert!(mark.has(7) && !mark.has(8));
        let read = |store, byte| HighWater::in_dir(dir.path(), store, sealer(byte)).read();
        assert_eq!(read(store, 1).unwrap(), Mark::Revision(7));
        assert_eq!(read(Uuid::from_u128(2), 1).unwrap(), Mark::None);
        assert_eq!(read(store, 2).unwrap(), Mark::None);
        let path = dir.path().join("revision.mark");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read(store, 1), Err(MarkError::Damaged(_))));
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(read(store, 1), Err(MarkError::Damaged(_))));
    }
}
