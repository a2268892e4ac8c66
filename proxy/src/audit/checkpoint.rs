//! Signed checkpoints: statements of how far a chain has got, which anybody can check with the public key.
//!
//! Invariant: a [`SignedCheckpoint`] that verifies was made with the store's key over exactly these values; one kept outside of
//! the database shows that the end of the log was cut off. The newest one of each chain is kept in a file beside the journal,
//! one JSON object a line: it covers all earlier ones of its chain. Signing is never on the path of a request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use policy::time::UnixMillis;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::chain::{ChainHash, Head};

/// What a signature is over, besides the values: a checkpoint is never mistaken for something else that is signed.
const CONTEXT: &[u8] = b"mosaic-federation audit checkpoint v1\0";

/// A statement that the log of a store had this head at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The store.
    pub store: Uuid,
    /// How far its chain had got.
    pub head: Head,
    /// When.
    pub at: UnixMillis,
}

impl Checkpoint {
    /// The bytes that are signed.
    fn message(&self) -> Vec<u8> {
        let mut bytes = CONTEXT.to_vec();
        bytes.extend_from_slice(self.store.as_bytes());
        bytes.extend_from_slice(self.head.chain.as_bytes());
        bytes.extend_from_slice(&self.head.seq.to_le_bytes());
        bytes.extend_from_slice(&self.head.hash);
        bytes.extend_from_slice(&self.at.0.to_le_bytes());
        bytes
    }
}

/// A checkpoint with its signature, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCheckpoint {
    /// The store.
    pub store: Uuid,
    /// The chain.
    pub chain: Uuid,
    /// The row.
    pub seq: u64,
    /// Its hash, hex.
    pub hash: String,
    /// When, milliseconds since the epoch.
    pub at: i64,
    /// The public key, hex: which key to look for, not a proof.
    pub key: String,
    /// Ed25519 over the values, hex.
    pub signature: String,
}

/// Why a checkpoint proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint.
    #[error("it is not a checkpoint: {0}")]
    Malformed(String),
    /// The file.
    #[error("the file of checkpoints: {0}")]
    File(String),
    /// Signed with another key, or changed.
    #[error("its signature is not by the expected key over these values")]
    Signature,
}

impl SignedCheckpoint {
    /// The checkpoint, if `key` signed it.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify(&self, key: &CheckpointVerifier) -> Result<Checkpoint, CheckpointError> {
        let hex = |what: &str, text: &str| {
            hex::decode(text)
                .map_err(|error| CheckpointError::Malformed(format!("{what}: {error}")))
        };
        let hash = ChainHash::try_from(hex("hash", &self.hash)?.as_slice())
            .map_err(|_| CheckpointError::Malformed("hash: not 32 bytes".to_owned()))?;
        let checkpoint = Checkpoint {
            store: self.store,
            head: Head {
                chain: self.chain,
                seq: self.seq,
                hash,
            },
            at: UnixMillis(self.at),
        };
        let signature = hex("signature", &self.signature)?;
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(&checkpoint.message(), &signature)
            .map_err(|_| CheckpointError::Signature)?;
        Ok(checkpoint)
    }
}

/// The public half, for whoever checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointVerifier([u8; 32]);

impl CheckpointVerifier {
    /// A key from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key from hex, as printed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        <[u8; 32]>::try_from(hex::decode(text).ok()?.as_slice())
            .ok()
            .map(Self)
    }

    /// Whether `signature` is the key's over `message`, which begins with what it is about.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }

    /// The key's 32 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The key in hex.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// The private half.
pub struct CheckpointSigner {
    key: Ed25519KeyPair,
    public: [u8; 32],
}

impl CheckpointSigner {
    /// A new key, as PKCS#8, to be sealed.
    ///
    /// # Errors
    /// When the random source fails.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, String> {
        let key = Ed25519KeyPair::generate()
            .and_then(|key| key.to_pkcs8().map(|der| der.as_ref().to_vec()))
            .map_err(|_| "an Ed25519 key could not be made".to_owned())?;
        Ok(Zeroizing::new(key))
    }

    /// The signer with this key.
    ///
    /// # Errors
    /// When it is no Ed25519 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, String> {
        let damaged = "the key of the audit checkpoints is damaged";
        let key = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| damaged.to_owned())?;
        let public =
            <[u8; 32]>::try_from(key.public_key().as_ref()).map_err(|_| damaged.to_owned())?;
        Ok(Self { key, public })
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> CheckpointVerifier {
        CheckpointVerifier(self.public)
    }

    /// Signs something else than a checkpoint; it begins with what it is about.
    pub(super) fn sign_bytes(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).as_ref().to_vec()
    }

    /// Signs a checkpoint.
    #[must_use]
    pub fn sign(&self, checkpoint: &Checkpoint) -> SignedCheckpoint {
        SignedCheckpoint {
            store: checkpoint.store,
            chain: checkpoint.head.chain,
            seq: checkpoint.head.seq,
            hash: hex::encode(checkpoint.head.hash),
            at: checkpoint.at.0,
            key: hex::encode(self.public),
            signature: hex::encode(self.key.sign(&checkpoint.message()).as_ref()),
        }
    }
}

impl std::fmt::Debug for CheckpointSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointSigner")
            .field("public", &self.verifier().to_hex())
            .finish_non_exhaustive()
    }
}

/// The file with the newest checkpoint of each chain.
#[derive(Debug, Clone)]
pub struct CheckpointFile(PathBuf);

impl CheckpointFile {
    /// The file in the audit directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self(dir.join("checkpoints.jsonl"))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a checkpoint in the place of the one of its chain and waits for the disk. The file is replaced as a whole.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn keep(&self, checkpoint: &SignedCheckpoint) -> Result<(), CheckpointError> {
        // Another process of the same data directory has checkpoints of its own in the file.
        let failed = |error: io::Error| CheckpointError::File(error.to_string());
        let turn = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.with_extension("lock"))
            .map_err(failed)?;
        turn.lock().map_err(failed)?;
        let mut all = self.load()?;
        all.retain(|one| one.chain != checkpoint.chain);
        all.push(checkpoint.clone());
        let mut text = Vec::new();
        for one in &all {
            let line = serde_json::to_vec(one)
                .map_err(|error| CheckpointError::Malformed(error.to_string()))?;
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        self.replace(&text)
            .map_err(|error| CheckpointError::File(error.to_string()))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let fresh = self.0.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text)?;
        file.sync_data()?;
        std::fs::rename(&fresh, &self.0)?;
        match self.0.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }

    /// The newest checkpoint of each chain, in the order in which they were made.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is no checkpoint.
    pub fn load(&self) -> Result<Vec<SignedCheckpoint>, CheckpointError> {
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CheckpointError::File(error.to_string())),
        };
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| CheckpointError::Malformed(error.to_string()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
