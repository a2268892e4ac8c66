//! Opening client keys as an upstream gateway has sealed them, to take them over.
//!
//! Invariant: reading only; nothing here is ever sealed this way. AES-256-GCM with the SHA-256 of `BETTER_AUTH_SECRET` as key, stored as
//! base64 of initialisation vector (12 octets), tag (16) and ciphertext, without associated data: so a blob opens in whatever row it lies,
//! and whoever takes it over has to check what it is.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Octets of the tag.
const TAG_LEN: usize = 16;

/// Why a sealed key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamSealError {
    /// The text is not base64.
    #[error("the sealed key is not base64")]
    NotBase64,
    /// There are fewer bytes than every sealed value has.
    #[error("the sealed key is too short to be one")]
    TooShort,
    /// Another secret, or other bytes.
    #[error("the sealed key does not open with this secret")]
    DoesNotOpen,
}

/// Opens a sealed value with the text of the secret.
///
/// # Errors
/// [`UpstreamSealError`].
pub fn open(secret: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, UpstreamSealError> {
    let sealed = STANDARD
        .decode(sealed.trim())
        .map_err(|_| UpstreamSealError::NotBase64)?;
    let short = UpstreamSealError::TooShort;
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(short)?;
    let (tag, ciphertext) = rest.split_first_chunk::<TAG_LEN>().ok_or(short)?;
    let refused = UpstreamSealError::DoesNotOpen;
    let hash = digest::digest(&digest::SHA256, secret);
    let key = UnboundKey::new(&AES_256_GCM, hash.as_ref()).map_err(|_| refused)?;
    let mut text = Zeroizing::new([ciphertext, tag].concat());
    let opened = LessSafeKey::new(key)
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::empty(),
            &mut text,
        )
        .map_err(|_| refused)?
        .len();
    text.truncate(opened);
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Made with another implementation of AES-GCM: secret `a better auth secret`, vector 00 01 .. 0b.
    const KNOWN: &str = "AAECAwQFBgcICQoLajUH9uv1ZYmiaLTusuytRyoNv1trM/Z11ZeE2YxGnQ==";

    #[test]
    fn what_another_implementation_sealed_opens() {
        let opened = open(b"a better auth secret", KNOWN).unwrap();
        assert_eq!(opened.as_slice(), b"known plaintext");
    }

    #[test]
    fn what_does_not_open_says_why() {
        let refused = |secret: &[u8], text: &str| open(secret, text).unwrap_err();
        let good = b"a better auth secret";
        assert_eq!(refused(b"another", KNOWN), UpstreamSealError::DoesNotOpen);
        assert_eq!(refused(good, "?"), UpstreamSealError::NotBase64);
        assert_eq!(refused(good, "AAAA"), UpstreamSealError::TooShort);
        let mut bytes = STANDARD.decode(KNOWN).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            let text = STANDARD.encode(&bytes);
            assert_eq!(refused(good, &text), UpstreamSealError::DoesNotOpen, "{at}");
            bytes[at] ^= 1;
        }
    }
}
