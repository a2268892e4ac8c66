//! Sealing: what is secret at rest.
//!
//! Invariant: a sealed blob opens only with the secret, the purpose and the row it was sealed for;
//! moving a blob to another row or another kind of row makes it unreadable. AES-256-GCM with a
//! fresh random 96-bit nonce; one key per purpose, by HKDF-SHA256. Where blobs are kept is the
//! store's business.

pub mod cursor;
mod envelope;
pub mod secret;

use std::fmt;

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
}

impl SealPurpose {
    /// Every purpose.
    pub const ALL: [Self; 9] = [
        Self::CredentialKey,
        Self::CaKey,
        Self::ServerKey,
        Self::SubjectToken,
        Self::CursorKey,
        Self::RevisionKey,
        Self::AssertionKey,
        Self::AuditKey,
        Self::CheckpointKey,
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

/// Seals and unseals with one sealing secret.
pub struct Sealer {
    root: Prk,
    key_id: [u8; KEY_ID_LEN],
}

/// An output length for HKDF.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Sealer {
    /// Derives the sealer of `secret`.
    ///
    /// # Errors
    /// [`SealError::Sealing`] when the library refuses to derive.
    pub fn new(secret: &SealingSecret) -> Result<Self, SealError> {
        let root = Salt::new(HKDF_SHA256, SALT).extract(secret.as_bytes());
        let mut key_id = [0; KEY_ID_LEN];
        root.expand(&[KEY_ID_INFO], Length(KEY_ID_LEN))
            .and_then(|okm| okm.fill(&mut key_id))
            .map_err(|_| SealError::Sealing)?;
        Ok(Self { root, key_id })
    }

    /// A public name of the secret, to tell which one a value was sealed with. Gives nothing of it
    /// away.
    #[must_use]
    pub fn key_id(&self) -> [u8; KEY_ID_LEN] {
        self.key_id
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
        if envelope.key_id != self.key_id {
            return Err(SealError::WrongSecret);
        }
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

    fn key(&self, purpose: SealPurpose) -> Result<LessSafeKey, SealError> {
        let info = [purpose.as_str().as_bytes()];
        let okm = self
            .root
            .expand(&info, &AES_256_GCM)
            .map_err(|_| SealError::Sealing)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("key_id", &hex::encode(self.key_id))
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
