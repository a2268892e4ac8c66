//! The secrets of this store: made once, sealed, and read back at every start.
//!
//! Invariant: a secret exists in the store before it is used, so two processes that start together
//! use the same one; and a store whose secrets do not open is refused.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use certs::ca::{CaError, CaMaterial, CaRoots};
use certs::seal::CursorKey;
use certs::seal::PageSealer;
use certs::{EmbeddedCa, SealPurpose, Sealer};
use policy::revision::RevisionKey;
use zeroize::Zeroizing;

use crate::admin::{CA_SECRET, new_authority};
use crate::audit::chain::{CHAIN_KEY_LEN, ChainKey};
use crate::audit::checkpoint::CheckpointSigner;
use crate::config::SealSource;
use crate::gateway::assertion::AssertionSigner;
use crate::sealing_secret;
use crate::store::{Act, SealedSecret, SecretPurpose, Store, TrustPhase, TrustState};

use super::StartError;

/// Reads the sealing secret, making its file at the first start when none is configured.
///
/// # Errors
/// [`StartError::Seal`].
pub fn sealer(source: &SealSource) -> Result<Sealer, StartError> {
    let refused = |error: &dyn std::fmt::Display| StartError::Seal(error.to_string());
    if let SealSource::Generated(path) = source {
        generate(path).map_err(|error| refused(&error))?;
    }
    let secret = sealing_secret::read(source).map_err(StartError::Seal)?;
    Sealer::new(secret).map_err(|error| refused(&error))
}

fn generate(path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let mut random = Zeroizing::new([0_u8; 32]);
    SystemRandom::new()
        .fill(random.as_mut())
        .map_err(|_| "the system's random source failed".to_owned())?;
    let text = Zeroizing::new(hex::encode(&random[..]));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    match written {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made a sealing secret: keep a copy apart from the database, without it no key can be read");
            Ok(())
        }
        // Another process was first: its secret is as good.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(format!("`{}` cannot be written: {error}", path.display())),
    }
}

/// Loads and makes the sealed secrets of one store.
pub struct Secrets<'a> {
    /// Where they are kept.
    pub store: &'a dyn Store,
    /// What they are sealed with.
    pub sealer: &'a Sealer,
    /// On whose behalf they are made.
    pub act: &'a (dyn Fn() -> Act + Sync),
}

/// The keys of the audit log.
pub struct AuditKeys {
    /// Of the chains.
    pub chain: Arc<ChainKey>,
    /// Of the checkpoints.
    pub signer: CheckpointSigner,
    /// Sealed, those that are not in the store yet.
    pub new: Vec<SealedSecret>,
}

impl Secrets<'_> {
    /// The secret of a purpose; `make` gives it its first value.
    async fn load(
        &self,
        purposes: (SecretPurpose, SealPurpose),
        id: &str,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, String>,
    ) -> Result<Zeroizing<Vec<u8>>, StartError> {
        self.load_generation(purposes, (id, 1), make).await
    }

    /// The same, of a generation.
    async fn load_generation(
        &self,
        (stored, sealed_as): (SecretPurpose, SealPurpose),
        (id, generation): (&str, u32),
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, String>,
    ) -> Result<Zeroizing<Vec<u8>>, StartError> {
        let known = self.store.load_secrets(stored).await?;
        let wanted = |secret: &SealedSecret| secret.id == id && secret.generation == generation;
        let secret = match known.into_iter().find(wanted) {
            Some(secret) => secret,
            None => {
                let plain = make().map_err(StartError::Seal)?;
                let sealed = self
                    .sealer
                    .seal(sealed_as, id, &plain)
                    .map_err(|error| StartError::Seal(error.to_string()))?;
                let secret = SealedSecret {
                    purpose: stored,
                    id: id.to_owned(),
                    generation,
                    sealed,
                };
                self.store
                    .put_secret_if_absent(&(self.act)(), secret)
                    .await?
                    .value
            }
        };
        self.open(sealed_as, id, &secret)
    }

    /// The key of effective revisions.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn revision_key(&self) -> Result<RevisionKey, StartError> {
        let purposes = (SecretPurpose::RevisionKey, SealPurpose::RevisionKey);
        let bytes = self.load(purposes, "revision", random_32).await?;
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
            StartError::Seal("the revision key of this store is damaged".to_owned())
        })?;
        Ok(RevisionKey::new(&key))
    }

    /// What seals cursors.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn cursors(&self) -> Result<PageSealer, StartError> {
        let damaged = |error: &dyn std::fmt::Display| StartError::Seal(error.to_string());
        let purposes = (SecretPurpose::CursorKey, SealPurpose::CursorKey);
        let bytes = self.load(purposes, "cursor", random_32).await?;
        let key = CursorKey::from_bytes(1, &bytes).map_err(|error| damaged(&error))?;
        PageSealer::new(&key, None).map_err(|error| damaged(&error))
    }

    /// The roots of the embedded authority, the first one created at the first start; the next one where a rotation has made it.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn authority(&self, now: i64) -> Result<AuthorityRoots, StartError> {
        let state = self.store.trust().await?;
        let make = || new_authority(now).map_err(|error| error.to_string());
        let in_force = self.root(state.ca_generation, make).await?;
        let next = match state.phase {
            TrustPhase::Steady => None,
            TrustPhase::Planned | TrustPhase::Applied => {
                let missing = || Err("the next root of this store is missing".to_owned());
                Some(self.root(state.next_ca_generation(), missing).await?)
            }
        };
        Ok(AuthorityRoots {
            state,
            in_force,
            next,
        })
    }

    async fn root(
        &self,
        generation: u32,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, String>,
    ) -> Result<Arc<EmbeddedCa>, StartError> {
        let purposes = (SecretPurpose::CaKey, SealPurpose::CaKey);
        let bytes = self
            .load_generation(purposes, (CA_SECRET, generation), make)
            .await?;
        let damaged = |error: CaError| {
            StartError::Seal(format!(
                "the embedded authority of this store is damaged: {error}"
            ))
        };
        let CaMaterial { root, key } = CaMaterial::decode(&bytes).map_err(damaged)?;
        EmbeddedCa::load(root, &key).map(Arc::new).map_err(damaged)
    }

    /// The key of the chains of audit rows and the key of their checkpoints, and what of it the store does not have yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn audit_keys(&self) -> Result<AuditKeys, StartError> {
        let mut new = Vec::new();
        let chain = (SecretPurpose::AuditKey, SealPurpose::AuditKey);
        let chain = self
            .known_or_new(chain, "chain", random_32, &mut new)
            .await?;
        let chain: [u8; CHAIN_KEY_LEN] = chain.as_slice().try_into().map_err(|_| {
            StartError::Seal("the key of the audit log of this store is damaged".to_owned())
        })?;
        let signing = (SecretPurpose::CheckpointKey, SealPurpose::CheckpointKey);
        let signing = self
            .known_or_new(signing, "checkpoint", CheckpointSigner::generate, &mut new)
            .await?;
        Ok(AuditKeys {
            chain: Arc::new(ChainKey::new(&chain)),
            signer: CheckpointSigner::from_pkcs8(&signing).map_err(StartError::Seal)?,
            new,
        })
    }

    /// The secret of a purpose; a new one is added to `new`, for the caller to store.
    async fn known_or_new(
        &self,
        (stored, sealed_as): (SecretPurpose, SealPurpose),
        id: &str,
        make: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, String>,
        new: &mut Vec<SealedSecret>,
    ) -> Result<Zeroizing<Vec<u8>>, StartError> {
        let known = self.store.load_secrets(stored).await?;
        if let Some(secret) = known.into_iter().find(|secret| secret.id == id) {
            return self.open(sealed_as, id, &secret);
        }
        let plain = make().map_err(StartError::Seal)?;
        let sealed = self
            .sealer
            .seal(sealed_as, id, &plain)
            .map_err(|error| StartError::Seal(error.to_string()))?;
        new.push(SealedSecret {
            purpose: stored,
            id: id.to_owned(),
            generation: 1,
            sealed,
        });
        Ok(plain)
    }

    fn open(
        &self,
        sealed_as: SealPurpose,
        id: &str,
        secret: &SealedSecret,
    ) -> Result<Zeroizing<Vec<u8>>, StartError> {
        self.sealer
            .unseal(sealed_as, id, &secret.sealed)
            .map_err(|error| {
                StartError::Seal(format!(
                    "the secret `{id}` of this store does not open: {error}"
                ))
            })
    }

    /// The key that signs assertions to the gateway.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn assertion_key(&self) -> Result<Zeroizing<Vec<u8>>, StartError> {
        let purposes = (SecretPurpose::AssertionKey, SealPurpose::AssertionKey);
        self.load(purposes, "assertion", AssertionSigner::generate)
            .await
    }
}

/// The roots of the embedded authority, and how far a rotation of them has got.
pub struct AuthorityRoots {
    /// How far.
    pub state: TrustState,
    /// The root in force.
    pub in_force: Arc<EmbeddedCa>,
    /// The one that is to follow.
    pub next: Option<Arc<EmbeddedCa>>,
}

impl AuthorityRoots {
    /// What signs what.
    #[must_use]
    pub fn signing(&self) -> CaRoots {
        match (self.state.phase, &self.next) {
            (TrustPhase::Applied, Some(next)) => {
                CaRoots::both(Arc::clone(&self.in_force), Arc::clone(next))
            }
            _ => CaRoots::one(Arc::clone(&self.in_force)),
        }
    }
}

fn random_32() -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(vec![0; 32]);
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the system's random source failed".to_owned())?;
    Ok(bytes)
}
