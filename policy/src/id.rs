//! Identifiers, parsed once at the edge and carried as types from then on.
//!
//! Invariant: a value of these types is well formed. UUIDs are accepted in one spelling only (36 bytes, lower case,
//! hyphenated), because two spellings of one id are two keys to anything that compares text.
//! Elsewhere on purpose: peer names (`peer.rs`), certificate encodings of ids (`certs`).

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Longest gateway identifier accepted, in bytes.
pub const MAX_TEXT_ID: usize = 256;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not a UUID in its canonical spelling.
    #[error("not a UUID: write it as 36 characters, lower case, with hyphens")]
    NotCanonicalUuid,
    /// The empty text.
    #[error("an identifier cannot be empty: give the id as the gateway writes it")]
    Empty,
    /// More than [`MAX_TEXT_ID`] bytes.
    #[error("an identifier of {0} bytes is too long: at most 256 are accepted")]
    TooLong(usize),
    /// A control character somewhere in the text.
    #[error("an identifier cannot hold control characters: remove them")]
    ControlCharacter,
}

/// Parses the canonical spelling of a UUID and no other.
///
/// # Errors
/// [`IdError::NotCanonicalUuid`] for upper case, braces, missing hyphens, `urn:uuid:` and anything else.
pub fn parse_canonical_uuid(text: &str) -> Result<Uuid, IdError> {
    let canonical = text.len() == 36
        && text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    if !canonical {
        return Err(IdError::NotCanonicalUuid);
    }
    // 36 bytes leave only the hyphenated form; its hyphens are checked here.
    Uuid::try_parse(text).map_err(|_| IdError::NotCanonicalUuid)
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID; every UUID is a valid id.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID itself.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 16 bytes of the UUID, big endian.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_canonical_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
                })
            }
        }
    };
}

uuid_id! {
    /// One grant: one peer may ask as one subject within one scope. Carried in the peer's certificate.
    GrantId
}
uuid_id! {
    /// One peer: the other side of a federation pair, with any number of grants.
    PeerId
}
uuid_id! {
    /// The user a grant speaks for, as the certificate names them. See [`SubjectId::of_user`].
    SubjectId
}

impl SubjectId {
    /// The subject of a gateway user: the id itself when it is a canonical UUID, else
    /// `uuid5(uuid5(NAMESPACE_DNS, "mosaic.federation.subject"), user)` (specification, section 2).
    #[must_use]
    pub fn of_user(user: &UserId) -> Self {
        parse_canonical_uuid(user.as_str()).map_or_else(
            |_| {
                let namespace = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"mosaic.federation.subject");
                Self(Uuid::new_v5(&namespace, user.as_str().as_bytes()))
            },
            Self,
        )
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an identifier of 1 to 256 bytes without control characters.
            ///
            /// # Errors
            /// [`IdError`] says which of the three rules is broken.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check_text(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The identifier as the gateway writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Sound for map lookups: hash, equality and order are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 256,
                    "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
                })
            }
        }
    };
}

fn check_text(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_TEXT_ID {
        return Err(IdError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(IdError::ControlCharacter);
    }
    Ok(())
}

text_id! {
    /// A user as the gateway names them.
    UserId
}
text_id! {
    /// A team as the gateway names it; an arbitrary string, not a UUID (upstream scope rules).
    TeamId
}
text_id! {
    /// A project as the gateway names it.
    ProjectId
}
text_id! {
    /// A mission as the gateway names it.
    MissionId
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_spelling_is_a_uuid() {
        let canonical = "0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c11";
        assert_eq!(canonical.parse::<GrantId>().unwrap().to_string(), canonical);
        for other in [
            "0190B7C4-5D3E-7A10-8A51-9D0D5F6B2C11",
            "0190b7c45d3e7a108a519d0d5f6b2c11",
            "{0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c11}",
            "urn:uuid:0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c11",
            "0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c11 ",
            "0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c1",
            "0190b7c45-d3e-7a10-8a51-9d0d5f6b2c11",
            "------------------------------------",
            "",
        ] {
            assert_eq!(
                other.parse::<GrantId>(),
                Err(IdError::NotCanonicalUuid),
                "{other}"
            );
        }
    }

    #[test]
    fn subject_of_a_uuid_user_is_that_uuid() {
        let user = UserId::parse("0190b7c4-5d3e-7a10-8a51-9d0d5f6b2c11").unwrap();
        assert_eq!(SubjectId::of_user(&user).to_string(), user.as_str());
    }

    #[test]
    fn subject_of_another_user_is_stable() {
        // Computed independently: python3 uuid.uuid5(uuid.uuid5(NAMESPACE_DNS, 'mosaic.federation.subject'), 'amira').
        let user = UserId::parse("amira").unwrap();
        assert_eq!(
            SubjectId::of_user(&user).to_string(),
            "4557bc19-33d1-593f-b2ea-1ae3355eba87"
        );
        // Upper case is not canonical, so it is a name like any other.
        let upper = UserId::parse("0190B7C4-5D3E-7A10-8A51-9D0D5F6B2C11").unwrap();
        assert_ne!(
            SubjectId::of_user(&upper).to_string(),
            upper.as_str().to_lowercase()
        );
    }

    #[test]
    fn text_ids_have_bounds() {
        assert_eq!(TeamId::parse(""), Err(IdError::Empty));
        assert!(TeamId::parse(&"x".repeat(256)).is_ok());
        assert_eq!(TeamId::parse(&"x".repeat(257)), Err(IdError::TooLong(257)));
        assert_eq!(TeamId::parse("a\nb"), Err(IdError::ControlCharacter));
        assert_eq!(TeamId::parse("a\u{85}b"), Err(IdError::ControlCharacter));
    }

    proptest! {
        #[test]
        fn uuid_ids_round_trip(bytes: [u8; 16]) {
            let id = PeerId::new(Uuid::from_bytes(bytes));
            prop_assert_eq!(id.to_string().parse::<PeerId>().unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), id);
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = text.parse::<SubjectId>();
            let _ = UserId::parse(&text);
        }
    }
}
