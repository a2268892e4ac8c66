//! Opening a key encrypted with a password: JWE with PBES2, as `step` writes provisioner keys.
//!
//! Invariant: the cost of a guess is bounded by what the header may ask for, and nothing is read from a text whose
//! authentication tag does not match. Sources: RFC 7516 (JWE), RFC 7518, sections 4.4 and 4.8 (AES key wrap, PBES2), RFC 3394.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::key_error::{ProvisionerKeyError, malformed};

/// Rounds of PBKDF2 that a header may ask for; `step` writes 100,000 to 600,000.
const ROUNDS: std::ops::RangeInclusive<u32> = 1_000..=10_000_000;
/// Octets of a GCM tag.
const TAG: usize = 16;

/// The parts of a JWE with one recipient.
#[derive(Deserialize)]
pub(super) struct Encrypted<'a> {
    #[serde(borrow)]
    protected: &'a str,
    #[serde(borrow)]
    encrypted_key: &'a str,
    #[serde(borrow)]
    iv: &'a str,
    #[serde(borrow)]
    ciphertext: &'a str,
    #[serde(borrow)]
    tag: &'a str,
    /// What a JSON form may say outside the protected header.
    #[serde(default)]
    header: Header,
}

/// The header of a password-encrypted JWE, or a part of it.
#[derive(Clone, Default, Deserialize)]
struct Header {
    alg: Option<String>,
    enc: Option<String>,
    p2s: Option<String>,
    p2c: Option<u32>,
    zip: Option<String>,
    crit: Option<Vec<String>>,
}

impl Header {
    /// Both parts as one (RFC 7516, section 7.2.1).
    fn with(self, other: &Self) -> Self {
        let Self {
            alg,
            enc,
            p2s,
            p2c,
            zip,
            crit,
        } = other.clone();
        Self {
            alg: self.alg.or(alg),
            enc: self.enc.or(enc),
            p2s: self.p2s.or(p2s),
            p2c: self.p2c.or(p2c),
            zip: self.zip.or(zip),
            crit: self.crit.or(crit),
        }
    }
}

impl<'a> Encrypted<'a> {
    /// The parts of `text` when it is a JWE, `None` when it is something else.
    pub(super) fn recognise(text: &'a str) -> Result<Option<Self>, ProvisionerKeyError> {
        if !text.starts_with('{') {
            let mut parts = text.split('.');
            let mut part = || parts.next().ok_or_else(|| malformed("it is not JSON"));
            let found = Self {
                protected: part()?,
                encrypted_key: part()?,
                iv: part()?,
                ciphertext: part()?,
                tag: part()?,
                header: Header::default(),
            };
            return match parts.next() {
                None => Ok(Some(found)),
                Some(_) => Err(malformed("it has more than the five parts of a JWE")),
            };
        }
        /// What tells an encrypted key from a plain one.
        #[derive(Deserialize)]
        struct Marks {
            #[serde(default)]
            ciphertext: Option<serde::de::IgnoredAny>,
        }
        let json = |error: serde_json::Error| {
            malformed(&format!("line {}, column {}", error.line(), error.column()))
        };
        let marks: Marks = serde_json::from_str(text).map_err(json)?;
        match marks.ciphertext {
            None => Ok(None),
            Some(_) => serde_json::from_str(text).map(Some).map_err(json),
        }
    }

    /// Decrypts with `password`.
    ///
    /// # Errors
    /// [`ProvisionerKeyError::WrongPassword`], [`ProvisionerKeyError::UnsupportedEncryption`] or
    /// [`ProvisionerKeyError::Malformed`].
    pub(super) fn open(&self, password: &[u8]) -> Result<Zeroizing<Vec<u8>>, ProvisionerKeyError> {
        let header: Header = serde_json::from_slice(&decode("protected", self.protected)?)
            .map_err(|_| malformed("its header is not that of a password-encrypted key"))?;
        let header = header.with(&self.header);
        let unsupported = |what: &str| ProvisionerKeyError::UnsupportedEncryption {
            what: what.chars().take(64).collect(),
        };
        if header.zip.is_some() {
            return Err(unsupported("compression (`zip`)"));
        }
        if header.crit.is_some() {
            return Err(unsupported("a critical extension (`crit`)"));
        }
        let alg = header.alg.as_deref().unwrap_or_default();
        let (hash, cipher, wrapping) = match alg {
            "PBES2-HS256+A128KW" => (pbkdf2::PBKDF2_HMAC_SHA256, &AES_128, 16),
            "PBES2-HS512+A256KW" => (pbkdf2::PBKDF2_HMAC_SHA512, &AES_256, 32),
            other => return Err(unsupported(other)),
        };
        let (content, size): (&'static Algorithm, usize) =
            match header.enc.as_deref().unwrap_or_default() {
                "A128GCM" => (&AES_128_GCM, 16),
                "A256GCM" => (&AES_256_GCM, 32),
                other => return Err(unsupported(other)),
            };
        let rounds = header.p2c.filter(|rounds| ROUNDS.contains(rounds));
        let rounds = rounds
            .and_then(NonZeroU32::new)
            .ok_or_else(|| unsupported("a number of rounds (`p2c`) outside 1,000 to 10,000,000"))?;
        // RFC 7518, section 4.8.1.1: the algorithm's name, a zero, the salt.
        let mut salt = alg.as_bytes().to_vec();
        salt.push(0);
        let own = header
            .p2s
            .as_deref()
            .ok_or_else(|| malformed("it has no salt"))?;
        salt.extend_from_slice(&decode("p2s", own)?);
        let mut derived = Zeroizing::new(vec![0; wrapping]);
        pbkdf2::derive(hash, rounds, &salt, password, &mut derived);
        let wrong = |_| ProvisionerKeyError::WrongPassword;
        let kek = AesKek::new(cipher, &derived).map_err(wrong)?;
        let wrapped = decode("encrypted_key", self.encrypted_key)?;
        let mut key = Zeroizing::new(vec![0; wrapped.len()]);
        let unwrapped = kek.unwrap(&wrapped, &mut key).map_err(wrong)?;
        if unwrapped.len() != size {
            return Err(ProvisionerKeyError::WrongPassword);
        }
        let key = LessSafeKey::new(UnboundKey::new(content, unwrapped).map_err(wrong)?);
        let iv = decode("iv", self.iv)?;
        let nonce = Nonce::try_assume_unique_for_key(&iv)
            .map_err(|_| malformed("its `iv` is not twelve octets"))?;
        let tag = decode("tag", self.tag)?;
        if tag.len() != TAG {
            return Err(malformed("its `tag` is not sixteen octets"));
        }
        let mut text = Zeroizing::new(decode("ciphertext", self.ciphertext)?);
        text.extend_from_slice(&tag);
        let length = key
            .open_in_place(nonce, Aad::from(self.protected.as_bytes()), &mut text)
            .map_err(wrong)?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

fn decode(name: &str, text: &str) -> Result<Vec<u8>, ProvisionerKeyError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| malformed(&format!("its `{name}` is not base64url")))
}
