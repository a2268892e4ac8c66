//! Sealing: what is secret at rest.
//!
//! Invariant: a sealed blob opens only with the secret, the purpose and the row it was sealed for;
//! moving a blob to another row or another kind of row makes it unreadable. AES-256-GCM with a
//! fresh random 96-bit nonce; one key per purpose, by HKDF-SHA256. While the secret is being
//! changed, two open and only the new one seals. Where blobs are kept is the store's business.

pub mod cursor;
mod envelope;
pub mod secret;
pub mod upstream;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

pub use cursor::{CursorError, CursorKey, PageSealer};
pub use secret::{SealingSecret, SecretError};

use envelope::{Envelope, KEY_ID_LEN};

const SALT: &[u8] = b"mosaic-federation seal v1";
const KEY_ID_INFO: &[u8] = b"key id";

/// What a sealed value is for. Each has a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealPurpose {
    /// The private key of a credential towards a peer.
    CredentialKey,
    /// The private key of the embedded CA.
    CaKey,
    /// The private key of a listener's certificate.
    ServerKey,
    /// A user's token at the local gateway.
    SubjectToken,
    /// A key that seals page cursors.
    CursorKey,
    /// The key under effective revisions.
    RevisionKey,
    /// The key that signs assertions to the gateway.
    AssertionKey,
    /// The key of the chains of audit rows.
    AuditKey,
    /// The key that signs audit checkpoints.
    CheckpointKey,
    /// The sealing secret before this one, while rows are still sealed with it.
    FormerSecret,
    /// How far the revision of the store had got, kept outside of it.
    HighWater,
}

impl SealPurpose {
    /// Every purpose.
    pub const ALL: [Self; 11] = [
        Self::CredentialKey,
        Self::CaKey,
        Self::ServerKey,
        Self::SubjectToken,
        Self::CursorKey,
        Self::RevisionKey,
        Self::AssertionKey,
        Self::AuditKey,
        Self::CheckpointKey,
        Self::FormerSecret,
        Self::HighWater,
    ];

    /// The purpose's name, as the store and messages spell it. Part of the key derivation: it can
    /// never change.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CredentialKey => "credential-key",
            Self::CaKey => "ca-key",
            Self::ServerKey => "server-key",
            Self::SubjectToken => "subject-token",
            Self::CursorKey => "cursor-key",
            Self::RevisionKey => "revision-key",
            Self::AssertionKey => "assertion-key",
            Self::AuditKey => "audit-key",
            Self::CheckpointKey => "checkpoint-key",
            Self::FormerSecret => "former-secret",
            Self::HighWater => "high-water",
        }
    }
}

impl fmt::Display for SealPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a value could not be sealed or unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The random source or the cipher failed.
    #[error("the value could not be sealed; the system's random source may be unavailable")]
    Sealing,
    /// The bytes are not a sealed value.
    #[error("the stored value is not a sealed one; the store is damaged or was edited")]
    Malformed,
    /// The value was sealed by a later version of this program.
    #[error(
        "the stored value was sealed in format {version}, which this version does not know; upgrade"
    )]
    UnknownVersion {
        /// The format's version number.
        version: u8,
    },
    /// The value was sealed with another secret.
    #[error(
        "the stored value was sealed with another sealing secret; give the secret it was sealed with"
    )]
    WrongSecret,
    /// The secret is the right one, yet the value does not open.
    #[error(
        "the stored value was changed, or moved here from another row; restore it from a backup"
    )]
    Tampered,
}

/// Why a sealer does not take another secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It seals with that one already.
    #[error("the new sealing secret is the present one; make another, with: openssl rand -hex 32")]
    Same,
    /// An earlier change has not ended.
    #[error("the sealing secret is being changed already; finish that first")]
    UnderWay,
}

/// Octets of the public name of a secret.
pub const KEY_ID_OCTETS: usize = KEY_ID_LEN;

/// The public name of a secret: derived from it, gives nothing of it away.
pub type KeyId = [u8; KEY_ID_LEN];

/// The name of the secret that a value was sealed with.
///
/// # Errors
/// [`SealError::Malformed`] or [`SealError::UnknownVersion`].
pub fn sealed_with(sealed: &[u8]) -> Result<KeyId, SealError> {
    Envelope::decode(sealed).map(|envelope| envelope.key_id)
}

/// Seals with the present sealing secret, and unseals with it and, while that is being changed, with the one before.
pub struct Sealer {
    secrets: ArcSwap<Secrets>,
}

struct Secrets {
    present: Arc<Root>,
    former: Option<Arc<Root>>,
}

/// What is derived from one secret, and it, to be sealed under the next.
struct Root {
    prk: Prk,
    key_id: KeyId,
    secret: SealingSecret,
}

/// An output length for HKDF.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Root {
    fn new(secret: SealingSecret) -> Result<Self, SealError> {
        let prk = Salt::new(HKDF_SHA256, SALT).extract(secret.as_bytes());
        let mut key_id = [0; KEY_ID_LEN];
        prk.expand(&[KEY_ID_INFO], Length(KEY_ID_LEN))
            .and_then(|okm| okm.fill(&mut key_id))
            .map_err(|_| SealError::Sealing)?;
        Ok(Self {
            prk,
            key_id,
            secret,
        })
    }

    fn key(&self, purpose: SealPurpose) -> Result<LessSafeKey, SealError> {
        let info = [purpose.as_str().as_bytes()];
        let okm = self
            .prk
            .expand(&info, &AES_256_GCM)
            .map_err(|_| SealError::Sealing)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }

    fn seal(
        &self,
        purpose: SealPurpose,
        row_id: &str,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let nonce = random_nonce()?;
        let header = Envelope::header(&self.key_id);
        let aad = associated_data(&header, purpose, row_id);
        // Sealed in place, so that the plaintext is never left behind in the buffer.
        let mut text = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
        text.extend_from_slice(plaintext);
        self.key(purpose)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut *text,
            )
            .map_err(|_| SealError::Sealing)?;
        Ok(Envelope::encode(&header, &nonce, &text))
    }

    fn unseal(
        &self,
        purpose: SealPurpose,
        row_id: &str,
        envelope: &Envelope<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let aad = associated_data(envelope.header, purpose, row_id);
        let nonce = Nonce::assume_unique_for_key(envelope.nonce);
        let mut text = Zeroizing::new(envelope.ciphertext.to_vec());
        let opened = self
            .key(purpose)?
            .open_in_place(nonce, Aad::from(aad), &mut text)
            .map_err(|_| SealError::Tampered)?
            .len();
        text.truncate(opened);
        Ok(text)
    }
}

impl Sealer {
    /// Derives the sealer of `secret`.
    ///
    /// # Errors
    /// [`SealError::Sealing`] when the library refuses to derive.
    pub fn new(secret: SealingSecret) -> Result<Self, SealError> {
        let secrets = Secrets {
            present: Arc::new(Root::new(secret)?),
            former: None,
        };
        Ok(Self {
            secrets: ArcSwap::from_pointee(secrets),
        })
    }

    /// A public name of the secret that it seals with, to tell which one a value was sealed with.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.secrets.load().present.key_id
    }

    /// The name of the secret before, while values sealed with it open too.
    #[must_use]
    pub fn former_key_id(&self) -> Option<KeyId> {
        let secrets = self.secrets.load();
        secrets.former.as_ref().map(|former| former.key_id)
    }

    /// Seals `plaintext` for one row. The row's id is bound, not stored.
    ///
    /// # Errors
    /// [`SealError::Sealing`].
    pub fn seal(
        &self,
        purpose: SealPurpose,
        row_id: &str,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        self.secrets.load().present.seal(purpose, row_id, plaintext)
    }

    /// Opens what [`Sealer::seal`] made for the same purpose and row.
    ///
    /// # Errors
    /// [`SealError`]; `WrongSecret` and `Tampered` are told apart by the key id in the envelope.
    pub fn unseal(
        &self,
        purpose: SealPurpose,
        row_id: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let envelope = Envelope::decode(sealed)?;
        let secrets = self.secrets.load();
        let root = std::iter::once(&secrets.present)
            .chain(&secrets.former)
            .find(|root| root.key_id == envelope.key_id)
            .ok_or(SealError::WrongSecret)?;
        root.unseal(purpose, row_id, &envelope)
    }

    /// Opens a value and seals it again, with the present secret, for the same purpose and row.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn reseal(
        &self,
        purpose: SealPurpose,
        row_id: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let text = self.unseal(purpose, row_id, sealed)?;
        self.seal(purpose, row_id, &text)
    }

    /// The present secret, sealed under `next`, which is to take its place.
    ///
    /// # Errors
    /// [`SealError::Sealing`].
    pub fn hand_over(&self, next: &Self) -> Result<Vec<u8>, SealError> {
        let present = Arc::clone(&self.secrets.load().present);
        let row = hex::encode(present.key_id);
        next.seal(SealPurpose::FormerSecret, &row, present.secret.as_bytes())
    }

    /// Takes `next` for sealing from now on; the present secret still opens.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing changes then.
    pub fn take(&self, next: &Self) -> Result<(), ChangeError> {
        let next = Arc::clone(&next.secrets.load().present);
        let secrets = self.secrets.load();
        if next.key_id == secrets.present.key_id {
            return Err(ChangeError::Same);
        }
        if secrets.former.is_some() {
            return Err(ChangeError::UnderWay);
        }
        let changed = Arc::new(Secrets {
            present: next,
            former: Some(Arc::clone(&secrets.present)),
        });
        let before = self.secrets.compare_and_swap(&*secrets, changed);
        if Arc::ptr_eq(&before, &secrets) {
            Ok(())
        } else {
            Err(ChangeError::UnderWay)
        }
    }

    /// Opens the secret before this one, which [`hand_over`](Self::hand_over) has sealed, and lets it open values too.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn remember(&self, former: &KeyId, handed_over: &[u8]) -> Result<(), SealError> {
        let row = hex::encode(former);
        let secret = self.unseal(SealPurpose::FormerSecret, &row, handed_over)?;
        let secret = SealingSecret::from_bytes(secret).map_err(|_| SealError::Malformed)?;
        let root = Arc::new(Root::new(secret)?);
        if root.key_id != *former {
            return Err(SealError::Tampered);
        }
        let present = Arc::clone(&self.secrets.load().present);
        self.secrets.store(Arc::new(Secrets {
            present,
            former: Some(root),
        }));
        Ok(())
    }

    /// From now on only the present secret opens.
    pub fn forget_former(&self) {
        let present = Arc::clone(&self.secrets.load().present);
        self.secrets.store(Arc::new(Secrets {
            present,
            former: None,
        }));
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let former = self.former_key_id().map(hex::encode);
        f.debug_struct("Sealer")
            .field("key_id", &hex::encode(self.key_id()))
            .field("former", &former)
            .finish_non_exhaustive()
    }
}

/// Header, purpose and row id. The header has a fixed length and a purpose holds no NUL, so two
/// different triples never give the same bytes.
fn associated_data(header: &[u8], purpose: SealPurpose, row_id: &str) -> Vec<u8> {
    [header, purpose.as_str().as_bytes(), &[0], row_id.as_bytes()].concat()
}

pub(crate) fn random_nonce() -> Result<[u8; NONCE_LEN], SealError> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| SealError::Sealing)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests;
