//! The detail of an admin act: a small flat JSON object.
//!
//! Invariant: keys are the program's own, values are numbers, or texts or lists of texts, each escaped and bounded like any other text in
//! a record. Nobody puts a secret here: tokens appear by their first eight characters, keys not at all.

use serde_json::{Map, Value};

use super::text::AuditText;

/// What identifies an admin act beyond its action, peer and grant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditDetail(Map<String, Value>);

impl AuditDetail {
    /// An empty detail.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text, escaped and cut to [`LONG_TEXT`](super::LONG_TEXT) bytes.
    #[must_use]
    pub fn text(mut self, key: &'static str, value: &str) -> Self {
        let safe = AuditText::long(value).as_str().to_owned();
        self.0.insert(key.to_owned(), Value::String(safe));
        self
    }

    /// Adds a count.
    #[must_use]
    pub fn count(mut self, key: &'static str, value: u64) -> Self {
        self.0.insert(key.to_owned(), Value::from(value));
        self
    }

    /// Adds a number that may be below zero.
    #[must_use]
    pub fn integer(mut self, key: &'static str, value: i64) -> Self {
        self.0.insert(key.to_owned(), Value::from(value));
        self
    }

    /// Adds texts, each escaped and cut to [`LONG_TEXT`](super::LONG_TEXT) bytes; the caller bounds how many.
    #[must_use]
    pub fn texts(mut self, key: &'static str, values: impl Iterator<Item = String>) -> Self {
        let safe = values.map(|value| Value::from(AuditText::long(&value).as_str()));
        self.0.insert(key.to_owned(), safe.collect());
        self
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value under a key, as written.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The object as JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Reads back what [`to_json`](Self::to_json) wrote, and nothing else.
    pub(crate) fn stored(text: &str) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let detail: Map<String, Value> = serde_json::from_str(text)?;
        let is_ours = |value: &Value| match value {
            Value::String(_) => true,
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Array(texts) => texts.iter().all(Value::is_string),
            Value::Null | Value::Bool(_) | Value::Object(_) => false,
        };
        if detail.values().all(is_ours) {
            Ok(Self(detail))
        } else {
            Err(serde_json::Error::custom(
                "a value is neither a whole number nor a text nor a list of texts",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_detail_reads_back_and_holds_no_control_character() {
        let detail = AuditDetail::new()
            .text("reason", "left \"us\"\r\n\u{202e}")
            .texts(
                "names",
                ["a\u{202e}".to_owned(), "b".to_owned()].into_iter(),
            )
            .integer("before", -7)
            .count("certificates", 2);
        let json = detail.to_json();
        assert!(!json.chars().any(char::is_control));
        assert!(!json.contains('\u{202e}'));
        assert_eq!(AuditDetail::stored(&json).unwrap(), detail);
        assert_eq!(detail.value("certificates"), Some(&Value::from(2)));
    }

    #[test]
    fn what_is_never_written_is_not_read() {
        for wrong in [
            "[]",
            "{\"a\":1.5}",
            "{\"a\":null}",
            "{\"a\":{}}",
            "{\"a\":[1]}",
            "{\"a\":true}",
        ] {
            assert!(AuditDetail::stored(wrong).is_err(), "{wrong}");
        }
    }
}
