//! Sealing page cursors: short tokens that a peer holds and cannot read or change.
//!
//! Invariant: a cursor opens only under one of the two key generations in force and with the same
//! associated data. Unlike a sealed row it goes over the wire, so it is compact and says nothing
//! about why it does not open. What is in it, and what it is bound to, is the caller's.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::random_nonce;

/// The longest cursor, in characters, unless a sealer is made for longer ones.
pub const CURSOR_MAX_CHARS: usize = 1024;
/// Octets of a cursor key.
pub const CURSOR_KEY_LEN: usize = 32;

/// Why a cursor could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The content is too long for the longest cursor of the sealer.
    #[error("the content is too long for a cursor")]
    TooLong,
    /// The random source or the cipher failed.
    #[error("the cursor could not be sealed; the system's random source may be unavailable")]
    Sealing,
    /// It is not a cursor of ours, for this use, under a key in force.
    #[error("the cursor is not valid here; start again without one")]
    Invalid,
}

/// One generation of the cursor key. Zeroised on drop.
pub struct CursorKey {
    generation: u32,
    bytes: Zeroizing<[u8; CURSOR_KEY_LEN]>,
}

impl CursorKey {
    /// Makes a new random key.
    ///
    /// # Errors
    /// [`CursorError::Sealing`] when the random source fails.
    pub fn generate(generation: u32) -> Result<Self, CursorError> {
        let mut bytes = Zeroizing::new([0; CURSOR_KEY_LEN]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| CursorError::Sealing)?;
        Ok(Self { generation, bytes })
    }

    /// Takes a key from the store.
    ///
    /// # Errors
    /// [`CursorError::Invalid`] when it does not have [`CURSOR_KEY_LEN`] bytes.
    pub fn from_bytes(generation: u32, bytes: &[u8]) -> Result<Self, CursorError> {
        let bytes = bytes.try_into().map_err(|_| CursorError::Invalid)?;
        Ok(Self {
            generation,
            bytes: Zeroizing::new(bytes),
        })
    }

    /// The key's bytes, to be sealed and stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// The key's generation number.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CursorKey")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Generation {
    number: u32,
    key: LessSafeKey,
}

impl Generation {
    fn new(key: &CursorKey) -> Result<Self, CursorError> {
        let unbound =
            UnboundKey::new(&AES_256_GCM, key.as_bytes()).map_err(|_| CursorError::Sealing)?;
        Ok(Self {
            number: key.generation,
            key: LessSafeKey::new(unbound),
        })
    }
}

/// Seals with the current key; opens with the current and the previous one. Clones share the keys.
#[derive(Debug, Clone)]
pub struct PageSealer {
    current: Arc<Generation>,
    previous: Option<Arc<Generation>>,
    max_chars: usize,
}

impl PageSealer {
    /// A sealer with these two generations.
    ///
    /// # Errors
    /// [`CursorError::Sealing`] when the library refuses a key.
    pub fn new(current: &CursorKey, previous: Option<&CursorKey>) -> Result<Self, CursorError> {
        Ok(Self {
            current: Arc::new(Generation::new(current)?),
            previous: previous
                .map(|key| Generation::new(key).map(Arc::new))
                .transpose()?,
            max_chars: CURSOR_MAX_CHARS,
        })
    }

    /// The same for cursors of at most `max_chars` characters.
    #[must_use]
    pub fn for_longest(self, max_chars: usize) -> Self {
        Self { max_chars, ..self }
    }

    /// Seals `content`, bound to `bound_to`, as base64url without padding.
    ///
    /// # Errors
    /// [`CursorError::TooLong`] or [`CursorError::Sealing`].
    pub fn seal(&self, content: &[u8], bound_to: &[u8]) -> Result<String, CursorError> {
        let generation = self.current.number.to_be_bytes();
        let nonce = random_nonce().map_err(|_| CursorError::Sealing)?;
        let mut text = content.to_vec();
        self.current
            .key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(associated_data(&generation, bound_to)),
                &mut text,
            )
            .map_err(|_| CursorError::Sealing)?;
        let cursor = URL_SAFE_NO_PAD.encode([&generation[..], &nonce[..], &text].concat());
        if cursor.len() > self.max_chars {
            return Err(CursorError::TooLong);
        }
        Ok(cursor)
    }

    /// Opens a cursor that was sealed with the same `bound_to`.
    ///
    /// # Errors
    /// [`CursorError::Invalid`], for whatever reason.
    pub fn open(&self, cursor: &str, bound_to: &[u8]) -> Result<Vec<u8>, CursorError> {
        if cursor.len() > self.max_chars {
            return Err(CursorError::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| CursorError::Invalid)?;
        let (number, rest) = bytes.split_first_chunk().ok_or(CursorError::Invalid)?;
        let (nonce, ciphertext) = rest.split_first_chunk().ok_or(CursorError::Invalid)?;
        let generation = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|generation| generation.number.to_be_bytes() == *number)
            .ok_or(CursorError::Invalid)?;
        let mut text = ciphertext.to_vec();
        let opened = generation
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(associated_data(number, bound_to)),
                &mut text,
            )
            .map_err(|_| CursorError::Invalid)?
            .len();
        text.truncate(opened);
        Ok(text)
    }
}

/// The generation has a fixed length, so the two parts cannot be confused.
fn associated_data(generation: &[u8; 4], bound_to: &[u8]) -> Vec<u8> {
    [&generation[..], bound_to].concat()
}
