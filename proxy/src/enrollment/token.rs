//! Enrollment tokens: 32 random bytes as 64 lower-case hex digits.
//!
//! Invariant: the whole token is only ever in the URL that is printed once; stored is its SHA-256, shown are its
//! first eight characters. The memory it stood in is cleared on drop.

use std::fmt;

use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

/// Digits of a token.
const DIGITS: usize = 64;
/// Digits of a token that may be shown.
const SHOWN: usize = 8;

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no token could be drawn: the system's random source failed; try again")]
pub struct TokenDrawError;

/// A token in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollmentToken(Zeroizing<String>);

impl EnrollmentToken {
    /// Draws a token.
    ///
    /// # Errors
    /// [`TokenDrawError`].
    pub fn draw() -> Result<Self, TokenDrawError> {
        let mut bytes = Zeroizing::new([0_u8; DIGITS / 2]);
        rand::fill(&mut *bytes).map_err(|_| TokenDrawError)?;
        Ok(Self(Zeroizing::new(hex::encode(*bytes))))
    }

    /// Parses 64 lower-case hex digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == DIGITS && text.bytes().all(digit))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// SHA-256 of the token's text: all of it that is stored.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let hash = digest::digest(&digest::SHA256, self.0.as_bytes());
        // Both are 32 bytes by definition of SHA-256.
        for (to, from) in out.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        out
    }

    /// The first eight characters: all of it that may be logged or shown again.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.get(..SHOWN).unwrap_or_default()
    }

    /// The whole token, to be printed once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnrollmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrollmentToken({}..)", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn drawn_tokens_differ_and_parse() {
        let (one, other) = (
            EnrollmentToken::draw().unwrap(),
            EnrollmentToken::draw().unwrap(),
        );
        assert_ne!(one, other);
        assert_eq!(EnrollmentToken::parse(one.expose()), Some(one));
    }

    #[test]
    fn only_64_lower_case_digits_are_a_token() {
        for wrong in [
            "",
            "ab",
            &"AB".repeat(32),
            &"ab".repeat(33),
            &"g".repeat(64),
        ] {
            assert_eq!(EnrollmentToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_text_and_debug_shows_eight_characters() {
        let token = EnrollmentToken::parse(&"0".repeat(64)).unwrap();
        // printf '0%.0s' {1..64} | sha256sum
        assert_eq!(
            hex::encode(token.sha256()),
            "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55"
        );
        assert_eq!(format!("{token:?}"), "EnrollmentToken(00000000..)");
    }
}
