//! The sealing secret, and reading it. Does input and output: a file or an environment variable.
//!
//! Invariant: a secret has at least 32 bytes, is zeroised on drop, and does not come from a file
//! that others on the machine can read. Choosing the source is the configuration's business.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

/// The fewest bytes of a secret.
pub const SECRET_MIN_BYTES: usize = 32;
/// The most bytes of a secret: a larger file is something else.
pub const SECRET_MAX_BYTES: usize = 4096;
/// Permission bits a secret's file must not have: anything for others, writing for the group.
const FORBIDDEN_MODE: u32 = 0o027;

/// Why there is no sealing secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("the sealing secret {} could not be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path is not a regular file.
    #[error("the sealing secret {} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file's permissions are too open.
    #[error(
        "the sealing secret {} has mode {mode:03o}; nobody but its owner (and readers of its group) may touch it: chmod 600",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The environment variable is not set, or not text.
    #[error("the environment variable {name} with the sealing secret is not set, or is not text")]
    NoVariable {
        /// The variable.
        name: String,
    },
    /// The secret is too short.
    #[error(
        "the sealing secret has {length} bytes and needs at least {SECRET_MIN_BYTES}; make one with: openssl rand -hex 32"
    )]
    TooShort {
        /// Its length in bytes.
        length: usize,
    },
    /// The secret is too long.
    #[error(
        "the sealing secret has more than {SECRET_MAX_BYTES} bytes; this is probably another file"
    )]
    TooLong,
}

/// The secret that all sealing keys are derived from. Zeroised on drop.
pub struct SealingSecret(Zeroizing<Vec<u8>>);

impl SealingSecret {
    /// Takes the bytes as they are.
    ///
    /// # Errors
    /// [`SecretError::TooShort`] or [`SecretError::TooLong`].
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretError> {
        match bytes.len() {
            length if length < SECRET_MIN_BYTES => Err(SecretError::TooShort { length }),
            length if length > SECRET_MAX_BYTES => Err(SecretError::TooLong),
            _ => Ok(Self(bytes)),
        }
    }

    /// Reads a file. If all of it is printable text, one line end at its end does not count, so
    /// that the same text gives the same secret here and from the environment.
    ///
    /// # Errors
    /// [`SecretError`]; a file that others can read, or the group can write, is refused.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        // Of the open file, not of the path: the two could be exchanged in between.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile {
                path: path.to_owned(),
            });
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(SecretError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        // Room for all of it and one byte more, so that the buffer never moves.
        let room = SECRET_MAX_BYTES + 3;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let limit = u64::try_from(room).unwrap_or(u64::MAX);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        strip_line_end(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// Reads the environment variable `name`.
    ///
    /// # Errors
    /// [`SecretError::NoVariable`] or the length errors.
    pub fn from_env(name: &str) -> Result<Self, SecretError> {
        let value = std::env::var(name).map_err(|_| SecretError::NoVariable {
            name: name.to_owned(),
        })?;
        let mut bytes = Zeroizing::new(value.into_bytes());
        strip_line_end(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// Its bytes in lower-case hex, to be handed to the running process.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingSecret(redacted)")
    }
}

fn strip_line_end(bytes: &mut Zeroizing<Vec<u8>>) {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        let length = text.len();
        if let Some(tail) = bytes.get_mut(length..) {
            tail.zeroize();
        }
        bytes.truncate(length);
    }
}
