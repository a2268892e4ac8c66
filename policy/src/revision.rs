//! The effective revision of a grant: one opaque value that changes whenever what the grant can reach may have changed.
//!
//! Invariant: only ever compared for equality. It is a keyed hash, so it tells a peer nothing about policy, and its
//! input is length-prefixed, so two different inputs never read alike (specification, section 8).
//! Elsewhere on purpose: the store revision, a plain counter; where the key is kept.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::GrantId;

/// The key of the store under which revisions are made.
pub struct RevisionKey(hmac::Key);

impl RevisionKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl fmt::Debug for RevisionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RevisionKey(redacted)")
    }
}

/// 16 bytes; prints as base64url without padding, 22 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EffectiveRevision([u8; 16]);

/// The text is not an effective revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a revision: expected 22 characters of base64url")]
pub struct EffectiveRevisionError;

impl EffectiveRevision {
    /// The revision of a grant after `edit` acts that touched it, with `effective` the hash of all that decides what
    /// it reaches.
    #[must_use]
    pub fn of(key: &RevisionKey, grant: GrantId, edit: u64, effective: &[u8; 32]) -> Self {
        let mut input = LengthPrefixed::default();
        input.push(grant.as_bytes());
        input.push(&edit.to_be_bytes());
        input.push(effective);
        Self::tag(key, &input)
    }

    /// The revision of what users may see of their own gateway, with `effective` the hash of all that decides it. It
    /// never equals that of a grant: the input of those has one more field.
    #[must_use]
    pub fn local(key: &RevisionKey, effective: &[u8; 32]) -> Self {
        let mut input = LengthPrefixed::default();
        input.push(b"local");
        input.push(effective);
        Self::tag(key, &input)
    }

    fn tag(key: &RevisionKey, input: &LengthPrefixed) -> Self {
        let tag = hmac::sign(&key.0, input.bytes());
        let mut revision = [0; 16];
        if let Some(first) = tag.as_ref().first_chunk::<16>() {
            revision = *first;
        }
        Self(revision)
    }

    /// Reads the printed form.
    ///
    /// # Errors
    /// [`EffectiveRevisionError`] for anything but 22 characters of base64url.
    pub fn parse(text: &str) -> Result<Self, EffectiveRevisionError> {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Self(bytes)),
            _ => Err(EffectiveRevisionError),
        }
    }

    /// The revision with these bytes, as they were given by [`EffectiveRevision::as_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EffectiveRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for EffectiveRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EffectiveRevision({self})")
    }
}

/// Fields of bytes, each after its length as eight bytes, big endian: no two lists of fields encode alike.
#[derive(Default)]
pub(crate) struct LengthPrefixed(Vec<u8>);

impl LengthPrefixed {
    pub(crate) fn push(&mut self, field: &[u8]) {
        // A usize is at most 64 bits on every target, so the fallback is never taken.
        let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(field);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn each_input_counts(grant: [u8; 16], other: [u8; 16], edit: u64, hash: [u8; 32], key: [u8; 32]) {
            prop_assume!(grant != other);
            let (grant, other) = (Uuid::from_bytes(grant).into(), Uuid::from_bytes(other).into());
            let secret = RevisionKey::new(&key);
            let base = EffectiveRevision::of(&secret, grant, edit, &hash);
            prop_assert_eq!(base, EffectiveRevision::of(&secret, grant, edit, &hash));
            prop_assert_ne!(base, EffectiveRevision::of(&secret, other, edit, &hash));
            prop_assert_ne!(base, EffectiveRevision::of(&secret, grant, edit.wrapping_add(1), &hash));
            prop_assert_ne!(base, EffectiveRevision::of(&secret, grant, edit, &hash.map(|b| b ^ 1)));
            let rekeyed = RevisionKey::new(&key.map(|b| b ^ 1));
            prop_assert_ne!(base, EffectiveRevision::of(&rekeyed, grant, edit, &hash));
            prop_assert_eq!(EffectiveRevision::parse(&base.to_string()).unwrap(), base);
        }

        #[test]
        fn length_prefixes_keep_fields_apart(
            a in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
            b in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
        ) {
            let encode = |fields: &[Vec<u8>]| {
                let mut out = LengthPrefixed::default();
                fields.iter().for_each(|field| out.push(field));
                out.0
            };
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }
    }

    #[test]
    fn only_the_printed_form_parses() {
        let known = RevisionKey::new(&[7; 32]);
        let revision = EffectiveRevision::of(&known, Uuid::nil().into(), 0, &[0; 32]);
        assert_eq!(revision.to_string().len(), 22);
        for bad in [
            "",
            "AAAA",
            &format!("{revision}="),
            &format!("{revision}A"),
            "!!!!!!!!!!!!!!!!!!!!!!",
        ] {
            assert_eq!(
                EffectiveRevision::parse(bad),
                Err(EffectiveRevisionError),
                "{bad}"
            );
        }
        assert_eq!(format!("{known:?}"), "RevisionKey(redacted)");
    }
}
