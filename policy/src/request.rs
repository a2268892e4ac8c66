//! The inputs of a decision, parsed; nothing else goes in.
//!
//! Invariant: the verb and the resource arrive as the peer wrote them, because knowing them is the first two steps of
//! the decision; everything else is a type that cannot be wrong.
//! Elsewhere on purpose: HTTP, bodies and cursors (the proxy).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::id::{GrantId, IdError, SubjectId, UserId};
use crate::reach::RowLimit;
use crate::resource::Resource;
use crate::time::UnixMillis;

/// One question of a peer.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The grant of the certificate.
    pub grant: GrantId,
    /// The subject of the certificate.
    pub subject: SubjectId,
    /// The present.
    pub now: UnixMillis,
    /// The verb, as written.
    pub verb: &'a str,
    /// The resource, as written; none for capabilities.
    pub resource: Option<&'a str>,
    /// The number of rows asked for, if any.
    pub limit: Option<RowLimit>,
}

/// The id of a row that `get` asks for: 1 to 256 bytes, no control characters, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemId(UserId);

/// The text is not an id that a row can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemIdError {
    /// Not an identifier.
    #[error(transparent)]
    Text(#[from] IdError),
    /// `.` or `..`, which would name another path of the gateway.
    #[error("an id cannot be `.` or `..`")]
    Dots,
}

impl ItemId {
    /// Parses an id, percent-decoded already.
    ///
    /// # Errors
    /// [`ItemIdError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, ItemIdError> {
        if matches!(text, "." | "..") {
            return Err(ItemIdError::Dots);
        }
        Ok(Self(UserId::parse(text)?))
    }

    /// The id as the gateway writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `params.filter`: members that must equal a string; every key is one that the resource lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryFilter(BTreeMap<&'static str, String>);

/// Why a filter is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not an object.
    #[error("a filter is an object of strings")]
    NotAnObject,
    /// A key that the resource does not list.
    #[error("{resource} cannot be filtered by that key; it takes: {}", .resource.filter_keys().join(", "))]
    UnknownKey {
        /// The resource.
        resource: Resource,
    },
    /// A value that is no string of 1 to 256 bytes without control characters.
    #[error("the filter {key} must be a string of 1 to 256 bytes")]
    Value {
        /// The key.
        key: &'static str,
    },
    /// A `kind` that memory does not have.
    #[error("the filter kind must be insight or preference")]
    Kind,
}

impl QueryFilter {
    /// Parses `params.filter` of a question about `resource`; null is an empty filter.
    ///
    /// # Errors
    /// [`FilterError`] for the first thing wrong.
    pub fn parse(resource: Resource, value: &Value) -> Result<Self, FilterError> {
        let none = Map::new();
        let members = match value {
            Value::Null => &none,
            Value::Object(members) => members,
            _ => return Err(FilterError::NotAnObject),
        };
        let mut filter = BTreeMap::new();
        for (name, value) in members {
            let key = *resource
                .filter_keys()
                .iter()
                .find(|key| *key == name)
                .ok_or(FilterError::UnknownKey { resource })?;
            let text = value
                .as_str()
                .filter(|text| UserId::parse(text).is_ok())
                .ok_or(FilterError::Value { key })?;
            if key == "kind" && !matches!(text, "insight" | "preference") {
                return Err(FilterError::Kind);
            }
            filter.insert(key, text.to_owned());
        }
        Ok(Self(filter))
    }

    /// The value that a key must have, if the filter names it.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// Whether the filter names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn item_ids() {
        for bad in ["", ".", "..", "a\0", &"x".repeat(257)] {
            assert!(ItemId::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "...", "a/b", "é", "17"] {
            assert_eq!(ItemId::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn filters_take_listed_keys_and_strings() {
        let parse = |resource, value: Value| QueryFilter::parse(resource, &value);
        assert!(parse(Resource::Tasks, Value::Null).unwrap().is_empty());
        let both = parse(
            Resource::Tasks,
            json!({"status": "done", "missionId": "m1"}),
        )
        .unwrap();
        assert_eq!(
            both.iter().collect::<Vec<_>>(),
            [("missionId", "m1"), ("status", "done")]
        );
        assert_eq!(both.value("status"), Some("done"));
        assert_eq!(
            parse(Resource::Tasks, json!([])),
            Err(FilterError::NotAnObject)
        );
        assert_eq!(
            parse(Resource::Notes, json!({"status": "done"})),
            Err(FilterError::UnknownKey {
                resource: Resource::Notes
            })
        );
        for value in [
            json!(1),
            json!(null),
            json!(""),
            json!("a\n"),
            json!({"eq": "x"}),
        ] {
            assert_eq!(
                parse(Resource::Projects, json!({"status": value})),
                Err(FilterError::Value { key: "status" })
            );
        }
        assert_eq!(
            parse(Resource::Memory, json!({"kind": "x"})),
            Err(FilterError::Kind)
        );
        assert!(parse(Resource::Memory, json!({"kind": "insight"})).is_ok());
    }
}
