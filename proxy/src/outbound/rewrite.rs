//! One row of a peer, rewritten: `_`-prefixed members out, `_source` in, everything else byte for byte.
//!
//! Invariant: the output is valid JSON, its first member is `_source` with the name given, and no other member at
//! any depth begins with `_`, however the peer spelled it. Numbers and strings are copied, never re-encoded, so
//! nothing is lost to another number format. Members that occur twice are left to the reader, as they came.
//!
//! Finding rows in an answer, and the bounds on their size and depth, is in `answer.rs`.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// The text is not a JSON object in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row is not a JSON object")]
pub struct RowFault;

/// Rewrites the object `row` onto `out`. With `source`, a `_source` member of that name comes first.
///
/// # Errors
/// [`RowFault`] when `row` is not one valid JSON object; `out` then ends in rubbish and must not be used.
pub fn rewrite_object(row: &[u8], source: Option<&str>, out: &mut Vec<u8>) -> Result<(), RowFault> {
    let text = std::str::from_utf8(row).map_err(|_| RowFault)?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err(RowFault);
    }
    // The grammar is checked here; what follows may rely on it and only picks tokens apart.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| RowFault)?;
    let mut copy = Copy {
        tokens: Tokens { rest: text },
        open: Vec::new(),
        after_key: false,
    };
    copy.run(source, out)
}

/// A piece of JSON text that was validated before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// One of `{ } [ ] , :`.
    Mark(u8),
    /// A string with its quotes.
    Text(&'a str),
    /// A number or literal.
    Scalar(&'a str),
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn take(&mut self, len: usize) -> Option<&'a str> {
        let (token, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(token)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.rest = self.rest.trim_ascii_start();
        let bytes = self.rest.as_bytes();
        match *bytes.first()? {
            mark @ (b'{' | b'}' | b'[' | b']' | b',' | b':') => {
                self.take(1).map(|_| Token::Mark(mark))
            }
            b'"' => self.take(string_len(bytes)?).map(Token::Text),
            _ => {
                let ends = |byte: &u8| b",:]}{[ \t\r\n".contains(byte);
                let len = bytes.iter().position(ends).unwrap_or(bytes.len());
                self.take(len).map(Token::Scalar)
            }
        }
    }
}

/// The length of the string at the start of `bytes`, with both quotes.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match (escaped, byte) {
            (true, _) => escaped = false,
            (false, b'\\') => escaped = true,
            (false, b'"') => return at.checked_add(1),
            _ => {}
        }
    }
    None
}

/// An object or array being written.
struct Open {
    object: bool,
    empty: bool,
}

struct Copy<'a> {
    tokens: Tokens<'a>,
    open: Vec<Open>,
    after_key: bool,
}

impl<'a> Copy<'a> {
    fn run(&mut self, source: Option<&str>, out: &mut Vec<u8>) -> Result<(), RowFault> {
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Mark(b'{') => self.begin(true, out),
                Token::Mark(b'[') => self.begin(false, out),
                Token::Mark(mark @ (b'}' | b']')) => {
                    self.open.pop().ok_or(RowFault)?;
                    out.push(mark);
                }
                // Commas and colons are written where members are.
                Token::Mark(_) => {}
                Token::Text(text) if self.expects_key() => self.member(text, out)?,
                Token::Text(text) => {
                    whole_characters(text)?;
                    self.value(text, out);
                }
                Token::Scalar(scalar) => self.value(scalar, out),
            }
            if let (Token::Mark(b'{'), [only], Some(name)) =
                (token, self.open.as_mut_slice(), source)
            {
                tag(name, out)?;
                only.empty = false;
            }
        }
        if self.open.is_empty() {
            Ok(())
        } else {
            Err(RowFault)
        }
    }

    fn expects_key(&self) -> bool {
        !self.after_key && self.open.last().is_some_and(|open| open.object)
    }

    /// The comma that belongs before the next member or element, if any.
    fn separate(&mut self, out: &mut Vec<u8>) {
        if let Some(open) = self.open.last_mut() {
            if !open.empty {
                out.push(b',');
            }
            open.empty = false;
        }
    }

    fn before_value(&mut self, out: &mut Vec<u8>) {
        if self.after_key {
            self.after_key = false;
        } else {
            self.separate(out);
        }
    }

    fn begin(&mut self, object: bool, out: &mut Vec<u8>) {
        self.before_value(out);
        out.push(if object { b'{' } else { b'[' });
        self.open.push(Open {
            object,
            empty: true,
        });
    }

    fn value(&mut self, text: &str, out: &mut Vec<u8>) {
        self.before_value(out);
        out.extend_from_slice(text.as_bytes());
    }

    fn member(&mut self, key: &str, out: &mut Vec<u8>) -> Result<(), RowFault> {
        whole_characters(key)?;
        if is_hidden(key) {
            return self.skip_value();
        }
        self.separate(out);
        out.extend_from_slice(key.as_bytes());
        out.push(b':');
        self.after_key = true;
        Ok(())
    }

    /// Drops the colon and the value that follow a key.
    fn skip_value(&mut self) -> Result<(), RowFault> {
        let mut depth = 0_usize;
        for token in self.tokens.by_ref() {
            match token {
                Token::Mark(b':') if depth == 0 => continue,
                Token::Mark(b'{' | b'[') => depth = depth.saturating_add(1),
                Token::Mark(b'}' | b']') => depth = depth.checked_sub(1).ok_or(RowFault)?,
                Token::Mark(_) | Token::Text(_) | Token::Scalar(_) => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(RowFault)
    }
}

fn tag(source: &str, out: &mut Vec<u8>) -> Result<(), RowFault> {
    out.extend_from_slice(b"\"_source\":");
    serde_json::to_writer(out, source).map_err(|_| RowFault)
}

/// Whether a key (with its quotes) begins with an underscore, written as itself or as an escape.
fn is_hidden(key: &str) -> bool {
    let name = key.strip_prefix('"').unwrap_or(key);
    let escape = name
        .get(..6)
        .is_some_and(|head| head.eq_ignore_ascii_case("\\u005f"));
    name.starts_with('_') || escape && name.starts_with("\\u")
}

/// Refuses escapes of half a character (lone surrogates), which other readers take in different ways.
fn whole_characters(text: &str) -> Result<(), RowFault> {
    if !text.contains("\\u") {
        return Ok(());
    }
    serde_json::from_str::<Cow<'_, str>>(text)
        .map(drop)
        .map_err(|_| RowFault)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn rewritten(row: &str) -> Result<String, RowFault> {
        let mut out = Vec::new();
        rewrite_object(row.as_bytes(), Some("work"), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_source_is_ours_whatever_the_peer_says() {
        for row in [
            r#"{"id":"1"}"#,
            r#"{"_source":"local","id":"1"}"#,
            r#"{"id":"1","_source":"local","_source":"evil"}"#,
            r#"{"\u005fsource":"evil","id":"1"}"#,
            r#"{"\u005Fsource":{"a":[1,{"b":2}]},"id":"1","_cached":true}"#,
            " {\n\"id\" : \"1\" , \"_x\" : [ ] }\t",
        ] {
            assert_eq!(
                rewritten(row).unwrap(),
                r#"{"_source":"work","id":"1"}"#,
                "{row}"
            );
        }
    }

    #[test]
    fn hidden_members_go_at_any_depth() {
        assert_eq!(
            rewritten(r#"{"a":{"_source":"x","b":[{"_y":1},{"_z":2,"c":3},[[{"_w":0}]]]},"_q":1}"#)
                .unwrap(),
            r#"{"_source":"work","a":{"b":[{},{"c":3},[[{}]]]}}"#
        );
    }

    #[test]
    fn values_are_copied_byte_for_byte() {
        let row = r#"{"n":12345678901234567890123456789,"f":1.10e-400,"s":"_not a key\u00e9\ud83d\ude00","t":true,"z":null}"#;
        let expected = row.replacen('{', r#"{"_source":"work","#, 1);
        assert_eq!(rewritten(row).unwrap(), expected);
    }

    #[test]
    fn what_is_not_an_object_is_a_fault() {
        for row in [
            "",
            "null",
            "1",
            "[]",
            "\"x\"",
            "{",
            "{\"a\"}",
            "{\"a\":1,}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{\"a\":\"\\ud800\"}",
            "{\"\\udc00\":1}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":01}",
        ] {
            assert_eq!(rewritten(row), Err(RowFault), "{row}");
        }
        assert_eq!(
            rewrite_object(b"{\"a\":\"\xff\"}", None, &mut Vec::new()),
            Err(RowFault)
        );
    }

    #[test]
    fn a_key_that_only_resembles_an_escape_stays() {
        assert_eq!(
            rewritten(r#"{"\\u005fa":1,"a_":2,"\U":3}"#),
            Err(RowFault),
            "an unknown escape is not JSON"
        );
        assert_eq!(
            rewritten(r#"{"\\u005fa":1,"a_":2}"#).unwrap(),
            r#"{"_source":"work","\\u005fa":1,"a_":2}"#
        );
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\PC\"\\\\_\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[_a\"\\\\]{0,3}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn without_hidden(value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(without_hidden).collect(),
            Value::Object(members) => Value::Object(
                members
                    .into_iter()
                    .filter(|(name, _)| !name.starts_with('_'))
                    .map(|(name, value)| (name, without_hidden(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_tree_would_do(members in prop::collection::vec(("[_a\"\\\\]{0,3}", value()), 0..5), pretty: bool) {
            let row = Value::Object(members.into_iter().collect::<Map<_, _>>());
            let text = if pretty { serde_json::to_string_pretty(&row) } else { serde_json::to_string(&row) }.unwrap();
            let Value::Object(mut expected) = without_hidden(row) else { unreachable!() };
            expected.insert("_source".to_owned(), json!("work"));
            let out = rewritten(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), Value::Object(expected));
        }

        #[test]
        fn it_never_panics(text in "[\\[\\]{}\",:_a\\\\u0 ]{0,40}") {
            let _ = rewritten(&text);
        }
    }
}
