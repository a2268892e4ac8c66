//! The directory of a demo's files.
//!
//! Invariant: readable by its owner only, made by this process and nobody before it, and gone with its value.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{DemoFailure, system};

/// A directory that goes with its value.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Makes it below the system's directory for such files.
    pub(super) fn make() -> Result<Self, DemoFailure> {
        // Short: the path of a unix socket has a hundred bytes.
        let name = Uuid::new_v4().simple().to_string();
        let name = format!("mosaic-demo-{}", name.get(..8).unwrap_or(&name));
        let path = std::env::temp_dir().join(name);
        make_directory(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> Result<(), DemoFailure> {
        std::fs::remove_dir_all(&self.0)
            .map_err(system(format!("`{}` cannot be removed", self.0.display())))
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Usually gone already; when not, there is nobody left to tell.
        let _ = self.remove();
    }
}

/// One that must not be there yet, so that nobody else has prepared it.
pub(super) fn make_directory(path: &Path) -> Result<(), DemoFailure> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(system(format!("`{}` cannot be made", path.display())))
}
