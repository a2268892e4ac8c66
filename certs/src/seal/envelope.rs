//! The bytes of a sealed value: `"MFS"`, version, key id, nonce, ciphertext with tag.
//!
//! Invariant: decoding takes exactly what encoding writes, of this version. No cryptography here.

use aws_lc_rs::aead::NONCE_LEN;

use super::SealError;

/// Octets of a key id.
pub(crate) const KEY_ID_LEN: usize = 8;
const MAGIC: [u8; 3] = *b"MFS";
const VERSION: u8 = 1;
const HEADER_LEN: usize = MAGIC.len() + 1 + KEY_ID_LEN;
/// Octets of the AES-GCM tag, the least a ciphertext can have.
const TAG_LEN: usize = 16;

/// A sealed value, taken apart.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    /// Magic, version and key id, as bound into the tag.
    pub(crate) header: &'a [u8],
    pub(crate) key_id: [u8; KEY_ID_LEN],
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) ciphertext: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn header(key_id: &[u8; KEY_ID_LEN]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        header.push(VERSION);
        header.extend_from_slice(key_id);
        header
    }

    pub(crate) fn encode(header: &[u8], nonce: &[u8; NONCE_LEN], ciphertext: &[u8]) -> Vec<u8> {
        [header, nonce, ciphertext].concat()
    }

    pub(crate) fn decode(sealed: &'a [u8]) -> Result<Self, SealError> {
        let rest = sealed.strip_prefix(&MAGIC).ok_or(SealError::Malformed)?;
        let (&version, rest) = rest.split_first().ok_or(SealError::Malformed)?;
        if version != VERSION {
            return Err(SealError::UnknownVersion { version });
        }
        let (key_id, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        if ciphertext.len() < TAG_LEN {
            return Err(SealError::Malformed);
        }
        let header = sealed.get(..HEADER_LEN).ok_or(SealError::Malformed)?;
        Ok(Self {
            header,
            key_id: *key_id,
            nonce: *nonce,
            ciphertext,
        })
    }
}
