//! The two private certificate extensions, as strict DER.
//!
//! Invariant: a value decodes if and only if it is byte for byte what [`encode`] writes for the
//! decoded UUID. Which certificate extensions are looked at, and how often each occurs, is decided
//! in `identity.rs`.

use uuid::Uuid;

/// Tag of `UTF8String` (X.690, 8.23).
const TAG_UTF8_STRING: u8 = 0x0c;
/// Length of a UUID in its canonical text form (RFC 9562, section 4).
const UUID_TEXT_LEN: usize = 36;
const UUID_TEXT_LEN_OCTET: u8 = 36;
/// Set in the first length octet of every long or indefinite form (X.690, 8.1.3).
const LONG_FORM: u8 = 0x80;

/// One of the two private extensions of a federation client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimExtension {
    /// `1.3.6.1.4.1.99999.1`: the grant.
    Grant,
    /// `1.3.6.1.4.1.99999.2`: the subject user.
    Subject,
}

impl ClaimExtension {
    /// Both extensions.
    pub const ALL: [Self; 2] = [Self::Grant, Self::Subject];

    /// The object identifier as its arcs.
    #[must_use]
    pub const fn arcs(self) -> &'static [u64] {
        match self {
            Self::Grant => &[1, 3, 6, 1, 4, 1, 99_999, 1],
            Self::Subject => &[1, 3, 6, 1, 4, 1, 99_999, 2],
        }
    }

    /// The object identifier as DER content octets (no tag, no length).
    #[must_use]
    pub const fn der_content(self) -> &'static [u8] {
        match self {
            Self::Grant => &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x86, 0x8d, 0x1f, 0x01],
            Self::Subject => &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x86, 0x8d, 0x1f, 0x02],
        }
    }

    /// A name for messages: `grant id` or `subject user id`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant id",
            Self::Subject => "subject user id",
        }
    }
}

impl std::fmt::Display for ClaimExtension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with one extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClaimDefect {
    /// The certificate does not carry it.
    #[error("is missing")]
    Missing,
    /// The certificate carries it more than once.
    #[error("occurs more than once")]
    Duplicate,
    /// The value does not start with the UTF8String tag.
    #[error("is not a UTF8String")]
    WrongTag,
    /// The length is in long or indefinite form.
    #[error("has a length that is not in short form")]
    LongFormLength,
    /// The string is not 36 bytes, or is cut short.
    #[error("is not 36 bytes long")]
    WrongLength,
    /// Bytes follow the string.
    #[error("has trailing bytes")]
    TrailingBytes,
    /// The string is not a UUID in canonical lower case.
    #[error("is not a UUID in canonical lower case")]
    NotCanonical,
}

/// Decodes the content of the extension's OCTET STRING: one DER `UTF8String` holding a UUID in
/// canonical lower case.
///
/// # Errors
/// Every [`ClaimDefect`] except `Missing` and `Duplicate`, which only the caller can see.
pub fn decode(value: &[u8]) -> Result<Uuid, ClaimDefect> {
    let (&tag, rest) = value.split_first().ok_or(ClaimDefect::WrongLength)?;
    if tag != TAG_UTF8_STRING {
        return Err(ClaimDefect::WrongTag);
    }
    let (&length, text) = rest.split_first().ok_or(ClaimDefect::WrongLength)?;
    if length & LONG_FORM != 0 {
        return Err(ClaimDefect::LongFormLength);
    }
    if length != UUID_TEXT_LEN_OCTET || text.len() < UUID_TEXT_LEN {
        return Err(ClaimDefect::WrongLength);
    }
    if text.len() > UUID_TEXT_LEN {
        return Err(ClaimDefect::TrailingBytes);
    }
    // The parser also takes upper case and other spellings, so compare with the canonical one.
    let uuid = Uuid::try_parse_ascii(text).map_err(|_| ClaimDefect::NotCanonical)?;
    let mut canonical = Uuid::encode_buffer();
    if uuid.hyphenated().encode_lower(&mut canonical).as_bytes() != text {
        return Err(ClaimDefect::NotCanonical);
    }
    Ok(uuid)
}

/// Encodes `uuid` as [`decode`] reads it: 38 bytes, without the surrounding OCTET STRING.
#[must_use]
pub fn encode(uuid: Uuid) -> Vec<u8> {
    let mut text = Uuid::encode_buffer();
    let text = uuid.hyphenated().encode_lower(&mut text);
    let mut der = Vec::with_capacity(2 + UUID_TEXT_LEN);
    der.extend_from_slice(&[TAG_UTF8_STRING, UUID_TEXT_LEN_OCTET]);
    der.extend_from_slice(text.as_bytes());
    der
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

    fn tlv(tag: u8, length: &[u8], text: &str) -> Vec<u8> {
        [&[tag], length, text.as_bytes()].concat()
    }

    fn refused(value: &[u8], defect: ClaimDefect) {
        assert_eq!(decode(value), Err(defect), "{value:02x?}");
    }

    #[test]
    fn other_types_and_forms_of_length_are_refused() {
        // PrintableString, IA5String, OCTET STRING, constructed UTF8String.
        for tag in [0x13, 0x16, 0x04, 0x2c] {
            refused(&tlv(tag, &[36], UUID), ClaimDefect::WrongTag);
        }
        refused(UUID.as_bytes(), ClaimDefect::WrongTag);
        let nested = tlv(0x04, &[38, 0x0c, 36], UUID);
        refused(&nested, ClaimDefect::WrongTag);
        for long in [&[0x81, 36][..], &[0x82, 0, 36], &[0x80]] {
            refused(&tlv(0x0c, long, UUID), ClaimDefect::LongFormLength);
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        let cut = &UUID[..35];
        let simple = UUID.replace('-', "");
        refused(&[], ClaimDefect::WrongLength);
        refused(&[0x0c], ClaimDefect::WrongLength);
        refused(&tlv(0x0c, &[0], ""), ClaimDefect::WrongLength);
        refused(&tlv(0x0c, &[35], cut), ClaimDefect::WrongLength);
        refused(&tlv(0x0c, &[36], cut), ClaimDefect::WrongLength);
        refused(
            &tlv(0x0c, &[37], &format!("{UUID}0")),
            ClaimDefect::WrongLength,
        );
        refused(&tlv(0x0c, &[32], &simple), ClaimDefect::WrongLength);
        refused(
            &tlv(0x0c, &[36], &format!("{UUID}\0")),
            ClaimDefect::TrailingBytes,
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            UUID.to_uppercase(),
            UUID.replace('-', "0"),
            UUID.replace('-', "_"),
            UUID.replace('f', "g"),
            "{6f9619ff8b864011b42d00cf4fc964ff}00".to_owned(),
            // 36 bytes of UTF-8 that begin with a full-width digit.
            "\u{ff16}f9619ff-8b86-4011-b42d-00cf4fc964".to_owned(),
        ] {
            refused(&tlv(0x0c, &[36], &text), ClaimDefect::NotCanonical);
        }
    }

    #[test]
    fn the_two_object_identifiers_differ_and_match_their_arcs() {
        for extension in ClaimExtension::ALL {
            let oid = x509_parser::der_parser::Oid::from(extension.arcs()).unwrap();
            assert_eq!(oid.as_bytes(), extension.der_content());
        }
        assert_ne!(ClaimExtension::Grant.arcs(), ClaimExtension::Subject.arcs());
    }

    proptest! {
        #[test]
        fn round_trip(bits: u128) {
            let uuid = Uuid::from_u128(bits);
            prop_assert_eq!(decode(&encode(uuid)), Ok(uuid));
        }

        #[test]
        fn whatever_decodes_is_canonical(mut value in proptest::collection::vec(any::<u8>(), 38), bits: u128, at in 0usize..38) {
            // Start near a valid value: random bytes alone would never decode.
            let valid = encode(Uuid::from_u128(bits));
            let flipped = value[at];
            value = valid;
            value[at] = flipped;
            if let Ok(uuid) = decode(&value) {
                prop_assert_eq!(encode(uuid), value);
            }
        }
    }
}
