//! One question, one hash: the canonical form of a query and its SHA-256.
//!
//! Invariant: two texts of the same question hash alike, two different questions do not. The form is that of RFC 8785
//! (members sorted by UTF-16 code units, no white space); fractions are written in their shortest decimal form.
//! Elsewhere on purpose: where the hash is kept (the audit log).

use std::fmt;

use aws_lc_rs::digest;
use serde_json::{Number, Value};

use crate::resource::Resource;
use crate::verb::Verb;

/// SHA-256 of a query in canonical form; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryHash([u8; 32]);

impl QueryHash {
    /// The hash of verb, resource, params and cursor (specification, section 11). Absent members are null.
    #[must_use]
    pub fn of(
        verb: Verb,
        resource: Option<Resource>,
        params: &Value,
        cursor: Option<&str>,
    ) -> Self {
        // The members in canonical order, without a value made of them first.
        let mut text = String::with_capacity(256);
        text.push_str("{\"cursor\":");
        write_optional(cursor, &mut text);
        text.push_str(",\"params\":");
        write_value(params, &mut text);
        text.push_str(",\"resource\":");
        write_optional(resource.map(Resource::as_str), &mut text);
        text.push_str(",\"verb\":");
        write_string(verb.as_str(), &mut text);
        text.push('}');
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(hash)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for QueryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for QueryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueryHash({self})")
    }
}

/// The canonical text of a JSON value.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if members.len() > 1 {
                members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            }
            out.push('{');
            for (position, (name, member)) in members.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_string(name, out);
                out.push(':');
                write_value(member, out);
            }
            out.push('}');
        }
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_string(text, out),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Null => out.push_str("null"),
    }
}

/// A whole number has one text, whether it was written `1`, `1.0` or `1e0`.
fn number_text(number: &Number) -> String {
    // Below 2^53 every whole float is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < EXACT => {
            // `+ 0.0` makes of -0 the 0 it is equal to.
            format!("{}", float + 0.0)
        }
        _ => number.to_string(),
    }
}

fn write_optional(text: Option<&str>, out: &mut String) {
    match text {
        Some(text) => write_string(text, out),
        None => out.push_str("null"),
    }
}

fn write_string(text: &str, out: &mut String) {
    if text
        .bytes()
        .all(|byte| byte >= b' ' && !matches!(byte, b'"' | b'\\'))
    {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    // serde_json escapes exactly what RFC 8785 asks for: quote, backslash and control characters.
    out.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn canonical(text: &str) -> String {
        canonical_json(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn spelling_does_not_matter() {
        assert_eq!(
            canonical("{ \"b\" : [ 1.0 , 2e0, -0.0, 1.5 ], \"a\": \"\\u0041\\u000a\\/\" }"),
            r#"{"a":"A\n/","b":[1,2,0,1.5]}"#
        );
        // UTF-16 order: U+1D11E (surrogates, 0xD834) sorts before U+FB33.
        assert_eq!(
            canonical("{\"\u{fb33}\":1,\"\u{1d11e}\":2}"),
            "{\"\u{1d11e}\":2,\"\u{fb33}\":1}"
        );
    }

    #[test]
    fn a_known_hash() {
        // sha256 of {"cursor":null,"params":{"limit":5},"resource":"tasks","verb":"list"}
        let hash = QueryHash::of(
            Verb::List,
            Some(Resource::Tasks),
            &json!({"limit": 5}),
            None,
        );
        assert_eq!(
            hash.to_string(),
            "0a168cd64e2b9d2fd62d98edf627cc479a795eefe8d9a566d335b7d2aa79c069"
        );
    }

    #[test]
    fn every_part_counts() {
        let params = json!({});
        let base = QueryHash::of(Verb::List, Some(Resource::Tasks), &params, None);
        for other in [
            QueryHash::of(Verb::Get, Some(Resource::Tasks), &params, None),
            QueryHash::of(Verb::List, Some(Resource::Notes), &params, None),
            QueryHash::of(Verb::List, None, &params, None),
            QueryHash::of(
                Verb::List,
                Some(Resource::Tasks),
                &json!({"limit": 1}),
                None,
            ),
            QueryHash::of(Verb::List, Some(Resource::Tasks), &params, Some("")),
        ] {
            assert_ne!(base, other);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // Not every float: serde_json reads some of them back one bit off.
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_hash_is_that_of_the_whole_question_in_canonical_form(params in any_json(), cursor in proptest::option::of(".{0,8}")) {
            let question = json!({"verb": "get", "resource": "notes", "params": params, "cursor": cursor});
            let expected = digest::digest(&digest::SHA256, canonical_json(&question).as_bytes());
            let hash = QueryHash::of(Verb::Get, Some(Resource::Notes), &params, cursor.as_deref());
            prop_assert_eq!(hash.as_bytes(), expected.as_ref());
        }

        #[test]
        fn the_form_is_a_fixed_point(value in any_json()) {
            let text = canonical_json(&value);
            prop_assert_eq!(canonical(&text), text);
        }
    }
}
