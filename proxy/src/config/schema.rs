//! The JSON Schema of the settings, and what a key may hold according to it.
//!
//! Invariant: bounds, choices and types come from the types in `settings.rs` through the schema; there is no
//! second list. Only the part of JSON Schema that those types produce is understood here.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::settings::Settings;

/// The JSON Schema (2020-12) of `federation.toml`.
#[must_use]
pub fn settings_schema() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<Settings>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), "Settings of mosaic-federation".into());
    }
    schema
}

/// What a key may hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind<'s> {
    /// A section with known keys.
    Section(&'s Map<String, Value>),
    /// A table with free keys and text values.
    TextMap,
    /// A list of texts.
    TextList,
    /// A text.
    Text,
    /// One of these words.
    Choice(Vec<&'s str>),
    /// A whole number within bounds.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
}

impl Kind<'_> {
    /// In words, for messages and the reference.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Section(_) => "a section".to_owned(),
            Self::TextMap => "a table of texts".to_owned(),
            Self::TextList => "a list of texts".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Boolean => "true or false".to_owned(),
        }
    }
}

/// What the schema node allows; `None` for a node this program never produces.
pub(crate) fn kind_of(node: &Value) -> Option<Kind<'_>> {
    if let Some(words) = choices(node) {
        return Some(Kind::Choice(words));
    }
    if let Some(any) = node.get("anyOf").and_then(Value::as_array) {
        return any
            .iter()
            .find(|one| !is_type(one, "null"))
            .and_then(kind_of);
    }
    if is_type(node, "object") {
        return match node.get("properties").and_then(Value::as_object) {
            Some(properties) => Some(Kind::Section(properties)),
            None => Some(Kind::TextMap),
        };
    }
    if is_type(node, "integer") {
        let bound = |name: &str| {
            let value = node.get(name)?;
            value.as_i64().or_else(|| {
                value
                    .as_f64()
                    .and_then(|float| format!("{float:.0}").parse().ok())
            })
        };
        return Some(Kind::Integer {
            min: bound("minimum").unwrap_or(0),
            max: bound("maximum").unwrap_or(i64::MAX),
        });
    }
    [
        ("boolean", Kind::Boolean),
        ("array", Kind::TextList),
        ("string", Kind::Text),
    ]
    .into_iter()
    .find(|(name, _)| is_type(node, name))
    .map(|(_, kind)| kind)
}

/// The sentence that documents a node.
pub(crate) fn description(node: &Value) -> &str {
    node.get("description")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_type(node: &Value, name: &str) -> bool {
    match node.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(name)),
        _ => false,
    }
}

fn choices(node: &Value) -> Option<Vec<&str>> {
    if let Some(words) = node.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let variants = node.get("oneOf").and_then(Value::as_array)?;
    let mut words = Vec::new();
    for variant in variants {
        match variant.get("const").and_then(Value::as_str) {
            Some(word) => words.push(word),
            None => words.extend(choices(variant)?),
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn every_key(node: &Value, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
        visit(at, node);
        if let Some(Kind::Section(properties)) = kind_of(node) {
            for (key, node) in properties {
                every_key(node, &format!("{at}.{key}"), visit);
            }
        }
    }

    #[test]
    fn every_key_is_understood_and_documented() {
        let schema = settings_schema();
        let mut count = 0;
        every_key(&schema, "", &mut |at, node| {
            count += 1;
            assert!(kind_of(node).is_some(), "{at}: {node}");
            assert!(!description(node).is_empty(), "{at} has no description");
        });
        assert!(count > 40, "{count}");
    }

    #[test]
    fn bounds_and_choices_come_through() {
        let schema = settings_schema();
        let at = |path: &str| kind_of(schema.pointer(path).unwrap());
        assert_eq!(
            at("/properties/limits/properties/facts_cache_ms"),
            Some(Kind::Integer {
                min: 0,
                max: 10_000
            })
        );
        assert_eq!(
            at("/properties/gateway/properties/preset"),
            Some(Kind::Choice(vec!["mosaic", "internal-v1", "mapped"]))
        );
        assert_eq!(
            at("/properties/gateway/properties/assertion"),
            Some(Kind::Choice(vec!["v1"]))
        );
        assert_eq!(
            at("/properties/session/properties/users"),
            Some(Kind::TextMap)
        );
        assert_eq!(
            at("/properties/seal/properties/secret_file"),
            Some(Kind::Text)
        );
        assert_eq!(at("/properties/roles/properties/ask"), Some(Kind::Boolean));
    }
}
