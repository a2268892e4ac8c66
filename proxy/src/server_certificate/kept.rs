//! The last certificate that a step-ca has issued for our listeners, kept with its key: a start must not need that step-ca.
//!
//! Invariant: key and chain lie sealed in one file, which is exchanged whole. Whether what is found is still good is for the caller
//! to judge; what was sealed with another secret, or changed, does not open.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use certs::{Credential, PrivateKey, SealPurpose, Sealer};
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// Its name in the data directory.
pub const KEPT_CERTIFICATE: &str = "server-certificate.sealed";
/// The row that the file is sealed as.
const ROW: &str = "listeners";
/// Where the chain begins in the text, behind the key.
const CHAIN: &str = "-----BEGIN CERTIFICATE-----";

/// The file.
pub struct KeptCertificate {
    file: PathBuf,
    sealer: Arc<Sealer>,
    /// One exchange at a time.
    turn: Mutex<()>,
}

/// What was in it.
pub(super) struct Found {
    /// The private key.
    pub(super) key: PrivateKey,
    /// The chain, which ends with its root, PEM.
    pub(super) chain: String,
}

impl KeptCertificate {
    /// In this file, which need not be there.
    #[must_use]
    pub const fn new(file: PathBuf, sealer: Arc<Sealer>) -> Self {
        Self {
            file,
            sealer,
            turn: Mutex::new(()),
        }
    }

    /// Puts another one in place of what is there.
    ///
    /// # Errors
    /// Why not, in words for the operator.
    pub(super) fn keep(&self, key: &PrivateKey, credential: &Credential) -> Result<(), String> {
        let (key, chain) = (key.to_pem(), credential.chain_pem());
        // Room for all of it, so that the buffer never moves and leaves a copy behind.
        let room = key.len().saturating_add(chain.len());
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        text.extend_from_slice(key.as_bytes());
        text.extend_from_slice(chain.as_bytes());
        let _one = self.turn.lock();
        let sealed = self.sealer.seal(SealPurpose::ServerKey, ROW, &text);
        self.put(&sealed.map_err(|error| error.to_string())?)
    }

    /// Seals what is kept with the secret in force, where that is another. What opens with no secret is left as it is: no start can
    /// use it.
    ///
    /// # Errors
    /// Why not, in words for the operator.
    pub fn reseal(&self) -> Result<(), String> {
        let _one = self.turn.lock();
        let sealed = match std::fs::read(&self.file) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(format!("`{}` cannot be read: {error}", self.file.display()));
            }
        };
        match self.sealer.reseal(SealPurpose::ServerKey, ROW, &sealed) {
            Ok(sealed) => self.put(&sealed),
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "the kept server certificate does not open and stays as it is");
                Ok(())
            }
        }
    }

    fn put(&self, sealed: &[u8]) -> Result<(), String> {
        let part = self.file.with_extension("part");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| {
                file.write_all(sealed)?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&part, &self.file))
            // The name lasts once its directory is written.
            .and_then(|()| match self.file.parent() {
                Some(dir) => File::open(dir)?.sync_all(),
                None => Ok(()),
            });
        written.map_err(|error| format!("`{}` cannot be written: {error}", self.file.display()))
    }

    /// What is kept.
    ///
    /// # Errors
    /// Why nothing can be used, in words for the operator.
    pub(super) fn find(&self) -> Result<Found, String> {
        let shown = self.file.display();
        let sealed = match std::fs::read(&self.file) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err("none of an earlier start is kept".to_owned());
            }
            Err(error) => return Err(format!("`{shown}` cannot be read: {error}")),
        };
        let text = self
            .sealer
            .unseal(SealPurpose::ServerKey, ROW, &sealed)
            .map_err(|error| format!("`{shown}` does not open: {error}"))?;
        let broken = || format!("`{shown}` does not hold a key and its certificate");
        let text = std::str::from_utf8(&text).map_err(|_| broken())?;
        let (key, _) = text.split_once(CHAIN).ok_or_else(broken)?;
        let chain = text.get(key.len()..).ok_or_else(broken)?;
        Ok(Found {
            key: PrivateKey::from_pem(key.as_bytes()).map_err(|_| broken())?,
            chain: chain.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use certs::seal::{SealingSecret, sealed_with};

    use super::*;

    fn sealer(byte: u8) -> Sealer {
        let secret = SealingSecret::from_bytes(Zeroizing::new(vec![byte; 32])).unwrap();
        Sealer::new(secret).unwrap()
    }

    #[test]
    fn it_follows_a_change_of_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(KEPT_CERTIFICATE);
        let (sealer, next) = (Arc::new(sealer(1)), sealer(2));
        let kept = KeptCertificate::new(file.clone(), Arc::clone(&sealer));
        // There may be none.
        kept.reseal().unwrap();
        assert!(!file.exists());
        let sealed = sealer.seal(SealPurpose::ServerKey, ROW, b"key and chain");
        std::fs::write(&file, sealed.unwrap()).unwrap();
        sealer.take(&next).unwrap();
        kept.reseal().unwrap();
        sealer.forget_former();
        let sealed = std::fs::read(&file).unwrap();
        assert_eq!(sealed_with(&sealed).unwrap(), next.key_id());
        let opened = next.unseal(SealPurpose::ServerKey, ROW, &sealed);
        assert_eq!(opened.unwrap().as_slice(), b"key and chain");
        // What cannot be opened holds up no change.
        std::fs::write(&file, b"something else").unwrap();
        kept.reseal().unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"something else");
    }
}
